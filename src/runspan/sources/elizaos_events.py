"""Reads the detail of an elizaOS run, in the shape a 1.7.2 server answers with and in the one the vendor documents.

Every event is a log row, and its timestamp the time at which the row was written, that is the end of what it tells of.
Rows come in any order; here they are put into one that depends on nothing but the rows.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from runspan.errors import RunUnreadable
from runspan.model import (
    AttributeValue,
    Content,
    Cost,
    Json,
    Message,
    Run,
    RunBody,
    RunStatus,
    Step,
    StepError,
    StepKind,
    Usage,
)
from runspan.sources.answers import as_text, find_traceparent, unwrapped
from runspan.sources.fields import MS_NS, Fields, in_order

STATUSES = {
    "completed": RunStatus.SUCCESS,
    "timeout": RunStatus.TIMEOUT,
    "error": RunStatus.FAILED,
    "failed": RunStatus.FAILED,
    "cancelled": RunStatus.CANCELLED,
    "canceled": RunStatus.CANCELLED,
}
"""The words of the server and of the vendor's documents."""
STORED_NS = 20 * MS_NS
"""An EMBEDDING_EVENT is written once the vector is stored: on a 1.7.2 server with little to do, 3 to 10 ms after the
model row of the same work."""
ROUNDED_NS = 5 * MS_NS
"""Times are told in milliseconds, and no one waits for a model row to be written."""
IGNORED_STATUSES = frozenset({"self", "off", "muted", "replaced", "noMessageId"})
"""How a run ends that the agent leaves at once; the list keeps showing it as `started`."""


@dataclass(frozen=True, slots=True)
class _Row:
    kind: str
    time_ns: int | None
    data: Fields


def event_kind(event: Fields) -> str:
    """An event's type in the server's spelling: `action:started` of the vendor's documents is ACTION_STARTED."""
    return (event.text("type") or "").upper().replace(":", "_")


def read_run(body: RunBody, *, include_ignored: bool = False) -> Run:
    """The run of a body with the document `detail`.

    Of several RUN_ENDED rows the earliest tells status and end: work that goes on behind a timeout writes a second one,
    whenever it pleases, while the list keeps the first for good. Raises RunUnreadable where the detail has no list of
    events.
    """
    problems: list[str] = []
    detail = Fields(unwrapped(body.documents["detail"]), problems)
    if not isinstance(detail.value("events"), list):
        raise RunUnreadable(
            f"the answer for run {body.ref.run_id!r} has no list of events: it is no run",
            retryable=True,
        )
    documented = detail.value("summary") is None
    summary = detail if documented else detail.child("summary")
    rows = _rows(detail)
    started = next((row for row in rows if row.kind == "RUN_STARTED"), None)
    ended = next((row for row in rows if row.kind == "RUN_ENDED"), None)

    raw_status = (ended.data.text("status") if ended else None) or summary.text("status")
    ended_ns = (ended.time_ns if ended else None) or _time_ns(summary, "endedAt", "endTime")
    failed = ended is not None and ended.data.value("error") not in (None, "")
    duration_ns = (ended.data if ended else summary).duration_ns("durationMs")
    started_ns = started.time_ns if started else _time_ns(summary, "startTime")
    if started_ns is None and ended_ns is not None and duration_ns is not None:
        started_ns = ended_ns - duration_ns
    status = _status(raw_status, has_ended=ended is not None or ended_ns is not None, failed=failed)
    errors = summary.texts("errors")
    error = ended.data.text("error") if ended else next(iter(errors), None)
    is_description = status in (RunStatus.FAILED, RunStatus.TIMEOUT) and errors[:1] == (error,)
    tokens = summary.child("tokensUsed")
    ignored = raw_status in IGNORED_STATUSES and not include_ignored
    locator = body.ref.locator
    return Run(
        ref=body.ref,
        status=status,
        raw_status=raw_status,
        agent_id=locator.agent_id or summary.identifier("agentId"),
        agent_name=locator.agent_name,
        conversation_id=summary.identifier("roomId"),
        started_ns=started_ns,
        ended_ns=ended_ns,
        duration_ns=duration_ns,
        usage=Usage(
            input_tokens=tokens.integer("promptTokens"),
            output_tokens=tokens.integer("completionTokens"),
            total_tokens=tokens.integer("totalTokens"),
        ),
        error_description=error,
        steps=(*_steps(rows), *(_error(text) for text in errors[1 if is_description else 0 :])),
        traceparent=find_traceparent(summary.value("metadata"), started.data.document if started else None),
        incomplete=started is None and not documented,
        skip_reason=raw_status if ignored else None,
        problems=tuple(problems),
    )


def _rows(detail: Fields) -> list[_Row]:
    def place(event: Fields) -> tuple[bool, int, bool, str]:
        time_ns, kind = event.time_ns("timestamp", MS_NS), event_kind(event)
        return time_ns is None, time_ns or 0, not kind.endswith("_STARTED"), kind

    return [
        _Row(event_kind(event), event.time_ns("timestamp", MS_NS), event.child("data"))
        for event in in_order(detail.rows("events"), place)
    ]


