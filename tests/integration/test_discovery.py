"""How lists become rows: over real HTTP, into a ledger on disk."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from runspan.demo.faults import Reply, html
from runspan.demo.platforms.flowyble import ListShape
from runspan.demo.samples import casedev_run, elizaos_run, flowyble_run, runtype_execution
from runspan.demo.world import WorldAgent
from runspan.errors import LedgerUnusable, SourceRefused, SourceUnavailable
from runspan.ledger import POLL, Ledger, RowState
from runspan.model import Locator
from runspan.pipeline.assembly import Pipeline
from runspan.pipeline.discovery import Discovery
from runspan.pipeline.sweep import Found
from runspan.sources.base import Listed, Page, Scope, Window
from runspan.sources.runtype import Runtype
from tests.ledgers import SECOND, START_NS, Clock
from tests.pipelines import HOUR, Bench, delete_between_pages, position_ns, row_of, states, until

MINUTE = 60 * SECOND
ADA = WorldAgent(agent_id="0b9d4c52-7a18-4f3e-9c06-1d2e3f4a5b6c", name="Ada")
BO = WorldAgent(agent_id="c7e1f0a3-2b64-4d59-8e17-6f5a4b3c2d1e", name="Bo")
RUN = {"casedev": casedev_run, "runtype": runtype_execution, "elizaos": elizaos_run}
SCOPED = ["runtype", "elizaos"]
SCOPE = {"casedev": "", "runtype": ADA.agent_id, "elizaos": ADA.agent_id}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def bench(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr("runspan.sources.client.ATTEMPTS", 1)
    monkeypatch.setattr("runspan.sources.casedev.PAGE_SIZE", 3)
    monkeypatch.setattr("runspan.sources.runtype.PAGE_LIMIT", 3)
    bench = Bench(tmp_path / "ledger.db", clock)
    for platform in RUN:
        bench.world.add_agent(platform, ADA)
    async with bench.simulator:
        yield bench


def discovery(line_up: Pipeline) -> Discovery:
    [line] = line_up.lines
    return Discovery(line, line_up.ledger, line_up.now)


def at(line_up: Pipeline, scope: str = "") -> int | None:
    return position_ns(line_up.ledger, line_up.lines[0].account, scope)


def runs(platform: str, ages_seconds: list[float], *, agent: WorldAgent = ADA, key: str = "run", **settings: Any):
    """One run each, created so many seconds ago and over after one."""
    short: dict[str, Any] = {"seconds": 1.0, "agent": agent} | settings
    for age in ages_seconds:
        yield RUN[platform](f"{key} {age}", created_at_ns=START_NS - int(age * SECOND), **short)


class TestPositions:
    async def test_a_sweep_that_breaks_off_moves_nothing_and_goes_on_at_its_cursor(self, bench: Bench):
        ids = bench.add(runs("casedev", [60 * n for n in range(1, 11)]))
        fault = bench.simulator.fault("casedev", f"cursor={ids[5]}", html())
        async with bench.pipeline(bench.source("casedev")) as line_up:
            start_ns = START_NS - 24 * HOUR
            [failure] = (await discovery(line_up).poll()).failures
            assert "answered 502" in failure
            assert at(line_up) == start_ns
            assert set(states(line_up.ledger)) == set(ids[:6])

        bench.simulator.faults.remove(fault)
        bench.simulator.requests.clear()
        async with bench.pipeline(bench.source("casedev")) as line_up:
            found = await discovery(line_up).poll()
            assert (found.listed, found.new) == (4, 4)
            assert [request.query.get("cursor") for request in bench.simulator.asked("casedev", "/run")] == [
                ids[5],
                ids[8],
            ]
            assert set(states(line_up.ledger)) == set(ids)
            assert at(line_up) == START_NS - 60 * SECOND

    @pytest.mark.parametrize(
        "instant",
        [
            "BEFORE UPDATE ON sweeps WHEN NEW.finished_ns IS NOT NULL",
            "BEFORE INSERT ON runs WHEN NEW.run_id = '{last}'",
        ],
        ids=["at its cursor", "at its rows"],
    )
    async def test_a_page_and_its_cursor_are_kept_together_or_not_at_all(self, bench: Bench, instant: str):
        """What dies between the rows of a page and its cursor must leave neither."""
        ids = bench.add(runs("casedev", [60 * n for n in range(1, 7)]))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            with closing(sqlite3.connect(bench.path)) as other, other:
                trigger = instant.format(last=ids[-1])
                other.execute(f"CREATE TRIGGER dies {trigger} BEGIN SELECT RAISE(ABORT, 'it died'); END")
            with pytest.raises(LedgerUnusable, match="it died"):
                await discovery(line_up).poll()
            assert set(states(line_up.ledger)) == set(ids[:3])
            assert at(line_up) == START_NS - 24 * HOUR
            with closing(sqlite3.connect(bench.path)) as other, other:
                other.execute("DROP TRIGGER dies")
        async with bench.pipeline(bench.source("casedev")) as line_up:
            await discovery(line_up).poll()
            assert set(states(line_up.ledger)) == set(ids)

    @pytest.mark.parametrize("platform", RUN)
    async def test_each_poll_reads_back_over_the_overlap_and_each_slow_sweep_over_the_lookback(
        self, bench: Bench, clock: Clock, platform: str
    ):
        bench.add(runs(platform, [1]))
        settings = {"overlap": "10m", "lookback": "2h", "start": "24h"}
        async with bench.pipeline(bench.source(platform, **settings)) as line_up:
            await discovery(line_up).poll()
            late = {}
            for name, age_seconds in (("overlap", 500), ("lookback", 7000), ("neither", 7300)):
                [late[name]] = bench.add(runs(platform, [age_seconds], key=name, visible_at_ns=clock.ns + SECOND))
            clock.advance(10)
            await discovery(line_up).poll()
            assert late["overlap"] in states(line_up.ledger)
            assert late["lookback"] not in states(line_up.ledger)
            await discovery(line_up).look_back()
            assert late["lookback"] in states(line_up.ledger)
            assert late["neither"] not in states(line_up.ledger)

    @pytest.mark.parametrize("platform", RUN)
    async def test_equal_instants_over_the_edge_of_a_page_lose_none(self, bench: Bench, clock: Clock, platform: str):
        made = RUN[platform]
        ids = bench.add(made(f"twin {n}", created_at_ns=START_NS - MINUTE, agent=ADA, seconds=1.0) for n in range(8))
        late = made("late", created_at_ns=START_NS - MINUTE, agent=ADA, seconds=1.0, visible_at_ns=START_NS + 1)
        ids += bench.add([late])
        async with bench.pipeline(bench.source(platform, overlap="0s")) as line_up:
            await discovery(line_up).poll()
            assert set(states(line_up.ledger)) == set(ids[:8])
            clock.advance(1)
            # Not a moment of overlap: the position itself is read again.
            await discovery(line_up).poll()
            assert set(states(line_up.ledger)) == set(ids)

    @pytest.mark.parametrize("platform", ["casedev", "runtype"])
    async def test_a_run_dated_into_the_future_does_not_carry_the_position_away(
        self, bench: Bench, clock: Clock, platform: str
    ):
        bench.add(runs(platform, [3600], key="sane"))
        [mad] = bench.add(runs(platform, [-86400 * 300], key="mad", visible_at_ns=START_NS))
        async with bench.pipeline(bench.source(platform)) as line_up:
            for _ in range(2):
                await discovery(line_up).poll()
                assert mad in states(line_up.ledger)
            reached_ns = at(line_up, SCOPE[platform])
            assert reached_ns is not None
            assert START_NS - HOUR <= reached_ns <= START_NS - HOUR + 3 * SECOND
            # Behind our clock, as late as the last sane run: still found.
            [late] = bench.add(runs(platform, [3500], key="late"))
            await discovery(line_up).poll()
            assert late in states(line_up.ledger)

    @pytest.mark.parametrize("platform", RUN)
    @pytest.mark.parametrize(
        ("start", "reach_seconds"),
        [("now", 0), ("2h", 7200), ("2026-05-28T18:26:40Z", 7200)],
        ids=["now", "duration", "timestamp"],
    )
    async def test_nothing_before_the_start_is_ever_read(
        self, bench: Bench, clock: Clock, platform: str, start: str, reach_seconds: int
    ):
        assert START_NS == 1_780_000_000 * SECOND  # 2026-05-28T20:26:40Z
        bench.add(runs(platform, [reach_seconds + 3, reach_seconds + 300, reach_seconds + 80_000], key="before"))
        wanted = bench.add(runs(platform, [reach_seconds - 1, reach_seconds - 3], key="after"))
        async with bench.pipeline(bench.source(platform, start=start)) as line_up:
            for _ in range(2):
                await discovery(line_up).poll()
                await discovery(line_up).look_back()
                clock.advance(HOUR / SECOND)
        # The start is that of the first start, not of each.
        async with bench.pipeline(bench.source(platform, start="7d")) as line_up:
            await discovery(line_up).poll()
            await discovery(line_up).look_back()
            assert set(states(line_up.ledger)) == set(wanted)

    async def test_the_last_agent_starts_when_the_first_one_does(
        self, bench: Bench, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ):
        """Under a small rate its turn comes minutes later; what it ran meanwhile must not be lost."""
        bench.world.add_agent("runtype", BO)
        [meanwhile] = bench.add(runs("runtype", [-60], agent=BO))
        async with bench.pipeline(bench.source("runtype", start="now")) as line_up:
            source = line_up.lines[0].source
            page = source.page

            async def slowly(*args: Any) -> Any:
                clock.advance(600)
                return await page(*args)

            monkeypatch.setattr(source, "page", slowly)
            await discovery(line_up).poll()
            assert meanwhile in states(line_up.ledger)


class TestAgents:
    @pytest.mark.parametrize("platform", SCOPED)
    async def test_a_new_agent_is_read_from_where_its_source_began(self, bench: Bench, clock: Clock, platform: str):
        """That it was in no listing before does not tell that it was not there: a listing may have been cut short."""
        known = bench.add(runs(platform, [60]))
        async with bench.pipeline(bench.source(platform, start="2h")) as line_up:
            await discovery(line_up).poll()
            clock.advance(3 * 3600)
            bench.world.add_agent(platform, BO)
            some = bench.add(runs(platform, [7100, 5, -10, -290], agent=BO))
            bench.add(runs(platform, [7300], agent=BO, key="before the start"))
            await discovery(line_up).poll()
            assert set(states(line_up.ledger)) == {*known, *some}

    @pytest.mark.parametrize("platform", SCOPED)
    async def test_no_agent_at_first_moves_no_start(self, bench: Bench, clock: Clock, platform: str):
        bench.world.remove_agent(platform, ADA.agent_id)
        async with bench.pipeline(bench.source(platform, start="now")) as line_up:
            await discovery(line_up).poll()
            clock.advance(3600)
            bench.world.add_agent(platform, ADA)
            some = bench.add(runs(platform, [-1800]))
            await discovery(line_up).poll()
            assert set(states(line_up.ledger)) == set(some)

    @pytest.mark.parametrize("platform", SCOPED)
    async def test_a_new_agent_is_read_no_further_back_than_the_ledger_remembers(
        self, bench: Bench, clock: Clock, platform: str
    ):
        """What it has forgotten it might send again."""
        async with bench.pipeline(bench.source(platform, start="90d")) as line_up:
            await discovery(line_up).poll()
            clock.advance(10 * 86_400)
            bench.world.add_agent(platform, BO)
            some = bench.add(runs(platform, [79 * 86_400], agent=BO))
            bench.add(runs(platform, [81 * 86_400], agent=BO, key="forgotten"))
            await discovery(line_up).poll()
            assert set(states(line_up.ledger)) == set(some)

    async def test_agents_behind_a_fault_of_their_list_are_read_once_it_is_mended(self, bench: Bench, clock: Clock):
        bench.world.add_agent("runtype", BO)
        [before] = bench.add(runs("runtype", [60], agent=ADA))
        [behind] = bench.add(runs("runtype", [7200], agent=BO))
        row = {"id": ADA.agent_id, "name": ADA.name}
        cut_short = {"data": [row], "pagination": {"nextCursor": None, "hasMore": True}}
        fault = bench.simulator.fault("runtype", r"agents\?limit", Reply(200, json.dumps(cut_short)))
        async with bench.pipeline(bench.source("runtype")) as line_up:
            looking = discovery(line_up)
            with capture_logs() as logs:
                for _ in range(2):
                    [failure] = (await looking.poll()).failures
            assert "the list of agents breaks off, it says that there is more, and not where" in failure
            assert [entry["log_level"] for entry in logs if entry["action"] == "list_broken_off"] == ["error"]
            assert set(states(line_up.ledger)) == {before}
            bench.simulator.faults.remove(fault)
            clock.advance(3600)
            assert (await looking.poll()).failures == []
            assert set(states(line_up.ledger)) == {before, behind}

    @pytest.mark.parametrize("platform", SCOPED)
    async def test_an_agent_that_vanishes_keeps_its_position_and_stops_nobody(
        self, bench: Bench, clock: Clock, platform: str
    ):
        bench.world.add_agent(platform, BO)
        bench.add(runs(platform, [60], agent=BO, key="first"))
        async with bench.pipeline(bench.source(platform)) as line_up:
            await discovery(line_up).poll()
            stood_ns = at(line_up, BO.agent_id)
            bench.world.remove_agent(platform, BO.agent_id)
            clock.advance(7200)
            others = bench.add(runs(platform, [-7000], key="other"))
            await discovery(line_up).poll()
            assert set(others) <= set(states(line_up.ledger))
            assert at(line_up, BO.agent_id) == stood_ns
            unseen = bench.add(runs(platform, [-3600], agent=BO, key="unseen"))
            bench.world.add_agent(platform, BO)
            await discovery(line_up).poll()
            assert set(unseen) <= set(states(line_up.ledger))

    async def test_an_agent_that_does_not_run_is_no_trouble_of_the_source(self, bench: Bench):
        bench.world.add_agent("elizaos", WorldAgent(agent_id=BO.agent_id, name="Bo", active=False))
        async with bench.pipeline(bench.source("elizaos", agents=["Bo"])) as line_up:
            found = await discovery(line_up).poll()
            assert len(found.failures) == 1
            assert line_up.lines[0].listing.failures == 0

    @pytest.mark.parametrize("platform", SCOPED)
    @pytest.mark.parametrize("status", [400, 403, 500])
    async def test_an_agent_that_fails_hides_no_other_and_is_complained_of_once(
        self, bench: Bench, platform: str, status: int
    ):
        bench.world.add_agent(platform, BO)
        hidden = bench.add(runs(platform, [60], agent=ADA))
        others = bench.add(runs(platform, [90], agent=BO))
        quirks = bench.simulator.platforms[platform].quirks
        quirks.failing_agents[ADA.agent_id] = status
        async with bench.pipeline(bench.source(platform)) as line_up:
            looking = discovery(line_up)
            with capture_logs() as logs:
                for _ in range(3):
                    found = await looking.poll()
                    assert len(found.failures) == 1
            assert set(states(line_up.ledger)) == set(others)
            assert [log["scope"] for log in logs if log["action"].startswith("scope_")] == [ADA.agent_id]
            assert at(line_up, ADA.agent_id) == START_NS - 24 * HOUR

            quirks.failing_agents.clear()
            await looking.poll()
            assert set(states(line_up.ledger)) == {*hidden, *others}
            quirks.failing_agents[ADA.agent_id] = status
            with capture_logs() as logs:
                await looking.poll()
            assert [log["scope"] for log in logs if log["action"].startswith("scope_")] == [ADA.agent_id]

    @pytest.mark.parametrize("status", [400, 403, 500])
    async def test_a_source_none_of_whose_lists_can_be_read_is_unavailable(self, bench: Bench, status: int):
        bench.world.add_agent("runtype", BO)
        bench.simulator.platforms["runtype"].quirks.failing_agents.update({ADA.agent_id: status, BO.agent_id: status})
        async with bench.pipeline(bench.source("runtype")) as line_up:
            with pytest.raises(SourceUnavailable):
                await discovery(line_up).poll()
            assert line_up.lines[0].listing.last_success_ns is None

    @pytest.mark.parametrize("status", [400, 404, 405])
    async def test_a_list_of_agents_that_is_not_there_is_a_source_that_is_unavailable(self, bench: Bench, status: int):
        bench.simulator.fault("runtype", "agents", html(status))
        async with bench.pipeline(bench.source("runtype")) as line_up:
            with pytest.raises(SourceUnavailable, match="base_url"):
                await discovery(line_up).poll()

    async def test_a_wrong_key_is_said_as_such(self, bench: Bench):
        bench.simulator.platforms["casedev"].key = "another"
        async with bench.pipeline(bench.source("casedev") | {"api_key": "env:HOME"}) as line_up:
            with pytest.raises(SourceRefused):
                await discovery(line_up).poll()

    async def test_a_hole_in_the_reading_of_one_list_costs_that_list(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ):
        bench.world.add_agent("runtype", BO)
        others = bench.add(runs("runtype", [60], agent=BO))
        async with bench.pipeline(bench.source("runtype")) as line_up:
            source = line_up.lines[0].source
            page = source.page

            async def breaks(scope: Any, *args: Any) -> Any:
                return {}["x"] if scope.key == ADA.agent_id else await page(scope, *args)

            monkeypatch.setattr(source, "page", breaks)
            found = await discovery(line_up).poll()
            assert set(states(line_up.ledger)) == set(others)
            assert "KeyError at breaks" in found.failures[0]


class TestCursors:
    @pytest.mark.parametrize("platform", ["casedev", "runtype"])
    @pytest.mark.parametrize("status", [400, 404, 410])
    async def test_a_cursor_that_has_expired_starts_the_pass_over_once(self, bench: Bench, platform: str, status: int):
        ids = bench.add(runs(platform, [60 * n for n in range(1, 8)]))
        quirks = bench.simulator.platforms[platform].quirks
        quirks.expired_status, quirks.expired_cursors = status, 1
        async with bench.pipeline(bench.source(platform)) as line_up:
            found = await discovery(line_up).poll()
            assert found.failures == []
            assert set(states(line_up.ledger)) == set(ids)
            assert at(line_up, SCOPE[platform]) == START_NS - MINUTE

    async def test_cursors_that_always_expire_end_the_pass_and_not_the_program(self, bench: Bench):
        ids = bench.add(runs("casedev", [60 * n for n in range(1, 8)]))
        quirks = bench.simulator.platforms["casedev"].quirks
        quirks.expired_cursors = 1000
        async with bench.pipeline(bench.source("casedev")) as line_up:
            assert (await discovery(line_up).poll()).failures
            assert len(bench.simulator.asked("casedev", "/run")) <= 4
            assert at(line_up) == START_NS - 24 * HOUR
            quirks.expired_cursors = 0
            await discovery(line_up).poll()
            assert set(states(line_up.ledger)) == set(ids)

    async def test_a_run_deleted_while_its_id_is_the_cursor(self, bench: Bench):
        ids = bench.add(runs("casedev", [60 * n for n in range(1, 8)]))
        fault = bench.simulator.fault("casedev", f"cursor={ids[2]}", html())
        async with bench.pipeline(bench.source("casedev")) as line_up:
            assert (await discovery(line_up).poll()).failures
            bench.simulator.faults.remove(fault)
            bench.world.remove("casedev", ids[2])
            await discovery(line_up).poll()
            assert set(states(line_up.ledger)) == set(ids)

    @pytest.mark.parametrize("platform", ["casedev", "runtype"])
    async def test_a_list_that_goes_in_a_circle_moves_no_position(self, bench: Bench, clock: Clock, platform: str):
        """Behind the circle there may be runs that nobody has seen."""
        ids = bench.add(runs(platform, [60 * n for n in range(1, 8)]))
        quirks = bench.simulator.platforms[platform].quirks
        quirks.repeated_cursors = 10**9
        async with bench.pipeline(bench.source(platform, overlap="10s")) as line_up:
            looking = discovery(line_up)
            with capture_logs() as logs:
                for _ in range(2):
                    [failure] = (await looking.poll()).failures
                    assert "breaks off, its pages run in a circle" in failure
                    assert at(line_up, SCOPE[platform]) == START_NS - 24 * HOUR
                    clock.advance(1)
            [said] = [entry for entry in logs if entry["action"] == "list_broken_off"]
            assert said["log_level"] == "error"
            assert set(states(line_up.ledger)) < set(ids)
            # What is new is found all the same, and the rest once the list is mended.
            [new] = bench.add(runs(platform, [0], key="new"))
            await looking.poll()
            assert new in states(line_up.ledger)
            quirks.repeated_cursors = 0
            assert (await looking.poll()).failures == []
            assert set(states(line_up.ledger)) == {*ids, new}
            assert at(line_up, SCOPE[platform]) == START_NS

    @pytest.mark.parametrize("platform", ["casedev", "runtype"])
    async def test_a_cursor_that_is_never_answered_hides_no_new_runs(self, bench: Bench, clock: Clock, platform: str):
        ids = bench.add(runs(platform, [60 * n for n in range(1, 8)]))
        fault = bench.simulator.fault(platform, "cursor=", html(500))
        async with bench.pipeline(bench.source(platform)) as line_up:
            looking = discovery(line_up)
            assert (await looking.poll()).failures
            assert set(states(line_up.ledger)) == set(ids[:3])
            [new] = bench.add(runs(platform, [0], key="new"))
            with capture_logs() as logs:
                await looking.poll()
            assert new in states(line_up.ledger)
            assert not [entry for entry in logs if entry["action"] == "source_unavailable"]
            assert at(line_up, SCOPE[platform]) == START_NS - 24 * HOUR
            bench.simulator.faults.remove(fault)
            await looking.poll()
            assert set(states(line_up.ledger)) == {*ids, new}

    @pytest.mark.parametrize("platform", RUN)
    async def test_pages_in_disorder_repeated_and_empty(self, bench: Bench, platform: str):
        ids = bench.add(runs(platform, [60 * n for n in range(1, 12)]))
        quirks = bench.simulator.platforms[platform].quirks
        quirks.shuffled_pages, quirks.duplicated_rows, quirks.empty_pages = True, 1, True
        quirks.repeated_cursors = 2
        async with bench.pipeline(bench.source(platform)) as line_up:
            for _ in range(2):
                await discovery(line_up).poll()
            assert set(states(line_up.ledger)) == set(ids)

    @pytest.mark.parametrize("platform", ["casedev", "runtype"])
    async def test_a_cursor_that_is_worth_nothing_any_more_is_no_end(self, bench: Bench, platform: str):
        """An empty page, without a fault and without a word of more: what some make of the id of a deleted run."""
        ids = bench.add(runs(platform, [60 * n for n in range(1, 12)]))
        empty = {"runs": [], "data": [], "pagination": {"nextCursor": None, "hasMore": False}, "hasMore": False}
        bench.simulator.fault(platform, "cursor=", Reply(200, json.dumps(empty)), times=1)
        async with bench.pipeline(bench.source(platform)) as line_up:
            assert (await discovery(line_up).poll()).failures == []
            assert set(states(line_up.ledger)) == set(ids)
            assert at(line_up, SCOPE[platform]) == START_NS - MINUTE

    @pytest.mark.parametrize("platform", ["casedev", "runtype"])
    async def test_cursors_that_are_worth_nothing_move_no_position(self, bench: Bench, platform: str):
        ids = bench.add(runs(platform, [60 * n for n in range(1, 12)]))
        empty = {"runs": [], "data": [], "pagination": {"nextCursor": None, "hasMore": False}, "hasMore": False}
        fault = bench.simulator.fault(platform, "cursor=", Reply(200, json.dumps(empty)))
        async with bench.pipeline(bench.source(platform)) as line_up:
            [failure] = (await discovery(line_up).poll()).failures
            assert "pages that it promises are empty" in failure
            assert at(line_up, SCOPE[platform]) == START_NS - 24 * HOUR
            bench.simulator.faults.remove(fault)
            assert (await discovery(line_up).poll()).failures == []
            assert set(states(line_up.ledger)) == set(ids)

    async def test_a_list_that_is_oldest_first_is_read_to_its_end(self, bench: Bench, clock: Clock):
        """case.dev's is newest first by its documents; if it were not, an early end would be a silent one."""
        bench.simulator.platforms["casedev"].quirks.oldest_first = True
        old = bench.add(runs("casedev", [60 * n for n in range(1, 12)]))
        async with bench.pipeline(bench.source("casedev", overlap="10s")) as line_up:
            await discovery(line_up).poll()
            assert set(states(line_up.ledger)) == set(old)
            clock.advance(60)
            [new] = bench.add(runs("casedev", [-50], key="new"))
            await discovery(line_up).poll()
            assert new in states(line_up.ledger)


