"""All runs of the demo, exported into a real Jaeger and read back, over both ways of OTLP."""

import dataclasses
from pathlib import Path

import pytest

from runspan.demo import bridge
from runspan.ledger import RowState
from runspan.pipeline.outbox import Parcel
from runspan.trace import Link, Span, Trace
from tests.live.jaeger import Jaeger
from tests.live.readback import differences, from_jaeger

RUNS_OF_THE_DEMO = 38


class Exported(bridge.Shown):
    """Keeps every trace."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Trace] = []

    def add(self, parcel: Parcel, state: RowState) -> None:
        super().add(parcel, state)
        if state is RowState.EXPORTED:
            self.all.append(parcel.encoded.trace)


async def demo_into(jaeger: Jaeger, protocol: str, folder: Path) -> list[Trace]:
    endpoint = jaeger.otlp_grpc if protocol == "grpc" else jaeger.otlp_http
    exported = Exported()
    async with bridge.simulated() as simulator:
        config = bridge.configure(simulator, {"protocol": protocol, "endpoint": endpoint}, folder, "127.0.0.1:0")
        assert await bridge.run(config, simulator, exported, once=True)
    return exported.all


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_every_trace_of_the_demo_reads_back_as_it_was_projected(
    jaeger: Jaeger, protocol: str, tmp_path: Path
) -> None:
    traces = await demo_into(jaeger, protocol, tmp_path)

    assert len(traces) == RUNS_OF_THE_DEMO
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
