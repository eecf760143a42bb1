"""A trace drawn for the terminal: one line a span, with its bar on the run's time axis.

A solid bar stands where the platform said, a hatched one is inferred, a dotted one was moved or cut to fit. Into a pipe
goes the same text, whole and without colour.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from runspan.cli import figures
from runspan.cli.layout import Layout, cut
from runspan.cli.rows import BARS, EVENTS, NO_END, Row, rows, shortened
from runspan.terminal import plain
from runspan.trace import Trace

PIPE_COLUMNS = 120
MOST_NAMED = 3
"""Below the drawing, of what failed."""
LONGEST_NAMED = 60

LEGEND = {
    "█": "reported",
    "▒": "inferred",
    "▓": "moved or cut to fit",
    "◆": "event",
    "◇": "event at an inferred time",
    "◂": "before the run",
}
NOT_COUNTED = "( ) not counted: the run's own total is less"


class Waterfall:
    """The drawing, as wide as it is allowed to be."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._rows = list(rows(trace))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = shortened(self._rows) if console.is_terminal else self._rows
        layout = Layout(shown, self._trace.root, options.max_width)
        yield from _folded(_head(self._trace), console, options.max_width)
        yield Text("\n", no_wrap=True, overflow="ignore").join(layout.lines(console))
        yield from _folded(_foot(self._trace, self._rows), console, options.max_width)
        legend = Text("  ".join(_legend(shown, layout.shown)), "dim")
        yield from _folded([legend] if legend else [], console, options.max_width)


def print_trace(trace: Trace, console: Console | None = None) -> None:
    """Draw on the terminal, or as plain text of 120 columns into a pipe."""
    console = console or Console()
    if reconfigure := getattr(console.file, "reconfigure", None):
        reconfigure(errors="replace")  # bars are not worth an error where only ASCII is spoken
    if not console.is_terminal:
        console = Console(file=console.file, width=PIPE_COLUMNS, no_color=True, highlight=False)
    console.print(Waterfall(trace))


def _folded(texts: Iterable[Text], console: Console, width: int) -> Iterator[Text]:
    """Each in as many lines as it takes, none of which ends in blanks."""
    for text in texts:
        for line in text.wrap(console, width):
            line.rstrip()
            yield line


def _legend(shown: Sequence[Row], columns: Sequence[str]) -> Iterator[str]:
    if "bar" in columns:
        yield from (f"{mark} {means}" for mark, means in LEGEND.items() if any(mark == row.mark for row in shown))
    figures_shown = (getattr(row, head) for row in shown for head in columns if head in ("tokens", "cost"))
    if any(figure.startswith("(") for figure in figures_shown):
        yield NOT_COUNTED


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


def _foot(trace: Trace, rows: Sequence[Row]) -> Iterator[Text]:
    """What the run came to, what failed in it, what it is tied to, and what was wrong with it."""
    root = trace.root.attributes
    yield Text(" · ".join(plain(fact) for fact in _totals(trace)), "bold")
    steps = [row for row in rows if row.prefix]
    if failed := [_named(row, row.error_type, trace) for row in steps if row.error is not None]:
        yield Text(f"failed: {_first(failed)}", "bold red")
    if doubtful := [_named(row, row.doubt, trace) for row in steps if row.doubt]:
        yield Text(f"in doubt: {_first(doubtful)}", "yellow")
    for link in trace.root.links:
        to = str(link.attributes.get("runspan.link", "link")).replace("_", " ")
        run_id = f"{root['runspan.run.parent_id']}  " if to == "parent run" and "runspan.run.parent_id" in root else ""
        yield Text(plain(f"{to}: {run_id}trace {link.trace_id.hex()}"), "dim")
    if root.get("runspan.incomplete"):
        yield Text("! the platform no longer shows all of this run", "yellow")
    problems = root.get("runspan.problems", ())
    for problem in problems if isinstance(problems, tuple) else ():
        yield Text(f"! {plain(problem)}", "yellow")


def _named(row: Row, reason: str, trace: Trace) -> str:
    """`execute_tool search_docs at 19.188 s (502)`."""
    called = f"{row.name} {row.label}".strip()
    # Of a call without an end, the start was told.
    is_inferred = row.mark in (BARS["inferred"], EVENTS["inferred"]) and row.doubt != NO_END
    after = figures.duration(row.start_ns - trace.root.start_ns)
    return f"{cut(called, LONGEST_NAMED)} at {'~' if is_inferred else ''}{after}" + (f" ({reason})" if reason else "")


def _first(named: Sequence[str]) -> str:
    more = len(named) - MOST_NAMED
    return ", ".join(named[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _totals(trace: Trace) -> Iterator[str]:
    root = trace.root.attributes
    yield f"{len(trace.spans)} {'span' if len(trace.spans) == 1 else 'spans'}"
    reported, listed = root.get("runspan.run.steps_reported"), root.get("runspan.run.steps_listed")
    if reported is not None and listed is not None and reported != listed:
        yield f"{listed} of {reported} steps listed"
    if spent := figures.tokens_of_run(root):
        yield spent
    if paid := figures.cost(root):
        notes = {
            "currency assumed": root.get("runspan.run.cost.currency_assumed"),
            "by configured prices": root.get("runspan.run.cost.source") == "local",
        }
        told = ", ".join(note for note, holds in notes.items() if holds)
        yield paid + (f" ({told})" if told else "")
