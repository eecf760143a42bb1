"""From a due row to a mark in the ledger: over real HTTP, to a destination that answers as it is told."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from runspan.demo.faults import CutOff, Fault, Hang, Reply, html
from runspan.demo.samples import casedev_run, elizaos_run, flowyble_run, runtype_execution
from runspan.demo.world import WorldAgent
from runspan.errors import LedgerUnusable, SourceBusy
from runspan.http import HELD_AT_ONCE_BYTES
from runspan.ledger import LEASE_NS, RowState
from runspan.metrics import Metrics
from runspan.model import Locator, RunBody
from runspan.otlp.base import Answer, AnswerKind, EncodedTrace
from runspan.otlp.memory import MemoryExporter, accept
from runspan.pipeline.assembly import Pipeline
from runspan.pipeline.discovery import Discovery
from runspan.pipeline.sweep import rows_of_ids
from runspan.quantities import Rate
from runspan.rate import spacing_ns
from runspan.sources.base import Scope, Window
from tests.ledgers import SECOND, START_NS, Clock
from tests.pipelines import HOUR, Bench, NoQuota, advance, counted, pass_time, row_of, states, until, working

OPEN, DUE, EXPORTED, GONE = RowState.OPEN, RowState.DUE, RowState.EXPORTED, RowState.GONE
QUARANTINED, EXPIRED = RowState.QUARANTINED, RowState.EXPIRED
ADA = WorldAgent(agent_id="0b9d4c52-7a18-4f3e-9c06-1d2e3f4a5b6c", name="Ada")


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


async def poll(line_up: Pipeline) -> None:
    for line in line_up.lines:
        await Discovery(line, line_up.ledger, line_up.now).poll()


def ended(count: int, *, first: int = 0, **settings: Any):
    """Runs of case.dev that ended an hour ago or longer."""
    for number in range(first, first + count):
        yield casedev_run(number, created_at_ns=START_NS - HOUR - number * SECOND, agent=ADA, **settings)


async def still(line_up: Pipeline, seconds: float = 0.15) -> None:
    """Long enough for anything that wants to happen."""
    for line in line_up.lines:
        line.wake.set()
    await asyncio.sleep(seconds)


async def work_until(line_up: Pipeline, condition: Callable[[], bool]) -> None:
    async with working(line_up):
        await until(condition)


async def test_a_pipeline_that_ends_closes_its_destination(bench: Bench) -> None:
    async with bench.pipeline(bench.source("casedev")):
        assert not bench.exporter.closed
    assert bench.exporter.closed


@asynccontextmanager
async def one_of_two_missing(bench: Bench, times: float = float("inf")) -> AsyncIterator[tuple[Pipeline, str, str]]:
    """At work, with a run that was exported, and a younger one whose detail is not there so many times."""
    [kept] = bench.add(ended(1))
    async with bench.pipeline(bench.source("casedev")) as line_up:
        await poll(line_up)
        async with working(line_up):
            await until(lambda: states(line_up.ledger) == {kept: EXPORTED})
            [missing] = bench.add(ended(1, first=1))
            bench.simulator.fault("casedev", f"{missing}/details", html(404), times=times)
            await poll(line_up)
            yield line_up, kept, missing


class TestStanding:
    async def test_a_run_is_exported_once_it_has_ended_and_settled(self, bench: Bench, clock: Clock):
        [run_id] = bench.add([casedev_run("a", created_at_ns=START_NS, queue_seconds=1, seconds=20, late_rows=1)])
        clock.advance(5)
        async with bench.pipeline(bench.source("casedev", settle="5s", poll_every="10s")) as line_up:
            await poll(line_up)
            async with working(line_up):
                advance(line_up, clock, 10)
                await until(lambda: bench.details_asked()[run_id] == 1)
                await until(lambda: not line_up.outbox.leased)
                assert row_of(line_up.ledger, run_id).state is OPEN

                advance(line_up, clock, 10)
                # It is over now, but has only just been seen so.
                await until(lambda: row_of(line_up.ledger, run_id).state is DUE)
                assert row_of(line_up.ledger, run_id).due_ns == clock.ns + 5 * SECOND
                assert row_of(line_up.ledger, run_id).terminal_seen_ns == clock.ns
                assert bench.exporter.requests == []

                advance(line_up, clock, 5)
                await until(lambda: row_of(line_up.ledger, run_id).state is EXPORTED)
        assert bench.exported == {run_id: 1}
        # The row that was written after the end is in it.
        assert bench.exporter.taken[0].trace.root.attributes["runspan.run.status"] == "completed"
        assert bench.details_asked()[run_id] == 3

    async def test_a_run_that_never_ends_expires_and_is_asked_for_daily(self, bench: Bench, clock: Clock):
        [run_id] = bench.add([casedev_run("a", created_at_ns=START_NS, seconds=None)])
        async with bench.pipeline(bench.source("casedev", open_for="2d")) as line_up:
            await poll(line_up)
            async with working(line_up):
                advance(line_up, clock, 2 * 86_400)
                await until(lambda: row_of(line_up.ledger, run_id).state is EXPIRED)
                assert row_of(line_up.ledger, run_id).due_ns == clock.ns + 24 * HOUR
                [forgotten] = bench.add([casedev_run("b", created_at_ns=START_NS, seconds=None)])
                asked = bench.details_asked()[run_id]
                bench.add([casedev_run("a", created_at_ns=START_NS, seconds=3600)])
                advance(line_up, clock, 23 * 3600)
                await still(line_up)
                assert bench.details_asked()[run_id] == asked
                advance(line_up, clock, 3600)
                await until(lambda: row_of(line_up.ledger, run_id).state is EXPORTED)

                # What has not ended when the ledger forgets its runs never will.
                await poll(line_up)
                advance(line_up, clock, 89 * 86_400)
                await until(lambda: row_of(line_up.ledger, forgotten).state is EXPIRED)
                advance(line_up, clock, 86_400)
                await until(lambda: row_of(line_up.ledger, forgotten).state is GONE)
                assert "retention" in (row_of(line_up.ledger, forgotten).reason or "")

    async def test_a_run_that_never_ends_is_exported_as_it_stands_where_that_is_wished(
        self, bench: Bench, clock: Clock
    ):
        """Whole: what a status alone would tell is no run to look at."""
        run = flowyble_run("a", created_at_ns=START_NS, seconds=None)
        [run_id] = bench.add([run])
        source = bench.source("flowyble", open_for="2d", export_expired=True)
        async with bench.pipeline(source) as line_up:
            [line] = line_up.lines
            line_up.ledger.note_rows(rows_of_ids([(run_id, Locator())], line, clock.ns))
            async with working(line_up):
                await until(lambda: row_of(line_up.ledger, run_id).state is OPEN)
                advance(line_up, clock, 2 * 86_400)
                await until(lambda: row_of(line_up.ledger, run_id).state is EXPORTED)
        [encoded] = bench.exporter.taken
        assert encoded.trace.root.attributes["runspan.incomplete"] is True
        assert len(encoded.trace.spans) > 1

    async def test_a_run_that_is_gone_is_a_row_that_says_so(self, bench: Bench, clock: Clock):
        async with one_of_two_missing(bench) as (line_up, kept, lost):
            await pass_time(line_up, clock, 1, lambda: states(line_up.ledger) == {kept: EXPORTED, lost: GONE})
            assert row_of(line_up.ledger, lost).reason == "the platform no longer has this run"
            assert bench.details_asked()[lost] == 2

    async def test_a_run_that_is_not_there_for_once_is_not_gone(self, bench: Bench, clock: Clock):
        """As where one of several servers behind a balancer says 404 to everything: others come right after it."""
        async with one_of_two_missing(bench, times=1) as (line_up, kept, late):
            await pass_time(line_up, clock, 1, lambda: states(line_up.ledger) == {kept: EXPORTED, late: EXPORTED})

    @pytest.mark.parametrize(("known", "asked"), [(0, 4), (4, 12)])
    async def test_a_gateway_that_says_404_to_everything_makes_no_run_gone(
        self, bench: Bench, clock: Clock, known: int, asked: int
    ):
        bench.add(ended(known))
        async with bench.pipeline(bench.source("casedev", concurrency=2)) as line_up:
            await poll(line_up)
            async with working(line_up):
                await until(lambda: counted(line_up.ledger)[EXPORTED] == known)
                storm = bench.simulator.fault("casedev", "/details", html(404))
                bench.add(ended(3, first=10))
                await poll(line_up)
                await pass_time(
                    line_up, clock, 2 if known == 0 else 100,
                    lambda: max(row.attempts for row in line_up.ledger.runs()) >= asked,
                )  # fmt: skip
                assert counted(line_up.ledger) == Counter({EXPORTED: known, DUE: 3})
                bench.simulator.faults.remove(storm)
                await pass_time(line_up, clock, 100, lambda: counted(line_up.ledger) == {EXPORTED: known + 3})

    async def test_where_no_run_has_ever_come_one_is_gone_that_is_not_there_for_half_a_minute(
        self, bench: Bench, clock: Clock
    ):
        [run_id] = bench.add(ended(1))
        bench.simulator.fault("casedev", f"{run_id}/details", html(404))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            await poll(line_up)
            async with working(line_up):
                await pass_time(line_up, clock, 1, lambda: counted(line_up.ledger) == {GONE: 1})
            assert clock.ns - START_NS > 30 * SECOND

    async def test_an_empty_run_of_elizaos_is_asked_for_again_for_five_minutes(self, bench: Bench, clock: Clock):
        """Its list is ahead of its detail."""
        made = [elizaos_run(n, created_at_ns=START_NS - 60 * SECOND, agent=ADA, seconds=1.0) for n in range(2)]
        comes, stays_away = bench.add(made)
        async with bench.pipeline(bench.source("elizaos")) as line_up:
            await poll(line_up)
            for run_id in (comes, stays_away):
                bench.world.remove("elizaos", run_id)
            async with working(line_up):
                advance(line_up, clock, 6)
                await until(lambda: all(row_of(line_up.ledger, r).attempts == 1 for r in (comes, stays_away)))
                assert set(states(line_up.ledger).values()) == {DUE}
                bench.world.add(made[0])
                advance(line_up, clock, 60)
                await until(lambda: states(line_up.ledger)[comes] is EXPORTED)
                await until(lambda: row_of(line_up.ledger, stays_away).attempts == 2)
                advance(line_up, clock, 240)
                await pass_time(line_up, clock, 1, lambda: states(line_up.ledger)[stays_away] is GONE)

    async def test_what_becomes_skipped_by_its_detail_is_not_exported(self, bench: Bench):
        [run_id] = bench.add([elizaos_run("a", created_at_ns=START_NS - HOUR, agent=ADA, status="muted")])
        async with bench.pipeline(bench.source("elizaos")) as line_up:
            await poll(line_up)
            async with working(line_up):
                await until(lambda: states(line_up.ledger)[run_id] is RowState.SKIPPED)
            assert row_of(line_up.ledger, run_id).reason == "muted"
            assert bench.exporter.requests == []


class TestBadData:
    @pytest.mark.parametrize(
        "effect",
        [html(200), CutOff(honest_length=True), Reply(200, "[" * 100_000), html(403)],
        ids=["HTML", "cut off", "deep", "refused"],
    )
    async def test_an_unusable_run_is_quarantined_after_three_attempts_while_others_pass(
        self, bench: Bench, clock: Clock, effect: Any
    ):
        good = bench.add(ended(5))
        async with bench.pipeline(bench.source("casedev", concurrency=1)) as line_up:
            await poll(line_up)
            async with working(line_up):
                await until(lambda: counted(line_up.ledger) == {EXPORTED: 5})
                [bad] = bench.add(ended(1, first=5))
                bench.simulator.faults.append(Fault("casedev", bad, effect))
                await poll(line_up)
                await pass_time(line_up, clock, 100, lambda: counted(line_up.ledger) == {QUARANTINED: 1, EXPORTED: 5})
                assert bench.details_asked()[bad] == 3
                row = row_of(line_up.ledger, bad)
                assert row.retryable
                assert any(words in (row.reason or "") for words in ("not JSON", "answered 403"))
                assert bench.exported == Counter(good)

                bench.simulator.faults.clear()
                assert line_up.ledger.retry() == 1
                advance(line_up, clock, 100)
                await until(lambda: states(line_up.ledger)[bad] is EXPORTED)

    @pytest.mark.parametrize("known", [0, 4])
    async def test_a_source_that_is_garbled_altogether_has_no_run_quarantined(
        self, bench: Bench, clock: Clock, known: int
    ):
        """The page of a proxy that stands before all of it says nothing of a run."""
        bench.add(ended(known))
        async with bench.pipeline(bench.source("casedev", concurrency=2)) as line_up:
            await poll(line_up)
            async with working(line_up):
                await until(lambda: counted(line_up.ledger)[EXPORTED] == known)
                wall = bench.simulator.fault("casedev", "/details", html(200))
                late = bench.add(ended(3, first=10))
                await poll(line_up)
                for attempt in range(1, 5):
                    await pass_time(
                        line_up,
                        clock,
                        100,
                        lambda attempt=attempt: min(row_of(line_up.ledger, r).attempts for r in late) >= attempt,
                    )
                    # Only the list answers.
                    await poll(line_up)
                assert counted(line_up.ledger) == Counter({EXPORTED: known, DUE: 3})
                bench.simulator.faults.remove(wall)
                await pass_time(line_up, clock, 100, lambda: counted(line_up.ledger) == {EXPORTED: known + 3})

    async def test_no_run_is_quarantined_because_another_comes_at_the_end_of_an_outage(
        self, bench: Bench, clock: Clock
    ):
        bench.add(ended(1))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            await poll(line_up)
            async with working(line_up):
                await until(lambda: counted(line_up.ledger) == {EXPORTED: 1})
                wall = bench.simulator.fault("casedev", "/details", html(200))
                [late] = bench.add(ended(1, first=1))
                await poll(line_up)
                for attempt in (1, 2, 3):
                    if attempt == 3:
                        bench.simulator.faults.remove(wall)
                        bench.simulator.fault("casedev", f"/{late}/details", html(200))
                    advance(line_up, clock, 200)
                    await until(lambda attempt=attempt: row_of(line_up.ledger, late).attempts == attempt)
                assert row_of(line_up.ledger, late).state is DUE
                bench.simulator.faults.clear()
                await pass_time(line_up, clock, 100, lambda: states(line_up.ledger)[late] is EXPORTED)

    async def test_the_last_run_of_all_is_quarantined_too_where_an_older_one_comes(self, bench: Bench, clock: Clock):
        bench.add(ended(1))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            await poll(line_up)
            async with working(line_up):
                await until(lambda: counted(line_up.ledger) == {EXPORTED: 1})
                [bad] = bench.add(ended(1, first=1))
                bench.simulator.faults.append(Fault("casedev", bad, html(200)))
                await poll(line_up)
                for attempt in (1, 2):
                    await until(lambda attempt=attempt: row_of(line_up.ledger, bad).attempts == attempt)
                    advance(line_up, clock, 60)
                await until(lambda: states(line_up.ledger)[bad] is QUARANTINED)

    @pytest.mark.parametrize("method", ["read", "fetch"])
    async def test_a_hole_in_our_reading_costs_one_run(
        self, bench: Bench, clock: Clock, monkeypatch: pytest.MonkeyPatch, method: str
    ):
        bad, *good = bench.add(ended(5))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            source = line_up.lines[0].source
            sound = getattr(source, method)

            def breaks(what: Any, **settings: Any) -> Any:
                ref = getattr(what, "ref", what)
                if ref.run_id == bad:
                    raise KeyError("secret words of a body")
                return sound(what, **settings)

            monkeypatch.setattr(source, method, breaks)
            await poll(line_up)
            async with working(line_up):
                await pass_time(line_up, clock, 1, lambda: counted(line_up.ledger) == {QUARANTINED: 1, EXPORTED: 4})
            row = row_of(line_up.ledger, bad)
            assert "KeyError at breaks" in (row.reason or "")
            assert "secret" not in (row.reason or "")
            assert row.retryable
            assert bench.exported == Counter(good)

    async def test_an_unreadable_body_costs_one_run(self, bench: Bench, clock: Clock):
        bad, *good = bench.add(ended(3))
        bench.simulator.faults.append(Fault("casedev", bad, Reply(200, json.dumps({"status": None}))))
        big, *_ = bench.add(ended(1, first=50, prompt="x" * 3_000_000))
        async with bench.pipeline(bench.source("casedev"), limits={"max_body": "1MB"}) as line_up:
            await poll(line_up)
            async with working(line_up):
                await pass_time(line_up, clock, 1, lambda: counted(line_up.ledger) == {QUARANTINED: 2, EXPORTED: 2})
            assert bench.details_asked()[bad] == 3
            assert "max_body" in (row_of(line_up.ledger, big).reason or "")
            assert bench.exported == Counter(good)
            assert bench.details_asked()[big] == 1

    @pytest.mark.parametrize("known", [0, 3])
    @pytest.mark.parametrize(
        "storm",
        [Reply(200, '{"error": "maintenance"}'), Reply(200, '{"success": false, "data": {}}'), html(400), html(418)],
        ids=["an error with 200", "a failure with 200", "400", "418"],
    )
    async def test_a_platform_that_answers_no_run_at_all_has_none_of_them_quarantined(
        self, bench: Bench, clock: Clock, storm: Reply, known: int
    ):
        bench.add(ended(known))
        async with bench.pipeline(bench.source("casedev", concurrency=2)) as line_up:
            await poll(line_up)
            async with working(line_up):
                await until(lambda: counted(line_up.ledger)[EXPORTED] == known)
                fault = bench.simulator.fault("casedev", "/details", storm)
                bench.add(ended(3, first=10))
                await poll(line_up)
                await pass_time(
                    line_up, clock, 10, lambda: min(r.attempts for r in line_up.ledger.runs(state=DUE)) >= 4
                )
                assert counted(line_up.ledger) == Counter({EXPORTED: known, DUE: 3})
                bench.simulator.faults.remove(fault)
                await pass_time(line_up, clock, 100, lambda: counted(line_up.ledger) == {EXPORTED: known + 3})

    async def test_the_only_run_there_is_is_quarantined_in_the_end(self, bench: Bench, clock: Clock):
        bench.add(ended(1))
        bench.simulator.fault("casedev", "/details", html(400))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            await poll(line_up)
            async with working(line_up):
                await pass_time(line_up, clock, 100, lambda: counted(line_up.ledger) == {QUARANTINED: 1})
            assert clock.ns - START_NS > HOUR

    async def test_a_run_that_always_fails_is_given_up_after_an_hour_while_others_pass(
        self, bench: Bench, clock: Clock
    ):
        bad, *_ = bench.add(ended(2))
        bench.simulator.faults.append(Fault("casedev", bad, html(500)))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            await poll(line_up)
            async with working(line_up):
                for attempt in range(1, 13):
                    await until(lambda attempt=attempt: row_of(line_up.ledger, bad).attempts == attempt)
                    due_ns = row_of(line_up.ledger, bad).due_ns
                    assert due_ns is not None
                    advance(line_up, clock, (due_ns - clock.ns) / SECOND)
                await until(lambda: counted(line_up.ledger) == {QUARANTINED: 1, EXPORTED: 1})
            assert bench.details_asked()[bad] == 13
            assert clock.ns - START_NS > HOUR

    async def test_how_often_a_run_has_failed_is_not_forgotten_by_a_restart(self, bench: Bench, clock: Clock):
        bad, *_ = bench.add(ended(2))
        bench.simulator.faults.append(Fault("casedev", bad, html(500)))
        for attempts in (3, 6, 9, 12):
            async with bench.pipeline(bench.source("casedev")) as line_up:
                await poll(line_up)
                async with working(line_up):
                    failed = partial(lambda enough: row_of(line_up.ledger, bad).attempts >= enough, attempts)
                    await pass_time(line_up, clock, 900, failed)
        async with bench.pipeline(bench.source("casedev")) as line_up, working(line_up):
            await pass_time(line_up, clock, 900, lambda: counted(line_up.ledger) == {QUARANTINED: 1, EXPORTED: 1})

    async def test_a_hole_in_our_asking_quarantines_nothing_while_all_runs_meet_it(
        self, bench: Bench, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ):
        bench.add(ended(4))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            [line] = line_up.lines

            async def fails(*args: object, **settings: object) -> RunBody:
                raise ZeroDivisionError

            async with working(line_up):
                with monkeypatch.context() as patched:
                    patched.setattr(line.source, "fetch", fails)
                    await poll(line_up)
                    await pass_time(
                        line_up, clock, 900, lambda: max(row.attempts for row in line_up.ledger.runs()) >= 20
                    )
                    assert counted(line_up.ledger) == {DUE: 4}
                await pass_time(line_up, clock, 900, lambda: counted(line_up.ledger) == {EXPORTED: 4})


class TestSources:
    async def test_a_refused_key_pauses_its_source_ever_longer_while_others_go_on(self, bench: Bench, clock: Clock):
        refused = bench.add(ended(3))
        other = flowyble_run("b", created_at_ns=START_NS - HOUR)
        bench.add([other])
        sources = (bench.source("casedev", concurrency=1), bench.source("flowyble"))
        async with bench.pipeline(*sources) as line_up:
            casedev, flowyble = line_up.lines
            await Discovery(casedev, line_up.ledger, clock).poll()
            bench.simulator.platforms["casedev"].key = "another"
            with capture_logs() as logs:
                async with working(line_up):
                    pauses: list[float] = []
                    for _ in range(8):
                        asked = len(bench.simulator.asked("casedev", "/details"))
                        await until(lambda asked=asked: casedev.fetching.failures == len(pauses) + 1)
                        pauses.append(casedev.fetching.paused_seconds)
                        asked = len(bench.simulator.asked("casedev", "/details"))
                        advance(line_up, clock, pauses[-1] - 1)
                        await still(line_up, 0.03)
                        assert len(bench.simulator.asked("casedev", "/details")) == asked
                        advance(line_up, clock, 900)
                    line_up.ledger.note_rows(rows_of_ids([(other.run_id, Locator())], flowyble, clock.ns))
                    flowyble.wake.set()
                    await until(lambda: states(line_up.ledger)[other.run_id] is EXPORTED)
                    assert {states(line_up.ledger)[run_id] for run_id in refused} == {DUE}

                    bench.simulator.platforms["casedev"].key = type(bench.simulator.platforms["casedev"]).default_key
                    await pass_time(line_up, clock, 60, lambda: counted(line_up.ledger) == {EXPORTED: 4})
                    assert casedev.fetching.failures == 0
            assert 27 <= pauses[0] <= 33
            assert all(later > earlier * 1.5 for earlier, later in pairwise(pauses[:5]))
            assert max(pauses) <= 990
            complaints = [log for log in logs if log["action"] == "source_refused"]
            assert len(complaints) >= 8
            assert "source casedev" in complaints[0]["event"]
            assert "api_key" in complaints[0]["event"]

    @pytest.mark.parametrize("known", [0, 1])
    async def test_many_runs_that_do_not_come_hold_up_none_that_do(self, bench: Bench, clock: Clock, known: int):
        bench.add(ended(known, first=500))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            [line] = line_up.lines
            async with working(line_up):
                await poll(line_up)
                await until(lambda: counted(line_up.ledger)[EXPORTED] == known)
                bad = bench.add(ended(60, first=100))
                for run_id in bad:
                    bench.simulator.fault("casedev", f"{run_id}/details", html(500))
                await poll(line_up)
                # Behind all of them.
                clock.advance(1)
                good = bench.add(ended(20))
                await poll(line_up)
                begun_ns = clock.ns
                await pass_time(
                    line_up, clock, 0.5, lambda: all(states(line_up.ledger)[run_id] is EXPORTED for run_id in good)
                )
                # Alone for it, the pauses of a source of which nothing comes would have taken a minute by then.
                assert clock.ns - begun_ns < 60 * SECOND
                assert counted(line_up.ledger) == {DUE: 60, EXPORTED: 20 + known}
                assert line.listing.paused_seconds == 0
                assert line.fetching.failures == 0

    async def test_where_no_run_comes_the_lists_are_read_on(self, bench: Bench, clock: Clock):
        bench.add(ended(3))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            [line] = line_up.lines
            await poll(line_up)
            bench.simulator.fault("casedev", "/details", html(500))
            async with working(line_up):
                await until(lambda: line.fetching.failures > 0)
                assert line.fetching.paused_seconds > 0
                assert line.failing is line.fetching
                assert line.listing.paused_seconds == 0

    async def test_a_run_that_is_always_answered_with_429_is_asked_for_ever_more_rarely(
        self, bench: Bench, clock: Clock
    ):
        bad, *good = bench.add(ended(4))
        bench.simulator.fault("casedev", f"{bad}/details", Reply(429, headers={"retry-after": "0"}))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            await poll(line_up)
            async with working(line_up):
                begun_ns = clock.ns
                await pass_time(line_up, clock, 5, lambda: clock.ns - begun_ns > HOUR)
            assert bench.exported == Counter(good)
            assert 8 <= bench.details_asked()[bad] <= 16
            row = row_of(line_up.ledger, bad)
            assert (row.state, row.attempts) == (DUE, 0)

    async def test_a_pause_that_a_platform_asked_for_is_no_fault_of_a_run(self, bench: Bench, clock: Clock):
        bench.add(ended(3))
        busy = bench.simulator.fault("casedev", "/details", Reply(429, headers={"retry-after": "3600"}))

        class OnlyPauses(NoQuota):
            until_ns = 0

            def debit(self, key: str, interval_ns: int) -> int:
                return max(0, self.until_ns - clock.ns)

            def pause(self, key: str, until_ns: int) -> None:
                self.until_ns = until_ns

        async with bench.pipeline(bench.source("casedev"), budget=OnlyPauses()) as line_up:
            [line] = line_up.lines
            await poll(line_up)
            async with working(line_up):
                await until(lambda: line.fetching.failures > 0)
                await until(lambda: not line_up.outbox.leased)
                asked = len(bench.simulator.requests)
                advance(line_up, clock, 1800)
                with pytest.raises(SourceBusy, match="left alone for another 30m"):
                    await line.source.page(Scope(), Window(0), None)
                await still(line_up)
                assert len(bench.simulator.requests) == asked
                assert {row.attempts for row in line_up.ledger.runs()} == {0}
                bench.simulator.faults.remove(busy)
                await pass_time(line_up, clock, 60, lambda: counted(line_up.ledger) == {EXPORTED: 3})

    async def test_runs_that_do_not_end_hold_up_none_that_have(self, bench: Bench, clock: Clock):
        run = partial(runtype_execution, agent=ADA)
        paused = {"seconds": None, "status": "paused"}
        bench.add(run(f"open {n}", created_at_ns=START_NS - n * SECOND, **paused) for n in range(9))

        class NoneForOpen(NoQuota):
            def debit(self, key: str, interval_ns: int) -> int:
                return 10**12 if key.endswith(" open") else 0

        async with bench.pipeline(bench.source("runtype", concurrency=2), budget=NoneForOpen()) as line_up:
            await poll(line_up)
            advance(line_up, clock, 3600)
            over = bench.add(run(n, created_at_ns=clock.ns - 500 * SECOND, seconds=2.0) for n in range(3))
            await poll(line_up)
            async with working(line_up):
                await until(lambda: {states(line_up.ledger)[run_id] for run_id in over} == {EXPORTED})

    async def test_a_source_that_is_down_is_asked_ever_more_rarely_and_loses_nothing(self, bench: Bench, clock: Clock):
        bench.add(ended(30))
        async with bench.pipeline(bench.source("casedev", concurrency=4)) as line_up:
            await poll(line_up)
            down = bench.simulator.fault("casedev", ".*", html(503))
            async with working(line_up):
                for _ in range(100):
                    advance(line_up, clock, 6)
                    await still(line_up, 0.01)
                # Ten minutes of it.
                assert line_up.lines[0].fetching.failures <= 12
                assert len(bench.simulator.asked("casedev", "/details")) <= 12 * 4
                bench.simulator.faults.remove(down)
                # Step by step: the failure of a request that was under way may be told after any one step.
                await pass_time(line_up, clock, 60, lambda: counted(line_up.ledger) == {EXPORTED: 30})

    async def test_open_runs_take_half_the_rate_and_no_more(self, bench: Bench, clock: Clock):
        bench.add([casedev_run(n, created_at_ns=START_NS - n * SECOND, seconds=None) for n in range(4)])
        spent: Counter[str] = Counter()

        class Counting(NoQuota):
            def debit(self, key: str, interval_ns: int) -> int:
                spent[f"{key.rpartition(' ')[2]} {interval_ns}"] += 1
                return 0

        async with bench.pipeline(bench.source("casedev", rate="60/min"), budget=Counting()) as line_up:
            await poll(line_up)
            async with working(line_up):
                advance(line_up, clock, 60)
                await until(lambda: sum(bench.details_asked().values()) == 4)
        assert spent[f"open {2 * spacing_ns(Rate(60, 60))}"] == 4


class Destination(MemoryExporter):
    """Up or down, and it may make a request wait."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.is_up = True
        self.open = asyncio.Event()
        self.open.set()

    def _answer(self, traces: Sequence[EncodedTrace]) -> Answer:
        return accept(traces) if self.is_up else Answer(AnswerKind.RETRY, "HTTP 503")

    async def send(self, traces: Sequence[EncodedTrace]) -> Answer:
        await self.open.wait()
        return await super().send(traces)


