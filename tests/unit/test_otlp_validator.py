"""The validator itself: a sound trace passes, and whatever is done to it shows."""

import dataclasses
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from runspan.model import Cost, Usage
from runspan.otlp.encode import encode
from runspan.projection import ProjectionSettings, project
from tests import otlp_validator
from tests.otlp_validator import Rules, faults
from tests.unit.projection_runs import casedev_run, flowyble_run, runtype_run

SETTINGS = ProjectionSettings(source="prod")
SOUND = encode(project(casedev_run(), SETTINGS)).payload
Spoil = Callable[[list[Span]], Any]


def spoiled(spoil: Spoil) -> bytes:
    request = ExportTraceServiceRequest.FromString(SOUND)
    spans = list(request.resource_spans[0].scope_spans[0].spans)
    spoil(spans)
    return request.SerializeToString()


def put(span: Span, key: str, **value: Any) -> None:
    pair = next((pair for pair in span.attributes if pair.key == key), None) or span.attributes.add(key=key)
    pair.value.Clear()
    for name, each in value.items():
        setattr(pair.value, name, each)


@pytest.mark.parametrize("run", [flowyble_run(), runtype_run(), casedev_run()], ids=lambda run: run.ref.platform)
def test_a_sound_trace_has_no_fault(run: Any) -> None:
    assert faults(encode(project(run, SETTINGS)).payload, Rules(resource={"service.name": "prod"})) == []


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda spans: setattr(spans[1], "trace_id", b"\0" * 16), "trace id"),
        (lambda spans: setattr(spans[1], "trace_id", b"\1" * 16), "more than one trace id"),
        (lambda spans: setattr(spans[1], "span_id", b"\1" * 7), "span id is not 8 bytes"),
        (lambda spans: setattr(spans[1], "span_id", spans[2].span_id), "span ids repeat"),
        (lambda spans: setattr(spans[0], "parent_span_id", spans[1].span_id), "the first span has a parent"),
        (lambda spans: setattr(spans[1], "parent_span_id", spans[2].span_id), "its parent does not come before it"),
        (lambda spans: setattr(spans[1], "parent_span_id", b""), "its parent does not come before it"),
        (lambda spans: setattr(spans[1], "end_time_unix_nano", spans[1].start_time_unix_nano), "does not end after"),
        (lambda spans: setattr(spans[0], "start_time_unix_nano", 0), "does not end after"),
        (lambda spans: setattr(spans[0], "end_time_unix_nano", 2**63), "behind 2262"),
        (lambda spans: setattr(spans[1], "start_time_unix_nano", 1), "starts before the root"),
        (lambda spans: setattr(spans[1], "end_time_unix_nano", 2**63 - 1), "ends after the root"),
        (lambda spans: setattr(spans[1], "kind", Span.SPAN_KIND_SERVER), "a kind that we do not emit"),
        (lambda spans: setattr(spans[1], "name", ""), "an unfit name"),
        (lambda spans: setattr(spans[1], "name", "x" * 257), "an unfit name"),
        (lambda spans: setattr(spans[1], "name", "a\0b"), "an unfit name"),
        (lambda spans: setattr(spans[1], "name", "a\nb"), "an unfit name"),
        (lambda spans: setattr(spans[1], "flags", 1), "flags"),
        (lambda spans: setattr(spans[0].status, "message", "x" * 257), "too long a description"),
        (lambda spans: setattr(spans[1].status, "message", "x"), "a description without ERROR"),
        (lambda spans: setattr(spans[1].status, "code", Status.STATUS_CODE_ERROR), "error.type without ERROR"),
        (lambda spans: setattr(spans[1].status, "code", Status.STATUS_CODE_OK), "status OK"),
        (lambda spans: setattr(spans[0].events[0], "time_unix_nano", 1), "outside its span"),
        (lambda spans: setattr(spans[0].events[0], "name", ""), "an unfit name"),
        (lambda spans: [spans[0].events.add(name="e", time_unix_nano=2) for _ in range(1001)], "1004 events"),
        (lambda spans: spans[0].links.add(trace_id=b"\1" * 16), "a link to nothing"),
        (lambda spans: spans[0].links.add(trace_id=spans[0].trace_id, span_id=b"\1" * 8), "a link to its own"),
        (lambda spans: put(spans[1], "runspan.timing", string_value="guessed"), "an unknown timing"),
        (lambda spans: spans[1].ClearField("attributes"), "it does not say whose it is"),
        (lambda spans: spans[1].attributes.add(key="runspan.source"), "comes twice"),
        (lambda spans: put(spans[1], "", string_value="x"), "is no key"),
        (lambda spans: put(spans[1], "x"), "has no value"),
        (lambda spans: put(spans[1], "x", bytes_value=b"x"), "has no value that every backend takes"),
        (lambda spans: put(spans[1], "x", string_value="a\0b"), "holds NUL"),
        (lambda spans: put(spans[1], "x", string_value="x" * 1025), "1025 characters"),
        (lambda spans: put(spans[1], "x", double_value=math.nan), "is not finite"),
        (lambda spans: put(spans[1], "x", double_value=-math.inf), "is not finite"),
        (lambda spans: put(spans[0], "http.response.status_code", string_value="200"), "is int here"),
        (lambda spans: [put(spans[1], f"x{i}", bool_value=True) for i in range(128)], "attributes"),
        (lambda spans: put(spans[1], "gen_ai.tool.call.result", string_value="{}"), "is content"),
        (lambda spans: put(spans[2], "gen_ai.usage.input_tokens", int_value=1), "input_tokens adds up to 901"),
        (lambda spans: put(spans[2], "runspan.cost.usd", double_value=0.001), "runspan.cost.usd adds up to"),
        (lambda spans: put(spans[1], "gen_ai.usage.output_tokens", int_value=-1), "is -1"),
    ],
)
def test_a_fault_is_found(spoil: Spoil, fault: str) -> None:
    assert any(fault in found for found in faults(spoiled(spoil)))


