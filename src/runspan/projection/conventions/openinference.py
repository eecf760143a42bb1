"""The OpenInference conventions, which Phoenix and Arize read.

Names and meanings are those of openinference-semantic-conventions 0.1.42. Phoenix adds up tokens over spans of kind
LLM, others over any: so they stand on the calls, and on the root only where no call has any. Costs are US dollars.
Every function is pure and gives attributes, None where there is no value.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from runspan.model import NO_USAGE, AttributeValue, Json, Run, Step, StepKind, Usage
from runspan.projection.accounting import Account
from runspan.projection.conventions import gen_ai, own

SPAN_KIND = "openinference.span.kind"
INPUT_MESSAGES = "llm.input_messages"
OUTPUT_MESSAGES = "llm.output_messages"

_TOTAL = "llm.token_count.total"
_TEXT, _JSON = "text/plain", "application/json"
_KINDS = {StepKind.MODEL_CALL: "LLM", StepKind.EMBEDDINGS: "EMBEDDING", StepKind.TOOL_CALL: "TOOL"}
_MODEL_NAMES = {StepKind.MODEL_CALL: "llm.model_name", StepKind.EMBEDDINGS: "embedding.model_name"}
_MOST_INPUT_KEYS = 64
_MOST_OUTPUT_KEYS = 16
"""Of all messages on one span, the newest first: a span holds 128 attributes, and `gen_ai` tells of all messages."""


def on_every_span(run: Run) -> Mapping[str, AttributeValue | None]:
    """The session, by which Phoenix groups traces."""
    return {"session.id": run.conversation_id}


def on_root(run: Run, account: Account) -> Mapping[str, AttributeValue | None]:
    """The run as an agent's work; with tokens and cost only where no call carries any, lest they count twice."""
    counts = _usage(NO_USAGE if account.calls_tell_parts else run.usage)
    if account.calls_count_tokens:
        counts = {**counts, _TOTAL: None}
    return {
        SPAN_KIND: "AGENT",
        "agent.name": run.agent_name,
        **counts,
        "llm.cost.total": account.run_usd(run.cost),
    }


def on_step(step: Step, run: Run, account: Account) -> Mapping[str, AttributeValue | None]:
    """One step by its kind; a chain is what the conventions have no other word for."""
    named: dict[str, AttributeValue | None] = {
        SPAN_KIND: _KINDS.get(step.kind, "CHAIN"),
        "llm.cost.total": account.call_usd(step.cost),
    }
    if step.kind is StepKind.TOOL_CALL:
        named |= {"tool.name": step.name, "tool.id": step.attributes.get(gen_ai.TOOL_CALL_ID)}
    if model_name := _MODEL_NAMES.get(step.kind):
        counted = _usage(step.usage if account.calls_count_tokens else NO_USAGE)
        named |= {model_name: step.name, **counted}
    return named


def on_error(error_type: str, description: str) -> Mapping[str, AttributeValue | None]:
    """Nothing: a span's status says it."""
    return {}


def on_content(kind: StepKind | None, said: Mapping[str, AttributeValue]) -> Mapping[str, AttributeValue | None]:
    """Input and output as one reads them, and of a model call each message by itself."""
    attributes: dict[str, AttributeValue | None] = {}
    for side, sources in (
        ("input", (gen_ai.INPUT_MESSAGES, gen_ai.TOOL_CALL_ARGUMENTS)),
        ("output", (gen_ai.OUTPUT_MESSAGES, gen_ai.TOOL_CALL_RESULT)),
    ):
        if document := next((text for key in sources if isinstance(text := said.get(key), str)), None):
            text, mime_type = _readable(document)
            attributes |= {f"{side}.value": text, f"{side}.mime_type": mime_type}
    if (note := said.get(own.NOTE_TEXT)) is not None:
        attributes |= {"output.value": note, "output.mime_type": _TEXT}
    if kind is StepKind.TOOL_CALL:
        attributes["tool.parameters"] = said.get(gen_ai.TOOL_CALL_ARGUMENTS)
    if kind is StepKind.MODEL_CALL:
        attributes |= _flattened(INPUT_MESSAGES, [*_system(said), *_messages(said, gen_ai.INPUT_MESSAGES)])
        attributes |= _flattened(OUTPUT_MESSAGES, _messages(said, gen_ai.OUTPUT_MESSAGES))
    return attributes


def _usage(usage: Usage) -> Mapping[str, AttributeValue | None]:
    prefix = "llm.token_count."
    return {
        f"{prefix}prompt": usage.input_tokens,
        f"{prefix}completion": usage.output_tokens,
        _TOTAL: usage.known_total,
        f"{prefix}prompt_details.cache_read": usage.cache_read_tokens,
        f"{prefix}prompt_details.cache_write": usage.cache_write_tokens,
        f"{prefix}completion_details.reasoning": usage.reasoning_tokens,
    }


def _readable(document: str) -> tuple[str, str]:
    """A JSON text and its type; what is nothing but one text, or one message of one text, is that text alone."""
    value: Json = json.loads(document)
    match value:
        case str():
            return value, _TEXT
        case [{"parts": [{"type": "text", "content": str(text)}]}]:
            return text, _TEXT
        case _:
            return document, _JSON


def _system(said: Mapping[str, AttributeValue]) -> Sequence[Json]:
    parts = _messages(said, gen_ai.SYSTEM_INSTRUCTIONS)
    return [{"role": "system", "parts": parts}] if parts else []


def _messages(said: Mapping[str, AttributeValue], key: str) -> Sequence[Json]:
    document = said.get(key)
    return cast("list[Json]", json.loads(document)) if isinstance(document, str) else []


def _flattened(prefix: str, messages: Sequence[Json]) -> Mapping[str, AttributeValue]:
    """The newest messages, numbered from 0, as many as may be."""
    room = _MOST_INPUT_KEYS if prefix == INPUT_MESSAGES else _MOST_OUTPUT_KEYS
    kept: list[Mapping[str, AttributeValue]] = []
    for message in reversed(messages):
        fields = dict(_message(message))
        room -= len(fields)
        if room < 0:
            break
        kept.append(fields)
    return {
        f"{prefix}.{number}.message.{name}": value
        for number, fields in enumerate(reversed(kept))
        for name, value in fields.items()
    }


def _message(message: Json) -> Iterator[tuple[str, AttributeValue]]:
    yield "role", message["role"]
    match message["parts"]:
        case [{"type": "text", "content": str(text)}]:
            yield "content", text
        case parts:
            for number, part in enumerate(parts):
                yield f"contents.{number}.message_content.type", part["type"]
                yield f"contents.{number}.message_content.text", part["content"]
