"""All runs of the demo, exported into a real Phoenix and read back by its own APIs."""

import asyncio
import dataclasses
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from runspan.otlp.base import Answer, AnswerKind
from runspan.otlp.encode import encode
from runspan.otlp.http import HttpExporter
from runspan.trace import Span, Trace
from tests.live.demo import demo_into
from tests.live.phoenix import Phoenix
from tests.traces import encoded_trace

DEADLINE_SECONDS = 60
KINDS = {"invoke_agent": "AGENT", "chat": "LLM", "embeddings": "EMBEDDING", "execute_tool": "TOOL"}
"""What Phoenix itself makes of `gen_ai.operation.name`."""


def wait_for(phoenix: Phoenix, traces: Sequence[Trace]) -> Mapping[str, Any]:
    """The traces' spans by id: Phoenix takes a batch first and stores it later."""
    count = sum(len(trace.spans) for trace in traces)
    deadline = time.monotonic() + DEADLINE_SECONDS
    found: list[Any] = []
    while len(found) < count and time.monotonic() < deadline:
        found = [span for trace in traces for span in phoenix.spans([trace.trace_id])]
    assert len(found) == count
    return {span["context"]["span_id"]: span for span in found}


async def send(phoenix: Phoenix, *traces: Trace) -> None:
    exporter = HttpExporter(f"{phoenix.url}/v1/traces")
    for trace in traces:
        assert await exporter.send([encode(trace)]) == Answer(AnswerKind.ACCEPTED)
    await exporter.close()


