"""Encoded traces for tests of everything behind the projection."""

from collections.abc import Sequence

from runspan.model import RunRef
from runspan.otlp.base import EncodedTrace, Outcome
from runspan.otlp.delivery import Delivery
from runspan.otlp.encode import encode
from runspan.projection import ids
from runspan.trace import Link, Span, SpanEvent, SpanKind, Trace

START_NS = 1_767_225_600_000_000_000


def encoded_trace(run_id: str = "run-1", *, spans: int = 2, padding_bytes: int = 0) -> EncodedTrace:
    """A sound trace of one run: a root with `spans - 1` children, of which the last failed.

    `padding_bytes` go into an attribute of the last span.
    """
    ref = RunRef("casedev", "https://api.example.test", run_id)
    trace_id = ids.trace_id(ref.platform, ref.tenant, run_id)
    root_id = ids.root_span_id(trace_id)
    own = {"runspan.run.id": run_id, "runspan.source": "tests"}
    root = Span(
        span_id=root_id,
        parent_id=None,
        name="invoke_agent tester",
        kind=SpanKind.CLIENT,
        start_ns=START_NS,
        end_ns=START_NS + spans * 1_000_000_000,
        attributes={**own, "gen_ai.usage.input_tokens": 900, "ratio": 0.5, "flag": False, "list": ("a", "ä")},
        events=(SpanEvent("note", START_NS + 1, {"n": 1}),),
        links=(Link(b"\x01" * 16, b"\x02" * 8, {"why": "parent run"}),),
    )
    children = [
        Span(
            span_id=ids.span_id(trace_id, ("tool", str(place))),
            parent_id=root_id,
            name=f"execute_tool tool-{place}",
            kind=SpanKind.INTERNAL,
            start_ns=START_NS + place * 1_000_000_000,
            end_ns=START_NS + (place + 1) * 1_000_000_000,
            attributes={**own, "padding": "x" * (padding_bytes if place == spans - 1 else 0)},
            error="it broke" if place == spans - 1 else None,
        )
        for place in range(1, spans)
    ]
    return encode(Trace(ref=ref, trace_id=trace_id, resource={"service.name": "tests"}, spans=(root, *children)))


async def delivered(delivery: Delivery, traces: Sequence[EncodedTrace]) -> list[Outcome]:
    """What became of each trace, in order."""
    outcomes: dict[int, Outcome] = {}
    async for settled in delivery.deliver(traces):
        assert not outcomes.keys() & settled.keys()
        outcomes |= settled
    return [outcomes[place] for place in range(len(traces))]
