"""Runs come back in another order than they were listed in, and the program is stopped in between."""

import asyncio
from pathlib import Path

from runspan.demo.faults import Hang
from runspan.demo.samples import casedev_run
from runspan.ledger import RowState
from runspan.pipeline.assembly import Pipeline
from runspan.pipeline.discovery import Discovery
from tests.ledgers import START_NS, Clock
from tests.pipelines import HOUR, Bench, counted, position_ns, until, working


async def test_a_run_that_all_others_overtake_is_not_passed_over_by_a_restart(tmp_path: Path):
    """A position tells what was listed: neither the first run to be delivered nor the last one moves it."""
    bench = Bench(tmp_path / "ledger.db", Clock())
    ids = bench.add(casedev_run(n, created_at_ns=START_NS - (8 - n) * HOUR, seconds=1.0) for n in range(8))

    async def poll(line_up: Pipeline) -> int | None:
        [line] = line_up.lines
        await Discovery(line, line_up.ledger, line_up.now).poll()
        return position_ns(line_up.ledger, line.account)

    async def work(line_up: Pipeline) -> None:
        async with working(line_up):
            await asyncio.Event().wait()

    async with bench.simulator:
        source = bench.source("casedev", overlap="1m", concurrency=3)
        hanging = bench.simulator.fault("casedev", f"{ids[0]}/details", Hang())
        async with bench.pipeline(source) as line_up:
            assert await poll(line_up) == START_NS - HOUR
            at_work = asyncio.create_task(work(line_up))
            await until(lambda: counted(line_up.ledger) == {RowState.EXPORTED: 7, RowState.DUE: 1})
            at_work.cancel()
            await asyncio.wait([at_work])
            assert position_ns(line_up.ledger, line_up.lines[0].account) == START_NS - HOUR
        bench.simulator.faults.remove(hanging)
        async with bench.pipeline(source) as line_up:
            await poll(line_up)
            async with working(line_up):
                await until(lambda: counted(line_up.ledger) == {RowState.EXPORTED: 8})
    assert set(bench.exported.values()) == {1}