def differences(trace: Trace, found: Mapping[str, Any]) -> Iterator[str]:
    """What Phoenix shows otherwise than it was projected: `<span>: <field>`."""
    for span in trace.spans:
        shown = found.get(span.span_id.hex())
        if shown is None:
            yield f"{span.name}: span"
            continue
        status = ("UNSET", "") if span.error is None else ("ERROR", span.error)
        for field, wanted, got in (
            ("trace", trace.trace_id.hex(), shown["context"]["trace_id"]),
            ("name", span.name, shown["name"]),
            ("parent", span.parent_id.hex() if span.parent_id else None, shown["parent_id"]),
            ("kind", kind_of(span), shown["span_kind"]),
            ("start", span.start_ns // 1000, microseconds(shown["start_time"])),
            ("end", span.end_ns // 1000, microseconds(shown["end_time"])),
            ("status", status, (shown["status_code"], shown["status_message"])),
            ("events", [event.name for event in span.events], [event["name"] for event in shown["events"]]),
        ):
            # Phoenix counts time in doubles, which have no room for each microsecond since 1970.
            if abs(wanted - got) > 1 if isinstance(wanted, int) else wanted != got:
                yield f"{span.name}: {field}"
        for key, value in expected_attributes(span).items():
            if shown["attributes"].get(key) != value:
                yield f"{span.name}: {key}"


def kind_of(span: Span) -> str:
    said = span.attributes.get("openinference.span.kind")
    return str(said or KINDS.get(str(span.attributes.get("gen_ai.operation.name")), "UNKNOWN"))


def expected_attributes(span: Span) -> Mapping[str, Any]:
    """All that was sent, and what Phoenix makes of the GenAI names where it was not told in OpenInference's."""
    sent = {key: as_shown(value) for key, value in span.attributes.items()}
    sent.pop("openinference.span.kind", None)
    # Parsed, and given back in parts.
    sent.pop("tool.parameters", None)
    made = {
        "session.id": sent.get("gen_ai.conversation.id"),
        "llm.token_count.prompt": sent.get("gen_ai.usage.input_tokens"),
        "llm.token_count.completion": sent.get("gen_ai.usage.output_tokens"),
        "tool.name": sent.get("gen_ai.tool.name"),
        **scalars("tool.parameters", sent.get("gen_ai.tool.call.arguments")),
        **first_message("llm.input_messages", sent.get("gen_ai.input.messages")),
        **first_message("llm.output_messages", sent.get("gen_ai.output.messages")),
    }
    if "gen_ai.system_instructions" in sent:
        made = {key: value for key, value in made.items() if not key.startswith("llm.input_messages")}
    return {key: value for key, value in made.items() if value is not None} | sent


def first_message(prefix: str, document: Any) -> Mapping[str, Any]:
    if document is None:
        return {}
    message = json.loads(document)[0]
    match message["parts"]:
        case [{"type": "text", "content": text}]:
            return {f"{prefix}.0.message.role": message["role"], f"{prefix}.0.message.content": text}
        case _:
            return {f"{prefix}.0.message.role": message["role"]}


def scalars(prefix: str, document: Any) -> Mapping[str, Any]:
    arguments = json.loads(document or "null")
    if not isinstance(arguments, dict):
        return {}
    return {f"{prefix}.{name}": value for name, value in arguments.items() if isinstance(value, str | bool | int)}


def as_shown(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def microseconds(timestamp: str) -> int:
    return round(datetime.fromisoformat(timestamp).timestamp() * 1_000_000)


def tokens_shown(phoenix: Phoenix, trace: Trace) -> tuple[int, int]:
    """What Phoenix adds up under the run's own span."""
    figures = "cumulativeTokenCountPrompt cumulativeTokenCountCompletion"
    query = f'{{ getTraceByOtelId(traceId: "{trace.trace_id.hex()}") {{ rootSpan {{ {figures} }} }} }}'
    root = phoenix.graphql(query)["getTraceByOtelId"]["rootSpan"]
    return int(root["cumulativeTokenCountPrompt"]), int(root["cumulativeTokenCountCompletion"])


@pytest.mark.parametrize("conventions", [None, ["gen_ai"]], ids=["openinference", "gen_ai alone"])
async def test_every_trace_of_the_demo_is_shown_as_it_was_projected(
    phoenix: Phoenix, conventions: Sequence[str] | None, tmp_path: Path
) -> None:
    destination: dict[str, Any] = {"endpoint": phoenix.url, "preset": "phoenix"}
    if conventions:
        destination["conventions"] = conventions
    traces = await demo_into(destination, tmp_path, with_content=True)
    found = await asyncio.to_thread(wait_for, phoenix, traces)

    assert [difference for trace in traces for difference in differences(trace, found)] == []

    shown = Counter(span["span_kind"] for span in found.values())
    assert min(shown["AGENT"], shown["LLM"], shown["TOOL"], shown["EMBEDDING"]) > 0
    assert shown["AGENT"] == len(traces)
    for trace in traces:
        calls = [span.attributes for span in trace.spans if kind_of(span) == "LLM"]
        assert tokens_shown(phoenix, trace) == (
            sum(call.get("gen_ai.usage.input_tokens", 0) for call in calls),
            sum(call.get("gen_ai.usage.output_tokens", 0) for call in calls),
        )
    assert sum(sum(tokens_shown(phoenix, trace)) for trace in traces) > 0

    # The comparison sees what it should: each aspect wrong once.
    trace = next(t for t in traces if t.ref.platform == "elizaos" and len(t.spans) > 2)
    for aspect, wrong in wrong_traces(trace).items():
        assert any(told.endswith(aspect) for told in differences(wrong, found)), aspect


def wrong_traces(trace: Trace) -> dict[str, Trace]:
    """The trace with one thing wrong, by what the comparison should call it."""
    root, child = trace.spans[0], trace.spans[1]

    def with_child(**changes: Any) -> Trace:
        return dataclasses.replace(trace, spans=(root, dataclasses.replace(child, **changes), *trace.spans[2:]))

    def with_attribute(key: str, value: Any) -> Trace:
        return with_child(attributes={**child.attributes, key: value})

    return {
        ": span": with_child(span_id=b"\1" * 8),
        ": name": with_child(name="another"),
        ": parent": with_child(parent_id=b"\1" * 8),
        ": kind": with_attribute("openinference.span.kind", "RERANKER"),
        ": start": with_child(start_ns=child.start_ns - 10_000),
        ": end": with_child(end_ns=child.end_ns + 10_000),
        ": status": with_child(error="another"),
        ": gen_ai.usage.input_tokens": with_attribute("gen_ai.usage.input_tokens", 1),
        ": session.id": with_attribute("session.id", "another"),
    }


async def test_a_trace_that_is_sent_again_is_kept_once(phoenix: Phoenix, tmp_path: Path) -> None:
    traces = await demo_into({"endpoint": phoenix.url, "preset": "phoenix"}, tmp_path)
    before = await asyncio.to_thread(wait_for, phoenix, traces)
    everything = len(phoenix.spans())

    # Whatever was sent before it is stored once the last one is.
    last = encoded_trace("the last of all").trace
    await send(phoenix, *traces, last)
    await asyncio.to_thread(wait_for, phoenix, [last])

    assert len(phoenix.spans()) == everything + len(last.spans)
    assert await asyncio.to_thread(wait_for, phoenix, traces) == before
