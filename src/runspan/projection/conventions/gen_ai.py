"""The OpenTelemetry GenAI conventions, by their newest names.

The names stand here and not in a package: the packaged constants are deprecated, and lack the newest ones
(open-telemetry/semantic-conventions-genai). Every function is pure and gives attributes, None where there is no value.
"""

from collections.abc import Mapping

from runspan.model import NO_USAGE, AttributeValue, Run, Step, StepKind, Usage
from runspan.projection.accounting import Account, is_counted

AGENT_ID = "gen_ai.agent.id"
AGENT_NAME = "gen_ai.agent.name"
CONVERSATION_ID = "gen_ai.conversation.id"
ERROR_TYPE = "error.type"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_MESSAGES = "gen_ai.input.messages"
OPERATION_NAME = "gen_ai.operation.name"
OUTPUT_MESSAGES = "gen_ai.output.messages"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
TOOL_CALL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOOL_CALL_RESULT = "gen_ai.tool.call.result"
TOOL_NAME = "gen_ai.tool.name"

_OPERATIONS = {
    StepKind.MODEL_CALL: "chat",
    StepKind.EMBEDDINGS: "embeddings",
    StepKind.TOOL_CALL: "execute_tool",
}


def on_every_span(run: Run) -> Mapping[str, AttributeValue | None]:
    """What makes each span of a run findable by itself: Jaeger matches tags within one span."""
    return {AGENT_NAME: run.agent_name, CONVERSATION_ID: run.conversation_id}


def on_root(run: Run, account: Account) -> Mapping[str, AttributeValue | None]:
    """The run as an agent's invocation; with its tokens only where no call tells any parts, lest they count twice."""
    return {
        OPERATION_NAME: "invoke_agent",
        PROVIDER_NAME: run.ref.platform,
        AGENT_ID: run.agent_id,
        REQUEST_MODEL: run.model,
        **_usage(NO_USAGE if account.calls_tell_parts else run.usage),
    }


def on_step(step: Step, run: Run, account: Account) -> Mapping[str, AttributeValue | None]:
    """One step as a GenAI operation; nothing for what the conventions do not know."""
    operation = _OPERATIONS.get(step.kind)
    if operation is None:
        return {}
    named: dict[str, AttributeValue | None]
    if step.kind is StepKind.TOOL_CALL:
        named = {TOOL_NAME: step.name}
    else:
        # The platform is the provider as far as its caller knows, unless the step says who it really was.
        named = {PROVIDER_NAME: run.ref.platform, REQUEST_MODEL: step.name}
    if step.kind is StepKind.MODEL_CALL and step.error:
        named[FINISH_REASONS] = ("error",)
    counted = _usage(step.usage if is_counted(step) and account.calls_count_tokens else NO_USAGE)
    return {OPERATION_NAME: operation, **named, **counted}


def on_error(error_type: str, description: str) -> Mapping[str, AttributeValue | None]:
    """Why a span failed; the description is the span's own status."""
    return {ERROR_TYPE: error_type}


def on_content(kind: StepKind | None, said: Mapping[str, AttributeValue]) -> Mapping[str, AttributeValue | None]:
    """What was said, which is in these conventions' own form already."""
    return said


def _usage(usage: Usage) -> Mapping[str, AttributeValue | None]:
    """There is no name for a total in these conventions, and it is neither input nor output."""
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
        "gen_ai.usage.cache_write.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }
