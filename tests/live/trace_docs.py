"""The pages docs/traces/<platform>.md: one rich run of each platform, as drawn and as its backends show it.

What the platform said is looked up in its body by path; what a backend shows is looked up in the trace that the backend
gives back. Neither is taken from our own projection, so a page cannot tell what is not so.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

Document: TypeAlias = Any

LONGEST_VALUE = 110


@dataclass(frozen=True, slots=True)
class Shown:
    """One span as a backend gives it back. `attributes` are under the backend's own names."""

    name: str
    parent: str
    """The parent's name; empty for the root."""
    start_ns: int
    end_ns: int
    kind: str
    status: str
    attributes: Mapping[str, Any]
    events: Mapping[str, int] = field(default_factory=dict)
    """Times by name."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Trace ids by what the link is for."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the platform said at `path`, and where the backends show it.

    `span` is a span's name, with ` (n)` for the nth of that name. A place is an attribute's name, or `start`, `end`,
    `kind`, `name`, `parent`, `status`, `event <name>`, `link <kind>`.
    """

    path: str
    span: str
    jaeger: str
    phoenix: str = ""
    """Empty where it is the same as in Jaeger."""


def said(documents: Mapping[str, Document], path: str) -> Document:
    """What stands at `detail.steps[0].toolName`. Raises KeyError or IndexError where nothing does."""
    name, _, rest = path.partition(":")
    document: Document = documents[name] if rest else documents["detail"]
    for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", rest or path):
        document = document[key] if key else document[int(index)]
    return document


def shows(spans: Sequence[Shown], row_span: str, place: str) -> Document:
    """What a backend shows at a place; None where it shows nothing there."""
    match = re.fullmatch(r"(.+?)(?: \((\d+)\))?", row_span)
    assert match
    named = [span for span in spans if span.name == match[1]]
    number = int(match[2] or 1)
    if len(named) < number:
        return None
    span = named[number - 1]
    kind, _, rest = place.partition(" ")
    match kind:
        case "start":
            return instant(span.start_ns)
        case "end":
            return instant(span.end_ns)
        case "length":
            return f"{(span.end_ns - span.start_ns) / 1e6:g} ms"
        case "name" | "parent" | "kind" | "status":
            return getattr(span, kind)
        case "event":
            return instant(span.events[rest]) if rest in span.events else None
        case "link":
            return span.links.get(rest)
        case _:
            return span.attributes.get(place)


def instant(time_ns: int) -> str:
    """`2026-05-01T10:00:11.4Z`."""
    fraction = f".{time_ns % 10**9:09d}".rstrip("0").rstrip(".")
    return datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"


def table(
    platform: str, rows: Sequence[Row], documents: Mapping[str, Document], backends: Mapping[str, Sequence[Shown]]
) -> str:
    """The table of a page, in Markdown. `backends` gives by name the spans, in the order of their starts."""
    lines = [f"| {platform} said | span |" + "".join(f" {name} shows |" for name in backends)]
    lines.append("| --- | --- |" + " --- |" * len(backends))
    for row in rows:
        cells = [f"{row.path} = {_quoted(said(documents, row.path))}", row.span]
        for name, spans in backends.items():
            place = (row.phoenix or row.jaeger) if name == "Phoenix" else row.jaeger
            value = shows(spans, row.span, place)
            cell = "nothing" if value is None else f"{place} = {_quoted(value)}"
            cells.append("the same" if cell == cells[-1] else cell)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _quoted(value: Document) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
    return (
        "`` " + text.replace("|", "\\|").replace("\n", " ") + " ``" if "`" in text else f"`{text}`".replace("|", "\\|")
    )


