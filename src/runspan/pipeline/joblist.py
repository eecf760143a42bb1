"""The runs of a backfill's job: read from its source's lists, or named one by one, they become rows of the ledger.

The job's sweeps keep their own cursors and never move a daemon's position.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from runspan.errors import LedgerUnusable, SourceUnavailable, said
from runspan.ledger import Job, Ledger, NewRow, RowState, Sweep
from runspan.model import Json, Locator
from runspan.pipeline.discovery import AGENTS, as_unavailable, wanted
from runspan.pipeline.line import Health, Line
from runspan.pipeline.request import Request
from runspan.pipeline.sweep import Doubt, pages, report_problems, rows_of, rows_of_ids
from runspan.quantities import nanoseconds
from runspan.sources.base import Listed, Page, Scope, Window

log = structlog.get_logger()

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
"""How long a backfill waits for a source or destination that is down before it gives up (exit 3) and can be resumed."""
ID_FILE_CHUNK = 500


class JobList:
    """Lists the runs of one job, started as `request` says. `resumed`: it was begun before.

    `known_in`: where a dry run looks up what has been exported.
    """

    def __init__(
        self,
        line: Line,
        ledger: Ledger,
        now: Callable[[], int],
        request: Request,
        job: Job,
        *,
        resumed: bool,
        known_in: Ledger | None = None,
    ) -> None:
        self.problems: list[str] = []
        """What could not be read, one line each."""
        self.unread_scopes = 0
        self.known_elsewhere: set[str] = set()
        """The runs that `known_in` knows."""
        self._line = line
        self._ledger = ledger
        self._now = now
        self._request = request
        self._job = job
        self._resumed = resumed
        self._known_in = known_in
        self._said: dict[str, set[str]] = {}
        """What was said of rows that could not be read, by scope."""
        self._failing_since_ns: int | None = None

    async def note_ids(self, ids: Sequence[tuple[str, Locator]]) -> None:
        """Note runs that were named one by one."""
        for start in range(0, len(ids), ID_FILE_CHUNK):
            some = ids[start : start + ID_FILE_CHUNK]
            if self._request.limit is not None:
                some = some[: max(0, self._request.limit - start)]
            rows = await self._without_known(rows_of_ids(some, self._line, self._now()))
            await asyncio.to_thread(self._ledger.note_rows, rows, job=self._job.id, force=self._request.force)

    async def read(self) -> None:
        """Note all runs of the request's stretch. Raises SourceUnavailable where no list of the source can be read."""
        listed = await self._patiently(self._line.source.scopes)
        scopes = wanted(listed, self._line)
        failed: Exception | None = None
        for scope in scopes:
            try:
                await self._read_scope(scope)
            except LedgerUnusable:
                raise
            except Exception as error:
                failed = error
                self._unread(scope.key, said(error))
        if failed and self.unread_scopes == len(scopes):
            raise as_unavailable(failed)
        if listed.broken_off:
            self._unread(AGENTS, listed.broken_off)
        self._line.listing.succeeded()

    def _unread(self, scope: str, reason: str) -> None:
        self.unread_scopes += 1
        self.problems.append(reason)
        log.error(reason, action="scope_unreadable", source=self._line.name, scope=scope)

    async def _read_scope(self, scope: Scope) -> None:
        window = Window(self._job.arguments["since_ns"] or 0, self._job.arguments["until_ns"])
        kind = f"job:{self._job.id}"
        sweep = await asyncio.to_thread(self._ledger.sweep, self._line.account, scope.key, kind)
        if sweep is None:
            sweep = await self._begin(scope, kind, window)
        if sweep.finished_ns is None:
            await self._read_list(scope, kind, window, sweep.cursor)
        later = self._later(window)
        if later is not None:
            kind = f"job:{self._job.id} later"
            await self._begin(scope, kind, later)
            await self._read_list(scope, kind, later, None)

    def _later(self, window: Window) -> Window | None:
        """What a job that was begun before has not in its stretch, and the command as it is given now has: of `1d` or
        of no end the meaning has moved on since."""
        if not self._resumed:
            return None
        overlap_ns = nanoseconds(self._line.config.overlap)
        from_ns = self._job.started_ns - overlap_ns if window.end_ns is None else window.end_ns
        later = Window(max(self._request.since_ns or 0, from_ns), self._request.until_ns)
        return later if later.end_ns is None or later.start_ns < later.end_ns else None

    async def _begin(self, scope: Scope, kind: str, window: Window) -> Sweep:
        return await asyncio.to_thread(
            self._ledger.begin_sweep,
            self._line.account,
            scope.key,
            kind,
            window_start_ns=window.start_ns,
            window_end_ns=window.end_ns,
            position_ns=None,
        )

    async def _read_list(self, scope: Scope, kind: str, window: Window, cursor: Json | None) -> None:
        """Read a list to its end, and again where `Doubt` says so."""
        number, remains = 1, True
        while remains:
            # No later pass makes up for this one, and what it lists may all be known but for what it has not seen.
            first = number == 1
            doubt = Doubt(self._line.source, self._now(), number=number, goes_on=cursor is not None, always=first)
            remains = await self._make_pass(scope, kind, window, cursor, doubt)
            cursor, number = None, number + 1

    async def _make_pass(self, scope: Scope, kind: str, window: Window, cursor: Json | None, doubt: Doubt) -> bool:
        """One pass over a list; gives whether it is to be made again."""
        line, said = self._line, self._said.setdefault(scope.key, set())

        async def ask(cursor: Json | None) -> Page:
            return await self._patiently(lambda: line.source.page(scope, window, cursor))

        async for page in pages(ask, cursor):
            self.problems += report_problems(page, line.name, scope, said)
            listed = [row for row in page.rows if belongs(row, window)]
            room = await asyncio.to_thread(self._room)
            full = room is not None and len(listed) >= room
            rows = [self._at_once(row) for row in rows_of(listed[:room], line, self._now(), scope)]
            await asyncio.to_thread(
                self._ledger.note_page,
                line.account,
                scope.key,
                kind,
                await self._without_known(rows),
                cursor=None if full else page.cursor,
                high_ns=None,
                is_complete=lambda noted, page=page, full=full: full or doubt.is_over(page, noted),
                job=self._job.id,
                force=self._request.force,
            )
            if full:
                return False
            if page.broken_off:
                self._unread(scope.key, page.broken_off)
        return doubt.remains

    def _room(self) -> int | None:
        """How many more runs `limit` allows."""
        if self._request.limit is None:
            return None
        stored = self._ledger.job(self._job.id)
        assert stored is not None
        return max(0, self._request.limit - stored.listed - len(self.known_elsewhere))

    def _at_once(self, row: NewRow) -> NewRow:
        """An open row of a backfill is asked once, now: its list may be older than its end."""
        return replace(row, due_ns=self._now()) if row.state is RowState.OPEN else row

    async def _without_known(self, rows: list[NewRow]) -> list[NewRow]:
        """A dry run has a ledger of its own in memory; what the real one has exported is left out."""
        if self._known_in is None:
            return rows
        ids = [row.ref.run_id for row in rows]
        states = await asyncio.to_thread(self._known_in.states, self._line.account, ids)
        known = {run_id for run_id, state in states.items() if state in (RowState.EXPORTED, RowState.SKIPPED)}
        self.known_elsewhere |= known
        return [row for row in rows if row.ref.run_id not in known]

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        health = self._line.listing
        while True:
            try:
                answer = await ask()
            except SourceUnavailable as error:
                health.failed(error)
                self._failing_since_ns = self._failing_since_ns or self._now()
                waited_seconds = (self._now() - self._failing_since_ns) / 1e9
                if is_hopeless(health) or waited_seconds > PATIENCE_SECONDS:
                    raise
                await asyncio.sleep(health.paused_seconds)
            else:
                health.succeeded()
                self._failing_since_ns = None
                return answer


def is_hopeless(health: Health) -> bool:
    """Whether waiting does not help: someone must act, or the platform wants to be left alone for longer than that."""
    return health.refused or health.paused_seconds > PATIENCE_SECONDS


def belongs(row: Listed, window: Window) -> bool:
    """Whether a listed run was created in the window; by its start where no creation is reported.

    A row of which only the end is known began before the list's window (elizaOS), so it does not belong.
    """
    if row.locator.created_ns is None and row.time_ns is not None and row.time_ns == row.ended_ns:
        return False
    return window.holds(row.time_ns if row.locator.created_ns is None else row.locator.created_ns)
