"""Reads the detail of a case.dev run: its steps, the metered calls beside them, and what was said.

Steps bear no ids that would tie a result to its call, or a metered call to a step: what belongs together is told by
order, by tool and by time. Facts: docs.case.dev, and the vendor's SDK where the pages are silent.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from heapq import heappop, heappush
from typing import Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

from runspan.errors import RunUnreadable
from runspan.model import (
    NO_CONTENT,
    AttributeValue,
    Content,
    Cost,
    Message,
    Run,
    RunBody,
    RunStatus,
    Step,
    StepError,
    StepKind,
    Usage,
)
from runspan.sources.answers import find_traceparent, unwrapped
from runspan.sources.fields import LAST, Fields, in_order, row_key

STATUSES = {
    "completed": RunStatus.SUCCESS,
    "failed": RunStatus.FAILED,
    "cancelled": RunStatus.CANCELLED,
    "canceled": RunStatus.CANCELLED,
    "queued": RunStatus.OPEN,
    "running": RunStatus.OPEN,
}
MICRO = Decimal("0.000001")

T = TypeVar("T")
Calls: TypeAlias = list[tuple[Fields | None, Fields | None]]
"""Calls with their results, either of which may be missing."""
Waiting: TypeAlias = dict[tuple[str | None, bool], deque[int]]
"""The places in `Calls` of calls that may lack a result, by their tool and whether they hold an output already; under
None, those of every tool."""
StepTime = Literal["start", "end"]


def status_of(raw_status: str | None, ended_ns: int | None) -> RunStatus:
    """What a status means; an unknown one is over if the run has an end, and says nothing of failure."""
    known = STATUSES.get((raw_status or "").lower())
    if known is not None:
        return known
    return RunStatus.OPEN if ended_ns is None else RunStatus.SUCCESS


def read_run(body: RunBody, step_time: StepTime = "start") -> Run:
    """The document `detail` as a Run; pure. Raises RunUnreadable where it is no run at all."""
    problems: list[str] = []
    detail = Fields(unwrapped(body.documents.get("detail")), problems)
    raw_status, ended_ns = detail.text("status"), detail.time_ns("completedAt")
    if raw_status is None and ended_ns is None:
        raise RunUnreadable("case.dev's answer has neither a status nor an end: it is no run", retryable=True)
    status = status_of(raw_status, ended_ns)
    usage, result = detail.child("usage"), detail.child("result")
    entries = [read_usage_entry(entry) for entry in by_timestamp(usage.rows("entries"))]
    return Run(
        ref=body.ref,
        status=status,
        raw_status=raw_status,
        agent_id=detail.text("agentId") or body.ref.locator.agent_id,
        agent_name=body.ref.locator.agent_name,
        model=only_model(detail.text("model") or usage.text("model"), entries),
        created_ns=detail.time_ns("createdAt") or body.ref.locator.created_ns,
        started_ns=detail.time_ns("startedAt"),
        ended_ns=ended_ns,
        duration_ns=usage.duration_ns("durationMs"),
        usage=read_total(usage),
        cost=read_cost(usage.child("summary")),
        error_description=declared_error(result) if status is RunStatus.FAILED else None,
        steps=(
            *in_step_order(under_tools(entries, read_steps(detail.rows("steps"), step_time))),
            *(read_issue(issue) for issue in result.child("finalResponse").texts("issues")),
        ),
        # A run is created with a prompt; the vendor documents no metadata of the caller's.
        traceparent=find_traceparent(detail.value("metadata"), detail.value("prompt")),
        content=read_conversation(detail, result),
        problems=tuple(problems),
    )


def only_model(named: str | None, entries: Iterable[Step]) -> str | None:
    """The model that the run names, unless its calls went to others too."""
    used = {entry.name for entry in entries if entry.kind is StepKind.MODEL_CALL and entry.name}
    return named if used <= {named} else None


def read_total(usage: Fields) -> Usage:
    """The run's tokens: the summary's word counts before the older fields beside it."""
    summary = usage.child("summary")
    input_tokens, output_tokens = summary.integer("totalInputTokens"), summary.integer("totalOutputTokens")
    return Usage(
        input_tokens=usage.integer("inputTokens") if input_tokens is None else input_tokens,
        output_tokens=usage.integer("outputTokens") if output_tokens is None else output_tokens,
        total_tokens=summary.integer("totalTokens"),
    )


def read_cost(row: Fields) -> Cost | None:
    """`costMicros`, in millionths of a currency that the vendor does not name."""
    micros = row.decimal("costMicros")
    return None if micros is None else Cost(micros * MICRO)


def declared_error(result: Fields) -> str | None:
    """Why a run failed: there is no field for it but the issues of the final response."""
    return "; ".join(result.child("finalResponse").texts("issues")) or None


def read_conversation(detail: Fields, result: Fields) -> Content:
    """What the run was asked and what it answered. `result.logs` are left where they are."""
    prompt = detail.text("prompt")
    answer = result.text("output") or result.child("finalResponse").text("summary")
    return Content(
        system=detail.text("guidance"),
        input=(Message(role="user", text=prompt),) if prompt else (),
        output=(Message(role="assistant", text=answer),) if answer else (),
    )


def read_usage_entry(entry: Fields) -> Step:
    """A metered call: of a model (kind `llm`), or of another service of the platform. Its time is its end."""
    is_model_call = (entry.text("kind") or "llm").lower() == "llm"
    status_code = read_status_code(entry)
    attributes: dict[str, AttributeValue] = {}
    if status_code is not None:
        attributes["http.response.status_code"] = status_code
    if not is_model_call:
        request = {"http.request.method": entry.text("method"), "url.path": path_of(entry.text("endpoint"))}
        attributes |= {name: text for name, text in request.items() if text is not None}
    return Step(
        kind=StepKind.MODEL_CALL if is_model_call else StepKind.API_CALL,
        key=row_key("usage", entry, ("kind", "service", "endpoint", "method", "model", "timestamp")),
        name=entry.text("model" if is_model_call else "service"),
        end_ns=entry.time_ns("timestamp"),
        usage=Usage(
            input_tokens=entry.integer("promptTokens"),
            output_tokens=entry.integer("completionTokens"),
            total_tokens=entry.integer("totalTokens"),
        ),
        cost=read_cost(entry),
        error=StepError(str(status_code)) if status_code is not None and status_code >= 400 else None,
        attributes=attributes,
    )


def path_of(endpoint: str | None) -> str | None:
    """Of an endpoint nothing but its path: a query may hold what was searched for, or a key."""
    try:
        return urlsplit(endpoint).path or None if endpoint else None
    except ValueError:
        return None


def under_tools(entries: Sequence[Step], steps: Sequence[Step]) -> list[Step]:
    """All steps, with each call of a service under the tool call that it belongs to.

    Nothing ties them but time: it belongs to the only tool call that ran when it ended. A model call may be metered
    while the tool that it called for runs already, so none is put under a tool.
    """
    spans = sorted((*span, place) for place, step in enumerate(steps) if (span := reported_span(step)))
    inside: dict[int, list[Step]] = {}
    loose: list[Step] = []
    running: list[tuple[int, int]] = []
    begun = 0
    for entry in sorted(entries, key=lambda entry: entry.end_ns or LAST):
        ended_ns = entry.end_ns or LAST
        while begun < len(spans) and spans[begun][0] < ended_ns:
            heappush(running, spans[begun][1:])
            begun += 1
        while running and running[0][0] < ended_ns:
            heappop(running)
        if entry.kind is StepKind.API_CALL and len(running) == 1:
            inside.setdefault(running[0][1], []).append(entry)
        else:
            loose.append(entry)
    return loose + [replace(step, children=tuple(inside.get(place, ()))) for place, step in enumerate(steps)]


def reported_span(step: Step) -> tuple[int, int] | None:
    """Start and end of a tool call, where both are reported or follow from its duration."""
    start_ns, end_ns, duration_ns = step.start_ns, step.end_ns, step.duration_ns
    if step.kind is not StepKind.TOOL_CALL:
        return None
    if start_ns is None and end_ns is not None and duration_ns is not None:
        start_ns = end_ns - duration_ns
    if end_ns is None and start_ns is not None and duration_ns is not None:
        end_ns = start_ns + duration_ns
    return None if start_ns is None or end_ns is None else (start_ns, end_ns)


def read_status_code(entry: Fields) -> int | None:
    """The HTTP status of a metered call."""
    status_code = entry.integer("statusCode")
    if status_code is None or 100 <= status_code <= 599:
        return status_code
    entry.problems.append(f"{entry.path}.statusCode: not an HTTP status")
    return None


def read_steps(rows: Iterable[Fields], step_time: StepTime) -> list[Step]:
    """Tool calls, each with its result, thoughts and outputs."""
    steps: list[Step] = []
    calls: Calls = []
    waiting: Waiting = {}
    for row in by_timestamp(rows):
        match (row.text("type") or "").lower():
            case "tool_call":
                has_output = row.value("toolOutput") is not None
                for tool in {row.text("toolName"), None}:
                    waiting.setdefault((tool, has_output), deque()).append(len(calls))
                calls.append((row, None))
            case "tool_result":
                index = answered_call(row, waiting, calls)
                if index is None:
                    calls.append((None, row))
                else:
                    calls[index] = (calls[index][0], row)
            case kind:
                steps.append(read_note(row, kind or "step", step_time))
    return steps + [read_tool_call(call, result, step_time) for call, result in calls]


def answered_call(result: Fields, waiting: Waiting, calls: Calls) -> int | None:
    """Which call a result belongs to: no id ties them, so the first one of that tool, best one without an output."""
    tool = result.text("toolName")
    for has_output in (False, True):
        queue = waiting.get((tool, has_output), deque())
        while queue:
            place = queue.popleft()
            # It stands in two queues, and may have been answered by way of the other one.
            if calls[place][1] is None:
                return place
    return None


def read_tool_call(call: Fields | None, result: Fields | None, step_time: StepTime) -> Step:
    """A tool call and its result as one step; either may be missing. A result's time is always the end."""
    rows = [row for row in (call, result) if row is not None]
    called_ns = call.time_ns("timestamp") if call else None
    answered_ns = result.time_ns("timestamp") if result else None
    duration_ns = first(row.duration_ns("durationMs") for row in rows)
    is_start = step_time == "start" or (answered_ns is not None and duration_ns is None)
    outputs = [row.value("toolOutput") for row in rows] + [result.value("content") if result else None]
    attributes: dict[str, AttributeValue] = {"gen_ai.tool.type": "extension"}
    if result is None and duration_ns is None and first(outputs) is None:
        attributes["runspan.incomplete"] = True
    return Step(
        kind=StepKind.TOOL_CALL,
        key=row_key("step", rows[0], ("type", "toolName", "timestamp", "durationMs")),
        name=first(row.text("toolName") for row in rows),
        start_ns=called_ns if is_start else None,
        end_ns=called_ns if answered_ns is None and step_time == "end" else answered_ns,
        duration_ns=duration_ns,
        content=Content(arguments=first(row.value("toolInput") for row in rows), result=first(outputs)),
        attributes=attributes,
    )


