"""What we know of each backend, as one table: the next backend is a row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One backend's limits and habits, with the settings it is installed with."""

    name: str
    attribute_bytes: int
    """No string attribute is longer than this in UTF-8: what the backend keeps whole, or else our own ceiling."""
    trace_bytes: int
    """The largest trace that it takes and shows, as an OTLP request before compression."""
    conventions: tuple[str, ...] = ("gen_ai",)
    """Which names the attributes follow, beside our own."""
    max_span_age_seconds: int | None = None
    """Spans older than this are taken but not found again; None where no such rule is known."""
    age_advice: str = ""
    """What to change in the backend to have it show older ones."""
    collapses_repeats: Literal["at write", "at read", "not at all", "unknown"] = "unknown"
    """Whether a trace that is sent twice, byte for byte, is shown once."""


_MIB = 1024 * 1024
_HOUR = 3600
_GRPC_MESSAGE_BYTES = 4 * _MIB
"""What a gRPC server takes unless it is told otherwise."""

GENERIC = Preset(
    name="generic",
    attribute_bytes=32 * 1024,
    trace_bytes=4 * _MIB,
)

PRESETS = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            GENERIC,
            Preset(
                name="jaeger",
                attribute_bytes=32 * 1024,
                trace_bytes=20 * _MIB,  # its receiver is the Collector's: max_request_body_size
                max_span_age_seconds=72 * _HOUR,  # Elasticsearch max_span_age: older traces do not open by id
                age_advice=(
                    "with Elasticsearch or OpenSearch raise max_span_age in Jaeger's storage (or use rollover aliases) "
                    "and let the index cleaner spare those days; other storages have no such limit"
                ),
                collapses_repeats="at read",
            ),
            Preset(
                name="tempo",
                attribute_bytes=2048,  # max_attribute_bytes: longer values are cut in the middle of their JSON
                trace_bytes=5_000_000,  # max_bytes_per_trace: the rest is dropped after a success reply
                max_span_age_seconds=168 * _HOUR,  # the widest window that search allows
                age_advice=(
                    "raise query_frontend.search.max_duration, and during the import also "
                    "storage.trace.wal.ingestion_time_range_slack, or search finds them only by the time of the import"
                ),
                collapses_repeats="at write",
            ),
            Preset(
                name="phoenix",
                attribute_bytes=128 * 1024,
                trace_bytes=4 * _MIB,
                conventions=("gen_ai", "openinference"),
                collapses_repeats="at write",  # a span id that is known is ignored
            ),
            Preset(
                name="langfuse",
                attribute_bytes=128 * 1024,
                trace_bytes=4 * _MIB,  # a single span is logged as oversized from 9.5 MB
                conventions=("gen_ai", "langfuse"),
                collapses_repeats="not at all",
            ),
        )
    }
)
"""Every preset by its name in the configuration."""


def preset_for(name: str, *, protocol: str, conventions: Sequence[str] | None = None) -> Preset:
    """The preset as a destination uses it.

    gRPC takes no larger messages, whatever the backend takes over HTTP. `conventions`, where given, are those that the
    configuration names instead; `gen_ai` always leads them.
    """
    preset = PRESETS[name]
    if protocol == "grpc":
        preset = replace(preset, trace_bytes=min(preset.trace_bytes, _GRPC_MESSAGE_BYTES))
    if conventions is not None:
        preset = replace(preset, conventions=tuple(dict.fromkeys(("gen_ai", *conventions))))
    return preset
