"""Discovery against a platform that does what platforms do, and a reference that knows nothing of positions.

Lists in any order, rows that become visible late, agents that come and go, cursors that expire, pages that fail, looks
that take long or are cut off, restarts. Whatever happened before:

* after a completed poll each run is a row that the platform listed when the poll began, and that became visible no
  later than `overlap` after its own time;
* after a completed slow sweep each run is a row that the platform listed when the sweep began, of the last `lookback`;
* such a run is due if it had ended by then;
* no position is ahead of the beginning of the pass that set it, and none ever goes back.
"""

import asyncio
import contextlib
import zlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, cast

import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runspan.config import SourceConfig
from runspan.errors import RunGone, RunUnreadable, SourceUnavailable
from runspan.ledger import POLL, SLOW, Ledger, RowState
from runspan.model import Json, Locator, Run, RunBody, RunRef
from runspan.pipeline.discovery import Discovery
from runspan.pipeline.line import Health, Line
from runspan.quantities import nanoseconds
from runspan.sources.base import Listed, Page, Scope, Scopes, Source, Window
from tests.figures import SOAK
from tests.ledgers import SECOND, Clock

MINUTE = 60 * SECOND
PAGE_SIZE = 2
ORDERS = ("newest first", "oldest first", "in no order")
LOOKS = {POLL: "poll", SLOW: "look_back"}


@dataclass(frozen=True)
class WorldRun:
    """A run as the platform has it. `time_ns` is its place on the list's axis."""

    run_id: str
    agent: str
    time_ns: int
    visible_ns: int
    ended_ns: int


@dataclass
class Twin(Source):
    """A platform in memory, in place of a module that asks one."""

    platform: ClassVar[str] = "casedev"
    default_base_url: ClassVar[str | None] = None
    default_rate: ClassVar[str] = "1000/s"

    config: SourceConfig
    clock: Clock
    order: str
    tenant: str = "https://api.case.dev"
    repeats_rows: bool = False
    empty_pages: bool = False
    runs: dict[str, WorldRun] = field(default_factory=dict)
    created: int = 0
    agents: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    seconds_a_page: int = 0
    kind: str = POLL
    begun_ns: dict[tuple[str, str], int] = field(default_factory=dict)
    """When the first page of a (kind, agent)'s pass that is under way was asked for."""
    completed: list[tuple[str, str, int]] = field(default_factory=list)
    """Kind, agent and beginning of each pass whose last page was given."""

    @staticmethod
    def auth_headers(api_key: str | None) -> dict[str, str]:
        return {}

    async def scopes(self) -> Scopes:
        self._meet_fault()
        return Scopes(tuple(Scope(agent, agent) for agent in sorted(self.agents)))

    async def page(self, scope: Scope, window: Window, cursor: Json | None) -> Page:
        asked_ns = self.clock.ns
        self.clock.advance(self.seconds_a_page)
        breaks_off = self._meet_fault(cursor)
        if scope.key not in self.agents:
            raise RunGone(f"no agent {scope.key}")
        listed = self._listed(scope.key)
        if self.order != "newest first":
            listed = [run for run in listed if window.holds(run.time_ns)]
        after, empty = cursor or ["", False]
        ids = [run.run_id for run in listed]
        if after and after not in ids:
            raise RunUnreadable("the cursor has expired")
        if cursor is None:
            self.begun_ns[self.kind, scope.key] = asked_ns
        if self.empty_pages and not empty:
            return Page((), [after, True])
        first = ids.index(after) + 1 if after else 0
        rows = listed[max(0, first - self.repeats_rows) : first + PAGE_SIZE]
        before_window = self.order == "newest first" and rows and max(run.time_ns for run in rows) < window.start_ns
        is_last = first + PAGE_SIZE >= len(listed) or before_window
        if breaks_off and not is_last:
            return Page(tuple(map(self._row, rows)), None, broken_off="goes in a circle")
        if is_last:
            self.completed.append((self.kind, scope.key, self.begun_ns[self.kind, scope.key]))
        return Page(tuple(map(self._row, rows)), None if is_last else [rows[-1].run_id, False])

    def add(self, agent: str, time_ns: int, visible_ns: int, ended_ns: int) -> str:
        self.created += 1
        run_id = f"{agent}-{self.created}"
        self.runs[run_id] = WorldRun(run_id, agent, time_ns, visible_ns, ended_ns)
        return run_id

    def _listed(self, agent: str) -> list[WorldRun]:
        shown = [run for run in self.runs.values() if run.agent == agent and run.visible_ns <= self.clock.ns]
        if self.order == "in no order":
            return sorted(shown, key=lambda run: zlib.crc32(run.run_id.encode()))
        return sorted(shown, key=lambda run: (run.time_ns, run.run_id), reverse=self.order == "newest first")

    def _row(self, run: WorldRun) -> Listed:
        locator = Locator(agent_id=run.agent, created_ns=run.time_ns)
        return Listed(run.run_id, locator, run.ended_ns <= self.clock.ns, run.time_ns)

    def _meet_fault(self, cursor: Json | None = None) -> bool:
        """Raise what goes wrong now; whether the list leads nowhere instead."""
        match self.faults.pop(0) if self.faults else "none":
            case "unavailable":
                raise SourceUnavailable("not now")
            case "hole":
                raise KeyError("a hole in the reading")
            case "gone":
                raise RunGone("gone")
            case "expired" if cursor is not None:
                raise RunUnreadable("the cursor has expired")
            case "killed":
                raise asyncio.CancelledError
            case fault:
                return fault == "circle"
        return False

    async def fetch(self, ref: RunRef, *, known_open: bool = False, with_content: bool = False) -> RunBody:
        raise NotImplementedError

    def read(self, body: RunBody) -> Run:
        raise NotImplementedError


