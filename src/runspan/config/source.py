"""`[[source]]`: one account of a platform.

A platform may bring keys of its own: its source subclasses `SourceConfig`, and `Platforms` tells of it.
"""

import urllib.parse
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import Field, create_model, model_validator

from runspan.config.table import Table, refusal, refuse
from runspan.config.trace import Amount, ContentConfig
from runspan.config.urls import BaseUrl, is_loopback
from runspan.origin import origin_of
from runspan.quantities import Duration, Rate, Start, at_least
from runspan.secrets import Secret

Interval: TypeAlias = Annotated[Duration, at_least(timedelta(milliseconds=50))]
"""Of what is done over and over: a shorter one would only keep a processor busy."""


class SourceConfig(Table):
    """One account of a platform."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["case-prod"])
    """A label of your own: letters, digits, dots, dashes and underscores. Renaming it sends nothing twice."""
    platform: str
    """flowyble, runtype, elizaos, casedev, or the name of a plug-in's platform."""
    base_url: BaseUrl
    """Where the platform's API is. Default: the platform's own, if it has one for all."""
    allow_http: bool = False
    """Allow plain http to a host beyond loopback: the key then travels in the clear."""
    tenant: str | None = Field(default=None, min_length=1, examples=["https://api.case.dev"])
    """What makes run ids unique on the platform. Default: the origin of base_url."""
    api_key: Secret | None = Field(default=None, examples=["env:CASEDEV_API_KEY"])
    """The key, by reference: env:NAME, or file:/path (read again when replaced)."""
    poll_every: Interval = timedelta(seconds=30)
    """How often the platform is asked for new runs."""
    start: Start = Start(ago=timedelta(hours=24))
    """Where reading begins at the first start only: now, a duration back, or a timestamp."""
    settle: Duration = timedelta(seconds=5)
    """How long after a run was first seen finished it is exported, since platforms write late rows."""
    overlap: Duration = timedelta(minutes=10)
    """How much is read again at each poll, for runs that became visible late."""
    lookback: Duration = timedelta(hours=24)
    """How much is read again every sweep_every, for runs that became visible very late."""
    sweep_every: Interval = timedelta(hours=1)
    """How often lookback is read again."""
    open_for: Annotated[Duration, at_least(timedelta(milliseconds=1))] = timedelta(days=7)
    """How long a run may stay unfinished before it counts as expired."""
    rate: Rate = Rate(60, 60)
    """Requests to the platform, by all processes on this ledger together."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Requests under way at one time."""
    agents: tuple[str, ...] = ()
    """Only these agents, by id. Empty: all."""
    exclude_agents: tuple[str, ...] = ()
    """All but these agents, by id."""
    statuses: tuple[Literal["success", "failed", "timeout", "cancelled"], ...] = ()
    """Only runs that ended so: success, failed, timeout or cancelled. Empty: all. The others become skipped rows, and
    are sent when they are listed again after this was changed."""
    keep_success: float = Field(default=1.0, ge=0, le=1)
    """The share of successful runs to export, by a hash of their trace id: the same ones on every host. All others are
    always exported."""
    agent_names: dict[str, str] = Field(default_factory=dict[str, str], examples=[{"ag_123": "contract-reviewer"}])
    """Names by agent id, where the platform tells none."""
    currency: str | None = Field(default="usd", pattern=r"^[a-z]{3}$")
    """What currency costs are in, where the platform does not say; marked as assumed."""
    credit_rate: Amount | None = Field(default=None, examples=[0.01])
    """What one credit is worth in `currency`, for platforms that count in credits. The credits stay; what they are
    worth stands beside them, marked as local. Default: not known."""
    cancelled_is_error: bool = True
    """Whether a cancelled run's trace has the status ERROR."""
    export_expired: bool = False
    """Whether a run that never ended within open_for is exported as it stands."""
    content: ContentConfig = ContentConfig()
    """The keys of [content], for this source alone. Default: what they say there."""

    def content_over(self, general: ContentConfig) -> ContentConfig:
        """`general`, with the keys that this source sets itself."""
        return general.model_copy(update={key: getattr(self.content, key) for key in self.content.model_fields_set})

    @property
    def tenant_or_origin(self) -> str:
        """What makes run ids unique on the platform."""
        return self.tenant or origin_of(self.base_url)

    @model_validator(mode="after")
    def _credits_have_a_currency(self) -> "SourceConfig":
        if self.credit_rate is not None and self.currency is None:
            refuse([refusal(("credit_rate",), "set currency too: it says what a credit is worth")])
        return self

    @model_validator(mode="after")
    def _http_stays_home(self) -> "SourceConfig":
        parts = urllib.parse.urlsplit(self.base_url)
        if parts.scheme == "http" and not self.allow_http and not is_loopback(parts.hostname or ""):
            text = "plain http shows the key to everyone on the way: use https, or set allow_http = true"
            refuse([refusal(("base_url",), text)])
        return self


class PlatformInfo(NamedTuple):
    """What a platform brings to the configuration: its keys, and its defaults for `base_url` and `rate`."""

    config_type: type[SourceConfig]
    default_base_url: str | None
    default_rate: str


Platforms: TypeAlias = Mapping[str, PlatformInfo]


def bound(platform: str, info: PlatformInfo) -> type[SourceConfig]:
    """The platform's own type, with its own defaults."""
    known = info.config_type.model_fields
    overridden: dict[str, tuple[Any, Any]] = {
        "platform": (Literal[platform], ...),
        "base_url": (BaseUrl, info.default_base_url or ...),
        "rate": (Rate, Rate.parse(info.default_rate)),
    }
    fields: dict[str, Any] = {
        name: (kind, Field(default=default, description=known[name].description))
        for name, (kind, default) in overridden.items()
    }
    return create_model(platform, __base__=info.config_type, __doc__=f"One account of {platform}.", **fields)
