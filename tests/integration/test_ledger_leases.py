"""Leases and locks: nobody works on a row twice, and what a dead process held is free at once."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from runspan.errors import LedgerUnusable
from runspan.ledger import LEASE_NS, Finished, Ledger, RowState, Sendable
from tests.ledgers import ACCOUNT, DAY, SECOND, START_NS, Clock, ids, open_ledger, other_process, ref, row


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path, clock: Clock) -> Iterator[Ledger]:
    with open_ledger(path, clock) as ledger:
        yield ledger


def test_claims_come_in_due_order_and_only_when_due(ledger: Ledger) -> None:
    ledger.note_rows([row(str(number), due_ns=START_NS - number) for number in range(-2, 5)])
    ledger.note_rows([row("open", RowState.OPEN, due_ns=START_NS - 99)])
    assert ids(ledger.claim(ACCOUNT, limit=3, states=(RowState.DUE,))) == ["4", "3", "2"]
    assert ids(ledger.claim(ACCOUNT, limit=2, states=(RowState.DUE, RowState.OPEN))) == ["open", "1"]
    assert ids(ledger.claim(ACCOUNT, limit=9)) == ["0"]
    assert ledger.claim(ACCOUNT, limit=9) == []
    assert ledger.next_due_ns(ACCOUNT) == START_NS + 1
    assert ids(ledger.claim(ACCOUNT, limit=9, due_before_ns=START_NS + 1)) == ["-1"]


def test_what_a_wrong_clock_put_off_for_years_is_due_now(ledger: Ledger, clock: Clock) -> None:
    years_ns = START_NS + 3650 * DAY
    ledger.note_rows(
        [row("due", due_ns=years_ns), row("open", RowState.OPEN, due_ns=years_ns), row("soon", due_ns=START_NS + 5)]
    )
    ledger.note_rows([row("expired", RowState.EXPIRED, due_ns=START_NS + DAY)])
    latest = {RowState.DUE: START_NS + 5, RowState.OPEN: START_NS + 5, RowState.EXPIRED: START_NS + DAY}
    assert ledger.hasten(ACCOUNT, latest) == 2
    assert sorted(ids(ledger.claim(ACCOUNT, limit=9))) == ["due", "open"]
    assert ledger.next_due_ns(ACCOUNT, states=(RowState.DUE,)) == START_NS + 5
    assert ledger.next_due_ns(ACCOUNT, states=(RowState.EXPIRED,)) == START_NS + DAY


def test_a_claim_brings_the_locator(ledger: Ledger) -> None:
    ledger.note_rows([row("a", agent_id="agent-1", room="room-1", created_ns=5, terminal_seen_ns=6)])
    (claim,) = ledger.claim(ACCOUNT, limit=1)
    locator = claim.ref.locator
    assert (locator.agent_id, locator.room, locator.created_ns) == ("agent-1", "room-1", 5)
    assert (claim.first_seen_ns, claim.terminal_seen_ns, claim.sent, claim.attempts) == (START_NS, 6, False, 0)


def test_a_released_row_can_be_claimed_again(ledger: Ledger) -> None:
    ledger.note_rows([row("a")])
    (claim,) = ledger.claim(ACCOUNT, limit=1)
    assert ledger.claim(ACCOUNT, limit=1) == []
    ledger.release([claim.ref])
    assert ledger.claim(ACCOUNT, limit=1) == [claim]


def test_a_lease_runs_out_unless_it_is_renewed(ledger: Ledger, clock: Clock) -> None:
    ledger.note_rows([row("a"), row("b")])
    ledger.claim(ACCOUNT, limit=2)
    clock.advance(300)
    ledger.renew([ref("b")])
    clock.ns = START_NS + LEASE_NS - 1
    assert ledger.claim(ACCOUNT, limit=2) == []
    assert ledger.next_due_ns(ACCOUNT) == START_NS + LEASE_NS
    clock.ns += 1
    assert ids(ledger.claim(ACCOUNT, limit=2)) == ["a"]


def test_a_finish_without_the_lease_changes_nothing(path: Path, clock: Clock) -> None:
    with open_ledger(path, clock) as slow, open_ledger(path, clock) as quick:
        slow.note_rows([row("a"), row("b")])
        slow.claim(ACCOUNT, limit=2)
        clock.advance(LEASE_NS / SECOND)
        quick.claim(ACCOUNT, limit=1)
        assert slow.finish([Finished(ref("a"), RowState.GONE), Finished(ref("b"), RowState.GONE)]) == 1
        assert quick.states(ACCOUNT, ["a", "b"]) == {"a": RowState.DUE, "b": RowState.GONE}
        slow.release([ref("a")])
        assert slow.claim(ACCOUNT, limit=1) == [], "another's lease cannot be given back"


def test_what_is_leased_no_more_must_not_be_sent(path: Path, clock: Clock) -> None:
    with open_ledger(path, clock) as slow, open_ledger(path, clock) as quick:
        slow.note_rows([row("a"), row("b"), row("c")])
        slow.claim(ACCOUNT, limit=3)
        clock.advance(LEASE_NS / SECOND)
        quick.claim(ACCOUNT, limit=2)
        quick.about_to_send([(ref("a"), "1")])
        quick.finish([Finished(ref("a"), RowState.EXPORTED)])
        assert slow.about_to_send([(ref(run_id), "2") for run_id in "abc"]) == Sendable({ref("c")}, 0)
        assert [quick.find(run_id)[0].digest for run_id in "abc"] == ["1", None, "2"]


def test_an_acknowledged_delivery_counts_even_after_the_lease(path: Path, clock: Clock) -> None:
    with open_ledger(path, clock) as slow, open_ledger(path, clock) as quick:
        slow.note_rows([row("a")])
        slow.claim(ACCOUNT, limit=1)
        clock.advance(LEASE_NS / SECOND)
        quick.claim(ACCOUNT, limit=1)
        assert slow.finish([Finished(ref("a"), RowState.EXPORTED)]) == 0
        assert quick.finish([Finished(ref("a"), RowState.DUE, due_ns=START_NS)]) == 1
        assert quick.states(ACCOUNT, ["a"]) == {"a": RowState.EXPORTED}


def test_threads_never_get_the_same_row(ledger: Ledger) -> None:
    ledger.note_rows([row(f"run-{number}") for number in range(300)])
    start = threading.Barrier(8)

    def work() -> list[str]:
        start.wait()
        mine: list[str] = []
        while claims := ledger.claim(ACCOUNT, limit=7):
            mine += ids(claims)
        return mine

    with ThreadPoolExecutor(8) as pool:
        claimed = [run_id for future in [pool.submit(work) for _ in range(8)] for run_id in future.result()]
    assert len(claimed) == 300
    assert len(set(claimed)) == 300


CLAIM_ALL = """
mine = []
while claims := ledger.claim(ACCOUNT, limit=3):
    mine += [claim.ref.run_id for claim in claims]
