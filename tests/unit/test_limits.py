"""Per preset one trace over each of its limits, which is cut or trimmed to what the backend takes, and says so."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from runspan.model import AttributeValue, Content, Message, Step
from runspan.otlp.encode import encode
from runspan.otlp.presets import PRESETS, Preset
from runspan.projection import ProjectionSettings, project
from runspan.projection.conventions import CONVENTIONS
from runspan.trace import Trace
from tests.otlp_validator import CONTENT_PREFIXES, JSON_KEYS, LABEL_BYTES, MOST_EVENTS, Rules, faults
from tests.unit.projection_runs import SETTINGS, chat, note, run_of, tool

presets = pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)


def said(count_bytes: int) -> Content:
    """Content of which each part alone is so large."""
    text = 'ä\\"' * (count_bytes // 4)
    return Content(
        system=text,
        input=tuple(Message(role="user", text=text) for _ in range(3)),
        output=(Message(role="assistant", text=text, reasoning=text),),
        arguments={"list": [text, {"text": text}]},
        result=text,
        text=text,
    )


def labels(count_bytes: int) -> dict[str, AttributeValue]:
    """Attributes that are no content, so large together."""
    return {f"runspan.label_{i}": "x" * LABEL_BYTES for i in range(count_bytes // LABEL_BYTES)}


def made(preset: Preset, *steps: Step, **fields: Any) -> Trace:
    settings = replace(SETTINGS, preset=preset, capture_content=True)
    return project(run_of(*steps, **fields), settings)


def sound(payload: bytes, preset: Preset) -> list[str]:
    return faults(payload, Rules(attribute_bytes=preset.attribute_bytes, with_content=True))


def texts(payload: bytes) -> Iterator[tuple[str, str]]:
    """Every attribute that is a text, on any span."""
    (resource,) = ExportTraceServiceRequest.FromString(payload).resource_spans
    for span in resource.scope_spans[0].spans:
        for pair in span.attributes:
            if pair.value.WhichOneof("value") == "string_value":
                yield pair.key, pair.value.string_value


def trimmed(trace: Trace) -> str:
    return str(trace.root.attributes.get("runspan.trimmed"))


@presets
def test_no_attribute_is_longer_than_the_backend_keeps_whole(preset: Preset) -> None:
    preset = replace(preset, conventions=tuple(CONVENTIONS))
    content = said(2 * preset.attribute_bytes)
    encoded = encode(made(preset, chat(content=content), tool(content=content), content=content))
    assert sound(encoded.payload, preset) == []
    lengths = {key: len(text.encode()) for key, text in texts(encoded.payload)}
    assert max(lengths.values()) <= preset.attribute_bytes
    assert lengths["gen_ai.input.messages"] > 0.9 * preset.attribute_bytes
    assert JSON_KEYS - {"langfuse.observation.usage_details", "langfuse.observation.cost_details"} <= lengths.keys()
    assert any(key.startswith(CONTENT_PREFIXES) for key in lengths)
    for key, text in texts(encoded.payload):
        if key in JSON_KEYS:
            json.loads(text)
    assert all(span.attributes["runspan.content.cut"] is True for span in encoded.trace.spans)


@presets
def test_of_a_trace_that_is_too_large_the_largest_content_goes_first(preset: Preset) -> None:
    big, small = said(preset.attribute_bytes // 4), Content(input=(Message(role="user", text="small"),))
    per_span = len(encode(made(preset, tool(content=big))).payload)
    count = 2 * preset.trace_bytes // per_span
    trace = made(
        preset, *(tool(str(i), content=big) for i in range(count)), *(chat(str(i), content=small) for i in range(9))
    )
    assert len(encode(trace).payload) > preset.trace_bytes

    encoded = encode(trace, trace_bytes=preset.trace_bytes)

    assert sound(encoded.payload, preset) == []
    assert 0.8 * preset.trace_bytes < len(encoded.payload) <= preset.trace_bytes
    spans = encoded.trace.spans
    emptied = [span for span in spans if span.attributes.get("runspan.content.cut") and len(span.attributes) < 10]
    assert len(spans) == count + 10
    assert f"without the content of {len(emptied)} of {len(spans)} spans" in trimmed(encoded.trace)
    assert [json.loads(str(span.attributes["gen_ai.input.messages"]))[0]["parts"] for span in spans[-9:]] == [
        [{"type": "text", "content": "small"}]
    ] * 9
    assert encode(trace, trace_bytes=preset.trace_bytes).digest == encoded.digest


@presets
def test_of_a_trace_that_is_too_large_without_content_the_last_steps_go(preset: Preset) -> None:
    count = 500
    label = labels(2 * preset.trace_bytes // count)
    trace = made(preset, *(tool(str(i), attributes=label, content=said(100)) for i in range(count)))

    encoded = encode(trace, trace_bytes=preset.trace_bytes)

    assert sound(encoded.payload, preset) == []
    assert 0.9 * preset.trace_bytes < len(encoded.payload) <= preset.trace_bytes
    kept = len(encoded.trace.spans)
    assert [span.span_id for span in encoded.trace.spans] == [span.span_id for span in trace.spans[:kept]]
    assert f"the content of {kept - 1} of {count + 1} spans" in trimmed(encoded.trace)
    assert f"the last {count + 1 - kept} of {count + 1} spans" in trimmed(encoded.trace)


@presets
def test_of_a_root_that_is_too_large_the_last_events_go(preset: Preset) -> None:
    label = labels(2 * preset.trace_bytes // MOST_EVENTS)
    trace = made(preset, *(note(f"n{i}", attributes=label) for i in range(MOST_EVENTS)), tool())

    encoded = encode(trace, trace_bytes=preset.trace_bytes)

    assert sound(encoded.payload, preset) == []
    assert 0.9 * preset.trace_bytes < len(encoded.payload) <= preset.trace_bytes
    events = encoded.trace.root.events
    assert events == trace.root.events[: len(events)]
    assert f"the last 1 of 2 spans, the last {MOST_EVENTS - len(events)} of {MOST_EVENTS} events" in trimmed(
        encoded.trace
    )


def test_a_trace_that_fits_is_sent_as_it_is() -> None:
    trace = project(run_of(chat()), ProjectionSettings(source="s"))
    whole = encode(trace)
    assert encode(trace, trace_bytes=len(whole.payload)) == whole
    assert "runspan.trimmed" not in trace.root.attributes
