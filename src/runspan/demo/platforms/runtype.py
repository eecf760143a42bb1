"""Runtype: executions per agent, their tool calls apart from them.

Neither the status words, the order of the list, its largest page nor the field behind `from` and `to` are documented:
here pages hold at most 100 executions by creation, newest first, and the window is over `createdAt`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from runspan.demo.platforms.base import Platform, RateLimit, integer
from runspan.demo.world import Json, Phase, WorldAgent, WorldRun, iso_ms

PAGE_DEFAULT = 50
PAGE_MAX = 100
OPEN_STATUSES = {Phase.QUEUED: "queued", Phase.RUNNING: "running"}
EXACT_FILTERS = ("status", "surfaceType", "parentExecutionId", "executionId")
PAYLOAD_KEYS = frozenset({"toolId", "inputParameters", "outputResult"})
UNSET_UNTIL_THE_END = ("completedAt", "stopReason", "finalOutput", "totalCost", "totalTokens")
DETAIL_ONLY = frozenset({"finalOutput", "iterationDetails", "loopConfig"})


class Runtype(Platform):
    """The platform `runtype`."""

    name = "runtype"
    default_key = "rt_test_demo_41e7c20d"
    default_limit = RateLimit(300, 60)

    def routes(self) -> list[Route]:
        """Agents, executions, one execution, its tool calls, one tool call."""
        executions = "/v1/agents/{agent_id}/executions"
        return [
            Route("/v1/agents", self.list_agents),
            Route(executions, self.list_executions),
            Route(executions + "/{run_id}", self.details),
            Route(executions + "/{run_id}/tool-calls", self.list_tool_calls),
            Route(executions + "/{run_id}/tool-calls/{call_id}", self.tool_call),
        ]

    def presented_key(self, headers: Mapping[str, str]) -> str | None:
        """`Authorization: Bearer rt_live_...` or `rt_test_...`."""
        return headers.get("authorization", "").removeprefix("Bearer ") or None

    def error(self, status: int, message: str) -> Response:
        """`error` is a string here."""
        headers = {"www-authenticate": "Bearer"} if status == 401 else None
        return JSONResponse({"error": message}, status, headers)

    def too_many(self, retry_after_seconds: int) -> Response:
        """With Retry-After, as documented for the free plan's slow mode."""
        body = {"error": "Rate limit exceeded", "code": "RATE_LIMIT_EXCEEDED"}
        return JSONResponse(body, 429, {"retry-after": str(retry_after_seconds)})

    async def list_agents(self, request: Request) -> Response:
        """`limit`, `cursor` (an agent's id), `search`, `includeCount`."""
        query = request.query_params
        search = query.get("search", "").lower()
        agents = [agent for agent in self.world.agents(self.name) if search in agent.name.lower()]
        ids = [agent.agent_id for agent in agents]
        cursor = query.get("cursor")
        if cursor is not None and cursor not in ids:
            raise HTTPException(400, "Invalid cursor")
        start = 0 if cursor is None else ids.index(cursor) + 1
        limit = _limit(query.get("limit"))
        rows = [self._agent_row(agent) for agent in agents[start : start + limit]]
        more = start + limit < len(agents)
        pagination = _pagination(limit, cursor, rows[-1]["id"] if more else None)
        if query.get("includeCount") == "true":
            pagination |= _counts(len(agents), limit, start)
        return JSONResponse({"data": rows, "pagination": pagination})

    async def list_executions(self, request: Request) -> Response:
        """`limit`, `cursor`, `includeCount`, `from`, `to`, and what a row must be equal to."""
        agent_id = self._known_agent(request)
        query = request.query_params
        now_ns = self.world.now()
        from_ns, to_ns = _instant_ns(query.get("from"), "from"), _instant_ns(query.get("to"), "to")
        exact = {key: query[key] for key in EXACT_FILTERS if key in query}

        def keep(run: WorldRun) -> bool:
            if from_ns is not None and run.created_at_ns < from_ns:
                return False
            if to_ns is not None and run.created_at_ns > to_ns:
                return False
            row = listed(run, now_ns) if exact else {}
            return all(row.get(key) == value for key, value in exact.items())

        limit = _limit(query.get("limit"))
        cursor = query.get("cursor")
        page = self.page(agent_id=agent_id, cursor=cursor, limit=limit, keep=keep)
        pagination = _pagination(limit, cursor, page.next_cursor)
        if query.get("includeCount") == "true":
            pagination |= _counts(sum(map(keep, self.world.newest_first(self.name, agent_id))), limit, 0)
        return JSONResponse({"data": [listed(run, now_ns) for run in page.runs], "pagination": pagination})

    async def details(self, request: Request) -> Response:
        """One execution."""
        return JSONResponse(detail(self._execution(request), self.world.now()))

    async def list_tool_calls(self, request: Request) -> Response:
        """All tool calls of an execution without their payloads; not paged."""
        run = self._execution(request)
        calls = [
            {key: value for key, value in call.items() if key not in PAYLOAD_KEYS}
            for call in run.written(run.tool_calls, self.world.now())
        ]
        return JSONResponse({"toolCalls": calls})

    async def tool_call(self, request: Request) -> Response:
        """One tool call with its payload; its iteration stands in the list only."""
        run = self._execution(request)
        for call in run.written(run.tool_calls, self.world.now()):
            if call["id"] == request.path_params["call_id"]:
                return JSONResponse({key: value for key, value in call.items() if key != "iteration"})
        raise HTTPException(404, "Tool call not found")

    def _known_agent(self, request: Request) -> str:
        agent_id: str = request.path_params["agent_id"]
        if self.world.agent(self.name, agent_id) is None:
            raise HTTPException(404, "Agent not found")
        self.check_agent(agent_id)
        return agent_id

    def _execution(self, request: Request) -> WorldRun:
        agent_id = self._known_agent(request)
        run = self.visible_run(request.path_params["run_id"], "Execution not found")
        if run.agent_id != agent_id:
            raise HTTPException(404, "Execution not found")
        return run

    def _agent_row(self, agent: WorldAgent) -> Json:
        last = next(self.world.newest_first(self.name, agent.agent_id), None)
        row: Json = {
            "id": agent.agent_id,
            "name": agent.name,
            "description": agent.description or None,
            "icon": None,
            "primaryFlowId": None,
            "config": {},
            "status": "active" if agent.active else "inactive",
            "createdAt": iso_ms(agent.created_at_ns),
            "updatedAt": iso_ms(agent.created_at_ns),
            "capabilityCount": 1,
        }
        return row if last is None else row | {"lastRunAt": iso_ms(last.created_at_ns)}


