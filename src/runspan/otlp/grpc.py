"""OTLP over gRPC (OTLP specification 1.11, "OTLP/gRPC").

Requests go out as the bytes we already have; grpc's stubs would only serialize them again.
"""

import os
import re
import ssl
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import grpc
import grpc.aio

from runspan.errors import ConfigError
from runspan.http import environment_proxy
from runspan.otlp import response
from runspan.otlp.base import Answer, AnswerKind, EncodedTrace, Exporter
from runspan.otlp.tls import NO_FILES, TlsFiles

MAX_RESPONSE_BYTES = 1024 * 1024
METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

_KINDS = {
    grpc.StatusCode.CANCELLED: AnswerKind.RETRY,
    grpc.StatusCode.DEADLINE_EXCEEDED: AnswerKind.RETRY,
    grpc.StatusCode.ABORTED: AnswerKind.RETRY,
    grpc.StatusCode.OUT_OF_RANGE: AnswerKind.RETRY,
    grpc.StatusCode.UNAVAILABLE: AnswerKind.RETRY,
    grpc.StatusCode.DATA_LOSS: AnswerKind.RETRY,
    grpc.StatusCode.INVALID_ARGUMENT: AnswerKind.BAD_DATA,
    grpc.StatusCode.UNAUTHENTICATED: AnswerKind.WRONG,
    grpc.StatusCode.PERMISSION_DENIED: AnswerKind.WRONG,
    grpc.StatusCode.UNIMPLEMENTED: AnswerKind.WRONG,
}
_HINTS = {
    grpc.StatusCode.UNAUTHENTICATED: "check the destination's headers",
    grpc.StatusCode.PERMISSION_DENIED: "check the destination's headers",
    grpc.StatusCode.UNIMPLEMENTED: "there is no OTLP receiver for traces: check the endpoint",
}
# What servers in C++, Python, Go, Java, Node and Rust say; gRPC has no code for it. Rust's says it with OUT_OF_RANGE.
_TOO_LARGE = re.compile(r"message( after decompression)? (larger than max|exceeds maximum size|length too large)", re.I)
# What gRPC on our side says, with the same code, of an answer that it will not read.
_ANSWER_TOO_LARGE = "CLIENT: Received message larger than max"
# What servers in Go and Python say with INTERNAL of a request that is not a valid message.
_UNREADABLE = re.compile(r"unmarshal|deserializ", re.IGNORECASE)
# What UNAVAILABLE says where no gRPC server is to be had: TLS, a proxy that refuses us, or a web server.
_NOT_LET_IN = re.compile(
    r"handshake failed|verification check failed|proxy returned response code 4|http1\.x server|expected SETTINGS",
    re.IGNORECASE,
)

_CHANNEL_OPTIONS = [
    # When to try again is decided by `delivery`; by default a channel waits up to two minutes by itself, in which
    # every request fails at once, whether or not the destination is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Else a new channel would be given the connection of the one before.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    ("grpc.primary_user_agent", "runspan"),
]


def kind_of(code: grpc.StatusCode, details: str, *, asked_to_wait: bool) -> AnswerKind:
    """What a gRPC status means; `asked_to_wait`: it carries a RetryInfo.

    RESOURCE_EXHAUSTED without a RetryInfo must not simply be retried, says the specification: the message is larger
    than the server takes, or it has no room and does not know until when. The second is FAILED: still due, but slower.
    """
    if code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE) and _TOO_LARGE.search(details):
        return AnswerKind.TOO_LARGE
    if code is grpc.StatusCode.INTERNAL and _UNREADABLE.search(details):
        return AnswerKind.BAD_DATA
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and asked_to_wait:
        return AnswerKind.RETRY
    if code is grpc.StatusCode.UNAVAILABLE and _NOT_LET_IN.search(details):
        return AnswerKind.WRONG
    return _KINDS.get(code, AnswerKind.FAILED)


