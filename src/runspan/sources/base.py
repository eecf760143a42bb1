"""The contract of a source: how runs of one platform are found, fetched and read.

A platform is one module with one subclass of `Source`, registered in `runspan.sources` or by a package through the
entry-point group `runspan.sources`. Finding and fetching talk to the platform through its `Client`; `read` is pure.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from runspan.config import SourceConfig
from runspan.model import Json, Locator, Run, RunBody, RunRef, RunStatus
from runspan.sources.client import Client


@dataclass(frozen=True, slots=True)
class Scope:
    """What one list covers: the whole source (`key` is empty) or one agent (`key` is its id)."""

    key: str = ""
    agent_name: str | None = None


@dataclass(frozen=True, slots=True)
class Scopes:
    """Every scope there is now. `broken_off` says, in a line, why the list of agents leads no further although it has
    not come to its end: there may be more."""

    found: tuple[Scope, ...]
    broken_off: str | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """The stretch of time a sweep is to cover, [start, end), on the list's own time axis. `end_ns` None: up to now."""

    start_ns: int
    end_ns: int | None = None

    def holds(self, time_ns: int | None) -> bool:
        """Whether an instant lies in it; what has no time may lie in any window."""
        if time_ns is None:
            return True
        return self.start_ns <= time_ns and (self.end_ns is None or time_ns < self.end_ns)


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of a list.

    `time_ns` is the row's place on the list's time axis: what positions are made of. `skip_reason` is set where the row
    alone tells that the run is not to be exported; `status` where it alone tells for certain how the run stands.
    """

    run_id: str
    locator: Locator
    terminal: bool
    time_ns: int | None
    raw_status: str | None = None
    ended_ns: int | None = None
    skip_reason: str | None = None
    status: RunStatus | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. `cursor` (any JSON) continues the sweep, also after a restart; None: the sweep is complete.

    `problems` are rows that could not be read at all, as one-line texts without their values. `broken_off` says, in a
    line, why the list leads no further although it has not come to its end: what lies behind is unseen.
    """

    rows: tuple[Listed, ...]
    cursor: Json | None
    problems: tuple[str, ...] = ()
    broken_off: str | None = None


class Source(ABC):
    """One configured account of a platform."""

    platform: ClassVar[str]
    default_base_url: ClassVar[str | None]
    default_rate: ClassVar[str]
    """As written in a configuration: `90/min`."""
    config_type: ClassVar[type[SourceConfig]] = SourceConfig
    probe_open_after_seconds: ClassVar[float] = 0.0
    """An open run younger than this is not asked for."""
    gone_grace_seconds: ClassVar[float] = 0.0
    """For how long an answer "no such run" for a run just seen is asked again before it is believed."""

    def __init__(self, config: SourceConfig, http: Client) -> None:
        self.config = config
        self.http = http
        self.tenant = config.tenant_or_origin

    @staticmethod
    @abstractmethod
    def auth_headers(api_key: str | None) -> dict[str, str]:
        """The headers that carry the key, none where the platform needs none."""

    @property
    def lists(self) -> bool:
        """Whether runs can be listed; if not, ids come from a file or standard input."""
        return True

    @property
    def pages_shift(self) -> bool:
        """Whether rows move from page to page where others are deleted: so it is where a list is paged by position."""
        return False

    async def scopes(self) -> Scopes:
        """Every scope there is now. Raises SourceUnavailable."""
        return Scopes((Scope(),))

    @abstractmethod
    async def page(self, scope: Scope, window: Window, cursor: Json | None) -> Page:
        """The first page of `window` (cursor None), or the one that `cursor` continues with.

        Raises SourceUnavailable; RunGone where the scope itself has vanished.
        """

    async def open_run_ids(self) -> frozenset[str] | None:
        """The ids of all runs that are open now, where the platform can list them cheaply, else None."""
        return None

    @abstractmethod
    async def fetch(self, ref: RunRef, *, known_open: bool = False, with_content: bool = False) -> RunBody:
        """All documents of one run.

        `known_open`: the run was open when last seen, so a cheaper question may come first; the body then tells only
        that it is still open. `with_content`: also fetch documents that hold nothing but what tools were given and gave
        back.
        Raises RunGone, RunUnreadable (too large, not JSON), SourceUnavailable.
        """

    @abstractmethod
    def read(self, body: RunBody) -> Run:
        """The body as a Run; pure. Raises RunUnreadable where nothing sound can be made of it."""
