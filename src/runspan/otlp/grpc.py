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
# What servers in C++, Python, Go, Java, Node, .NET and Rust say; gRPC has no code for it. Rust's says it with
# OUT_OF_RANGE. The numbers are part of it: a quota may have a "maximum size" too.
_TOO_LARGE = re.compile(
    r"(received message|message after decompression) larger than max \(?\d|decompressed message larger than max"
    r"|gRPC message exceeds maximum size \d|decompresses to a size larger than \d"
    r"|received message exceeds the maximum configured message size|(?<!encoded )message length too large: found \d",
    re.IGNORECASE,
)
# What our own client says of an answer that passes a limit of ours, with the same code.
_ANSWER_TOO_LARGE = re.compile(r"CLIENT: Received message larger than max|^Stream removed \(received .*metadata size")
# What client and server say alike, of an answer or of a request.
_EITHER_TOO_LARGE = re.compile(r"^Decompressed message larger than max")
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
    ("grpc.primary_user_agent", "runspan"),
    ("grpc.max_receive_message_length", response.MAX_BYTES),
    # Channels of one process share their connections otherwise, and a new one would be given the dead one's.
    ("grpc.use_local_subchannel_pool", 1),
]

UNAVAILABLE_IN_A_ROW = 2
"""After so many a new connection is made. A first one may be a connection that ended, which gRPC makes anew itself."""


def kind_of(code: grpc.StatusCode, details: str, *, asked_to_wait: bool) -> AnswerKind:
    """What a gRPC status means; `asked_to_wait`: it carries a RetryInfo.

    RESOURCE_EXHAUSTED without a RetryInfo must not simply be retried, says the specification: the message is larger
    than the server takes, or it has no room and does not know until when. The second is FAILED: still due, but slower.
    """
    may_be_too_large = code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE) and not asked_to_wait
    if may_be_too_large and _TOO_LARGE.search(details):
        return AnswerKind.TOO_LARGE
    if code is grpc.StatusCode.INTERNAL and _UNREADABLE.search(details):
        return AnswerKind.BAD_DATA
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and asked_to_wait:
        return AnswerKind.RETRY
    if code is grpc.StatusCode.UNAVAILABLE and _NOT_LET_IN.search(details):
        return AnswerKind.WRONG
    return _KINDS.get(code, AnswerKind.FAILED)


def _is_answer_too_large(code: grpc.StatusCode, details: str, request_bytes: int) -> bool:
    """Whether it is the answer that is too large: for us, not our request for the server, which may have taken it.

    Where the words do not tell, a request is not too large as long as it is smaller than the answer must be.
    """
    if code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return False
    in_doubt = request_bytes <= response.MAX_BYTES and _EITHER_TOO_LARGE.search(details)
    return bool(in_doubt or _ANSWER_TOO_LARGE.search(details))


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
        self._headers = headers
        self._compression = grpc.Compression.Gzip if compression == "gzip" else grpc.Compression.NoCompression
        self._timeout_seconds = timeout_seconds
        self._tls = tls
        self._tls_version = tls.version
        self._channel: grpc.aio.Channel | None = None
        self._unavailable_in_a_row = 0

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
        request = b"".join(trace.payload for trace in traces)
        try:
            body = await export(
                request,
                timeout=self._timeout_seconds,
                metadata=tuple(headers.items()),
                compression=self._compression,
            )
        except grpc.aio.AioRpcError as error:
            answer = self._read_error(error, len(request), secrets)
            await self._leave_if_dead(error.code(), answer)
            return answer
        except Exception as error:
            # What gRPC cannot even send, such as a header's value; its words would repeat it.
            reason = f"{self._target}: the request cannot be made ({type(error).__name__}): check destination.headers"
            return Answer(AnswerKind.WRONG, reason)
        self._unavailable_in_a_row = 0
        answer = response.read_response(body, secrets)
        return answer or Answer(AnswerKind.WRONG, f"{self._target} answered with something that is not OTLP")

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

    async def _leave_if_dead(self, code: grpc.StatusCode, answer: Answer) -> None:
        """Leave a channel that gets no answers: gRPC keeps a connection for ever that swallows what is sent on it.

        Also one that is unavailable again and again, since another connection may lead to another server; but not
        where the server itself says when to come back.
        """
        unavailable = code is grpc.StatusCode.UNAVAILABLE and answer.retry_after_seconds is None
        self._unavailable_in_a_row = self._unavailable_in_a_row + 1 if unavailable else 0
        if code is grpc.StatusCode.DEADLINE_EXCEEDED or self._unavailable_in_a_row >= UNAVAILABLE_IN_A_ROW:
            await self.close()

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

    def _read_error(self, error: grpc.aio.AioRpcError, request_bytes: int, secrets: Sequence[str]) -> Answer:
        details = error.details() or ""
        if _is_answer_too_large(error.code(), details, request_bytes):
            return Answer(AnswerKind.WRONG, f"{self._target} answered with something that is not OTLP: it is too large")
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
            self._unavailable_in_a_row = 0


def _retry_delay_seconds(error: grpc.aio.AioRpcError) -> float | None:
    """The RetryInfo of the google.rpc.Status that gRPC carries in the trailer `grpc-status-details-bin`."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            status = response.read_status(value, is_json=False)
            return response.retry_delay_seconds(status) if status else None
    return None
