"""The daemon: polls on a schedule, works off what is due, and stops in order.

APScheduler keeps the times (in memory: the schedule is the configuration, the progress is the ledger); one `Work` per
source and one outbox do the rest. Whatever signal ends it (`runspan.stop`), nothing new is claimed, what is under way
is delivered and marked within `DRAIN_SECONDS`, and what is not stays due.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from apscheduler.job import Job
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from runspan.config import Config
from runspan.config.destination import traces_url_at
from runspan.daemon.web import serve
from runspan.errors import LedgerUnusable, SourceUnavailable, said
from runspan.ledger import Ledger, RowState
from runspan.metrics import Metrics
from runspan.pipeline import standing
from runspan.pipeline.assembly import Pipeline, pipeline
from runspan.pipeline.discovery import Discovery
from runspan.pipeline.line import Line
from runspan.pipeline.outbox import LEASE_RENEWAL, Parcel
from runspan.pipeline.work import Work
from runspan.quantities import nanoseconds
from runspan.stop import on_signal

log = structlog.get_logger()

DRAIN_SECONDS = 7.0
"""Container runtimes send SIGKILL after ten; closing what is open takes its time too."""
PRUNE_EVERY = timedelta(hours=1)
FIRST_LOOK_BACK = timedelta(minutes=1)
CLOCK_LOOK_SECONDS = 1.0
CLOCK_TOLERANCE_NS = 2_000_000_000
"""A clock that is set back by less delays us by no more than that."""
START_SPREAD_SECONDS = 0.5
"""Sources begin one after the other, so that they do not knock all at once."""


async def run(
    config: Config,
    ledger: Ledger,
    *,
    stop: asyncio.Event | None = None,
    on_marked: Callable[[Parcel, RowState], None] = lambda parcel, state: None,
) -> signal.Signals | None:
    """Run until `stop` or a signal, and give the signal. `on_marked` hears of every run that was sent.

    Raises LedgerUnusable (also where another daemon holds the ledger) and ConfigError.
    """
    stopping = stop or asyncio.Event()
    signals: list[signal.Signals] = []
    metrics = Metrics(ledger)

    def marked(parcel: Parcel, state: RowState) -> None:
        metrics.on_marked(parcel, state)
        on_marked(parcel, state)

    def signalled(number: signal.Signals) -> None:
        signals.append(number)
        stopping.set()

    with ExitStack() as to_the_end, ledger.hold_daemon():
        async with pipeline(config, ledger, on_marked=marked) as line_up:
            # Until all is given back: a signal that comes meanwhile must not hide how the daemon ended.
            to_the_end.enter_context(on_signal(signalled))
            _greet(line_up)
            metrics.watch(line_up)
            daemon = Daemon(line_up)
            async with serve(config.web, line_up, metrics) as url:
                log.info(f"status page at {url}", action="web_started", url=url)
                await daemon.run(stopping)
    return signals[0] if signals else None


class Daemon:
    """Drives one pipeline by the clock."""

    def __init__(self, line_up: Pipeline) -> None:
        self._pipeline = line_up
        self._works = [Work(line, line_up.ledger, line_up.outbox, line_up.now) for line in line_up.lines]
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )
        self._jobs: list[Job] = []
        self._looking: set[asyncio.Task[None]] = set()
        self._fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping`, then drain. Raises what ended the work if it was not asked to stop."""
        await self._mend_times()
        self._schedule()
        self._scheduler.start()
        outbox = asyncio.create_task(self._pipeline.outbox.run())
        works = [asyncio.create_task(work.run()) for work in self._works]
        stopped = asyncio.create_task(stopping.wait())
        clock = asyncio.create_task(self._watch_clock())
        try:
            await asyncio.wait([stopped, self._fatal, clock, outbox, *works], return_when=asyncio.FIRST_COMPLETED)
            for task in (self._fatal, clock, outbox, *works):
                if task.done():
                    task.result()
            log.info("stopping: what is under way is finished first", action="stopping")
            for look in self._looking:
                look.cancel()
            for work in self._works:
                work.stop()
            await self._drain(works, outbox)
        except LedgerUnusable as error:
            # Said now, and not only at the end: whatever hangs until then, the page is gone already.
            log.error(str(error), action="ledger_unusable")
            raise
        finally:
            self._scheduler.pause()
            await asyncio.sleep(0)  # Of a job that is cancelled before it has begun, the scheduler would complain.
            self._scheduler.shutdown(wait=False)
            # A look that is cut short goes on at its cursor next time.
            tasks = (stopped, clock, outbox, *works, *self._looking)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        log.info("stopped", action="stopped")

    async def _drain(self, works: list[asyncio.Task[None]], outbox: asyncio.Task[None]) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await asyncio.gather(*works)
                self._pipeline.outbox.close()
                await outbox
        except TimeoutError:
            log.warning("not all could be finished in time; the rest stays due", action="drain_timeout")

    async def _watch_clock(self) -> None:
        """Where the clock is set back, what waits for a time of the clock before would wait as long as that was."""
        while True:
            ahead_ns = time.time_ns() - time.monotonic_ns()
            await asyncio.sleep(CLOCK_LOOK_SECONDS)
            back_ns = ahead_ns - (time.time_ns() - time.monotonic_ns())
            if back_ns <= CLOCK_TOLERANCE_NS:
                continue
            log.warning(
                "the clock was set back; what waits for a time of the clock before is hastened",
                action="clock_set_back",
                seconds=round(back_ns / 1e9),
            )
            await self._mend_times()
            for line in self._pipeline.lines:
                line.listing.paused_until_ns = line.fetching.paused_until_ns = 0
                line.wake.set()
            for job in self._jobs:
                job.modify(next_run_time=datetime.now(UTC))  # pyright: ignore[reportUnknownMemberType]

    async def _mend_times(self) -> None:
        """Nothing in the ledger is to be later than it can be: it was written while the clock was ahead."""
        ledger, now_ns = self._pipeline.ledger, self._pipeline.now()
        for line in self._pipeline.lines:
            latest_ns = standing.latest_due(now_ns, line.config.settle)
            await asyncio.to_thread(ledger.hasten, line.account, latest_ns)
            start_ns = line.config.start.instant_ns(now_ns)
            latest_position_ns = now_ns + nanoseconds(line.config.overlap)
            rewound = await asyncio.to_thread(
                ledger.rewind, line.account, latest_ns=latest_position_ns, start_ns=start_ns
            )
            if rewound:
                log.warning(
                    "lists had been read to a time that is still to come: the clock was ahead; they are read again",
                    action="position_ahead",
                    source=line.name,
                    lists=rewound,
                )

    def _schedule(self) -> None:
        begin = datetime.now(UTC)
        for index, line in enumerate(self._pipeline.lines):
            discovery = Discovery(line, self._pipeline.ledger, self._pipeline.now)
            offset = timedelta(seconds=START_SPREAD_SECONDS * index)
            if line.source.lists:
                self._every(line.config.poll_every, begin + offset, _look, line, discovery.poll)
                # Soon after each start: a bridge that is restarted every half hour would else never look back.
                first = begin + offset + min(line.config.sweep_every, FIRST_LOOK_BACK)
                self._every(line.config.sweep_every, first, _look, line, discovery.look_back)
            self._every(PRUNE_EVERY, begin + offset, self._prune, line)
        self._every(LEASE_RENEWAL, begin + LEASE_RENEWAL, self._pipeline.outbox.renew_leases)

    def _every(
        self, interval: timedelta, first: datetime, job: Callable[..., Coroutine[Any, Any, None]], *args: object
    ) -> None:
        async def guarded() -> None:
            look = asyncio.create_task(job(*args))
            self._looking.add(look)
            look.add_done_callback(self._looked)
            # Where one or both of them are cancelled this ends quietly: to the scheduler it would be a failed job.
            with suppress(asyncio.CancelledError):
                await asyncio.wait([look])

        scheduled = self._scheduler.add_job(  # pyright: ignore[reportUnknownMemberType]
            guarded, "interval", seconds=interval.total_seconds(), next_run_time=first
        )
        self._jobs.append(scheduled)

    def _looked(self, look: asyncio.Task[None]) -> None:
        self._looking.discard(look)
        error = None if look.cancelled() else look.exception()
        if isinstance(error, LedgerUnusable) and not self._fatal.done():
            self._fatal.set_exception(error)
        elif error:
            log.error(said(error), action="job_failed")

    async def _prune(self, line: Line) -> None:
        before_ns = self._pipeline.now() - nanoseconds(self._pipeline.config.ledger.retention)
        reach_ns = nanoseconds(max(line.config.overlap, line.config.lookback))
        prune = self._pipeline.ledger.prune
        pruned = await asyncio.to_thread(prune, line.account, before_ns=before_ns, reach_ns=reach_ns)
        if pruned:
            log.info("old rows forgotten", action="pruned", source=line.name, rows=pruned)


async def _look(line: Line, look: Callable[[], Awaitable[object]]) -> None:
    if line.listing.paused_seconds:
        return
    try:
        await look()
    except SourceUnavailable as error:
        line.listing.failed(error)


def _greet(line_up: Pipeline) -> None:
    if line_up.ledger.created:
        log.warning(
            "this ledger is new: runs since `start` are sent; if you expected an old one, is its volume mounted?",
            action="ledger_created",
        )
    destination = line_up.config.destination
    before = line_up.ledger.remember_destination(destination.endpoint)
    if before and traces_url_at(before) != destination.traces_url:
        log.warning(
            f"the destination was {before} before: older runs are not in {destination.endpoint}; "
            "`runspan backfill --force` sends them there too",
            action="destination_changed",
        )
    for line in line_up.lines:
        log.info(
            "source starts",
            action="source_started",
            source=line.name,
            platform=line.source.platform,
            tenant=line.source.tenant,
            lists=line.source.lists,
        )
