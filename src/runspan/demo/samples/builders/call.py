"""What an agent did, told the same way for every platform, and what all builders make of a run's key and times."""

import hashlib
import uuid
from dataclasses import dataclass, field
from typing import Any

from runspan.demo.world import SECOND_NS, Json

NAMESPACE = uuid.UUID("5c0f4a52-7b1e-4c58-9e64-2f6d1a3b9c07")
"""Of all ids that are UUIDs."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call (elizaOS: an action) and the thought that led to it. `ms` None: a fair share of the run."""

    tool: str
    arguments: Json = field(default_factory=dict[str, Any])
    result: Any = None
    thought: str = ""
    ms: int | None = None
    error: str | None = None


def instants(created_at_ns: int, queue_seconds: float | None, seconds: float | None) -> tuple[int | None, int | None]:
    """When a run starts and ends, in nanoseconds since the epoch; None where it does not."""
    started_ns = None if queue_seconds is None else created_at_ns + int(queue_seconds * SECOND_NS)
    begin_ns = created_at_ns if started_ns is None else started_ns
    return started_ns, None if seconds is None else begin_ns + int(seconds * SECOND_NS)


def call_ms(call: Call, seconds: float | None, calls: int) -> int:
    """How long one of so many calls takes, in a run of so many seconds."""
    return call.ms if call.ms is not None else int((seconds or 60) * 1000 / (calls * 3))


def hex_id(platform: str, key: int | str, length: int) -> str:
    """So many hex digits that are the run's own."""
    return hashlib.sha256(f"{platform} {key}".encode()).hexdigest()[:length]
