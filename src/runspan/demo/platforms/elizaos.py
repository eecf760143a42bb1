"""elizaOS: a self-hosted server whose runs are nothing but log rows, folded anew for each answer.

A run's body here is `{"roomId", "entityId", "events"}`: the log rows as the detail shows them, each written at its
`timestamp` (epoch milliseconds). From them follow all the oddities that server 1.7.2 has: `from` and `to` cut rows
and not runs, the list knows no durations and no actions, statuses outside its enum stay `started` there for ever, old
rows fade from the detail, and an unknown run is an empty answer rather than a 404.
"""

import bisect
import hashlib
import json
import math
import uuid
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from runspan.demo.platforms.base import Platform, RateLimit
from runspan.demo.world import MS_NS, SECOND_NS, Json, World, WorldRun

CACHE_NS = 15 * SECOND_NS
DETAIL_SCAN_ROWS = 5000
LISTED_TERMINAL = frozenset({"completed", "timeout", "error"})
STATUS_FILTERS = LISTED_TERMINAL | {"started"}

ERROR_CODES = {400: "INVALID_ID", 404: "NOT_FOUND", 500: "RUNS_ERROR"}


class Elizaos(Platform):
    """The platform `elizaos`. A `key` of None is a server without ELIZA_SERVER_AUTH_TOKEN: it asks for none."""

    name = "elizaos"
    default_key = "eliza-demo-token"
    default_limit = RateLimit(1000, 15 * 60)

    def __init__(self, world: World, *, seed: int = 0) -> None:
        super().__init__(world, seed=seed)
        self._cache: dict[str, tuple[int, Json]] = {}
        self._index = _RowIndex(world)

    def routes(self) -> list[Route]:
        """Agents, runs, one run."""
        return [
            Route("/api/agents", self.list_agents),
            Route("/api/agents/{agent_id}/runs", self.list_runs),
            Route("/api/agents/{agent_id}/runs/{run_id}", self.details),
        ]

    def presented_key(self, headers: Mapping[str, str]) -> str | None:
        """`X-API-KEY: <token>`."""
        return headers.get("x-api-key")

    def error(self, status: int, message: str) -> Response:
        """`error` is an object with a code; an unknown route has a number for it."""
        if message == "Not Found":
            error: Json = {"message": "API endpoint not found", "code": 404}
        else:
            error = {"code": ERROR_CODES.get(status, "RUNS_ERROR"), "message": message}
        return JSONResponse({"success": False, "error": error}, status)

    def unauthorized(self) -> Response:
        """Another shape than all other errors: `error` is a string."""
        body = {"error": "API key required", "message": "Missing or invalid X-API-KEY header"}
        return JSONResponse(body, 401)

    def too_many(self, retry_after_seconds: int) -> Response:
        """With Retry-After in seconds."""
        error = {"code": "RATE_LIMIT_EXCEEDED", "message": "Too many requests, please try again later"}
        body = {"success": False, "error": error}
        return JSONResponse(body, 429, {"retry-after": str(retry_after_seconds)})

    def rate_headers(self, limit: RateLimit, remaining: int, reset_seconds: int) -> dict[str, str]:
        """The limiter's draft headers; the reset is in seconds."""
        return {
            "RateLimit-Policy": f"{limit.requests};w={math.ceil(limit.window_seconds)}",
            "RateLimit-Limit": str(limit.requests),
            "RateLimit-Remaining": str(remaining),
            "RateLimit-Reset": str(reset_seconds),
        }

    async def list_agents(self, request: Request) -> Response:
        """All agents; not paged."""
        agents = [
            {
                "id": agent.agent_id,
                "name": agent.name,
                "characterName": agent.name,
                "bio": agent.description,
                "status": "active" if agent.active else "inactive",
            }
            for agent in self.world.agents(self.name)
        ]
        return JSONResponse({"success": True, "data": {"agents": agents}})

    async def list_runs(self, request: Request) -> Response:
        """`roomId`, `status` (an unknown one filters nothing), `limit`, `from` and `to` over the rows' write time."""
        agent_id = self._running_agent(request)
        query = request.query_params
        room_id = query.get("roomId")
        if room_id and not _is_uuid(room_id):
            raise HTTPException(400, "Invalid room ID format")
        limit = max(int(min(_number(query.get("limit")) or 20, 100)), 1)
        from_ms, to_ms = _number(query.get("from")), _number(query.get("to"))
        status = query.get("status")

        cache_key = json.dumps([agent_id, room_id, status, limit, request.headers.get("x-entity-id")])
        now_ns = self.world.now()
        expires_ns, payload = self._cache.get(cache_key, (0, {}))
        if from_ms or to_ms or expires_ns <= now_ns:
            payload = self._fold(agent_id, room_id, status, limit, from_ms, to_ms)
            if not from_ms and not to_ms:
                self._cache[cache_key] = (now_ns + CACHE_NS, payload)
        return _with_etag(request, {"success": True, "data": payload})

    async def details(self, request: Request) -> Response:
        """A run's events; an unknown, wrongly roomed or faded run is an empty one. Any agent's id reads any run."""
        agent_id = self._running_agent(request)
        run_id = request.path_params["run_id"]
        room_id = request.query_params.get("roomId")
        if not _is_uuid(run_id):
            raise HTTPException(400, "Invalid agent or run ID format")
        if room_id and not _is_uuid(room_id):
            raise HTTPException(400, "Invalid room ID format")

        run = self.world.run(self.name, run_id)
        events: list[Json] = []
        if run is not None and room_id in (None, "", run.body["roomId"]):
            self.check_agent(run.agent_id)
            now_ms = self.world.now() // MS_NS
            oldest_ms = self._index.oldest_scanned_ms(room_id or None, now_ms)
            events = [row for row in written(run, now_ms) if _written_ms(row) >= oldest_ms]
        if run is None or not events:
            counts = {"actions": 0, "modelCalls": 0, "errors": 0, "evaluators": 0}
            summary: Json = {"runId": run_id, "status": "started"}
            summary |= {"roomId": room_id} if room_id else {}
            summary |= {"entityId": agent_id, "counts": counts}
        else:
            summary = summarised(run, events)
            if run.documented:
                return JSONResponse(documented(run, summary, events))
        return JSONResponse({"success": True, "data": {"summary": summary, "events": events}})

    def _running_agent(self, request: Request) -> str:
        agent_id: str = request.path_params["agent_id"]
        if not _is_uuid(agent_id):
            raise HTTPException(400, "Invalid agent ID format")
        agent = self.world.agent(self.name, agent_id)
        if agent is None or not agent.active:
            raise HTTPException(404, "Agent not found")
        self.check_agent(agent_id)
        return agent_id

    def _fold(
        self,
        agent_id: str,
        room_id: str | None,
        status: str | None,
        limit: int,
        from_ms: float | None,
        to_ms: float | None,
    ) -> Json:
        # Newest row first, so an end is folded before its start is known (hence no durations), and of several ends
        # the earliest stands.
        now_ms = self.world.now() // MS_NS
        rows = self._index.run_rows(agent_id, from_ms or 0, min(to_ms or math.inf, now_ms))
        found: dict[str, Json] = {}
        scanned = 0
        for timestamp, _, run_id, row in reversed(rows):
            run = self.world.run(self.name, run_id)
            if run is None or (room_id and run.body["roomId"] != room_id):
                continue
            scanned += 1
            if scanned > max(limit * 20, 200):
                break
            listed = found.setdefault(run_id, _unfolded(run, now_ms))
            if row["type"] == "RUN_STARTED":
                listed["startedAt"] = timestamp
            elif row["data"].get("status") in LISTED_TERMINAL:
                listed |= {"status": row["data"]["status"], "endedAt": timestamp}

        runs = [row for row in found.values() if status not in STATUS_FILTERS or row["status"] == status]
        runs.sort(key=lambda row: row["startedAt"] or 0, reverse=True)
        shown = runs[:limit]
        if self.quirks.shuffled_pages:
            self._random.shuffle(shown)
        shown = shown[: self.quirks.duplicated_rows] + shown
        return {"runs": shown, "total": len(runs), "hasMore": len(runs) > limit}


