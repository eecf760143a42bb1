"""One source as the pipeline runs it: the platform's module, its configuration, and how it is doing."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from runspan.config import SourceConfig
from runspan.errors import SourceRefused, SourceUnavailable
from runspan.ledger import Account
from runspan.projection.settings import ProjectionSettings
from runspan.rate import Limiter
from runspan.sources.base import Source

log = structlog.get_logger()

PAUSE_SECONDS = (1.0, 300.0)
REFUSED_PAUSE_SECONDS = (30.0, 900.0)
"""The first and the longest of the pauses after failures in a row, which double."""


@dataclass(slots=True)
class Health:
    """Whether a source gives its lists, or its runs. Failures in a row pause that with growing delay; any answer ends
    the pause.

    The two are apart: a platform whose runs cannot be had may list them all the same.
    """

    name: str
    of: str
    """`lists` or `runs`."""
    now: Callable[[], int]
    failures: int = 0
    paused_until_ns: int = 0
    last_success_ns: int | None = None
    last_error: str | None = None
    refused: bool = False
    """The last failure was about our key: waiting does not help."""

    def succeeded(self) -> None:
        """The source gave a usable answer."""
        if self.failures:
            details = {"source": self.name, "of": self.of, "failures": self.failures}
            log.info("source answers again", action="source_up", **details)
        self.failures = 0
        self.refused = False
        self.paused_until_ns = 0
        self.last_success_ns = self.now()

    def failed(self, error: SourceUnavailable) -> None:
        """The source gave none; a refused key is an error that a person must mend, the rest a warning."""
        self.refused = refused = isinstance(error, SourceRefused)
        floor_seconds, ceiling_seconds = REFUSED_PAUSE_SECONDS if refused else PAUSE_SECONDS
        pause_seconds = min(floor_seconds * 2 ** min(self.failures, 10), ceiling_seconds)
        pause_seconds = max(pause_seconds * random.uniform(0.9, 1.1), error.retry_after_seconds or 0.0)  # noqa: S311
        self.last_error = str(error)
        now_ns = self.now()
        # Requests that were under way together fail together: they are one failure, not several.
        if now_ns < self.paused_until_ns:
            return
        self.failures += 1
        self.paused_until_ns = now_ns + int(pause_seconds * 1e9)
        details = {"source": self.name, "of": self.of, "failures": self.failures}
        details["paused_seconds"] = round(pause_seconds, 1)
        if refused:
            log.error(str(error), action="source_refused", **details)
        else:
            log.warning(str(error), action="source_unavailable", **details)

    @property
    def paused_seconds(self) -> float:
        """How long nothing of the kind is to be asked for; 0 when there is no pause."""
        return max(0.0, (self.paused_until_ns - self.now()) / 1e9)


@dataclass(slots=True)
class Line:
    """A source with all that its runs need on their way."""

    source: Source
    config: SourceConfig
    projection: ProjectionSettings
    open_limiter: Limiter
    """Spends at most half the source's rate on runs that are still open."""
    listing: Health
    fetching: Health
    retention: timedelta
    stopping: asyncio.Event
    """Once set, no request of this source waits for its turn any more (`TurnsOver`)."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when rows may have become due."""

    @property
    def name(self) -> str:
        """The source's name: a label, not identity."""
        return self.config.name

    @property
    def failing(self) -> Health | None:
        """What the source does not give at the moment, if there is such a thing."""
        return next((health for health in (self.listing, self.fetching) if health.failures), None)

    @property
    def last_success_ns(self) -> int | None:
        """When the source last gave a usable answer of any kind."""
        times_ns = (self.listing.last_success_ns, self.fetching.last_success_ns)
        return max((time_ns for time_ns in times_ns if time_ns is not None), default=None)

    @property
    def account(self) -> Account:
        """What makes run ids unique: platform and tenant."""
        return Account(self.source.platform, self.source.tenant)
