"""A trace drawn for the terminal: one line a span, with its bar on the run's time axis.

A solid bar stands where the platform said, a hatched one is inferred, a dotted one was moved or cut to fit. Into a pipe
goes the same text, whole and without colour.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from runspan.cli import figures
from runspan.cli.screen import plain
from runspan.model import AttributeValue
from runspan.trace import Span, SpanEvent, Trace

PIPE_COLUMNS = 120
WIDEST_BAR, NARROWEST_BAR = 48, 16
WIDEST_NAME, NARROWEST_NAME = 60, 24
DEEPEST_INDENT = 18
"""Of the tree's lines; what lies deeper stands below each other."""
MOST_ROWS = 200
"""On a terminal. Of a longer trace the beginning, the end and what failed are shown."""
FIRST_ROWS, LAST_ROWS = 120, 20

ROUNDED_NS = 2_000_000
"""What times and durations of one thing may differ by, since platforms round both."""

BARS = {"reported": "█", "inferred": "▒", "clamped": "▓"}
EVENTS = {"reported": "◆", "inferred": "◇", "clamped": "◆"}
QUEUED = "◂"
LEGEND = {
    "█": "reported",
    "▒": "inferred",
    "▓": "moved or cut to fit",
    "◆": "event",
    "◇": "event at an inferred time",
    "◂": "before the run",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the drawing: a span, or an event on the span above it."""

    prefix: str
    """The lines of the tree that lead to it."""
    below: str
    """The lines that pass what stands under it."""
    name: str
    label: str = ""
    """What tells it from others of its name: `#2`, `final answer`."""
    mark: str
    """What its bar is made of."""
    start_ns: int
    end_ns: int
    duration: str = ""
    tokens: str = ""
    cost: str = ""
    error: str | None = None
    """What failed, and how; None where nothing did."""
    is_span: bool = True


class Waterfall:
    """The drawing, as wide as it is allowed to be."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._rows = list(rows(trace))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = shortened(self._rows) if console.is_terminal else self._rows
        yield from _head(self._trace)
        lines = _Layout(shown, self._trace.root, options.max_width).lines(console)
        yield Text("\n", no_wrap=True, overflow="ignore").join(lines)
        yield from _foot(self._trace)
        yield Text(
            "  ".join(f"{mark} {means}" for mark, means in LEGEND.items() if any(mark == r.mark for r in shown)), "dim"
        )


def print_trace(trace: Trace, console: Console | None = None) -> None:
    """Draw on the terminal, or as plain text of 120 columns into a pipe."""
    console = console or Console()
    if reconfigure := getattr(console.file, "reconfigure", None):
        reconfigure(errors="replace")  # bars are not worth an error where only ASCII is spoken
    if not console.is_terminal:
        console = Console(file=console.file, width=PIPE_COLUMNS, no_color=True, highlight=False)
    console.print(Waterfall(trace))


def rows(trace: Trace) -> Iterator[Row]:
    """The rows in the order of the tree; siblings in the order of their starts."""
    children: dict[bytes | None, list[Span]] = {}
    for span in trace.spans:
        children.setdefault(span.parent_id, []).append(span)
    queue_seconds = trace.root.attributes.get("runspan.run.queue_seconds")
    if isinstance(queue_seconds, float) and queue_seconds > 0:
        queued_ns, start_ns = round(queue_seconds * 1e9), trace.root.start_ns
        yield Row(
            prefix="",
            below="",
            name="queued",
            mark=QUEUED,
            start_ns=start_ns,
            end_ns=start_ns,
            duration=figures.duration(queued_ns),
            is_span=False,
        )
    yield _span_row(trace.root, "", "", None)
    yield from _rows_below(trace.root, children, "")


def _rows_below(parent: Span, children: Mapping[bytes | None, list[Span]], indent: str) -> Iterator[Row]:
    under: list[Span | SpanEvent] = [*parent.events, *children.get(parent.span_id, [])]
    under.sort(key=lambda item: (item.start_ns, -item.end_ns) if isinstance(item, Span) else (item.time_ns, 0))
    for item in under:
        is_last = item is under[-1]
        prefix, below = indent + ("└─ " if is_last else "├─ "), indent + ("   " if is_last else "│  ")
        below = below if len(indent) < DEEPEST_INDENT else indent
        if isinstance(item, Span):
            yield _span_row(item, prefix, below, parent)
            yield from _rows_below(item, children, below)
        else:
            yield _event_row(item, prefix, below)


def _span_row(span: Span, prefix: str, below: str, parent: Span | None) -> Row:
    attributes = span.attributes
    return Row(
        prefix=prefix,
        below=below,
        name=plain(span.name),
        label=_label(span, parent),
        mark=BARS[_timing(attributes)],
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        duration=_duration(span),
        tokens=figures.tokens(attributes),
        cost=plain(figures.cost(attributes)),
        error=_error(span),
    )


def _event_row(event: SpanEvent, prefix: str, below: str) -> Row:
    return Row(
        prefix=prefix,
        below=below,
        name=plain(event.name),
        mark=EVENTS[_timing(event.attributes)],
        start_ns=event.time_ns,
        end_ns=event.time_ns,
        is_span=False,
    )


def _timing(attributes: Mapping[str, AttributeValue]) -> str:
    return str(attributes.get("runspan.timing", "reported"))


def _label(span: Span, parent: Span | None) -> str:
    own = span.attributes
    labels = [str(own[name]) for name in ("runspan.call", "runspan.elizaos.model_type") if name in own]
    number = own.get("runspan.iteration")
    is_shown = span.name.startswith("iteration ") or (parent and parent.attributes.get("runspan.iteration") == number)
    if number is not None and not is_shown:
        labels.append(f"#{number}")
    return plain(" ".join(labels).replace("final_answer", "final answer"))


def _duration(span: Span) -> str:
    """How long the span is, and what the platform said where that is something else."""
    shown_ns = span.end_ns - span.start_ns
    shown, said_ms = figures.duration(shown_ns), span.attributes.get("runspan.reported_duration_ms")
    if isinstance(said_ms, float):
        said_ns = round(said_ms * 1e6)
        return shown if abs(said_ns - shown_ns) <= ROUNDED_NS else f"{shown} of {figures.duration(said_ns)}"
    if _timing(span.attributes) != "inferred":
        return shown
    return "" if shown_ns <= 1 else f"~{shown}"


def _error(span: Span) -> str | None:
    if span.error is None:
        return None
    kind = str(span.attributes.get("error.type", ""))
    return plain(": ".join(part for part in (kind, span.error) if part)) or "failed"


def shortened(rows: Sequence[Row]) -> Sequence[Row]:
    """About `MOST_ROWS` of them: the first, the last, what failed, and what that is part of. Gaps tell their length."""
    if len(rows) <= MOST_ROWS:
        return rows
    kept = {*range(FIRST_ROWS), *range(len(rows) - LAST_ROWS, len(rows))}
    failed = (index for index, row in enumerate(rows) if row.error is not None and index not in kept)
    for index in islice(failed, MOST_ROWS - FIRST_ROWS - LAST_ROWS):
        kept |= {index, *_parents(rows, index)}
    shown: list[Row] = []
    before = -1
    for index in sorted(kept):
        left_out = rows[before + 1 : index]
        shown += [_gap(left_out)] if len(left_out) > 1 else left_out
        shown.append(rows[index])
        before = index
    return shown


def _parents(rows: Sequence[Row], index: int) -> Iterator[int]:
    depth = len(rows[index].prefix)
    for above in range(index - 1, 0, -1):
        if len(rows[above].prefix) < depth:
            depth = len(rows[above].prefix)
            yield above
        if depth <= len("├─ "):
            return


def _gap(rows: Sequence[Row]) -> Row:
    highest = min(rows, key=lambda row: len(row.prefix))
    return Row(
        prefix=highest.prefix[: -len("├─ ")],
        below="",
        name=f"⋮ {len(rows)} more",
        mark="·",
        start_ns=min(row.start_ns for row in rows),
        end_ns=max(row.end_ns for row in rows),
        is_span=False,
    )


class _Layout:
    """The columns and what stands in them."""

    def __init__(self, rows: Sequence[Row], root: Span, width: int) -> None:
        self._rows = rows
        self._root = root
        self._width = width
        columns = {
            "duration": [row.duration for row in rows],
            "tokens": [row.tokens for row in rows],
            "cost": [row.cost for row in rows],
        }
        # What only the run itself has stands in the line of totals.
        of_steps = [row for row in rows if row.prefix]
        filled = {
            head: texts
            for head, texts in columns.items()
            if head == "duration" or any(getattr(row, head) for row in of_steps)
        }
        self._numbers = {head: max(map(cell_len, [head, *texts])) for head, texts in filled.items()}
        numbers_width = sum(2 + cells for cells in self._numbers.values())
        names = max(cell_len(_titled(row)) for row in rows)
        room = width - numbers_width - 1
        self._names = max(min(names, WIDEST_NAME, room - NARROWEST_BAR), min(names, NARROWEST_NAME))
        self._bar = max(min(room - self._names, WIDEST_BAR), NARROWEST_BAR)

    def lines(self, console: Console) -> Iterator[Text]:
        """The heading, and every row with its error below."""
        whole = figures.duration(self._root.end_ns - self._root.start_ns)
        axis = "0" + whole.rjust(self._bar - 1)
        yield Text(f"{' ' * self._names} {axis}{self._cells(self._numbers)}", "dim")
        for row in self._rows:
            style = "red" if row.error is not None else "" if row.is_span else "dim"
            title = _fitted(_titled(row), self._names)
            line = Text.assemble(
                (title[: len(row.prefix)], "dim"),
                (f"{title[len(row.prefix) :]} ", style),
                (self._bar_of(row), style or "cyan"),
                self._cells([getattr(row, head) for head in self._numbers]),
            )
            line.rstrip()
            yield line
            if row.error is not None:
                yield from self._error(row, console)

    def _cells(self, texts: Iterable[str]) -> str:
        columns = zip(texts, self._numbers.values(), strict=True)
        return "".join(" " * (2 + width - cell_len(text)) + text for text, width in columns)

    def _bar_of(self, row: Row) -> str:
        """The row's bar on the root's axis; what has no length is one mark. Padded to the column's width."""
        whole_ns = max(self._root.end_ns - self._root.start_ns, 1)
        first = (row.start_ns - self._root.start_ns) * self._bar // whole_ns
        last = -(-(row.end_ns - self._root.start_ns) * self._bar // whole_ns)
        first = min(max(first, 0), self._bar - 1)
        length = max(min(last, self._bar) - first, 1)
        return (" " * first + row.mark * length).ljust(self._bar)

    def _error(self, row: Row, console: Console) -> Iterator[Text]:
        lead = row.below + "✗ "
        told = Text(row.error or "").wrap(console, max(self._width - cell_len(lead), NARROWEST_NAME))
        for number, line in enumerate(told):
            yield Text.assemble((lead if number == 0 else row.below + "  ", "dim"), (line.plain.rstrip(), "bold red"))


def _titled(row: Row) -> str:
    return row.prefix + row.name + (f"  {row.label}" if row.label else "")


def _fitted(text: str, cells: int) -> str:
    return set_cell_size(text, cells) if cell_len(text) <= cells else set_cell_size(text, cells - 1) + "…"


def _head(trace: Trace) -> Iterator[Text]:
    attributes = trace.root.attributes
    ended = [
        plain(str(attributes[name])) for name in ("runspan.run.status", "runspan.run.stop_reason") if name in attributes
    ]
    style = "red" if trace.root.error is not None else ""
    yield Text.assemble((f"run {plain(trace.ref.run_id)}", "bold"), ("".join(f"  {word}" for word in ended), style))
    started = datetime.fromtimestamp(trace.root.start_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    service = plain(str(trace.resource.get("service.name", "")))
    yield Text(f"trace {trace.trace_id.hex()}  {started}  {service}", "dim")


def _foot(trace: Trace) -> Iterator[Text]:
    """What the run came to, what it is tied to, and what was wrong with it."""
    root = trace.root.attributes
    yield Text(" · ".join(plain(fact) for fact in _totals(trace)), "bold")
    for link in trace.root.links:
        to = str(link.attributes.get("runspan.link", "link")).replace("_", " ")
        run_id = f"{root['runspan.run.parent_id']}  " if to == "parent run" and "runspan.run.parent_id" in root else ""
        yield Text(plain(f"{to}: {run_id}trace {link.trace_id.hex()}"), "dim")
    if root.get("runspan.incomplete"):
        yield Text("! the platform no longer shows all of this run", "yellow")
    problems = root.get("runspan.problems", ())
    for problem in problems if isinstance(problems, tuple) else ():
        yield Text(f"! {plain(problem)}", "yellow")


def _totals(trace: Trace) -> Iterator[str]:
    root = trace.root.attributes
    failed = sum(span.error is not None for span in trace.spans)
    yield f"{len(trace.spans)} {'span' if len(trace.spans) == 1 else 'spans'}" + (
        f", {failed} failed" if failed else ""
    )
    reported, listed = root.get("runspan.run.steps_reported"), root.get("runspan.run.steps_listed")
    if reported is not None and listed is not None and reported != listed:
        yield f"{listed} of {reported} steps listed"
    if counted := figures.tokens(root):
        apart = root.get("runspan.run.unattributed_tokens")
        yield f"{counted} tokens" + (f" ({apart} unattributed)" if apart else "")
    if paid := figures.cost(root):
        notes = {
            "currency assumed": root.get("runspan.run.cost.currency_assumed"),
            "by configured prices": root.get("runspan.run.cost.source") == "local",
        }
        told = ", ".join(note for note, holds in notes.items() if holds)
        yield paid + (f" ({told})" if told else "")
