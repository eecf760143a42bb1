"""case.dev: one list over a whole organization, and each run's full trail in one document.

The list is newest first by creation and knows no filter by time; its cursor is the id of the last run seen. Runs of
ephemeral agents stand in it while their agents are gone from the agents list, so agents never drive the listing: their
list only tells names. Facts: docs.case.dev, and the vendor's SDK where the pages are silent.
"""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import ClassVar, Literal, TypeAlias, TypeVar

import structlog

from runspan.config import SourceConfig
from runspan.errors import RunGone, RunUnreadable, SourceUnavailable
from runspan.http import Client
from runspan.model import (
    NO_CONTENT,
    AttributeValue,
    Content,
    Cost,
    Json,
    Locator,
    Message,
    Run,
    RunBody,
    RunRef,
    RunStatus,
    Step,
    StepError,
    StepKind,
    Usage,
)
from runspan.sources.answers import Walk, find_traceparent, rows_of
from runspan.sources.base import Listed, Page, Scope, Source, Window
from runspan.sources.fields import Fields, canonical, in_order

log = structlog.get_logger()

PAGE_SIZE = 250
"""The most that the list gives at once."""
MAX_PAGES = 100_000
"""No list is longer; one that never ends is."""
EVER = Window(0)
LAST = 2**63
OPEN_STATUSES = ("queued", "running")
"""In the order in which a run passes them: one that moves on between two questions is in both answers, not in none."""
STATUSES = {
    "completed": RunStatus.SUCCESS,
    "failed": RunStatus.FAILED,
    "cancelled": RunStatus.CANCELLED,
    "canceled": RunStatus.CANCELLED,
    "queued": RunStatus.OPEN,
    "running": RunStatus.OPEN,
}
MICRO = Decimal("0.000001")
NAMES_KEPT_SECONDS = 600.0
"""An unknown agent makes us read the agents list again, but no more often than this."""

T = TypeVar("T")
Calls: TypeAlias = list[tuple[Fields | None, Fields | None]]
"""Calls with their results, either of which may be missing."""
Waiting: TypeAlias = dict[tuple[str | None, bool], deque[int]]
"""The places in `Calls` of calls that may lack a result, by their tool and whether they hold an output already; under
None, those of every tool."""
StepTime = Literal["start", "end"]


class CaseDevConfig(SourceConfig):
    """One account of case.dev."""

    step_time: StepTime = "start"
    """Whether a step's timestamp tells its start or its end; the vendor does not say."""
    api_version: str = "v1"
    """The version segment of the API's paths."""


class CaseDev(Source):
    """The platform `casedev`."""

    platform: ClassVar[str] = "casedev"
    default_base_url: ClassVar[str | None] = "https://api.case.dev"
    default_rate: ClassVar[str] = "30/min"
    config_type: ClassVar[type[SourceConfig]] = CaseDevConfig
    config: CaseDevConfig

    def __init__(self, config: SourceConfig, http: Client) -> None:
        super().__init__(config, http)
        self._root = ("agent", self.config.api_version)
        self._agent_names: dict[str, str] = {}
        self._names_read_at = -NAMES_KEPT_SECONDS

    @staticmethod
    def auth_headers(api_key: str | None) -> dict[str, str]:
        """The key as a bearer token."""
        return {"authorization": f"Bearer {api_key}"} if api_key else {}

    async def page(self, scope: Scope, window: Window, cursor: Json | None) -> Page:
        """A page of the organization's runs, newest first; see `Source.page`."""
        walk = Walk.resumed(cursor)
        answer, rows = await self._ask_list(walk)
        onward = walk_on(walk, answer, rows, window)
        named = [await self._named(row) for row in rows if window.holds(row.time_ns)]
        return Page(tuple(named), onward.state if onward else None, tuple(answer.problems))

    async def open_run_ids(self) -> frozenset[str]:
        """The ids of all runs that are queued or running now. Raises SourceUnavailable."""
        run_ids: set[str] = set()
        for status in OPEN_STATUSES:
            walk: Walk | None = Walk()
            while walk is not None:
                try:
                    answer, rows = await self._ask_list(walk, status)
                except (RunGone, RunUnreadable) as error:
                    raise SourceUnavailable(f"{error}: which runs are open is not known; asking again later") from None
                run_ids.update(row.run_id for row in rows)
                walk = walk_on(walk, answer, rows, EVER)
        return frozenset(run_ids)

    async def fetch(self, ref: RunRef, *, known_open: bool = False, with_content: bool = False) -> RunBody:
        """The run's one document; see `Source.fetch`."""
        document = await self.http.get_json((*self._root, "run", ref.run_id, "details"))
        if ref.locator.agent_name is None:
            agent_id = Fields(document, []).text("agentId")
            locator = replace(ref.locator, agent_id=agent_id, agent_name=await self._agent_name(agent_id))
            ref = replace(ref, locator=locator)
        return RunBody(ref, {"detail": document})

    def read(self, body: RunBody) -> Run:
        """The document as a Run; see `read_run`."""
        return read_run(body, self.config.step_time)

    async def _ask_list(self, walk: Walk, status: str | None = None) -> tuple[Fields, list[Listed]]:
        params = {"status": status, "limit": PAGE_SIZE, "cursor": walk.cursor}
        try:
            answer = Fields(await self.http.get_json((*self._root, "run"), params), [])
        except RunGone as gone:
            # The cursor is a run, which can be deleted between two pages; the list itself is always there.
            if walk.cursor is not None:
                raise
            raise SourceUnavailable(f"{gone}: check base_url and api_version") from None
        rows = rows_of(answer, "runs", f"source {self.config.name}: the list of runs")
        return answer, [listed for row in rows if (listed := read_listed(row)) is not None]

    async def _named(self, row: Listed) -> Listed:
        return replace(row, locator=replace(row.locator, agent_name=await self._agent_name(row.locator.agent_id)))

    async def _agent_name(self, agent_id: str | None) -> str | None:
        stale = time.monotonic() - self._names_read_at >= NAMES_KEPT_SECONDS
        if agent_id is not None and agent_id not in self._agent_names and stale:
            self._names_read_at = time.monotonic()
            await self._read_agent_names()
        return self._agent_names.get(agent_id or "")

    async def _read_agent_names(self) -> None:
        walk: Walk | None = Walk()
        try:
            while walk is not None:
                params = {"limit": PAGE_SIZE, "cursor": walk.cursor}
                answer = Fields(await self.http.get_json((*self._root, "agents"), params), [])
                for agent in answer.children("agents"):
                    agent_id, name = agent.identifier("id"), agent.text("name")
                    if agent_id and name:
                        self._agent_names[agent_id] = name
                walk = walk_on(walk, answer, (), EVER)
        except (SourceUnavailable, RunGone, RunUnreadable) as error:
            # Names are a comfort: without them a run is shown by its agent's id.
            log.warning(str(error), action="agent_names_unavailable", source=self.config.name)


