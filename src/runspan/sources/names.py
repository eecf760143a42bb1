"""The names of a source's agents, which no document of a run tells.

A name is part of a trace, so a run must not be sent without its agent's name only because that could not be asked for.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from runspan.errors import RunGone, RunUnreadable, SourceRefused, SourceUnavailable
from runspan.model import RunRef
from runspan.sources.base import Scopes
from runspan.sources.fields import SECOND_NS

log = structlog.get_logger()

ASKED_AGAIN_NS = 600 * SECOND_NS
"""For an agent that is not known, of which a run has no time of creation."""
TRIED_AGAIN_NS = 2 * SECOND_NS
WAITED_FOR_NS = 300 * SECOND_NS
"""Agents that cannot be listed for so long have no names, for now: their runs are worth more than that."""


class AgentNames:
    """Names by agent id, asked for no more often than a run may be of an agent that is newer than the last answer.

    `read` gives all agents there are, and raises as sources do. `now` is the wall clock in nanoseconds.
    """

    def __init__(
        self, source: str, read: Callable[[], Awaitable[Scopes]], *, now: Callable[[], int] = time.time_ns
    ) -> None:
        self._source = source
        self._read = read
        self._now = now
        self._names: dict[str, str | None] = {}
        self._read_ns: int | None = None
        self._failing_since_ns: int | None = None
        self._failure: SourceUnavailable | None = None
        self._tried_ns = 0
        self._turn = asyncio.Lock()

    def learn(self, agents: Scopes, *, asked_ns: int) -> None:
        """Take in the names of all agents there were at `asked_ns`, as far as they were listed."""
        self._names |= {agent.key: agent.agent_name for agent in agents.found}
        # A list that leads no further may be a long one: it is not read for each agent that stands behind its end.
        self._read_ns = asked_ns + (ASKED_AGAIN_NS if agents.broken_off else 0)
        self._failing_since_ns = self._failure = None

    async def named(self, ref: RunRef) -> RunRef:
        """The run with its agent's name, as far as its agent is known; see `of`."""
        locator = ref.locator
        if locator.agent_id is None or locator.agent_name is not None:
            return ref
        name = await self.of(locator.agent_id, locator.created_ns)
        return replace(ref, locator=replace(locator, agent_name=name))

    async def of(self, agent_id: str | None, created_ns: int | None) -> str | None:
        """The name of the agent of a run that was created then; None where it has none, or is there no more.

        Raises SourceUnavailable where that cannot be told now.
        """
        if agent_id is None:
            return None
        async with self._turn:
            if agent_id not in self._names and self._may_be_new(created_ns):
                await self._ask()
        return self._names.get(agent_id)

    def _may_be_new(self, created_ns: int | None) -> bool:
        if self._read_ns is None:
            return True
        return self._now() - self._read_ns >= ASKED_AGAIN_NS if created_ns is None else created_ns >= self._read_ns

    async def _ask(self) -> None:
        asked_ns = self._now()
        if self._failure and asked_ns - self._tried_ns < TRIED_AGAIN_NS:
            raise self._failure
        self._tried_ns = asked_ns
        try:
            agents = await self._read()
            self.learn(agents, asked_ns=asked_ns)
            if agents.broken_off:
                self._warn(agents.broken_off)
        except (SourceRefused, RunGone, RunUnreadable) as error:
            self._do_without(str(error), asked_ns)
        except SourceUnavailable as error:
            self._failing_since_ns = self._failing_since_ns or asked_ns
            if asked_ns - self._failing_since_ns < WAITED_FOR_NS:
                self._failure = error
                raise
            self._do_without(str(error), asked_ns)

    def _do_without(self, reason: str, asked_ns: int) -> None:
        self._read_ns, self._failure = asked_ns, None
        self._warn(reason)

    def _warn(self, reason: str) -> None:
        log.warning(
            f"agents cannot be listed, so new ones have no names: {reason}",
            action="agent_names_unavailable",
            source=self._source,
        )
