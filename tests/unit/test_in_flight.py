"""Bodies share one allowance; who finds no room waits, and nobody waits for ever."""

import asyncio
from contextlib import AsyncExitStack

from hypothesis import given
from hypothesis import strategies as st

from runspan.in_flight import Hold, InFlight, current_hold


async def turns(number: int = 20) -> None:
    """Let every other task go as far as it can."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_what_does_not_fit_waits_until_there_is_room():
    in_flight = InFlight(100)
    async with in_flight.hold() as second:
        async with in_flight.hold() as first:
            await first.take(60)
            taking = asyncio.create_task(second.take(60))
            await turns()
            assert (in_flight.held_bytes, in_flight.full) == (60, True)
            await first.give_back(10)
            await turns()
            assert not taking.done()
            await first.give_back(10)
            await taking
            assert (in_flight.held_bytes, in_flight.full) == (100, False)
        assert in_flight.held_bytes == 60
    assert in_flight.held_bytes == 0


async def test_a_body_that_can_never_fit_goes_alone():
    in_flight = InFlight(100)
    async with in_flight.hold() as small, in_flight.hold() as large:
        await small.take(1)
        taking = asyncio.create_task(large.take(500))
        await turns()
        assert not taking.done()
        await small.give_back(1)
        await taking


async def test_runs_that_wait_for_each_other_go_on_one_at_a_time():
    in_flight = InFlight(100)
    async with AsyncExitStack() as stack:
        runs = [await stack.enter_async_context(in_flight.hold()) for _ in range(3)]
        for run in runs[:2]:
            await run.take(50)
        taking = [asyncio.create_task(run.take(50)) for run in runs]
        await turns()
        assert [task.done() for task in taking].count(True) == 1
        gone_on = next(run for run, task in zip(runs, taking, strict=True) if task.done())
        assert gone_on.held_bytes == 100, "one that holds nothing holds up nobody"
        await gone_on.give_back(100)
        await turns()
        assert [task.done() for task in taking].count(True) >= 2
        for run in runs:
            await run.give_back(run.held_bytes)
            await turns()
        assert all(task.done() for task in taking)


async def test_who_goes_on_where_all_wait_is_the_same_until_it_is_through():
    """Else all bodies would grow together, far past the limit."""
    in_flight = InFlight(100)
    most_bytes = 0

    async def one() -> None:
        nonlocal most_bytes
        async with in_flight.hold() as hold:
            for _ in range(90):
                await hold.take(1)
                most_bytes = max(most_bytes, in_flight.held_bytes)
                await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await asyncio.gather(*(one() for _ in range(8)))
    assert in_flight.held_bytes == 0
    assert most_bytes <= 100 + 90


async def test_one_that_is_cancelled_waits_no_more():
    in_flight = InFlight(10)
    async with in_flight.hold() as first, in_flight.hold() as second:
        await first.take(10)
        taking = asyncio.create_task(second.take(10))
        await turns()
        taking.cancel()
        await asyncio.wait([taking])
        assert (second.held_bytes, in_flight.full) == (0, False)


async def test_a_hold_is_of_its_own_task():
    in_flight = InFlight(10)

    async def work() -> Hold | None:
        async with in_flight.hold() as hold:
            await asyncio.sleep(0)
            return hold if current_hold() is hold else None

    first, second = await asyncio.gather(work(), work())
    assert None not in (first, second)
    assert first is not second
    assert current_hold() is None


@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=3), min_size=1, max_size=8))
def test_all_get_through_and_single_bodies_never_pass_the_limit(runs: list[list[int]]):
    async def all_of_them() -> int:
        in_flight, most = InFlight(100), 0

        async def one(bodies: list[int]) -> None:
            nonlocal most
            async with in_flight.hold() as hold:
                for body in bodies:
                    await hold.take(body)
                    most = max(most, in_flight.held_bytes)
                    await asyncio.sleep(0)

        async with asyncio.timeout(10):
            await asyncio.gather(*map(one, runs))
        assert in_flight.held_bytes == 0
        return most

    most = asyncio.run(all_of_them())
    if all(len(bodies) == 1 for bodies in runs):
        assert most <= 100
