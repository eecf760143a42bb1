"""SIGTERM at a bad moment: what is under way is brought to its end, and the program is gone within ten seconds."""

import signal
import time
from pathlib import Path

from runspan.demo.faults import Delay, Hang
from tests import figures
from tests.acceptance.chaos.rig import Rig
from tests.acceptance.program import Started, wait_until
from tests.otlp_store import slow

DRAIN_SECONDS = 10.0


def stopped(daemon: Started) -> None:
    begun = time.monotonic()
    assert daemon.signalled(signal.SIGTERM) == 0
    assert time.monotonic() - begun < DRAIN_SECONDS
    assert "Traceback" not in daemon.stderr
    assert daemon.logged("stopped")


def leased(rig: Rig) -> list[str]:
    return [row["run_id"] for row in rig.ledger("SELECT run_id FROM runs WHERE lease_owner IS NOT NULL")]


def test_under_load_nothing_is_abandoned(tmp_path: Path) -> None:
    with Rig(tmp_path, ["casedev", "runtype"], overlap="24h") as rig:
        for platform in rig.sources:
            rig.stock(platform, 120)
            rig.simulator.fault(platform, ".", Delay(0.05))
        rig.store.rule = lambda request: slow(0.3)
        with rig.start("run") as daemon:
            wait_until(lambda: len(rig.stored) > 40, "a good flow of runs")
            stopped(daemon)
            assert not daemon.logged("drain_timeout")
        asked = {request.path.split("/")[4] for request in rig.simulator.asked("casedev", "/details")}
        marked = {
            run_id for run_id, row in rig.rows(rig.ended).items() if row is not None and row["state"] == "exported"
        }
        assert rig.stored == marked
        assert asked <= marked, "fetched and then let go"
        assert len(marked) < 240
        assert leased(rig) == []
        with rig.start("run") as daemon:
            rig.store.rule = lambda request: None
            rig.simulator.faults.clear()
            rig.settle(daemon)
        judgement = rig.judge()
        judgement.check()
        assert judgement.repeats == 0


def test_who_never_answers_does_not_keep_it(tmp_path: Path) -> None:
    figures.note(faults=2)
    with Rig(tmp_path, ["casedev", "flowyble"], environ={"RUNSPAN_DESTINATION__TIMEOUT": "60s"}) as rig:
        rig.traffic(1)
        rig.simulator.fault("casedev", "details", Hang())
        rig.store.rule = lambda request: slow(60)
        with rig.start("run") as daemon:
            wait_until(lambda: rig.simulator.asked("casedev", "/details") and rig.store.requests, "who hangs")
            stopped(daemon)
        assert leased(rig) == []
        rig.simulator.faults.clear()
        rig.store.rule = lambda request: None
        with rig.start("run") as daemon:
            rig.settle(daemon)


def test_while_the_destination_is_down_nothing_is_dropped(tmp_path: Path) -> None:
    figures.note(faults=1)
    with Rig(tmp_path, ["casedev"], overlap="24h") as rig:
        rig.stock("casedev", 20)
        rig.store.down()
        with rig.start("run") as daemon:
            daemon.wait_logged("destination_down")
            wait_until(lambda: rig.states() == {"due": 20}, "all runs to be rows")
            stopped(daemon)
        assert rig.states() == {"due": 20}
        assert leased(rig) == []
        rig.store.up()
        with rig.start("run") as daemon:
            rig.settle(daemon)
        rig.judge().check()