class GrpcExporter(Exporter):
    """Calls `TraceService.Export` at `endpoint`, a URL: `https` speaks TLS, `http` does not.

    Without a port, https means 443 and http OTLP's own 4317. `headers` is called for each request and goes out as
    metadata, so its names must be lower-case. Proxies come from the environment, as for HTTP.
    """

    max_request_bytes = 4_000_000
    """Servers take 4 MiB unless they were told otherwise."""

    def __init__(
        self,
        endpoint: str,
        *,
        headers: Callable[[], Mapping[str, str]] = dict,
        compression: Literal["gzip", "none"] = "gzip",
        timeout_seconds: float = 10.0,
        tls: TlsFiles = NO_FILES,
    ) -> None:
        self._url = urllib.parse.urlsplit(endpoint)
        host = self._url.hostname or ""
        port = self._url.port or (443 if self._url.scheme == "https" else 4317)
        self._target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._not_otlp = f"{self._target} answered with something that is not OTLP"
        self._headers = headers
        self._compression = grpc.Compression.Gzip if compression == "gzip" else grpc.Compression.NoCompression
        self._timeout_seconds = timeout_seconds
        self._tls = tls
        self._tls_version = tls.version
        self._channel: grpc.aio.Channel | None = None

    async def send(self, traces: Sequence[EncodedTrace]) -> Answer:
        """One Export call with all traces."""
        try:
            headers = self._headers()
            channel = await self._connect()
            export: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        except (ConfigError, ssl.SSLError) as error:
            return Answer(AnswerKind.WRONG, str(error))
        except OSError as error:
            return Answer(AnswerKind.WRONG, f"cannot read {error.filename}: {error.strerror}")
        secrets = [*headers.values()]
        try:
            body = await export(
                b"".join(trace.payload for trace in traces),
                timeout=self._timeout_seconds,
                metadata=tuple(headers.items()),
                compression=self._compression,
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                # What lies between may have forgotten the connection without a word; gRPC would use it for ever.
                await self.close()
            return self._read_error(error, secrets)
        except Exception as error:
            # What gRPC cannot even send, such as a header's value; its words would repeat it.
            reason = f"{self._target}: the request cannot be made ({type(error).__name__}): check destination.headers"
            return Answer(AnswerKind.WRONG, reason)
        answer = response.read_response(body, secrets)
        return answer or Answer(AnswerKind.WRONG, self._not_otlp)

    async def _connect(self) -> grpc.aio.Channel:
        if self._channel and self._tls_version != self._tls.version:
            await self.close()
        if self._channel is None:
            self._tls_version = self._tls.version
            proxy = environment_proxy(self._url.geturl())
            options = [*_CHANNEL_OPTIONS, ("grpc.http_proxy", proxy) if proxy else ("grpc.enable_http_proxy", 0)]
            if self._url.scheme == "https":
                self._channel = grpc.aio.secure_channel(self._target, self._credentials(), options=options)
            else:
                self._channel = grpc.aio.insecure_channel(self._target, options=options)
        return self._channel

    def _credentials(self) -> grpc.ChannelCredentials:
        # grpc brings its own list of authorities and knows nothing of SSL_CERT_FILE.
        from_environment = os.environ.get("SSL_CERT_FILE")
        ca_file = self._tls.ca_file or (Path(from_environment) if from_environment else None)
        key_file = self._tls.client_key or self._tls.client_cert
        return grpc.ssl_channel_credentials(
            root_certificates=ca_file.read_bytes() if ca_file else None,
            private_key=key_file.read_bytes() if key_file else None,
            certificate_chain=self._tls.client_cert.read_bytes() if self._tls.client_cert else None,
        )

    def _read_error(self, error: grpc.aio.AioRpcError, secrets: Sequence[str]) -> Answer:
        details = error.details() or ""
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and _ANSWER_TOO_LARGE in details:
            return Answer(AnswerKind.WRONG, self._not_otlp)
        delay_seconds = _retry_delay_seconds(error)
        words = response.clean(details, secrets)
        hint = _HINTS.get(error.code(), "")
        return Answer(
            kind_of(error.code(), details, asked_to_wait=delay_seconds is not None),
            ": ".join(part for part in (f"{self._target} answered {error.code().name}", words, hint) if part),
            retry_after_seconds=delay_seconds,
        )

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None


def _retry_delay_seconds(error: grpc.aio.AioRpcError) -> float | None:
    """The RetryInfo of the google.rpc.Status that gRPC carries in the trailer `grpc-status-details-bin`."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            status = response.read_status(value, is_json=False)
            return response.retry_delay_seconds(status) if status else None
    return None