def test_other_rules_are_held_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults(b"\xff") != []
    assert faults(b"") != []
    assert faults(SOUND + SOUND) == ["not one resource with one scope"]
    assert any("resource" in found for found in faults(SOUND, Rules(resource={"service.name": "other"})))
    assert any("bash" in found for found in faults(SOUND, Rules(forbidden=("bash",))))
    assert any("outside a status" in found for found in faults(SOUND, Rules(only_in_descriptions=("bash",))))
    assert faults(SOUND, Rules(only_in_descriptions=("tool failed",))) == []
    monkeypatch.setattr(otlp_validator, "MOST_SPANS", 2)
    assert faults(SOUND) == ["3 spans"]


def test_content_is_allowed_where_it_is_captured_and_must_be_json() -> None:
    def result(text: str) -> bytes:
        return spoiled(lambda spans: put(spans[1], "gen_ai.tool.call.result", string_value=text))

    with_content = Rules(with_content=True, attribute_bytes=2048)
    assert faults(result("[" + "1," * 700 + "1]"), with_content) == []
    assert any("is not JSON" in found for found in faults(result("[NaN]"), with_content))
    assert any("characters" in found for found in faults(result('"' + "x" * 2048 + '"'), with_content))


def test_sums_are_held_to_the_total_alone_where_no_parts_of_it_are_told() -> None:
    run = dataclasses.replace(casedev_run(), usage=Usage(total_tokens=1019), cost=Cost(Decimal("0.0042")))
    request = ExportTraceServiceRequest.FromString(encode(project(run, SETTINGS)).payload)
    call = next(span for span in request.resource_spans[0].scope_spans[0].spans if span.name.startswith("chat"))
    put(call, "gen_ai.usage.input_tokens", int_value=900)
    put(call, "gen_ai.usage.output_tokens", int_value=120)
    assert faults(request.SerializeToString()) == [
        "input and output tokens add up to 1020, which is more than the total"
    ]
