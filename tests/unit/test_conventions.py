import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from runspan.model import Content, Cost, Message, RunStatus, StepError, StepKind, Usage
from runspan.otlp.presets import PRESETS, preset_for
from runspan.projection import ProjectionSettings
from runspan.projection.conventions.openinference import INPUT_MESSAGES, OUTPUT_MESSAGES
from runspan.trace import Span
from tests.unit.projection_runs import SETTINGS, chat, iteration, note, step, tool, traced

SECRET = "sk-abcdefghijklmnop1234"
USAGE = Usage(input_tokens=100, output_tokens=50, cache_read_tokens=20, cache_write_tokens=10, reasoning_tokens=30)


def settings(preset: str, *, content: bool = False) -> ProjectionSettings:
    return replace(SETTINGS, preset=PRESETS[preset], capture_content=content)


PHOENIX, LANGFUSE = settings("phoenix"), settings("langfuse")
PHOENIX_SAID, LANGFUSE_SAID = settings("phoenix", content=True), settings("langfuse", content=True)


def named(span: Span, *prefixes: str) -> dict[str, Any]:
    """The span's attributes whose names begin so."""
    return {key: value for key, value in span.attributes.items() if key.startswith(prefixes)}


# Which of them


def test_a_presets_conventions_can_be_chosen() -> None:
    assert preset_for("jaeger", protocol="http/protobuf").conventions == ("gen_ai",)
    assert preset_for("phoenix", protocol="http/protobuf").conventions == ("gen_ai", "openinference")
    assert preset_for("phoenix", protocol="http/protobuf", conventions=[]).conventions == ("gen_ai",)
    chosen = preset_for("jaeger", protocol="http/protobuf", conventions=["langfuse", "gen_ai"])
    assert chosen.conventions == ("gen_ai", "langfuse")


def test_over_grpc_no_trace_is_larger_than_a_message() -> None:
    assert preset_for("jaeger", protocol="grpc").trace_bytes == 4 * 2**20
    assert preset_for("jaeger", protocol="http/protobuf").trace_bytes == 20 * 2**20


# GenAI


def test_a_model_call_that_failed_finished_in_error() -> None:
    spans = traced(chat("a", error=StepError("429")), chat("b"), tool(error=StepError("500"))).spans
    assert spans[1].attributes["gen_ai.response.finish_reasons"] == ("error",)
    assert not any("gen_ai.response.finish_reasons" in span.attributes for span in spans[2:])


# OpenInference


def test_spans_have_the_kinds_that_phoenix_shows() -> None:
    trace = traced(
        iteration(1, chat(), tool()),
        step(StepKind.EMBEDDINGS),
        step(StepKind.API_CALL),
        note("evaluator", duration_ns=10**6),
        settings=PHOENIX,
    )
    kinds = [span.attributes["openinference.span.kind"] for span in trace.spans]
    assert kinds == ["AGENT", "CHAIN", "LLM", "TOOL", "EMBEDDING", "CHAIN", "CHAIN"]


def test_a_call_tells_model_tokens_and_dollars() -> None:
    trace = traced(chat(name="m-1", usage=USAGE, cost=Cost(Decimal("0.2"))), settings=PHOENIX)
    assert named(trace.spans[1], "llm.") == {
        "llm.model_name": "m-1",
        "llm.token_count.prompt": 100,
        "llm.token_count.completion": 50,
        "llm.token_count.total": 150,
        "llm.token_count.prompt_details.cache_read": 20,
        "llm.token_count.prompt_details.cache_write": 10,
        "llm.token_count.completion_details.reasoning": 30,
        "llm.cost.total": 0.2,
    }
    assert named(trace.root, "llm.") == {}


def test_the_root_tells_what_no_call_does() -> None:
    trace = traced(chat(), usage=Usage(total_tokens=7), cost=Cost(Decimal(2), "usd"), settings=PHOENIX)
    assert named(trace.root, "llm.") == {"llm.token_count.total": 7, "llm.cost.total": 2.0}
    assert named(trace.spans[1], "llm.") == {}


