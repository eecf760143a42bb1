"""OTLP over HTTP, protobuf bodies (OTLP specification 1.11, "OTLP/HTTP")."""

import asyncio
import gzip
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from runspan.errors import ConfigError
from runspan.http import BodyTooLarge, Connection, ConnectionFailed, Reply
from runspan.otlp import response
from runspan.otlp.base import Answer, AnswerKind, EncodedTrace, Exporter
from runspan.otlp.tls import NO_FILES, TlsFiles
from runspan.waits import retry_after_seconds

_KINDS = {
    400: AnswerKind.BAD_DATA,
    408: AnswerKind.FAILED,
    413: AnswerKind.TOO_LARGE,
    422: AnswerKind.BAD_DATA,  # how Phoenix says that it could not decode a request
    429: AnswerKind.RETRY,
    502: AnswerKind.RETRY,
    503: AnswerKind.RETRY,
    504: AnswerKind.RETRY,
}
_HINTS = {
    401: "check the destination's headers",
    403: "check the destination's headers",
    404: "there is no OTLP receiver: check the endpoint and its path",
    405: "there is no OTLP receiver: check the endpoint and its path",
    415: "it does not take protobuf: check the endpoint",
}
_REDIRECT_HINT = "redirects are not followed: set the endpoint to where it leads"
_NOT_OTLP = "something that is not OTLP: check the endpoint, which may be a web page's"


def kind_of(status: int, words: str = "") -> AnswerKind:
    """What an HTTP status outside 2xx means, with the message of its google.rpc.Status."""
    # The Collector's receiver, and so Jaeger's and Tempo's, has no 413: "http: request body too large".
    if status == 400 and words.endswith("request body too large"):
        return AnswerKind.TOO_LARGE
    return _KINDS.get(status) or (AnswerKind.FAILED if status >= 500 else AnswerKind.WRONG)


class HttpExporter(Exporter):
    """Posts to `traces_url`. `headers` is called for each request, since secrets may be replaced while we run."""

    max_request_bytes = 4_000_000
    """Before compression. Receivers take 20 MiB and more, but a lost acknowledgement repeats the whole request."""

    def __init__(
        self,
        traces_url: str,
        *,
        headers: Callable[[], Mapping[str, str]] = dict,
        compression: Literal["gzip", "none"] = "gzip",
        timeout_seconds: float = 10.0,
        tls: TlsFiles = NO_FILES,
    ) -> None:
        parts = urllib.parse.urlsplit(traces_url)
        self._base_url = f"{parts.scheme}://{parts.netloc}"
        self._path = parts.path
        self._params = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
        self._where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._headers = headers
        self._gzip = compression == "gzip"
        self._timeout_seconds = timeout_seconds
        self._tls = tls
        self._tls_version = tls.version
        self._connection: Connection | None = None

    async def send(self, traces: Sequence[EncodedTrace]) -> Answer:
        """One POST with all traces."""
        body = b"".join(trace.payload for trace in traces)
        framing = {"content-type": "application/x-protobuf"}
        if self._gzip:
            framing["content-encoding"] = "gzip"
            body = await asyncio.to_thread(gzip.compress, body, 6, mtime=0)
        try:
            headers = self._headers()
            connection = await self._connect()
            reply = await connection.request(
                "POST", self._path, params=self._params, headers={**headers, **framing}, content=body
            )
        except ConnectionFailed as failed:
            kind = AnswerKind.WRONG if failed.tls else AnswerKind.RETRY
            return Answer(kind, f"{self._where}: {failed.reason}")
        except BodyTooLarge:
            return Answer(AnswerKind.WRONG, f"{self._where} answered with {_NOT_OTLP}")
        except ConfigError as error:
            return Answer(AnswerKind.WRONG, str(error))
        return self._read(reply, [*headers.values()])

    async def _connect(self) -> Connection:
        if self._connection and self._tls_version != self._tls.version:
            await self.close()
        # Not made before it is needed, so that unreadable certificates are an answer like any other.
        if self._connection is None:
            self._tls_version = self._tls.version
            self._connection = Connection(
                self._base_url,
                timeout_seconds=self._timeout_seconds,
                total_seconds=self._timeout_seconds,
                max_body_bytes=response.MAX_BYTES,
                ca_file=self._tls.ca_file,
                client_cert=self._tls.client_cert,
                client_key=self._tls.client_key,
            )
        return self._connection

    def _read(self, reply: Reply, secrets: Sequence[str]) -> Answer:
        if 200 <= reply.status < 300:
            # A page is a web server's or a portal's, and an empty one would read as everything accepted.
            is_page = _media_type(reply) == "text/html"
            answer = None if is_page else response.read_response(reply.body, secrets)
            return answer or Answer(AnswerKind.WRONG, f"{self._where} answered {reply.status} with {_NOT_OTLP}")
        hint = _REDIRECT_HINT if 300 <= reply.status < 400 else _HINTS.get(reply.status, "")
        words = _words(reply, secrets)
        return Answer(
            kind_of(reply.status, words),
            ": ".join(part for part in (f"{self._where} answered {reply.status}", words, hint) if part),
            retry_after_seconds=retry_after_seconds(reply.headers, time.time()),
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


def _media_type(reply: Reply) -> str:
    return reply.headers.get("content-type", "").partition(";")[0].strip().lower()


def _words(reply: Reply, secrets: Sequence[str]) -> str:
    """The message of the refusal's google.rpc.Status. Any other body may hold anything, so nothing of it is kept."""
    media_type = _media_type(reply)
    if media_type not in ("application/x-protobuf", "application/json"):
        return ""
    status = response.read_status(reply.body, is_json=media_type == "application/json")
    return response.clean(status.message, secrets) if status else ""
