"""A trace as an OTLP request: the same bytes for the same trace, always."""

import hashlib
from collections.abc import Mapping

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from runspan.model import AttributeValue
from runspan.otlp.base import EncodedTrace
from runspan.otlp.trim import trim
from runspan.projection.ids import MAPPING_VERSION
from runspan.trace import Span, Trace

SCOPE_NAME = "runspan"


def encode(trace: Trace, *, trace_bytes: int | None = None) -> EncodedTrace:
    """The trace as a whole `ExportTraceServiceRequest` in protobuf.

    One that is larger than `trace_bytes` is trimmed; what is given back then holds the trace as it was sent.
    """
    payload = _payload(trace)
    if trace_bytes is not None and len(payload) > trace_bytes:
        trace = trim(trace, len(payload) - trace_bytes, lambda span: _span(span, trace.trace_id).ByteSize())
        payload = _payload(trace)
    return EncodedTrace(trace=trace, payload=payload, digest=hashlib.sha256(payload).hexdigest())


def _payload(trace: Trace) -> bytes:
    # Attributes are sorted by key, since the bytes must not depend on the order in which they were gathered.
    request = ExportTraceServiceRequest(
        resource_spans=[
            trace_pb2.ResourceSpans(
                resource=Resource(attributes=_key_values(trace.resource)),
                scope_spans=[
                    trace_pb2.ScopeSpans(
                        scope=InstrumentationScope(name=SCOPE_NAME, version=str(MAPPING_VERSION)),
                        spans=[_span(span, trace.trace_id) for span in trace.spans],
                    )
                ],
            )
        ]
    )
    return request.SerializeToString(deterministic=True)


def _span(span: Span, trace_id: bytes) -> trace_pb2.Span:
    return trace_pb2.Span(
        trace_id=trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_id or b"",
        name=span.name,
        kind=trace_pb2.Span.SpanKind.ValueType(span.kind.value),
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=_key_values(span.attributes),
        events=[
            trace_pb2.Span.Event(
                name=event.name, time_unix_nano=event.time_ns, attributes=_key_values(event.attributes)
            )
            for event in span.events
        ],
        links=[
            trace_pb2.Span.Link(trace_id=link.trace_id, span_id=link.span_id, attributes=_key_values(link.attributes))
            for link in span.links
        ],
        # UNSET is told by leaving the status out.
        status=None
        if span.error is None
        else trace_pb2.Status(code=trace_pb2.Status.STATUS_CODE_ERROR, message=span.error),
    )


def _key_values(attributes: Mapping[str, AttributeValue]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_any_value(value)) for key, value in sorted(attributes.items())]


def _any_value(value: AttributeValue) -> AnyValue:
    match value:
        case bool():  # first, since a bool is an int
            return AnyValue(bool_value=value)
        case str():
            return AnyValue(string_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case tuple():
            return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=item) for item in value]))