def _status(raw_status: str | None, *, has_ended: bool, failed: bool) -> RunStatus:
    status = STATUSES.get((raw_status or "").lower(), RunStatus.SUCCESS if has_ended else RunStatus.OPEN)
    # A run whose processing throws ends as `completed`, with the reason in the event's `error`.
    return RunStatus.FAILED if failed and status is RunStatus.SUCCESS else status


def _steps(rows: Sequence[_Row]) -> tuple[Step, ...]:
    actions = _actions(rows)
    by_id: dict[str, Step] = {}
    for action_id, action in actions:
        if action_id is not None:
            by_id.setdefault(action_id, action)
    inside: dict[str, list[Step]] = {}
    steps: list[Step] = []
    embedding_calls: list[Step] = []
    embedding_events: list[Step] = []
    for row in rows:
        step = _step(row)
        if step is None:
            continue
        if step.kind is StepKind.EMBEDDINGS and step.end_ns is not None:
            # These bear the id of whatever action ran at the time.
            (embedding_calls if row.kind == "MODEL_USED" else embedding_events).append(step)
            continue
        action_id = row.data.child("actionContext").text("actionId") if step.kind is StepKind.MODEL_CALL else None
        # An id unknown in this run is a leftover of an action that threw in another.
        if action_id in by_id and not _is_apart(step, by_id[action_id]):
            inside.setdefault(action_id, []).append(step)
        else:
            steps.append(step)
    steps += _embeddings(embedding_calls, embedding_events)
    for action_id, action in actions:
        children = inside.pop(action_id, []) if action_id is not None else []
        steps.append(replace(action, children=_in_order(children)))
    return _in_order(steps)


def _is_apart(call: Step, action: Step) -> bool:
    """Whether the call was over before the action began, or began after its end."""
    if call.end_ns is None:
        return False
    if action.start_ns is not None and call.end_ns <= action.start_ns:
        return True
    return action.end_ns is not None and call.duration_ns is not None and _start_ns(call) >= action.end_ns


def _embeddings(calls: Iterable[Step], events: Iterable[Step]) -> list[Step]:
    """One step for each embedding: a model row, or an event that tells of work of which there is no model row."""
    begun = deque(sorted(events, key=_start_ns))
    free: list[Step] = []
    steps: list[Step] = []
    for call in sorted(calls, key=_start_ns):
        while begun and _start_ns(begun[0]) <= _start_ns(call) + STORED_NS:
            insort(free, begun.popleft(), key=_end_ns)
        # The first to end of those that hold the call leaves the others to calls that end later.
        place = bisect_left(free, _end_ns(call) - ROUNDED_NS, key=_end_ns)
        if place < len(free):
            event = free.pop(place)
            duration_ns = event.duration_ns if call.duration_ns is None else call.duration_ns
            steps.append(replace(call, duration_ns=duration_ns, error=event.error))
        else:
            steps.append(call)
    return [*steps, *free, *begun]


