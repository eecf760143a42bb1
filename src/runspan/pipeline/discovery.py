"""Discovery: the platform's lists become rows of the ledger.

A sweep walks one scope's list from the newest row, or whatever order the platform has, back to the start of its window.
Each page's rows and the cursor behind them are one transaction, so a sweep that dies goes on where it stood. The stored
position moves only when a sweep is complete; it says that every run the platform listed up to there is a row.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from runspan.errors import LedgerUnusable, RunGone, RunUnreadable, SourceBusy, SourceRefused, SourceUnavailable, said
from runspan.ledger import POLL, SLOW, UNWANTED, Ledger, NewRow, Noted, RowState, Sweep
from runspan.model import Json, Locator, RunRef
from runspan.pipeline import standing
from runspan.pipeline.line import Line
from runspan.quantities import nanoseconds
from runspan.sources.base import Listed, Page, Scope, Window

log = structlog.get_logger()


@dataclass(slots=True)
class Found:
    """What one look at a source brought: counts of rows, and the scopes that could not be read."""

    pages: int = 0
    listed: int = 0
    new: int = 0
    became_due: int = 0
    failures: list[str] = field(default_factory=list[str])

    def add(self, page: Page, noted: Noted) -> None:
        """Count one page in."""
        self.pages += 1
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
        self._begun_ns: dict[tuple[str, str], int] = {}
        """When the pass of a kind over a scope began, if this process began it."""

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
        listed_ns = self._now()
        start_ns = line.config.start.instant_ns(listed_ns)
        start_ns = await asyncio.to_thread(self._ledger.start_ns, line.account, if_new_ns=start_ns)
        scopes = wanted(await line.source.scopes(), line)
        sweeps = [await self._ready(scope, kind, start_ns, listed_ns) for scope in scopes]
        answered, failed = not scopes, None
        for scope, sweep in zip(scopes, sweeps, strict=True):
            try:
                broken_off = await self._sweep(scope, sweep, found)
                answered = True
                if broken_off is None:
                    self._unread.pop(scope.key, None)
                    continue
                found.failures.append(broken_off)
                if self._is_news(scope, broken_off):
                    log.error(broken_off, action="list_broken_off", source=line.name, scope=scope.key)
            except LedgerUnusable:
                raise
            except RunGone as error:
                answered = True
                found.failures.append(str(error))
                if self._is_news(scope, str(error)):
                    log.warning(str(error), action="scope_gone", source=line.name, scope=scope.key)
            except Exception as error:
                # Whatever one agent's list is like, the others are read.
                failed, answered = error, answered or found.pages > 0
                found.failures.append(said(error))
                # A source of one scope that gives nothing says of itself what there is to say of its scope.
                if (scope.key or answered) and self._is_news(scope, said(error)):
                    log.warning(said(error), action="scope_unreadable", source=line.name, scope=scope.key)
        if failed and not answered:
            raise as_unavailable(failed)
        line.listing.succeeded()
        if found.new or found.became_due:
            log.info("runs found", action="runs_found", source=line.name, new=found.new, became_due=found.became_due)
            line.wake.set()
        return found

    def _is_news(self, scope: Scope, reason: str) -> bool:
        """Whether this was not said of the scope already."""
        before, self._unread[scope.key] = self._unread.get(scope.key), reason
        return before != reason

    async def _sweep(self, scope: Scope, sweep: Sweep, found: Found) -> str | None:
        """Go on with a pass; gives why the list broke off, where it did."""
        line = self._line
        assert sweep.window_start_ns is not None
        window = Window(sweep.window_start_ns, sweep.window_end_ns)
        # A run that came since the pass began may stand where the pass has been already, in a list of any order: what
        # is younger, or dated into the future, says nothing of how far we have come.
        latest_ns = self._begun_ns.get((sweep.kind, scope.key), sweep.high_ns or 0)
        async for page in pages(lambda cursor: line.source.page(scope, window, cursor), sweep.cursor):
            times_ns = [row.time_ns for row in page.rows if row.time_ns is not None and row.time_ns <= latest_ns]
            noted = await asyncio.to_thread(
                self._ledger.note_page,
                line.account,
                scope.key,
                sweep.kind,
                rows_of(page.rows, line, self._now(), scope),
                cursor=page.cursor,
                high_ns=max(times_ns, default=None),
                broken_off=page.broken_off is not None,
            )
            report_problems(page, line.name, scope)
            found.add(page, noted)
            if page.broken_off:
                return page.broken_off
        return None

    async def _ready(self, scope: Scope, kind: str, start_ns: int, now_ns: int) -> Sweep:
        """The pass to go on with, or a new one."""
        sweep = await asyncio.to_thread(self._ledger.sweep, self._line.account, scope.key, kind)
        if sweep and sweep.interrupted:
            return sweep
        self._begun_ns[kind, scope.key] = now_ns
        return await self._begin(scope, kind, start_ns, now_ns)

    async def _begin(self, scope: Scope, kind: str, start_ns: int, now_ns: int) -> Sweep:
        line, ledger = self._line, self._ledger
        poll = await asyncio.to_thread(ledger.sweep, line.account, scope.key, POLL)
        if poll is not None and poll.position_ns is not None:
            position_ns, floor_ns = poll.position_ns, poll.start_ns or 0
        else:
            # Also for an agent that is new: that it was in no listing before does not tell that it was not there.
            position_ns = floor_ns = max(start_ns, now_ns - nanoseconds(line.retention))
        reach = line.config.overlap if kind == POLL else line.config.lookback
        return await asyncio.to_thread(
            ledger.begin_sweep,
            line.account,
            scope.key,
            kind,
            window_start_ns=max(floor_ns, position_ns - nanoseconds(reach)),
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


def as_unavailable(error: Exception) -> SourceUnavailable:
    """What it means for a source that none of its lists could be read."""
    return error if isinstance(error, SourceUnavailable) else SourceUnavailable(said(error))


def wanted(scopes: Sequence[Scope], line: Line) -> list[Scope]:
    """The scopes whose runs the configuration lets through."""
    return [s for s in scopes if not s.key or standing.is_wanted(s.key, s.agent_name, line.config)]


async def pages(read: Callable[[Json | None], Awaitable[Page]], cursor: Json | None) -> AsyncIterator[Page]:
    """The pages from `cursor` on. Where the platform does not know it any more, the list is read from its start, once;
    so it is where it gives no answer to a cursor of a pass before, since that may be for the cursor's sake.

    Raises what `read` raises.
    """
    resumed, restarted = cursor is not None, False
    while True:
        try:
            page = await read(cursor)
        except (RunGone, RunUnreadable, SourceUnavailable) as error:
            is_of_all = isinstance(error, SourceRefused | SourceBusy)
            at_fault = not isinstance(error, SourceUnavailable) or (resumed and not is_of_all)
            if cursor is None or restarted or not at_fault:
                raise
            # All that was read so far is noted; reading it again only costs requests.
            cursor, restarted = None, True
            continue
        yield page
        cursor, resumed = page.cursor, False
        if cursor is None:
            return


def rows_of(listed: Sequence[Listed], line: Line, now_ns: int, scope: Scope) -> list[NewRow]:
    """The rows to note for a page; runs of agents that are not wanted are noted as skipped."""
    rows: list[NewRow] = []
    for row in listed:
        locator = row.locator
        agent_name = locator.agent_name or scope.agent_name or line.config.agent_names.get(locator.agent_id or "")
        if agent_name != locator.agent_name:
            locator = replace(locator, agent_name=agent_name)
        if not standing.is_wanted(locator.agent_id, agent_name, line.config):
            row = replace(row, skip_reason=UNWANTED)
        ref = RunRef(line.source.platform, line.source.tenant, row.run_id, locator)
        rows.append(standing.row_of(row, ref, line.config, now_ns, line.source.probe_open_after_seconds))
    return rows


def rows_of_ids(entries: Sequence[tuple[str, Locator]], line: Line, now_ns: int) -> list[NewRow]:
    """Rows for run ids that came from a file, standard input or a feed: due at once, whatever their state is."""
    refs = [RunRef(line.source.platform, line.source.tenant, run_id, locator) for run_id, locator in entries]
    return [
        NewRow(
            ref=ref,
            source=line.name,
            state=RowState.DUE,
            due_ns=now_ns,
            exports=standing.exported_statuses(ref, line.config),
        )
        for ref in refs
    ]


def report_problems(page: Page, source: str, scope: Scope) -> None:
    """Rows that could not be read are said aloud: they are runs we may never see."""
    for problem in page.problems:
        log.error(problem, action="row_unreadable", source=source, scope=scope.key)
