"""Content on its whole way: fetched only where it will be shown, and shown only as its source says."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runspan.demo.samples import casedev_run, runtype_execution
from runspan.demo.world import WorldAgent
from runspan.ledger import RowState
from runspan.pipeline.discovery import Discovery
from tests.ledgers import START_NS, Clock
from tests.pipelines import HOUR, Bench, counted, until, working

ADA = WorldAgent(agent_id="0b9d4c52-7a18-4f3e-9c06-1d2e3f4a5b6c", name="Ada")
ON = {"capture": True}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "ledger.db", Clock())
    async with bench.simulator:
        bench.add([runtype_execution(1, created_at_ns=START_NS - HOUR, agent=ADA, prompt="What of PAT-123?")])
        bench.add([casedev_run(1, created_at_ns=START_NS - HOUR, agent=ADA, prompt="Who is PAT-456?")])
        yield bench


async def exported(bench: Bench, *sources: dict[str, Any], **tables: Any) -> dict[str, str]:
    """The bytes of each platform's trace, as text."""
    async with bench.pipeline(*sources, **tables) as line_up:
        for line in line_up.lines:
            await Discovery(line, line_up.ledger, line_up.now).poll()
        async with working(line_up):
            await until(lambda: counted(line_up.ledger) == {RowState.EXPORTED: len(sources)})
    return {one.trace.ref.platform: repr(one.payload) for one in bench.exporter.taken}


async def test_each_source_shows_what_it_says_itself(bench: Bench):
    sent = await exported(
        bench,
        bench.source("runtype", content={"mask": [r"PAT-\d+"]}),
        bench.source("casedev", content={"prompts": False}),
        content=ON,
    )
    assert "What of [redacted]?" in sent["runtype"]
    assert "PAT-" not in sent["runtype"] + sent["casedev"]
    assert "gen_ai.output.messages" in sent["casedev"]
    assert "gen_ai.input.messages" not in sent["casedev"]


async def test_a_source_without_content_sends_none_beside_one_with_it(bench: Bench):
    sent = await exported(
        bench, bench.source("runtype", content={"capture": False}), bench.source("casedev"), content=ON
    )
    assert "PAT-" not in sent["runtype"]
    assert "Who is PAT-456?" in sent["casedev"]


@pytest.mark.parametrize(
    ("content", "is_asked"),
    [
        ({}, False),
        (ON, True),
        (ON | {"arguments": False}, True),
        (ON | {"results": False}, True),
        (ON | {"arguments": False, "results": False}, False),
    ],
)
async def test_payloads_of_tools_are_asked_for_only_where_they_are_shown(
    bench: Bench, content: dict[str, Any], is_asked: bool
):
    sent = await exported(bench, bench.source("runtype"), content=content)
    paths = [request.path for request in bench.simulator.asked("runtype", "/tool-calls")]
    assert paths
    assert any(not path.endswith("/tool-calls") for path in paths) is is_asked
    assert ("gen_ai.tool.call.arguments" in sent["runtype"]) is content.get("arguments", bool(content))
