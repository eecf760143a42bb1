"""A trace as we export it: plain values, the same for every encoder and every way of delivery.

Times are integer nanoseconds since the Unix epoch, UTC; ids are raw bytes (16 for a trace, 8 for a span).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from runspan.model import AttributeValue, RunRef


class SpanKind(Enum):
    """Kinds we emit, with the numbers of `opentelemetry.proto.trace.v1.Span.SpanKind`."""

    INTERNAL = 1
    CLIENT = 3


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something at one instant on a span."""

    name: str
    time_ns: int
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])


@dataclass(frozen=True, slots=True)
class Link:
    """A tie to a span of another trace."""

    trace_id: bytes
    span_id: bytes
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span. `error` is None where the status is UNSET, else the description of status ERROR (may be empty)."""

    span_id: bytes
    parent_id: bytes | None
    name: str
    kind: SpanKind
    start_ns: int
    end_ns: int
    attributes: Mapping[str, AttributeValue]
    events: tuple[SpanEvent, ...] = ()
    links: tuple[Link, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The span tree of one run: `spans[0]` is the root, every other span stands after its parent."""

    ref: RunRef
    trace_id: bytes
    resource: Mapping[str, AttributeValue]
    spans: tuple[Span, ...]

    @property
    def root(self) -> Span:
        """The span of the run itself."""
        return self.spans[0]
