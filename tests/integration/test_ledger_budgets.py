"""The rate budget: requests keep their distance, over all processes, whatever the clock does."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from runspan.ledger import Ledger
from tests.ledgers import SECOND, Clock, open_ledger, other_process, url


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with open_ledger(tmp_path / "ledger.db", clock) as ledger:
        yield ledger


def test_one_request_an_interval_and_nothing_saved_up(ledger: Ledger, clock: Clock) -> None:
    assert ledger.debit("case", 2 * SECOND) == 0
    assert ledger.debit("case", 2 * SECOND) == 2 * SECOND
    assert ledger.debit("other", 2 * SECOND) == 0
    clock.advance(1.5)
    assert ledger.debit("case", 2 * SECOND) == SECOND // 2
    clock.advance(600)
    assert ledger.debit("case", 2 * SECOND) == 0
    assert ledger.debit("case", 2 * SECOND) == 2 * SECOND


def test_what_is_put_off_puts_off_all_behind_it(ledger: Ledger, clock: Clock) -> None:
    ledger.delay("case", SECOND)  # nothing was granted yet, so nothing can be too close to it
    assert ledger.debit("case", 2 * SECOND) == 0
    ledger.delay("case", SECOND)
    assert ledger.debit("case", 2 * SECOND) == 3 * SECOND
    clock.advance(10)
    ledger.delay("case", SECOND)
    assert ledger.debit("case", 2 * SECOND) == SECOND
    clock.advance(-86_400)
    ledger.delay("case", SECOND)
    assert ledger.debit("case", 2 * SECOND) == 2 * SECOND


def test_a_pause_holds_for_its_time_and_is_never_shortened(ledger: Ledger, clock: Clock) -> None:
    ledger.pause("case", clock.ns + 60 * SECOND)
    ledger.pause("case", clock.ns + 30 * SECOND)
    assert ledger.debit("case", SECOND) == 60 * SECOND
    clock.advance(59)
    assert ledger.debit("case", SECOND) == SECOND
    clock.advance(1)
    assert ledger.debit("case", SECOND) == 0
    assert ledger.debit("case", SECOND) == SECOND


def test_a_clock_set_back_costs_no_more_than_the_wait_that_was_left(ledger: Ledger, clock: Clock) -> None:
    ledger.debit("case", 2 * SECOND)
    ledger.pause("paused", clock.ns + 60 * SECOND)
    clock.advance(-86_400)
    assert ledger.debit("case", 2 * SECOND) == 2 * SECOND
    assert ledger.debit("paused", SECOND) == 60 * SECOND
    clock.advance(2)
    assert ledger.debit("case", 2 * SECOND) == 0
    clock.advance(58)
    assert ledger.debit("paused", SECOND) == 0


INTERVAL_NS = 10_000_000

TAKE_TURNS = f"""
import time
ledger._now = time.time_ns
turns = []
while len(turns) < 20:
    asked_ns = time.time_ns()
    wait_ns = ledger.debit("case", {INTERVAL_NS})
    if wait_ns == 0:
        turns.append((asked_ns, time.time_ns()))
    time.sleep(wait_ns / 1e9)
say(turns)
"""


def test_processes_share_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    turns: list[tuple[int, int]] = []
    with Ledger.open(url(path)) as ledger, ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        other = pool.submit(lambda: stack.enter_context(other_process(TAKE_TURNS, path))[1])
        while not other.done():
            asked_ns = time.time_ns()
            wait_ns = ledger.debit("case", INTERVAL_NS)
            if wait_ns == 0:
                turns.append((asked_ns, time.time_ns()))
            time.sleep(wait_ns / 1e9)
        theirs = other.result()
    assert len(theirs) == 20
    # Each turn was granted between being asked for and being answered, so those of any stretch lie within its ends.
    turns = sorted([*turns, *map(tuple, theirs)])
    for first, (start_ns, _) in enumerate(turns):
        end_ns = 0
        for distance, (_, answered_ns) in enumerate(turns[first:]):
            end_ns = max(end_ns, answered_ns)
            assert end_ns - start_ns >= distance * INTERVAL_NS
