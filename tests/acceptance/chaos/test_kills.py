"""kill -9 at every step of a run's way: nothing is lost, nothing is doubled, and no mark goes ahead of its trace."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from runspan.demo.faults import Delay
from tests.acceptance.chaos.gate import Point
from tests.acceptance.chaos.killer import After, At, Instant, Write
from tests.acceptance.chaos.rig import PLATFORMS, Ending, Rig
from tests.figures import SOAK, rounds

KINDS = ("list", "detail", "export")
FIRST_WRITES = 40
"""About what the first start of a program writes until its ledger is in place."""


@pytest.mark.parametrize("seed", rounds(1, 6))
def test_a_daemon_that_dies_at_every_step(tmp_path: Path, seed: int) -> None:
    with Rig(tmp_path, seed=seed) as rig:
        for instant in instants(rig):
            rig.traffic()
            ending = rig.live(instant, "run")
            # In a soak it may be the fourth of something that happens twice, or the machine too busy.
            assert SOAK or ending is Ending.STRUCK, instant
        with rig.start("run") as daemon:
            rig.settle(daemon)
        rig.judge().check()


def instants(rig: Rig) -> Iterator[Instant]:
    """Every step once; amid the ledger's writes, and at any moment."""
    for kind in KINDS:
        for point in Point:
            yield At(kind, point, rig.random.randrange(1, 5) if SOAK else 1)
    for _ in range(3):
        yield Write(rig.random.randrange(1, 120))
    yield After(rig.random.uniform(0.3, 1.5))


@pytest.mark.parametrize("seed", rounds(1, 3))
def test_a_backfill_that_dies_at_every_step(tmp_path: Path, seed: int) -> None:
    with Rig(tmp_path, seed=seed, concurrency=3) as rig:
        for index, platform in enumerate(platforms := PLATFORMS if SOAK else PLATFORMS[1:3]):
            rig.stock(platform, 40)
            rig.simulator.fault(platform, ".", Delay(0.02))
            command = ("backfill", "--source", platform, "--since", "1d")
            point = [*Point][(index + seed) % len(Point)]
            for instant in [*(At(kind, point) for kind in KINDS), Write(rig.random.randrange(1, 50))]:
                ending = rig.live(instant, *command)
                assert SOAK or ending is Ending.STRUCK, instant
            ended = rig.program.run(*command)
            assert ended.returncode == 0, ended.stderr
        assert rig.states() == {"exported": 40 * len(platforms)}
        rig.judge().check()


@pytest.mark.parametrize("seed", rounds(2, 12))
def test_a_first_start_that_dies(tmp_path: Path, seed: int) -> None:
    """Whatever it leaves behind (no ledger, a draft of one, an empty one), the next start goes on from there."""
    with Rig(tmp_path, ["casedev"], seed=seed) as rig:
        rig.stock("casedev", 3)
        for _ in range(4 if SOAK else 1):
            rig.live(Write(rig.random.randrange(1, FIRST_WRITES)), "run")
        ended = rig.program.run("backfill", "--source", "casedev", "--since", "1d")
        assert ended.returncode == 0, ended.stderr
        rig.judge().check()
