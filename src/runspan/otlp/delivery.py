"""What follows from a destination's answers: waiting, splitting, bisecting, quarantine; the same for every protocol.

    accepted          exported
    partial success   never sent again. A trace alone: quarantined. A batch: exported but doubtful, and the
                      destination gets one trace per request until an answer is clean
    too large         split; a trace that is too large alone: quarantined
    bad data          bisected down to the trace that is refused alone, which is quarantined, if the destination
                      took anything else in the same minute; otherwise the destination is wrong
    retry, wrong,     all traces stay due and the destination is left alone: for a while that doubles up to a minute,
    failed            or as long as it asks for; then one trace goes ahead alone
    failed, alone,    only that trace waits, and longer each time; after the fifth refusal in over an hour it is
    again and again   quarantined
      while others pass

A trace's history of refusals is kept in memory only: a restart makes its quarantine later, never wrong.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from runspan.errors import said
from runspan.otlp.base import Answer, AnswerKind, EncodedTrace, Exporter, Outcome, Verdict

log = structlog.get_logger()

BACKOFF_SECONDS = 1.0
SLOWER_BACKOFF_SECONDS = 5.0
"""Where the answer promises nothing (`FAILED`)."""
LONGEST_BACKOFF_SECONDS = 60.0
LONGEST_ASKED_SECONDS = 3600.0
"""A destination that asks for more is asked again after an hour all the same: the wait may be a mistake."""
VOUCHED_NS = 60_000_000_000
"""How long an accepted request shows that the destination itself is sound."""
QUARANTINED_IN_A_ROW = 3
"""So many refused traces are believed to be bad where others were taken a moment ago."""
TRIED_IN_DOUBT = 3
"""So many traces are tried before a destination that refuses all of them is called wrong."""
REFUSALS = 5
REFUSED_FOR_NS = 3_600_000_000_000
SHORTEST_TRACE_DELAY_SECONDS = 60.0
LONGEST_TRACE_DELAY_SECONDS = 900.0
REMEMBERED_TRACES = 10_000


@dataclass(slots=True)
class _Refusals:
    """How often a trace was in a request that failed, counted only if other traces have passed in between."""

    first_ns: int
    last_ns: int
    count: int = 1


class Delivery:
    """Brings traces to one destination and says what became of each.

    `now_ns` is the wall clock, `monotonic_ns` one that never jumps, `jitter` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        exporter: Exporter,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._exporter = exporter
        self._now_ns = now_ns
        self._monotonic_ns = monotonic_ns
        self._jitter = jitter
        self._turn = asyncio.Lock()
        self._held_until_ns: int | None = None
        self._failures = 0
        self._passed_ns: int | None = None
        self._probe_passed_ns: int | None = None
        self._quarantined_in_a_row = 0
        self._one_by_one = False
        self._refusals: dict[bytes, _Refusals] = {}
        self.wrong = False
        """The last failure was one that waiting does not mend: a refused key, a bad certificate, no OTLP receiver."""
        self.last_error: str | None = None
        """The last refusal or failure, kept after the destination has recovered."""

    @property
    def healthy(self) -> bool:
        """Whether the destination takes what it is sent, as far as we know."""
        return self._held_until_ns is None

    @property
    def retry_at_ns(self) -> int:
        """When an unhealthy destination may be tried again, with one trace; wall clock. 0 when it may be tried now."""
        held_ns = self._held_ns()
        return self._now_ns() + held_ns if held_ns else 0

    async def deliver(self, traces: Sequence[EncodedTrace]) -> AsyncGenerator[Mapping[int, Outcome]]:
        """What became of each trace, by its place: after each request what that one settled, so that it can be marked
        before the next. Before `retry_at_ns` nothing is sent and all stay due.

        Callers take turns: the destination sees one request at a time.
        """
        async with self._turn:
            # Behind the others: while the destination is tried with one trace, it had better be a good one.
            pending = deque(sorted(range(len(traces)), key=lambda place: self._count(traces[place])))
            halves: list[list[int]] = []
            while halves or pending:
                batch = halves.pop() if halves else self._next_batch(traces, pending)
                settled = await self._settle([traces[place] for place in batch])
                if settled is None:
                    middle = len(batch) // 2
                    halves += [batch[middle:], batch[:middle]]
                else:
                    yield dict(zip(batch, settled, strict=True))

    def _next_batch(self, traces: Sequence[EncodedTrace], pending: deque[int]) -> list[int]:
        batch = [pending.popleft()]
        if self._goes_alone(traces[batch[0]]):
            return batch
        size_bytes = len(traces[batch[0]].payload)
        while pending and not self._goes_alone(traces[pending[0]]):
            size_bytes += len(traces[pending[0]].payload)
            if size_bytes > self._exporter.max_request_bytes:
                break
            batch.append(pending.popleft())
        return batch

    def _goes_alone(self, trace: EncodedTrace) -> bool:
        return self._one_by_one or not self.healthy or self._count(trace) > 1

    async def _settle(self, batch: Sequence[EncodedTrace]) -> list[Outcome] | None:
        """Send a batch; None where its halves are to be sent instead, to tell a bad trace from good ones."""
        if self._held_ns() > 0:
            return self._due(batch, self.last_error or "", self._held_ns() / 1e9)
        answer = await self._ask(batch)
        match answer.kind:
            case AnswerKind.ACCEPTED:
                self._passed(batch)
                self._one_by_one = False
                return [Outcome(Verdict.EXPORTED)] * len(batch)
            case AnswerKind.PARTIAL:
                return self._partly_taken(batch, answer)
            case AnswerKind.TOO_LARGE if len(batch) > 1:
                return None
            case AnswerKind.TOO_LARGE:
                return self._refused_for_good(batch, answer, QUARANTINED_IN_A_ROW, retryable=True)
            case AnswerKind.BAD_DATA:
                return await self._bad_data(batch, answer)
            case AnswerKind.RETRY | AnswerKind.FAILED | AnswerKind.WRONG:
                return self._refused(batch, answer)

    async def _ask(self, batch: Sequence[EncodedTrace]) -> Answer:
        try:
            return await self._exporter.send(batch)
        except Exception as error:
            # A hole in an exporter must not end the bridge.
            return Answer(AnswerKind.FAILED, f"the exporter failed: {said(error)}")

    def _partly_taken(self, batch: Sequence[EncodedTrace], answer: Answer) -> list[Outcome]:
        self._passed(batch)
        if not answer.rejected_spans:
            log.warning(
                "the destination took everything with a warning",
                action="destination_warning",
                reason=answer.reason,
                traces=len(batch),
            )
            return [Outcome(Verdict.EXPORTED, answer.reason)] * len(batch)
        self._one_by_one = True
        reason = f"the backend rejected {answer.rejected_spans} spans: {answer.reason or 'it does not say why'}"
        self.last_error = reason
        if len(batch) == 1:
            return [self._quarantine(batch[0], reason, retryable=False)]
        log.error(
            "the destination rejected spans of some of these traces without saying whose",
            action="export_doubtful",
            reason=reason,
            traces=len(batch),
        )
        return [Outcome(Verdict.DOUBTFUL, reason)] * len(batch)

    async def _bad_data(self, batch: Sequence[EncodedTrace], answer: Answer) -> list[Outcome] | None:
        """Look for the bad trace, unless it is the destination that is wrong: then it would refuse anything."""
        by_a_trace = self._is_fresh(self._passed_ns)
        if not (by_a_trace or self._is_fresh(self._probe_passed_ns)):
            # A request with nothing in it is valid, and leaves nothing behind.
            probe = await self._ask([])
            if probe.kind not in (AnswerKind.ACCEPTED, AnswerKind.PARTIAL):
                down = probe.kind in (AnswerKind.RETRY, AnswerKind.FAILED)
                reason = f"{answer.reason}; and it refuses an empty request too"
                return self._refused(batch, probe if down else Answer(AnswerKind.WRONG, reason))
            self._probe_passed_ns = self._monotonic_ns()
        if len(batch) > 1:
            return None
        # That it takes nothing at all proves little. One trace may be lost to such proof.
        believed = QUARANTINED_IN_A_ROW if by_a_trace else 1
        return self._refused_for_good(batch, answer, believed, retryable=not by_a_trace)

    def _refused_for_good(
        self, batch: Sequence[EncodedTrace], answer: Answer, believed: int, *, retryable: bool
    ) -> list[Outcome]:
        """Quarantine a lone trace. After so many in a row it may be the destination that refuses anything: then all
        stay due, what is sent to it slows down to a trace a minute, and if none of a few is taken, someone is told."""
        if self._quarantined_in_a_row >= believed:
            kind = AnswerKind.RETRY if self._failures < TRIED_IN_DOUBT else AnswerKind.WRONG
            return self._refused(batch, Answer(kind, f"{answer.reason}; it has taken no trace since it refused others"))
        self._quarantined_in_a_row += 1
        return [self._quarantine(batch[0], answer.reason, retryable=retryable)]

    def _refused(self, batch: Sequence[EncodedTrace], answer: Answer) -> list[Outcome]:
        if answer.kind is AnswerKind.WRONG:
            self._hold(answer)
            return self._due(batch, answer.reason, self._held_ns() / 1e9)
        counted = [self._count_again(trace) for trace in batch]
        alone_again = counted == [True]
        if answer.kind is AnswerKind.RETRY or not alone_again:
            self._hold(answer)
        if not alone_again:
            return self._due(batch, answer.reason, self._held_ns() / 1e9)
        refusals = self._refusals[batch[0].trace.trace_id]
        over_an_hour = self._monotonic_ns() - refusals.first_ns >= REFUSED_FOR_NS
        if answer.kind is AnswerKind.FAILED and refusals.count >= REFUSALS and over_an_hour:
            reason = f"refused alone {refusals.count} times while other traces passed: {answer.reason}"
            return [self._quarantine(batch[0], reason, retryable=True)]
        delay_seconds = min(
            SHORTEST_TRACE_DELAY_SECONDS * 2 ** min(refusals.count - 2, 10), LONGEST_TRACE_DELAY_SECONDS
        )
        self.last_error = answer.reason
        return self._due(batch, answer.reason, max(delay_seconds, _asked_seconds(answer)))

    def _due(self, batch: Sequence[EncodedTrace], reason: str, retry_after_seconds: float) -> list[Outcome]:
        return [Outcome(Verdict.DUE, reason, retry_after_seconds)] * len(batch)

    def _quarantine(self, trace: EncodedTrace, reason: str, *, retryable: bool) -> Outcome:
        self._refusals.pop(trace.trace.trace_id, None)
        ref = trace.trace.ref
        log.error(
            "the destination refuses this trace; it is kept in quarantine",
            action="trace_quarantined",
            platform=ref.platform,
            tenant=ref.tenant,
            run=ref.run_id,
            reason=reason,
        )
        return Outcome(Verdict.QUARANTINED, reason, retryable=retryable)

    def _hold(self, answer: Answer) -> None:
        """Leave the destination alone for a while."""
        wrong = answer.kind is AnswerKind.WRONG
        first_seconds = SLOWER_BACKOFF_SECONDS if answer.kind is AnswerKind.FAILED else BACKOFF_SECONDS
        backoff_seconds = min(first_seconds * 2 ** min(self._failures, 10), LONGEST_BACKOFF_SECONDS)
        # Half of it by chance: bridges that went down with a shared destination must not come back in step.
        backoff_seconds *= 0.5 + 0.5 * self._jitter()
        wait_seconds = max(backoff_seconds, _asked_seconds(answer))
        news = self.healthy or answer.reason != self.last_error or wrong != self.wrong
        self.wrong = wrong
        self._failures += 1
        self._held_until_ns = self._monotonic_ns() + int(wait_seconds * 1e9)
        self.last_error = answer.reason
        details = {"reason": answer.reason, "retry_seconds": round(wait_seconds, 1)}
        if news and wrong:
            log.error(
                "the destination does not take what we send; someone must act, and until then all traces stay due",
                action="destination_wrong",
                **details,
            )
        elif news:
            log.warning(
                "the destination does not answer as it should; all traces stay due",
                action="destination_down",
                **details,
            )

    def _passed(self, batch: Sequence[EncodedTrace]) -> None:
        for trace in batch:
            self._refusals.pop(trace.trace.trace_id, None)
        if not self.healthy:
            log.info("the destination takes traces again", action="destination_up", failures=self._failures)
        self._held_until_ns = None
        self.wrong = False
        self._failures = 0
        self._quarantined_in_a_row = 0
        self._passed_ns = self._monotonic_ns()

    def _held_ns(self) -> int:
        return 0 if self._held_until_ns is None else max(0, self._held_until_ns - self._monotonic_ns())

    def _is_fresh(self, accepted_ns: int | None) -> bool:
        return accepted_ns is not None and self._monotonic_ns() - accepted_ns <= VOUCHED_NS

    def _count(self, trace: EncodedTrace) -> int:
        refusals = self._refusals.get(trace.trace.trace_id)
        return refusals.count if refusals else 0

    def _count_again(self, trace: EncodedTrace) -> bool:
        """Note a failed request with this trace; whether it failed before and others have passed since."""
        now_ns = self._monotonic_ns()
        refusals = self._refusals.get(trace.trace.trace_id)
        if refusals is None:
            if len(self._refusals) >= REMEMBERED_TRACES:
                del self._refusals[next(iter(self._refusals))]
            self._refusals[trace.trace.trace_id] = _Refusals(now_ns, now_ns)
            return False
        if self._passed_ns is None or self._passed_ns <= refusals.last_ns:
            return False
        refusals.count += 1
        refusals.last_ns = now_ns
        return True


def _asked_seconds(answer: Answer) -> float:
    return min(answer.retry_after_seconds or 0.0, LONGEST_ASKED_SECONDS)
