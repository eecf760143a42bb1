"""What a destination may do to a daemon that goes on running: one daemon meets it all, one trouble after the other."""

import time
from collections.abc import Callable, Iterator, Sequence
from email.utils import formatdate

import pytest

from runspan.demo.world import WorldRun
from tests.acceptance.chaos import figures
from tests.acceptance.chaos.rig import Rig
from tests.acceptance.program import Started, wait_until
from tests.otlp_store import OtlpStore, Reply, Request, lost_ack, page, partial, refuse, reset, slow

pytestmark = pytest.mark.xdist_group("destination")

in_soak = pytest.mark.skipif(not figures.SOAK, reason="a kind of trouble that others stand for; make soak meets it")
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


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    environ = {"RUNSPAN_DESTINATION__TIMEOUT": f"{TIMEOUT_SECONDS:.0f}s"}
    with Rig(tmp_path_factory.mktemp("destination"), ["casedev"], environ=environ, overlap="24h") as rig:
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


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        pytest.param(lambda: refuse(429, retry_after="2"), 2.0, id="429 seconds"),
        pytest.param(lambda: refuse(429, retry_after=formatdate(time.time() + 3, usegmt=True)), 2.0, id="429 date"),
        pytest.param(lambda: refuse(429), 0.5, id="429 bare"),
        pytest.param(lambda: refuse(503, retry_after="2"), 2.0, id="503 seconds"),
        pytest.param(lambda: refuse(502), 0.5, id="502", marks=in_soak),
        pytest.param(lambda: refuse(500), 2.5, id="500"),
        pytest.param(lambda: refuse(401), 0.5, id="401 then healed"),
        pytest.param(lambda: refuse(404), 0.5, id="404", marks=in_soak),
        pytest.param(lambda: page(200), 0.5, id="a web page", marks=in_soak),
        pytest.param(lambda: refuse(302), 0.5, id="redirect", marks=in_soak),
        pytest.param(reset, 0.5, id="reset"),
    ],
)
def test_trouble_that_passes_costs_time_and_nothing_else(
    bridge: Bridge, reply: Callable[[], Reply], seconds: float
) -> None:
    runs = bridge.meet(lambda request, before: reply() if before == 0 else None)
    bridge.wait_stored(runs)
    bridge.wait_marked(runs)
    (first, *_), (second, request, _) = bridge.arrivals[:2]
    assert second - first >= seconds
    assert len(request.trace_ids) == 1, "a destination that was in trouble is tried with one trace"
    assert bridge.copies(runs) == {1}


@pytest.mark.parametrize(
    "reply",
    [pytest.param(lost_ack, id="broken off"), pytest.param(lambda: slow(2 * TIMEOUT_SECONDS), id="too slow")],
)
def test_an_acknowledgement_that_is_lost_leads_to_copies_of_the_same_bytes(
    bridge: Bridge, reply: Callable[[], Reply]
) -> None:
    runs = bridge.meet(lambda request, before: reply() if before == 0 else None)
    bridge.wait_marked(runs)
    assert max(bridge.copies(runs)) == 2
    twice = {span.trace_id for span in bridge.arrivals[0][1].spans}
    for trace_id in twice:
        assert {len(set(copies)) for copies in bridge.store.traces[trace_id].values()} == {1}


def test_a_destination_that_is_down(bridge: Bridge) -> None:
    bridge.store.down()
    runs = bridge.meet(lambda request, before: None)
    wait_until(lambda: len(bridge.rig.rows([run.run_id for run in runs])) == RUNS, "the runs to be noted")
    bridge.daemon.wait_logged("destination_down")
    bridge.store.up()
    bridge.wait_marked(runs)
    assert bridge.copies(runs) == {1}


def test_too_large_together_is_split(bridge: Bridge) -> None:
    runs = bridge.meet(lambda request, before: refuse(413) if len(request.trace_ids) > 1 else None)
    bridge.wait_marked(runs)
    assert bridge.copies(runs) == {1}


@pytest.mark.parametrize(
    ("status", "reason"), [(400, "answered 400"), (413, "answered 413")], ids=["poison", "too large alone"]
)
def test_one_bad_trace_stands_alone_in_the_end(bridge: Bridge, status: int, reason: str) -> None:
    bad: list[str] = []
    runs = bridge.meet(lambda request, before: refuse(status, "no") if request.run_ids & set(bad) else None)
    bad.append(runs[1].run_id)
    good = [run for run in runs if run.run_id not in bad]
    bridge.wait_marked(good)
    bridge.wait_marked([runs[1]], "quarantined")
    assert reason in bridge.rig.reasons()[bad[0]]
    assert bad[0] not in bridge.rig.stored
    assert bridge.copies(good) == {1}
    assert bridge.daemon.logged("trace_quarantined", run=bad[0])


def test_what_is_partly_taken_is_never_sent_again(bridge: Bridge) -> None:
    runs = bridge.meet(lambda request, before: partial(2, "two spans were odd") if before == 0 else None)
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
