"""The platform's door counts requests in sliding windows, and is the witness; our own limiter is the accused."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from runspan.demo.platforms.base import RateLimit
from runspan.demo.samples.builders import casedev_run
from runspan.demo.simulator import Simulator
from runspan.demo.world import SECOND_NS, World
from tests.acceptance.chaos.rig import Rig
from tests.acceptance.program import wait_until
from tests.figures import SOAK


@pytest.mark.parametrize(
    ("rate", "windows", "seconds", "at_least"),
    [
        pytest.param("0.2/s", {5.0: 1, 10.0: 2, 20.0: 4}, 61.0 if SOAK else 11.0, 2, id="below one a second"),
        pytest.param("50/s", {1.0: 50, 2.0: 100, 5.0: 250}, 30.0 if SOAK else 6.0, 50, id="fifty a second"),
    ],
)
def test_daemon_and_backfill_share_one_rate(
    tmp_path: Path, rate: str, windows: dict[float, int], seconds: float, at_least: int
) -> None:
    with Rig(tmp_path, ["casedev"], rate=rate, overlap="24h") as rig:
        rig.stock("casedev", 2000)
        with rig.start("run") as daemon:
            daemon.wait_logged("web_started")
            with rig.start("backfill", "--source", "casedev", "--since", "1d") as backfill:
                time.sleep(seconds)  # a rate is an amount over a time
                assert (daemon.process.poll(), backfill.process.poll()) == (None, None)
        busiest = {window: rig.simulator.busiest("casedev", window) for window in windows}
        assert {window: most for window, most in busiest.items() if most > windows[window]} == {}
        assert len(rig.simulator.requests) >= at_least
        assert {request.status for request in rig.simulator.requests} <= {200, None}


def test_a_dry_run_counts_too(tmp_path: Path) -> None:
    with Rig(tmp_path, ["casedev"], rate="20/s", overlap="24h") as rig:
        rig.stock("casedev", 300)
        with rig.start("run") as daemon:
            daemon.wait_logged("web_started")
            with rig.start("backfill", "--source", "casedev", "--since", "1d", "--dry-run"):
                wait_until(lambda: len(rig.simulator.requests) >= 100, "five seconds' requests")
        assert rig.simulator.busiest("casedev", 1.0) <= 20
        assert rig.simulator.busiest("casedev", 3.0) <= 60


def test_two_sources_of_one_platform_have_a_rate_each(tmp_path: Path) -> None:
    with ExitStack() as stack:
        second = stack.enter_context(Simulator(World(), rate_limited=False).in_thread())
        oldest_ns = time.time_ns() - 4 * 3600 * SECOND_NS
        for key in range(60):
            second.world.add(casedev_run(f"second {key}", created_at_ns=oldest_ns + key * SECOND_NS))
        table = {
            "name": "second", "platform": "casedev", "base_url": second.urls["casedev"], "api_key": "env:CASEDEV_KEY",
            "rate": "10/s",
        }  # fmt: skip
        rig = stack.enter_context(Rig(tmp_path, ["casedev"], rate="20/s", overlap="24h", more_sources=[table]))
        rig.stock("casedev", 60)
        with rig.start("run"):
            wait_until(lambda: len(rig.stored) >= 100, "most runs of both")
        counts = [(door.busiest("casedev", 1.0), len(door.requests)) for door in (rig.simulator, second)]
        assert counts[0][0] <= 20
        assert counts[1][0] <= 10
        assert all(requests > 20 for _, requests in counts)


@pytest.mark.parametrize(("platform", "most_refused"), [("casedev", 2), ("elizaos", 2), ("flowyble", 25)])
def test_a_platform_that_allows_less_than_we_were_told_slows_us_down(
    tmp_path: Path, platform: str, most_refused: int
) -> None:
    """By `x-ratelimit-remaining-requests` (case.dev), `RateLimit-Remaining` (elizaOS), or 429 and Retry-After alone.

    Without heed to the headers a few requests of each window would be refused, and without heed to Retry-After most of
    a hundred a second.
    """
    with Rig(tmp_path, [platform], rate="100/s", overlap="24h", concurrency=4) as rig:
        rig.simulator.platforms[platform].limit = RateLimit(12, 1.0)
        runs = rig.stock(platform, 30)
        with rig.start("run"):
            wait_until(lambda: {run.run_id for run in runs} <= rig.stored, "all runs in the end")
        assert sum(request.status == 429 for request in rig.simulator.requests) <= most_refused
