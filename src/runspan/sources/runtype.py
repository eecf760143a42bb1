"""Runtype: executions per agent; each is a detail, a list of its tool calls, and one payload per call.

The facts are those of the vendor's OpenAPI document and of its page of the detail endpoint. Neither the words of
`status`, nor the order of the list, nor the field behind `from` and `to` are documented, so nothing here rests on them.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar, Literal, cast

from runspan.config import SourceConfig
from runspan.errors import RunGone, RunUnreadable, SourceUnavailable
from runspan.model import (
    AttributeValue,
    Content,
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
)
from runspan.sources.answers import PageSize, as_text, find_traceparent, refuse_failure, rows_of, unwrapped
from runspan.sources.base import Listed, Page, Scope, Scopes, Source, Window
from runspan.sources.client import Client
from runspan.sources.fields import MAX_ROWS, MS_NS, SECOND_NS, Fields, in_order
from runspan.sources.names import AgentNames
from runspan.sources.runtype_iterations import read_cost, read_iterations, read_usage, said
from runspan.sources.walk import AGENT_PAGES, Shown, Walk, broken_off, shown

PAGE_LIMIT = 50
"""As in the vendor's samples: the largest page is not documented."""

STATUSES = {
    "completed": RunStatus.SUCCESS,
    "success": RunStatus.SUCCESS,
    "failed": RunStatus.FAILED,
    "error": RunStatus.FAILED,
    "cancelled": RunStatus.CANCELLED,
    "canceled": RunStatus.CANCELLED,
    "timeout": RunStatus.TIMEOUT,
    "timed_out": RunStatus.TIMEOUT,
}
FAILED_CALL_STATUSES = frozenset({"failed", "error", "timeout", "timed_out"})

_HTTP_CODE = re.compile(
    r"(?:\bHTTP(?:/\d(?:\.\d)?)?|status(?:[ _]?code)?)[\s:=]*([45]\d\d)\b|^\s*([45]\d\d)\s+(?=[A-Z])",
    re.ASCII | re.IGNORECASE,
)
"""In an error's text: `HTTP 502`, `status code: 404`, `http_status=500`, `502 Bad Gateway`."""


class RuntypeConfig(SourceConfig):
    """One account of Runtype."""

    terminal_statuses: tuple[str, ...] = tuple(STATUSES)
    """Words of `status` that mean the end, since Runtype documents none. An execution with completedAt has ended
    too."""
    tool_time: Literal["end", "start"] = "end"
    """Whether a tool call's createdAt is its end or its start, which Runtype does not say."""
    include_external: bool = False
    """Whether executions that came into Runtype by OTLP are exported: they may be runspan's own."""


