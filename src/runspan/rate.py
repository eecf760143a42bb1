"""Keeping a source's quota: requests are spaced, never bunched, over all processes that share a budget.

A platform counts requests in windows of its own choosing. Only even spacing stays under the rate in every window, so a
budget grants one request an interval and saves nothing up.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from runspan.quantities import Rate

LONGEST_NAP_SECONDS = 60.0
"""A waiter looks again at least this often, so that a clock set back does not park it."""

JITTER_SHARE = 0.02
JITTER_SECONDS = 0.1
"""The platform counts requests as they arrive, and those of a window may arrive this much closer than they left."""
MOST_LATE_SECONDS = 1.0
"""An answer that took longer than this was late for other reasons than its request."""
USUAL_OF = 32
"""So many answers tell how long one takes."""
SLOWER = 2.0
FASTER = 0.98
"""By this the spacing grows with a refusal, and shrinks with each answer: 35 good ones make up for one refusal."""
EASED_SECONDS = 10.0
"""Such a stretch of time counts as an answer: a source of which little is asked would stay slow for hours."""
SLOWEST = 32.0


def spacing_ns(rate: Rate) -> int:
    """How far apart requests leave, so that no window of the rate holds more of them than it may, jitter included."""
    return int(rate.interval_ns * (1 + jitter_seconds(rate) / _window_seconds(rate)))


def jitter_seconds(rate: Rate) -> float:
    """How much closer than they left the requests of one window may arrive."""
    return max(JITTER_SHARE * _window_seconds(rate), JITTER_SECONDS)


def _window_seconds(rate: Rate) -> float:
    return rate.per_seconds / min(rate.requests, 1)


class Budget(Protocol):
    """Where the next free instant of each key is kept: the ledger, or memory where no ledger is to be touched."""

    def debit(self, key: str, interval_ns: int) -> int:
        """Take the next grant of `key`: 0 if granted now, else how many nanoseconds to wait before asking again."""
        ...

    def delay(self, key: str, by_ns: int) -> None:
        """Put off the next grant of `key`, and with it all that follow."""
        ...

    def pause(self, key: str, until_ns: int) -> None:
        """Grant nothing for `key` before `until_ns`."""
        ...


class MemoryBudget:
    """The in-memory twin of the ledger's budget: for one process that must not write a ledger."""

    def __init__(self, now: Callable[[], int] = time.time_ns) -> None:
        self._now = now
        self._free_ns: dict[str, int] = {}

    def debit(self, key: str, interval_ns: int) -> int:
        """See `Budget.debit`."""
        now_ns = self._now()
        wait_ns = self._free_ns.get(key, 0) - now_ns
        if wait_ns > 0:
            return wait_ns
        self._free_ns[key] = now_ns + interval_ns
        return 0

    def delay(self, key: str, by_ns: int) -> None:
        """See `Budget.delay`."""
        self._free_ns[key] = max(self._free_ns.get(key, 0), self._now()) + by_ns

    def pause(self, key: str, until_ns: int) -> None:
        """See `Budget.pause`."""
        self._free_ns[key] = max(self._free_ns.get(key, 0), until_ns)


