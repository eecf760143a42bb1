"""A backfill: one source, one stretch of time or a list of ids, through the same pipeline as the daemon's.

It is a job in the ledger, and its rows are claimed by lease like any other. The same command finds the same job again,
so a backfill that was stopped goes on where it stood.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress

import structlog

from runspan.errors import ConfigError, DeliveryRefused, SourceUnavailable
from runspan.ledger import Job, JobState, Ledger, RowState, RunRow
from runspan.pipeline import joblist
from runspan.pipeline.assembly import Pipeline
from runspan.pipeline.joblist import JobList
from runspan.pipeline.line import Line
from runspan.pipeline.outbox import LEASE_RENEWAL
from runspan.pipeline.report import Report, report_of
from runspan.pipeline.request import Request
from runspan.pipeline.work import Work
from runspan.quantities import format_instant, nanoseconds
from runspan.readback import QueryApi

log = structlog.get_logger()

LOOK_SECONDS = 0.25
STOP_SECONDS = 5.0
"""How long a backfill that is stopped may go on sending what it has fetched."""
READ_BACK_SECONDS = 30.0
"""How long all traces together may take to be shown by their backend."""
READ_BACK_AT_ONCE = 8


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
        self.job, resumed = await asyncio.to_thread(self._start_job)
        line, ledger, job = self._line, self._ledger, self.job
        listing = JobList(line, ledger, self._now, request, job, resumed=resumed, known_in=self._known_in)
        await (listing.read() if request.ids is None else listing.note_ids(request.ids))
        await self._deliver(job)
        report = await asyncio.to_thread(self._report, job, listing)
        if query_api:
            report.unverified = await self._read_back(job, query_api)
        if not (listing.unread_scopes or report.failing or report.unverified):
            await asyncio.to_thread(self._ledger.finish_job, job.id)
        return report

    def _start_job(self) -> tuple[Job, bool]:
        """The job, and whether it was begun before."""
        request = self._request
        base = request.job_id(self._line)
        number = 1
        while (job := self._ledger.job(job_id := f"{base}-{number}")) and job.state is JobState.FINISHED:
            number += 1
        resumed = job is not None
        if job is None:
            self._check_memory()
            self._check_age()
        else:
            begun = format_instant(job.started_ns)
            log.info(f"goes on with what was begun at {begun}", action="backfill_resumed", source=self._line.name)
        arguments = {"source": self._line.name, "since_ns": request.since_ns, "until_ns": request.until_ns}
        return self._ledger.start_job(job_id, arguments), resumed

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
            if not delivery.healthy and (delivery.wrong or waited_seconds > joblist.PATIENCE_SECONDS):
                raise DeliveryRefused(f"destination: {delivery.last_error}; start the same command again to go on")
            if failing and (joblist.is_hopeless(failing) or waited_seconds > joblist.PATIENCE_SECONDS):
                raise SourceUnavailable(f"{failing.last_error}; start the same command again to go on")
            await asyncio.sleep(LOOK_SECONDS)

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

    def _report(self, job: Job, listing: JobList) -> Report:
        stored = self._ledger.job(job.id)
        assert stored is not None
        report = report_of(stored, self._ledger.job_counts(job.id))
        report.listed += len(listing.known_elsewhere)
        report.known += len(listing.known_elsewhere)
        report.problems = listing.problems
        return report
