"""The end of a run's way: deliver, acknowledge, mark in the ledger.

All sources share one outbox, since they share one destination. The digests of a batch are committed before it is sent
and its rows are marked after the acknowledgement of each request: whatever dies in between, the rows are still due, and
what is sent again is the same bytes.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from runspan.in_flight import InFlight
from runspan.ledger import Claim, Finished, Ledger, RowState, Summary
from runspan.model import RunRef
from runspan.otlp.base import EncodedTrace, Outcome, Verdict
from runspan.otlp.delivery import Delivery
from runspan.pipeline import standing
from runspan.pipeline.age import OldRuns

log = structlog.get_logger()

LEASE_RENEWAL = timedelta(minutes=2)
LINGER_SECONDS = 0.05
LARGEST_BATCH = 256
PROBE_PATIENCE_NS = 5_000_000_000
"""After this another run is fetched to try an unhealthy destination with, if the last one has not come yet."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A trace ready to be delivered, with the row it came from and what the ledger keeps of it."""

    claim: Claim
    encoded: EncodedTrace
    summary: Summary
    raw_status: str | None
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the row has been marked, or will not be any more."""


class Outbox:
    """Collects parcels into batches and hands them to the destination.

    `in_flight` bounds the bodies of the runs on their way, over all sources. `on_marked` hears of every row that was
    marked, for progress and metrics.
    """

    def __init__(
        self,
        ledger: Ledger,
        delivery: Delivery,
        *,
        now: Callable[[], int],
        in_flight: InFlight,
        old_runs: OldRuns,
        on_marked: Callable[[Parcel, RowState], None] = lambda parcel, state: None,
    ) -> None:
        self._ledger = ledger
        self._now = now
        self.old_runs = old_runs
        self._on_marked = on_marked
        self._queue: list[Parcel] = []
        self._claimed_ns = 0
        self._filled = asyncio.Event()
        self._sending = False
        self._closing = False
        self._ended = False
        self.delivery = delivery
        self.in_flight = in_flight
        self.fetching = 0
        """Rows that are being claimed and fetched, over all sources."""
        self.leased: set[RunRef] = set()
        """Rows under a lease of this process, from their claim to their mark."""
        self.differing = 0
        """Runs that were sent again with other bytes, since this process began."""

    def allowance(self, free: int) -> int:
        """How many more rows may be fetched now: all of `free`, or one to try an unhealthy destination with."""
        if self.delivery.healthy:
            return 0 if self.in_flight.full else free
        # A source that does not answer must not keep the others from trying.
        is_slow = self._now() - self._claimed_ns > PROBE_PATIENCE_NS
        idle = not (self._queue or self._sending) and (is_slow or not self.fetching)
        return min(free, 1) if idle and self._now() >= self.delivery.retry_at_ns else 0

    def claim(self, rows: int) -> None:
        """So many rows are about to be claimed and fetched."""
        self.fetching += rows
        self._claimed_ns = self._now()

    async def renew_leases(self) -> None:
        """Lengthen the leases of all rows on their way; to be done every `LEASE_RENEWAL`."""
        await asyncio.to_thread(self._ledger.renew, list(self.leased))

    def put(self, parcel: Parcel) -> None:
        """Hand over a trace."""
        if self._ended:
            parcel.settled.set()
            return
        self.old_runs.about_to_send(parcel.claim.ref.run_id, parcel.encoded.trace.root.end_ns)
        self._queue.append(parcel)
        self._filled.set()

    def close(self) -> None:
        """Let `run` return once everything that was put in is settled."""
        self._closing = True
        self._filled.set()

    async def run(self) -> None:
        """Send batches until `close`. Raises LedgerUnusable."""
        try:
            while await self._send_next():
                pass
        finally:
            # However it ends, nobody waits for a mark that will not come: those rows are still due.
            self._ended = True
            for parcel in self._queue:
                parcel.settled.set()

    async def _send_next(self) -> bool:
        """Send one batch, once there is one; False where there is none and will be none."""
        await self._filled.wait()
        if not self._queue:
            return False
        if self.fetching and len(self._queue) < LARGEST_BATCH:
            # Others are about to arrive: one request for all of them is cheaper for both sides.
            await asyncio.sleep(LINGER_SECONDS)
        batch, self._queue = self._queue[:LARGEST_BATCH], self._queue[LARGEST_BATCH:]
        if not (self._queue or self._closing):
            self._filled.clear()
        self._sending = True
        try:
            await self._send(batch)
        finally:
            self._sending = False
            for parcel in batch:
                parcel.settled.set()
        return True

    async def _send(self, batch: Sequence[Parcel]) -> None:
        ready = await asyncio.to_thread(
            self._ledger.about_to_send, [(parcel.claim.ref, parcel.encoded.digest) for parcel in batch]
        )
        self.leased.difference_update(parcel.claim.ref for parcel in batch if parcel.claim.ref not in ready.refs)
        lost = len(batch) - len(ready.refs)
        batch = [parcel for parcel in batch if parcel.claim.ref in ready.refs]
        if lost:
            log.warning(
                "runs are left to another process, which has taken them over: this one stood still for too long",
                action="leases_lost",
                runs=lost,
            )
        if ready.differing:
            self.differing += ready.differing
            log.warning(
                "runs are sent again with another body than before: the platform changed them",
                action="repeat_differs",
                runs=ready.differing,
            )
        if not batch:
            return
        async with aclosing(self.delivery.deliver([parcel.encoded for parcel in batch])) as requests:
            async for outcomes in requests:
                await self._mark([(batch[place], outcome) for place, outcome in outcomes.items()])

    async def _mark(self, settled: Iterable[tuple[Parcel, Outcome]]) -> None:
        now_ns = self._now()
        marks = [(parcel, self._finished(parcel, outcome, now_ns)) for parcel, outcome in settled]
        await asyncio.to_thread(self._ledger.finish, [row for _, row in marks])
        self.leased.difference_update(row.ref for _, row in marks)
        for parcel, row in marks:
            self._on_marked(parcel, row.state)
            parcel.settled.set()
        exported = [parcel for parcel, row in marks if row.state is RowState.EXPORTED]
        if exported:
            spans = sum(len(parcel.encoded.trace.spans) for parcel in exported)
            log.info("runs exported", action="exported", runs=len(exported), spans=spans)

    def _finished(self, parcel: Parcel, outcome: Outcome, now_ns: int) -> Finished:
        ref, claim = parcel.claim.ref, parcel.claim
        match outcome.verdict:
            case Verdict.EXPORTED | Verdict.DOUBTFUL:
                return Finished(
                    ref,
                    RowState.EXPORTED,
                    reason=outcome.reason or None,
                    raw_status=parcel.raw_status,
                    doubtful=outcome.verdict is Verdict.DOUBTFUL,
                    summary=parcel.summary,
                )
            case Verdict.QUARANTINED:
                return Finished(
                    ref,
                    RowState.QUARANTINED,
                    reason=outcome.reason,
                    retryable=outcome.retryable,
                    raw_status=parcel.raw_status,
                    summary=parcel.summary,
                )
            case Verdict.DUE:
                due_ns = standing.retry_at(now_ns, claim.attempts, outcome.retry_after_seconds)
                return Finished(ref, RowState.DUE, reason=outcome.reason or None, due_ns=due_ns)