def written(run: WorldRun, now_ms: int) -> list[Json]:
    """The rows of a run that are written by `now_ms`, in the order of their writing."""
    return sorted((row for row in run.body["events"] if _written_ms(row) <= now_ms), key=_written_ms)


def summarised(run: WorldRun, events: list[Json]) -> Json:
    """The detail's summary of these rows: its last RUN_ENDED counts, and model calls inside actions do so twice."""
    started = next((row for row in events if row["type"] == "RUN_STARTED"), None)
    ends = [row for row in events if row["type"] == "RUN_ENDED"]
    started_ms: int = (started or events[0])["timestamp"]
    summary: Json = {"runId": run.run_id, "status": ends[-1]["data"]["status"] if ends else "started"}
    summary["startedAt"] = started_ms
    if ends:
        summary["endedAt"] = ends[-1]["timestamp"]
        if started is not None:
            summary["durationMs"] = ends[-1]["timestamp"] - started_ms
    actions = [row["data"] for row in events if row["type"] == "ACTION_COMPLETED"]
    counts = {
        "actions": _count(events, "ACTION_STARTED") or len(actions),
        "modelCalls": _count(events, "MODEL_USED") + sum(action.get("promptCount") or 0 for action in actions),
        "errors": sum(row["type"] == "EMBEDDING_EVENT" and row["data"]["status"] == "failed" for row in events),
        "evaluators": _count(events, "EVALUATOR_COMPLETED"),
    }
    identity = {"messageId": _message_id(run), "roomId": run.body["roomId"], "entityId": run.body["entityId"]}
    return summary | identity | {"counts": counts}


DOCUMENTED_TYPES = {
    "MODEL_USED": "model:used",
    "ACTION_STARTED": "action:started",
    "ACTION_COMPLETED": "action:completed",
}


