"""A destination that is away for hours, the catch-up, and how much the program holds meanwhile."""

import asyncio
import gc
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from runspan.demo.samples.builders import casedev_run
from runspan.ledger import RowState
from runspan.otlp.base import Answer, AnswerKind, EncodedTrace, Exporter
from runspan.otlp.delivery import Delivery
from runspan.pipeline.discovery import Discovery
from tests.acceptance.chaos.gate import Point
from tests.acceptance.chaos.rig import Rig
from tests.acceptance.program import wait_until
from tests.figures import SOAK, note
from tests.ledgers import SECOND, Clock
from tests.pipelines import Bench, advance, counted, working

HOURS = 4 if SOAK else 3
STEP_SECONDS = 30
RUN_EVERY_STEPS = 6
MB = 1_000_000


class Away(Exporter):
    """Takes nothing until it is back. Keeps only numbers, since memory is what is measured."""

    max_request_bytes = 4 * MB

    def __init__(self) -> None:
        self.is_back = False
        self.requests: list[int] = []
        """How many traces were in each."""
        self.taken: Counter[str] = Counter()

    async def send(self, traces: Sequence[EncodedTrace]) -> Answer:
        self.requests.append(len(traces))
        if not self.is_back:
            return Answer(AnswerKind.RETRY, "nobody is there")
        self.taken.update(trace.trace.ref.run_id for trace in traces)
        return Answer(AnswerKind.ACCEPTED)


async def test_hours_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Discovery goes on, details are asked for one at a time, memory and quota stay flat, and all comes in the end."""
    note(faults=1)
    monkeypatch.setattr("runspan.pipeline.work.BLOCKED_LOOK_SECONDS", 0.001)
    clock = Clock()
    bench = Bench(tmp_path / "ledger.db", clock)
    away = Away()
    async with bench.simulator, bench.pipeline(bench.source("casedev", settle="1s"), exporter=away) as line_up:
        [line] = line_up.lines
        line_up.outbox.delivery = Delivery(away, now_ns=clock, monotonic_ns=clock)
        discovery = Discovery(line, line_up.ledger, clock)
        asked_by_the_hour: list[int] = []
        held_bytes: list[int] = []
        runs = 0
        tracemalloc.start()
        async with working(line_up):
            for step in range(HOURS * 3600 // STEP_SECONDS):
                if step % RUN_EVERY_STEPS == 0:
                    bench.add([casedev_run(step, created_at_ns=clock.ns - 60 * SECOND, seconds=20.0)])
                    runs += 1
                advance(line_up, clock, STEP_SECONDS)
                await discovery.poll()
                await asyncio.sleep(0.003)
                if (step + 1) % (3600 // STEP_SECONDS) == 0:
                    asked_by_the_hour.append(sum(bench.details_asked().values()) - sum(asked_by_the_hour))
                    held_bytes.append(_held())
            tracemalloc.stop()
            assert counted(line_up.ledger) == {RowState.DUE: runs}, "found, and nothing marked"
            # A probe is one run, and after the first minutes they come half a minute to a minute apart.
            assert max(asked_by_the_hour) <= 3600 / STEP_SECONDS
            assert set(away.requests[1:]) == {1}
            assert len(away.requests) <= sum(asked_by_the_hour)
            assert held_bytes[-1] - held_bytes[0] < MB // 4, held_bytes

            asked, requests = sum(asked_by_the_hour), len(away.requests)
            away.is_back = True
            deadline = time.monotonic() + 60
            while counted(line_up.ledger) != {RowState.EXPORTED: runs}:
                assert time.monotonic() < deadline
                advance(line_up, clock, STEP_SECONDS)
                await asyncio.sleep(0.01)
            # Every run is fetched once more, no run twice, and they go out together.
            assert sum(bench.details_asked().values()) - asked <= runs
            assert len(away.requests) - requests < runs
        assert set(away.taken.values()) == {1}


def _held() -> int:
    gc.collect()
    ours = [tracemalloc.Filter(True, "*/src/runspan/*"), tracemalloc.Filter(False, "*/src/runspan/demo/*")]
    return sum(each.size for each in tracemalloc.take_snapshot().filter_traces(ours).statistics("filename"))


def test_the_catch_up_keeps_the_rate_and_the_concurrency(tmp_path: Path) -> None:
    note(faults=1)
    with Rig(tmp_path, ["casedev"], rate="25/s", concurrency=4, overlap="24h", poll_every="1s") as rig:
        under_way = most_under_way = 0
        runs = rig.stock("casedev", 60)

        def watch(kind: str, point: Point) -> None:
            nonlocal under_way, most_under_way
            if kind == "detail" and point is not Point.ANSWERED:
                under_way += 1 if point is Point.ASKED else -1
                most_under_way = max(most_under_way, under_way)

        rig.gates["casedev"].crossing = watch
        rig.store.down()
        with rig.start("run") as daemon:
            daemon.wait_logged("destination_down")
            wait_until(lambda: rig.states() == {"due": 60}, "all runs to be rows")
            time.sleep(3)  # the outage
            during = len(rig.simulator.asked("casedev", "/details"))
            rig.store.up()
            wait_until(lambda: {run.run_id for run in runs} <= rig.stored, "the catch-up")
            wait_until(lambda: rig.states() == {"exported": 60}, "its marks")
        assert during <= 4 + 6, "bodies are fetched that nobody takes"
        assert len(rig.simulator.asked("casedev", "/details")) <= during + 60
        assert rig.simulator.busiest("casedev", 1.0) <= 25
        assert most_under_way <= 4
