"""What a destination's preset says reaches the traces that are sent to it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from runspan.demo.samples import casedev_run
from runspan.demo.world import WorldAgent
from runspan.otlp import presets
from runspan.otlp.base import EncodedTrace
from runspan.pipeline.discovery import Discovery
from tests.ledgers import START_NS, Clock
from tests.pipelines import HOUR, Bench, until, working

ADA = WorldAgent(agent_id="0b9d4c52-7a18-4f3e-9c06-1d2e3f4a5b6c", name="Ada")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "ledger.db", Clock())
    async with bench.simulator:
        yield bench


async def sent(bench: Bench, **destination: Any) -> EncodedTrace:
    """The trace of a run with content, sent to such a destination."""
    bench.add([casedev_run("a", created_at_ns=START_NS - HOUR, agent=ADA, prompt="x" * 20_000)])
    tables = {"destination": destination, "content": {"capture": True}}
    async with bench.pipeline(bench.source("casedev"), **tables) as line_up:
        await Discovery(line_up.lines[0], line_up.ledger, line_up.now).poll()
        async with working(line_up):
            await until(lambda: bool(bench.exporter.taken))
    return bench.exporter.taken[0]


async def test_texts_are_cut_to_what_the_backend_keeps(bench: Bench) -> None:
    root = (await sent(bench, preset="tempo")).trace.root
    assert 1800 < len(str(root.attributes["gen_ai.input.messages"]).encode()) <= 2048


@pytest.mark.parametrize(
    ("destination", "conventions"),
    [
        ({"preset": "jaeger"}, set[str]()),
        ({"preset": "phoenix"}, {"openinference"}),
        ({"preset": "phoenix", "conventions": ["gen_ai"]}, set[str]()),
        ({"conventions": ["langfuse"]}, {"langfuse"}),
    ],
)
async def test_names_are_the_presets_or_the_ones_that_were_chosen(
    bench: Bench, destination: dict[str, Any], conventions: set[str]
) -> None:
    spans = (await sent(bench, **destination)).trace.spans
    for span in spans:
        assert {key.partition(".")[0] for key in span.attributes} & {"openinference", "langfuse"} == conventions
    assert spans[0].attributes["gen_ai.operation.name"] == "invoke_agent"


async def test_a_trace_that_is_too_large_is_trimmed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"jaeger": replace(presets.PRESETS["jaeger"], trace_bytes=10_000)}
    monkeypatch.setattr(presets, "PRESETS", small)
    with capture_logs() as logs:
        encoded = await sent(bench, preset="jaeger")
    assert len(encoded.payload) <= 10_000
    told = str(encoded.trace.root.attributes["runspan.trimmed"])
    assert "the content of 1 of" in told
    [line] = [line for line in logs if line["action"] == "trace_trimmed"]
    assert line["event"] == f"run {encoded.trace.ref.run_id} is sent {told}"
