"""What the four simulated platforms share: the shape of a platform, its quirks, and how a list is paged.

The facts are in the modules of the platforms; nothing here is any vendor's behaviour.
"""

import random
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runspan.demo.world import World, WorldRun


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `requests` in any window of `window_seconds`."""

    requests: int
    window_seconds: float


@dataclass(slots=True, kw_only=True)
class Quirks:
    """What a platform may do to its lists without lying; all off. Counts say how many times more."""

    unsorted: bool = False
    """The whole list stands in an order that has nothing to do with time."""
    oldest_first: bool = False
    """The whole list stands in the order of time, where the newest should be first."""
    shuffled_pages: bool = False
    """The rows of each page are out of order, the pages are not."""
    duplicated_rows: int = 0
    """Each page but the first begins with so many rows of the page before."""
    empty_pages: bool = False
    """Before each page comes an empty one that names a next cursor."""
    repeated_cursors: int = 0
    """An answer names the cursor it was asked with as the next one."""
    expired_cursors: int = 0
    """A request with a cursor is refused with `expired_status`."""
    expired_status: int = 400
    dead_cursors: int = 0
    """A request with a cursor is answered as if there were nothing behind it."""
    skips_ties: bool = False
    """Rows created at the very instant of the cursor's row are not on the next page."""
    failing_agents: dict[str, int] = field(default_factory=dict[str, int])
    """Whatever is asked of this agent or its runs is answered with this status."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; `next_cursor` None: it is the last."""

    runs: list[WorldRun]
    next_cursor: str | None


class Platform(ABC):
    """One simulated platform: its routes, and how it refuses.

    `key` None turns authentication off. `limit` None turns the rate limit off.
    """

    name: ClassVar[str]
    base_path: ClassVar[str] = ""
    """What the platform's base URL has behind the origin."""
    default_key: ClassVar[str]
    default_limit: ClassVar[RateLimit]

    def __init__(self, world: World, *, seed: int = 0) -> None:
        self.world = world
        self.key: str | None = self.default_key
        self.limit: RateLimit | None = self.default_limit
        self.quirks = Quirks()
        self._random = random.Random(seed)  # noqa: S311
        self.app = Starlette(routes=self.routes(), exception_handlers={HTTPException: self._refuse})
        self.app.router.redirect_slashes = False

    @abstractmethod
    def routes(self) -> list[Route]:
        """The endpoints of the platform."""

    @abstractmethod
    def presented_key(self, headers: Mapping[str, str]) -> str | None:
        """The key that a request carries."""

    @abstractmethod
    def error(self, status: int, message: str) -> Response:
        """An error in the platform's own body shape."""

    def unauthorized(self) -> Response:
        """The answer to a missing or wrong key."""
        return self.error(401, "Invalid API key")

    @abstractmethod
    def too_many(self, retry_after_seconds: int) -> Response:
        """The answer to a request over the rate limit."""

    def rate_headers(self, limit: RateLimit, remaining: int, reset_seconds: int) -> dict[str, str]:
        """The headers of every answer that tell how much of the rate limit is left."""
        return {}

    def check_agent(self, agent_id: str) -> None:
        """Refuse where this agent is one that fails. Raises HTTPException."""
        if agent_id in self.quirks.failing_agents:
            raise HTTPException(self.quirks.failing_agents[agent_id], "Agent is not available")

    def visible_run(self, run_id: str, message: str = "Run not found") -> WorldRun:
        """The run that is asked for. Raises HTTPException 404 where there is none, or as `check_agent`."""
        run = self.world.run(self.name, run_id)
        if run is None:
            raise HTTPException(404, message)
        self.check_agent(run.agent_id)
        return run

    def page(
        self,
        *,
        agent_id: str | None,
        cursor: str | None,
        limit: int,
        keep: Callable[[WorldRun], bool],
    ) -> Page:
        """The page behind `cursor` (the id of the last run of the page before), newest first by creation.

        Raises HTTPException 400 for a cursor that no run has.
        """
        quirks = self.quirks
        if cursor and quirks.expired_cursors:
            quirks.expired_cursors -= 1
            raise HTTPException(quirks.expired_status, "Cursor has expired")
        if cursor and quirks.dead_cursors:
            quirks.dead_cursors -= 1
            return Page([], None)
        if quirks.empty_pages and not (cursor or "").endswith("~"):
            return Page([], f"{cursor or ''}~")
        after = (cursor or "").removesuffix("~") or None
        if after is not None and self.world.run(self.name, after) is None:
            raise HTTPException(400, "Invalid cursor")

        runs = islice(filter(keep, self._behind(agent_id, after)), limit + 1)
        rows = self._repeated(agent_id, after, keep) + list(runs)
        next_cursor = rows[limit - 1].run_id if len(rows) > limit else None
        rows = rows[:limit]
        if after is not None and quirks.repeated_cursors:
            quirks.repeated_cursors -= 1
            next_cursor = cursor
        if quirks.shuffled_pages:
            self._random.shuffle(rows)
        return Page(rows, next_cursor)

    def _behind(self, agent_id: str | None, after: str | None) -> Iterator[WorldRun]:
        if self.quirks.unsorted or self.quirks.oldest_first:
            runs = list(self.world.newest_first(self.name, agent_id))[::-1]
            if self.quirks.unsorted:
                runs.sort(key=lambda run: zlib.crc32(run.run_id.encode()))
            ids = [run.run_id for run in runs]
            return iter(runs[0 if after is None else ids.index(after) + 1 :])
        runs = self.world.newest_first(self.name, agent_id, after)
        if self.quirks.skips_ties and after is not None:
            last = self.world.run(self.name, after)
            return (run for run in runs if last is None or run.created_at_ns < last.created_at_ns)
        return runs

    def _repeated(self, agent_id: str | None, after: str | None, keep: Callable[[WorldRun], bool]) -> list[WorldRun]:
        if after is None or not self.quirks.duplicated_rows:
            return []
        before: list[WorldRun] = []
        for run in filter(keep, self._behind(agent_id, None)):
            before.append(run)
            if run.run_id == after:
                break
        return before[-self.quirks.duplicated_rows :]

    def _refuse(self, request: Request, exception: Exception) -> Response:
        assert isinstance(exception, HTTPException)
        return self.error(exception.status_code, exception.detail)


def integer(text: str | None, default: int) -> int:
    """A query parameter as an integer, `default` where it is absent or none."""
    try:
        return int(text) if text else default
    except ValueError:
        return default