def listed(run: WorldRun, now_ns: int) -> Json:
    """The execution's row in the list: the detail without what only the detail has."""
    return {key: value for key, value in detail(run, now_ns).items() if key not in DETAIL_ONLY}


def detail(run: WorldRun, now_ns: int) -> Json:
    """The body of the detail endpoint at `now_ns`; one that never ends keeps its body's status, as paused ones do."""
    body = dict(run.body)
    phase = run.phase(now_ns)
    if phase is Phase.ENDED:
        return body
    body |= dict.fromkeys(UNSET_UNTIL_THE_END)
    if isinstance(body.get("iterationDetails"), list):
        body["iterationDetails"] = run.written(body["iterationDetails"], now_ns)
        body["iterations"] = len(body["iterationDetails"])
    if phase is Phase.QUEUED:
        body["startedAt"] = None
    if phase is Phase.QUEUED or run.ended_at_ns is not None:
        body["status"] = OPEN_STATUSES[phase]
    return body


def _limit(text: str | None) -> int:
    return min(max(integer(text, PAGE_DEFAULT), 1), PAGE_MAX)


def _pagination(limit: int, cursor: str | None, next_cursor: str | None) -> Json:
    return {
        "nextCursor": next_cursor,
        "prevCursor": None,
        "hasMore": next_cursor is not None,
        "hasPrev": cursor is not None,
        "limit": limit,
        "currentOffset": 0,
    }


def _counts(total: int, limit: int, offset: int) -> Json:
    return {"totalCount": total, "totalPages": -(-total // limit), "currentPage": offset // limit + 1}


def _instant_ns(text: str | None, name: str) -> int | None:
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise HTTPException(400, f"{name} must be an ISO-8601 date") from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return round(instant.timestamp() * 1_000_000) * 1000
