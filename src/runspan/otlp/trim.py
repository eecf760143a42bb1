"""Makes a trace fit a backend that takes no larger one: content goes first, then the last steps, and the root tells."""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import replace

from runspan.model import AttributeValue
from runspan.projection.content import CUT
from runspan.projection.conventions import own, table
from runspan.trace import Span, Trace

_MARK_BYTES = 256
"""More than what tells of the trimming takes."""


def trim(trace: Trace, excess_bytes: int, size: Callable[[Span], int]) -> Trace:
    """The trace with at least `excess_bytes` less, where a span takes `size` bytes.

    Spans lose their content, those first that have the most of it. Where that is not enough the last spans go, which
    are parents of none that stay; at the very end, the last events of the root. `runspan.trimmed` on it says how much.
    """
    excess_bytes += _MARK_BYTES
    spans = list(trace.spans)
    bare = [_without_content(span) for span in spans]
    saved = [size(span) - size(other) for span, other in zip(spans, bare, strict=True)]
    for place in sorted(range(len(spans)), key=lambda place: -saved[place]):
        if excess_bytes <= 0 or saved[place] <= 0:
            break
        spans[place] = bare[place]
        excess_bytes -= saved[place]
    while excess_bytes > 0 and len(spans) > 1:
        excess_bytes -= size(spans.pop())
    root = spans[0]
    if excess_bytes > 0:
        root = _with_events_in(root, size(root) - excess_bytes, size)
    emptied = sum(span is other for span, other in zip(spans, bare, strict=False))
    lost_spans, lost_events = len(trace.spans) - len(spans), len(trace.root.events) - len(root.events)
    left_out = (
        (emptied, f"the content of {emptied} of {len(trace.spans)} spans"),
        (lost_spans, f"the last {lost_spans} of {len(trace.spans)} spans"),
        (lost_events, f"the last {lost_events} of {len(trace.root.events)} events of the run"),
    )
    told = f"without {', '.join(text for count, text in left_out if count)}, since it is larger than the backend takes"
    spans[0] = replace(root, attributes={**root.attributes, own.TRIMMED: told})
    return replace(trace, spans=tuple(spans))


def _without_content(span: Span) -> Span:
    events = tuple(replace(event, attributes=_bare(event.attributes)) for event in span.events)
    return replace(span, attributes=_bare(span.attributes), events=events)


def _bare(attributes: Mapping[str, AttributeValue]) -> Mapping[str, AttributeValue]:
    kept = {key: value for key, value in attributes.items() if not ((row := table.find(key)) and row.is_content)}
    return kept if len(kept) == len(attributes) else {**kept, CUT: True}


def _with_events_in(span: Span, room_bytes: int, size: Callable[[Span], int]) -> Span:
    def with_first(count: int) -> Span:
        return replace(span, events=span.events[:count])

    too_many = bisect_right(range(len(span.events) + 1), room_bytes, key=lambda count: size(with_first(count)))
    return with_first(max(too_many - 1, 0))