def _in_order(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(sorted(steps, key=lambda step: (_start_ns(step), _end_ns(step), step.key)))


def _start_ns(step: Step) -> int:
    return step.start_ns or _end_ns(step) - (step.duration_ns or 0)


def _end_ns(step: Step) -> int:
    return step.end_ns or step.start_ns or 0


def _step(row: _Row) -> Step | None:
    match row.kind:
        case "RUN_STARTED" | "RUN_ENDED" | "ACTION_STARTED" | "ACTION_COMPLETED":
            return None
        case "MODEL_USED":
            return _model_call(row)
        case "EMBEDDING_EVENT":
            return _embedding(row)
        case "EVALUATOR_COMPLETED":
            name = row.data.text("evaluatorName")
            attributes: Mapping[str, AttributeValue] = {"runspan.elizaos.evaluator": name} if name else {}
            return _note(row, "evaluator", name or "", attributes)
        case _:
            return _note(row, row.kind.lower(), "")


def _note(row: _Row, name: str, detail: str, attributes: Mapping[str, AttributeValue] | None = None) -> Step:
    key = (name, detail, str(row.time_ns))
    return Step(kind=StepKind.NOTE, key=key, name=name, end_ns=row.time_ns, attributes=attributes or {})


def _error(text: str) -> Step:
    return Step(kind=StepKind.NOTE, key=("error", text), name="error", content=Content(text=text))


def _model_call(row: _Row) -> Step:
    data = row.data
    # A slot (TEXT_LARGE), not the name of a model: the server tells none.
    model_type = data.text("modelType") or ""
    provider = data.text("provider")
    duration_ns = data.duration_ns("executionTime")
    action_id = data.child("actionContext").text("actionId")
    attributes: dict[str, AttributeValue] = {}
    if model_type:
        attributes["runspan.elizaos.model_type"] = model_type
    if provider:
        attributes["gen_ai.provider.name"] = provider
    cost = data.decimal("cost")
    is_embedding = "EMBEDDING" in model_type.upper()
    # What answers an embedding is a vector, of which the server shows no more than the word `[array]`.
    output = () if is_embedding else _said("assistant", data.value("response"))
    return Step(
        kind=StepKind.EMBEDDINGS if is_embedding else StepKind.MODEL_CALL,
        key=("model", model_type, str(row.time_ns), str(duration_ns), action_id or ""),
        end_ns=row.time_ns,
        duration_ns=duration_ns,
        usage=_usage(data),
        cost=None if cost is None else Cost(cost),
        content=Content(input=_said("user", data.value("prompt")), output=output),
        attributes=attributes,
    )


def _usage(data: Fields) -> Usage:
    """Tokens as the server's route could show them (its core never writes any), or as the vendor's documents do."""
    if data.value("tokens") is not None:
        tokens = data.child("tokens")
        return Usage(input_tokens=tokens.integer("prompt"), output_tokens=tokens.integer("completion"))
    usage = data.child("usage")
    return Usage(
        input_tokens=_first_integer((usage, "promptTokens"), (usage, "inputTokens"), (data, "inputTokens")),
        output_tokens=_first_integer((usage, "completionTokens"), (usage, "outputTokens"), (data, "outputTokens")),
        total_tokens=usage.integer("totalTokens"),
    )


def _embedding(row: _Row) -> Step:
    data = row.data
    duration_ns = data.duration_ns("durationMs")
    memory_id = data.text("memoryId") or ""
    error = StepError("failed") if (data.text("status") or "").lower() == "failed" else None
    if duration_ns is None:
        return replace(_note(row, "embedding", memory_id), error=error)
    key = ("embedding", memory_id, str(row.time_ns), str(duration_ns))
    return Step(kind=StepKind.EMBEDDINGS, key=key, end_ns=row.time_ns, duration_ns=duration_ns, error=error)


def _actions(rows: Sequence[_Row]) -> list[tuple[str | None, Step]]:
    """The actions with their ids: start and end paired by id, whichever was written first; without one by name, in the
    order of their times."""
    waiting: dict[tuple[str | None, str], deque[int]] = {}
    pairs: list[tuple[_Row | None, _Row | None]] = []
    for row in sorted(rows, key=lambda row: row.kind == "ACTION_COMPLETED" and _action_id(row) is not None):
        if row.kind == "ACTION_STARTED":
            waiting.setdefault(_identity(row), deque()).append(len(pairs))
            pairs.append((row, None))
        elif row.kind == "ACTION_COMPLETED":
            begun = waiting.get(_identity(row))
            if begun:
                place = begun.popleft()
                pairs[place] = (pairs[place][0], row)
            else:
                pairs.append((None, row))
    return [_action(started, completed) for started, completed in pairs]


def _identity(row: _Row) -> tuple[str | None, str]:
    action_id = _action_id(row)
    return action_id, "" if action_id else _action_name(row) or ""


def _action_id(row: _Row) -> str | None:
    # Where a start lacks its actionId, its messageId is the same one.
    return row.data.text("actionId") or (row.data.text("messageId") if row.kind == "ACTION_STARTED" else None)


def _action_name(row: _Row) -> str | None:
    return row.data.text("actionName") or row.data.text("action")


def _action(started: _Row | None, completed: _Row | None) -> tuple[str | None, Step]:
    first = started or completed
    assert first is not None
    action_id, name = _action_id(first), _action_name(completed or first) or _action_name(first)
    attributes: dict[str, AttributeValue] = {"gen_ai.tool.type": "function"}
    if action_id:
        attributes["runspan.elizaos.action_id"] = action_id
    if completed is None:
        attributes["runspan.incomplete"] = True
    # `success` is true even of actions that failed: the server writes it so where it lost the result. Only a false
    # can be believed.
    failed = completed is not None and completed.data.boolean("success") is False
    return action_id, Step(
        kind=StepKind.TOOL_CALL,
        key=("action", action_id) if action_id else ("action", "", name or "", str(first.time_ns)),
        name=name,
        start_ns=started.time_ns if started else None,
        end_ns=completed.time_ns if completed else None,
        error=StepError("tool_error") if failed else None,
        content=Content(
            arguments=completed.data.value("params") if completed else None,
            result=completed.data.value("result") if completed else None,
        ),
        attributes=attributes,
    )


def _said(role: str, value: Json) -> tuple[Message, ...]:
    return () if value is None or value == "" else (Message(role=role, text=as_text(value)),)


def _time_ns(fields: Fields, *keys: str) -> int | None:
    return next((time_ns for key in keys if (time_ns := fields.time_ns(key, MS_NS)) is not None), None)


def _first_integer(*places: tuple[Fields, str]) -> int | None:
    return next((number for fields, key in places if (number := fields.integer(key)) is not None), None)
