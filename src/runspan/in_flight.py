"""How much of run bodies is held in memory at one time, over all sources.

A run holds its bodies from the moment they come, piece by piece, up to its mark in the ledger. A piece that does not
fit waits unread; so a slow destination, or many large runs at once, cost time and not memory.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Hold:
    """What one run holds."""

    in_flight: "InFlight"
    held_bytes: int = 0
    waits: bool = False

    async def take(self, size_bytes: int) -> None:
        """Add to what is held, once there is room for it."""
        await self.in_flight.take(self, size_bytes)

    async def give_back(self, size_bytes: int) -> None:
        """Hold so much less."""
        await self.in_flight.give_back(self, size_bytes)


_current: ContextVar[Hold | None] = ContextVar("hold", default=None)


def current_hold() -> Hold | None:
    """The hold of the run that this task works on; None for what is no run's body (lists, answers to `check`)."""
    return _current.get()


class InFlight:
    """Shares `limit_bytes` among runs: `async with in_flight.hold():` around all of a run's way."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._holds: set[Hold] = set()
        self._changed = asyncio.Condition()

    @property
    def held_bytes(self) -> int:
        """What all runs hold together."""
        return sum(hold.held_bytes for hold in self._holds)

    @property
    def full(self) -> bool:
        """Whether a run waits for room, so that no further one need begin."""
        return any(hold.waits for hold in self._holds)

    @asynccontextmanager
    async def hold(self) -> AsyncGenerator[Hold]:
        """One run's hold, current in this task; at its end all is given back."""
        hold = Hold(self)
        self._holds.add(hold)
        token = _current.set(hold)
        try:
            yield hold
        finally:
            _current.reset(token)
            self._holds.discard(hold)
            async with self._changed:
                self._changed.notify_all()

    async def take(self, hold: Hold, size_bytes: int) -> None:
        """See `Hold.take`."""
        async with self._changed:
            hold.waits = True
            # Whoever waits now may be the last who could have made room for the others.
            self._changed.notify_all()
            try:
                await self._changed.wait_for(lambda: self._has_room(hold, size_bytes))
            finally:
                hold.waits = False
            hold.held_bytes += size_bytes

    async def give_back(self, hold: Hold, size_bytes: int) -> None:
        """See `Hold.give_back`."""
        async with self._changed:
            hold.held_bytes -= size_bytes
            self._changed.notify_all()

    def _has_room(self, hold: Hold, size_bytes: int) -> bool:
        if self.held_bytes + size_bytes <= self._limit_bytes:
            return True
        # Runs could wait for each other for ever: where all that hold something wait, the one goes on that holds most,
        # and so it is the same one until it is through.
        holding = [other for other in self._holds if other.held_bytes]
        return all(other.waits for other in holding) and hold.held_bytes == max(
            (other.held_bytes for other in holding), default=0
        )
