"""case.dev: one list over a whole organization, and each run's full trail in one document.

The list is newest first by creation and knows no filter by time; its cursor is the id of the last run seen. Runs of
ephemeral agents stand in it while their agents are gone from the agents list, so agents never drive the listing: their
list only tells names. Facts: docs.case.dev, and the vendor's SDK where the pages are silent.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from runspan.config import SourceConfig
from runspan.errors import RunGone, RunUnreadable, SourceUnavailable
from runspan.model import Json, Locator, Run, RunBody, RunRef, RunStatus
from runspan.sources.answers import PageSize, refuse_failure, rows_of, unwrapped
from runspan.sources.base import Listed, Page, Scope, Scopes, Source, Window
from runspan.sources.casedev_run import StepTime, read_run, status_of
from runspan.sources.client import Client
from runspan.sources.fields import Fields
from runspan.sources.names import AgentNames
from runspan.sources.walk import Shown, Walk, broken_off, shown

PAGE_SIZE = 250
"""The most that the list gives at once."""
NAMED_PAGES = 40
"""Of the list of agents, which tells no more than their names: all that need one wait for it."""
EVER = Window(0)
OPEN_STATUSES = ("queued", "running")
"""In the order in which a run passes them: one that moves on between two questions is in both answers, not in none."""


class CaseDevConfig(SourceConfig):
    """One account of case.dev."""

    step_time: StepTime = "start"
    """Whether a step's timestamp tells its start or its end; the vendor does not say."""
    api_version: str = "v1"
    """The version segment of the API's paths."""


class CaseDev(Source):
    """The platform `casedev`."""

    platform: ClassVar[str] = "casedev"
    default_base_url: ClassVar[str | None] = "https://api.case.dev"
    default_rate: ClassVar[str] = "30/min"
    config_type: ClassVar[type[SourceConfig]] = CaseDevConfig
    config: CaseDevConfig

    def __init__(self, config: SourceConfig, http: Client) -> None:
        super().__init__(config, http)
        self._root = ("agent", self.config.api_version)
        self._page_size = PageSize(PAGE_SIZE)
        self._names = AgentNames(config.name, self._read_agents)
        self._list = f"source {config.name}: the list of runs"

    @staticmethod
    def auth_headers(api_key: str | None) -> dict[str, str]:
        """The key as a bearer token."""
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    async def page(self, scope: Scope, window: Window, cursor: Json | None) -> Page:
        """A page of the organization's runs, newest first; see `Source.page`."""
        walk = Walk.resumed(cursor)
        answer, rows = await self._ask_list(walk)
        onward, fault = following(walk, answer, shown(rows), window)
        named = [await self._named(row) for row in rows if window.holds(row.time_ns)]
        return Page(
            tuple(named),
            onward.state if onward else None,
            tuple(answer.problems),
            broken_off=broken_off(self._list, fault),
        )

    async def open_run_ids(self) -> frozenset[str]:
        """The ids of all runs that are queued or running now. Raises SourceUnavailable."""
        run_ids: set[str] = set()
        for status in OPEN_STATUSES:
            walk: Walk | None = Walk()
            while walk is not None:
                try:
                    answer, rows = await self._ask_list(walk, status)
                except (RunGone, RunUnreadable) as error:
                    raise SourceUnavailable(f"{error}: which runs are open is not known; asking again later") from None
                # By its own word, since a platform may take no heed of the status that it is asked for.
                run_ids.update(row.run_id for row in rows if not row.terminal)
                walk, fault = following(walk, answer, shown(rows), EVER)
                if fault:
                    raise SourceUnavailable(f"{self._list} that are {status} breaks off, {fault}; asking again later")
        return frozenset(run_ids)

    async def fetch(self, ref: RunRef, *, known_open: bool = False, with_content: bool = False) -> RunBody:
        """The run's one document; see `Source.fetch`."""
        ref = await self._names.named(ref)
        document = await self.http.get_json((*self._root, "run", ref.run_id, "details"))
        if ref.locator.agent_id is None:
            agent_id = Fields(unwrapped(document), []).text("agentId")
            ref = await self._names.named(replace(ref, locator=replace(ref.locator, agent_id=agent_id)))
        return RunBody(ref, {"detail": document})

    def read(self, body: RunBody) -> Run:
        """The document as a Run; see `read_run`."""
        return read_run(body, self.config.step_time)

    async def _ask_list(self, walk: Walk, status: str | None = None) -> tuple[Fields, list[Listed]]:
        async def ask(rows: int) -> Json:
            params = {"status": status, "limit": walk.rows(rows), "cursor": walk.cursor}
            return await self.http.get_json((*self._root, "run"), params)

        try:
            document = await self._page_size.ask(ask)
        except RunGone as gone:
            # The cursor is a run, which can be deleted between two pages; the list itself is always there.
            if walk.cursor is not None:
                raise
            raise SourceUnavailable(f"{gone}: check base_url and api_version") from None
        refuse_failure(document, self._list)
        answer = Fields(unwrapped(document), [])
        rows = rows_of(answer, "runs", self._list)
        return answer, [listed for row in rows if (listed := read_listed(row)) is not None]

    async def _named(self, row: Listed) -> Listed:
        try:
            name = await self._names.of(row.locator.agent_id, row.locator.created_ns)
        except SourceUnavailable:
            return row  # It is asked for again when the run is fetched.
        return replace(row, locator=replace(row.locator, agent_name=name))

    async def _read_agents(self) -> Scopes:
        agents: list[Scope] = []
        walk, fault = Walk(), None
        where = f"source {self.config.name}: the list of agents"
        while walk is not None:
            document = await self.http.get_json(
                (*self._root, "agents"), {"limit": walk.rows(PAGE_SIZE), "cursor": walk.cursor}
            )
            refuse_failure(document, where)
            answer = Fields(unwrapped(document), [])
            some = [Scope(key, row.text("name")) for row in answer.children("agents") if (key := row.identifier("id"))]
            agents += some
            walk, fault = following(walk, answer, [Shown(agent.key) for agent in some], EVER, most_pages=NAMED_PAGES)
        return Scopes(tuple(agents), broken_off(where, fault))


def read_listed(row: Fields) -> Listed | None:
    """One row of the list; None, with a line in its problems, where it has no id."""
    run_id = row.identifier("id")
    if run_id is None:
        row.note("no id")
        return None
    created_ns, ended_ns = row.time_ns("createdAt"), row.time_ns("completedAt")
    raw_status = row.text("status")
    status = status_of(raw_status, ended_ns)
    return Listed(
        run_id,
        Locator(agent_id=row.text("agentId"), created_ns=created_ns),
        terminal=status is not RunStatus.OPEN,
        time_ns=created_ns,
        raw_status=raw_status,
        ended_ns=ended_ns,
        status=status,
    )


def following(
    walk: Walk, answer: Fields, rows: Sequence[Shown], window: Window, *, most_pages: int | None = None
) -> tuple[Walk | None, str | None]:
    """Where the list goes on, or why it breaks off; neither at its end, and before the window."""
    if walk.has_left(window, rows):
        return None, None
    more = answer.boolean("hasMore")
    # A cursor is the id of the last run of a page, so where the platform names none it is known all the same.
    token = answer.identifier("nextCursor") or (rows[-1].id if more and rows else None)
    return walk.behind(rows, token, more, most_pages=most_pages)
