"""Any OpenTelemetry SDK `SpanExporter` as a destination, found by its entry point.

The exporter is configured by its own environment variables. It tells success from failure and nothing more, so
partial success and the reason of a failure stay its secret: `http/protobuf` and `grpc` say more.
"""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from runspan.errors import ConfigError
from runspan.otlp.base import Answer, AnswerKind, EncodedTrace, Exporter
from runspan.otlp.encode import SCOPE_NAME
from runspan.projection.ids import MAPPING_VERSION
from runspan.secrets import conceal
from runspan.trace import Trace

ENTRY_POINT_GROUP = "opentelemetry_traces_exporter"


class SdkExporter(Exporter):
    """Hands ReadableSpans to a SpanExporter, in a thread of its own: exporters block, and are not made to be shared."""

    max_request_bytes = 4_000_000

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sdk-exporter")

    @classmethod
    def named(cls, name: str) -> "SdkExporter":
        """The installed exporter whose entry point is `name`. Raises ConfigError where it cannot be had."""
        found = entry_points(group=ENTRY_POINT_GROUP, name=name)
        if not found:
            known = ", ".join(sorted(entry_points(group=ENTRY_POINT_GROUP).names))
            raise ConfigError(f"destination: no SDK exporter named {name!r} is installed; there are: {known}")
        # The SDK logs headers that it cannot read.
        for variable, text in os.environ.items():
            if variable.startswith("OTEL_EXPORTER_") and variable.endswith("_HEADERS"):
                for header in text.split(","):
                    conceal(header.strip())
        try:
            return cls(next(iter(found)).load()())
        except Exception as error:
            raise ConfigError(f"destination: the SDK exporter {name!r} cannot be made: {error}") from error

    async def send(self, traces: Sequence[EncodedTrace]) -> Answer:
        """One `export` call with the spans of all traces."""
        spans = [span for trace in traces for span in readable_spans(trace.trace)]
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, self._exporter.export, spans)
        except Exception as error:  # an exporter is foreign code and may raise anything
            return Answer(AnswerKind.FAILED, f"the SDK exporter raised {type(error).__name__}")
        if result is SpanExportResult.SUCCESS:
            return Answer(AnswerKind.ACCEPTED)
        return Answer(AnswerKind.RETRY, "the SDK exporter answered FAILURE; its own log says why")

    async def close(self) -> None:
        """Shut the exporter down."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._exporter.shutdown)
        self._thread.shutdown()


def readable_spans(trace: Trace) -> list[ReadableSpan]:
    """The trace's spans as the SDK has them, with our ids and nothing that the SDK would add."""
    resource = Resource(trace.resource)
    scope = InstrumentationScope(SCOPE_NAME, str(MAPPING_VERSION))
    return [
        ReadableSpan(
            name=span.name,
            context=_context(trace.trace_id, span.span_id),
            parent=_context(trace.trace_id, span.parent_id) if span.parent_id else None,
            resource=resource,
            attributes=span.attributes,
            events=[Event(event.name, event.attributes, event.time_ns) for event in span.events],
            links=[Link(_context(link.trace_id, link.span_id, is_remote=True), link.attributes) for link in span.links],
            kind=SpanKind[span.kind.name],
            status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error or None),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=scope,
        )
        for span in trace.spans
    ]


def _context(trace_id: bytes, span_id: bytes, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(
        int.from_bytes(trace_id, "big"),
        int.from_bytes(span_id, "big"),
        is_remote,
        # Exporters may leave out what is not marked as sampled.
        TraceFlags(TraceFlags.SAMPLED),
    )
