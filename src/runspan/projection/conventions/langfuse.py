"""Langfuse's own names, beside which it reads `gen_ai`.

Langfuse takes tokens and cost from these names before all others, and from no span whose operation is `invoke_agent`:
what only the run's own span tells is shown there as metadata. Costs are US dollars. There is no `gen_ai.usage.cost`:
Langfuse prefers `cost_details`, and the name would clash with `gen_ai.usage.cost.amount`, which is to come. Every
function is pure and gives attributes, None where there is no value.
"""

import json
from collections.abc import Mapping

from runspan.model import NO_USAGE, AttributeValue, Run, Step, StepKind, Usage
from runspan.projection.accounting import Account, is_counted
from runspan.projection.conventions import gen_ai, own

LEVEL = "langfuse.observation.level"
TYPE = "langfuse.observation.type"
USAGE_DETAILS = "langfuse.observation.usage_details"
COST_DETAILS = "langfuse.observation.cost_details"

_TYPES = {
    StepKind.ITERATION: "chain",
    StepKind.MODEL_CALL: "generation",
    StepKind.EMBEDDINGS: "embedding",
    StepKind.TOOL_CALL: "tool",
}


def on_every_span(run: Run) -> Mapping[str, AttributeValue | None]:
    """Session and trace name, which Langfuse wants on each observation."""
    return {"langfuse.session.id": run.conversation_id, "langfuse.trace.name": run.agent_name}


def on_root(run: Run, account: Account) -> Mapping[str, AttributeValue | None]:
    """The run as an agent's work; with tokens and cost only where no call carries any, lest they count twice."""
    return {
        TYPE: "agent",
        LEVEL: "WARNING" if run.incomplete else None,
        USAGE_DETAILS: _usage_details(NO_USAGE if account.calls_count_tokens else run.usage),
        COST_DETAILS: _cost_details(account.run_usd(run.cost)),
    }


def on_step(step: Step, run: Run, account: Account) -> Mapping[str, AttributeValue | None]:
    """One step as an observation; a span is what Langfuse has no other word for."""
    return {
        TYPE: _TYPES.get(step.kind, "span"),
        USAGE_DETAILS: _usage_details(step.usage if is_counted(step) and account.calls_count_tokens else NO_USAGE),
        COST_DETAILS: _cost_details(account.call_usd(step.cost)),
    }


def on_error(error_type: str, description: str) -> Mapping[str, AttributeValue | None]:
    """The level, and the type of error where the span's status, which Langfuse reads, has no words for it."""
    return {LEVEL: "ERROR", "langfuse.observation.status_message": None if description else error_type}


def on_content(kind: StepKind | None, said: Mapping[str, AttributeValue]) -> Mapping[str, AttributeValue | None]:
    """Input and output, as the JSON that it is."""

    def first(*names: str) -> AttributeValue | None:
        return next((said[name] for name in names if name in said), None)

    return {
        "langfuse.observation.input": first(gen_ai.INPUT_MESSAGES, gen_ai.TOOL_CALL_ARGUMENTS),
        "langfuse.observation.output": first(gen_ai.OUTPUT_MESSAGES, gen_ai.TOOL_CALL_RESULT, own.NOTE_TEXT),
    }


def _usage_details(usage: Usage) -> str | None:
    """As JSON, in which every token has one name: Langfuse adds up all that begin with `input`, and with `output`."""
    details = {
        **_split(
            "input", usage.input_tokens, cached_tokens=usage.cache_read_tokens, cache_creation=usage.cache_write_tokens
        ),
        **_split("output", usage.output_tokens, reasoning_tokens=usage.reasoning_tokens),
        **({} if usage.known_total is None else {"total": usage.known_total}),
    }
    return json.dumps(details, separators=(",", ":")) if details else None


def _split(name: str, whole: int | None, **parts: int | None) -> Mapping[str, int]:
    """The whole without its parts, beside them; the whole alone where they cannot be parts of it."""
    told = {f"{name}_{part}": count for part, count in parts.items() if count is not None}
    if whole is None:
        return {}
    rest = whole - sum(told.values())
    return {name: whole} if rest < 0 else {name: rest, **told}


def _cost_details(dollars: float | None) -> str | None:
    return None if dollars is None else json.dumps({"total": dollars}, separators=(",", ":"))
