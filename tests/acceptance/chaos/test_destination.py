"""What a destination may do to a daemon that goes on running: one daemon meets it all, one trouble after the other."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from functools import partial
from pathlib import Path

import pytest

from runspan.demo.world import WorldRun
from tests import figures
from tests.acceptance.chaos.rig import Rig
from tests.acceptance.program import Started, wait_until
from tests.otlp_store import OtlpStore, Reply, Request, lost_ack, page, refuse, reset, slow
from tests.otlp_store import partial as partly

TIMEOUT_SECONDS = 1.0
RUNS = 4


class Bridge:
    """The rig and its daemon. `arrivals` are the monotonic seconds of each request, with what it was answered."""

    def __init__(self, rig: Rig, daemon: Started) -> None:
        self.rig = rig
        self.daemon = daemon
        self.arrivals: list[tuple[float, Request, Reply | None]] = []

    @property
    def store(self) -> OtlpStore:
        return self.rig.store

    def meet(self, rule: Callable[[Request, int], Reply | None]) -> list[WorldRun]:
        """New runs, while the destination answers by `rule(request, how many came before)`."""
        figures.note(faults=1)
        self.arrivals = []

        def watched(request: Request) -> Reply | None:
            reply = rule(request, len(self.arrivals))
            self.arrivals.append((time.monotonic(), request, reply))
            return reply

        self.store.rule = watched
        return self.rig.stock("casedev", RUNS)

    def wait_stored(self, runs: Sequence[WorldRun]) -> None:
        wanted = {run.run_id for run in runs}
        self.store.wait(lambda: wanted <= self.rig.stored, 30)

    def wait_marked(self, runs: Sequence[WorldRun], state: str = "exported") -> None:
        ids = [run.run_id for run in runs]

        def marked() -> bool:
            return all(row is not None and row["state"] == state for row in self.rig.rows(ids).values())

        wait_until(marked, f"{ids} to be {state}")

    def copies(self, runs: Sequence[WorldRun]) -> set[int]:
        """How often the spans of these runs came."""
        ids = {run.run_id for run in runs}
        mine = {span.trace_id for span in self.store.spans if span.attributes["runspan.run.id"] in ids}
        return {len(copies) for trace_id in mine for copies in self.store.traces[trace_id].values()}


@contextmanager
def bridge_of(folder: Path) -> Iterator[Bridge]:
    """A daemon at work, and at the end the judgement."""
    environ = {"RUNSPAN_DESTINATION__TIMEOUT": f"{TIMEOUT_SECONDS:.0f}s"}
    with Rig(folder, ["casedev"], environ=environ, overlap="24h") as rig:
        with rig.start("run") as daemon:
            daemon.wait_logged("web_started")
            yield Bridge(rig, daemon)
            rig.store.rule = lambda request: None
            rig.settle(daemon)
            begun = time.monotonic()
            assert daemon.signalled(15) == 0
            assert time.monotonic() - begun < 10
        assert "Traceback" not in daemon.stderr
        rig.check_ledger()
        rig.judge().check()


def trouble_that_passes_costs_time_and_nothing_else(bridge: Bridge, reply: Callable[[], Reply], seconds: float) -> None:
    runs = bridge.meet(lambda request, before: reply() if before == 0 else None)
    bridge.wait_stored(runs)
    bridge.wait_marked(runs)
    (first, *_), (second, request, _) = bridge.arrivals[:2]
    assert second - first >= seconds
    assert len(request.trace_ids) == 1, "a destination that was in trouble is tried with one trace"
    assert bridge.copies(runs) == {1}


def a_lost_acknowledgement_leads_to_copies_of_the_same_bytes(bridge: Bridge, reply: Callable[[], Reply]) -> None:
    runs = bridge.meet(lambda request, before: reply() if before == 0 else None)
    bridge.wait_marked(runs)
    assert max(bridge.copies(runs)) == 2
    twice = {span.trace_id for span in bridge.arrivals[0][1].spans}
    for trace_id in twice:
        assert {len(set(copies)) for copies in bridge.store.traces[trace_id].values()} == {1}


def a_destination_that_is_down(bridge: Bridge) -> None:
    bridge.store.down()
    runs = bridge.meet(lambda request, before: None)
    bridge.wait_marked(runs, "due")
    bridge.daemon.wait_logged("destination_down")
    bridge.store.up()
    bridge.wait_marked(runs)
    assert bridge.copies(runs) == {1}


def too_large_together_is_split(bridge: Bridge) -> None:
    runs = bridge.meet(lambda request, before: refuse(413) if len(request.trace_ids) > 1 else None)
    bridge.wait_marked(runs)
    assert bridge.copies(runs) == {1}


def one_bad_trace_stands_alone_in_the_end(bridge: Bridge, status: int) -> None:
    bad: list[str] = []
    runs = bridge.meet(lambda request, before: refuse(status, "no") if request.run_ids & set(bad) else None)
    bad.append(runs[1].run_id)
    good = [run for run in runs if run.run_id not in bad]
    bridge.wait_marked(good)
    bridge.wait_marked([runs[1]], "quarantined")
    assert f"answered {status}" in bridge.rig.reasons()[bad[0]]
    assert bad[0] not in bridge.rig.stored
    assert bridge.copies(good) == {1}
    assert bridge.daemon.logged("trace_quarantined", run=bad[0])


def what_is_partly_taken_is_never_sent_again(bridge: Bridge) -> None:
    runs = bridge.meet(lambda request, before: partly(2, "two spans were odd") if before == 0 else None)
    bridge.wait_stored(runs)
    first = bridge.arrivals[0][1]
    suspects = [run for run in runs if run.run_id in first.run_ids]
    state = "exported" if len(suspects) > 1 else "quarantined"
    bridge.wait_marked(suspects, state)
    bridge.wait_marked([run for run in runs if run not in suspects])
    rows = bridge.rig.rows([run.run_id for run in suspects])
    assert all("two spans were odd" in row["reason"] for row in rows.values() if row)
    if state == "exported":
        assert all(row["doubtful"] for row in rows.values() if row)
    assert bridge.copies(runs) == {1}
    if len(bridge.arrivals) > 1:
        assert len(bridge.arrivals[1][1].trace_ids) == 1, "one by one, until an answer is clean"


PASSING: dict[str, tuple[Callable[[], Reply], float]] = {
    "429 seconds": (lambda: refuse(429, retry_after="2"), 2.0),
    "429 date": (lambda: refuse(429, retry_after=formatdate(time.time() + 3, usegmt=True)), 2.0),
    "429 bare": (lambda: refuse(429), 0.5),
    "503 seconds": (lambda: refuse(503, retry_after="2"), 2.0),
    "500": (lambda: refuse(500), 2.5),
    "401 then healed": (lambda: refuse(401), 0.5),
    "reset": (reset, 0.5),
}
"""With the least time until the destination is tried again."""
MORE_PASSING: dict[str, tuple[Callable[[], Reply], float]] = {
    "502": (lambda: refuse(502), 0.5),
    "404": (lambda: refuse(404), 0.5),
    "a web page": (lambda: page(200), 0.5),
    "redirect": (lambda: refuse(302), 0.5),
}
"""In a soak; others stand for them."""
TROUBLES: dict[str, Callable[[Bridge], None]] = {
    **{
        name: partial(trouble_that_passes_costs_time_and_nothing_else, reply=reply, seconds=seconds)
        for name, (reply, seconds) in (PASSING | (MORE_PASSING if figures.SOAK else {})).items()
    },
    "acknowledgement lost": partial(a_lost_acknowledgement_leads_to_copies_of_the_same_bytes, reply=lost_ack),
    "acknowledgement too late": partial(
        a_lost_acknowledgement_leads_to_copies_of_the_same_bytes, reply=lambda: slow(2 * TIMEOUT_SECONDS)
    ),
    "down": a_destination_that_is_down,
    "too large together": too_large_together_is_split,
    "poison": partial(one_bad_trace_stands_alone_in_the_end, status=400),
    "too large alone": partial(one_bad_trace_stands_alone_in_the_end, status=413),
    "partial success": what_is_partly_taken_is_never_sent_again,
}


def test_what_a_destination_may_do(tmp_path: Path, subtests: pytest.Subtests) -> None:
    with bridge_of(tmp_path) as bridge:
        for name, trouble in TROUBLES.items():
            with subtests.test(name):
                trouble(bridge)
