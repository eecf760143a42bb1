"""What the pipeline's tests share: simulated platforms, a ledger on disk, a destination in memory, one clock over all.

async with bench.pipeline(bench.source("casedev")) as line_up, working(line_up):
    await until(lambda: bench.exported == ...)
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from runspan.config import Config, loader
from runspan.demo.simulator import Simulator
from runspan.demo.world import World, WorldRun
from runspan.ledger import Account, Ledger, RowState, RunRow
from runspan.otlp.base import Exporter
from runspan.otlp.memory import MemoryExporter
from runspan.pipeline.assembly import Pipeline, pipeline
from runspan.pipeline.work import Work
from runspan.rate import Budget
from runspan.secrets import Secret
from runspan.sources import platforms
from runspan.sources.base import Source
from tests.ledgers import SECOND, Clock, url

HOUR = 3600 * SECOND
PATIENCE_SECONDS = 30.0
UNDER_WAY_SECONDS = 0.25


class NoQuota:
    """A budget that never runs out, for clocks that stand still."""

    def debit(self, key: str, interval_ns: int) -> int:
        return 0

    def delay(self, key: str, by_ns: int) -> None:
        pass

    def pause(self, key: str, until_ns: int) -> None:
        pass


class Bench:
    """One ledger and what stands around it; `pipeline` may be opened several times, one after the other or at once."""

    def __init__(self, path: Path, clock: Callable[[], int], *, rate_limited: bool = False) -> None:
        self.path = path
        self.clock = clock
        self.simulator = Simulator(World(now=clock), rate_limited=rate_limited)
        self.world = self.simulator.world
        self.exporter = MemoryExporter()

    def source(self, platform: str, **settings: Any) -> dict[str, Any]:
        """A source's table in the configuration."""
        table: dict[str, Any] = {"name": platform, "platform": platform, "base_url": self.simulator.urls[platform]}
        key = self.simulator.keys[platform]
        return table | ({"api_key": Secret.known(key, "KEY")} if key else {}) | settings

    def config(self, *sources: dict[str, Any], **tables: Any) -> Config:
        given = {"ledger": {"url": url(self.path)}, "web": {"listen": "127.0.0.1:0"}, "source": list(sources)} | tables
        return loader.load(None, platforms=platforms(), environ={}, overrides=given)

    def ledger(self, **options: Any) -> Ledger:
        return Ledger.open(url(self.path), now=self.clock, **options)

    @asynccontextmanager
    async def pipeline(
        self,
        *sources: dict[str, Any],
        exporter: Exporter | None = None,
        budget: Budget | None = None,
        **tables: Any,
    ) -> AsyncIterator[Pipeline]:
        config = self.config(*sources, **tables)
        with self.ledger() as ledger:
            opened = pipeline(
                config, ledger, budget=budget or NoQuota(), exporter=exporter or self.exporter, now=self.clock
            )
            async with opened as line_up:
                yield line_up

    def add(self, runs: Iterable[WorldRun]) -> list[str]:
        """Let the runs be; gives their ids."""
        return [self.world.add(run).run_id for run in runs]

    @property
    def exported(self) -> Counter[str]:
        """How often each run was acknowledged."""
        return Counter(trace.trace.ref.run_id for trace in self.exporter.taken)

    def details_asked(self, platform: str = "casedev") -> Counter[str]:
        """How often each run's detail was asked for."""
        asked = self.simulator.asked(platform)
        if platform in ("casedev", "flowyble"):
            return Counter(request.path.split("/")[-2] for request in asked if request.path.endswith("/details"))
        part = {"runtype": "/executions/", "elizaos": "/runs/"}[platform]
        return Counter(request.path.split(part)[1] for request in asked if part in request.path)

    def reasons(self, ledger: Ledger) -> dict[str, str | None]:
        return {row.ref.run_id: row.reason for row in ledger.runs()}


def states(ledger: Ledger) -> dict[str, RowState]:
    return {row.ref.run_id: row.state for row in ledger.runs()}


def counted(ledger: Ledger) -> Counter[RowState]:
    return Counter(row.state for row in ledger.runs())


def row_of(ledger: Ledger, run_id: str) -> RunRow:
    [row] = ledger.find(run_id)
    return row


def position_ns(ledger: Ledger, account: Account, scope: str = "") -> int | None:
    sweep = ledger.sweep(account, scope, "poll")
    return None if sweep is None else sweep.position_ns


async def until(condition: Callable[[], bool], patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Return when the condition holds; fails when it does not come to that."""
    deadline = time.monotonic() + patience_seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def working(line_up: Pipeline) -> AsyncIterator[list[Work]]:
    """The pipeline at work, without discovery; at the end everything under way is finished."""
    works = [Work(line, line_up.ledger, line_up.outbox, line_up.now) for line in line_up.lines]
    outbox = asyncio.create_task(line_up.outbox.run())
    tasks = [asyncio.create_task(work.run()) for work in works]
    try:
        yield works
        for work in works:
            work.stop()
        await asyncio.gather(*tasks)
        line_up.outbox.close()
        await outbox
    finally:
        for task in (*tasks, outbox):
            task.cancel()
        await asyncio.gather(*tasks, outbox, return_exceptions=True)


def advance(line_up: Pipeline, clock: Clock, seconds: float) -> None:
    """Let time pass, and let nobody sleep through it."""
    clock.advance(seconds)
    for line in line_up.lines:
        line.wake.set()


async def pass_time(line_up: Pipeline, clock: Clock, step_seconds: float, condition: Callable[[], bool]) -> None:
    """Advance step by step until the condition holds; fails when it does not come to that.

    The clock stands while runs are under way (but not for those that never answer), or leases would end meanwhile.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        advance(line_up, clock, step_seconds)
        await asyncio.sleep(0.005)
        with suppress(AssertionError):
            await until(lambda: not line_up.outbox.leased, UNDER_WAY_SECONDS)


def delete_between_pages(monkeypatch: pytest.MonkeyPatch, bench: Bench, source: Source, run_ids: Iterable[str]) -> None:
    """Behind each page that the source reads, one more of these runs is deleted from its platform."""
    page, doomed = source.page, iter(run_ids)

    async def and_then_one_is_deleted(*args: Any) -> Any:
        answer = await page(*args)
        for run_id in islice(doomed, 1):
            bench.world.remove(source.platform, run_id)
        return answer

    monkeypatch.setattr(source, "page", and_then_one_is_deleted)
