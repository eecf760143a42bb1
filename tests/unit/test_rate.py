"""Requests keep their distance, one after the other."""

import asyncio
import random
from heapq import heappop, heappush
from itertools import pairwise

import pytest

from runspan.quantities import Rate
from runspan.rate import Limiter, MemoryBudget, Paused, jitter_seconds, spacing_ns

SECOND = 1_000_000_000
START = 1_780_000_000 * SECOND


class Hands:
    """A clock that goes on only when somebody sleeps by it."""

    def __init__(self) -> None:
        self.ns = START
        self.slept: list[float] = []

    def __call__(self) -> int:
        return self.ns

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.ns += int(seconds * SECOND) + 1
        await asyncio.sleep(0)


@pytest.fixture
def hands() -> Hands:
    return Hands()


def limiter(hands: Hands, interval_ns: int = SECOND, budget: MemoryBudget | None = None, key: str = "k") -> Limiter:
    return Limiter(budget or MemoryBudget(hands), key, interval_ns, now=hands, sleep=hands.sleep)


async def grants(hands: Hands, one: Limiter, count: int) -> list[int]:
    times: list[int] = []
    for _ in range(count):
        await one.acquire()
        times.append(hands.ns)
    return times


@pytest.mark.parametrize("interval_ns", [20_000_000, 500_000_000, 5 * SECOND, 3600 * SECOND])
async def test_grants_are_spaced_from_fifty_a_second_to_one_an_hour(hands: Hands, interval_ns: int):
    times = await grants(hands, limiter(hands, interval_ns), 20)
    assert times[0] == START
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert min(gaps) >= interval_ns
    assert max(gaps) <= interval_ns * 1.001


async def test_idle_time_is_not_saved_up(hands: Hands):
    one = limiter(hands)
    await grants(hands, one, 1)
    hands.ns += 3600 * SECOND
    times = await grants(hands, one, 3)
    assert times[1] - times[0] >= SECOND


async def test_limiters_of_one_key_share_and_those_of_another_do_not(hands: Hands):
    budget = MemoryBudget(hands)
    await limiter(hands, budget=budget).acquire()
    await limiter(hands, budget=budget, key="other").acquire()
    assert hands.ns == START
    await limiter(hands, budget=budget).acquire()
    assert hands.ns - START >= SECOND


async def test_waiters_are_served_in_the_order_they_came(hands: Hands):
    one, served = limiter(hands), []

    async def wait(number: int) -> None:
        await one.acquire()
        served.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(wait(number))
            await asyncio.sleep(0)
    assert served == list(range(12))