say(mine)
"""


def test_processes_never_get_the_same_row(ledger: Ledger, path: Path) -> None:
    ledger.note_rows([row(f"run-{number}") for number in range(400)])
    with ExitStack() as stack:
        others = ThreadPoolExecutor(2).map(lambda _: stack.enter_context(other_process(CLAIM_ALL, path))[1], range(2))
        mine: list[str] = []
        while claims := ledger.claim(ACCOUNT, limit=3):
            mine += ids(claims)
        claimed = mine + [run_id for theirs in others for run_id in theirs]
    assert len(claimed) == 400
    assert len(set(claimed)) == 400


def test_what_a_killed_process_held_is_free_at_once(ledger: Ledger, path: Path) -> None:
    ledger.note_rows([row("a"), row("b")])
    with other_process("say([c.ref.run_id for c in ledger.claim(ACCOUNT, limit=1)])", path) as (process, claimed):
        assert claimed == ["a"]
        assert ids(ledger.claim(ACCOUNT, limit=9)) == ["b"], "it lives: its lease holds"
        assert ledger.claim(ACCOUNT, limit=9) == []
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert ids(ledger.claim(ACCOUNT, limit=9)) == ["a"]


def test_a_process_that_ends_in_order_leaves_nothing_behind(ledger: Ledger, path: Path, clock: Clock) -> None:
    ledger.note_rows([row("a")])
    with open_ledger(path, clock) as other:
        assert ids(other.claim(ACCOUNT, limit=1)) == ["a"]
        assert ledger.next_due_ns(ACCOUNT) == START_NS + LEASE_NS
    assert ledger.next_due_ns(ACCOUNT) == START_NS
    assert ids(ledger.claim(ACCOUNT, limit=1)) == ["a"]
    assert len(list(Path(f"{path}.owners").iterdir())) == 1


def test_the_lock_files_of_dead_processes_are_cleared_away(path: Path) -> None:
    with other_process("say(1)", path) as (process, _):
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    owners = Path(f"{path}.owners")
    assert len(list(owners.iterdir())) == 1
    with open_ledger(path) as ledger:
        assert [file.name for file in owners.iterdir()] == [ledger.owner.rpartition(":")[2]]


def test_a_second_daemon_is_told_who_is_there(ledger: Ledger, path: Path) -> None:
    script = "held = ledger.hold_daemon(); held.__enter__(); import os; say(os.getpid())"
    with other_process(script, path) as (process, pid):
        expected = rf"daemon pid {pid} on host \S+ holds the ledger {path} since 2026-05-28T\S+Z; stop it or use"
        with pytest.raises(LedgerUnusable, match=expected), ledger.hold_daemon():
            pass
        ledger.note_rows([row("a")])
        assert ledger.claim(ACCOUNT, limit=1), "all but a daemon may join"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with ledger.hold_daemon():
            pass


def test_a_second_daemon_is_refused_though_the_lock_s_file_was_removed(ledger: Ledger, path: Path) -> None:
    script = "held = ledger.hold_daemon(); held.__enter__(); import os; say(os.getpid())"
    with other_process(script, path) as (process, pid):
        Path(f"{path}.daemon").unlink()
        with pytest.raises(LedgerUnusable, match=f"daemon pid {pid} on"), ledger.hold_daemon():
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with ledger.hold_daemon():
            pass


def test_a_daemon_that_another_one_has_displaced_writes_no_more(ledger: Ledger, path: Path, clock: Clock) -> None:
    with open_ledger(path, clock) as other:
        with ledger.hold_daemon():
            Path(f"{path}.daemon").unlink()
            Path(f"{path}.owners", ledger.owner.rpartition(":")[2]).unlink()
            with other.hold_daemon():
                with pytest.raises(LedgerUnusable, match="holds the ledger"):
                    ledger.note_rows([row("a")])
                other.note_rows([row("b")])
        assert [found.ref.run_id for found in other.runs()] == ["b"]


def test_a_daemon_that_ends_makes_room(ledger: Ledger, path: Path, clock: Clock) -> None:
    with open_ledger(path, clock) as other:
        with other.hold_daemon(), pytest.raises(LedgerUnusable), ledger.hold_daemon():
            pass
        with ledger.hold_daemon(), pytest.raises(LedgerUnusable), other.hold_daemon():
            pass
