"""A backfill: one source, one stretch of time or a list of ids, through the same pipeline as the daemon's.

It is a job in the ledger: its sweeps keep their own cursors and never move a daemon's position, its rows are claimed by
lease like any other. The same command finds the same job again, so a backfill that was stopped goes on where it stood.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import structlog

from runspan.errors import ConfigError, DeliveryRefused, RunspanError, SourceUnavailable
from runspan.ledger import Job, JobState, Ledger, NewRow, RowState
from runspan.model import Locator
from runspan.pipeline import standing
from runspan.pipeline.assembly import Pipeline
from runspan.pipeline.discovery import Discovery, report_problems, rows_of_ids
from runspan.pipeline.line import Line
from runspan.pipeline.work import Work
from runspan.sources.base import Listed, Scope, Window

log = structlog.get_logger()

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
"""How long a backfill waits for a source or destination that is down before it gives up (exit 3) and can be resumed."""
LOOK_SECONDS = 0.25
ID_FILE_CHUNK = 500


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

    def job_id(self, line: Line) -> str:
        """The job that the same command has on every start."""
        digest = hashlib.sha256()
        parts = [line.account.platform, line.account.tenant, self.since, self.until, self.limit, self.force]
        for part in [*parts, *sorted(run_id for run_id, _ in self.ids or ())]:
            text = repr(part).encode()
            digest.update(len(text).to_bytes(4, "big") + text)
        return digest.hexdigest()[:12]


@dataclass(slots=True)
class Report:
    """How a backfill ended, in numbers of runs; `reasons` by state and reason."""

    listed: int = 0
    exported: int = 0
    known: int = 0
    still_open: int = 0
    skipped: int = 0
    gone: int = 0
    expired: int = 0
    quarantined: int = 0
    reasons: dict[tuple[RowState, str], int] = field(default_factory=dict[tuple[RowState, str], int])
    problems: list[str] = field(default_factory=list[str])

    @property
    def complete(self) -> bool:
        """Whether every run that was listed is exported, skipped, known or merely still open."""
        return not (self.quarantined or self.gone or self.expired or self.problems)


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
        self._now = pipeline.now
        self._request = request
        self._known_in = known_in
        self._on_progress = on_progress
        self._problems: list[str] = []
        self._known_elsewhere = 0
        self.job: Job | None = None

    async def run(self) -> Report:
        """List, fetch, deliver, and report.

        Raises SourceUnavailable or DeliveryRefused when the source or the destination stays away; the job can then be
        resumed. Raises ConfigError for a source that cannot list where no ids were given.
        """
        request = self._request
        if request.ids is None and not self._line.source.lists:
            raise ConfigError(f"source {self._line.name} has no list of runs: name them with --ids-file FILE")
        self.job = job = await asyncio.to_thread(self._start_job)
        if request.ids is not None:
            await self._note_ids(job, request.ids)
        else:
            await self._sweep(job)
        await self._deliver(job)
        report = await asyncio.to_thread(self._report, job)
        await asyncio.to_thread(self._ledger.finish_job, job.id)
        return report

    def _start_job(self) -> Job:
        request = self._request
        base = request.job_id(self._line)
        number = 1
        while (job := self._ledger.job(job_id := f"{base}-{number}")) and job.state is JobState.FINISHED:
            number += 1
        return self._ledger.start_job(
            job_id,
            {"source": self._line.name, "since_ns": request.since_ns, "until_ns": request.until_ns},
        )

    async def _note_ids(self, job: Job, ids: Sequence[tuple[str, Locator]]) -> None:
        for start in range(0, len(ids), ID_FILE_CHUNK):
            some = ids[start : start + ID_FILE_CHUNK]
            if self._request.limit is not None:
                some = some[: max(0, self._request.limit - start)]
            rows = await self._without_known(rows_of_ids(some, self._line, self._now()))
            await asyncio.to_thread(self._ledger.note_rows, rows, job=job.id, force=self._request.force)

    async def _sweep(self, job: Job) -> None:
        line = self._line
        discovery = Discovery(line, self._ledger, self._now)
        scopes = [
            scope
            for scope in await self._patiently(line.source.scopes)
            if not scope.key or standing.is_wanted(scope.key, scope.agent_name, line.config)
        ]
        for scope in scopes:
            try:
                await self._sweep_scope(discovery, scope, job)
            except RunspanError as error:
                if isinstance(error, SourceUnavailable) and len(scopes) == 1:
                    raise
                self._problems.append(str(error))
                log.error(str(error), action="scope_unreadable", source=line.name, scope=scope.key)

    async def _sweep_scope(self, discovery: Discovery, scope: Scope, job: Job) -> None:
        line, kind = self._line, f"job:{job.id}"
        since_ns, until_ns = job.arguments["since_ns"] or 0, job.arguments["until_ns"]
        sweep = await asyncio.to_thread(self._ledger.sweep, line.account, scope.key, kind)
        if sweep is not None and sweep.finished_ns is not None:
            return
        if sweep is None:
            sweep = await asyncio.to_thread(
                self._ledger.begin_sweep,
                line.account,
                scope.key,
                kind,
                window_start_ns=since_ns,
                window_end_ns=until_ns,
                position_ns=None,
            )
        window, cursor = Window(since_ns, until_ns), sweep.cursor
        while True:
            page = await self._patiently(lambda: line.source.page(scope, window, cursor))  # noqa: B023
            report_problems(page, line.name, scope)
            self._problems.extend(page.problems)
            listed = [row for row in page.rows if belongs(row, since_ns, until_ns)]
            rows = [self._at_once(row) for row in discovery.rows_of(listed, self._now(), scope)]
            if self._request.limit is not None:
                counts = await asyncio.to_thread(self._ledger.job_counts, job.id)
                rows = rows[: max(0, self._request.limit - sum(counts.states.values()))]
            rows = await self._without_known(rows)
            full = self._request.limit is not None and len(rows) < len(listed)
            cursor = None if full else page.cursor
            await asyncio.to_thread(
                self._ledger.note_page,
                line.account,
                scope.key,
                kind,
                rows,
                cursor=cursor,
                high_ns=None,
                job=job.id,
                force=self._request.force,
            )
            if cursor is None:
                return

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
        self._known_elsewhere += len(known)
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
            await self._outbox.drain()
        finally:
            for task in (outbox, working, watching):
                task.cancel()
            await asyncio.gather(outbox, working, watching, return_exceptions=True)

    async def _watch(self, job: Job) -> None:
        """Report progress; give up on a source or destination that stays away."""
        since_ns = self._now()
        while True:
            counts = (await asyncio.to_thread(self._ledger.job_counts, job.id)).states
            total = sum(counts.values())
            self._on_progress(total - counts.get(RowState.DUE, 0), total)
            delivery, health = self._outbox.delivery, self._line.health
            if delivery.healthy and not health.failures:
                since_ns = self._now()
            waited_seconds = (self._now() - since_ns) / 1e9
            if not delivery.healthy and (delivery.wrong or waited_seconds > PATIENCE_SECONDS):
                raise DeliveryRefused(f"destination: {delivery.last_error}; start the same command again to go on")
            if health.failures and (health.refused or waited_seconds > PATIENCE_SECONDS):
                raise SourceUnavailable(f"{health.last_error}; start the same command again to go on")
            await asyncio.sleep(LOOK_SECONDS)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        since_ns = self._now()
        while True:
            try:
                answer = await ask()
            except SourceUnavailable as error:
                self._line.health.failed(error)
                if self._line.health.refused or (self._now() - since_ns) / 1e9 > PATIENCE_SECONDS:
                    raise
                await asyncio.sleep(self._line.health.paused_seconds)
            else:
                self._line.health.succeeded()
                return answer

    def _report(self, job: Job) -> Report:
        counts = self._ledger.job_counts(job.id)
        stored = self._ledger.job(job.id)
        assert stored is not None
        states = counts.states
        return Report(
            listed=stored.listed + self._known_elsewhere,
            exported=states.get(RowState.EXPORTED, 0),
            known=stored.known + self._known_elsewhere,
            still_open=states.get(RowState.OPEN, 0),
            skipped=states.get(RowState.SKIPPED, 0),
            gone=states.get(RowState.GONE, 0),
            expired=states.get(RowState.EXPIRED, 0),
            quarantined=states.get(RowState.QUARANTINED, 0),
            reasons=dict(counts.reasons),
            problems=self._problems,
        )


def belongs(row: Listed, since_ns: int, until_ns: int | None) -> bool:
    """Whether a listed run was created in [since, until); by its start where no creation is reported.

    A row of which only the end is known began before the list's window (elizaOS), so it does not belong.
    """
    began_ns = row.locator.created_ns
    if began_ns is None:
        if row.time_ns is None:
            return True
        if row.time_ns == row.ended_ns:
            return False
        began_ns = row.time_ns
    return since_ns <= began_ns and (until_ns is None or began_ns < until_ns)