def read_listed(row: Fields) -> Listed | None:
    """One row of the list; None, with a line in its problems, where it has no id."""
    run_id = row.identifier("id")
    if run_id is None:
        row.problems.append(f"{row.path}: no id")
        return None
    created_ns, ended_ns = row.time_ns("createdAt"), row.time_ns("completedAt")
    raw_status = row.text("status")
    status = status_of(raw_status, ended_ns)
    return Listed(
        run_id,
        Locator(agent_id=row.text("agentId"), created_ns=created_ns),
        terminal=status is not RunStatus.OPEN,
        time_ns=created_ns,
        raw_status=raw_status,
        ended_ns=ended_ns,
        status=status,
    )


def walk_on(walk: Walk, answer: Fields, rows: Sequence[Listed], window: Window) -> Walk | None:
    """Where the list goes on: nowhere at its end, before the window, and where it only goes round."""
    times_ns = [row.time_ns for row in rows if row.time_ns is not None]
    if times_ns and max(times_ns) < window.start_ns:
        return None
    token = answer.identifier("nextCursor")
    if token is None or answer.boolean("hasMore") is False:
        return None
    onward = walk.onward(token) if walk.pages < MAX_PAGES else None
    if onward is None:
        answer.problems.append("nextCursor: leads nowhere new, so the list was read no further")
    return onward


def status_of(raw_status: str | None, ended_ns: int | None) -> RunStatus:
    """What a status means; an unknown one is over if the run has an end, and says nothing of failure."""
    known = STATUSES.get((raw_status or "").lower())
    if known is not None:
        return known
    return RunStatus.OPEN if ended_ns is None else RunStatus.SUCCESS


def read_run(body: RunBody, step_time: StepTime = "start") -> Run:
    """The document `detail` as a Run; pure. Raises RunUnreadable where it is no run at all."""
    problems: list[str] = []
    detail = Fields(body.documents.get("detail"), problems)
    raw_status, ended_ns = detail.text("status"), detail.time_ns("completedAt")
    if raw_status is None and ended_ns is None:
        raise RunUnreadable("case.dev's answer has neither a status nor an end: it is no run", retryable=True)
    status = status_of(raw_status, ended_ns)
    usage, result = detail.child("usage"), detail.child("result")
    return Run(
        ref=body.ref,
        status=status,
        raw_status=raw_status,
        agent_id=detail.text("agentId") or body.ref.locator.agent_id,
        agent_name=body.ref.locator.agent_name,
        model=detail.text("model") or usage.text("model"),
        created_ns=detail.time_ns("createdAt") or body.ref.locator.created_ns,
        started_ns=detail.time_ns("startedAt"),
        ended_ns=ended_ns,
        duration_ns=usage.duration_ns("durationMs"),
        usage=read_total(usage),
        cost=read_cost(usage.child("summary")),
        error_description=declared_error(result) if status is RunStatus.FAILED else None,
        steps=(
            *in_step_order(
                [read_usage_entry(entry) for entry in by_timestamp(usage.rows("entries"))]
                + read_steps(detail.rows("steps"), step_time)
            ),
            *(read_issue(issue) for issue in result.child("finalResponse").texts("issues")),
        ),
        # A run is created with a prompt; the vendor documents no metadata of the caller's.
        traceparent=find_traceparent(detail.value("metadata"), detail.value("prompt")),
        content=read_conversation(detail, result),
        problems=tuple(problems),
    )


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
        request = {"http.request.method": entry.text("method"), "url.path": entry.text("endpoint")}
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
    return Step(
        kind=StepKind.TOOL_CALL,
        key=row_key("step", rows[0], ("type", "toolName", "timestamp", "durationMs")),
        name=first(row.text("toolName") for row in rows),
        start_ns=called_ns if is_start else None,
        end_ns=called_ns if answered_ns is None and step_time == "end" else answered_ns,
        duration_ns=duration_ns,
        content=Content(arguments=first(row.value("toolInput") for row in rows), result=first(outputs)),
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


def row_key(table: str, row: Fields, immutable: Sequence[str]) -> tuple[str, ...]:
    """A row's own id, else what of it never changes."""
    row_id = row.identifier("id")
    return (table, row_id) if row_id else (table, *(canonical(row.value(name)) for name in immutable))


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
