"""Runs that the configuration does not want: rows with their reason, fetched only where the list does not tell, and
sent once they are wanted."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runspan.demo.samples import casedev_run, elizaos_run, flowyble_run, runtype_execution
from runspan.demo.world import WorldAgent, WorldRun
from runspan.ledger import RowState
from runspan.model import Locator
from runspan.pipeline.backfill import Backfill
from runspan.pipeline.discovery import Discovery
from runspan.pipeline.report import Report
from runspan.pipeline.request import Request
from runspan.pipeline.standing import is_kept
from runspan.pipeline.sweep import rows_of_ids
from runspan.projection import trace_id
from tests.ledgers import SECOND, START_NS, Clock
from tests.pipelines import HOUR, Bench, counted, row_of, until, working

EXPORTED, SKIPPED, DUE = RowState.EXPORTED, RowState.SKIPPED, RowState.DUE
ADA = WorldAgent(agent_id="0b9d4c52-7a18-4f3e-9c06-1d2e3f4a5b6c", name="Ada")
ENDINGS: dict[str, Any] = {"casedev": casedev_run, "runtype": runtype_execution, "elizaos": elizaos_run}
FAILURE: dict[str, dict[str, Any]] = {
    "casedev": {"status": "failed"},
    "runtype": {"status": "failed"},
    "elizaos": {"error": "the model did not answer"},  # listed as completed all the same
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def bench(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr("runspan.sources.client.ATTEMPTS", 1)
    monkeypatch.setattr("runspan.pipeline.work.BLOCKED_LOOK_SECONDS", 0.01)
    bench = Bench(tmp_path / "ledger.db", clock)
    async with bench.simulator:
        yield bench


def ended(platform: str, key: str, **settings: Any) -> WorldRun:
    return ENDINGS[platform](key, created_at_ns=START_NS - 7 * 60 * SECOND, agent=ADA, seconds=2.0, **settings)


async def look(bench: Bench, platform: str = "casedev", **settings: Any) -> dict[str, tuple[RowState, str | None]]:
    """One look at the list by a daemon that has just been started, and all that is due worked off; gives every row's
    state and reason."""
    async with bench.pipeline(bench.source(platform, **settings)) as line_up:
        await Discovery(line_up.lines[0], line_up.ledger, line_up.now).poll()
        async with working(line_up):
            await until(lambda: not counted(line_up.ledger)[DUE])
        return {row.ref.run_id: (row.state, row.reason) for row in line_up.ledger.runs()}


def kept_of(runs: list[str], bench: Bench, platform: str, fraction: float) -> set[str]:
    tenant = bench.simulator.urls[platform]
    return {run for run in runs if is_kept(trace_id(platform, tenant, run), fraction)}


def fraction_keeping(number: int, runs: list[str], bench: Bench, platform: str) -> float:
    """The trace ids hold the simulator's port, so which runs a share keeps differs from test run to test run."""
    fractions = (step / 10_000 for step in range(10_000))
    return next(fraction for fraction in fractions if len(kept_of(runs, bench, platform, fraction)) == number)


@pytest.mark.parametrize("platform", ENDINGS)
async def test_only_wanted_endings_are_exported_and_the_rest_is_counted_with_its_reason(bench: Bench, platform: str):
    [good, bad] = bench.add([ended(platform, "good"), ended(platform, "bad", **FAILURE[platform])])
    for _ in range(3):
        rows = await look(bench, platform, statuses=["failed", "timeout"])
        assert rows == {good: (SKIPPED, "filtered: success"), bad: (EXPORTED, None)}
    # Only elizaOS' list leaves it open whether a run has failed; and what is known is not asked for at each look.
    assert bench.details_asked(platform)[good] == (1 if platform == "elizaos" else 0)
    assert bench.exported == {bad: 1}


