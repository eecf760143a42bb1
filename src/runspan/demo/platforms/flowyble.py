"""Flowyble: runs are started and asked for by id; no list is documented.

A list exists only where the simulated account has one (`Flowyble.list_shape`), since real ones may differ: its items
stand under a configurable key, and it is paged by `page`/`pageSize`, `offset`/`limit` or `cursor`, as it is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from runspan.demo.platforms.base import Platform, RateLimit, integer
from runspan.demo.samples.builders import flowyble_run
from runspan.demo.world import Json, Phase, World, WorldRun

OPEN_STATUSES = {Phase.QUEUED: "Pending", Phase.RUNNING: "Running"}


@dataclass(frozen=True, slots=True)
class ListShape:
    """How the undocumented list answers: `items` is the key of the rows, None for a bare array."""

    items: str | None = "items"


class Flowyble(Platform):
    """The platform `flowyble`."""

    name = "flowyble"
    base_path = "/v1"
    default_key = "flw_key_demo_8d04b16c"
    default_limit = RateLimit(100, 60)

    def __init__(self, world: World, *, seed: int = 0) -> None:
        super().__init__(world, seed=seed)
        self.list_shape: ListShape | None = None
        self._started = 0

    def routes(self) -> list[Route]:
        """Start, status, details; and the list that may be there."""
        return [
            Route("/v1/agents/run/{agent_id}", self.start, methods=["POST"]),
            Route("/v1/agents/run/{run_id}/status", self.status),
            Route("/v1/agents/run/{run_id}/details", self.details),
            Route("/v1/agents/{agent_id}/runs", self.list_runs),
        ]

    def presented_key(self, headers: Mapping[str, str]) -> str | None:
        """`X-API-Key: flw_key_...`."""
        return headers.get("x-api-key")

    def error(self, status: int, message: str) -> Response:
        """One shape for all: `{"success": false, "message": ...}`."""
        return JSONResponse({"success": False, "message": message}, status)

    def too_many(self, retry_after_seconds: int) -> Response:
        """No Retry-After: the docs only say to wait for the window to reset."""
        return self.error(429, "Rate limit exceeded. Wait for the window to reset.")

    async def start(self, request: Request) -> Response:
        """Starts a run that goes on for some seconds."""
        try:
            message = (await request.json())["userMessage"]
        except (ValueError, KeyError, TypeError):
            raise HTTPException(400, "userMessage is required") from None
        agent = self.world.agent(self.name, request.path_params["agent_id"])
        if agent is None:
            raise HTTPException(404, "Agent not found")
        self._started += 1
        key, now_ns = f"started {self._started}", self.world.now()
        run = self.world.add(flowyble_run(key, created_at_ns=now_ns, agent=agent, prompt=str(message), seconds=4.0))
        return JSONResponse({"success": True, "id": run.run_id, "status": "Pending", "message": "Agent run started"})

    async def status(self, request: Request) -> Response:
        """The same object as the details, without its steps."""
        run = self.visible_run(request.path_params["run_id"], "Agent run not found")
        return JSONResponse(without_steps(run, self.world.now()))

    async def details(self, request: Request) -> Response:
        """The run with its steps."""
        run = self.visible_run(request.path_params["run_id"], "Agent run not found")
        return JSONResponse(detail(run, self.world.now()))

    async def list_runs(self, request: Request) -> Response:
        """The agent's runs, newest first; 404 where the account has no such list."""
        agent_id = request.path_params["agent_id"]
        if self.list_shape is None:
            raise HTTPException(404, "Not found")
        if self.world.agent(self.name, agent_id) is None:
            raise HTTPException(404, "Agent not found")
        self.check_agent(agent_id)
        query = request.query_params
        size = integer(query.get("pageSize") or query.get("limit"), 20)
        now_ns = self.world.now()
        if "page" in query or "offset" in query:
            page_number = max(integer(query.get("page"), 1), 1)
            offset = integer(query.get("offset"), (page_number - 1) * size)
            everything = list(self.world.newest_first(self.name, agent_id))
            runs, next_cursor, total = everything[offset : offset + size], None, len(everything)
            if self.quirks.shuffled_pages:
                self._random.shuffle(runs)
            envelope: Json = {"page": page_number, "pageSize": size, "totalCount": total}
        else:
            page = self.page(agent_id=agent_id, cursor=query.get("cursor"), limit=size, keep=lambda run: True)
            runs, next_cursor = page.runs, page.next_cursor
            envelope = {"nextCursor": next_cursor, "hasMore": next_cursor is not None}
        rows = [without_steps(run, now_ns) for run in runs]
        if self.list_shape.items is None:
            return JSONResponse(rows)
        return JSONResponse({self.list_shape.items: rows} | envelope)


def detail(run: WorldRun, now_ns: int) -> Json:
    """The body of the details endpoint at `now_ns`."""
    body = dict(run.body)
    if isinstance(body.get("steps"), list):
        body["steps"] = run.written(body["steps"], now_ns)
    phase = run.phase(now_ns)
    if phase is Phase.ENDED:
        return body
    body |= {"status": OPEN_STATUSES[phase], "finalOutput": None, "errorMessage": None, "finishedAt": None}
    body |= {"stepsExecuted": len(body["steps"]), "tokensUsed": 0, "actionsUsed": 0, "creditsUsed": 0}
    if phase is Phase.QUEUED:
        body["startedAt"] = None
    return body


def without_steps(run: WorldRun, now_ns: int) -> Json:
    """The body of the status endpoint at `now_ns`."""
    return {key: value for key, value in detail(run, now_ns).items() if key != "steps"}
