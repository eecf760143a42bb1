"""The middle of a run's way: claim a row, fetch its body, read, project, encode, hand it to the outbox.

`Work` is the same for the daemon and for a backfill: they differ only in which rows they claim and in when they stop.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import structlog

from runspan.errors import (
    LedgerUnusable,
    RunGone,
    RunspanError,
    RunUnreadable,
    SourceBusy,
    SourceGarbled,
    SourceUnavailable,
    said,
)
from runspan.ledger import Claim, Finished, Ledger, RowState, Summary
from runspan.model import Run, RunStatus
from runspan.otlp.encode import encode
from runspan.pipeline import standing
from runspan.pipeline.line import Line
from runspan.pipeline.outbox import Outbox, Parcel
from runspan.pipeline.witnesses import Seen, Witnesses
from runspan.projection import project
from runspan.projection.conventions import own
from runspan.quantities import nanoseconds
from runspan.rate import TurnsOver
from runspan.trace import Trace

log = structlog.get_logger()

IDLE_LOOK_SECONDS = 5.0
"""Rows may also come from other processes (a backfill, `runspan retry`), so an idle worker looks this often."""
JOB_LOOK_SECONDS = 0.5
"""The rows of a job may also be finished by a daemon, and somebody waits for the last one."""
BLOCKED_LOOK_SECONDS = 0.2
JOB_PATIENCE = timedelta(seconds=20)
"""A job does not wait for a run that has failed so often that it is tried again only after this."""
DOUBTFUL_CLAIMS = 3
"""So many runs are tried, at random, where none has come since one failed: those due longest may all be bad ones."""


class Work:
    """Brings one source's due rows to the outbox, `concurrency` at a time.

    `job`: only the rows of this backfill.
    """

    def __init__(
        self,
        line: Line,
        ledger: Ledger,
        outbox: Outbox,
        now: Callable[[], int],
        *,
        job: str | None = None,
    ) -> None:
        self._line = line
        self._ledger = ledger
        self._outbox = outbox
        self._now = now
        self._job = job
        self._look_seconds = JOB_LOOK_SECONDS if job else IDLE_LOOK_SECONDS
        self._tasks: set[asyncio.Task[None]] = set()
        self._open_tasks: set[asyncio.Task[None]] = set()
        """Of them, those of runs that have not ended: these wait for their half of the rate, and hold up no others."""
        self._error: BaseException | None = None
        self._witnesses = Witnesses(line, ledger)
        self._busy: Counter[str] = Counter()
        """How often a run was answered with 429. Such attempts do not count against it, but it is asked more rarely."""
        self._stopping = False

    def stop(self) -> None:
        """Claim nothing more; what is asked already is finished, and what waits for its turn is given back."""
        self._stopping = True
        self._line.stopping.set()
        self._line.wake.set()

    async def run(self) -> None:
        """Work until `stop`; for a job, until none of its rows is due any more. Raises LedgerUnusable."""
        states = (RowState.DUE, RowState.OPEN) if self._job else (RowState.DUE, RowState.OPEN, RowState.EXPIRED)
        try:
            while not self._stopping:
                claims = await self._claim(states)
                for claim in claims:
                    self._start(claim)
                if not claims and self._job and not self._tasks and await self._is_done(self._job):
                    return
                if not claims:
                    await self._rest(states)
            if self._tasks and not self._error:
                await asyncio.wait(self._tasks)
            if self._error:
                raise self._error
        except BaseException:
            # Not waited for: under a small rate that may be minutes, and without a ledger it is for nothing.
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            raise

    async def _claim(self, states: tuple[RowState, ...]) -> list[Claim]:
        line, outbox = self._line, self._outbox
        in_doubt = line.fetching.failures > 0
        free = min(self._free, DOUBTFUL_CLAIMS) if in_doubt else self._free
        allowed = 0 if line.fetching.paused_seconds else outbox.allowance(free)
        if not allowed:
            return []
        line.wake.clear()
        claims: list[Claim] = []
        # Counted before the claim: two sources must not both find the one place for a probe free.
        outbox.claim(allowed)
        try:
            claims = await asyncio.to_thread(
                self._ledger.claim,
                line.account,
                limit=allowed,
                most_open=self._free_for_open,
                states=states,
                job=self._job,
                at_random=in_doubt,
            )
        finally:
            outbox.fetching -= allowed - len(claims)
        outbox.leased.update(claim.ref for claim in claims)
        return claims

    @property
    def _free(self) -> int:
        return self._line.config.concurrency - len(self._tasks)

    @property
    def _free_for_open(self) -> int:
        return max(0, -(-self._line.config.concurrency // 2) - len(self._open_tasks))

    def _start(self, claim: Claim) -> None:
        task = asyncio.create_task(self._process(claim))
        self._tasks.add(task)
        if claim.state is not RowState.DUE:
            self._open_tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._open_tasks.discard(task)
        self._line.wake.set()
        if not task.cancelled() and (error := task.exception()):
            self._error = error
            self._stopping = True

    async def _rest(self, states: tuple[RowState, ...]) -> None:
        """Sleep until something may have become possible: a row due, a task done, a pause over."""
        line, timeout = self._line, self._look_seconds
        if line.fetching.paused_seconds:
            timeout = min(timeout, line.fetching.paused_seconds)
        elif self._free and not self._outbox.allowance(1):
            timeout = BLOCKED_LOOK_SECONDS
        elif self._free:
            states = states if self._free_for_open else (RowState.DUE,)
            due_ns = await asyncio.to_thread(self._ledger.next_due_ns, line.account, states=states, job=self._job)
            if due_ns is not None:
                timeout = min(timeout, max((due_ns - self._now()) / 1e9, 0.01))
        try:
            async with asyncio.timeout(timeout):
                await line.wake.wait()
        except TimeoutError:
            return
        line.wake.clear()

    async def _is_done(self, job: str) -> bool:
        if self._line.failing or not self._outbox.delivery.healthy:
            return False  # What is left may have failed for that.
        return not await asyncio.to_thread(self._ledger.job_waits, job, patience_ns=nanoseconds(JOB_PATIENCE))

    async def _process(self, claim: Claim) -> None:
        async with self._outbox.in_flight.hold():
            await self._bring(claim)

    async def _bring(self, claim: Claim) -> None:
        outbox = self._outbox
        try:
            step = await self._fetch_and_map(claim)
        except TurnsOver:
            await self._give_back(claim)
            return
        except asyncio.CancelledError:
            await asyncio.shield(self._let_go(claim))
            raise
        finally:
            outbox.fetching -= 1
        if isinstance(step, Parcel):
            outbox.put(step)
            # A run counts against the concurrency up to its mark, so that a kill costs no more than that many requests.
            await step.settled.wait()
            return
        await asyncio.to_thread(self._ledger.finish, [step])
        outbox.leased.discard(claim.ref)

    async def _give_back(self, claim: Claim) -> None:
        await asyncio.to_thread(self._ledger.release, [claim.ref])
        self._outbox.leased.discard(claim.ref)

    async def _let_go(self, claim: Claim) -> None:
        # Where the ledger fails, that is told already, or will be when it is closed.
        with suppress(LedgerUnusable):
            await self._give_back(claim)

    async def _fetch_and_map(self, claim: Claim) -> Parcel | Finished:
        line, seen = self._line, self._witnesses.seen
        try:
            run = await self._fetched(claim)
        except (LedgerUnusable, TurnsOver):
            raise
        except SourceBusy as error:
            line.fetching.failed(error)
            self._busy[claim.ref.run_id] += 1
            due_ns = standing.retry_at(self._now(), self._busy[claim.ref.run_id] - 1, error.retry_after_seconds)
            return Finished(claim.ref, claim.state, reason=str(error), due_ns=due_ns)
        except (SourceUnavailable, RunGone, RunUnreadable) as error:
            return await self._failed(claim, error, seen)
        except Exception as error:
            return self._unmappable(claim, error)
        self._witnesses.came(claim.ref)
        self._busy.pop(claim.ref.run_id, None)
        try:
            return self._mapped(claim, run)
        except Exception as error:
            return self._unmappable(claim, error)

    async def _fetched(self, claim: Claim) -> Run:
        line, known_open = self._line, claim.state is not RowState.DUE
        if known_open:
            await line.open_limiter.acquire()
        try:
            body = await line.source.fetch(
                claim.ref,
                known_open=known_open and not self._is_exported_open(claim),
                with_content=line.projection.tool_content,
            )
        except (RunspanError, TurnsOver):
            raise
        except Exception as error:
            # A hole in our asking may be met by all runs at once, as long as the platform answers so.
            raise SourceGarbled(f"source {line.name}: a run cannot be asked for: {said(error)}") from error
        return line.source.read(body)

    def _mapped(self, claim: Claim, run: Run) -> Parcel | Finished:
        line, now_ns = self._line, self._now()
        if run.status is RunStatus.OPEN:
            return self._still_open(claim, run, now_ns)
        if run.skip_reason is not None:
            return Finished(claim.ref, RowState.SKIPPED, reason=run.skip_reason, raw_status=run.raw_status)
        if run.status not in standing.exported_statuses(claim.ref, line.config):
            reason = standing.filter_reason(run.status, line.config)
            return Finished(claim.ref, RowState.SKIPPED, reason=reason, raw_status=run.raw_status)
        if claim.terminal_seen_ns is None:
            due_ns = standing.settled_at(now_ns, run.ended_ns, line.config.settle)
            if due_ns > now_ns:
                return Finished(
                    claim.ref, RowState.DUE, due_ns=due_ns, raw_status=run.raw_status, terminal_seen_ns=now_ns
                )
        return self._parcel(claim, run)

    def _parcel(self, claim: Claim, run: Run) -> Parcel:
        projection = self._line.projection
        trace = project(run, projection)
        encoded = encode(trace, trace_bytes=projection.preset.trace_bytes)
        if (trimmed := encoded.trace.root.attributes.get(own.TRIMMED)) is not None:
            log.warning(
                f"run {claim.ref.run_id} is sent {trimmed}",
                action="trace_trimmed",
                source=self._line.name,
                run=claim.ref.run_id,
            )
        return Parcel(claim, encoded, summary_of(run, trace), run.raw_status)

    def _still_open(self, claim: Claim, run: Run, now_ns: int) -> Parcel | Finished:
        config = self._line.config
        if self._is_exported_open(claim):
            return self._parcel(claim, replace(run, incomplete=True))
        open_ns = now_ns - claim.first_seen_ns
        if open_ns >= nanoseconds(self._line.retention):
            log.warning("a run never ended", action="run_gone", source=self._line.name, run=claim.ref.run_id)
            return Finished(claim.ref, RowState.GONE, reason="open for longer than the ledger's retention")
        if open_ns >= nanoseconds(config.open_for):
            due_ns = now_ns + nanoseconds(standing.EXPIRED_ASK_EVERY)
            return Finished(claim.ref, RowState.EXPIRED, reason="open for longer than open_for", due_ns=due_ns)
        since_ns = min(run.created_ns or run.started_ns or claim.first_seen_ns, claim.first_seen_ns)
        due_ns = now_ns + standing.ask_interval(now_ns - since_ns, config.poll_every)
        return Finished(claim.ref, RowState.OPEN, due_ns=due_ns, raw_status=run.raw_status)

    def _is_exported_open(self, claim: Claim) -> bool:
        """Whether the run has been open for so long that it is exported as it stands."""
        config = self._line.config
        return config.export_expired and self._now() - claim.first_seen_ns >= nanoseconds(config.open_for)

    async def _failed(self, claim: Claim, error: SourceUnavailable | RunGone | RunUnreadable, seen: Seen) -> Finished:
        """Asked again later; given up where it is the run that does not come, and not its platform that fails."""
        if isinstance(error, RunUnreadable) and not error.retryable:
            return self._unmappable(claim, error)
        is_gone = isinstance(error, RunGone)
        may_come = is_gone and self._may_still_come(claim)
        if not may_come and await self._witnesses.tell_against(claim.ref, error, claim.attempts + 1, seen):
            return self._gone(claim, error) if is_gone else self._quarantined(claim, str(error), retryable=True)
        asked_seconds = error.retry_after_seconds if isinstance(error, SourceUnavailable) else None
        return Finished(
            claim.ref,
            RowState.DUE if is_gone else claim.state,
            reason=str(error),
            due_ns=standing.retry_at(self._now(), claim.attempts, asked_seconds),
            count_attempt=True,
        )

    def _may_still_come(self, claim: Claim) -> bool:
        """Whether a run that is not there is so young that its platform may just not show it yet."""
        now_ns, created_ns = self._now(), claim.ref.locator.created_ns
        is_fresh = created_ns is None or now_ns - created_ns < nanoseconds(standing.FRESH)
        return is_fresh and now_ns - claim.first_seen_ns < int(self._line.source.gone_grace_seconds * 1e9)

    def _gone(self, claim: Claim, error: Exception) -> Finished:
        self._line.fetching.succeeded()
        self._witnesses.forget(claim.ref)
        log.warning(str(error), action="run_gone", source=self._line.name, run=claim.ref.run_id)
        return Finished(claim.ref, RowState.GONE, reason="the platform no longer has this run")

    def _unmappable(self, claim: Claim, error: Exception) -> Finished:
        if isinstance(error, RunUnreadable):
            return self._quarantined(claim, str(error), retryable=error.retryable)
        # A hole in our reading must cost one run, not the daemon; the place is said, the body is not.
        return self._quarantined(claim, f"cannot be mapped: {said(error)}", retryable=True)

    def _quarantined(self, claim: Claim, reason: str, *, retryable: bool) -> Finished:
        self._witnesses.forget(claim.ref)
        log.error(
            f"run {claim.ref.run_id} is quarantined: {reason}",
            action="run_quarantined",
            source=self._line.name,
            run=claim.ref.run_id,
            retryable=retryable,
        )
        return Finished(claim.ref, RowState.QUARANTINED, reason=reason, retryable=retryable)


def summary_of(run: Run, trace: Trace) -> Summary:
    """What the ledger keeps of an exported run: numbers and names, no content."""
    cost = run.cost
    return Summary(
        agent_id=run.agent_id,
        agent_name=run.agent_name,
        status=run.status.value,
        error_type=str(trace.root.attributes["error.type"]) if "error.type" in trace.root.attributes else None,
        started_ns=trace.root.start_ns,
        ended_ns=trace.root.end_ns,
        input_tokens=run.usage.input_tokens,
        output_tokens=run.usage.output_tokens,
        total_tokens=run.usage.known_total,
        cost_amount=str(cost.amount) if cost else None,
        cost_unit=cost.unit if cost else None,
        step_count=len(trace.spans) - 1,
        trace_id=trace.trace_id.hex(),
    )
