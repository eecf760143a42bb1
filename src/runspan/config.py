"""The configuration: one TOML file, typed.

Every table is a frozen model here; the docstring under a key is its description in the JSON schema and in
config.example.toml. A platform may bring keys of its own: its source subclasses `SourceConfig`, and `Platforms` tells
this module so, which itself knows no platform. `runspan.config_file` reads the file, the environment and the flags
into these models.
"""

import ipaddress
import os
import string
import urllib.parse
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails

from runspan.config_table import Table, refusal, refuse
from runspan.config_trace import Amount, ContentConfig, PricesConfig
from runspan.origin import origin_of
from runspan.quantities import Duration, Rate, Size, Start, format_duration
from runspan.secrets import Secret

DEFAULT_ENDPOINTS = {"http/protobuf": "http://localhost:4318", "grpc": "http://localhost:4317"}
SENSITIVE_HEADER_WORDS = ("auth", "key", "token", "secret", "cookie")


def _web_url(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not a URL: write it whole, such as https://host:4318")
    _ = parts.port  # raises ValueError for what is no port
    if "@" in parts.netloc:
        raise ValueError("a URL must not hold a user or a password: put them into a header or key, by reference")
    return url


def _base_url(url: str) -> str:
    if set("?#") & set(url):
        raise ValueError("a base URL has no query and no fragment: leave out what follows ? or #")
    return _web_url(url).rstrip("/")


WebUrl: TypeAlias = Annotated[str, AfterValidator(_web_url)]
HeaderValue: TypeAlias = Annotated[Secret | str, Field(union_mode="left_to_right")]
BaseUrl: TypeAlias = Annotated[str, AfterValidator(_base_url)]


def default_ledger_url() -> str:
    """The ledger in the user's state directory (XDG_STATE_HOME, else ~/.local/state)."""
    # The ~ stays: in a container the user may have no home, and needs none where the ledger has a place of its own.
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return f"sqlite:///{state.rstrip('/')}/runspan/ledger.db"


class LedgerConfig(Table):
    """The durable table of runs, positions and jobs."""

    url: str = Field(default_factory=default_ledger_url, examples=["sqlite:////var/lib/runspan/ledger.db"])
    """Where the ledger is: sqlite:///path (an absolute path makes four slashes) or postgresql+psycopg://host/name.
    Default: ledger.db in the user's state directory, ~/.local/state/runspan."""
    retention: Duration = timedelta(days=90)
    """How long exported, skipped and gone runs are remembered. Must exceed each source's lookback + open_for, or a
    forgotten run would be found and sent again."""

    @field_validator("url")
    @classmethod
    def _no_password(cls, url: str) -> str:
        scheme, separator, _ = url.partition("://")
        if not separator or scheme.partition("+")[0] not in ("sqlite", "postgresql"):
            raise ValueError("write sqlite:///path or postgresql+psycopg://host/name")
        if urllib.parse.urlsplit(url).password is not None:
            raise ValueError("a password does not stand in the ledger's URL: use PGPASSWORD or a ~/.pgpass file")
        return url


class DestinationConfig(Table):
    """Where traces go."""

    protocol: Literal["http/protobuf", "grpc", "file", "sdk"] = "http/protobuf"
    """http/protobuf, grpc, file (OTLP JSON lines), or sdk (any installed OpenTelemetry SpanExporter)."""
    endpoint: str = Field(default="", validate_default=True, examples=["http://localhost:4318"])
    """The URL of the OTLP receiver; /v1/traces is added unless its path ends in /traces. For file: a path. For sdk: an
    exporter's entry-point name. Default: http://localhost:4318, for grpc http://localhost:4317."""
    preset: Literal["jaeger", "tempo", "phoenix", "langfuse", "generic"] = "jaeger"
    """What is known of the backend (limits, attribute names): jaeger, tempo, phoenix, langfuse or generic."""
    conventions: tuple[Literal["gen_ai", "openinference", "langfuse"], ...] | None = Field(
        default=None, examples=[["gen_ai", "openinference"]]
    )
    """Whose names the attributes have, beside our own: gen_ai (always), openinference, langfuse. Default: what the
    preset says."""
    compression: Literal["gzip", "none"] = "gzip"
    """gzip or none."""
    headers: dict[str, HeaderValue] = Field(
        default_factory=dict[str, HeaderValue], examples=[{"authorization": "env:OTLP_AUTH", "x-scope-orgid": "team-a"}]
    )
    """Sent with each request. A value may be a reference (env:NAME, file:/path); one whose name contains auth, key,
    token, secret or cookie must be."""
    timeout: Duration = timedelta(seconds=10)
    """How long one request may take."""
    max_span_age: Duration | None = Field(default=None, examples=["30d"])
    """How long ago a run may have ended for the backend to show it; 0s: as long as it likes. A backfill that begins
    further back stops before it sends anything, unless it is given --force; the daemon warns and goes on. Set it where
    you raised the backend's own limit, or for one without a preset (Dynatrace takes 1h, Datadog 24h). Default: what the
    preset knows (jaeger 72h, tempo 168h, others none); for file and sdk none."""
    trace_url: WebUrl | None = Field(default=None, examples=["http://localhost:16686/trace/{trace_id}"])
    """How people open a trace; {trace_id} is filled in."""
    query_url: BaseUrl | None = Field(default=None, examples=["http://localhost:16686"])
    """The backend's query API, to read traces back (check --send-test-trace, backfill --verify)."""
    ca_file: Path | None = Field(default=None, examples=["/etc/ssl/our-ca.pem"])
    """PEM file of the authorities to trust instead of the system's."""
    client_cert: Path | None = Field(default=None, examples=["/etc/runspan/client.pem"])
    """PEM file of the client certificate, for mutual TLS."""
    client_key: Path | None = Field(default=None, examples=["/etc/runspan/client.key"])
    """PEM file of the client certificate's key."""

    @field_validator("endpoint")
    @classmethod
    def _fits_protocol(cls, endpoint: str, info: ValidationInfo) -> str:
        protocol = info.data.get("protocol")
        if protocol in DEFAULT_ENDPOINTS:
            return _base_url(endpoint or DEFAULT_ENDPOINTS[protocol])
        if protocol and not endpoint:
            raise ValueError(f"missing: protocol {protocol} needs a path (file) or an entry-point name (sdk)")
        return endpoint

    @field_validator("headers")
    @classmethod
    def _no_bare_credentials(cls, headers: dict[str, Secret | str]) -> dict[str, Secret | str]:
        text = "a header with this name is a secret: write env:NAME or file:/path, never the value itself"
        refuse(
            refusal((name,), text)
            for name, value in headers.items()
            if not isinstance(value, Secret) and any(word in name.lower() for word in SENSITIVE_HEADER_WORDS)
        )
        return headers

    @field_validator("trace_url")
    @classmethod
    def _has_place_for_id(cls, trace_url: str | None) -> str | None:
        if trace_url and "{trace_id}" not in trace_url:
            raise ValueError("write {trace_id} where the trace's id belongs")
        return trace_url

    @model_validator(mode="after")
    def _key_has_certificate(self) -> "DestinationConfig":
        if self.client_key and not self.client_cert:
            refuse([refusal(("client_key",), "set client_cert too: a key alone proves nothing")])
        return self

    @property
    def traces_url(self) -> str:
        """For http/protobuf: where traces are posted to."""
        url = self.endpoint.rstrip("/")
        return url if url.endswith("/traces") else f"{url}/v1/traces"

    def revealed_headers(self) -> dict[str, str]:
        """The headers as they are to be sent now, names in lower case. Raises ConfigError."""
        return {
            name.lower(): value.reveal() if isinstance(value, Secret) else value for name, value in self.headers.items()
        }


class WebConfig(Table):
    """Health, metrics, the status page and the feed."""

    listen: str = "127.0.0.1:9464"
    """Address and port. [::1]:9464 for IPv6."""
    token: Secret | None = Field(default=None, examples=["env:RUNSPAN_WEB_TOKEN"])
    """Bearer token, by reference (env:NAME, file:/path). Whatever accepts data needs it, and stays closed without."""

    @field_validator("listen")
    @classmethod
    def _has_port(cls, listen: str) -> str:
        host, _, port = listen.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535 or (":" in host and not host.startswith("[")):
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
    poll_every: Duration = timedelta(seconds=30)
    """How often the platform is asked for new runs."""
    start: Start = Start(ago=timedelta(hours=24))
    """Where reading begins at the first start only: now, a duration back, or a timestamp."""
    settle: Duration = timedelta(seconds=5)
    """How long after a run was first seen finished it is exported, since platforms write late rows."""
    overlap: Duration = timedelta(minutes=10)
    """How much is read again at each poll, for runs that became visible late."""
    lookback: Duration = timedelta(hours=24)
    """How much is read again every sweep_every, for runs that became visible very late."""
    sweep_every: Duration = timedelta(hours=1)
    """How often lookback is read again."""
    open_for: Duration = timedelta(days=7)
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


class PlatformInfo(NamedTuple):
    """What a platform brings to the configuration: its keys, and its defaults for `base_url` and `rate`."""

    config_type: type[SourceConfig]
    default_base_url: str | None
    default_rate: str


Platforms: TypeAlias = Mapping[str, PlatformInfo]


def bind(platforms: Platforms) -> type[Config]:
    """`Config` whose sources are read by their platform's own type, told by `platform`."""
    # Types made at run time: nothing here can be seen by a type checker.
    union: Any = Union[tuple(_bind_source(name, info) for name, info in platforms.items())]  # noqa: UP007
    source: Any = (tuple[Annotated[union, Discriminator("platform")] if len(platforms) > 1 else union, ...], ())
    return create_model("Config", __base__=Config, __doc__=Config.__doc__, source=source)


def _bind_source(platform: str, info: PlatformInfo) -> type[SourceConfig]:
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


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
