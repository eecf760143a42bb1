"""Discovery: the platform's lists become rows of the ledger.

A sweep walks one scope's list from the newest row, or whatever order the platform has, back to the start of its window.
Each page's rows and the cursor behind them are one transaction, so a sweep that dies goes on where it stood. The stored
position moves only when a sweep is complete; it says that every run the platform listed up to there is a row.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from runspan.errors import RunGone, RunspanError, RunUnreadable, SourceRefused, SourceUnavailable
from runspan.ledger import Ledger, NewRow, Noted, RowState, Sweep
from runspan.model import Locator, RunRef
from runspan.pipeline import standing
from runspan.pipeline.line import Line
from runspan.quantities import nanoseconds
from runspan.sources.base import Listed, Page, Scope, Window

log = structlog.get_logger()

POLL = "poll"
SLOW = "slow"
OPEN_IDS_BATCH = 100_000


@dataclass(slots=True)
class Found:
    """What one look at a source brought: counts of rows, and the scopes that could not be read."""

    listed: int = 0
    new: int = 0
    became_due: int = 0
    failures: list[str] = field(default_factory=list[str])

    def add(self, page: Page, noted: Noted) -> None:
        """Count one page in."""
        self.listed += len(page.rows)
        self.new += noted.new
        self.became_due += noted.became_due


class Discovery:
    """Looks for runs on one source and notes them.

    `now` is the wall clock in nanoseconds; `overlap` and `lookback` come from the source's configuration.
    """

    def __init__(self, line: Line, ledger: Ledger, now: Callable[[], int]) -> None:
        self._line = line
        self._ledger = ledger
        self._now = now
        self._unread: dict[str, str] = {}
        """What was said of each scope that could not be read, so that it is said once."""

    async def poll(self) -> Found:
        """Read every scope from its position minus `overlap`, then look which open runs have ended.

        Raises SourceUnavailable when nothing at all could be read; a single scope that fails is counted and passed by.
        """
        found = await self._sweep_scopes(POLL)
        await self._settle_open()
        return found

    async def look_back(self) -> Found:
        """Re-read every scope from its position minus `lookback`, for rows that became visible late."""
        return await self._sweep_scopes(SLOW)

    async def _sweep_scopes(self, kind: str) -> Found:
        line = self._line
        found = Found()
        if not line.source.lists:
            return found
        scopes = await self._scopes()
        answered, unavailable = not scopes, None
        for scope in scopes:
            try:
                await self._sweep(scope, kind, found)
                answered = True
                self._unread.pop(scope.key, None)
            except SourceRefused:
                raise
            except SourceUnavailable as error:
                unavailable = error
                self._fail(scope, error, "scope_unavailable", found)
            except (RunGone, RunUnreadable) as error:
                answered = True
                self._fail(scope, error, "scope_unreadable", found)
        if unavailable and not answered:
            raise unavailable
        line.health.succeeded()
        if found.new or found.became_due:
            log.info("runs found", action="runs_found", source=line.name, new=found.new, became_due=found.became_due)
            line.wake.set()
        return found

    def _fail(self, scope: Scope, error: RunspanError, action: str, found: Found) -> None:
        found.failures.append(str(error))
        if self._unread.get(scope.key) != str(error):
            self._unread[scope.key] = str(error)
            log.warning(str(error), action=action, source=self._line.name, scope=scope.key)

    async def _scopes(self) -> Sequence[Scope]:
        line = self._line
        listed_ns = self._now()
        scopes = await line.source.scopes()
        agents = {scope.key: scope.agent_name for scope in scopes if scope.key}
        await asyncio.to_thread(self._ledger.agents_listed, line.account, agents, listed_ns=listed_ns)
        return [s for s in scopes if not s.key or standing.is_wanted(s.key, s.agent_name, line.config)]

    async def _sweep(self, scope: Scope, kind: str, found: Found) -> None:
        line, ledger = self._line, self._ledger
        reach = line.config.overlap if kind == POLL else line.config.lookback
        sweep = await asyncio.to_thread(ledger.sweep, line.account, scope.key, kind)
        if sweep is None or sweep.cursor is None:
            sweep = await self._begin(scope, kind, reach_ns=nanoseconds(reach))
        cursor, restarted = sweep.cursor, False
        assert sweep.window_start_ns is not None
        window = Window(sweep.window_start_ns, sweep.window_end_ns)
        while True:
            try:
                page = await line.source.page(scope, window, cursor)
            except RunUnreadable:
                if cursor is None or restarted:
                    raise
                # The platform no longer knows the cursor: the pass starts over, its rows are all still noted.
                cursor, restarted = None, True
                continue
            now_ns = self._now()
            rows = self.rows_of(page.rows, now_ns, scope)
            high_ns = max((row.time_ns for row in page.rows if row.time_ns is not None), default=None)
            noted = await asyncio.to_thread(
                ledger.note_page, line.account, scope.key, kind, rows, cursor=page.cursor, high_ns=high_ns
            )
            report_problems(page, line.name, scope)
            found.add(page, noted)
            if page.cursor is None:
                return
            cursor = page.cursor

    async def _begin(self, scope: Scope, kind: str, *, reach_ns: int) -> Sweep:
        line, ledger = self._line, self._ledger
        poll = await asyncio.to_thread(ledger.sweep, line.account, scope.key, POLL)
        if poll is not None and poll.position_ns is not None:
            position_ns, floor_ns = poll.position_ns, poll.start_ns or 0
        else:
            known_ns = await asyncio.to_thread(ledger.agent_start_ns, line.account, scope.key) if scope.key else None
            start_ns = line.config.start.instant_ns(self._now())
            position_ns = floor_ns = known_ns if known_ns is not None else start_ns
        return await asyncio.to_thread(
            ledger.begin_sweep,
            line.account,
            scope.key,
            kind,
            window_start_ns=max(floor_ns, position_ns - reach_ns),
            window_end_ns=None,
            position_ns=position_ns,
        )

    async def _settle_open(self) -> None:
        """Where the platform can list what is open: whatever of our open rows left that list has ended."""
        line, ledger = self._line, self._ledger
        if not await asyncio.to_thread(ledger.open_ids, line.account, 1):
            return
        listed_ns = self._now()
        still_open = await line.source.open_run_ids()
        if still_open is not None:
            ended = await asyncio.to_thread(
                ledger.settle_open,
                line.account,
                still_open,
                listed_ns=listed_ns,
                ask_again=lambda age_ns: standing.ask_interval(age_ns, line.config.poll_every),
            )
            if ended:
                line.wake.set()

    def rows_of(self, listed: Sequence[Listed], now_ns: int, scope: Scope) -> list[NewRow]:
        """The rows to note for a page; runs of agents that are not wanted are noted as skipped."""
        line = self._line
        rows: list[NewRow] = []
        for row in listed:
            locator = row.locator
            agent_name = locator.agent_name or scope.agent_name or line.config.agent_names.get(locator.agent_id or "")
            if agent_name != locator.agent_name:
                locator = Locator(
                    agent_id=locator.agent_id, agent_name=agent_name, room=locator.room, created_ns=locator.created_ns
                )
            if not standing.is_wanted(locator.agent_id, agent_name, line.config):
                row = Listed(row.run_id, locator, row.terminal, row.time_ns, row.raw_status, row.ended_ns, "agent")
            ref = RunRef(line.source.platform, line.source.tenant, row.run_id, locator)
            rows.append(standing.row_of(row, ref, line.config, now_ns, line.source.probe_open_after_seconds))
        return rows


def rows_of_ids(entries: Sequence[tuple[str, Locator]], line: Line, now_ns: int) -> list[NewRow]:
    """Rows for run ids that came from a file, standard input or a feed: due at once, whatever their state is."""
    return [
        NewRow(
            ref=RunRef(line.source.platform, line.source.tenant, run_id, locator),
            source=line.name,
            state=RowState.DUE,
            due_ns=now_ns,
            reason=None,
            raw_status=None,
            created_ns=locator.created_ns,
            terminal_seen_ns=None,
        )
        for run_id, locator in entries
    ]


def report_problems(page: Page, source: str, scope: Scope) -> None:
    """Rows that could not be read are said aloud: they are runs we may never see."""
    for problem in page.problems:
        log.error(problem, action="row_unreadable", source=source, scope=scope.key)