class Runtype(Source):
    """The platform `runtype`. Scopes are agents; the list's time axis is `createdAt`."""

    platform = "runtype"
    default_base_url = "https://api.runtype.com"
    default_rate = "60/min"
    config_type: ClassVar[type[SourceConfig]] = RuntypeConfig
    config: RuntypeConfig

    def __init__(self, config: SourceConfig, http: Client) -> None:
        super().__init__(config, http)
        self._page_size = PageSize(PAGE_LIMIT)
        self._names = AgentNames(config.name, self.scopes)

    @staticmethod
    def auth_headers(api_key: str | None) -> dict[str, str]:
        """`Authorization: Bearer rt_live_...`."""
        return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}

    @property
    def pages_shift(self) -> bool:
        """Nobody says what its cursors hold."""
        return True

    async def scopes(self) -> Scopes:
        """All agents. Raises SourceUnavailable."""
        asked_ns = time.time_ns()
        agents: dict[str, Scope] = {}
        walk, fault = Walk(), None
        where = f"source {self.config.name}: the list of agents"
        while walk is not None:
            params = {"limit": walk.rows(PAGE_LIMIT), "cursor": walk.cursor}
            try:
                document = await self.http.get_json(["v1", "agents"], params)
            except (RunGone, RunUnreadable) as error:
                raise SourceUnavailable(f"{error}: check base_url") from None
            answer, rows = _listing(document, where)
            some = [Scope(key, row.text("name")) for row in rows if (key := row.identifier("id"))]
            agents |= {agent.key: agent for agent in some}
            walk, fault = _following(walk, answer, [Shown(agent.key) for agent in some], most_pages=AGENT_PAGES)
        scopes = Scopes(tuple(agents.values()), broken_off(where, fault))
        self._names.learn(scopes, asked_ns=asked_ns)
        return scopes

    async def page(self, scope: Scope, window: Window, cursor: Json | None) -> Page:
        """One page of an agent's executions; see `Source.page`.

        A run that began before the window and ended in it is listed too: which field the platform's filter reads is
        not documented.
        """
        walk = Walk.resumed(cursor)
        params = {
            "cursor": walk.cursor,
            "from": iso_time(window.start_ns),
            "to": None if window.end_ns is None else iso_time(window.end_ns + MS_NS - 1),
        }
        path = ["v1", "agents", scope.key, "executions"]
        # Rows hold whole conversations, so a page of them may be larger than a body may be.
        document = await self._page_size.ask(
            lambda rows: self.http.get_json(path, {"limit": walk.rows(rows), **params})
        )
        where = f"source {self.config.name}: the list of agent {scope.key!r}'s executions"
        answer, executions = _listing(document, where)
        some = [row for fields in executions if (row := listed(fields, scope, self.config))]
        rows: dict[str, Listed] = {}
        for row in some:
            if _is_within(row, window) and (row.run_id not in rows or row.terminal):
                rows[row.run_id] = row
        onward, fault = _following(walk, answer, shown(some))
        return Page(
            tuple(rows.values()),
            onward.state if onward else None,
            tuple(answer.problems),
            broken_off=broken_off(where, fault),
        )

    async def fetch(self, ref: RunRef, *, known_open: bool = False, with_content: bool = False) -> RunBody:
        """`detail`, `tools` and, with content, `tool/<id>` of each call; see `Source.fetch`."""
        ref, detail = await self._detail(ref)
        documents = {"detail": detail}
        if known_open and not has_ended(Fields(unwrapped(detail), []), self.config):
            return RunBody(ref, documents)
        calls = [*_execution(ref), "tool-calls"]
        try:
            documents["tools"] = await self.http.get_json(calls)
        except RunGone:
            return RunBody(ref, documents)
        if with_content:
            for call in Fields(unwrapped(documents["tools"]), []).children("toolCalls"):
                call_id = call.identifier("id")
                if call_id is None:
                    continue
                try:
                    payload = await self.http.get_json([*calls, call_id])
                except (RunGone, RunUnreadable):
                    continue  # A call without its payload, or whose id nobody can ask for, is still a call.
                documents[f"tool/{call_id}"] = payload
        return RunBody(ref, documents)

    def read(self, body: RunBody) -> Run:
        """See `Source.read`."""
        return read_execution(body, self.config)

    async def _detail(self, ref: RunRef) -> tuple[RunRef, Json]:
        if ref.locator.agent_id is not None:
            ref = await self._names.named(ref)
            return ref, await self.http.get_json(_execution(ref))
        for scope in (await self.scopes()).found:
            found = replace(ref, locator=replace(ref.locator, agent_id=scope.key, agent_name=scope.agent_name))
            try:
                return found, await self.http.get_json(_execution(found))
            except RunGone:
                continue
        raise RunGone(f"source {self.config.name}: no agent has the execution {ref.run_id!r}")