class TestLongLists:
    async def test_a_list_without_an_end_hides_no_other_and_not_what_has_ended(
        self, bench: Bench, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("runspan.pipeline.sweep.PAGES_A_TURN", 2)
        bench.world.add_agent("runtype", BO)
        [first] = bench.add(runs("runtype", [60], agent=BO))
        async with bench.pipeline(bench.source("runtype")) as line_up:
            source = line_up.lines[0].source
            page = source.page

            async def endless(scope: Scope, window: Window, cursor: Any) -> Page:
                if scope.key == BO.agent_id:
                    return await page(scope, window, cursor)
                number = (cursor or 0) + 1
                row = Listed(f"run-{number}", Locator(agent_id=scope.key, created_ns=START_NS), True, START_NS)
                return Page((row,), number)

            monkeypatch.setattr(source, "page", endless)
            looking = asyncio.create_task(discovery(line_up).poll())
            await until(lambda: first in states(line_up.ledger))
            [later] = bench.add(runs("runtype", [30], agent=BO, key="later"))
            clock.advance(60)
            await until(lambda: later in states(line_up.ledger))
            assert not looking.done()
            looking.cancel()
            await asyncio.wait([looking])

    async def test_a_long_list_is_read_to_its_end_in_one_look(self, bench: Bench, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("runspan.pipeline.sweep.PAGES_A_TURN", 2)
        ids = bench.add(runs("casedev", [60 * n for n in range(1, 20)]))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            assert (await discovery(line_up).poll()).new == len(ids)
            assert [request.query.get("cursor") for request in bench.simulator.asked("casedev", "/run")] == [
                None,
                *ids[2:18:3],
            ]

    @pytest.mark.parametrize("look", ["poll", "look_back"])
    async def test_lists_of_different_lengths_are_read_once_each(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, look: str
    ):
        monkeypatch.setattr("runspan.pipeline.sweep.PAGES_A_TURN", 2)
        bench.world.add_agent("runtype", BO)
        ids = bench.add(runs("runtype", [60 * n for n in range(1, 13)], agent=ADA))  # four pages, two turns
        ids += bench.add(runs("runtype", [60 * n for n in range(1, 16)], agent=BO, key="bo"))  # five pages, three turns
        async with bench.pipeline(bench.source("runtype")) as line_up:
            monkeypatch.setattr(Runtype, "pages_shift", False)
            await getattr(discovery(line_up), look)()
            assert set(states(line_up.ledger)) == set(ids)
            assert len(bench.simulator.asked("runtype", "executions")) == 4 + 5

    async def test_a_list_that_fails_in_a_later_turn_is_no_failure_of_its_source(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("runspan.pipeline.sweep.PAGES_A_TURN", 2)
        bench.world.add_agent("runtype", BO)
        ids = bench.add(runs("runtype", [60 * n for n in range(1, 13)], agent=ADA))
        bench.add(runs("runtype", [60], agent=BO, key="bo"))
        bench.simulator.fault("runtype", f"cursor={ids[5]}", html(500))
        async with bench.pipeline(bench.source("runtype")) as line_up:
            for _ in range(2):
                assert len((await discovery(line_up).poll()).failures) == 1
            assert line_up.lines[0].listing.failures == 0

    @pytest.mark.parametrize("vain", [0, 1, 5])
    async def test_an_outage_in_the_middle_of_a_list_does_not_end_its_doubts(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, vain: int
    ):
        bench.world.add_agent("flowyble", ADA)
        bench.simulator.platforms["flowyble"].list_shape = ListShape()
        ids = bench.add(
            flowyble_run(f"run {n}", created_at_ns=START_NS - n * HOUR, seconds=1.0, agent=ADA) for n in range(1, 20)
        )
        listing = {"agents": [ADA.agent_id], "page_size": 5}
        async with bench.pipeline(bench.source("flowyble", list=listing, start="7d", lookback="1h")) as line_up:
            source, asked = line_up.lines[0].source, 0
            page = source.page

            async def one_is_deleted_and_then_nothing_comes(*args: Any) -> Any:
                nonlocal asked
                asked += 1
                if 3 <= asked < 4 + vain:
                    raise SourceUnavailable("not now")
                answer = await page(*args)
                if asked == 1:
                    bench.world.remove("flowyble", ids[1])
                return answer

            monkeypatch.setattr(source, "page", one_is_deleted_and_then_nothing_comes)
            looking = discovery(line_up)
            for _ in range(3 + vain):
                with contextlib.suppress(SourceUnavailable):
                    await looking.poll()
            assert {*ids} - {ids[1]} <= set(states(line_up.ledger))

    async def test_a_list_that_breaks_off_behind_its_first_turn_is_complained_of_once(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("runspan.pipeline.sweep.PAGES_A_TURN", 2)
        ids = bench.add(runs("casedev", [60 * n for n in range(1, 12)]))
        cut_short = {"runs": [], "hasMore": True, "nextCursor": None}
        bench.simulator.fault("casedev", f"cursor={ids[8]}", Reply(200, json.dumps(cut_short)))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            looking = discovery(line_up)
            with capture_logs() as logs:
                for _ in range(3):
                    assert (await looking.poll()).failures
        assert len([entry for entry in logs if entry["action"] == "list_broken_off"]) == 1

    async def test_a_list_that_was_put_back_between_two_turns_is_read_from_there(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ):
        """By a clock that was set back, or by another process."""
        monkeypatch.setattr("runspan.pipeline.sweep.PAGES_A_TURN", 2)
        bench.add(runs("casedev", [60 * n for n in range(1, 20)]))
        async with bench.pipeline(bench.source("casedev", start="2h")) as line_up:
            looking, ledger, [line] = discovery(line_up), line_up.ledger, line_up.lines
            await looking._give_turns(POLL, None, Found())
            assert ledger.rewind(line.account, latest_ns=START_NS - 3 * HOUR, start_ns=START_NS - 4 * HOUR) == 1
            [old] = bench.add(runs("casedev", [3 * 3600 + 60], key="old"))
            await looking.poll()
            assert old in states(ledger)

    @pytest.mark.parametrize("fails", [False, True], ids=["in one go", "with a failure before its last page"])
    async def test_what_deletions_push_past_the_edge_of_a_page_is_found_by_reading_again(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, fails: bool
    ):
        """In a list that is paged by number, over a stretch that no slow sweep reads."""
        if fails:
            bench.simulator.fault("flowyble", "page=8", html(502), times=1)
        bench.world.add_agent("flowyble", ADA)
        bench.simulator.platforms["flowyble"].list_shape = ListShape()
        ids = bench.add(
            flowyble_run(f"run {n}", created_at_ns=START_NS - n * HOUR, seconds=1.0, agent=ADA) for n in range(1, 40)
        )
        listing = {"agents": [ADA.agent_id], "page_size": 5}
        settings = {"start": "7d", "lookback": "1h", "overlap": "1m"}
        async with bench.pipeline(bench.source("flowyble", list=listing, **settings)) as line_up:
            delete_between_pages(monkeypatch, bench, line_up.lines[0].source, ids[1:5])
            looking = discovery(line_up)
            assert len((await looking.poll()).failures) == fails
            if fails:
                await looking.look_back()
                await looking.poll()
            assert {*ids} - {*ids[1:5]} <= set(states(line_up.ledger))
            assert at(line_up, ADA.agent_id) == START_NS - HOUR
            asked = len(bench.simulator.asked("flowyble"))
            await looking.poll()
            assert len(bench.simulator.asked("flowyble")) == asked + 2, "what is read every day is read once"


class TestRows:
    async def test_runs_of_agents_that_are_not_wanted_are_rows_with_that_reason(self, bench: Bench):
        [wanted] = bench.add(runs("casedev", [60], agent=ADA))
        [excluded] = bench.add(runs("casedev", [90], agent=BO))
        async with bench.pipeline(bench.source("casedev", exclude_agents=[BO.agent_id])) as line_up:
            await discovery(line_up).poll()
            assert states(line_up.ledger) == {wanted: RowState.DUE, excluded: RowState.SKIPPED}
            assert row_of(line_up.ledger, excluded).reason == "agent"
        # Wanted after all: the next pass takes it up.
        async with bench.pipeline(bench.source("casedev")) as line_up:
            await discovery(line_up).poll()
            assert states(line_up.ledger) == {wanted: RowState.DUE, excluded: RowState.DUE}

    async def test_lists_of_agents_that_are_not_wanted_are_not_read(self, bench: Bench):
        bench.world.add_agent("runtype", BO)
        [wanted] = bench.add(runs("runtype", [60], agent=ADA))
        bench.add(runs("runtype", [90], agent=BO))
        async with bench.pipeline(bench.source("runtype", exclude_agents=[BO.agent_id])) as line_up:
            await discovery(line_up).poll()
            assert set(states(line_up.ledger)) == {wanted}
            assert bench.simulator.asked("runtype", BO.agent_id) == []

    async def test_runs_that_came_into_runtype_from_outside_are_skipped(self, bench: Bench):
        [inside] = bench.add(runs("runtype", [60]))
        [outside] = bench.add(runs("runtype", [90], external=True, key="import"))
        async with bench.pipeline(bench.source("runtype")) as line_up:
            await discovery(line_up).poll()
            assert states(line_up.ledger) == {inside: RowState.DUE, outside: RowState.SKIPPED}
            assert row_of(line_up.ledger, outside).reason == "external"

    async def test_a_row_that_tells_no_run_is_said_once(self, bench: Bench):
        rows = [{"status": "completed"}, {"id": "run_1", "status": "completed"}]
        bench.simulator.fault("casedev", "/run", Reply(200, json.dumps({"runs": rows, "hasMore": False})))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            looking = discovery(line_up)
            with capture_logs() as logs:
                for _ in range(3):
                    await looking.poll()
            assert set(states(line_up.ledger)) == {"run_1"}
        assert [entry["event"] for entry in logs if entry["action"] == "row_unreadable"] == ["runs[0]: no id"]

    async def test_runs_settle_before_they_are_due(self, bench: Bench):
        [fresh] = bench.add(runs("casedev", [3]))
        [old] = bench.add(runs("casedev", [3600]))
        async with bench.pipeline(bench.source("casedev", settle="30s")) as line_up:
            await discovery(line_up).poll()
            assert row_of(line_up.ledger, fresh).due_ns == START_NS + 30 * SECOND
            assert row_of(line_up.ledger, old).due_ns == START_NS

    async def test_an_open_run_of_casedev_is_due_as_soon_as_it_has_left_both_open_lists(
        self, bench: Bench, clock: Clock
    ):
        [ends] = bench.add(runs("casedev", [200], seconds=230.0))
        [goes_on] = bench.add(runs("casedev", [210], seconds=None))
        [queued] = bench.add(runs("casedev", [220], queue_seconds=5000.0))
        bench.add(runs("casedev", [5]))
        async with bench.pipeline(bench.source("casedev", poll_every="30s", overlap="1m")) as line_up:
            looking = discovery(line_up)
            await looking.poll()
            assert row_of(line_up.ledger, ends).state is RowState.OPEN
            clock.advance(60)
            await looking.poll()
            due = {row.ref.run_id: row.due_ns for row in line_up.ledger.runs()}
            assert due[ends] == clock.ns
            assert due[goes_on] == due[queued] == clock.ns + 30 * SECOND

    async def test_the_open_lists_are_not_read_where_nothing_is_open(self, bench: Bench):
        bench.add(runs("casedev", [60]))
        async with bench.pipeline(bench.source("casedev")) as line_up:
            await discovery(line_up).poll()
            assert not [request for request in bench.simulator.asked("casedev") if "status" in request.query]

    async def test_a_run_that_ends_long_after_younger_ones_is_still_asked_for(self, bench: Bench, clock: Clock):
        """Positions move past open runs; their rows wait for them."""
        [slow] = bench.add(runs("runtype", [3600], seconds=7200.0))
        bench.add(runs("runtype", [60], key="younger"))
        async with bench.pipeline(bench.source("runtype", overlap="1m")) as line_up:
            await discovery(line_up).poll()
            assert at(line_up, ADA.agent_id) == START_NS - 60 * SECOND
            clock.advance(4 * 3600)
            await discovery(line_up).poll()
            row = row_of(line_up.ledger, slow)
            assert row.state is RowState.OPEN
            assert row.due_ns is not None
            assert row.due_ns < clock.ns


async def test_what_is_listed_is_rows_before_anything_else_is_done(bench: Bench):
    """The ledger on disk has them, not only this process."""
    ids = bench.add(runs("casedev", [60, 90]))
    async with bench.pipeline(bench.source("casedev")) as line_up:
        await discovery(line_up).poll()
        with Ledger.open(line_up.config.ledger.url, read_only=True) as other:
            assert set(states(other)) == set(ids)
