"""What every platform's answer becomes: one `Run` of `Step`s.

The way of a run is `RunRef -> RunBody -> Run -> Trace -> bytes -> Outcome`; this module holds the first three.
All times are integer nanoseconds since the Unix epoch, UTC. `None` means that the platform did not say: absent
is never zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeAlias

Json: TypeAlias = Any
"""A parsed JSON value: None, bool, int, float, str, list or dict with str keys."""

AttributeValue: TypeAlias = str | bool | int | float | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Locator:
    """What besides its id is needed to ask a platform for a run; kept in the ledger beside the id."""

    agent_id: str | None = None
    agent_name: str | None = None
    """The agent's name as first seen: names change, and ephemeral agents vanish."""
    room: str | None = None
    created_ns: int | None = None


@dataclass(frozen=True, slots=True)
class RunRef:
    """A run's identity (platform, tenant, run id), and how to find it."""

    platform: str
    tenant: str
    run_id: str
    locator: Locator = field(default=Locator(), compare=False)


@dataclass(frozen=True, slots=True)
class RunBody:
    """The documents a platform gave for one run.

    `documents` maps a name (`detail`, `tools`, `tool/<id>`) to parsed JSON.
    """

    ref: RunRef
    documents: Mapping[str, Json]


class RunStatus(StrEnum):
    """How a run stands. Only `OPEN` is not terminal."""

    OPEN = "open"
    SUCCESS = "success"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


ENDED = frozenset(RunStatus) - {RunStatus.OPEN}
"""Every status of a run that is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as reported. The sub-counts are parts of input or output, never added to them."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def known_total(self) -> int | None:
        """The reported total, else input plus output where both are reported."""
        if self.total_tokens is not None:
            return self.total_tokens
        if self.input_tokens is not None and self.output_tokens is not None:
            return self.input_tokens + self.output_tokens
        return None


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Cost:
    """An amount in the platform's unit: `"credits"`, a lower-case currency code, or None where none is stated."""

    amount: Decimal
    unit: str | None = None
    local: bool = False
    """Made here, from prices that the configuration names; the platform did not tell it."""
    worth: "Cost | None" = None
    """Of credits: what they are in a currency, by the rate in the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation, in the words of the GenAI message schema."""

    role: str
    text: str | None = None
    reasoning: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What was said: exported only where content capture is on."""

    system: str | None = None
    input: tuple[Message, ...] = ()
    output: tuple[Message, ...] = ()
    arguments: Json = None
    """A tool call's arguments, parsed where the platform sends JSON as text."""
    result: Json = None
    text: str | None = None
    """The text of a note: an output, an issue."""
    thought: str | None = None
    """The text of a note that is a model's thought."""
    finish_reason: str | None = None
    """Why the output ended, in the words of the GenAI message schema, where what followed tells."""


NO_CONTENT = Content()


@dataclass(frozen=True, slots=True)
class StepError:
    """Why a step failed: `type` is low-cardinality (an HTTP code or `tool_error`); `description` only what the
    vendor declares as an error."""

    type: str
    description: str | None = None


class StepKind(StrEnum):
    """What a step was."""

    ITERATION = "iteration"
    MODEL_CALL = "chat"
    EMBEDDINGS = "embeddings"
    TOOL_CALL = "tool"
    API_CALL = "api"
    NOTE = "note"
    """An evaluator, output, thought or issue: a span where it has a duration, else an event on its parent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Anything inside a run that took part.

    `key` is what makes the step's span id: the platform's own step id where there is one, else the row's own
    immutable fields; never its place in the list. Steps with the same key are told apart by an ordinal.

    `start_ns`, `end_ns` and `duration_ns` are what the platform reported; what it did not report is inferred when
    the trace is laid out. Steps stand in the order in which they took place.
    """

    kind: StepKind
    key: tuple[str, ...]
    name: str | None = None
    """Tool name, model name, service, or the kind of note. For an iteration: None."""
    start_ns: int | None = None
    end_ns: int | None = None
    duration_ns: int | None = None
    iteration: int | None = None
    usage: Usage = NO_USAGE
    cost: Cost | None = None
    error: StepError | None = None
    children: tuple["Step", ...] = ()
    content: Content = NO_CONTENT
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])
    """Further attributes under their final names (`gen_ai.tool.type`, `runspan.step`, ...)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One piece of agent work, read from its body."""

    ref: RunRef
    status: RunStatus
    raw_status: str | None = None
    stop_reason: str | None = None
    agent_id: str | None = None
    agent_name: str | None = None
    conversation_id: str | None = None
    """Only where the platform has real conversations (elizaOS rooms)."""
    model: str | None = None
    """Only where the run is tied to one model."""
    created_ns: int | None = None
    started_ns: int | None = None
    ended_ns: int | None = None
    duration_ns: int | None = None
    usage: Usage = NO_USAGE
    cost: Cost | None = None
    error_description: str | None = None
    """Only text that the vendor declares as an error."""
    steps: tuple[Step, ...] = ()
    steps_reported: int | None = None
    steps_listed: int | None = None
    parent_run_id: str | None = None
    traceparent: str | None = None
    """The W3C trace context of the caller, where input or metadata carries one."""
    content: Content = NO_CONTENT
    incomplete: bool = False
    """The platform itself no longer shows all of the run."""
    skip_reason: str | None = None
    """Why the run is not to be exported, though it is terminal (a status the platform ignores, an OTLP import)."""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])
    problems: tuple[str, ...] = ()
    """Fields that were unsound and left out, as `path: what is wrong`; never their values."""