FLOWYBLE = (
    Row("createdAt", "invoke_agent support-triage", "runspan.run.queue_seconds"),
    Row("startedAt", "invoke_agent support-triage", "start"),
    Row("finishedAt", "invoke_agent support-triage", "end"),
    Row("status", "invoke_agent support-triage", "runspan.run.status"),
    Row("agentId", "invoke_agent support-triage", "gen_ai.agent.id"),
    Row("userMessage", "invoke_agent support-triage", "gen_ai.input.messages", "input.value"),
    Row("finalOutput", "chat (4)", "gen_ai.output.messages", "output.value"),
    Row("tokensUsed", "invoke_agent support-triage", "runspan.run.total_tokens", "tokens of the trace"),
    Row("creditsUsed", "invoke_agent support-triage", "runspan.run.cost.credits"),
    Row("stepsExecuted", "invoke_agent support-triage", "runspan.run.steps_reported"),
    Row("steps[0].iterationNumber", "execute_tool FindCustomer", "parent"),
    Row("steps[0].toolName", "execute_tool FindCustomer", "gen_ai.tool.name", "kind"),
    Row("steps[0].duration", "execute_tool FindCustomer", "length"),
    Row("steps[0].inputData", "execute_tool FindCustomer", "gen_ai.tool.call.arguments", "input.value"),
    Row("steps[0].outputData", "execute_tool FindCustomer", "gen_ai.tool.call.result", "output.value"),
    Row("steps[0].reasoning", "chat", "gen_ai.output.messages", "output.value"),
    Row("steps[0].tokenUsage.inputTokens", "chat", "gen_ai.usage.input_tokens", "llm.token_count.prompt"),
    Row("steps[0].tokenUsage.outputTokens", "chat", "gen_ai.usage.output_tokens", "llm.token_count.completion"),
    Row("steps[1].iterationNumber", "execute_tool ListInvoices", "parent"),
    Row("steps[2].iterationNumber", "execute_tool GetContract", "parent"),
    Row("steps[1].tokenUsage.inputTokens", "chat (2)", "gen_ai.usage.input_tokens", "llm.token_count.prompt"),
    Row("steps[3].stepNumber", "execute_tool DraftCreditNote", "runspan.step"),
)

RUNTYPE = (
    Row("createdAt", "invoke_agent returns-report", "runspan.run.queue_seconds"),
    Row("startedAt", "invoke_agent returns-report", "start"),
    Row("completedAt", "invoke_agent returns-report", "end"),
    Row("status", "invoke_agent returns-report", "runspan.run.status"),
    Row("stopReason", "invoke_agent returns-report", "runspan.run.stop_reason"),
    Row("agentId", "invoke_agent returns-report", "gen_ai.agent.id"),
    Row("parentExecutionId", "invoke_agent returns-report", "link parent_run"),
    Row("inputMessages[1].metadata.traceparent", "invoke_agent returns-report", "link caller"),
    Row("inputMessages[0].content", "invoke_agent returns-report", "gen_ai.input.messages", "input.value"),
    Row("totalTokens", "invoke_agent returns-report", "runspan.run.total_tokens", "tokens of the trace"),
    Row("totalCost", "invoke_agent returns-report", "runspan.run.cost.usd"),
    Row("iterationDetails[0].duration", "iteration 1", "length"),
    Row("iterationDetails[0].completedAt", "iteration 1", "end"),
    Row("iterationDetails[0].tokens.input", "chat", "gen_ai.usage.input_tokens", "llm.token_count.prompt"),
    Row("iterationDetails[0].tokens.output", "chat", "gen_ai.usage.output_tokens", "llm.token_count.completion"),
    Row("iterationDetails[0].cost", "chat", "runspan.cost.usd", "llm.cost.total"),
    Row("iterationDetails[0].output", "chat", "gen_ai.output.messages", "output.value"),
    Row("iterationDetails[2].iteration", "chat (3)", "runspan.iteration"),
    Row("tools:toolCalls[0].iteration", "execute_tool search_docs", "parent"),
    Row("tools:toolCalls[0].createdAt", "execute_tool search_docs", "end"),
    Row("tools:toolCalls[0].executionTimeMs", "execute_tool search_docs", "length"),
    Row("tools:toolCalls[0].errorMessage", "execute_tool search_docs", "status"),
    Row("tools:toolCalls[0].status", "execute_tool search_docs", "error.type"),
    Row("tools:toolCalls[0].id", "execute_tool search_docs", "gen_ai.tool.call.id", "tool.id"),
    Row("tool/tc_3:inputParameters", "execute_tool run_query", "gen_ai.tool.call.arguments", "input.value"),
)

