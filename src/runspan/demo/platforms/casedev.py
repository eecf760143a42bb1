"""case.dev: one list over the whole organization, light status polls, and the full trail of a run.

The list's cursor is the id of the last run seen; it answers the runs created before that one, newest first, without
any filter by time, and cuts each prompt to 200 characters.
"""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from runspan.demo.platforms.base import Platform, RateLimit
from runspan.demo.world import MS_NS, Json, Phase, WorldRun, iso_ms

STATUSES = frozenset({"queued", "running", "completed", "failed", "cancelled"})


class Casedev(Platform):
    """The platform `casedev`."""

    name = "casedev"
    default_key = "sk_case_demo_5f1c9a7e2b"
    default_limit = RateLimit(200, 60)

    def routes(self) -> list[Route]:
        """Runs (list, status, details) and agents, version 1."""
        return [
            Route("/agent/v1/run", self.list_runs),
            Route("/agent/v1/run/{run_id}/status", self.status),
            Route("/agent/v1/run/{run_id}/details", self.details),
            Route("/agent/v1/agents", self.list_agents),
        ]

    def presented_key(self, headers: Mapping[str, str]) -> str | None:
        """`Authorization: Bearer sk_case_...`."""
        return headers.get("authorization", "").removeprefix("Bearer ") or None

    def error(self, status: int, message: str) -> Response:
        """`error` is an object here."""
        kind = {401: "authentication_error", 404: "not_found_error"}.get(
            status, "api_error" if status >= 500 else "invalid_request_error"
        )
        return JSONResponse({"error": {"message": message, "type": kind}}, status)

    def too_many(self, retry_after_seconds: int) -> Response:
        """The body alone tells how long to wait: a Retry-After header is not confirmed."""
        message = f"Rate limit exceeded, retry after {retry_after_seconds} seconds"
        error = {"message": message, "type": "rate_limit_error", "code": "rate_limit_exceeded"}
        return JSONResponse({"error": error}, 429)

    def rate_headers(self, limit: RateLimit, remaining: int, reset_seconds: int) -> dict[str, str]:
        """On every answer; the reset has a unit."""
        return {
            "x-ratelimit-limit-requests": str(limit.requests),
            "x-ratelimit-remaining-requests": str(remaining),
            "x-ratelimit-reset-requests": f"{reset_seconds}s",
            "x-ratelimit-tier": "free",
        }

    async def list_runs(self, request: Request) -> Response:
        """`agentId`, `status` (one value), `limit` 1..250 (default 50), `cursor`; anything else is ignored."""
        query = request.query_params
        limit = _limit(query.get("limit"))
        wanted = query.get("status")
        if wanted is not None and wanted not in STATUSES:
            raise HTTPException(400, "status must be one of " + ", ".join(sorted(STATUSES)))
        now_ns = self.world.now()

        page = self.page(
            agent_id=query.get("agentId"),
            cursor=query.get("cursor"),
            limit=limit,
            keep=lambda run: wanted is None or status_of(run, now_ns) == wanted,
        )
        return JSONResponse(
            {
                "runs": [listed(run, now_ns) for run in page.runs],
                "hasMore": page.next_cursor is not None,
                "nextCursor": page.next_cursor,
            }
        )

    async def status(self, request: Request) -> Response:
        """The light poll."""
        run = self.visible_run(request.path_params["run_id"])
        now_ns = self.world.now()
        row = listed(run, now_ns)
        answer = {key: row.get(key) for key in ("id", "status", "startedAt", "completedAt")} | {"durationMs": None}
        if run.phase(now_ns) is Phase.ENDED and run.started_at_ns is not None and run.ended_at_ns is not None:
            answer["durationMs"] = (run.ended_at_ns - run.started_at_ns) // MS_NS
        return JSONResponse(answer)

    async def details(self, request: Request) -> Response:
        """The full trail, as far as it is written."""
        run = self.visible_run(request.path_params["run_id"])
        return JSONResponse(detail(run, self.world.now()))

    async def list_agents(self, request: Request) -> Response:
        """`limit` and `cursor` (an agent's id); ephemeral agents are not there."""
        agents = self.world.agents(self.name)
        cursor = request.query_params.get("cursor")
        ids = [agent.agent_id for agent in agents]
        if cursor is not None and cursor not in ids:
            raise HTTPException(400, "Invalid cursor")
        start = 0 if cursor is None else ids.index(cursor) + 1
        end = start + _limit(request.query_params.get("limit"))
        rows: list[Json] = [
            {
                "id": agent.agent_id,
                "name": agent.name,
                "description": agent.description or None,
                "model": None,
                "isActive": agent.active,
                "vaultIds": [],
                "createdAt": iso_ms(agent.created_at_ns),
                "updatedAt": iso_ms(agent.created_at_ns),
            }
            for agent in agents[start:end]
        ]
        more = end < len(agents)
        return JSONResponse({"agents": rows, "hasMore": more, "nextCursor": rows[-1]["id"] if more else None})


def status_of(run: WorldRun, now_ns: int) -> str:
    """The status a run has at `now_ns`."""
    phase = run.phase(now_ns)
    return run.body["status"] if phase is Phase.ENDED else phase.value


def listed(run: WorldRun, now_ns: int) -> Json:
    """The run's row in the list."""
    full = detail(run, now_ns)
    keys = ("id", "agentId", "status", "prompt", "model", "createdAt", "startedAt", "completedAt")
    row = {key: full[key] for key in keys if key in full}
    if isinstance(row.get("prompt"), str):
        row["prompt"] = row["prompt"][:200]
    return row


def detail(run: WorldRun, now_ns: int) -> Json:
    """The body of the details endpoint at `now_ns`."""
    body: Json = run.body | {"status": status_of(run, now_ns)}
    if isinstance(body.get("steps"), list):
        body["steps"] = run.written(body["steps"], now_ns)
    phase = run.phase(now_ns)
    if phase is not Phase.ENDED:
        body |= {"completedAt": None, "result": None, "usage": None}
        body["runtimeState"] = "running" if phase is Phase.RUNNING else None
    if phase is Phase.QUEUED:
        body |= {"startedAt": None, "runtimeId": None}
    return body


def _limit(text: str | None) -> int:
    if text is None:
        return 50
    if not text.isdigit() or not 1 <= int(text) <= 250:
        raise HTTPException(400, "limit must be between 1 and 250")
    return int(text)
