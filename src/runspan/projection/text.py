"""A trace as text that leaves nothing out: what a reviewer reads, and what a golden file holds."""

import json
from collections.abc import Mapping, Sequence

from runspan.model import AttributeValue
from runspan.trace import Link, Span, SpanEvent, Trace

_NS_PER_SECOND = 1_000_000_000


def trace_text(trace: Trace) -> str:
    """Every id, nanosecond and attribute of the trace, its spans as an indented tree in their order.

    Times are given in nanoseconds since the epoch and in seconds since the run's start.
    """
    lines = [f"trace {trace.trace_id.hex()}", "resource", *_attributes(trace.resource, "  ")]
    depths: dict[bytes | None, int] = {None: -1}
    for span in trace.spans:
        depth = depths[span.span_id] = depths[span.parent_id] + 1
        lines += ["", *_span(span, trace.root.start_ns, "  " * depth)]
    return "\n".join(lines) + "\n"


def _span(span: Span, origin_ns: int, indent: str) -> Sequence[str]:
    inner = indent + "    "
    relative = f"{_seconds(span.start_ns - origin_ns)}-{_seconds(span.end_ns - origin_ns)}"
    status = "UNSET" if span.error is None else f"ERROR {json.dumps(span.error, ensure_ascii=False)}"
    lines = [
        f"{indent}{span.name}  {span.kind.name}  {relative}",
        f"{inner}span {span.span_id.hex()}  {span.start_ns} to {span.end_ns}  {status}",
        *_attributes(span.attributes, inner),
    ]
    for event in span.events:
        lines += _event(event, origin_ns, inner)
    for link in span.links:
        lines += _link(link, inner)
    return lines


def _event(event: SpanEvent, origin_ns: int, indent: str) -> Sequence[str]:
    head = f"{indent}event {event.name}  {_seconds(event.time_ns - origin_ns)}  {event.time_ns}"
    return [head, *_attributes(event.attributes, indent + "    ")]


def _link(link: Link, indent: str) -> Sequence[str]:
    head = f"{indent}link {link.trace_id.hex()} {link.span_id.hex()}"
    return [head, *_attributes(link.attributes, indent + "    ")]


def _attributes(attributes: Mapping[str, AttributeValue], indent: str) -> Sequence[str]:
    return [f"{indent}{key} = {_value(value)}" for key, value in sorted(attributes.items())]


def _value(value: AttributeValue) -> str:
    """As JSON, in which 1, 1.0, true and "1" are told apart."""
    return json.dumps(value, ensure_ascii=False)


def _seconds(duration_ns: int) -> str:
    """Exact, with at least milliseconds: `2.940`, `0.0197500001`."""
    sign, (seconds, rest) = "-" if duration_ns < 0 else "", divmod(abs(duration_ns), _NS_PER_SECOND)
    fraction = f"{rest:09d}".rstrip("0")
    return f"{sign}{seconds}.{fraction:0<3}"