def listed(row: Fields, scope: Scope, config: RuntypeConfig) -> Listed | None:
    """A row of the list; None, with a line in its problems, where it has no id."""
    run_id = row.identifier("executionId") or row.identifier("id")
    if run_id is None:
        row.note("no id")
        return None
    created_ns = row.time_ns("createdAt") or row.time_ns("startedAt")
    return Listed(
        run_id=run_id,
        locator=Locator(
            agent_id=row.identifier("agentId") or scope.key, agent_name=scope.agent_name, created_ns=created_ns
        ),
        terminal=has_ended(row, config),
        time_ns=created_ns,
        raw_status=row.text("status"),
        ended_ns=row.time_ns("completedAt"),
        skip_reason=_skip_reason(run_id, row, config),
        status=_status(row, config),
    )


def has_ended(execution: Fields, config: RuntypeConfig) -> bool:
    """Whether an execution, listed or in detail, is terminal: never merely by not running, since it may be paused."""
    status = (execution.text("status") or "").lower()
    return execution.time_ns("completedAt") is not None or status in {word.lower() for word in config.terminal_statuses}


def read_execution(body: RunBody, config: RuntypeConfig) -> Run:
    """The run of a body with the documents `detail`, `tools` and `tool/<id>`, the last two where there are any.

    Raises RunUnreadable where the detail is no execution at all.
    """
    problems: list[str] = []
    detail = Fields(unwrapped(body.documents["detail"]), problems)
    if detail.value("status") is None and detail.value("completedAt") is None:
        raise RunUnreadable(
            f"the answer for execution {body.ref.run_id!r} has neither a status nor an end: it is none",
            retryable=True,
        )
    tools = Fields(unwrapped(body.documents.get("tools")), problems, "tools")
    payloads = {
        name.removeprefix("tool/"): Fields(unwrapped(payload), problems, name)
        for name, payload in body.documents.items()
        if name.startswith("tool/")
    }
    started_ns, ended_ns = detail.time_ns("startedAt"), detail.time_ns("completedAt")
    created_ns = detail.time_ns("createdAt")
    call_rows = in_order(tools.rows("toolCalls"), lambda row: (row.identifier("id") or "",))
    calls = [_tool_call(row, payloads, config) for row in call_rows]
    iterations = detail.rows("iterationDetails")
    locator = body.ref.locator
    return Run(
        ref=body.ref,
        status=_status(detail, config),
        raw_status=detail.text("status"),
        stop_reason=detail.text("stopReason"),
        agent_id=detail.identifier("agentId") or locator.agent_id,
        agent_name=locator.agent_name,
        created_ns=created_ns,
        started_ns=started_ns,
        ended_ns=ended_ns,
        usage=read_usage(detail, "totalTokens"),
        cost=read_cost(detail, "totalCost"),
        steps=read_iterations(iterations, calls, started_ns or created_ns, ended_ns),
        steps_reported=detail.integer("iterations"),
        steps_listed=len(iterations) if detail.value("iterationDetails") is not None else None,
        parent_run_id=detail.identifier("parentExecutionId"),
        traceparent=find_traceparent(*map(detail.value, ("metadata", "inputMessages", "agentSpec"))),
        content=Content(input=_messages(detail.value("inputMessages")), output=said(detail.value("finalOutput"))),
        skip_reason=_skip_reason(body.ref.run_id, detail, config),
        problems=tuple(problems),
    )


