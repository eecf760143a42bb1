"""Ids that anyone can compute again: of a run's trace, and of each span in it.

An id is a slice of SHA-256 over its parts, each preceded by its length, so that no two lists of parts read alike.
The same run has the same ids on every host, in every process and under every release.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

MAPPING_VERSION = 1
"""The version of the instrumentation scope. It changes only when the spans of an unchanged body would."""

_TAG = "runspan/1"
"""Part of every trace id, and so never to be changed, whatever becomes of the mapping."""


def trace_id(platform: str, tenant: str, run_id: str) -> bytes:
    """The 16 bytes that identify the trace of a run."""
    return _digest(b"", (_TAG, platform, tenant, run_id), 16)


def span_id(trace: bytes, path: Sequence[str]) -> bytes:
    """The 8 bytes that identify a span of the trace with id `trace`; the empty path is the root's."""
    return _digest(trace, path, 8)


def root_span_id(trace: bytes) -> bytes:
    """The id of the root span of the trace with id `trace`."""
    return span_id(trace, ())


class SpanIds:
    """Hands out the span ids of one trace.

    Steps with the same key are told apart by how many of their kind came before, which is the same however the
    platform ordered its rows, because readers put equal rows into one canonical order.
    """

    def __init__(self, trace: bytes) -> None:
        self._trace = trace
        self._seen: Counter[tuple[str, ...]] = Counter()

    def next(self, key: tuple[str, ...]) -> bytes:
        """The id of the next step with this key."""
        ordinal = self._seen[key]
        self._seen[key] += 1
        return span_id(self._trace, (*key, str(ordinal)))


def _digest(prefix: bytes, parts: Sequence[str], size: int) -> bytes:
    digest = hashlib.sha256(prefix)
    for part in parts:
        # A lone surrogate cannot become UTF-8, but two ids that differ in one are still two runs.
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    # All zeros is the one value that OTLP forbids.
    return digest.digest()[:size] if any(digest.digest()[:size]) else b"\0" * (size - 1) + b"\1"