minutes = st.integers(-15, 30)
delays = st.sampled_from([0, 3, 6, 10]) | st.integers(0, 90)
trouble = st.sampled_from(["none", "none", "unavailable", "hole", "gone", "expired", "killed", "circle"])
faults = st.just([]) | st.lists(trouble, max_size=8).map(lambda some: ["none", "none", *some])
agents = st.sampled_from(["ada", "bo"])
created = st.lists(st.tuples(minutes, delays, st.integers(0, 30)), min_size=1, max_size=8)


class DiscoveryModel(RuleBasedStateMachine):
    @initialize(order=st.sampled_from(ORDERS), repeats_rows=st.booleans(), empty_pages=st.booleans())
    def start(self, order: str, repeats_rows: bool, empty_pages: bool) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
        self.clock = Clock()
        self.runner = asyncio.Runner()
        self.ledger = Ledger.open("sqlite://", now=self.clock)
        self.config = SourceConfig(name="case", platform="casedev", base_url="https://api.case.dev")
        self.overlap_ns, self.lookback_ns = nanoseconds(self.config.overlap), 4 * 60 * MINUTE
        self.config = self.config.model_copy(update={"lookback": self.config.overlap * 24})
        self.twin = Twin(self.config, self.clock, order, repeats_rows=repeats_rows, empty_pages=empty_pages)
        self.twin.agents = {"ada"}
        self.positions: dict[str, int] = {}
        self.latest_begin_ns: dict[str, int] = {}
        self.restart()

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.runner.close()
            self.ledger.close()
            structlog.reset_defaults()

    @rule()
    def restart(self) -> None:
        line = Line(
            source=self.twin,
            config=self.config,
            projection=cast("Any", None),
            open_limiter=cast("Any", None),
            listing=Health("case", "lists", self.clock),
            fetching=Health("case", "runs", self.clock),
            retention=timedelta(days=90),
            stopping=asyncio.Event(),
        )
        self.discovery = Discovery(line, self.ledger, self.clock)

    @rule(number=st.integers(0, 100))
    def a_run_is_deleted(self, number: int) -> None:
        if len(self.twin.runs) > number:
            del self.twin.runs[list(self.twin.runs)[number]]

    @rule(agent=agents)
    def an_agent_comes_or_goes(self, agent: str) -> None:
        if agent in self.twin.agents:
            self.twin.agents.remove(agent)
        else:
            self.twin.agents.add(agent)

    @rule(
        kind=st.sampled_from([POLL, POLL, SLOW]),
        created=created,
        seconds=st.integers(0, 1800),
        faults=faults,
        seconds_a_page=st.sampled_from([0, 1, 300, 900]),
    )
    def time_passes_and_there_is_a_look(
        self, kind: str, created: list[tuple[int, int, int]], seconds: int, faults: list[str], seconds_a_page: int
    ) -> None:
        """Runs are created at some minute, so that several share one, and shown so many minutes after it."""
        self.clock.ns += 1  # what comes after a page was read is not of the same instant
        for number, (age, delay, lasts) in enumerate(created):
            present = sorted(self.twin.agents)
            if not present:
                break
            agent = present[number % len(present)]
            # Nothing is shown before now; but an agent that is new to us may have older runs.
            time_ns = self.clock.ns // MINUTE * MINUTE + age * MINUTE
            visible_ns = max(self.clock.ns, time_ns + delay * MINUTE)
            self.twin.add(agent, time_ns, visible_ns, visible_ns + lasts * MINUTE)
        self.clock.advance(seconds)
        self.look(kind, faults, seconds_a_page)

    def look(self, kind: str, faults: list[str], seconds_a_page: int) -> None:
        self.twin.kind, self.twin.faults, self.twin.seconds_a_page = kind, faults, seconds_a_page
        self.twin.completed.clear()
        with contextlib.suppress(SourceUnavailable, RunGone, KeyError, asyncio.CancelledError):
            self.runner.run(self._look(kind))
        self.check_completed()

    async def _look(self, kind: str) -> None:
        await getattr(self.discovery, LOOKS[kind])()

    def check_completed(self) -> None:
        rows = {row.ref.run_id: row.state for row in self.ledger.runs()}
        for kind, agent, begun_ns in self.twin.completed:
            self.latest_begin_ns[agent] = max(begun_ns, self.latest_begin_ns.get(agent, 0))
            for run in self.twin.runs.values():
                if run.agent != agent or run.visible_ns > begun_ns:
                    continue
                in_time = run.visible_ns - run.time_ns <= self.overlap_ns
                recent = kind == SLOW and run.time_ns >= begun_ns - self.lookback_ns
                if in_time or recent:
                    assert run.run_id in rows, (
                        f"{run} was listed, and is no row after a {kind} that began at {begun_ns}"
                    )
                    if run.ended_ns <= begun_ns and (recent or run.ended_ns - run.time_ns <= self.overlap_ns):
                        assert rows[run.run_id] is RowState.DUE, f"{run} had ended"

    @invariant()
    def no_position_is_ahead_of_what_was_read(self) -> None:
        for agent in ("ada", "bo"):
            sweep = self.ledger.sweep(self.discovery._line.account, agent, POLL) if hasattr(self, "ledger") else None
            if sweep is None or sweep.position_ns is None:
                continue
            assert sweep.position_ns >= self.positions.get(agent, sweep.position_ns)
            self.positions[agent] = sweep.position_ns
            assert sweep.position_ns <= max(self.latest_begin_ns.get(agent, 0), sweep.start_ns or 0)


