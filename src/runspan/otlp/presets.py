"""What we know of each backend, as one table: the next backend is a row."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One backend's limits and habits, with the settings it is installed with."""

    name: str
    attribute_bytes: int
    """No string attribute is longer than this in UTF-8: what the backend keeps whole, or else our own ceiling."""
    trace_bytes: int
    """The largest trace that it takes and shows."""
    conventions: tuple[str, ...] = ("gen_ai",)
    """Which names the attributes follow, beside our own."""
    max_span_age_seconds: int | None = None
    """Spans older than this are taken but not found again; None where no such rule is known."""
    collapses_repeats: Literal["at write", "at read", "not at all", "unknown"] = "unknown"
    """Whether a trace that is sent twice, byte for byte, is shown once."""


_MIB = 1024 * 1024
_HOUR = 3600

GENERIC = Preset(
    name="generic",
    attribute_bytes=32 * 1024,
    trace_bytes=4 * _MIB,  # what a gRPC server takes unless it is told otherwise
)

PRESETS = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            GENERIC,
            Preset(
                name="jaeger",
                attribute_bytes=32 * 1024,
                trace_bytes=4 * _MIB,  # its receiver is the Collector's: 4 MiB over gRPC, 20 MiB over HTTP
                max_span_age_seconds=72 * _HOUR,  # Elasticsearch max_span_age: older traces do not open by id
                collapses_repeats="at read",
            ),
            Preset(
                name="tempo",
                attribute_bytes=2048,  # max_attribute_bytes: longer values are cut in the middle of their JSON
                trace_bytes=5_000_000,  # max_bytes_per_trace: the rest is dropped after a success reply
                max_span_age_seconds=168 * _HOUR,  # the widest window that search allows
                collapses_repeats="at write",
            ),
            Preset(
                name="phoenix",
                attribute_bytes=128 * 1024,
                trace_bytes=4 * _MIB,
                collapses_repeats="at write",  # a span id that is known is ignored
            ),
            Preset(
                name="langfuse",
                attribute_bytes=128 * 1024,
                trace_bytes=4 * _MIB,  # a single span is logged as oversized from 9.5 MB
                collapses_repeats="not at all",
            ),
        )
    }
)
"""Every preset by its name in the configuration."""