def test_the_root_tells_parts_where_the_calls_tell_only_totals() -> None:
    total = Usage(input_tokens=60, output_tokens=30, total_tokens=90)
    trace = traced(chat("1", usage=Usage(total_tokens=40)), usage=total, settings=PHOENIX)
    assert named(trace.root, "llm.") == {"llm.token_count.prompt": 60, "llm.token_count.completion": 30}
    assert named(trace.root, "gen_ai.usage.") == {"gen_ai.usage.input_tokens": 60, "gen_ai.usage.output_tokens": 30}
    assert named(trace.spans[1], "llm.") == {"llm.token_count.total": 40}
    assert named(trace.spans[1], "gen_ai.usage.") == {}


def test_what_services_cost_is_told_on_them() -> None:
    trace = traced(step(StepKind.API_CALL, cost=Cost(Decimal("0.3"))), cost=Cost(Decimal("0.3")), settings=PHOENIX)
    assert [named(span, "llm.cost") for span in trace.spans] == [{}, {"llm.cost.total": 0.3}]


@pytest.mark.parametrize("unit", ["credits", "eur"])
def test_only_dollars_are_told_as_costs_that_are_added_up(unit: str) -> None:
    for chosen in (PHOENIX, LANGFUSE):
        trace = traced(chat(cost=Cost(Decimal(1), unit)), cost=Cost(Decimal(1), unit), settings=chosen)
        assert [named(span, "llm.cost", "langfuse.observation.cost") for span in trace.spans] == [{}, {}]


def test_what_credits_are_worth_is_told_in_dollars() -> None:
    chosen = replace(PHOENIX, credit_rate=Decimal("0.01"))
    trace = traced(cost=Cost(Decimal(5), "credits"), settings=chosen)
    assert trace.root.attributes["llm.cost.total"] == 0.05


def test_a_tool_is_named() -> None:
    call = tool(name="search", attributes={"gen_ai.tool.call.id": "tc_1"})
    assert named(traced(call, settings=PHOENIX).spans[1], "tool.") == {"tool.name": "search", "tool.id": "tc_1"}


def test_agent_and_session_are_named() -> None:
    trace = traced(chat(), agent_name="Eliza", conversation_id="room", settings=PHOENIX)
    assert trace.root.attributes["agent.name"] == "Eliza"
    assert [span.attributes["session.id"] for span in trace.spans] == ["room", "room"]


def test_without_capture_no_convention_tells_content() -> None:
    content = Content(input=(Message(role="user", text="said"),), arguments={"a": "said"}, result="said", text="said")
    for preset in PRESETS:
        trace = traced(chat(content=content), tool(content=content), content=content, settings=settings(preset))
        assert "said" not in [value for span in trace.spans for value in span.attributes.values()]
        assert not any(named(span, "input.", "output.", "llm.input", "langfuse.observation.i") for span in trace.spans)


def test_each_message_of_a_call_stands_by_itself() -> None:
    said = Content(
        system="Be brief.",
        input=(Message(role="user", text=f"My key is {SECRET}."),),
        output=(Message(role="assistant", text="Noted.", reasoning="A key."),),
    )
    span = traced(chat(content=said), settings=PHOENIX_SAID).spans[1]
    assert named(span, INPUT_MESSAGES, OUTPUT_MESSAGES) == {
        "llm.input_messages.0.message.role": "system",
        "llm.input_messages.0.message.content": "Be brief.",
        "llm.input_messages.1.message.role": "user",
        "llm.input_messages.1.message.content": "My key is [redacted].",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.contents.0.message_content.type": "reasoning",
        "llm.output_messages.0.message.contents.0.message_content.text": "A key.",
        "llm.output_messages.0.message.contents.1.message_content.type": "text",
        "llm.output_messages.0.message.contents.1.message_content.text": "Noted.",
    }
    assert (span.attributes["input.value"], span.attributes["input.mime_type"]) == (
        "My key is [redacted].",
        "text/plain",
    )
    assert (span.attributes["output.value"], span.attributes["output.mime_type"]) == (
        span.attributes["gen_ai.output.messages"],
        "application/json",
    )


def test_of_very_many_messages_the_newest_stand_by_themselves() -> None:
    messages = tuple(Message(role="user", text=f"message {number}") for number in range(100))
    span = traced(chat(content=Content(input=messages)), settings=PHOENIX_SAID).spans[1]
    assert len(span.attributes) <= 128
    assert span.attributes["llm.input_messages.31.message.content"] == "message 99"
    assert "llm.input_messages.32.message.content" not in span.attributes
    assert len(json.loads(str(span.attributes["gen_ai.input.messages"]))) == 100


