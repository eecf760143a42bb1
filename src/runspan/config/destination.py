"""`[destination]`: where traces go."""

import re
import urllib.parse
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from runspan.config.table import Table, refusal, refuse
from runspan.config.urls import BaseUrl, WebUrl, base_url, is_loopback
from runspan.paths import possible
from runspan.quantities import Duration, at_least
from runspan.secrets import Secret

DEFAULT_ENDPOINTS = {"http/protobuf": "http://localhost:4318", "grpc": "http://localhost:4317"}
SENSITIVE_HEADER_WORDS = ("auth", "key", "token", "secret", "cookie")
HEADERS_OF_HTTP = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding"}
)
"""What they say follows from each request; said otherwise, a receiver could not read it."""

_HEADER_NAMES = {
    "http": (
        re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"),
        "no name of a header (RFC 9110, 5.1): write letters, digits and dashes",
    ),
    "grpc": (
        re.compile(r"(?!.*-bin$)[0-9A-Za-z_.-]+", re.IGNORECASE),
        "no name that gRPC sends with text: write letters, digits and dashes, and not -bin at the end",
    ),
}

PemFile: TypeAlias = Annotated[Path, AfterValidator(possible)]
HeaderValue: TypeAlias = Annotated[Secret | str, Field(union_mode="left_to_right")]


class DestinationConfig(Table):
    """Where traces go."""

    protocol: Literal["http/protobuf", "grpc", "file", "sdk"] = "http/protobuf"
    """http/protobuf, grpc, file (OTLP JSON lines), or sdk (any installed OpenTelemetry SpanExporter)."""
    endpoint: str = Field(default="", validate_default=True, examples=["http://localhost:4318"])
    """The URL of the OTLP receiver; /v1/traces is added unless its path ends in /traces. For file: a path. For sdk: an
    exporter's entry-point name. Default: http://localhost:4318, for grpc http://localhost:4317."""
    allow_http: bool = False
    """Allow headers that are references to go by plain http (grpc: without TLS) to a host beyond loopback: what they
    hold then travels in the clear."""
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
    token, secret or cookie must be. All of OTEL_EXPORTER_OTLP_HEADERS count as references."""
    timeout: Annotated[Duration, at_least(timedelta(milliseconds=1))] = timedelta(seconds=10)
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
    ca_file: PemFile | None = Field(default=None, examples=["/etc/ssl/our-ca.pem"])
    """PEM file of the authorities to trust instead of the system's."""
    client_cert: PemFile | None = Field(default=None, examples=["/etc/runspan/client.pem"])
    """PEM file of the client certificate, for mutual TLS."""
    client_key: PemFile | None = Field(default=None, examples=["/etc/runspan/client.key"])
    """PEM file of the client certificate's key."""

    @field_validator("endpoint")
    @classmethod
    def _fits_protocol(cls, endpoint: str, info: ValidationInfo) -> str:
        protocol = info.data.get("protocol")
        if protocol in DEFAULT_ENDPOINTS:
            return base_url(endpoint or DEFAULT_ENDPOINTS[protocol])
        if protocol and not endpoint:
            raise ValueError(f"missing: protocol {protocol} needs a path (file) or an entry-point name (sdk)")
        return possible(endpoint)

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, Secret | str], info: ValidationInfo) -> dict[str, Secret | str]:
        is_name, text = _HEADER_NAMES["grpc" if info.data.get("protocol") == "grpc" else "http"]
        wrong = [refusal((name,), text) for name in headers if not is_name.fullmatch(name)]
        text = "belongs to HTTP itself: leave it out"
        wrong += [refusal((name,), text) for name in headers if name.lower() in HEADERS_OF_HTTP]
        text = "a header's value is one line of plain ASCII"
        wrong += [
            refusal((name,), text)
            for name, value in headers.items()
            if not isinstance(value, Secret) and not (value.isascii() and value.isprintable())
        ]
        refuse(wrong)
        return headers

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

    @model_validator(mode="after")
    def _secrets_stay_home(self) -> "DestinationConfig":
        # query_url gets headers only where its origin is the endpoint's.
        parts = urllib.parse.urlsplit(self.endpoint)
        in_clear = self.is_receiver and parts.scheme == "http"
        secrets = [name for name, value in self.headers.items() if isinstance(value, Secret)]
        if in_clear and secrets and not self.allow_http and not is_loopback(parts.hostname or ""):
            text = (
                f"plain http shows the header {secrets[0]} to everyone on the way: use https, "
                "or set allow_http = true in [destination]"
            )
            refuse([refusal(("endpoint",), text)])
        return self

    @property
    def is_receiver(self) -> bool:
        """Whether it is an OTLP receiver, which is spoken to over the network."""
        return self.protocol in DEFAULT_ENDPOINTS

    @property
    def traces_url(self) -> str:
        """For http/protobuf: where traces are posted to."""
        return traces_url_at(self.endpoint)

    def url_of_trace(self, trace_id: bytes) -> str | None:
        """Where people open that trace; None where trace_url is not set."""
        return self.trace_url.replace("{trace_id}", trace_id.hex()) if self.trace_url else None

    def revealed_headers(self) -> dict[str, str]:
        """The headers as they are to be sent now, names in lower case. Raises ConfigError."""
        return {
            name.lower(): value.reveal() if isinstance(value, Secret) else value for name, value in self.headers.items()
        }


def traces_url_at(endpoint: str) -> str:
    """Where an http/protobuf receiver at `endpoint` takes traces; the same for all ways to write the endpoint."""
    url = endpoint.rstrip("/")
    return url if url.endswith("/traces") else f"{url}/v1/traces"
