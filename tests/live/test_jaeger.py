"""All runs of the demo, exported into a real Jaeger and read back, over both ways of OTLP."""

import dataclasses
from pathlib import Path

import pytest

from runspan.trace import Link, Span, Trace
from tests.live.demo import demo_into
from tests.live.jaeger import Jaeger
from tests.live.readback import differences, from_jaeger


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_every_trace_of_the_demo_reads_back_as_it_was_projected(
    jaeger: Jaeger, protocol: str, tmp_path: Path
) -> None:
    endpoint = jaeger.otlp_grpc if protocol == "grpc" else jaeger.otlp_http
    traces = await demo_into({"protocol": protocol, "endpoint": endpoint}, tmp_path)

    for trace in traces:
        assert differences(trace, from_jaeger(jaeger.query, trace.trace_id)) == []

    # The comparison sees what it should: each aspect wrong once, on a trace that has it all.
    trace = next(t for t in traces if t.root.links and t.ref.platform == "runtype")
    found = from_jaeger(jaeger.query, trace.trace_id)
    for aspect, wrong in wrong_traces(trace).items():
        assert any(told.endswith(aspect) for told in differences(wrong, found)), aspect


def wrong_traces(trace: Trace) -> dict[str, Trace]:
    """The trace with one thing wrong, by what the comparison should call it."""
    root, child = trace.spans[0], trace.spans[1]

    def with_child(**changes: object) -> Trace:
        return dataclasses.replace(trace, spans=(root, dataclasses.replace(child, **changes), *trace.spans[2:]))

    def with_root(root: Span) -> Trace:
        return dataclasses.replace(trace, spans=(root, *trace.spans[1:]))

    return {
        "spans": dataclasses.replace(trace, spans=trace.spans[:-1]),
        "resource": dataclasses.replace(trace, resource={**trace.resource, "service.name": "another"}),
        ": name": with_child(name="another"),
        ": parent": with_child(parent_id=b"\1" * 8),
        ": start": with_child(start_ns=child.start_ns - 1),
        ": end": with_child(end_ns=child.end_ns + 1),
        ": tags": with_child(attributes={**child.attributes, "runspan.step": 99}),
        ": status": with_child(error="another"),
        ": links": with_root(dataclasses.replace(root, links=(Link(b"\2" * 16, b"\2" * 8),))),
    }