def read_note(row: Fields, kind: str, step_time: StepTime) -> Step:
    """A thought, an output, or a kind of row that is new to us: only its name and its time are shown."""
    time_ns = row.time_ns("timestamp")
    text = row.text("content")
    return Step(
        kind=StepKind.NOTE,
        key=row_key("step", row, ("type", "timestamp", "durationMs")),
        name=kind,
        start_ns=time_ns if step_time == "start" else None,
        end_ns=time_ns if step_time == "end" else None,
        duration_ns=row.duration_ns("durationMs"),
        content=(Content(thought=text) if kind == "thinking" else Content(text=text)) if text else NO_CONTENT,
    )


def read_issue(text: str) -> Step:
    """Something that went wrong on the way, by the final response's own account; when is not known."""
    return Step(kind=StepKind.NOTE, key=("issue", text), name="issue", content=Content(text=text))


def first(values: Iterable[T | None]) -> T | None:
    """The first value that is there."""
    return next((value for value in values if value is not None), None)


def by_timestamp(rows: Iterable[Fields]) -> list[Fields]:
    """Rows by their time, those without one last; of one instant, a result stands behind its call."""

    def place(row: Fields) -> tuple[int, int]:
        return row.time_ns("timestamp") or LAST, row.value("type") == "tool_result"

    return in_order(rows, place)


def in_step_order(steps: Iterable[Step]) -> list[Step]:
    """Steps by when they began, as far as is known; those of which no time is known last."""

    def began(step: Step) -> int:
        if step.start_ns is not None:
            return step.start_ns
        return LAST if step.end_ns is None else step.end_ns - (step.duration_ns or 0)

    return sorted(steps, key=began)