async def test_a_waiter_that_gives_up_stops_nobody(hands: Hands):
    held = asyncio.Event()

    async def hold(seconds: float) -> None:
        await held.wait()
        hands.ns += int(seconds * SECOND) + 1

    budget = MemoryBudget(hands)
    one = Limiter(budget, "k", SECOND, now=hands, sleep=hold)
    await one.acquire()
    waiting = [asyncio.create_task(one.acquire()) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    held.set()
    await waiting[1]
    assert waiting[0].cancelled()
    assert SECOND <= hands.ns - START < 2 * SECOND


async def test_a_pause_holds_everybody_and_a_shorter_one_does_not_end_it(hands: Hands):
    budget = MemoryBudget(hands)
    one = limiter(hands, budget=budget)
    await one.pause(90)
    await one.pause(5)
    await limiter(hands, budget=budget).acquire()
    assert hands.ns - START >= 90 * SECOND
    # A clock set back must not park a waiter for all of it.
    assert max(hands.slept) <= 60


@pytest.mark.parametrize("rate", ["0.2/s", "2/s", "50/s", "90/min", "1000/15min", "1/h"])
async def test_no_window_ever_holds_more_than_the_rate_however_late_single_requests_arrive(hands: Hands, rate: str):
    """With users that come when they like, and up to 100 ms on the way."""
    chance = random.Random(4)
    parsed = Rate.parse(rate)
    one = limiter(hands, spacing_ns(parsed))
    arrived: list[int] = []
    for _ in range(500):
        hands.ns += int(chance.choice((0, 0, 0, 0, 1, 20)) * parsed.interval_ns)
        await one.acquire()
        arrived.append(hands.ns + chance.randrange(SECOND // 10))
    arrived.sort()
    window_ns = int(parsed.per_seconds * SECOND / min(parsed.requests, 1))
    most = int(max(parsed.requests, 1))
    assert all(later - first >= window_ns for first, later in zip(arrived, arrived[most:], strict=False))


class Line:
    """Requests on their way, by a clock that goes on only while somebody sleeps; an answer comes a while after its
    request has arrived."""

    ANSWERED_AFTER = int(0.15 * SECOND)

    def __init__(self, rate: Rate) -> None:
        self.hands = Hands()
        self.limiter = Limiter(
            MemoryBudget(self.hands),
            "k",
            spacing_ns(rate),
            jitter_ns=int(jitter_seconds(rate) * SECOND),
            now=self.hands,
            sleep=self.sleep,
        )
        self.arrived: list[int] = []
        self._coming: list[tuple[int, int]] = []

    async def ask(self, late_ns: int) -> None:
        granted_ns = await self.limiter.acquire()
        arrives_ns = self.hands.ns + late_ns
        self.arrived.append(arrives_ns)
        heappush(self._coming, (arrives_ns + self.ANSWERED_AFTER, granted_ns))

    async def sleep(self, seconds: float) -> None:
        until_ns = self.hands.ns + int(seconds * SECOND) + 1
        while self._coming and self._coming[0][0] <= until_ns:
            self.hands.ns, granted_ns = heappop(self._coming)
            await self.limiter.answered(granted_ns)
        self.hands.ns = until_ns


@pytest.mark.parametrize("rate", ["2/s", "10/s", "50/s", "10/2s", "90/min"])
async def test_no_window_holds_more_where_a_request_is_held_up_on_its_way(rate: str):
    parsed, chance = Rate.parse(rate), random.Random(5)
    line = Line(parsed)
    for number in range(600):
        held_up = number % 40 == 0  # as the first one is, whose connection is new
        await line.ask(int(chance.uniform(0.2, 0.8) * SECOND) if held_up else chance.randrange(SECOND // 50))
    arrived, window_ns, most = sorted(line.arrived), parsed.per_seconds * SECOND, int(parsed.requests)
    assert all(later - first >= window_ns for first, later in zip(arrived, arrived[most:], strict=False))
    # Slow is not late: all took their time for the answer, and only what was late was made up for.
    held_up_seconds = 600 / 40 * 0.8
    assert line.hands.ns - START < 600 * spacing_ns(parsed) + (held_up_seconds + 1) * SECOND


def test_a_rate_is_nearly_used_up():
    for rate, share in (("90/min", 0.97), ("50/s", 0.9), ("0.2/s", 0.97)):
        parsed = Rate.parse(rate)
        assert share <= parsed.interval_ns / spacing_ns(parsed) < 1


async def test_nobody_waits_for_a_long_pause_who_need_not(hands: Hands):
    budget = MemoryBudget(hands)
    asks = {"now": hands, "sleep": hands.sleep, "longest_pause_seconds": 20.0}
    impatient, patient = Limiter(budget, "k", 60 * SECOND, **asks), limiter(hands, 60 * SECOND, budget)
    await impatient.acquire()
    await impatient.acquire()
    assert hands.ns - START == pytest.approx(60 * SECOND, rel=0.01), "a turn is waited for however long it takes"
    budget.pause("k", hands.ns + 3600 * SECOND)
    with pytest.raises(Paused) as paused:
        await impatient.acquire()
    assert paused.value.seconds == 3600
    await patient.acquire()
    assert hands.ns - START > 3600 * SECOND


async def test_refusals_together_slow_down_once_and_at_most_so_far(hands: Hands):
    one = limiter(hands)
    together = [await one.acquire() for _ in range(3)]
    assert [one.refused(granted_ns) for granted_ns in together] == [True, False, False]
    times = await grants(hands, one, 3)
    assert times[2] - times[1] >= 2 * SECOND
    for _ in range(10):
        hands.ns += 1
        assert not one.refused(hands.ns), "it is slow already"
    assert one.spacing_ns == 32 * SECOND
    for _ in range(200):
        one.welcomed()
    assert one.spacing_ns == SECOND


async def test_a_platform_that_lets_half_of_the_rate_through_refuses_few(hands: Hands):
    """Without slowing down it would refuse every second one."""
    one, tokens, filled_ns, refused = limiter(hands), 2.0, START, 0
    for _ in range(300):
        granted_ns = await one.acquire()
        tokens, filled_ns = min(2.0, tokens + (hands.ns - filled_ns) / (2 * SECOND)), hands.ns
        if tokens >= 1:
            tokens -= 1
            one.welcomed()
        else:
            refused += 1
            one.refused(granted_ns)
    assert 0 < refused < 20


async def test_open_runs_keep_to_their_half_of_a_rate_that_was_lowered(hands: Hands):
    one = limiter(hands)
    half = Limiter(MemoryBudget(hands), "k open", 2 * SECOND, pace_of=one, now=hands, sleep=hands.sleep)
    one.refused(await one.acquire())
    times = await grants(hands, half, 3)
    assert times[2] - times[1] >= 4 * SECOND


async def test_time_alone_makes_up_for_a_refusal(hands: Hands):
    one = limiter(hands)
    one.refused(await one.acquire())
    hands.ns += 600 * SECOND
    one.welcomed()
    assert one.spacing_ns == SECOND
