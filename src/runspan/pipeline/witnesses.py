"""When a run does not come: is it the run, or its platform? Other runs are asked, since only they can tell.

A platform whose runs cannot be had is left alone for a while. One bad run among good ones must not bring that about,
and is given up in the end; but no run is, only because its platform was down.
"""

import asyncio
from typing import NamedTuple

from runspan.errors import LedgerUnusable, SourceUnavailable
from runspan.ledger import Ledger, RowState
from runspan.model import RunRef
from runspan.pipeline.line import Line
from runspan.rate import TurnsOver

OTHERS_TRIED = 3


class Seen(NamedTuple):
    """What there was to see of a source's runs at some moment: how many had come as they should, and how often another
    one had been asked for in vain when one did not come."""

    come: int = 0
    in_vain: int = 0


class Witnesses:
    """The other runs of one source, in this process."""

    def __init__(self, line: Line, ledger: Ledger) -> None:
        self._line = line
        self._ledger = ledger
        self._last_come: RunRef | None = None
        self._asking = asyncio.Lock()
        self._failing_since: dict[str, int] = {}
        """By id of a run that does not come: how many others had come when it first did not."""
        self.seen = Seen()
        self.known = True
        """Whether there was any run to ask for, the last time."""

    def came(self, ref: RunRef) -> None:
        """A run has come as it should."""
        self._line.fetching.succeeded()
        self.seen = self.seen._replace(come=self.seen.come + 1)
        self._last_come = ref
        self.forget(ref)

    def forget(self, ref: RunRef) -> None:
        """A run is asked for no more."""
        self._failing_since.pop(ref.run_id, None)

    async def come(self, since: Seen) -> bool:
        """Whether another run has come since then, or does when asked for now. Raises TurnsOver."""
        async with self._asking:
            # Of runs that fail together, the first one's question is enough.
            if self.seen == since and not await self._one_comes():
                self.seen = self.seen._replace(in_vain=self.seen.in_vain + 1)
        return self.seen.come > since.come

    def came_while_failing(self, ref: RunRef, asked: Seen) -> bool:
        """Whether others came after this run first did not, and before it was asked for this time, in vain again.

        What comes while it is under way may only tell that an outage has just ended.
        """
        return self._failing_since.setdefault(ref.run_id, self.seen.come) < asked.come

    async def _one_comes(self) -> bool:
        """Ask for a run that has come before."""
        known = [self._last_come] if self._last_come else await asyncio.to_thread(self._exported)
        self.known = bool(known)
        for ref in known:
            try:
                await self._line.source.fetch(ref)
            except (LedgerUnusable, TurnsOver):
                raise
            except SourceUnavailable:
                return False
            except Exception:
                # Gone, unreadable, a hole in our reading: that one is no witness.
                self._last_come = None
            else:
                self.came(ref)
                return True
        return False

    def _exported(self) -> list[RunRef]:
        found = self._ledger.runs(source=self._line.name, state=RowState.EXPORTED, limit=OTHERS_TRIED)
        return [row.ref for row in found]
