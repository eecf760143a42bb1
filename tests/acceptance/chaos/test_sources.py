"""What a platform may do to a daemon that goes on running; the other platform is read on meanwhile."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import partial
from pathlib import Path

import pytest

from runspan.demo.faults import Close, CutOff, Effect, Hang, Reply, Reset, html, redirect
from runspan.demo.world import WorldRun
from tests import figures
from tests.acceptance.chaos.rig import Rig
from tests.acceptance.program import Started, wait_until

DETAILS = "details"
EVERYTHING = "."
PATIENCE_SECONDS = 45.0
"""A refused key is a pause of half a minute, so that a person is not drowned in alarms; the next is a minute."""


class Bridge:
    """The rig and its daemon."""

    def __init__(self, rig: Rig, daemon: Started) -> None:
        self.rig = rig
        self.daemon = daemon

    def wait_exported(self, runs: list[WorldRun]) -> None:
        wanted = {run.run_id for run in runs}
        wait_until(lambda: wanted <= self.rig.stored, f"{wanted} to be stored", PATIENCE_SECONDS)

    def asked_seconds(self, since_ns: int) -> list[float]:
        """When requests came to the platform in trouble, in seconds since then."""
        asked = self.rig.simulator.asked("casedev")
        return [(request.time_ns - since_ns) / 1e9 for request in asked if request.time_ns >= since_ns]


@contextmanager
def bridge_of(folder: Path) -> Iterator[Bridge]:
    """A daemon at work, and at the end the judgement."""
    key = "env:CASEDEV_KEY"
    nowhere = {"name": "nowhere", "platform": "casedev", "base_url": "https://platform.invalid", "api_key": key}
    with Rig(folder, ["casedev", "flowyble"], more_sources=[nowhere], overlap="24h") as rig:
        with rig.start("run") as daemon:
            daemon.wait_logged("web_started")
            yield Bridge(rig, daemon)
            rig.simulator.faults.clear()
            rig.settle(daemon)
        assert "Traceback" not in daemon.stderr
        rig.check_ledger()
        rig.judge().check()


def trouble_that_passes_costs_time_and_nothing_else(
    bridge: Bridge, effect: Callable[[], Effect], path: str = EVERYTHING, times: int = 2
) -> None:
    figures.note(faults=1)
    bridge.rig.simulator.fault("casedev", path, effect(), times)
    troubled, other = bridge.rig.stock("casedev", 3), bridge.rig.stock("flowyble", 1)
    bridge.wait_exported(other)
    bridge.wait_exported(troubled)


def a_platform_is_left_alone_for_as_long_as_it_asks(bridge: Bridge, wait: Callable[[], str]) -> None:
    figures.note(faults=1)
    fault = bridge.rig.simulator.fault("casedev", EVERYTHING, Reply(429, "{}", {"retry-after": wait()}), times=1)
    wait_until(lambda: fault.times <= 0, "the refusal")
    refused_ns = bridge.rig.simulator.asked("casedev")[-1].time_ns
    troubled, other = bridge.rig.stock("casedev", 2), bridge.rig.stock("flowyble", 1)
    bridge.wait_exported(other)
    bridge.wait_exported(troubled)
    # The request after the refused one; those that were under way beside it came within moments.
    assert not [seconds for seconds in bridge.asked_seconds(refused_ns) if 0.3 < seconds < 1.9]


def who_never_answers_holds_up_nobody_else(bridge: Bridge) -> None:
    figures.note(faults=1)
    simulator = bridge.rig.simulator
    hanging = simulator.fault("casedev", EVERYTHING, Hang())
    troubled = bridge.rig.stock("casedev", 1)
    wait_until(lambda: simulator.asked("casedev")[-1].status is None, "a request that hangs")
    for _ in range(3):
        bridge.wait_exported(bridge.rig.stock("flowyble", 1))
    simulator.faults.remove(hanging)
    bridge.rig.gates["casedev"].hang_up()
    bridge.wait_exported(troubled)


def who_cannot_be_found_holds_up_nobody_else(bridge: Bridge) -> None:
    figures.note(faults=1)
    line = bridge.daemon.wait_logged("source_unavailable", source="nowhere")
    assert "GET https://platform.invalid/" in line["event"]
    assert "the name does not resolve" in line["event"]
    bridge.wait_exported([*bridge.rig.stock("casedev", 1), *bridge.rig.stock("flowyble", 1)])


PASSING: dict[str, Callable[[], Effect]] = {
    "500": lambda: Reply(500, "{}"),
    "html 502": lambda: html(502),
    "html 200": lambda: html(200),
    "half a body": lambda: CutOff(honest_length=True),
    "wrong content length": lambda: CutOff(honest_length=False),
    "redirect": lambda: redirect("http://127.0.0.1:9/elsewhere"),
    "reset": Reset,
    "close": Close,
}
TROUBLES: dict[str, Callable[[Bridge], None]] = {
    **{
        name: partial(trouble_that_passes_costs_time_and_nothing_else, effect=effect)
        for name, effect in PASSING.items()
    },
    "429 seconds": partial(a_platform_is_left_alone_for_as_long_as_it_asks, wait=lambda: "2"),
    "429 date": partial(
        a_platform_is_left_alone_for_as_long_as_it_asks, wait=lambda: formatdate(time.time() + 3, usegmt=True)
    ),
    "never": who_never_answers_holds_up_nobody_else,
    "no such name": who_cannot_be_found_holds_up_nobody_else,
}
MORE_TROUBLES: dict[str, Callable[[Bridge], None]] = {
    **{
        f"{name}, details only": partial(trouble_that_passes_costs_time_and_nothing_else, effect=effect, path=DETAILS)
        for name, effect in PASSING.items()
    },
    "401 then healed": partial(
        trouble_that_passes_costs_time_and_nothing_else, effect=lambda: Reply(401, "{}"), times=1
    ),
}
"""In a soak: others stand for them, or they take half a minute."""


def test_what_a_platform_may_do(tmp_path: Path, subtests: pytest.Subtests) -> None:
    with bridge_of(tmp_path) as bridge:
        for name, trouble in (TROUBLES | (MORE_TROUBLES if figures.SOAK else {})).items():
            with subtests.test(name):
                trouble(bridge)
