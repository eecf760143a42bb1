"""The contract of a destination: what it is handed, what it may answer, and what becomes of each trace.

An `Exporter` makes one attempt with one request and says plainly what the backend answered. What follows from the
answer (waiting, splitting, bisecting, quarantine) is `delivery`'s business, the same for every protocol.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from runspan.trace import Trace


@dataclass(frozen=True, slots=True)
class EncodedTrace:
    """One trace with its bytes: a whole `ExportTraceServiceRequest` holding this trace alone.

    Protobuf messages of one type can be concatenated, so a batch is the concatenation of its traces' payloads.
    """

    trace: Trace
    payload: bytes
    digest: str
    """SHA-256 of the payload, hex."""


class AnswerKind(StrEnum):
    """What a destination may answer to one request."""

    ACCEPTED = "accepted"
    PARTIAL = "partial"
    """Taken, but some spans were rejected; must never be resent (OTLP specification, partial success)."""
    RETRY = "retry"
    """Come back later: 429, 502, 503, 504, a connection that failed, and the gRPC equivalents."""
    TOO_LARGE = "too_large"
    BAD_DATA = "bad_data"
    """400 or INVALID_ARGUMENT: something in this request, or the destination itself, is wrong."""
    WRONG = "wrong"
    """The destination is not what it should be, or does not let us in: a person must act."""
    FAILED = "failed"
    """Another 5xx, or a gRPC code that promises nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A destination's answer to one request.

    `reason` is short and for people: a status and, for partial success and refusals, the backend's own words cut to
    256 characters. `retry_after_seconds` is what the backend asked for; `rejected_spans` counts for PARTIAL.
    """

    kind: AnswerKind
    reason: str = ""
    retry_after_seconds: float | None = None
    rejected_spans: int = 0


class Exporter(ABC):
    """One destination. Never raises for what a destination does: that is an Answer."""

    max_request_bytes: int
    """Requests are kept below this size; one trace alone may exceed it."""

    @abstractmethod
    async def send(self, traces: Sequence[EncodedTrace]) -> Answer:
        """Send the traces in one request; returns when it is acknowledged or has failed."""

    async def close(self) -> None:
        """Release connections and files."""
        return


class Verdict(StrEnum):
    """What becomes of one trace after delivery."""

    EXPORTED = "exported"
    DOUBTFUL = "doubtful"
    """Exported in a batch of which the backend rejected some spans, without saying whose."""
    DUE = "due"
    """Not delivered; to be sent again."""
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A trace's verdict, with the reason where it is not plain success."""

    verdict: Verdict
    reason: str = ""
    retry_after_seconds: float | None = None
    retryable: bool = False
    """For QUARANTINED: whether `runspan retry` may help without a new mapping."""
