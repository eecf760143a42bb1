"""A backfill: one source, one stretch of time or a list of ids, through the same pipeline as the daemon's.

It is a job in the ledger: its sweeps keep their own cursors and never move a daemon's position, its rows are claimed by
lease like any other. The same command finds the same job again, so a backfill that was stopped goes on where it stood.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from runspan.errors import ConfigError, DeliveryRefused, LedgerUnusable, SourceUnavailable, said
from runspan.ledger import Job, JobState, Ledger, NewRow, RowState, RunRow, Sweep
from runspan.model import Json, Locator
from runspan.pipeline.assembly import Pipeline
from runspan.pipeline.discovery import AGENTS, as_unavailable, wanted
from runspan.pipeline.line import Health, Line
from runspan.pipeline.outbox import LEASE_RENEWAL
from runspan.pipeline.report import Report, report_of
from runspan.pipeline.sweep import PASSES_AT_MOST, pages, report_problems, rows_of, rows_of_ids
from runspan.pipeline.work import Work
from runspan.quantities import format_instant, nanoseconds
from runspan.readback import QueryApi
from runspan.sources.base import Listed, Page, Scope, Window

log = structlog.get_logger()

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
"""How long a backfill waits for a source or destination that is down before it gives up (exit 3) and can be resumed."""
LOOK_SECONDS = 0.25
ID_FILE_CHUNK = 500
STOP_SECONDS = 5.0
"""How long a backfill that is stopped may go on sending what it has fetched."""
READ_BACK_SECONDS = 30.0
"""How long all traces together may take to be shown by their backend."""
READ_BACK_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to backfill: a stretch [since, until) of creation times, or ids. Texts identify the job, instants do not."""

    since: str | None = None
    until: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    ids: tuple[tuple[str, Locator], ...] | None = None
    limit: int | None = None
    force: bool = False
    verify: bool = False
    dry_run: bool = False
    """Nothing will be sent: what would stop it otherwise is only said."""

    def job_id(self, line: Line) -> str:
        """The job that the same command has on every start."""
        digest = hashlib.sha256()
        parts = [line.account.platform, line.account.tenant, self.since, self.until, self.limit, self.force]
        for part in [*parts, *sorted(run_id for run_id, _ in self.ids or ())]:
            text = repr(part).encode()
            digest.update(len(text).to_bytes(4, "big") + text)
        return digest.hexdigest()[:12]


