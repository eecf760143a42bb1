"""An OTLP backend for tests, over real HTTP and gRPC: keeps every span it acknowledges, and answers as it is told.

    with OtlpStore() as store:
        store.answer(refuse(503, retry_after="2"), lost_ack())   # the next two requests; then all is well again
        store.rule = lambda request: refuse(400) if "poison" in request.run_ids else None
        ...                                                      # send to store.http_endpoint or store.grpc_endpoint
        store.wait(lambda: len(store.traces) == 3)
        store.down()                                             # connections refused, until store.up()

What is acknowledged is kept before the answer leaves: no sender has ever seen an answer whose spans are not here.
"""

import contextlib
import gzip
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """One acknowledged copy of a span; ids in hex. `raw` is the span with its resource and scope, to compare bytes."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    message: Span
    raw: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived. `headers` are lower-case; for gRPC the metadata."""

    transport: str
    path: str
    headers: Mapping[str, str]
    wire_bytes: int
    spans: tuple[StoredSpan, ...]

    @property
    def trace_ids(self) -> list[str]:
        """The traces in it, in order of appearance."""
        return list(dict.fromkeys(span.trace_id for span in self.spans))

    @property
    def run_ids(self) -> set[str]:
        """The runs in it, by the attribute that every span carries."""
        return {span.attributes["runspan.run.id"] for span in self.spans if "runspan.run.id" in span.attributes}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the store does with one request: keep it or not, then wait, then answer or break the connection."""

    status: int = 200
    code: grpc.StatusCode = grpc.StatusCode.OK
    words: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """HTTP only: in place of the OTLP body that belongs to the rest."""
    rejected_spans: int = 0
    retry_delay_seconds: float | None = None
    """gRPC only: a RetryInfo."""
    keep: bool = True
    delay_seconds: float = 0.0
    reset: bool = False


def accept() -> Reply:
    """Everything is well."""
    return Reply()


def partial(rejected_spans: int, words: str = "") -> Reply:
    """Partial success (or, with no spans rejected, a warning)."""
    return Reply(rejected_spans=rejected_spans, words=words)


def refuse(status: int, words: str = "", *, retry_after: str | None = None) -> Reply:
    """An HTTP refusal with a google.rpc.Status."""
    headers = {"retry-after": retry_after} if retry_after is not None else {}
    return Reply(status=status, words=words, headers=headers, keep=False)


def rpc_refuse(code: grpc.StatusCode, words: str = "", *, retry_delay_seconds: float | None = None) -> Reply:
    """A gRPC refusal."""
    return Reply(code=code, words=words, retry_delay_seconds=retry_delay_seconds, keep=False)


def page(status: int, text: str = "<!doctype html><html><body>Welcome</body></html>") -> Reply:
    """What a web server would answer."""
    return Reply(status=status, headers={"content-type": "text/html"}, body=text.encode(), keep=False)


def reset() -> Reply:
    """The connection breaks before anything is kept."""
    return Reply(keep=False, reset=True, code=grpc.StatusCode.UNAVAILABLE)


def lost_ack() -> Reply:
    """Everything is kept, but the connection breaks before the answer."""
    return Reply(reset=True, code=grpc.StatusCode.UNAVAILABLE)


def slow(seconds: float, reply: Reply | None = None) -> Reply:
    """The answer takes its time."""
    return replace(reply or Reply(), delay_seconds=seconds)


class OtlpStore:
    """See the module's text. `tls` serves HTTPS; `grpc_credentials` serves gRPC with TLS."""

    def __init__(
        self,
        *,
        with_grpc: bool = False,
        tls: ssl.SSLContext | None = None,
        grpc_credentials: grpc.ServerCredentials | None = None,
        path: str = "/v1/traces",
    ) -> None:
        self.path = path
        self.rule: Callable[[Request], Reply | None] = lambda request: None
        """Asked for each request; None: the next of the queued answers, or accept."""
        self.requests: list[Request] = []
        self.spans: list[StoredSpan] = []
        """Every acknowledged copy, in the order of arrival."""
        self._answers: deque[Reply] = deque()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._with_grpc = with_grpc
        self._tls = tls
        self._grpc_credentials = grpc_credentials
        self._http: _HttpServer | None = None
        self._grpc: grpc.Server | None = None
        self.http_port = self.grpc_port = 0

    # --- what is in it ---

    @property
    def traces(self) -> dict[str, dict[str, list[bytes]]]:
        """Every acknowledged copy's bytes, by trace id and span id (hex)."""
        with self._changed:
            found: dict[str, dict[str, list[bytes]]] = {}
            for span in self.spans:
                found.setdefault(span.trace_id, {}).setdefault(span.span_id, []).append(span.raw)
            return found

    def wait(self, condition: Callable[[], bool], timeout_seconds: float = 10.0) -> None:
        """Return when the condition holds; fails after the timeout."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout_seconds), "the store never saw what was waited for"

    # --- what it does ---

    def answer(self, *replies: Reply) -> None:
        """Queue answers for the next requests."""
        with self._changed:
            self._answers.extend(replies)

    def forget_answers(self) -> int:
        """Let all be well again; how many answers were still queued."""
        with self._changed:
            left = len(self._answers)
            self._answers.clear()
            return left

    def down(self) -> None:
        """Refuse connections and break those that stand. What is stored stays."""
        self._stopping.set()
        if self._http:
            self._http.stop()
            self._http = None
        if self._grpc:
            self._grpc.stop(None).wait()
            self._grpc = None

    def up(self) -> None:
        """Listen, on the same ports as before."""
        self._stopping.clear()
        self._http = _HttpServer(self, self.http_port, self._tls)
        self.http_port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        if self._with_grpc or self._grpc_credentials:
            self._grpc = grpc.server(ThreadPoolExecutor(8))
            self._grpc.add_generic_rpc_handlers((_GrpcHandler(self),))
            address = f"127.0.0.1:{self.grpc_port}"
            if self._grpc_credentials:
                self.grpc_port = self._grpc.add_secure_port(address, self._grpc_credentials)
            else:
                self.grpc_port = self._grpc.add_insecure_port(address)
            self._grpc.start()

    @property
    def http_endpoint(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.http_port}"

    @property
    def grpc_endpoint(self) -> str:
        return f"{'https' if self._grpc_credentials else 'http'}://localhost:{self.grpc_port}"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    # --- between the servers and the store ---

    def receive(self, transport: str, path: str, headers: Mapping[str, str], body: bytes, wire_bytes: int) -> Reply:
        """Keep a request as the answer to it says; the answer is returned when it is time to give it."""
        try:
            spans = _spans(ExportTraceServiceRequest.FromString(body))
        except DecodeError:
            return refuse(400, "this is not protobuf")
        request = Request(transport, path, headers, wire_bytes, spans)
        with self._changed:
            self.requests.append(request)
            reply = self.rule(request) or (self._answers.popleft() if self._answers else Reply())
            if reply.keep:
                self.spans.extend(spans)
            self._changed.notify_all()
        self._stopping.wait(reply.delay_seconds)
        return reply


def _spans(message: ExportTraceServiceRequest) -> tuple[StoredSpan, ...]:
    spans: list[StoredSpan] = []
    for resource_spans in message.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                alone = ExportTraceServiceRequest()
                part = alone.resource_spans.add(resource=resource_spans.resource, schema_url=resource_spans.schema_url)
                part.scope_spans.add(scope=scope_spans.scope, schema_url=scope_spans.schema_url, spans=[span])
                spans.append(
                    StoredSpan(
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_id=span.parent_span_id.hex(),
                        name=span.name,
                        attributes=attributes_of(span.attributes),
                        resource=attributes_of(resource_spans.resource.attributes),
                        message=span,
                        raw=alone.SerializeToString(deterministic=True),
                    )
                )
    return tuple(spans)


def attributes_of(pairs: "list[KeyValue]") -> dict[str, Any]:
    """Attributes as Python values."""
    found: dict[str, Any] = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind) if kind else None
        found[pair.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return found


def _response_body(reply: Reply) -> bytes:
    if reply.words or reply.rejected_spans:
        part = ExportTracePartialSuccess(rejected_spans=reply.rejected_spans, error_message=reply.words)
        return ExportTraceServiceResponse(partial_success=part).SerializeToString()
    return b""


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, store: OtlpStore, port: int, tls: ssl.SSLContext | None) -> None:
        self.store = store
        self._tls = tls
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _HttpHandler)

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self._tls:
            # The handshake follows in the connection's own thread, at its first read.
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or refuses our certificate, is what tests are about."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _HttpServer

    def do_POST(self) -> None:
        wire = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = self.path.partition("?")[0]
        if path != self.server.store.path:
            reply = refuse(404)
        elif headers.get("content-type") != PROTOBUF:
            reply = refuse(415)
        else:
            body = gzip.decompress(wire) if headers.get("content-encoding") == "gzip" else wire
            reply = self.server.store.receive("http", self.path, headers, body, len(wire))
        if reply.reset:
            # Closing with linger 0 sends RST in place of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        body = reply.body
        if body is None:
            body = Status(message=reply.words).SerializeToString() if reply.status != 200 else _response_body(reply)
        self.send_response(reply.status)
        for name, value in {"content-type": PROTOBUF, **reply.headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""


class _GrpcHandler(grpc.GenericRpcHandler):
    def __init__(self, store: OtlpStore) -> None:
        self._store = store

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != "/opentelemetry.proto.collector.trace.v1.TraceService/Export":
            return None
        return grpc.unary_unary_rpc_method_handler(self._export)

    def _export(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        reply = self._store.receive("grpc", "TraceService/Export", metadata, body, len(body))
        if reply.status == 400:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, reply.words)
        if reply.code is grpc.StatusCode.OK:
            return _response_body(reply)
        if reply.retry_delay_seconds is not None:
            info = RetryInfo()
            info.retry_delay.FromMilliseconds(int(reply.retry_delay_seconds * 1000))
            detail = AnyMessage()
            detail.Pack(info)
            status = Status(code=reply.code.value[0], message=reply.words, details=[detail])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(reply.code, reply.words)
        raise AssertionError("abort raises")
