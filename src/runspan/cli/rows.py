"""The rows of a drawn trace: spans and events in the order of the tree, each with what is written beside it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from runspan.cli import figures
from runspan.model import AttributeValue
from runspan.terminal import plain
from runspan.trace import Span, SpanEvent, Trace

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
NO_END = "no end told"
SUCCEEDED = {"completed", "ok", "succeeded", "success"}
"""Platforms' words for a tool call that went well."""
_LABELS = ("runspan.call", "runspan.elizaos.model_type", "runspan.elizaos.evaluator")


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
    said: str = ""
    """The duration that was said, where it is another than the one drawn."""
    tokens: str = ""
    cost: str = ""
    error: str | None = None
    """What failed, and how; None where nothing did."""
    error_type: str = ""
    doubt: str = ""
    """Why a tool call that nobody said has failed is none that succeeded."""
    is_span: bool = True

    @property
    def title(self) -> str:
        """The name and what is told beside it."""
        beside = [self.label, "" if self.doubt == NO_END else self.doubt]
        return f"{self.name}  {' '.join(filter(None, beside))}".rstrip()


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
    # Of what starts at once, events come first, since a thought leads to a call; the calls stay in the trace's order.
    under: list[Span | SpanEvent] = [*parent.events, *children.get(parent.span_id, [])]
    under.sort(key=lambda item: item.start_ns if isinstance(item, Span) else item.time_ns)
    for item in under:
        is_last = item is under[-1]
        prefix, below = indent + ("└─ " if is_last else "├─ "), indent + ("   " if is_last else "│  ")
        below = below if len(indent) < DEEPEST_INDENT else indent
        if isinstance(item, Span):
            yield _span_row(item, prefix, below, parent)
            yield from _rows_below(item, children, below)
        else:
            yield _event_row(item, prefix, below, parent)


def _span_row(span: Span, prefix: str, below: str, parent: Span | None) -> Row:
    attributes = span.attributes
    return Row(
        prefix=prefix,
        below=below,
        name=plain(span.name),
        label=_label(span.name, attributes, parent),
        mark=BARS[_timing(attributes)],
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        duration=NO_END if _has_no_end(span) else _duration(span),
        said=_said(span),
        tokens=figures.tokens(attributes),
        cost=plain(figures.cost(attributes)),
        error=None if span.error is None else _error(attributes, span.error),
        error_type=_error_type(attributes),
        doubt=_doubt(span),
    )


def _event_row(event: SpanEvent, prefix: str, below: str, parent: Span) -> Row:
    attributes = event.attributes
    return Row(
        prefix=prefix,
        below=below,
        name=plain(event.name),
        label=_label(event.name, attributes, parent),
        mark=EVENTS[_timing(attributes)],
        start_ns=event.time_ns,
        end_ns=event.time_ns,
        error=_error(attributes, "") if "error.type" in attributes else None,
        error_type=_error_type(attributes),
        is_span=False,
    )


def _timing(attributes: Mapping[str, AttributeValue]) -> str:
    return str(attributes.get("runspan.timing", "reported"))


def _label(name: str, own: Mapping[str, AttributeValue], parent: Span | None) -> str:
    labels = [str(own[label]) for label in _LABELS if label in own]
    if name == "invoke_agent" and "gen_ai.agent.id" in own:
        labels.append(str(own["gen_ai.agent.id"]))
    number = own.get("runspan.iteration")
    is_shown = name.startswith("iteration ") or (parent and parent.attributes.get("runspan.iteration") == number)
    if number is not None and not is_shown:
        labels.append(f"#{number}")
    return plain(" ".join(labels).replace("final_answer", "final answer"))


def _duration(span: Span) -> str:
    """How long the span is, or nothing where nobody knows."""
    shown_ns = span.end_ns - span.start_ns
    shown = figures.duration(shown_ns)
    if _timing(span.attributes) != "inferred" or "runspan.reported_duration_ms" in span.attributes:
        return shown
    return "" if shown_ns <= 1 else f"~{shown}"


def _said(span: Span) -> str:
    said_ms = span.attributes.get("runspan.reported_duration_ms")
    if not isinstance(said_ms, float):
        return ""
    said_ns = round(said_ms * 1e6)
    return "" if abs(said_ns - (span.end_ns - span.start_ns)) <= ROUNDED_NS else figures.duration(said_ns)


def _has_no_end(span: Span) -> bool:
    # Of the run itself it says that the platform no longer shows all of it.
    return span.parent_id is not None and bool(span.attributes.get("runspan.incomplete"))


def _doubt(span: Span) -> str:
    if span.error is not None:
        return ""
    status = plain(str(span.attributes.get("runspan.tool.status", "")))
    return NO_END if _has_no_end(span) else "" if status.lower() in SUCCEEDED else status


def _error_type(attributes: Mapping[str, AttributeValue]) -> str:
    return plain(str(attributes.get("error.type", "")))


def _error(attributes: Mapping[str, AttributeValue], description: str) -> str:
    return ": ".join(part for part in (_error_type(attributes), plain(description)) if part) or "failed"


def shortened(rows: Sequence[Row]) -> Sequence[Row]:
    """About `MOST_ROWS` of them: the first, the last, what failed or may have, and what that is part of.

    Gaps tell their length.
    """
    if len(rows) <= MOST_ROWS:
        return rows
    kept = {*range(FIRST_ROWS), *range(len(rows) - LAST_ROWS, len(rows))}
    between = range(FIRST_ROWS, len(rows) - LAST_ROWS)
    failed = (index for index in between if rows[index].error is not None)
    doubtful = (index for index in between if rows[index].doubt)
    for index in islice(chain(failed, doubtful), MOST_ROWS - FIRST_ROWS - LAST_ROWS):
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