class TestDelivery:
    async def test_while_the_destination_is_down_nothing_is_marked_and_only_a_probe_is_fetched(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("runspan.otlp.delivery.BACKOFF_SECONDS", 0.05)
        monkeypatch.setattr("runspan.otlp.delivery.LONGEST_BACKOFF_SECONDS", 0.1)
        clock = bench.clock
        assert isinstance(clock, Clock)
        made = [flowyble_run(n, created_at_ns=START_NS - HOUR) for n in range(20)]
        bench.add([*ended(20), *made])
        destination = bench.exporter = Destination()
        destination.is_up = False
        sources = (bench.source("casedev", concurrency=4), bench.source("flowyble", concurrency=4))
        async with bench.pipeline(*sources) as line_up:
            casedev, flowyble = line_up.lines
            await Discovery(casedev, line_up.ledger, clock).poll()
            ids = [(run.run_id, Locator()) for run in made]
            line_up.ledger.note_rows(rows_of_ids(ids, flowyble, clock.ns))

            def fetched() -> int:
                return sum((bench.details_asked() + bench.details_asked("flowyble")).values())

            async with working(line_up):
                await until(lambda: len(destination.requests) == 1)
                await until(lambda: not line_up.outbox.leased)
                before = fetched()
                probes = len(destination.requests)
                for _ in range(150):
                    advance(line_up, clock, 0.2)
                    await asyncio.sleep(0.004)
                # All that was fetched meanwhile was fetched for a probe, one at a time.
                probes = len(destination.requests) - probes
                assert probes >= 3
                assert fetched() - before <= probes + 1
                assert all(len(request) == 1 for request in destination.requests[1:])
                assert counted(line_up.ledger) == {DUE: 40}

                destination.is_up = True
                await pass_time(line_up, clock, 1, lambda: counted(line_up.ledger) == {EXPORTED: 40})
            assert set(bench.exported.values()) == {1}

    async def test_a_row_is_marked_after_the_acknowledgement_and_its_digest_kept_before_the_sending(self, bench: Bench):
        [run_id] = bench.add(ended(1))
        destination = bench.exporter = Destination()
        destination.open.clear()
        seen: list[tuple[RowState, str | None, str]] = []

        def respond(traces: Sequence[EncodedTrace]) -> Answer:
            with bench.ledger(read_only=True) as other:
                row = row_of(other, run_id)
            seen.append((row.state, row.digest, traces[0].digest))
            return accept(traces)

        destination.respond = respond
        async with bench.pipeline(bench.source("casedev")) as line_up:
            await poll(line_up)
            async with working(line_up):
                await until(lambda: row_of(line_up.ledger, run_id).digest is not None)
                await still(line_up)
                assert row_of(line_up.ledger, run_id).state is DUE
                destination.open.set()
                await until(lambda: row_of(line_up.ledger, run_id).state is EXPORTED)
        [(state, committed, sent)] = seen
        assert state is DUE
        assert committed == sent

    async def test_what_was_sent_and_not_marked_is_sent_again_byte_for_byte(
        self, bench: Bench, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ):
        ids = bench.add(ended(3))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            await poll(line_up)

            def dies(done: Any) -> int:
                raise LedgerUnusable("the disk is gone")

            monkeypatch.setattr(line_up.ledger, "finish", dies)
            with pytest.raises(LedgerUnusable):
                await work_until(line_up, lambda: bool(bench.exporter.taken))
        sent = bench.exported
        with bench.ledger() as ledger:
            assert counted(ledger) == {DUE: 3}
        async with bench.pipeline(bench.source("casedev")) as line_up:
            async with working(line_up):
                await until(lambda: counted(line_up.ledger) == {EXPORTED: 3})
            assert line_up.outbox.differing == 0
        assert bench.exported == sent + Counter(ids)
        assert len({trace.payload for trace in bench.exporter.taken}) == 3

    async def test_a_repeat_with_another_body_keeps_its_ids_and_is_counted(self, bench: Bench, clock: Clock):
        [run_id] = bench.add(ended(1))
        destination = bench.exporter = Destination()
        lost = [Answer(AnswerKind.RETRY, "the acknowledgement was lost")]
        destination.respond = lambda traces: lost.pop() if lost else accept(traces)
        async with bench.pipeline(bench.source("casedev")) as line_up:
            metrics = Metrics(line_up.ledger)
            metrics.watch(line_up)
            await poll(line_up)
            async with working(line_up):
                await until(lambda: len(destination.requests) == 1)
                await until(lambda: not line_up.outbox.leased)
                bench.add(ended(1, model="another/model"))
                with capture_logs() as logs:
                    await pass_time(line_up, clock, 10, lambda: bool(destination.taken))
                    await until(lambda: states(line_up.ledger)[run_id] is EXPORTED)
            first, second = (request[0] for request in destination.requests[:2])
            assert first.trace.trace_id == second.trace.trace_id
            assert first.payload != second.payload
            assert [log["runs"] for log in logs if log["action"] == "repeat_differs"] == [1]
            assert "runspan_repeats_differing_total 1.0" in metrics.expose()[0].decode()

    async def test_runs_in_flight_are_bounded_from_their_fetch_to_their_mark(self, bench: Bench):
        bench.add(ended(40, prompt="x" * 20_000))
        destination = bench.exporter = Destination()
        destination.open.clear()
        async with bench.pipeline(bench.source("casedev", concurrency=2)) as line_up:
            await poll(line_up)
            async with working(line_up):
                await until(lambda: sum(bench.details_asked().values()) >= 2)
                await still(line_up, 0.3)
                assert sum(bench.details_asked().values()) == 2
                destination.open.set()
                await until(lambda: counted(line_up.ledger) == {EXPORTED: 40})
        assert set(bench.exported.values()) == {1}

    async def test_bodies_in_flight_are_bounded_over_all_sources(self, bench: Bench, monkeypatch: pytest.MonkeyPatch):
        bench.add(ended(6, prompt="x" * 100_000))
        bench.add(runtype_execution(key, created_at_ns=START_NS - HOUR, answer="x" * 100_000) for key in range(6))
        destination = bench.exporter = Destination()
        destination.open.clear()
        sources = (bench.source("casedev"), bench.source("runtype"))
        fetched = 0
        async with bench.pipeline(*sources, limits={"max_in_flight": "250KB", "max_body": "120KB"}) as line_up:
            for line in line_up.lines:

                async def counted_fetch(*arguments: Any, fetch: Any = line.source.fetch, **options: Any) -> Any:
                    nonlocal fetched
                    body = await fetch(*arguments, **options)
                    fetched += 1
                    return body

                monkeypatch.setattr(line.source, "fetch", counted_fetch)
            await poll(line_up)
            async with working(line_up):
                # How many are whole by then is chance: all that come share the room.
                await until(lambda: line_up.outbox.in_flight.full)
                await still(line_up, 0.3)
                assert fetched <= 2
                assert line_up.outbox.in_flight.held_bytes <= 250_000 + HELD_AT_ONCE_BYTES
                destination.open.set()
                await until(lambda: counted(line_up.ledger) == {EXPORTED: 12})
            assert line_up.outbox.in_flight.held_bytes == 0
        assert set(bench.exported.values()) == {1}

    async def test_one_poisonous_trace_is_quarantined_and_the_others_pass(self, bench: Bench):
        bad, *good = bench.add(ended(10))
        bench.exporter.respond = lambda traces: (
            Answer(AnswerKind.BAD_DATA, "HTTP 400: bad span")
            if any(trace.trace.ref.run_id == bad for trace in traces)
            else accept(traces)
        )
        async with bench.pipeline(bench.source("casedev")) as line_up:
            await poll(line_up)
            async with working(line_up):
                await until(lambda: counted(line_up.ledger) == {QUARANTINED: 1, EXPORTED: 9})
            assert states(line_up.ledger)[bad] is QUARANTINED
            assert bench.exported == Counter(good)


class TestTogether:
    async def test_two_on_one_ledger_do_each_run_once(self, bench: Bench):
        bench.add(ended(40))
        source = bench.source("casedev", concurrency=4)
        async with bench.pipeline(source) as one, bench.pipeline(source) as other:
            await poll(one)
            async with working(one), working(other):
                await until(lambda: counted(one.ledger) == {EXPORTED: 40})
        assert set(bench.details_asked().values()) == {1}
        assert set(bench.exported.values()) == {1}

    async def test_who_stood_still_for_longer_than_its_leases_sends_nothing_that_another_has_sent(
        self, bench: Bench, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ):
        ids = bench.add(ended(3))
        source = bench.source("casedev")
        async with bench.pipeline(source) as stopped, bench.pipeline(source) as other:
            await poll(stopped)
            goes_on = asyncio.Event()

            async def mapped_late(*arguments: Any, fetch: Any = stopped.lines[0].source.fetch, **options: Any) -> Any:
                body = await fetch(*arguments, **options)
                await goes_on.wait()
                return body

            monkeypatch.setattr(stopped.lines[0].source, "fetch", mapped_late)
            with capture_logs() as logs:
                async with working(stopped):
                    await until(lambda: sum(bench.details_asked().values()) == 3)
                    clock.advance(LEASE_NS / SECOND)
                    async with working(other):
                        await until(lambda: counted(other.ledger) == {EXPORTED: 3})
                    goes_on.set()
                    await until(lambda: not stopped.outbox.leased)
            assert sum(log["runs"] for log in logs if log["action"] == "leases_lost") == 3
        assert bench.exported == Counter(ids)

    async def test_a_stop_finishes_what_is_under_way_and_claims_no_more(self, bench: Bench):
        bench.add(ended(30))
        bench.simulator.faults.append(Fault("casedev", "/details", Hang(), times=0))
        async with bench.pipeline(bench.source("casedev", concurrency=2)) as line_up:
            await poll(line_up)
            async with working(line_up) as (work,):
                await until(lambda: sum(bench.details_asked().values()) >= 3)
                work.stop()
            asked = sum(bench.details_asked().values())
            assert asked < 30
            assert counted(line_up.ledger) == {EXPORTED: asked, DUE: 30 - asked}
            assert all(row.leased_until_ns is None for row in line_up.ledger.runs())

    async def test_what_is_cut_short_is_free_for_others_at_once(self, bench: Bench):
        bench.add(ended(3))
        hang = bench.simulator.fault("casedev", "/details", Hang())
        source = bench.source("casedev")
        async with bench.pipeline(source) as one, bench.pipeline(source) as other:
            await poll(one)
            cut_short = asyncio.create_task(work_until(one, lambda: False))
            await until(lambda: sum(bench.details_asked().values()) == 3)
            cut_short.cancel()
            await asyncio.wait([cut_short])
            bench.simulator.faults.remove(hang)
            assert all(row.leased_until_ns is None for row in other.ledger.runs())
            async with working(other):
                await until(lambda: counted(other.ledger) == {EXPORTED: 3})

    async def test_a_ledger_that_fails_stops_the_work(self, bench: Bench, monkeypatch: pytest.MonkeyPatch):
        bench.add(ended(8))
        async with bench.pipeline(bench.source("casedev", concurrency=2)) as line_up:
            await poll(line_up)

            def dies(*args: Any, **settings: Any) -> Any:
                raise LedgerUnusable("the disk is gone")

            monkeypatch.setattr(line_up.ledger, "about_to_send", dies)
            with pytest.raises(LedgerUnusable):
                await work_until(line_up, lambda: len(bench.details_asked()) >= 4)
        assert bench.exporter.requests == []

    async def test_runs_of_all_platforms_reach_one_destination(self, bench: Bench):
        made = [
            casedev_run("a", created_at_ns=START_NS - HOUR),
            runtype_execution("a", created_at_ns=START_NS - HOUR),
            elizaos_run("a", created_at_ns=START_NS - HOUR, agent=ADA),
        ]
        ids = bench.add(made)
        async with bench.pipeline(*(bench.source(run.platform) for run in made)) as line_up:
            await poll(line_up)
            async with working(line_up):
                await until(lambda: counted(line_up.ledger) == {EXPORTED: 3})
            summaries = {row.ref.run_id: row.summary for row in line_up.ledger.runs()}
        assert bench.exported == Counter(ids)
        for encoded in bench.exporter.taken:
            summary = summaries[encoded.trace.ref.run_id]
            assert summary is not None
            assert summary.trace_id == encoded.trace.trace_id.hex()
            assert summary.step_count == len(encoded.trace.spans) - 1
