"""When a run does not come: is it the run, or its platform? Other runs are asked, since only they can tell.

A platform whose runs cannot be had is left alone for a while. One bad run among good ones must not bring that about,
and is given up in the end; but no run is, only because its platform was down.
"""

import asyncio
from typing import NamedTuple

from runspan.errors import LedgerUnusable, RunGone, RunUnreadable, SourceGarbled, SourceRefused, SourceUnavailable
from runspan.ledger import Ledger, RowState
from runspan.model import RunRef
from runspan.pipeline.line import Line
from runspan.rate import TurnsOver

OTHERS_TRIED = 3


class Patience(NamedTuple):
    """After how many attempts in vain a run is given up; None: never. Delays grow as `standing.retry_at` has it: five
    attempts take half a minute, 13 over an hour."""

    others_come: int
    none_is_known: int | None = None
    """No run of this source has ever come."""
    none_comes: int | None = None


def patience(error: Exception) -> Patience:
    """By what is said instead of a run: that there is none, nothing that is one, no JSON, or nothing at all."""
    match error:
        case RunGone():
            return Patience(2, 5, 13)
        case RunUnreadable():
            return Patience(3, 13, 13)
        case SourceGarbled() | SourceRefused():
            return Patience(3)
        case _:
            return Patience(13)


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
        """By id of a run that does not come: how many others had come when it first did not.

        One that came after that, and before the run was asked for in vain again, tells against the run."""
        self.seen = Seen()
        self._known = True
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

    async def tell_against(self, ref: RunRef, error: Exception, attempts: int, asked: Seen) -> bool:
        """Whether a run that did not come for so many attempts is to be given up. Raises TurnsOver.

        `asked`: what there was to see when it was asked for. Where no other comes either it is the platform that fails,
        and it is left alone for a while.
        """
        failing_since = self._failing_since.setdefault(ref.run_id, self.seen.come)
        others_come = await self._come(asked)
        is_answer = isinstance(error, RunGone | RunUnreadable)
        if not others_come and (self._known or not is_answer):
            self._line.fetching.failed(_as_unavailable(error))
        after = patience(error)
        if not others_come:
            enough = after.none_comes if self._known else after.none_is_known
        elif failing_since < asked.come:
            enough = after.others_come
        else:
            # What comes only now may tell no more than that an outage has just ended.
            return False
        return enough is not None and attempts >= enough

    async def _come(self, since: Seen) -> bool:
        """Whether another run has come since then, or does when asked for now. Raises TurnsOver."""
        async with self._asking:
            # Of runs that fail together, the first one's question is enough.
            if self.seen == since and not await self._one_comes():
                self.seen = self.seen._replace(in_vain=self.seen.in_vain + 1)
        return self.seen.come > since.come

    async def _one_comes(self) -> bool:
        """Ask for a run that has come before."""
        known = [self._last_come] if self._last_come else await asyncio.to_thread(self._exported)
        self._known = bool(known)
        for ref in known:
            try:
                source = self._line.source
                source.read(await source.fetch(ref))
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


def _as_unavailable(error: Exception) -> SourceUnavailable:
    if isinstance(error, SourceUnavailable):
        return error
    return SourceUnavailable(f"{error}, and no other run comes; asking again later")