def test_a_tools_content_is_told_as_one_reads_it() -> None:
    call = tool(content=Content(arguments={"query": "x", "api_key": "y"}, result="found"))
    span = traced(call, settings=PHOENIX_SAID).spans[1]
    assert named(span, "input.", "output.", "tool.") == {
        "input.value": '{"query":"x","api_key":"[redacted]"}',
        "input.mime_type": "application/json",
        "tool.parameters": '{"query":"x","api_key":"[redacted]"}',
        "output.value": "found",
        "output.mime_type": "text/plain",
    }


def test_events_bear_no_names_of_backends() -> None:
    for chosen in (PHOENIX_SAID, LANGFUSE_SAID):
        issue = note("issue", content=Content(text="It broke."), error=StepError("failed"))
        (event,) = traced(issue, settings=chosen).root.events
        assert event.attributes == {
            "error.type": "failed",
            "runspan.note.text": "It broke.",
            "runspan.timing": "inferred",
        }


# Langfuse


def test_spans_have_the_types_that_langfuse_shows() -> None:
    trace = traced(
        iteration(1, chat(), tool()),
        step(StepKind.EMBEDDINGS),
        step(StepKind.API_CALL),
        note("evaluator", duration_ns=10**6),
        settings=LANGFUSE,
    )
    types = [span.attributes["langfuse.observation.type"] for span in trace.spans]
    assert types == ["agent", "chain", "generation", "tool", "embedding", "span", "span"]


def test_every_token_has_one_name_for_langfuse() -> None:
    span = traced(chat(usage=USAGE, cost=Cost(Decimal("0.2"))), settings=LANGFUSE).spans[1]
    assert json.loads(str(span.attributes["langfuse.observation.usage_details"])) == {
        "input": 70,
        "input_cached_tokens": 20,
        "input_cache_creation": 10,
        "output": 20,
        "output_reasoning_tokens": 30,
        "total": 150,
    }
    assert json.loads(str(span.attributes["langfuse.observation.cost_details"])) == {"total": 0.2}


def test_parts_that_are_more_than_their_whole_are_not_told() -> None:
    usage = Usage(input_tokens=5, cache_read_tokens=6, reasoning_tokens=7)
    span = traced(chat(usage=usage), settings=LANGFUSE).spans[1]
    assert json.loads(str(span.attributes["langfuse.observation.usage_details"])) == {"input": 5}


def test_levels_follow_what_happened() -> None:
    trace = traced(
        chat("a", error=StepError("429")), chat("b", error=StepError("500", "it broke")), chat("c"), settings=LANGFUSE
    )
    assert [named(span, "langfuse.observation.l", "langfuse.observation.s") for span in trace.spans] == [
        {},
        {"langfuse.observation.level": "ERROR", "langfuse.observation.status_message": "429"},
        {"langfuse.observation.level": "ERROR"},
        {},
    ]
    root = traced(incomplete=True, settings=LANGFUSE).root
    assert root.attributes["langfuse.observation.level"] == "WARNING"
    failed = traced(incomplete=True, status=RunStatus.FAILED, settings=LANGFUSE).root
    assert failed.attributes["langfuse.observation.level"] == "ERROR"


def test_input_and_output_are_what_gen_ai_tells() -> None:
    said = Content(input=(Message(role="user", text=SECRET),), output=(Message(role="assistant", text="No."),))
    trace = traced(
        chat(content=said), tool(content=Content(arguments=[1], result=[2])), content=said, settings=LANGFUSE_SAID
    )
    for span, names in zip(
        trace.spans,
        [("input.messages", "output.messages")] * 2 + [("tool.call.arguments", "tool.call.result")],
        strict=True,
    ):
        assert span.attributes["langfuse.observation.input"] == span.attributes[f"gen_ai.{names[0]}"]
        assert span.attributes["langfuse.observation.output"] == span.attributes[f"gen_ai.{names[1]}"]
    assert SECRET not in str([span.attributes for span in trace.spans])


def test_session_and_trace_name_stand_on_every_span() -> None:
    trace = traced(chat(), agent_name="Eliza", conversation_id="room", settings=LANGFUSE)
    for span in trace.spans:
        assert named(span, "langfuse.session", "langfuse.trace") == {
            "langfuse.session.id": "room",
            "langfuse.trace.name": "Eliza",
        }
