"""The whole configuration, and its smaller tables."""

import os
import re
import string
from datetime import timedelta
from typing import Annotated, Any, Literal, Union

from pydantic import Discriminator, Field, create_model, field_validator, model_validator
from pydantic_core import InitErrorDetails

from runspan.config.destination import DestinationConfig
from runspan.config.source import Platforms, SourceConfig, bound
from runspan.config.table import Table, refusal, refuse
from runspan.config.trace import ContentConfig, PricesConfig
from runspan.config.urls import is_host
from runspan.quantities import Duration, Size, format_duration
from runspan.secrets import Secret


def default_ledger_url() -> str:
    """The ledger in the user's state directory (XDG_STATE_HOME, else ~/.local/state)."""
    # The ~ stays: in a container the user may have no home, and needs none where the ledger has a place of its own.
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return f"sqlite:///{state.rstrip('/')}/runspan/ledger.db"


class LedgerConfig(Table):
    """The durable table of runs, positions and jobs."""

    url: str = Field(default_factory=default_ledger_url, examples=["sqlite:////var/lib/runspan/ledger.db"])
    """Where the ledger is: sqlite:///path (an absolute path makes four slashes).
    Default: ledger.db in the user's state directory, ~/.local/state/runspan."""
    retention: Duration = timedelta(days=90)
    """How long exported, skipped and gone runs are remembered. Must exceed each source's lookback + open_for, or a
    forgotten run would be found and sent again."""

    @field_validator("url")
    @classmethod
    def _is_a_file(cls, url: str) -> str:
        remedy = "write sqlite:////path/to/ledger.db"
        scheme, separator, place = url.partition("://")
        if not separator or scheme.partition("+")[0] != "sqlite":
            raise ValueError(f"{remedy}: a ledger is a file of SQLite")
        if not url.isprintable():
            raise ValueError("a path or URL has no line breaks or control characters")
        host, _, path = place.partition("/")
        if host:
            raise ValueError(f"an absolute path makes four slashes, a relative one three: {remedy}")
        if "?" in path:
            raise ValueError(f"no options stand behind the path: {remedy}")
        if path.strip() in ("", ":memory:"):
            # SQLite would keep it in memory: every start would then send again what the last one sent.
            raise ValueError(f"names no file: {remedy}, or leave the key out")
        return url


def _is_bindable(host: str) -> bool:
    """A host as it stands before a port: an IPv6 address in brackets, no other."""
    if host.startswith("[") and host.endswith("]"):
        return ":" in host and is_host(host[1:-1])
    return ":" not in host and is_host(host)


class WebConfig(Table):
    """Health, metrics and the status page."""

    listen: str = "127.0.0.1:9464"
    """Address and port. [::1]:9464 for IPv6."""
    token: Secret | None = Field(default=None, examples=["env:RUNSPAN_WEB_TOKEN"])
    """Bearer token, by reference (env:NAME, file:/path). Whatever accepts data needs it, and stays closed without."""

    @field_validator("listen")
    @classmethod
    def _has_port(cls, listen: str) -> str:
        host, _, port = listen.rpartition(":")
        if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535 or not _is_bindable(host):
            raise ValueError("write an address and a port, such as 127.0.0.1:9464")
        return listen

    @property
    def host(self) -> str:
        """The address alone."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port alone; 0 lets the system choose."""
        return int(self.listen.rpartition(":")[2])


class ResourceConfig(Table):
    """Resource attributes of every trace; nothing else ever feeds the resource."""

    service_name: str = "{source}"
    """service.name. {source}, {platform} and {agent} are filled in."""
    service_namespace: str | None = Field(default=None, examples=["agents"])
    """service.namespace."""
    attributes: dict[str, str | bool | int | float] = Field(
        default_factory=dict[str, str | bool | int | float], examples=[{"deployment.environment.name": "production"}]
    )
    """Further resource attributes."""

    @field_validator("attributes")
    @classmethod
    def _can_be_sent(cls, attributes: dict[str, str | bool | int | float]) -> dict[str, str | bool | int | float]:
        for name, value in attributes.items():
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ValueError(f"no number of more than 64 bits, as {name} is: write it as a text")
        return attributes

    @field_validator("service_name")
    @classmethod
    def _known_places(cls, template: str) -> str:
        places = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        if not template or places - {"source", "platform", "agent"}:
            raise ValueError("a text in which {source}, {platform} and {agent} may stand, and no other braces")
        return template


class LimitsConfig(Table):
    """Bounds on memory."""

    max_in_flight: Size = 128_000_000
    """Run bodies held at one time."""
    max_body: Size = 64_000_000
    """A larger body is quarantined unread."""

    @model_validator(mode="after")
    def _body_fits(self) -> "LimitsConfig":
        if self.max_body > self.max_in_flight:
            refuse([refusal(("max_body",), "a single body could never fit: keep max_body within max_in_flight")])
        return self


class LogConfig(Table):
    """Logs, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """debug, info, warning or error."""
    format: Literal["auto", "json", "console"] = "auto"
    """json, console, or auto: console on a terminal, JSON lines elsewhere."""


class Config(Table):
    """The whole configuration."""

    ledger: LedgerConfig = LedgerConfig()
    destination: DestinationConfig = DestinationConfig()
    content: ContentConfig = ContentConfig()
    prices: PricesConfig = PricesConfig()
    web: WebConfig = WebConfig()
    resource: ResourceConfig = ResourceConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
    source: tuple[SourceConfig, ...] = ()

    @model_validator(mode="after")
    def _sources_agree(self) -> "Config":
        refusals: list[InitErrorDetails] = []
        names: set[str] = set()
        accounts: dict[tuple[str, str], str] = {}
        for index, source in enumerate(self.source):
            other = accounts.setdefault((source.platform, source.tenant_or_origin), source.name)
            if other != source.name:
                text = f"source {other} is {source.platform} at the same place: give this account a tenant of its own"
                refusals.append(refusal(("source", index, "tenant"), text))
            if source.name in names:
                text = f"another source is named {source.name} too: rename one"
                refusals.append(refusal(("source", index, "name"), text))
            names.add(source.name)
            needed = source.lookback + source.open_for
            if self.ledger.retention <= needed:
                text = f"must be longer than lookback + open_for of source {source.name}, {format_duration(needed)}"
                refusals.append(refusal(("ledger", "retention"), text))
        refuse(refusals)
        return self


def bind(platforms: Platforms) -> type[Config]:
    """`Config` whose sources are read by their platform's own type, told by `platform`."""
    # Types made at run time: nothing here can be seen by a type checker.
    union: Any = Union[tuple(bound(name, info) for name, info in platforms.items())]  # noqa: UP007
    source: Any = (tuple[Annotated[union, Discriminator("platform")] if len(platforms) > 1 else union, ...], ())
    return create_model("Config", __base__=Config, __doc__=Config.__doc__, source=source)