def iso_time(time_ns: int) -> str:
    """An instant as ISO-8601 in UTC, cut to milliseconds."""
    instant = datetime.fromtimestamp(time_ns // SECOND_NS, UTC)
    return f"{instant:%Y-%m-%dT%H:%M:%S}.{time_ns % SECOND_NS // MS_NS:03}Z"


def _execution(ref: RunRef) -> list[str]:
    return ["v1", "agents", ref.locator.agent_id or "", "executions", ref.run_id]


def _listing(document: Json, where: str) -> tuple[Fields, list[Fields]]:
    refuse_failure(document, where)
    answer = Fields(document, [])
    return answer, rows_of(answer, "data", where)


def _following(
    walk: Walk, answer: Fields, rows: Sequence[Shown], most_pages: int | None = None
) -> tuple[Walk | None, str | None]:
    pagination = answer.child("pagination")
    token, more = pagination.identifier("nextCursor"), pagination.boolean("hasMore")
    return walk.behind(rows, token, more, most_pages=most_pages)


def _is_within(row: Listed, window: Window) -> bool:
    latest_ns = row.ended_ns or row.time_ns
    if row.terminal and latest_ns is not None and latest_ns < window.start_ns:
        return False
    return window.end_ns is None or row.time_ns is None or row.time_ns < window.end_ns


def _skip_reason(run_id: str, execution: Fields, config: RuntypeConfig) -> str | None:
    source = execution.text("agentSource") or ""
    external = run_id.lower().startswith("otel-") or source.lower() == "external"
    return "external" if external and not config.include_external else None


def _status(detail: Fields, config: RuntypeConfig) -> RunStatus:
    if not has_ended(detail, config):
        return RunStatus.OPEN
    status = STATUSES.get((detail.text("status") or "").lower(), RunStatus.SUCCESS)
    stop_reason = (detail.text("stopReason") or "").lower()
    if status in (RunStatus.SUCCESS, RunStatus.FAILED) and stop_reason == "timeout":
        return RunStatus.TIMEOUT
    if status is RunStatus.SUCCESS and stop_reason == "error":
        return RunStatus.FAILED
    return status


def _tool_call(row: Fields, payloads: Mapping[str, Fields], config: RuntypeConfig) -> Step:
    call_id = row.identifier("id")
    name = row.text("toolName")
    logged_ns = row.time_ns("createdAt")
    failure = row.text("errorMessage")
    failed = failure is not None or (row.text("status") or "").lower() in FAILED_CALL_STATUSES
    code = _HTTP_CODE.search(failure or "")
    payload = payloads.get(call_id or "")
    attributes: dict[str, AttributeValue] = {"gen_ai.tool.type": "extension"}
    told = {
        "gen_ai.tool.call.id": call_id,
        "runspan.tool.status": row.text("status"),
        "runspan.tool.model": row.text("model"),
    }
    attributes |= {attribute: text for attribute, text in told.items() if text}
    return Step(
        kind=StepKind.TOOL_CALL,
        key=("tool", call_id) if call_id else ("tool", "", name or "", str(logged_ns)),
        name=name,
        start_ns=logged_ns if config.tool_time == "start" else None,
        end_ns=logged_ns if config.tool_time == "end" else None,
        duration_ns=row.duration_ns("executionTimeMs"),
        iteration=row.integer("iteration"),
        error=StepError((code[1] or code[2]) if code else "tool_error", failure) if failed else None,
        content=Content(
            arguments=payload.value("inputParameters") if payload else None,
            result=payload.value("outputResult") if payload else None,
        ),
        attributes=attributes,
    )


def _messages(value: Json) -> tuple[Message, ...]:
    """`inputMessages` is untyped: seen is a list of `{role, content}`."""
    if not isinstance(value, list):
        return () if value is None else (Message(role="user", text=as_text(value)),)
    messages: list[Message] = []
    for item in cast("list[Json]", value)[-MAX_ROWS:]:
        fields = Fields(item if isinstance(item, dict) else {"content": item}, [])
        content = fields.value("content")
        if content is not None:
            messages.append(Message(role=fields.text("role") or "user", text=_said_text(content)))
    return tuple(messages)


def _said_text(content: Json) -> str:
    """A message's text, which may come as a list of `{type: text, text}`; what has other parts is written as JSON."""
    if isinstance(content, list):
        parts = [Fields(part, []) for part in cast("list[Json]", content)]
        texts = [text for part in parts if part.value("type") == "text" and (text := part.text("text")) is not None]
        if texts and len(texts) == len(parts):
            return "\n".join(texts)
    return as_text(content)