@pytest.mark.parametrize("platform", ENDINGS)
async def test_what_is_wanted_later_is_sent_when_it_is_listed_again(bench: Bench, platform: str):
    runs = bench.add(ended(platform, f"run {n}") for n in range(12))
    half, most = (fraction_keeping(number, runs, bench, platform) for number in (5, 9))
    few, more = (kept_of(runs, bench, platform, fraction) for fraction in (half, most))
    rows = await look(bench, platform, keep_success=half)
    assert {run for run, row in rows.items() if row == (SKIPPED, "sampled out")} == set(runs) - few
    assert set(bench.exported) == few
    await look(bench, platform, keep_success=most)
    assert set(bench.exported) == more
    await look(bench, platform, exclude_agents=[ADA.agent_id])
    assert set(bench.exported) == more
    await look(bench, platform)
    assert bench.exported == dict.fromkeys(runs, 1)


async def test_failures_are_kept_whatever_share_of_successes_is(bench: Bench):
    good = bench.add(ended("casedev", f"good {n}") for n in range(5))
    bad = bench.add(ended("casedev", f"bad {n}", status=status) for n, status in enumerate(["failed", "cancelled"]))
    rows = await look(bench, keep_success=0.0)
    assert rows == dict.fromkeys(good, (SKIPPED, "sampled out")) | dict.fromkeys(bad, (EXPORTED, None))
    assert set(bench.details_asked()) == set(bench.exported) == set(bad)


async def test_a_run_named_by_its_id_is_filtered_by_how_it_ended(bench: Bench):
    runs = bench.add(
        flowyble_run(n, created_at_ns=START_NS - HOUR, status=status)
        for n, status in enumerate(["Completed", "Failed"])
    )
    for _ in range(2):
        async with bench.pipeline(bench.source("flowyble", statuses=["failed"])) as line_up:
            entries = [(run, Locator()) for run in runs]
            line_up.ledger.note_rows(rows_of_ids(entries, line_up.lines[0], line_up.now()))
            async with working(line_up):
                await until(lambda: not counted(line_up.ledger)[DUE])
            assert [row_of(line_up.ledger, run).state for run in runs] == [SKIPPED, EXPORTED]
    assert set(bench.details_asked("flowyble").values()) == {1}


async def test_an_open_run_that_ends_otherwise_than_wanted_is_skipped(bench: Bench, clock: Clock):
    [run] = bench.add([casedev_run("a", created_at_ns=START_NS, seconds=20)])
    assert await look(bench, statuses=["failed"]) == {run: (RowState.OPEN, None)}
    clock.advance(60)
    assert await look(bench, statuses=["failed"]) == {run: (SKIPPED, "filtered: success")}
    assert bench.details_asked() == {}


async def backfill(bench: Bench, *, force: bool = False, **source: Any) -> Report:
    table = bench.source("elizaos", **source)
    request = Request(since="2d", since_ns=time.time_ns() - 48 * HOUR, force=force)
    async with bench.pipeline(table) as line_up:
        return await Backfill(line_up, line_up.lines[0], request).run()


@pytest.mark.parametrize("force", [False, True])
async def test_a_backfill_sends_what_was_filtered_once_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
):
    monkeypatch.setattr("runspan.pipeline.backfill.LOOK_SECONDS", 0.01)
    bench = Bench(tmp_path / "ledger.db", time.time_ns)
    async with bench.simulator:
        began_ns = time.time_ns() - 30 * HOUR
        runs = bench.add(elizaos_run(n, created_at_ns=began_ns + n * SECOND, agent=ADA, seconds=2.0) for n in range(4))
        first = await backfill(bench, statuses=["failed"])
        assert (first.skipped, first.reasons) == (4, {(SKIPPED, "filtered: success"): 4})
        assert bench.exported == {}
        again = await backfill(bench, statuses=["failed"], force=True)
        assert (again.known, again.exported) == (4, 0)
        last = await backfill(bench, force=force)
        assert (last.exported, last.known) == (4, 0)
        assert bench.exported == Counter(runs)
