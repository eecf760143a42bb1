"""elizaOS: runs per agent, found by the write time of their log rows; each is one detail with all its events.

The facts are those of a real 1.7.2 server: its answers and its published source. `runspan.sources.elizaos_events` reads
the detail.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, NamedTuple, cast

from runspan.config import SourceConfig
from runspan.errors import RunGone, RunUnreadable, SourceUnavailable
from runspan.model import Json, Locator, Run, RunBody, RunRef, RunStatus
from runspan.sources.answers import PageSize, refuse_failure, rows_of, unwrapped
from runspan.sources.base import Listed, Page, Scope, Scopes, Source, Window
from runspan.sources.client import Client
from runspan.sources.elizaos_events import IGNORED_STATUSES, STATUSES, event_kind, read_run
from runspan.sources.fields import MS_NS, Fields
from runspan.sources.names import AgentNames
from runspan.sources.walk import broken_off

LIST_LIMIT = 100
"""The largest the server accepts."""
MOST_DOUBTED = 3
"""A server of which so many stretches say that there is more, and show nothing, says so of all."""
FAR_AHEAD_MS = 4_102_444_800_000
"""The start of 2100: later than any row, and still a date that the server's database can parse."""


class ElizaOSConfig(SourceConfig):
    """One elizaOS server."""

    include_ignored: bool = False
    """Whether runs that the agent left at once are exported: of its own messages (self), in muted rooms (muted, off),
    overtaken by a newer message (replaced), or without a message (noMessageId)."""