def documented(run: WorldRun, summary: Json, events: list[Json]) -> Json:
    """The same run in the shape of the vendor's page: bare, without run events, with tokens where they are known."""
    rows: list[Json] = []
    used = {"promptTokens": 0, "completionTokens": 0, "totalTokens": 0}
    errors: list[str] = []
    for row in events:
        data = row["data"]
        if row["type"] == "RUN_ENDED" and data.get("error"):
            errors.append(data["error"])
        if row["type"] not in DOCUMENTED_TYPES:
            continue
        if row["type"] == "MODEL_USED":
            tokens = {"prompt": data.get("inputTokens") or 0, "completion": data.get("outputTokens") or 0}
            used["promptTokens"] += tokens["prompt"]
            used["completionTokens"] += tokens["completion"]
            used["totalTokens"] += tokens["prompt"] + tokens["completion"]
            model_type = data["modelType"].lower().replace("_", ":")
            shown: Json = {"modelType": model_type, "provider": data["provider"], "tokens": tokens}
        else:
            shown = {"action": data["actionName"]} | ({"success": data["success"]} if "success" in data else {})
        rows.append({"type": DOCUMENTED_TYPES[row["type"]], "timestamp": row["timestamp"], "data": shown})
    return {
        "runId": run.run_id,
        "agentId": run.agent_id,
        "roomId": run.body["roomId"],
        "startTime": summary["startedAt"],
        "endTime": summary.get("endedAt"),
        "status": "failed" if errors else summary["status"],
        "events": rows,
        "tokensUsed": used,
        "errors": errors,
    }


class _RowIndex:
    """All log rows of the world by write time, made anew whenever the world's stock has changed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._revision = -1
        self._run_rows: dict[str, list[tuple[int, int, str, Json]]] = {}
        self._row_times: dict[str | None, list[int]] = {}

    def run_rows(self, agent_id: str, from_ms: float, to_ms: float) -> list[tuple[int, int, str, Json]]:
        """The agent's run rows written in [from_ms, to_ms], oldest first, as (written at, tie breaker, run id, row)."""
        self._refresh()
        rows = self._run_rows.get(agent_id, [])
        start = bisect.bisect_left(rows, from_ms, key=lambda row: row[0])
        return rows[start : bisect.bisect_right(rows, to_ms, key=lambda row: row[0])]

    def oldest_scanned_ms(self, room_id: str | None, now_ms: int) -> int:
        """The write time of the oldest row that a detail still sees, in one room or (None) in the whole database."""
        self._refresh()
        times = self._row_times.get(room_id, [])
        faded = bisect.bisect_right(times, now_ms) - DETAIL_SCAN_ROWS
        return times[faded] if faded > 0 else 0

    def _refresh(self) -> None:
        if self._revision == self._world.revision:
            return
        run_rows: dict[str, list[tuple[int, int, str, Json]]] = defaultdict(list)
        row_times: dict[str | None, list[int]] = defaultdict(list)
        for ordinal, run in enumerate(self._world.runs(Elizaos.name)):
            for place, row in enumerate(run.body["events"]):
                for room in (None, run.body["roomId"]):
                    row_times[room].append(_written_ms(row))
                if row["type"] in ("RUN_STARTED", "RUN_ENDED"):
                    run_rows[run.agent_id].append((_written_ms(row), ordinal * 1000 + place, run.run_id, row))
        for rows in run_rows.values():
            rows.sort(key=lambda row: row[:2])
        for times in row_times.values():
            times.sort()
        self._run_rows, self._row_times, self._revision = run_rows, row_times, self._world.revision


def _unfolded(run: WorldRun, now_ms: int) -> Json:
    model_calls = _count(written(run, now_ms), "MODEL_USED")
    return {
        "runId": run.run_id,
        "status": "started",
        "startedAt": None,
        "endedAt": None,
        "durationMs": None,
        "messageId": _message_id(run),
        "roomId": run.body["roomId"],
        "entityId": run.body["entityId"],
        "metadata": {},
        "counts": {"actions": 0, "modelCalls": model_calls, "errors": 0, "evaluators": 0},
    }


def _written_ms(row: Json) -> int:
    """When a row was written; a test may have spoilt its timestamp, and then it was always there."""
    timestamp = row.get("timestamp")
    return timestamp if isinstance(timestamp, int) else 0


def _count(events: list[Json], kind: str) -> int:
    return sum(row["type"] == kind for row in events)


def _message_id(run: WorldRun) -> str | None:
    return next((row["data"].get("messageId") for row in run.body["events"] if row["type"] == "RUN_STARTED"), None)


def _number(text: str | None) -> float | None:
    """As JavaScript reads a query parameter: what is no number, or 0, is as good as absent."""
    try:
        value = float(text or 0)
    except ValueError:
        return None
    return value if value and not math.isnan(value) else None


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return len(text) == 36


def _with_etag(request: Request, body: Any) -> Response:
    etag = 'W/"' + hashlib.sha256(json.dumps(body).encode()).hexdigest()[:27] + '"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"etag": etag})
    return JSONResponse(body, headers={"etag": etag})
