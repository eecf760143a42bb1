"""Discovery: the platform's lists become rows of the ledger.

A sweep walks one scope's list from the newest row, or whatever order the platform has, back to the start of its window.
Each page's rows and the cursor behind them are one transaction, so a sweep that dies goes on where it stood. The stored
position moves only when a sweep is complete; it says that every run the platform listed up to there is a row.
"""

import asyncio
from collections.abc import Callable, Collection

import structlog

from runspan.errors import LedgerUnusable, RunGone, SourceUnavailable, said
from runspan.ledger import POLL, SLOW, Ledger, Sweep
from runspan.pipeline import standing
from runspan.pipeline.line import Line
from runspan.pipeline.sweep import Found, Pass
from runspan.quantities import nanoseconds
from runspan.sources.base import Scope, Scopes

log = structlog.get_logger()


AGENTS = "the list of agents"
"""Stands for it among the scopes, where it could not be read to its end."""


class Discovery:
    """Looks for runs on one source and notes them.

    `now` is the wall clock in nanoseconds; `overlap` and `lookback` come from the source's configuration.
    """

    def __init__(self, line: Line, ledger: Ledger, now: Callable[[], int]) -> None:
        self._line = line
        self._ledger = ledger
        self._now = now
        self._unread: dict[str, str] = {}
        """What was said of each list that could not be read, so that it is said once."""
        self._said: dict[str, set[str]] = {}
        """What was said of rows that could not be read, by scope."""
        self._passes: dict[tuple[str, str], Pass] = {}
        """The last of each kind over each scope that this process made, or is making."""

    async def poll(self) -> Found:
        """Read every scope from its position minus `overlap`, then look which open runs have ended.

        Raises SourceUnavailable when nothing at all could be read; a single scope that fails is counted and passed by.
        """
        return await self._look(POLL)

    async def look_back(self) -> Found:
        """Re-read every scope from its position minus `lookback`, for rows that became visible late."""
        return await self._look(SLOW)

    async def _look(self, kind: str) -> Found:
        found, wanted_keys = Found(), None
        while wanted_keys is None or wanted_keys:
            wanted_keys = await self._give_turns(kind, wanted_keys, found) if self._line.source.lists else ()
            if kind == POLL:
                await self._settle_open()
        return found

    async def _give_turns(self, kind: str, keys: Collection[str] | None, found: Found) -> Collection[str]:
        """Read the lists of these scopes (None: of all) on by a turn; gives those of which there is more to read.

        While a poll waits for long lists, the others are polled again when it is time.
        """
        line = self._line
        listed_ns, new, became_due = self._now(), found.new, found.became_due
        start_ns = line.config.start.instant_ns(listed_ns)
        start_ns = await asyncio.to_thread(self._ledger.start_ns, line.account, if_new_ns=start_ns)
        scopes = await line.source.scopes()
        self._hear(AGENTS, scopes.broken_off, found)
        # All begin before the first is read: under a small rate the last one's turn may be minutes after that.
        turns = [s for s in wanted(scopes, line) if keys is None or s.key in keys or self._is_time(kind, s, listed_ns)]
        passes = [await self._ready(scope, kind, start_ns, listed_ns) for scope in turns]
        # That the source answers, the first turns have shown.
        answered, failed = not passes or keys is not None, None
        for its in passes:
            pages_before = found.pages
            try:
                broken_off = await its.turn(self._now, found)
                answered = True
                if its.is_over:
                    self._hear(its.scope.key, broken_off, found)
            except LedgerUnusable:
                raise
            except RunGone as error:
                answered = True
                if self._is_news(its.scope.key, str(error), found):
                    log.warning(str(error), action="scope_gone", source=line.name, scope=its.scope.key)
            except Exception as error:
                # Whatever one agent's list is like, the others are read.
                failed, answered = error, answered or found.pages > pages_before
                # A source of one scope that gives nothing says of itself what there is to say of its scope.
                if (its.scope.key or answered) and self._is_news(its.scope.key, said(error), found):
                    log.warning(said(error), action="scope_unreadable", source=line.name, scope=its.scope.key)
        if failed and not answered:
            raise as_unavailable(failed)
        line.listing.succeeded()
        new, became_due = found.new - new, found.became_due - became_due
        if new or became_due:
            log.info("runs found", action="runs_found", source=line.name, new=new, became_due=became_due)
            line.wake.set()
        left = [its.scope.key for its in passes if not its.is_over or its.is_again]
        return [key for key in left if keys is None or key in keys]

    def _is_time(self, kind: str, scope: Scope, now_ns: int) -> bool:
        """Whether a poll of this scope is due again."""
        last = self._passes.get((kind, scope.key))
        return kind == POLL and (last is None or now_ns - last.begun_ns >= nanoseconds(self._line.config.poll_every))

    def _hear(self, scope: str, broken_off: str | None, found: Found) -> None:
        """A list was read as far as it goes, and says why it does not go further."""
        if broken_off is None:
            self._unread.pop(scope, None)
        elif self._is_news(scope, broken_off, found):
            log.error(broken_off, action="list_broken_off", source=self._line.name, scope=scope)

    def _is_news(self, scope: str, reason: str, found: Found) -> bool:
        """Whether this was not said of the list already."""
        if reason not in found.failures:
            found.failures.append(reason)
        before, self._unread[scope] = self._unread.get(scope), reason
        return before != reason

    async def _ready(self, scope: Scope, kind: str, start_ns: int, now_ns: int) -> Pass:
        """The pass to go on with, or a new one."""
        line, ledger, before = self._line, self._ledger, self._passes.get((kind, scope.key))
        said = self._said.setdefault(scope.key, set())
        sweep = await asyncio.to_thread(ledger.sweep, line.account, scope.key, kind)
        if sweep and sweep.interrupted:
            if before and before.goes_on_from(sweep):
                return before
            begun_ns = before.begun_ns if before else sweep.high_ns or 0
            # A look of which nothing came is none.
            number = before.number + before.has_read if before else 1
        else:
            sweep, begun_ns = await self._begin(scope, kind, start_ns, now_ns), now_ns
            number = before.number + 1 if before and before.is_again else 1
        ready = Pass(line, ledger, scope, sweep, begun_ns=begun_ns, said=said, number=number)
        self._passes[kind, scope.key] = ready
        return ready

    async def _begin(self, scope: Scope, kind: str, start_ns: int, now_ns: int) -> Sweep:
        line, ledger = self._line, self._ledger
        poll = await asyncio.to_thread(ledger.sweep, line.account, scope.key, POLL)
        if poll is not None and poll.position_ns is not None:
            position_ns, floor_ns = poll.position_ns, poll.start_ns or 0
        else:
            # Also for an agent that is new: that it was in no listing before does not tell that it was not there.
            position_ns = floor_ns = max(start_ns, now_ns - nanoseconds(line.retention))
        reach = line.config.overlap if kind == POLL else line.config.lookback
        return await asyncio.to_thread(
            ledger.begin_sweep,
            line.account,
            scope.key,
            kind,
            window_start_ns=max(floor_ns, position_ns - nanoseconds(reach)),
            window_end_ns=None,
            position_ns=position_ns,
        )

    async def _settle_open(self) -> None:
        """Where the platform can list what is open: whatever of our open rows left that list has ended."""
        line, ledger = self._line, self._ledger
        if not await asyncio.to_thread(ledger.open_ids, line.account, 1):
            return
        listed_ns = self._now()
        still_open = await line.source.open_run_ids()
        if still_open is not None:
            ended = await asyncio.to_thread(
                ledger.settle_open,
                line.account,
                still_open,
                listed_ns=listed_ns,
                ask_again=lambda age_ns: standing.ask_interval(age_ns, line.config.poll_every),
            )
            if ended:
                line.wake.set()


def as_unavailable(error: Exception) -> SourceUnavailable:
    """What it means for a source that none of its lists could be read."""
    return error if isinstance(error, SourceUnavailable) else SourceUnavailable(said(error))


def wanted(scopes: Scopes, line: Line) -> list[Scope]:
    """The scopes whose runs the configuration lets through."""
    return [s for s in scopes.found if not s.key or standing.is_wanted(s.key, s.agent_name, line.config)]