TestDiscoveryModel = DiscoveryModel.TestCase
TestDiscoveryModel.settings = settings(
    max_examples=400 if SOAK else 60, stateful_step_count=20, deadline=None, print_blob=True
)


def test_a_run_that_came_while_a_list_in_no_order_was_read_is_found_by_the_next_poll() -> None:
    """Its place had been passed by, and younger runs behind it must not carry the position past it."""
    model = DiscoveryModel()
    model.start("in no order", repeats_rows=False, empty_pages=False)
    try:
        by_place = sorted((f"run-{n}" for n in range(8)), key=lambda run_id: zlib.crc32(run_id.encode()))
        first, missed, *others, young = by_place
        times = {first: (-5, 0), missed: (10, 16), **dict.fromkeys(others, (-5, 0)), young: (29, 29)}
        for run_id, (time_minutes, visible_minutes) in times.items():
            visible_ns = model.clock.ns + visible_minutes * MINUTE
            model.twin.runs[run_id] = WorldRun(
                run_id, "ada", model.clock.ns + time_minutes * MINUTE, visible_ns, visible_ns
            )
        model.look(POLL, [], 900)
        assert missed not in {row.ref.run_id for row in model.ledger.runs()}
        assert young in {row.ref.run_id for row in model.ledger.runs()}
        model.look(POLL, [], 0)
        assert missed in {row.ref.run_id for row in model.ledger.runs()}
    finally:
        model.teardown()