class Paused(Exception):
    """The platform has asked for a pause that is longer than anybody should wait for his turn; nothing was asked."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:.0f} s")
        self.seconds = seconds


class TurnsOver(Exception):
    """The program stops: what waits for its turn waits for the next start."""


class Limiter:
    """One source's turn-taking: `acquire` returns when the next request may leave, first come first served.

    The spacing is `interval_ns`, or longer where the platform refuses requests that come no faster than that: others
    may use its quota too (`refused`, `welcomed`).

    Once `over` is set, whoever waits is turned away. `jitter_ns`, where given, is what the spacing allows for: where a
    request may have arrived later than that, those behind it are put off as much. Where `longest_pause_seconds` is
    given, whoever would have to wait so much longer than for a turn is told so, and goes. `pace_of`: slowed down as
    that one is.
    """

    def __init__(
        self,
        budget: Budget,
        key: str,
        interval_ns: int,
        *,
        jitter_ns: int | None = None,
        longest_pause_seconds: float | None = None,
        pace_of: "Limiter | None" = None,
        over: asyncio.Event | None = None,
        now: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._budget = budget
        self._key = key
        self._interval_ns = interval_ns
        self._now = now
        self._sleep = sleep
        self._jitter_ns = jitter_ns
        self._longest_pause_seconds = longest_pause_seconds
        self._took_ns: deque[int] = deque(maxlen=USUAL_OF)
        self._delays: deque[tuple[int, int]] = deque(maxlen=USUAL_OF)
        """When the next grants were put off, and by how much."""
        self._pace_of = pace_of or self
        self._slowness = 1.0
        self._slowed_ns = self._eased_ns = 0
        self._turn = asyncio.Lock()
        self._over = over or asyncio.Event()

    @property
    def spacing_ns(self) -> int:
        """How far apart requests leave now."""
        return int(self._interval_ns * self._pace_of._slowness)

    def refused(self, granted_ns: int) -> bool:
        """The request that was granted then was one too many (429); gives whether the whole rate had been used so far.

        Of requests that were under way together the first refusal counts.
        """
        if granted_ns <= self._slowed_ns <= self._now():
            return False
        slowness = self._slowness
        self._slowed_ns = self._eased_ns = self._now()
        self._slowness = min(slowness * SLOWER, SLOWEST)
        return slowness == 1.0

    def welcomed(self) -> None:
        """A request was not one too many."""
        waited_seconds = max(0.0, (self._now() - self._eased_ns) / 1e9)
        self._slowness = max(1.0, self._slowness * FASTER ** (1 + waited_seconds / EASED_SECONDS))
        self._eased_ns = self._now()

    async def acquire(self) -> int:
        """Wait for, and take, the next grant; gives the instant before it. Raises TurnsOver, Paused."""
        async with self._turn:
            while not self._over.is_set():
                asked_ns = self._now()
                wait_ns = await asyncio.to_thread(self._budget.debit, self._key, self.spacing_ns)
                if not wait_ns:
                    return asked_ns
                # For a turn, nobody waits longer than that: another process may have slowed down.
                pause_seconds = (wait_ns - self._interval_ns * SLOWEST) / 1e9
                if self._longest_pause_seconds is not None and pause_seconds > self._longest_pause_seconds:
                    raise Paused(wait_ns / 1e9)
                await self._nap(min(wait_ns / 1e9, LONGEST_NAP_SECONDS))
        raise TurnsOver

    async def answered(self, granted_ns: int) -> None:
        """The request that was granted then has been answered.

        How long an answer usually takes is the platform's affair; a request that took longer may have left or arrived
        late (a new connection, a busy machine), and then those behind it are closer to it than they should be.
        """
        if self._jitter_ns is None:
            return
        now_ns = self._now()
        took_ns = now_ns - granted_ns
        usual_ns = min(self._took_ns, default=0)
        self._took_ns.append(took_ns)
        late_ns = min(took_ns - usual_ns, int(MOST_LATE_SECONDS * 1e9)) - self._jitter_ns
        late_ns -= sum(by_ns for at_ns, by_ns in self._delays if at_ns >= granted_ns)
        if late_ns > 0:
            self._delays.append((now_ns, late_ns))
            await asyncio.to_thread(self._budget.delay, self._key, late_ns)

    async def _nap(self, seconds: float) -> None:
        nap, over = asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait([nap, over], return_when=asyncio.FIRST_COMPLETED)
        finally:
            nap.cancel()
            over.cancel()

    async def pause(self, seconds: float) -> None:
        """Let nothing leave for `seconds`: the platform asked for it."""
        await asyncio.to_thread(self._budget.pause, self._key, self._now() + int(seconds * 1e9))
