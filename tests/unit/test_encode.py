"""The bytes of a trace: the same everywhere, and what OTLP's own messages read back."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from runspan.model import Run
from runspan.otlp.encode import encode
from runspan.projection import MAPPING_VERSION, ProjectionSettings, project
from runspan.trace import Link, Span, SpanEvent, SpanKind, Trace
from tests.unit.projection_runs import casedev_run, elizaos_run, flowyble_run, runtype_run

RUNS = [flowyble_run(), runtype_run(), elizaos_run(), casedev_run()]
SETTINGS = ProjectionSettings(source="prod", service_namespace="team")


def parsed(payload: bytes) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(payload)


def value_of(value: AnyValue) -> Any:
    if value.HasField("array_value"):
        return tuple(item.string_value for item in value.array_value.values)
    return getattr(value, value.WhichOneof("value") or "")


def attributes_of(message: Any) -> dict[str, Any]:
    keys = [pair.key for pair in message.attributes]
    assert len(keys) == len(set(keys)), "keys are unique"
    return {pair.key: value_of(pair.value) for pair in message.attributes}


def read_back(message: trace_pb2.Span) -> Span:
    return Span(
        span_id=message.span_id,
        parent_id=message.parent_span_id or None,
        name=message.name,
        kind=SpanKind(message.kind),
        start_ns=message.start_time_unix_nano,
        end_ns=message.end_time_unix_nano,
        attributes=attributes_of(message),
        events=tuple(SpanEvent(e.name, e.time_unix_nano, attributes_of(e)) for e in message.events),
        links=tuple(Link(each.trace_id, each.span_id, attributes_of(each)) for each in message.links),
        error=message.status.message if message.HasField("status") else None,
    )


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.ref.platform)
def test_otlp_reads_back_what_was_projected(run: Run) -> None:
    trace = project(run, SETTINGS)
    (resource_spans,) = parsed(encode(trace).payload).resource_spans
    (scope_spans,) = resource_spans.scope_spans
    assert attributes_of(resource_spans.resource) == trace.resource
    assert (scope_spans.scope.name, scope_spans.scope.version) == ("runspan", str(MAPPING_VERSION))
    assert tuple(read_back(span) for span in scope_spans.spans) == trace.spans
    assert {span.trace_id for span in scope_spans.spans} == {trace.trace_id}
    for span in scope_spans.spans:
        expected = trace_pb2.Status.STATUS_CODE_ERROR if span.HasField("status") else 0
        assert span.status.code == expected


def test_every_type_of_value_keeps_its_type() -> None:
    values: dict[str, Any] = {
        "bool": True,
        "int": 1,
        "float": 1.0,
        "text": "ä",
        "list": ("a", "b"),
        "empty": (),
        "least": -(2**63),
    }
    trace = project(replace(flowyble_run(), attributes=values), SETTINGS)
    (root, *_) = parsed(encode(trace).payload).resource_spans[0].scope_spans[0].spans
    shown = attributes_of(root)
    assert {key: (shown[key], type(shown[key])) for key in values} == {
        key: (value, type(value)) for key, value in values.items()
    }


def test_the_order_in_which_attributes_were_gathered_changes_no_byte() -> None:
    trace = project(flowyble_run(), SETTINGS)

    def turned(trace: Trace) -> Trace:
        spans = (replace(s, attributes=dict(reversed(s.attributes.items()))) for s in trace.spans)
        return replace(trace, spans=tuple(spans), resource=dict(reversed(trace.resource.items())))

    assert encode(turned(trace)).payload == encode(trace).payload


def test_the_digest_is_that_of_the_bytes() -> None:
    encoded = encode(project(flowyble_run(), SETTINGS))
    assert encoded.digest == hashlib.sha256(encoded.payload).hexdigest()
    assert encoded.digest != encode(project(runtype_run(), SETTINGS)).digest


def test_requests_can_be_concatenated() -> None:
    encoded = [encode(project(run, SETTINGS)) for run in RUNS]
    batch = parsed(b"".join(each.payload for each in encoded))
    assert len(batch.resource_spans) == len(RUNS)
    assert [r.scope_spans[0].spans[0].trace_id for r in batch.resource_spans] == [e.trace.trace_id for e in encoded]


DIGESTS = """
from tests.unit.test_encode import RUNS, SETTINGS, encode, project
print(*(encode(project(run, SETTINGS)).digest for run in RUNS))
"""


@pytest.mark.parametrize("seed", ["0", "1"])
def test_another_process_on_another_day_in_another_place_makes_the_same_bytes(seed: str) -> None:
    environment = {
        **os.environ,
        "PYTHONHASHSEED": seed,
        "TZ": "Asia/Kathmandu",
        "OTEL_RESOURCE_ATTRIBUTES": "host.name=elsewhere",
        "OTEL_SERVICE_NAME": "elsewhere",
    }
    printed = subprocess.run(
        [sys.executable, "-c", DIGESTS], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert printed.stdout.split() == [encode(project(run, SETTINGS)).digest for run in RUNS]
