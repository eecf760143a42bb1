"""Every attribute that a trace of ours may carry: its name and type, where it stands, whose name it is, what it means.

docs/attributes.md is made from this table, and tests hold all traces to it, both ways.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

Type: TypeAlias = Literal["string", "string[]", "boolean", "int", "double"]
Place: TypeAlias = Literal[
    "resource", "root", "iteration", "chat", "embeddings", "tool", "api", "note", "event", "link"
]
Whose: TypeAlias = Literal["opentelemetry", "gen_ai", "openinference", "langfuse", "runspan"]
Stability: TypeAlias = Literal["stable", "development", "unstated"]

SPANS: tuple[Place, ...] = ("root", "iteration", "chat", "embeddings", "tool", "api", "note")
_STEPS = SPANS[1:]
_MODELS: tuple[Place, ...] = ("chat", "embeddings")
_COSTING: tuple[Place, ...] = ("chat", "embeddings", "api")
_RESOURCE: tuple[Place, ...] = ("resource",)
_ROOT: tuple[Place, ...] = ("root",)
_TOOL: tuple[Place, ...] = ("tool",)
_API: tuple[Place, ...] = ("api",)
_TALKING: tuple[Place, ...] = ("root", "chat", "embeddings")


@dataclass(frozen=True, slots=True)
class Attribute:
    """One row. In a name, `<n>` stands for a number and `<unit>` for what a cost is in (usd, credits, ...)."""

    name: str
    type: Type
    where: tuple[Place, ...]
    """On the resource, on spans by what they are of (`note`: of a row that is no call but has a duration), on an
    `event` or a `link`."""
    whose: Whose
    stability: Stability
    """What its owner says of the name; `unstated` where conventions know no such word."""
    meaning: str
    is_content: bool = False
    """What was said in the run: there only where content capture is on."""


def _otel(name: str, type_: Type, where: tuple[Place, ...], meaning: str) -> Attribute:
    return Attribute(name, type_, where, "opentelemetry", "stable", meaning)


def _gen_ai(name: str, type_: Type, where: tuple[Place, ...], meaning: str, *, is_content: bool = False) -> Attribute:
    return Attribute(f"gen_ai.{name}", type_, where, "gen_ai", "development", meaning, is_content)


def _openinference(
    name: str, type_: Type, where: tuple[Place, ...], meaning: str, *, is_content: bool = False
) -> Attribute:
    return Attribute(name, type_, where, "openinference", "unstated", meaning, is_content)


def _langfuse(name: str, where: tuple[Place, ...], meaning: str, *, is_content: bool = False) -> Attribute:
    return Attribute(f"langfuse.{name}", "string", where, "langfuse", "unstated", meaning, is_content)


def _ours(name: str, type_: Type, where: tuple[Place, ...], meaning: str, *, is_content: bool = False) -> Attribute:
    return Attribute(f"runspan.{name}", type_, where, "runspan", "stable", meaning, is_content)


_TOKENS = (
    ("input_tokens", "Input tokens, cached ones among them"),
    ("output_tokens", "Output tokens, those spent on reasoning among them"),
    ("cache_read_tokens", "Input tokens that came out of a cache"),
    ("cache_write_tokens", "Input tokens that were put into a cache"),
    ("reasoning_tokens", "Output tokens spent on reasoning"),
    ("total_tokens", "All tokens"),
)

ATTRIBUTES: tuple[Attribute, ...] = (
    _otel("service.name", "string", _RESOURCE, "The source's name, or what `service_name` makes of source and agent."),
    _otel("service.namespace", "string", _RESOURCE, "As configured."),
    _otel(
        "error.type",
        "string",
        (*SPANS, "event"),
        "Why it failed: on the run's span failed, timeout or cancelled, elsewhere an HTTP status or a short word.",
    ),
    _otel("http.request.method", "string", _API, "The method of a call to the platform's own services."),
    _otel("http.response.status_code", "int", ("chat", "api"), "The HTTP status that a call was answered with."),
    _otel("url.path", "string", _API, "The path of a call to the platform's own services."),
    #
    _gen_ai(
        "operation.name",
        "string",
        ("root", "chat", "embeddings", "tool"),
        "What the span is: invoke_agent, chat, embeddings or execute_tool.",
    ),
    _gen_ai(
        "provider.name",
        "string",
        _TALKING,
        "Who answers: the platform, or who really does where a call says so.",
    ),
    _gen_ai("agent.id", "string", _ROOT, "The agent's id on its platform."),
    _gen_ai("agent.name", "string", SPANS, "The agent's name."),
    _gen_ai("conversation.id", "string", SPANS, "The conversation (elizaOS: the room), on platforms that have any."),
    _gen_ai(
        "request.model",
        "string",
        _TALKING,
        "The model asked for; on the run's span only where it is tied to one.",
    ),
    _gen_ai("response.finish_reasons", "string[]", ("chat",), "`error` for a model call that failed."),
    _gen_ai(
        "usage.input_tokens",
        "int",
        _TALKING,
        "Input tokens of a call, cached ones among them; on the run's span only where no call tells any.",
    ),
    _gen_ai(
        "usage.output_tokens", "int", _TALKING, "Output tokens, those spent on reasoning among them; placed alike."
    ),
    _gen_ai(
        "usage.cache_read.input_tokens",
        "int",
        _TALKING,
        "Of the input tokens, those that came out of a cache; placed alike.",
    ),
    _gen_ai(
        "usage.cache_write.input_tokens",
        "int",
        _TALKING,
        "Of the input tokens, those that were put into a cache; placed alike.",
    ),
    _gen_ai(
        "usage.reasoning.output_tokens",
        "int",
        _TALKING,
        "Of the output tokens, those spent on reasoning; placed alike.",
    ),
    _gen_ai("tool.name", "string", _TOOL, "The tool's name, where the platform tells it."),
    _gen_ai(
        "tool.type",
        "string",
        _TOOL,
        "`extension` for tools that the platform runs, `function` for an agent's own actions.",
    ),
    _gen_ai("tool.call.id", "string", _TOOL, "The call's id on its platform."),
    _gen_ai("system_instructions", "string", _TALKING, "JSON: the agent's instructions.", is_content=True),
    _gen_ai("input.messages", "string", _TALKING, "JSON: what went in, in the GenAI message schema.", is_content=True),
    _gen_ai("output.messages", "string", _TALKING, "JSON: what came out, reasoning too.", is_content=True),
    _gen_ai("tool.call.arguments", "string", _TOOL, "JSON: what the tool was given.", is_content=True),
    _gen_ai("tool.call.result", "string", _TOOL, "JSON: what the tool gave back.", is_content=True),
    #
    _openinference("openinference.span.kind", "string", SPANS, "AGENT, LLM, EMBEDDING or TOOL; CHAIN for all else."),
    _openinference("session.id", "string", SPANS, "The conversation."),
    _openinference("agent.name", "string", _ROOT, "The agent's name."),
    _openinference("llm.model_name", "string", ("chat",), "The model."),
    _openinference("embedding.model_name", "string", ("embeddings",), "The model."),
    _openinference(
        "llm.token_count.prompt", "int", _TALKING, "Input tokens; on the run's span only where no call tells any."
    ),
    _openinference("llm.token_count.completion", "int", _TALKING, "Output tokens; placed alike."),
    _openinference(
        "llm.token_count.total", "int", _TALKING, "All tokens, also where the platform tells no parts; placed alike."
    ),
    _openinference(
        "llm.token_count.prompt_details.cache_read",
        "int",
        _TALKING,
        "Of the input tokens, those that came out of a cache; placed alike.",
    ),
    _openinference(
        "llm.token_count.prompt_details.cache_write",
        "int",
        _TALKING,
        "Of the input tokens, those that were put into a cache; placed alike.",
    ),
    _openinference(
        "llm.token_count.completion_details.reasoning",
        "int",
        _TALKING,
        "Of the output tokens, those spent on reasoning; placed alike.",
    ),
    _openinference(
        "llm.cost.total",
        "double",
        ("root", *_COSTING),
        "US dollars; on the run's span only where no call tells any.",
    ),
    _openinference("tool.name", "string", _TOOL, "The tool's name."),
    _openinference("tool.id", "string", _TOOL, "The call's id on its platform."),
    _openinference("tool.parameters", "string", _TOOL, "JSON: what the tool was given.", is_content=True),
    _openinference(
        "input.value", "string", (*_TALKING, "tool"), "What went in, as text where it is but one.", is_content=True
    ),
    _openinference(
        "input.mime_type", "string", (*_TALKING, "tool"), "text/plain or application/json.", is_content=True
    ),
    _openinference(
        "output.value",
        "string",
        (*_TALKING, "tool", "note"),
        "What came out, as text where it is but one.",
        is_content=True,
    ),
    _openinference(
        "output.mime_type",
        "string",
        (*_TALKING, "tool", "note"),
        "text/plain or application/json.",
        is_content=True,
    ),
    *(
        _openinference(f"llm.{side}_messages.<n>.message.{name}", "string", ("chat",), meaning, is_content=True)
        for side in ("input", "output")
        for name, meaning in (
            ("role", "Whose message it is; the newest messages alone, numbered from 0."),
            ("content", "Its text, where it is but one."),
            ("contents.<n>.message_content.type", "text or reasoning, where there is more."),
            ("contents.<n>.message_content.text", "The text."),
        )
    ),
    #
    _langfuse("observation.type", SPANS, "agent, chain, generation, embedding or tool; span for all else."),
    _langfuse("session.id", SPANS, "The conversation."),
    _langfuse("trace.name", SPANS, "The agent's name."),
    _langfuse(
        "observation.level", SPANS, "ERROR where it failed, WARNING for a run of which the platform lost a part."
    ),
    _langfuse("observation.status_message", SPANS, "error.type, where the span's status has no description."),
    _langfuse(
        "observation.usage_details",
        _TALKING,
        "JSON: tokens, each counted under one name alone; on the run's span only where no call tells any.",
    ),
    _langfuse("observation.cost_details", ("root", *_COSTING), "JSON: US dollars; placed alike."),
    _langfuse("observation.input", (*_TALKING, "tool"), "What went in.", is_content=True),
    _langfuse("observation.output", (*_TALKING, "tool", "note"), "What came out.", is_content=True),
    #
    _ours("run.id", "string", SPANS, "The run's id on its platform."),
    _ours("source", "string", SPANS, "The source's name in the configuration."),
    _ours("platform", "string", SPANS, "flowyble, runtype, elizaos, casedev, or a plug-in's."),
    _ours(
        "timing",
        "string",
        (*SPANS, "event"),
        "How the times came about: reported, clamped (moved or cut to fit), inferred.",
    ),
    _ours("reported_duration_ms", "double", SPANS, "The duration that was said, where start and end do not show it."),
    _ours("run.status", "string", _ROOT, "The platform's own word."),
    _ours("run.stop_reason", "string", _ROOT, "Why the agent stopped, in the platform's words."),
    _ours("run.queue_seconds", "double", _ROOT, "From creation to start."),
    _ours("run.steps_reported", "int", _ROOT, "How many steps the platform counts."),
    _ours("run.steps_listed", "int", _ROOT, "How many of them it shows."),
    _ours("run.parent_id", "string", _ROOT, "The run that started this one; there is a link to it too."),
    *(
        _ours(f"run.{name}", "int", _ROOT, f"{meaning}, by the platform's account of the whole run.")
        for name, meaning in _TOKENS
    ),
    _ours("run.unattributed_tokens", "int", _ROOT, "The total less what the calls tell."),
    _ours("run.cost.<unit>", "double", _ROOT, "What the run cost."),
    _ours("run.cost.source", "string", _ROOT, "Whose figure it is: platform, or local (made from configured prices)."),
    _ours(
        "run.cost.currency_assumed",
        "boolean",
        _ROOT,
        "True where the platform tells no currency, here or on the calls.",
    ),
    _ours(
        "incomplete",
        "boolean",
        ("root", "tool"),
        "True where the platform no longer shows all of the run; on a tool call, where it tells no end of it.",
    ),
    _ours("problems", "string[]", _ROOT, "What was unsound in the platform's answer and left out."),
    _ours("trimmed", "string", _ROOT, "What was left out because the trace was larger than the backend takes."),
    _ours("iteration", "int", _STEPS, "The number of the iteration."),
    _ours("tool.status", "string", _TOOL, "The platform's own word for how the call went (Runtype)."),
    _ours("tool.model", "string", _TOOL, "The model that the platform names beside the call (Runtype)."),
    _ours("step", "int", _TOOL, "The number of the step on its platform (Flowyble)."),
    _ours(
        "call", "string", ("chat",), "`final_answer` for the call that gave the answer, which is no step (Flowyble)."
    ),
    _ours(
        "usage.total_tokens",
        "int",
        _MODELS,
        "Tokens of a call of which only the total is told, or of which it is not the sum.",
    ),
    *(
        _ours(f"usage.reported_{name}", "int", _MODELS, f"{meaning}, where the calls tell more than the whole run.")
        for name, meaning in _TOKENS
    ),
    _ours("cost.<unit>", "double", _COSTING, "What a call cost."),
    _ours("cost.source", "string", _COSTING, "Whose figure it is: platform, or local."),
    _ours("cost.reported_<unit>", "double", _COSTING, "The same where the calls tell more than the whole run."),
    _ours("cost.reported_source", "string", _COSTING, "The same where the calls tell more than the whole run."),
    _ours("elizaos.model_type", "string", _MODELS, "The kind of model that an agent asked for, such as TEXT_LARGE."),
    _ours("elizaos.action_id", "string", _TOOL, "The action's id."),
    _ours("elizaos.evaluator", "string", ("note", "event"), "The evaluator's name."),
    _ours(
        "note.text", "string", ("note", "event"), "What a note says: a thought, an output, an issue.", is_content=True
    ),
    _ours("content.cut", "boolean", (*SPANS, "event"), "True where some content was too long.", is_content=True),
    _ours("link", "string", ("link",), "What the link leads to: parent_run or caller."),
)


@lru_cache(maxsize=1024)
def find(name: str) -> Attribute | None:
    """The row of an attribute that a span carries."""
    return next((row for row, pattern in _PATTERNS if pattern.fullmatch(name)), None)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace("<n>", r"\d+").replace("<unit>", "[a-z0-9_]+"))


# The plainest and longest names are looked for first: neither `source` nor `reported_usd` is a unit.
_PATTERNS = [(row, _pattern(row.name)) for row in sorted(ATTRIBUTES, key=lambda row: ("<" in row.name, -len(row.name)))]
