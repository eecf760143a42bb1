"""Everything at once: kill -9 at any moment, platforms and a destination on a bad day, daemon and backfill together."""

import time
from pathlib import Path
from random import Random

import pytest

from runspan.demo.world import SECOND_NS
from tests.acceptance.chaos.gate import Point
from tests.acceptance.chaos.killer import After, At, Instant, Write
from tests.acceptance.chaos.rig import Rig
from tests.acceptance.chaos.weather import Weather
from tests.figures import SOAK, rounds

LIVES = 12 if SOAK else 5


@pytest.mark.parametrize("seed", rounds(1, 4))
def test_a_storm(tmp_path: Path, seed: int) -> None:
    with Rig(tmp_path, seed=seed, overlap="10m", sweep_every="1s") as rig:
        weather = Weather(rig)
        for _ in range(LIVES):
            rig.traffic(1)
            weather.storm()
            if rig.random.random() < 0.3:
                change_a_run(rig)
            besides_a_daemon = rig.random.random() < 0.5
            platform = rig.random.choice(rig.sources)
            since = str(rig.random.randrange(2, 1440)) + "m"
            backfill = ("backfill", "--source", platform, "--since", since)
            if besides_a_daemon:
                with rig.start("run") as daemon:
                    rig.live(instant(rig.random), *backfill, besides=daemon)
                rig.check_ledger()
            else:
                rig.live(instant(rig.random), *(backfill if rig.random.random() < 0.3 else ("run",)))
        weather.clear()
        with rig.start("run") as daemon:
            rig.settle(daemon)
        rig.judge().check()


def instant(chance: Random) -> Instant:
    """Some instant in the program's next life."""
    kind = chance.choice(["list", "detail", "export", "other"])
    return chance.choice([
        At(kind, chance.choice([*Point]), chance.randrange(1, 4)),
        Write(chance.randrange(1, 200)),
        After(chance.uniform(0.3, 3)),
    ])  # fmt: skip


def change_a_run(rig: Rig) -> None:
    """The platform writes into a run that ended long ago."""
    now_ns = time.time_ns()
    ended = [run for run in rig.ended.values() if run.ended_at_ns is not None and run.ended_at_ns < now_ns - SECOND_NS]
    run = rig.random.choice(ended)
    if run.platform == "casedev":
        run.body["prompt"] = "changed"
        run.body["usage"] = {**run.body["usage"], "inputTokens": rig.random.randrange(10**6)}
        rig.changed.add(run.run_id)
