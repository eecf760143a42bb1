"""What the simulated platforms hold, and how much of it can be seen at a given instant.

A `World` keeps runs in the vendor's own body shape, as the body reads once everything is written. What a platform
answers at an instant is computed from that body and the run's four instants, so a run goes from queued over running
to its end while one watches, and a late row appears after it. Times are integer nanoseconds since the Unix epoch, UTC.
"""

import bisect
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

Json = dict[str, Any]
"""A JSON object of a vendor's body."""

SECOND_NS = 1_000_000_000
MS_NS = 1_000_000


class Phase(Enum):
    """How far a run is."""

    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(slots=True, kw_only=True)
class WorldAgent:
    """An agent as a platform's agents list shows it; each platform dresses it in its own row."""

    agent_id: str
    name: str
    description: str = ""
    created_at_ns: int = 0
    active: bool = True


@dataclass(slots=True, kw_only=True)
class WorldRun:
    """One run, and when the world learns what of it.

    `agent_name` None makes the agent ephemeral: its runs exist, and no agents list shows it. `ended_at_ns` None: it
    never ends. Nothing of the run can be seen before `visible_at_ns` (default: its creation). The last `late_rows` of
    its rows are written `late_by_ns` after its end.
    """

    platform: str
    run_id: str
    agent_id: str
    agent_name: str | None
    body: Json
    created_at_ns: int
    started_at_ns: int | None
    ended_at_ns: int | None
    visible_at_ns: int | None = None
    late_rows: int = 0
    late_by_ns: int = 0
    tool_calls: list[Json] = field(default_factory=list[Json])
    """Runtype keeps these apart from the body: the full payloads."""
    documented: bool = False
    """elizaOS: the detail answers in the shape of the vendor's page, not in the one its server really has."""

    def visible(self, now_ns: int) -> bool:
        """Whether the platform shows anything of the run yet."""
        return now_ns >= (self.created_at_ns if self.visible_at_ns is None else self.visible_at_ns)

    def phase(self, now_ns: int) -> Phase:
        """How far the run is at `now_ns`."""
        if self.ended_at_ns is not None and now_ns >= self.ended_at_ns:
            return Phase.ENDED
        if self.started_at_ns is not None and now_ns >= self.started_at_ns:
            return Phase.RUNNING
        return Phase.QUEUED

    def written(self, rows: list[Json], now_ns: int) -> list[Json]:
        """The rows (steps, calls) that are written by `now_ns`.

        While the run goes on they appear evenly over its time; after its end only the late ones are missing.
        """
        on_time = len(rows) - self.late_rows
        phase = self.phase(now_ns)
        if phase is Phase.QUEUED:
            return []
        if phase is Phase.RUNNING:
            if self.ended_at_ns is None:
                return rows
            started_ns = self.started_at_ns or self.created_at_ns
            share = (now_ns - started_ns) / max(self.ended_at_ns - started_ns, 1)
            return rows[: int(on_time * share)]
        assert self.ended_at_ns is not None
        return rows if now_ns >= self.ended_at_ns + self.late_by_ns else rows[:on_time]


class World:
    """The runs and agents of the four platforms, under one clock.

    `now` gives the current time in nanoseconds since the epoch; tests inject their own.
    """

    def __init__(self, now: Callable[[], int] = time.time_ns) -> None:
        self.now = now
        self.revision = 0
        """Grows with every change of the stock, for those that keep an index of it."""
        self._agents: dict[tuple[str, str], WorldAgent] = {}
        self._runs: dict[tuple[str, str], WorldRun] = {}
        self._order: dict[tuple[str, str | None], list[tuple[int, int, str]]] = {}
        self._places: dict[tuple[str, str], tuple[int, int, str]] = {}

    def add_agent(self, platform: str, agent: WorldAgent) -> WorldAgent:
        """Make an agent known, or replace it."""
        self._agents[platform, agent.agent_id] = agent
        self.revision += 1
        return agent

    def add(self, run: WorldRun) -> WorldRun:
        """Add a run, or replace the one with its id; its agent becomes known unless it is ephemeral."""
        self.remove(run.platform, run.run_id)
        self.revision += 1
        place = (run.created_at_ns, self.revision, run.run_id)
        self._runs[run.platform, run.run_id] = run
        self._places[run.platform, run.run_id] = place
        for scope in (None, run.agent_id):
            bisect.insort(self._order.setdefault((run.platform, scope), []), place)
        if run.agent_name is not None and (run.platform, run.agent_id) not in self._agents:
            agent = WorldAgent(agent_id=run.agent_id, name=run.agent_name, created_at_ns=run.created_at_ns)
            self._agents[run.platform, run.agent_id] = agent
        return run

    def remove(self, platform: str, run_id: str) -> None:
        """Forget a run, if there is such a run: the platform then answers as if it had never been."""
        run = self._runs.pop((platform, run_id), None)
        if run is None:
            return
        place = self._places.pop((platform, run_id))
        for scope in (None, run.agent_id):
            order = self._order[platform, scope]
            del order[bisect.bisect_left(order, place)]
        self.revision += 1

    def remove_agent(self, platform: str, agent_id: str) -> None:
        """Forget an agent; its runs stay."""
        self._agents.pop((platform, agent_id), None)
        self.revision += 1

    def agents(self, platform: str) -> list[WorldAgent]:
        """All agents of a platform, in the order in which they became known."""
        return [agent for (owner, _), agent in self._agents.items() if owner == platform]

    def agent(self, platform: str, agent_id: str) -> WorldAgent | None:
        """One agent, None where the platform has no such agent."""
        return self._agents.get((platform, agent_id))

    def run(self, platform: str, run_id: str) -> WorldRun | None:
        """One run, None where there is none or it cannot be seen yet."""
        run = self._runs.get((platform, run_id))
        return run if run is not None and run.visible(self.now()) else None

    def runs(self, platform: str) -> list[WorldRun]:
        """All runs of a platform whether they can be seen or not: what a test compares with."""
        return [self._runs[platform, run_id] for _, _, run_id in self._order.get((platform, None), [])]

    def newest_first(self, platform: str, agent_id: str | None = None, after: str | None = None) -> Iterator[WorldRun]:
        """The visible runs of a platform or of one of its agents by creation, newest first.

        `after` is the id of the run to go on behind; KeyError where there is no such run.
        """
        order = self._order.get((platform, agent_id), [])
        end = len(order) if after is None else bisect.bisect_left(order, self._places[platform, after])
        now_ns = self.now()
        for index in range(end - 1, -1, -1):
            run = self._runs[platform, order[index][2]]
            if run.visible(now_ns):
                yield run


def iso_ms(time_ns: int | None) -> str | None:
    """An instant as ISO-8601 in UTC with milliseconds and `Z`: `2026-05-01T10:00:00.250Z`."""
    if time_ns is None:
        return None
    return datetime.fromtimestamp(time_ns / SECOND_NS, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_seconds(time_ns: int | None) -> str | None:
    """An instant as ISO-8601 in UTC with whole seconds and `Z`: `2026-05-01T10:00:00Z`."""
    if time_ns is None:
        return None
    return datetime.fromtimestamp(time_ns // SECOND_NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