class ElizaOS(Source):
    """The platform `elizaos`. Scopes are agents; the list's time axis is the write time of the rows `run started` and
    `run ended`."""

    platform = "elizaos"
    default_base_url = "http://localhost:3000"
    default_rate = "60/min"
    config_type: ClassVar[type[SourceConfig]] = ElizaOSConfig
    probe_open_after_seconds = 60.0
    gone_grace_seconds = 300.0
    config: ElizaOSConfig

    def __init__(self, config: SourceConfig, http: Client) -> None:
        super().__init__(config, http)
        self._page_size = PageSize(LIST_LIMIT)
        self._names = AgentNames(config.name, self.scopes)

    @staticmethod
    def auth_headers(api_key: str | None) -> dict[str, str]:
        """`X-API-KEY`, which a server asks for only where ELIZA_SERVER_AUTH_TOKEN is set."""
        return {} if api_key is None else {"X-API-KEY": api_key}

    async def scopes(self) -> Scopes:
        """All agents, running or not. Raises SourceUnavailable."""
        return Scopes(tuple(scope for scope, _ in await self._agents()))

    async def page(self, scope: Scope, window: Window, cursor: Json | None) -> Page:
        """The runs with rows in one stretch of the window; see `Source.page`.

        The server has no cursor: it shows at most 100 runs of the stretch `from` to `to`, and says whether there are
        more. Ours is the list of stretches still to be read. Raises RunGone for an agent that does not run.
        """
        stretch, *rest = _stretches(window, cursor)
        # The server forgets a bound of 0, and without any bound answers from a cache up to 15 s old.
        params = {"from": stretch.start_ms, "to": stretch.end_ms}
        path = ["api", "agents", scope.key, "runs"]
        document = await self._page_size.ask(lambda rows: self.http.get_json(path, {"limit": rows, **params}))
        where = f"source {self.config.name}: the list of agent {scope.key!r}'s runs"
        refuse_failure(document, where)
        answer = Fields(unwrapped(document), [])
        items = rows_of(answer, "runs", where)
        rows = {row.run_id: row for item in items if (row := listed(item, scope, self.config))}
        has_more, fault = answer.boolean("hasMore"), None
        doubted = sum(other.doubted for other in rest)
        if has_more and not items and (stretch.doubted or doubted >= MOST_DOUBTED):
            rest, fault = [], "it says that there is more, and shows nothing"
        elif has_more and not items:
            # Half of an empty stretch would be as empty. It is asked for again when all the others are read.
            rest = [*rest, stretch._replace(doubted=True)]
        elif has_more or (has_more is None and len(items) >= self._page_size.rows):
            if halves := _halves(stretch, list(rows.values())):
                rest = [*halves, *rest]
            else:
                crowd = f"agent {scope.key!r}: over {len(items)} runs in one millisecond, the rest is unseen"
                answer.problems.append(crowd)
        return Page(
            tuple(rows.values()),
            [list(left) for left in rest] or None,
            tuple(answer.problems),
            broken_off=broken_off(where, fault),
        )

    async def fetch(self, ref: RunRef, *, known_open: bool = False, with_content: bool = False) -> RunBody:
        """The document `detail`; see `Source.fetch`.

        Asked without the room first, since rows of overlapping runs stand in each other's rooms; then with it where
        the run has faded out of the newest 5000 rows, which is as far as the server looks.
        """
        ref, detail = await self._detail(ref, room=None)
        if not _begins(detail) and (room := ref.locator.room or _room(detail)):
            _, in_room = await self._detail(ref, room)
            if (_begins(in_room), _event_count(in_room)) > (False, _event_count(detail)):
                detail = in_room
        if _is_unknown(detail):
            raise RunGone(f"source {self.config.name}: the server shows no event of run {ref.run_id!r}")
        if ref.locator.agent_id is None:
            ref = await self._with_owner(ref, detail)
        return RunBody(await self._names.named(ref), {"detail": detail})

    def read(self, body: RunBody) -> Run:
        """See `Source.read`."""
        return read_run(body, include_ignored=self.config.include_ignored)

    async def _detail(self, ref: RunRef, room: str | None) -> tuple[RunRef, Json]:
        owner = ref.locator.agent_id
        if owner is not None:
            try:
                return ref, await self._ask(owner, ref, room)
            except RunGone:
                pass
        # 404 means that the agent does not run. Any other one that does shows its runs as well.
        running = [scope.key for scope, runs in await self._agents() if runs and scope.key != owner]
        for agent_id in running:
            try:
                return ref, await self._ask(agent_id, ref, room)
            except RunGone:
                continue
        if running:
            raise RunGone(f"source {self.config.name}: no agent shows run {ref.run_id!r}")
        raise SourceUnavailable(f"source {self.config.name}: no agent runs that could show its runs; start one")

    async def _agents(self) -> list[tuple[Scope, bool]]:
        """Every agent, and whether it runs."""
        asked_ns = time.time_ns()
        try:
            document = await self.http.get_json(["api", "agents"])
        except (RunGone, RunUnreadable) as error:
            raise SourceUnavailable(f"{error}: check base_url") from None
        where = f"source {self.config.name}: the list of agents"
        refuse_failure(document, where)
        agents = [
            (Scope(agent_id, row.text("name") or row.text("characterName")), row.value("status") != "inactive")
            for row in rows_of(Fields(unwrapped(document), []), "agents", where)
            if (agent_id := row.identifier("id"))
        ]
        self._names.learn(Scopes(tuple(scope for scope, _ in agents)), asked_ns=asked_ns)
        return agents

    async def _ask(self, agent_id: str, ref: RunRef, room: str | None) -> Json:
        return await self.http.get_json(["api", "agents", agent_id, "runs", ref.run_id], {"roomId": room})

    async def _with_owner(self, ref: RunRef, detail: Json) -> RunRef:
        """The ref with the agent in whose list the run stands, since the detail does not tell; else as it was."""
        summary = _summary(detail)
        time_ns = summary.time_ns("startedAt", MS_NS) or summary.time_ns("startTime", MS_NS)
        room = _room(detail)
        if time_ns is None:
            return ref
        for scope in (await self.scopes()).found:
            params = {"limit": LIST_LIMIT, "roomId": room, "from": time_ns // MS_NS, "to": time_ns // MS_NS + 1}
            try:
                document = await self.http.get_json(["api", "agents", scope.key, "runs"], params)
            except RunGone:
                continue
            runs = Fields(unwrapped(document), []).children("runs")
            if any(run.identifier("runId") == ref.run_id for run in runs):
                found = replace(ref.locator, agent_id=scope.key, agent_name=scope.agent_name, room=room)
                return replace(ref, locator=found)
        return ref


class _Stretch(NamedTuple):
    start_ms: int
    end_ms: int
    doubted: bool = False
    """It said that there is more, and showed nothing."""


def listed(row: Fields, scope: Scope, config: ElizaOSConfig) -> Listed | None:
    """A row of the list; None, with a line in its problems, where it has no id.

    A run that began before the asked stretch has no startedAt, one that ended behind it no endedAt.
    """
    run_id = row.identifier("runId")
    if run_id is None:
        row.note("no runId")
        return None
    started_ns, ended_ns = row.time_ns("startedAt", MS_NS), row.time_ns("endedAt", MS_NS)
    raw_status = row.text("status")
    status = STATUSES.get((raw_status or "").lower())
    return Listed(
        run_id=run_id,
        locator=Locator(
            agent_id=scope.key, agent_name=scope.agent_name, room=row.identifier("roomId"), created_ns=started_ns
        ),
        terminal=status is not None,
        time_ns=ended_ns or started_ns,
        raw_status=raw_status,
        ended_ns=ended_ns,
        skip_reason=raw_status if raw_status in IGNORED_STATUSES and not config.include_ignored else None,
        # A run that failed is listed as `completed`, too.
        status=None if status is RunStatus.SUCCESS else status,
    )


def _stretches(window: Window, cursor: Json | None) -> list[_Stretch]:
    if cursor is not None:
        return [_Stretch(*left) for left in cast("list[tuple[int, int, bool]]", cursor)]
    end_ms = FAR_AHEAD_MS if window.end_ns is None else -(-window.end_ns // MS_NS)
    start_ms = max(1, window.start_ns // MS_NS)
    return [_Stretch(start_ms, max(end_ms, start_ms))]


def _halves(stretch: _Stretch, rows: Sequence[Listed]) -> tuple[_Stretch, _Stretch] | None:
    """Two stretches that cover one, None where it is only a millisecond.

    They share an edge: the server writes microseconds and compares with milliseconds, so a row may lie between two.
    Halved is what lies before the newest row seen, since most of a stretch up to 2100 is empty.
    """
    start_ms, end_ms, _ = stretch
    if end_ms - start_ms <= 1:
        return None
    newest_ms = max((row.time_ns // MS_NS for row in rows if row.time_ns is not None), default=end_ms)
    middle_ms = (start_ms + min(newest_ms, end_ms)) // 2
    middle_ms = max(start_ms + 1, min(middle_ms, end_ms - 1))
    return _Stretch(start_ms, middle_ms), _Stretch(middle_ms, end_ms)


def _summary(detail: Json) -> Fields:
    """What a detail says of the whole run: apart from its events on a real server, bare in the vendor's documents."""
    body = Fields(unwrapped(detail), [])
    return body if body.value("summary") is None else body.child("summary")


def _kinds(detail: Json) -> list[str]:
    return [event_kind(event) for event in Fields(unwrapped(detail), []).children("events")]


def _begins(detail: Json) -> bool:
    return "RUN_STARTED" in _kinds(detail) or _summary(detail).value("startTime") is not None


def _event_count(detail: Json) -> int:
    return len(_kinds(detail))


def _room(detail: Json) -> str | None:
    return _summary(detail).identifier("roomId")


def _is_unknown(detail: Json) -> bool:
    """An unknown run, one asked for in a wrong room and one that faded all read as 200, `started`, with no events."""
    return not _begins(detail) and Fields(unwrapped(detail), []).value("events") == []