ELIZAOS = (
    Row("data.events[0].timestamp", "invoke_agent Eliza", "start"),
    Row("data.events[9].timestamp", "invoke_agent Eliza", "end"),
    Row("data.summary.status", "invoke_agent Eliza", "runspan.run.status"),
    Row("data.events[9].data.error", "invoke_agent Eliza", "status"),
    Row("data.summary.roomId", "invoke_agent Eliza", "gen_ai.conversation.id", "session.id"),
    Row("data.events[1].timestamp", "chat", "end"),
    Row("data.events[1].data.executionTime", "chat", "length"),
    Row("data.events[1].data.modelType", "chat", "runspan.elizaos.model_type"),
    Row("data.events[1].data.provider", "chat", "gen_ai.provider.name"),
    Row("data.events[1].data.prompt", "chat", "gen_ai.input.messages", "input.value"),
    Row("data.events[1].data.response", "chat", "gen_ai.output.messages", "output.value"),
    Row("data.events[2].timestamp", "execute_tool LOOK_UP", "start"),
    Row("data.events[4].timestamp", "execute_tool LOOK_UP", "end"),
    Row("data.events[2].data.actionName", "execute_tool LOOK_UP", "gen_ai.tool.name", "kind"),
    Row("data.events[2].data.actionId", "execute_tool LOOK_UP", "runspan.elizaos.action_id"),
    Row("data.events[4].data.params", "execute_tool LOOK_UP", "gen_ai.tool.call.arguments", "input.value"),
    Row("data.events[3].data.actionContext.actionName", "chat (2)", "parent"),
    Row("data.events[8].timestamp", "invoke_agent Eliza", "event evaluator"),
    Row("data.events[10].timestamp", "embeddings", "end"),
    Row("data.events[10].data.durationMs", "embeddings", "length"),
    Row("data.events[10].timestamp", "embeddings", "runspan.timing"),
)

CASEDEV = (
    Row("createdAt", "invoke_agent contract-reviewer", "runspan.run.queue_seconds"),
    Row("startedAt", "invoke_agent contract-reviewer", "start"),
    Row("completedAt", "invoke_agent contract-reviewer", "end"),
    Row("status", "invoke_agent contract-reviewer", "error.type"),
    Row("result.finalResponse.issues[0]", "invoke_agent contract-reviewer", "status"),
    Row("prompt", "invoke_agent contract-reviewer", "gen_ai.input.messages", "input.value"),
    Row("guidance", "invoke_agent contract-reviewer", "gen_ai.system_instructions"),
    Row("model", "invoke_agent contract-reviewer", "gen_ai.request.model"),
    Row(
        "usage.summary.totalTokens",
        "invoke_agent contract-reviewer",
        "runspan.run.total_tokens",
        "tokens of the trace",
    ),
    Row("usage.summary.costMicros", "invoke_agent contract-reviewer", "runspan.run.cost.usd"),
    Row("usage.entries[0].timestamp", "chat vendor/model-x", "end"),
    Row("usage.entries[0].promptTokens", "chat vendor/model-x", "gen_ai.usage.input_tokens", "llm.token_count.prompt"),
    Row(
        "usage.entries[0].completionTokens",
        "chat vendor/model-x",
        "gen_ai.usage.output_tokens",
        "llm.token_count.completion",
    ),
    Row("usage.entries[0].costMicros", "chat vendor/model-x", "runspan.cost.usd", "llm.cost.total"),
    Row("usage.entries[0].model", "chat vendor/model-x", "gen_ai.request.model", "llm.model_name"),
    Row("usage.entries[1].statusCode", "api ocr", "error.type"),
    Row("usage.entries[1].endpoint", "api ocr", "url.path"),
    Row("steps[0].timestamp", "invoke_agent contract-reviewer", "event thinking"),
    Row("steps[1].timestamp", "execute_tool vault_search", "start"),
    Row("steps[2].timestamp", "execute_tool vault_search", "end"),
    Row("steps[1].toolInput", "execute_tool vault_search", "gen_ai.tool.call.arguments", "input.value"),
    Row("steps[2].toolOutput", "execute_tool vault_search", "gen_ai.tool.call.result", "output.value"),
    Row("steps[3].durationMs", "execute_tool bash", "length"),
    Row("steps[4].timestamp", "invoke_agent contract-reviewer", "event output"),
)

PAGES: Mapping[str, tuple[str, Sequence[Row]]] = {
    "flowyble": ("Flowyble", FLOWYBLE),
    "runtype": ("Runtype", RUNTYPE),
    "elizaos": ("elizaOS", ELIZAOS),
    "casedev": ("case.dev", CASEDEV),
}