class Backfill:
    """One backfill of one line of a pipeline. `on_progress` hears (done, total) as rows are finished."""

    def __init__(
        self,
        pipeline: Pipeline,
        line: Line,
        request: Request,
        *,
        known_in: Ledger | None = None,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._line = line
        self._ledger = pipeline.ledger
        self._outbox = pipeline.outbox
        self._destination = pipeline.config.destination
        self._now = pipeline.now
        self._request = request
        self._known_in = known_in
        self._on_progress = on_progress
        self._problems: list[str] = []
        self._said: dict[str, set[str]] = {}
        """What was said of rows that could not be read, by scope."""
        self._unread_scopes = 0
        self._known_elsewhere: set[str] = set()
        self._failing_since_ns: int | None = None
        self._resumed = False
        self.job: Job | None = None

    async def run(self) -> Report:
        """List, fetch, deliver, read back where that was asked for, and report.

        Raises SourceUnavailable or DeliveryRefused when the source or the destination stays away; the job can then be
        resumed. Raises ConfigError for a source that cannot list where no ids were given, for a stretch of time that
        the ledger has forgotten in part, and for one that begins before what the backend shows.
        """
        request = self._request
        if request.ids is None and not self._line.source.lists:
            raise ConfigError(f"source {self._line.name} has no list of runs: name them with --ids-file FILE")
        async with AsyncExitStack() as stack:
            # Made before anything is sent: what cannot be read back is better known now.
            query_api = QueryApi(self._destination) if request.verify else None
            if query_api:
                stack.push_async_callback(query_api.close)
            return await self._run(query_api)

    async def _run(self, query_api: QueryApi | None) -> Report:
        request = self._request
        self.job = job = await asyncio.to_thread(self._start_job)
        if request.ids is not None:
            await self._note_ids(job, request.ids)
        else:
            await self._sweep(job)
        await self._deliver(job)
        report = await asyncio.to_thread(self._report, job)
        if query_api:
            report.unverified = await self._read_back(job, query_api)
        if not (self._unread_scopes or report.failing or report.unverified):
            await asyncio.to_thread(self._ledger.finish_job, job.id)
        return report

    def _start_job(self) -> Job:
        request = self._request
        base = request.job_id(self._line)
        number = 1
        while (job := self._ledger.job(job_id := f"{base}-{number}")) and job.state is JobState.FINISHED:
            number += 1
        if job is None:
            self._check_memory()
            self._check_age()
        else:
            self._resumed = True
            begun = format_instant(job.started_ns)
            log.info(f"goes on with what was begun at {begun}", action="backfill_resumed", source=self._line.name)
        return self._ledger.start_job(
            job_id,
            {"source": self._line.name, "since_ns": request.since_ns, "until_ns": request.until_ns},
        )

    def _check_memory(self) -> None:
        """Of runs that the ledger has forgotten it cannot tell whether they were sent."""
        request = self._request
        through_ns = (self._known_in or self._ledger).pruned_through_ns(self._line.account)
        if through_ns is None or (request.ids is None and (request.since_ns or 0) > through_ns):
            return
        through = format_instant(through_ns + 10**9)
        warning = (
            f"the ledger has forgotten runs of source {self._line.name} that were created before {through} "
            f"(retention): those among them that were exported would be sent a second time"
        )
        if request.ids is None and not request.force:
            raise ConfigError(f"{warning}; begin with --since {through}, or add --force to send them all the same")
        log.warning(warning, action="backfill_may_repeat", source=self._line.name)

    def _check_age(self) -> None:
        """What the backend will not show should be known before it is sent. Of ids it is seen only when they come."""
        limit, request = self._outbox.old_runs.limit, self._request
        if limit is None or request.since_ns is None or not limit.is_too_old(request.since_ns, self._now()):
            return
        text = f"the backfill begins {format_instant(request.since_ns)}, and {limit}"
        if not (request.force or request.dry_run):
            raise ConfigError(f"{text}; or add --force, which also sends again what was exported before")
        self._outbox.old_runs.warn(text, source=self._line.name)

    async def _note_ids(self, job: Job, ids: Sequence[tuple[str, Locator]]) -> None:
        for start in range(0, len(ids), ID_FILE_CHUNK):
            some = ids[start : start + ID_FILE_CHUNK]
            if self._request.limit is not None:
                some = some[: max(0, self._request.limit - start)]
            rows = await self._without_known(rows_of_ids(some, self._line, self._now()))
            await asyncio.to_thread(self._ledger.note_rows, rows, job=job.id, force=self._request.force)

    async def _sweep(self, job: Job) -> None:
        listed = await self._patiently(self._line.source.scopes)
        scopes = wanted(listed, self._line)
        failed: Exception | None = None
        for scope in scopes:
            try:
                await self._sweep_scope(scope, job)
            except LedgerUnusable:
                raise
            except Exception as error:
                failed = error
                self._unread(scope.key, said(error))
        if failed and self._unread_scopes == len(scopes):
            raise as_unavailable(failed)
        if listed.broken_off:
            self._unread(AGENTS, listed.broken_off)
        self._line.listing.succeeded()

    def _unread(self, scope: str, reason: str) -> None:
        self._unread_scopes += 1
        self._problems.append(reason)
        log.error(reason, action="scope_unreadable", source=self._line.name, scope=scope)

    async def _sweep_scope(self, scope: Scope, job: Job) -> None:
        window = Window(job.arguments["since_ns"] or 0, job.arguments["until_ns"])
        kind = f"job:{job.id}"
        sweep = await asyncio.to_thread(self._ledger.sweep, self._line.account, scope.key, kind)
        if sweep is None:
            sweep = await self._begin(scope, kind, window)
        if sweep.finished_ns is None:
            await self._read_list(scope, job, kind, window, sweep.cursor)
        later = self._later(job, window)
        if later is not None:
            kind = f"job:{job.id} later"
            await self._begin(scope, kind, later)
            await self._read_list(scope, job, kind, later, None)

    def _later(self, job: Job, window: Window) -> Window | None:
        """What a job that was begun before has not in its stretch, and the command as it is given now has: of `1d` or
        of no end the meaning has moved on since."""
        if not self._resumed:
            return None
        overlap_ns = nanoseconds(self._line.config.overlap)
        from_ns = job.started_ns - overlap_ns if window.end_ns is None else window.end_ns
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

    async def _read_list(self, scope: Scope, job: Job, kind: str, window: Window, cursor: Json | None) -> None:
        """Read a list to its end; again where it may have pushed runs past the edge of a page unseen, as deletions do
        where a list is paged by number."""
        for number in range(1, PASSES_AT_MOST + 1):
            is_last = number == PASSES_AT_MOST
            if not await self._make_pass(scope, job, kind, window, cursor, is_last=is_last):
                return
            cursor = None

    async def _make_pass(
        self, scope: Scope, job: Job, kind: str, window: Window, cursor: Json | None, *, is_last: bool
    ) -> bool:
        """One pass over a list; gives whether it is to be followed by another."""
        line, read, new, said = self._line, 0, 0, self._said.setdefault(scope.key, set())

        async def ask(cursor: Json | None) -> Page:
            return await self._patiently(lambda: line.source.page(scope, window, cursor))

        async for page in pages(ask, cursor):
            read += 1
            self._problems += report_problems(page, line.name, scope, said)
            listed = [row for row in page.rows if belongs(row, window)]
            room = await asyncio.to_thread(self._room, job)
            full = room is not None and len(listed) >= room
            rows = [self._at_once(row) for row in rows_of(listed[:room], line, self._now(), scope)]
            again = page.cursor is None and not (page.broken_off or full or is_last) and read > 1 and new > 0
            noted = await asyncio.to_thread(
                self._ledger.note_page,
                line.account,
                scope.key,
                kind,
                await self._without_known(rows),
                cursor=None if full else page.cursor,
                high_ns=None,
                complete=full or not (page.broken_off or again),
                job=job.id,
                force=self._request.force,
            )
            new += noted.new
            if again:
                return True
            if full:
                return False
            if page.broken_off:
                self._unread(scope.key, page.broken_off)
        return False

    def _room(self, job: Job) -> int | None:
        """How many more runs `limit` allows."""
        if self._request.limit is None:
            return None
        stored = self._ledger.job(job.id)
        assert stored is not None
        return max(0, self._request.limit - stored.listed - len(self._known_elsewhere))

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
        self._known_elsewhere |= known
        return [row for row in rows if row.ref.run_id not in known]

    async def _deliver(self, job: Job) -> None:
        work = Work(self._line, self._ledger, self._outbox, self._now, job=job.id)
        outbox = asyncio.create_task(self._outbox.run())
        working = asyncio.create_task(work.run())
        watching = asyncio.create_task(self._watch(job))
        try:
            await asyncio.wait([outbox, working, watching], return_when=asyncio.FIRST_COMPLETED)
            for task in (outbox, watching, working):
                if task.done():
                    task.result()
            self._outbox.close()
            await outbox
        finally:
            for task in (working, watching):
                task.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)
            # What has been fetched is sent all the same: it would have to be fetched again.
            self._outbox.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await asyncio.gather(outbox, return_exceptions=True)

    async def _watch(self, job: Job) -> None:
        """Report progress, keep our leases, and give up on a source or destination that stays away."""
        since_ns = renewed_ns = self._now()
        while True:
            if self._now() - renewed_ns > nanoseconds(LEASE_RENEWAL):
                await self._outbox.renew_leases()
                renewed_ns = self._now()
            counts = (await asyncio.to_thread(self._ledger.job_counts, job.id)).states
            total = sum(counts.values())
            self._on_progress(total - counts.get(RowState.DUE, 0), total)
            delivery, failing = self._outbox.delivery, self._line.failing
            if delivery.healthy and not failing:
                since_ns = self._now()
            waited_seconds = (self._now() - since_ns) / 1e9
            if not delivery.healthy and (delivery.wrong or waited_seconds > PATIENCE_SECONDS):
                raise DeliveryRefused(f"destination: {delivery.last_error}; start the same command again to go on")
            if failing and (_is_hopeless(failing) or waited_seconds > PATIENCE_SECONDS):
                raise SourceUnavailable(f"{failing.last_error}; start the same command again to go on")
            await asyncio.sleep(LOOK_SECONDS)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        health = self._line.listing
        while True:
            try:
                answer = await ask()
            except SourceUnavailable as error:
                health.failed(error)
                self._failing_since_ns = self._failing_since_ns or self._now()
                waited_seconds = (self._now() - self._failing_since_ns) / 1e9
                if _is_hopeless(health) or waited_seconds > PATIENCE_SECONDS:
                    raise
                await asyncio.sleep(health.paused_seconds)
            else:
                health.succeeded()
                self._failing_since_ns = None
                return answer

    async def _read_back(self, job: Job, query_api: QueryApi) -> int:
        """How many of the job's traces their backend does not show. Raises DeliveryRefused."""
        deadline = time.monotonic() + READ_BACK_SECONDS

        async def is_shown(row: RunRow) -> bool:
            assert row.summary is not None
            trace_id = bytes.fromhex(row.summary.trace_id or "")
            return await query_api.wait_for(trace_id, patience_seconds=max(0.0, deadline - time.monotonic()))

        exported = await asyncio.to_thread(self._ledger.runs, state=RowState.EXPORTED, job=job.id)
        missing = 0
        for start in range(0, len(exported), READ_BACK_AT_ONCE):
            some = exported[start : start + READ_BACK_AT_ONCE]
            for row, shown in zip(some, await asyncio.gather(*map(is_shown, some)), strict=True):
                if not shown:
                    missing += 1
                    text = f"run {row.ref.run_id} was exported, but its trace cannot be read back"
                    log.error(text, action="trace_missing", source=row.source, run=row.ref.run_id)
        return missing

    def _report(self, job: Job) -> Report:
        stored = self._ledger.job(job.id)
        assert stored is not None
        report = report_of(stored, self._ledger.job_counts(job.id))
        report.listed += len(self._known_elsewhere)
        report.known += len(self._known_elsewhere)
        report.problems = self._problems
        return report


def _is_hopeless(health: Health) -> bool:
    """Whether waiting does not help: someone must act, or the platform wants to be left alone for longer than that."""
    return health.refused or health.paused_seconds > PATIENCE_SECONDS


def belongs(row: Listed, window: Window) -> bool:
    """Whether a listed run was created in the window; by its start where no creation is reported.

    A row of which only the end is known began before the list's window (elizaOS), so it does not belong.
    """
    if row.locator.created_ns is None and row.time_ns is not None and row.time_ns == row.ended_ns:
        return False
    return window.holds(row.time_ns if row.locator.created_ns is None else row.locator.created_ns)
