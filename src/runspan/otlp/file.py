"""A file of OTLP JSON lines, as the Collector's otlpjsonfile receiver reads it: one `ExportTraceServiceRequest` a line.

A trace is acknowledged when its lines are on the disk. Several processes may append to one file, and it may be
renamed under us (log rotation): it is opened and locked anew for each request.
"""

import asyncio
import base64
import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from runspan.errors import DeliveryRefused
from runspan.otlp.base import Answer, AnswerKind, EncodedTrace, Exporter

MAX_LINE_BYTES = 1_000_000
"""The Collector's file readers cut lines at 1 MiB (`max_log_size`). A longer trace takes several lines."""

_BEGINNING = b'{"resource'
"""Of each line, also of those of other signals that somebody else may append."""
_ID_KEYS = ("traceId", "spanId", "parentSpanId")
_COMES_BACK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOLCK})


class FileExporter(Exporter):
    """Appends to `path`, which is created for its owner alone (0600) where it is missing."""

    max_request_bytes = 4_000_000

    def __init__(self, path: Path) -> None:
        self._path = path

    async def send(self, traces: Sequence[EncodedTrace]) -> Answer:
        """Append all traces' lines and wait until they are on the disk."""
        return await asyncio.to_thread(self._append, traces)

    def _append(self, traces: Sequence[EncodedTrace]) -> Answer:
        data = b"".join(line for trace in traces for line in otlp_json_lines(trace.payload))
        try:
            new = not self._path.exists()
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if not _is_ours(fd):
                    return Answer(AnswerKind.WRONG, _not_ours(self._path))
                _append_whole(fd, data)
            finally:
                os.close(fd)
            if new:
                _sync_directory(self._path.parent)
        except OSError as error:
            kind = AnswerKind.RETRY if error.errno in _COMES_BACK else AnswerKind.WRONG
            return Answer(kind, f"cannot write {self._path}: {error.strerror}")
        return Answer(AnswerKind.ACCEPTED)


def writable_file(path: Path) -> str:
    """That traces can be written to a file, in words. Raises DeliveryRefused where they cannot."""
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        return _creatable_file(path)
    except OSError as error:
        raise DeliveryRefused(f"{path} cannot be written: {error.strerror}") from None
    if not (stat.S_ISREG(kind) or stat.S_ISCHR(kind)):
        raise DeliveryRefused(f"{path} is no file: write the path of one")
    # It is read as well: a line that was cut off is looked for at its end.
    if not os.access(path, os.R_OK | os.W_OK):
        raise DeliveryRefused(f"{path} cannot be read and written by this user")
    with path.open("rb", buffering=0) as file:
        if not _is_ours(file.fileno()):
            raise DeliveryRefused(_not_ours(path))
    return f"{path} can be written"


def _creatable_file(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        raise DeliveryRefused(f"{path} cannot be created: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DeliveryRefused(f"{path} does not exist, and this user cannot create it in {folder}")
    return f"{path} can be written"


def otlp_json(payload: bytes) -> dict[str, Any]:
    """A protobuf `ExportTraceServiceRequest` in OTLP/JSON: hex ids, 64-bit numbers as text, enums as numbers."""
    return _as_json(ExportTraceServiceRequest.FromString(payload))


def otlp_json_lines(payload: bytes, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    """A request as lines shorter than `max_line_bytes`, its spans shared among them; a longer span has its own line."""
    return _lines(ExportTraceServiceRequest.FromString(payload), max_line_bytes)


def _lines(request: ExportTraceServiceRequest, max_line_bytes: int) -> Iterator[bytes]:
    # JSON is longer than protobuf, and slow to make: what is too long already need not be made.
    halves = _halves(request) if request.ByteSize() > max_line_bytes else ()
    if not halves:
        line = json.dumps(_as_json(request), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        halves = _halves(request) if len(line) > max_line_bytes else ()
        if not halves:
            yield line
    for half in halves:
        yield from _lines(half, max_line_bytes)


def _halves(request: ExportTraceServiceRequest) -> tuple[ExportTraceServiceRequest, ...]:
    """The request as two with half of the spans each, or nothing where it has only one span."""
    total = sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
    if total < 2:
        return ()
    halves = (ExportTraceServiceRequest(), ExportTraceServiceRequest())
    for half, keep in zip(halves, (range(total // 2), range(total // 2, total)), strict=True):
        place = 0
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                spans = [span for index, span in enumerate(scope.spans, place) if index in keep]
                place += len(scope.spans)
                if spans:
                    part = half.resource_spans.add(resource=resource.resource, schema_url=resource.schema_url)
                    part.scope_spans.add(scope=scope.scope, schema_url=scope.schema_url, spans=spans)
    return halves


def _as_json(request: ExportTraceServiceRequest) -> dict[str, Any]:
    tree: dict[str, Any] = json_format.MessageToDict(request, use_integers_for_enums=True)
    for resource in tree.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                for ids in (span, *span.get("links", ())):
                    for key in _ID_KEYS:
                        # Protobuf's own JSON has bytes in base64; OTLP/JSON has ids in hex.
                        if key in ids:
                            ids[key] = base64.b64decode(ids[key]).hex()
    return tree


def _is_ours(fd: int) -> bool:
    """Whether a file holds OTLP JSON lines, by its beginning: a slip in the configuration must destroy no other."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return True
    head = os.pread(fd, len(_BEGINNING), 0)
    return head == _BEGINNING[: len(head)]


def _not_ours(path: Path) -> str:
    return f"{path} holds something else than OTLP JSON lines: write the path of another file"


def _append_whole(fd: int, data: bytes) -> None:
    """Append all of `data` and sync it, or leave the file as long as it was. A torn last line is cut first."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    size = _cut_torn_line(fd)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        _sync(fd)
    except OSError:
        # Where even that fails, the next writer cuts the torn line.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, size)
        raise


def _sync(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        # A device such as /dev/null has nothing that could be synced.
        if error.errno != errno.EINVAL or not stat.S_ISCHR(os.fstat(fd).st_mode):
            raise


def _cut_torn_line(fd: int) -> int:
    """Cut what a writer that died in mid-line left behind its last newline; the size in bytes that remains."""
    size = end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(fd, end)
    return end


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
