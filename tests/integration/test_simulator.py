"""The simulator against the facts of the four platforms: the other tests trust it as their witness."""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import chain
from typing import Any

import httpx
import pytest

from runspan.demo.faults import Close, CutOff, Delay, Hang, Reply, Reset, html, redirect
from runspan.demo.platforms import Flowyble, ListShape, RateLimit
from runspan.demo.samples import casedev_run, elizaos_run, flowyble_run, populate, runtype_execution
from runspan.demo.samples.builders import CONTRACT_REVIEWER, FREJA, REPORT_WRITER, STOCK_BOT, Call
from runspan.demo.simulator import Simulator
from runspan.demo.world import MS_NS, SECOND_NS, World, WorldRun

T0_NS = 1_777_000_000 * SECOND_NS
T0_MS = T0_NS // MS_NS
HOUR_NS = 3600 * SECOND_NS

LISTS = {
    "flowyble": f"/agents/{STOCK_BOT.agent_id}/runs",
    "runtype": f"/v1/agents/{REPORT_WRITER.agent_id}/executions",
    "elizaos": f"/api/agents/{FREJA.agent_id}/runs",
    "casedev": "/agent/v1/run",
}
BUILDERS = {
    "flowyble": flowyble_run,
    "runtype": runtype_execution,
    "elizaos": elizaos_run,
    "casedev": casedev_run,
}
PLATFORMS = list(BUILDERS)


class Clock:
    def __init__(self) -> None:
        self.ns = T0_NS

    def __call__(self) -> int:
        return self.ns

    def to(self, seconds: float) -> None:
        self.ns = T0_NS + int(seconds * SECOND_NS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def simulator(clock: Clock) -> AsyncIterator[Simulator]:
    async with Simulator(World(now=clock)) as simulator:
        flowyble = simulator.platforms["flowyble"]
        assert isinstance(flowyble, Flowyble)
        flowyble.list_shape = ListShape()
        yield simulator


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=5) as client:
        yield client


@pytest.fixture
def ask(simulator: Simulator, client: httpx.AsyncClient):
    async def ask(platform: str, path: str | None = None, *, headers: dict[str, str] | None = None, **query: Any):
        url = simulator.urls[platform] + (LISTS[platform] if path is None else path)
        return await client.get(url, params=query, headers=auth(simulator, platform) | (headers or {}))

    return ask


def auth(simulator: Simulator, platform: str) -> dict[str, str]:
    key = simulator.keys[platform]
    assert key is not None
    return {"x-api-key": key} if platform in ("flowyble", "elizaos") else {"authorization": f"Bearer {key}"}


def fill(simulator: Simulator, platform: str, count: int, *, apart_seconds: float = 60.0) -> list[str]:
    """Runs that ended in the hours before now; their ids, newest first."""
    runs = [
        BUILDERS[platform](number, created_at_ns=T0_NS - HOUR_NS - int(number * apart_seconds * SECOND_NS), calls=())
        for number in range(count)
    ]
    for run in runs:
        simulator.world.add(run)
    return [run.run_id for run in runs]


def details_path(run: WorldRun) -> str:
    return {
        "flowyble": f"/agents/run/{run.run_id}/details",
        "runtype": f"/v1/agents/{run.agent_id}/executions/{run.run_id}",
        "elizaos": f"/api/agents/{run.agent_id}/runs/{run.run_id}",
        "casedev": f"/agent/v1/run/{run.run_id}/details",
    }[run.platform]


def rows_of(platform: str, answer: httpx.Response) -> list[dict[str, Any]]:
    return answer.json()[{"flowyble": "items", "runtype": "data", "casedev": "runs"}[platform]]


async def walk(ask: Any, platform: str, *, pages_at_most: int = 50, **query: Any) -> list[list[str]]:
    """The ids of every page, following the next cursors."""
    pages: list[list[str]] = []
    while len(pages) < pages_at_most:
        answer = await ask(platform, **query)
        assert answer.status_code == 200
        pages.append([row["id"] for row in rows_of(platform, answer)])
        body = answer.json()
        cursor = body["pagination"]["nextCursor"] if platform == "runtype" else body["nextCursor"]
        if cursor is None:
            break
        query["cursor"] = cursor
    return pages


class TestDoor:
    @pytest.mark.parametrize(
        ("platform", "body"),
        [
            ("flowyble", {"success": False, "message": "Invalid API key"}),
            ("runtype", {"error": "Invalid API key"}),
            ("elizaos", {"error": "API key required", "message": "Missing or invalid X-API-KEY header"}),
            ("casedev", {"error": {"message": "Invalid API key", "type": "authentication_error"}}),
        ],
    )
    async def test_a_wrong_key_is_refused_as_the_platform_does(self, ask, platform, body):
        answer = await ask(platform, headers={"x-api-key": "wrong", "authorization": "Bearer wrong"})
        assert (answer.status_code, answer.json()) == (401, body)
        assert not any(name.startswith("ratelimit") for name in answer.headers)
        assert ("www-authenticate" in answer.headers) == (platform == "runtype")

    async def test_without_a_key_nobody_is_asked_for_one(self, simulator, client):
        simulator.platforms["elizaos"].key = None
        assert (await client.get(simulator.urls["elizaos"] + "/api/agents")).status_code == 200

    @pytest.mark.parametrize("platform", PLATFORMS)
    async def test_requests_over_the_limit_of_any_window_get_429(self, simulator, ask, platform):
        fill(simulator, platform, 1)
        simulator.platforms[platform].limit = RateLimit(3, 0.4)
        assert [(await ask(platform)).status_code for _ in range(4)] == [200, 200, 200, 429]
        assert simulator.busiest(platform, 60) == 4
        deadline = time.monotonic() + 5
        while (await ask(platform)).status_code == 429:
            assert time.monotonic() < deadline

    @pytest.mark.parametrize(
        ("platform", "body", "headers"),
        [
            ("flowyble", {"success": False, "message": "Rate limit exceeded. Wait for the window to reset."}, {}),
            (
                "runtype",
                {"error": "Rate limit exceeded", "code": "RATE_LIMIT_EXCEEDED"},
                {"retry-after": "60"},
            ),
            (
                "elizaos",
                {
                    "success": False,
                    "error": {
                        "code": "RATE_LIMIT_EXCEEDED",
                        "message": "Too many requests, please try again later",
                    },
                },
                {"retry-after": "60", "ratelimit-policy": "0;w=60", "ratelimit-remaining": "0"},
            ),
            (
                "casedev",
                {
                    "error": {
                        "message": "Rate limit exceeded, retry after 60 seconds",
                        "type": "rate_limit_error",
                        "code": "rate_limit_exceeded",
                    }
                },
                {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "60s"},
            ),
        ],
    )
    async def test_429_in_the_platforms_own_words(self, simulator, ask, platform, body, headers):
        simulator.platforms[platform].limit = RateLimit(0, 60)
        answer = await ask(platform)
        assert (answer.status_code, answer.json()) == (429, body)
        assert headers.items() <= dict(answer.headers).items()
        if platform in ("flowyble", "casedev"):
            assert "retry-after" not in answer.headers

    async def test_requests_are_recorded_without_their_secrets(self, simulator, ask):
        await ask("casedev", limit=7, headers={"x-request-id": "abc"})
        (request,) = simulator.asked("casedev")
        assert (request.method, request.path, request.query) == ("GET", "/agent/v1/run", {"limit": "7"})
        assert request.status == 200
        assert abs(request.time_ns - time.time_ns()) < 5 * SECOND_NS
        assert request.headers["x-request-id"] == "abc"
        assert "authorization" not in request.headers

    @pytest.mark.parametrize(
        ("platform", "body"),
        [
            ("flowyble", {"success": False, "message": "Not Found"}),
            ("runtype", {"error": "Not Found"}),
            ("elizaos", {"success": False, "error": {"message": "API endpoint not found", "code": 404}}),
            ("casedev", {"error": {"message": "Not Found", "type": "not_found_error"}}),
        ],
    )
    async def test_an_unknown_route_is_404(self, ask, platform, body):
        answer = await ask(platform, "/nothing/here")
        assert (answer.status_code, answer.json()) == (404, body)


class TestPages:
    PAGED = ("flowyble", "runtype", "casedev")

    @pytest.mark.parametrize("platform", PAGED)
    async def test_a_walk_gives_every_run_once_newest_first(self, simulator, ask, platform):
        ids = fill(simulator, platform, 12)
        pages = await walk(ask, platform, limit=5)
        assert pages == [ids[:5], ids[5:10], ids[10:]]

    @pytest.mark.parametrize("platform", PAGED)
    async def test_equal_timestamps_across_a_page_edge_lose_nothing(self, simulator, ask, platform):
        ids = fill(simulator, platform, 7, apart_seconds=0)
        assert sorted(chain(*await walk(ask, platform, limit=3))) == sorted(ids)

    @pytest.mark.parametrize("platform", PAGED)
    async def test_unless_ties_are_skipped(self, simulator, ask, platform):
        fill(simulator, platform, 7, apart_seconds=0)
        simulator.platforms[platform].quirks.skips_ties = True
        assert len(list(chain(*await walk(ask, platform, limit=3)))) == 3

    @pytest.mark.parametrize("platform", PAGED)
    async def test_shuffled_pages_hold_the_same_runs_in_another_order(self, simulator, ask, platform):
        ids = fill(simulator, platform, 20)
        simulator.platforms[platform].quirks.shuffled_pages = True
        first, second = await walk(ask, platform, limit=10)
        assert first != ids[:10]
        assert (sorted(first), sorted(second)) == (sorted(ids[:10]), sorted(ids[10:]))

    @pytest.mark.parametrize("platform", PAGED)
    async def test_an_unsorted_list_is_still_walked_whole(self, simulator, ask, platform):
        ids = fill(simulator, platform, 20)
        simulator.platforms[platform].quirks.unsorted = True
        listed = list(chain(*await walk(ask, platform, limit=6)))
        assert listed != ids
        assert sorted(listed) == sorted(ids)

    @pytest.mark.parametrize("platform", PAGED)
    async def test_duplicated_rows_stand_on_two_pages(self, simulator, ask, platform):
        ids = fill(simulator, platform, 10)
        simulator.platforms[platform].quirks.duplicated_rows = 2
        pages = await walk(ask, platform, limit=4)
        assert pages == [ids[:4], ids[2:6], ids[4:8], ids[6:10]]

    @pytest.mark.parametrize("platform", PAGED)
    async def test_empty_pages_name_a_next_cursor(self, simulator, ask, platform):
        ids = fill(simulator, platform, 4)
        simulator.platforms[platform].quirks.empty_pages = True
        assert await walk(ask, platform, limit=2) == [[], ids[:2], [], ids[2:]]

    @pytest.mark.parametrize("platform", PAGED)
    async def test_a_repeated_cursor_leads_nowhere_until_it_is_over(self, simulator, ask, platform):
        ids = fill(simulator, platform, 6)
        simulator.platforms[platform].quirks.repeated_cursors = 2
        assert await walk(ask, platform, limit=2) == [ids[:2], ids[2:4], ids[2:4], ids[2:4], ids[4:]]

    @pytest.mark.parametrize("platform", PAGED)
    async def test_an_expired_cursor_and_one_of_a_deleted_run_are_refused(self, simulator, ask, platform):
        ids = fill(simulator, platform, 6)
        simulator.platforms[platform].quirks.expired_cursors = 1
        simulator.platforms[platform].quirks.expired_status = 404
        assert (await ask(platform, cursor=ids[1], limit=2)).status_code == 404
        assert (await ask(platform, cursor=ids[1], limit=2)).status_code == 200
        simulator.world.remove(platform, ids[1])
        assert (await ask(platform, cursor=ids[1], limit=2)).status_code == 400

    @pytest.mark.parametrize("platform", PLATFORMS)
    async def test_a_failing_agent_fails_and_no_other(self, simulator, ask, platform):
        good = simulator.world.add(BUILDERS[platform](1, created_at_ns=T0_NS - HOUR_NS))
        bad = BUILDERS[platform](2, created_at_ns=T0_NS - HOUR_NS)
        bad.agent_id = "6a1f0f53-5a0e-4b0e-9a3e-1d2c3b4a5f60"
        simulator.world.add(bad)
        simulator.platforms[platform].quirks.failing_agents[bad.agent_id] = 500
        assert (await ask(platform, details_path(bad))).status_code == 500
        assert (await ask(platform, details_path(good))).status_code == 200


class TestTimes:
    @pytest.mark.parametrize(
        ("platform", "seen"),
        [
            ("flowyble", ["Pending", "Running", "Completed"]),
            ("runtype", ["queued", "running", "completed"]),
            ("casedev", ["queued", "running", "completed"]),
        ],
    )
    async def test_a_run_ends_while_one_watches(self, simulator, clock, ask, platform, seen):
        run = BUILDERS[platform](1, created_at_ns=T0_NS, queue_seconds=2.0, seconds=10.0)
        simulator.world.add(run)
        statuses: list[str] = []
        ends: list[Any] = []
        for seconds in (1, 5, 12):
            clock.to(seconds)
            body = (await ask(platform, details_path(run))).json()
            assert (body == run.body) == (seconds == 12)
            (row,) = rows_of(platform, await ask(platform))
            assert row["status"] == body["status"]
            statuses.append(body["status"])
            ends.append(body["finishedAt" if platform == "flowyble" else "completedAt"])
        assert statuses == seen
        assert ends[:2] == [None, None]
        assert ends[2].startswith("2026-04-24T03:06:52")

    @pytest.mark.parametrize(("platform", "rows"), [("flowyble", "steps"), ("casedev", "steps")])
    async def test_late_rows_come_after_the_end(self, simulator, clock, ask, platform, rows):
        run = BUILDERS[platform](1, created_at_ns=T0_NS, queue_seconds=0.0, seconds=10.0, late_rows=1, late_seconds=3.0)
        simulator.world.add(run)
        counts: list[int] = []
        for seconds in (10, 12.9, 13):
            clock.to(seconds)
            counts.append(len((await ask(platform, details_path(run))).json()[rows]))
        assert counts == [len(run.body[rows]) - 1] * 2 + [len(run.body[rows])]

    @pytest.mark.parametrize("platform", PLATFORMS)
    async def test_a_late_visible_run_is_neither_listed_nor_found_before(self, simulator, clock, ask, platform):
        run = BUILDERS[platform](1, created_at_ns=T0_NS - HOUR_NS, visible_at_ns=T0_NS + 5 * SECOND_NS)
        simulator.world.add(run)
        found: list[bool] = []
        for seconds in (4, 5):
            clock.to(seconds)
            listed = run.run_id in (await ask(platform, **({"from": 1} if platform == "elizaos" else {}))).text
            detail = (await ask(platform, details_path(run))).text
            assert listed == (len(detail) > 400)
            found.append(listed)
        assert found == [False, True]


class TestFlowyble:
    async def test_status_is_the_detail_without_steps(self, simulator, ask):
        run = simulator.world.add(flowyble_run(1, created_at_ns=T0_NS - HOUR_NS))
        detail = (await ask("flowyble", f"/agents/run/{run.run_id}/details")).json()
        status = (await ask("flowyble", f"/agents/run/{run.run_id}/status")).json()
        assert detail.pop("steps")
        assert status == detail

    async def test_a_started_run_is_pending_and_ends(self, simulator, clock, client, ask):
        simulator.world.add_agent("flowyble", STOCK_BOT)
        url = simulator.urls["flowyble"] + f"/agents/run/{STOCK_BOT.agent_id}"
        answer = await client.post(url, json={"userMessage": "Hello"}, headers=auth(simulator, "flowyble"))
        started = answer.json()
        assert {"success", "id", "status", "message"} == set(started)
        assert started["status"] == "Pending"
        clock.to(60)
        body = (await ask("flowyble", f"/agents/run/{started['id']}/details")).json()
        assert (body["status"], body["userMessage"]) == ("Completed", "Hello")

    async def test_there_is_no_list_unless_the_account_has_one(self, simulator, ask):
        ids = fill(simulator, "flowyble", 3)
        platform = simulator.platforms["flowyble"]
        answer = await ask("flowyble", page=2, pageSize=2)
        assert [row["id"] for row in answer.json()["items"]] == ids[2:]
        platform.list_shape = ListShape(items=None)
        assert [row["id"] for row in (await ask("flowyble", offset=1, limit=1)).json()] == ids[1:2]
        platform.list_shape = None
        assert (await ask("flowyble")).status_code == 404

    async def test_an_unknown_run_is_404(self, ask):
        answer = await ask("flowyble", "/agents/run/d1b6a7e0-0000-4000-8000-000000000000/details")
        assert (answer.status_code, answer.json()) == (404, {"success": False, "message": "Agent run not found"})


class TestRuntype:
    async def test_tool_calls_split_iteration_and_payload_over_two_answers(self, simulator, ask):
        call = Call("search_docs", {"query": "leases"}, None, "", 812, "HTTP 502")
        run = simulator.world.add(runtype_execution(1, created_at_ns=T0_NS - HOUR_NS, calls=[call]))
        (row,) = (await ask("runtype", details_path(run) + "/tool-calls")).json()["toolCalls"]
        assert (row["iteration"], row["status"], row["errorMessage"]) == (1, "failed", "HTTP 502")
        assert not {"toolId", "inputParameters", "outputResult"} & set(row)
        full = (await ask("runtype", details_path(run) + "/tool-calls/" + row["id"])).json()
        assert full["inputParameters"] == {"query": "leases"}
        assert set(full) - set(row) == {"toolId", "inputParameters", "outputResult"}
        assert set(row) - set(full) == {"iteration"}

    async def test_list_rows_lack_what_only_the_detail_has(self, simulator, ask):
        run = simulator.world.add(runtype_execution(1, created_at_ns=T0_NS - HOUR_NS))
        (row,) = (await ask("runtype")).json()["data"]
        detail = (await ask("runtype", details_path(run))).json()
        assert set(detail) - set(row) == {"finalOutput", "iterationDetails", "loopConfig"}

    async def test_filters(self, simulator, ask):
        parent = simulator.world.add(runtype_execution(1, created_at_ns=T0_NS - HOUR_NS))
        child = simulator.world.add(
            runtype_execution(2, created_at_ns=T0_NS - HOUR_NS // 2, parent=parent, status="error")
        )

        async def listed(**query: str) -> list[str]:
            return [row["id"] for row in (await ask("runtype", **query)).json()["data"]]

        assert await listed() == [child.run_id, parent.run_id]
        assert await listed(parentExecutionId=parent.run_id) == [child.run_id]
        assert await listed(status="completed") == [parent.run_id]
        assert await listed(**{"from": "2026-04-24T02:30:00Z"}) == [child.run_id]
        assert await listed(to="2026-04-24T02:30:00Z") == [parent.run_id]
        assert (await ask("runtype", **{"from": "yesterday"})).status_code == 400

    async def test_an_agent_is_known_by_its_last_run(self, simulator, ask):
        simulator.world.add(runtype_execution(1, created_at_ns=T0_NS - HOUR_NS))
        (agent,) = (await ask("runtype", "/v1/agents")).json()["data"]
        assert (agent["name"], agent["lastRunAt"]) == ("report-writer", "2026-04-24T02:06:40.000Z")

    async def test_pages_hold_100_at_most_and_counts_are_on_demand(self, simulator, ask):
        fill(simulator, "runtype", 130)
        body = (await ask("runtype", limit=1000, includeCount="true")).json()
        assert (len(body["data"]), body["pagination"]["limit"], body["pagination"]["totalCount"]) == (100, 100, 130)
        assert len((await ask("runtype")).json()["data"]) == 50

    async def test_what_came_in_by_otlp_is_listed_as_external(self, simulator, ask):
        simulator.world.add(runtype_execution(1, created_at_ns=T0_NS - HOUR_NS, external=True))
        (row,) = (await ask("runtype")).json()["data"]
        assert row["id"].startswith("otel-")
        assert row["agentSource"] == "external"


class TestElizaos:
    async def listed(self, ask: Any, **query: Any) -> list[dict[str, Any]]:
        return (await ask("elizaos", **query)).json()["data"]["runs"]

    async def test_the_list_knows_neither_durations_nor_actions(self, simulator, ask):
        run = simulator.world.add(elizaos_run(1, created_at_ns=T0_NS - HOUR_NS))
        (row,) = await self.listed(ask)
        assert (row["durationMs"], row["counts"]["actions"], row["counts"]["modelCalls"]) == (None, 0, 3)
        assert row["endedAt"] - row["startedAt"] == 2400
        summary = (await ask("elizaos", details_path(run))).json()["data"]["summary"]
        assert (summary["durationMs"], summary["counts"]["actions"]) == (2400, 1)
        # The one call inside the action counts twice.
        assert summary["counts"]["modelCalls"] == 4

    async def test_from_and_to_cut_rows_and_not_runs(self, simulator, clock, ask):
        simulator.world.add(elizaos_run(1, created_at_ns=T0_NS, seconds=10.0))
        clock.to(60)
        (row,) = await self.listed(ask, **{"from": T0_MS + 1})
        assert (row["status"], row["startedAt"], row["endedAt"]) == ("completed", None, T0_MS + 10_000)
        (row,) = await self.listed(ask, to=T0_MS + 9_999)
        assert (row["status"], row["startedAt"], row["endedAt"]) == ("started", T0_MS, None)
        assert await self.listed(ask, **{"from": T0_MS + 1, "to": T0_MS + 9_999}) == []

    @pytest.mark.parametrize("status", ["self", "off", "muted", "replaced", "noMessageId"])
    async def test_statuses_outside_the_enum_stay_started_in_the_list(self, simulator, ask, status):
        run = simulator.world.add(elizaos_run(1, created_at_ns=T0_NS - HOUR_NS, status=status))
        (row,) = await self.listed(ask)
        assert (row["status"], row["endedAt"]) == ("started", None)
        assert (await ask("elizaos", details_path(run))).json()["data"]["summary"]["status"] == status

    async def test_a_timed_out_run_may_end_twice(self, simulator, ask):
        run = simulator.world.add(
            elizaos_run(1, created_at_ns=T0_NS - HOUR_NS, status="timeout", ends_again_after_seconds=2.1)
        )
        (row,) = await self.listed(ask)
        assert (row["status"], row["endedAt"] - row["startedAt"]) == ("timeout", 2400)
        summary = (await ask("elizaos", details_path(run))).json()["data"]["summary"]
        assert (summary["status"], summary["durationMs"]) == ("completed", 4500)

    async def test_an_unknown_run_is_an_empty_answer(self, simulator, ask):
        run = simulator.world.add(elizaos_run(1, created_at_ns=T0_NS - HOUR_NS))
        unknown = f"/api/agents/{FREJA.agent_id}/runs/aaaaaaaa-0000-4000-8000-000000000000"
        room = "bbbbbbbb-0000-4000-8000-000000000000"
        for path in (unknown, details_path(run)):
            answer = await ask("elizaos", path, roomId=room)
            data = answer.json()["data"]
            assert (answer.status_code, data["events"]) == (200, [])
            assert (data["summary"]["status"], data["summary"]["roomId"]) == ("started", room)
            assert "startedAt" not in data["summary"]
        assert (await ask("elizaos", details_path(run), roomId=run.body["roomId"])).json()["data"]["events"]

    async def test_old_rows_fade_from_a_detail_that_names_no_room(self, simulator, ask):
        old = simulator.world.add(elizaos_run("old", created_at_ns=T0_NS - 3 * HOUR_NS))
        fill(simulator, "elizaos", 1300, apart_seconds=1.0)
        assert (await ask("elizaos", details_path(old))).json()["data"]["events"] == []
        data = (await ask("elizaos", details_path(old), roomId=old.body["roomId"])).json()["data"]
        assert data["events"] == old.body["events"]

    async def test_lists_without_a_window_are_cached_for_15_seconds(self, simulator, clock, ask):
        simulator.world.add_agent("elizaos", FREJA)
        assert await self.listed(ask) == []
        simulator.world.add(elizaos_run(1, created_at_ns=T0_NS))
        counts: list[int] = []
        for seconds in (14, 15):
            clock.to(seconds)
            counts.append(len(await self.listed(ask, **{"from": 0})))
        assert counts == [0, 1]
        simulator.world.add(elizaos_run(2, created_at_ns=T0_NS))
        assert len(await self.listed(ask, **{"from": T0_MS - 1})) == 2

    async def test_limits_and_an_unknown_status(self, simulator, ask):
        fill(simulator, "elizaos", 130)
        for limit, shown in ((None, 20), ("0", 20), ("many", 20), ("-5", 1), ("500", 100)):
            data = (await ask("elizaos", **({} if limit is None else {"limit": limit}))).json()["data"]
            assert (len(data["runs"]), data["hasMore"]) == (shown, True)
        assert len(await self.listed(ask, status="failed", limit=100)) == 100
        assert await self.listed(ask, status="timeout") == []

    async def test_only_the_newest_rows_are_scanned(self, simulator, ask):
        fill(simulator, "elizaos", 130)
        assert (await ask("elizaos", limit=100)).json()["data"]["total"] == 130
        # 200 rows are two for each run.
        assert (await ask("elizaos", limit=1)).json()["data"]["total"] == 100

    async def test_a_list_is_newest_first_and_answers_304_to_its_etag(self, simulator, ask):
        ids = fill(simulator, "elizaos", 5)
        answer = await ask("elizaos")
        assert [row["runId"] for row in answer.json()["data"]["runs"]] == ids
        assert answer.headers["etag"].startswith('W/"')
        again = await ask("elizaos", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")

    async def test_a_stopped_agent_is_not_found_and_a_bad_id_invalid(self, simulator, ask):
        run = simulator.world.add(elizaos_run(1, created_at_ns=T0_NS - HOUR_NS))
        simulator.world.agent("elizaos", FREJA.agent_id).active = False
        answer = await ask("elizaos")
        error = {"code": "NOT_FOUND", "message": "Agent not found"}
        assert (answer.status_code, answer.json()) == (404, {"success": False, "error": error})
        assert (await ask("elizaos", details_path(run))).status_code == 404
        answer = await ask("elizaos", "/api/agents/freja/runs")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_ID")

    async def test_late_rows_are_written_after_the_end(self, simulator, clock, ask):
        run = simulator.world.add(elizaos_run(1, created_at_ns=T0_NS, seconds=1.0, late_ms=2100))
        kinds: list[str] = []
        for seconds in (0.999, 1.0, 3.1):
            clock.to(seconds)
            kinds.append((await ask("elizaos", details_path(run))).json()["data"]["events"][-1]["type"])
        assert kinds == ["ACTION_COMPLETED", "RUN_ENDED", "EMBEDDING_EVENT"]

    async def test_the_documented_shape(self, simulator, ask):
        run = simulator.world.add(
            elizaos_run(1, created_at_ns=T0_NS - HOUR_NS, documented=True, tokens=True, error="no model")
        )
        body = (await ask("elizaos", details_path(run))).json()
        expected = {"runId", "agentId", "roomId", "startTime", "endTime", "status", "events", "tokensUsed", "errors"}
        assert set(body) == expected
        assert (body["status"], body["errors"]) == ("failed", ["no model"])
        assert [event["type"] for event in body["events"][:3]] == ["model:used", "action:started", "model:used"]
        assert body["tokensUsed"]["totalTokens"] > 0


class TestCasedev:
    @pytest.mark.parametrize("limit", ["0", "251", "ten"])
    async def test_limits_outside_1_to_250_are_refused(self, ask, limit):
        assert (await ask("casedev", limit=limit)).status_code == 400

    async def test_50_by_default_and_250_at_most(self, simulator, ask):
        fill(simulator, "casedev", 260)
        assert len((await ask("casedev")).json()["runs"]) == 50
        assert len((await ask("casedev", limit=250)).json()["runs"]) == 250

    async def test_prompts_are_cut_in_the_list_only(self, simulator, ask):
        run = simulator.world.add(casedev_run(1, created_at_ns=T0_NS - HOUR_NS, prompt="§" * 500))
        (row,) = (await ask("casedev")).json()["runs"]
        assert row["prompt"] == "§" * 200
        assert (await ask("casedev", details_path(run))).json()["prompt"] == "§" * 500

    async def test_filters_by_status_and_agent(self, simulator, ask):
        failed = simulator.world.add(casedev_run(1, created_at_ns=T0_NS - HOUR_NS, status="failed"))
        running = simulator.world.add(casedev_run(2, created_at_ns=T0_NS - 5 * SECOND_NS))
        for query, expected in (
            ({"status": "failed"}, [failed]),
            ({"status": "running"}, [running]),
            ({"status": "queued"}, []),
            ({"agentId": CONTRACT_REVIEWER.agent_id}, [running, failed]),
            ({"agentId": "agent_none"}, []),
            ({"createdAfter": "2030-01-01T00:00:00Z"}, [running, failed]),
        ):
            rows = (await ask("casedev", **query)).json()["runs"]
            assert [row["id"] for row in rows] == [run.run_id for run in expected]

    async def test_the_light_poll(self, simulator, ask):
        run = simulator.world.add(casedev_run(1, created_at_ns=T0_NS - HOUR_NS, seconds=59.0))
        body = (await ask("casedev", f"/agent/v1/run/{run.run_id}/status")).json()
        assert body == {
            "id": run.run_id,
            "status": "completed",
            "startedAt": "2026-04-24T02:06:41.000Z",
            "completedAt": "2026-04-24T02:07:40.000Z",
            "durationMs": 59000,
        }

    async def test_ephemeral_agents_have_runs_and_are_in_no_list(self, simulator, ask):
        simulator.world.add(casedev_run(1, created_at_ns=T0_NS - HOUR_NS, ephemeral=True))
        assert (await ask("casedev", "/agent/v1/agents")).json() == {"agents": [], "hasMore": False, "nextCursor": None}
        assert len((await ask("casedev")).json()["runs"]) == 1

    async def test_an_unknown_run_is_404(self, ask):
        answer = await ask("casedev", "/agent/v1/run/run_none/details")
        assert answer.json() == {"error": {"message": "Run not found", "type": "not_found_error"}}
        assert answer.status_code == 404


class TestFaults:
    async def test_replies_replace_the_answer_so_many_times(self, simulator, ask):
        simulator.fault("casedev", r"^/agent/v1/run\?", Reply(503, "{}", {"retry-after": "2"}), times=2)
        answers = [await ask("casedev") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [503, 503, 200]
        assert answers[0].headers["retry-after"] == "2"
        assert [request.status for request in simulator.asked("casedev")] == [503, 503, 200]

    async def test_only_the_platform_and_path_that_it_names(self, simulator, ask):
        simulator.fault("casedev", "limit=3", html())
        assert (await ask("casedev", limit=2)).status_code == 200
        answer = await ask("casedev", limit=3)
        assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html; charset=utf-8")
        assert (await ask("elizaos", "/api/agents", limit=3)).status_code == 200

    async def test_redirects(self, simulator, ask):
        simulator.fault("runtype", "/v1/agents", redirect("http://elsewhere.test/v1/agents", 307))
        answer = await ask("runtype", "/v1/agents")
        assert (answer.status_code, answer.headers["location"]) == (307, "http://elsewhere.test/v1/agents")

    async def test_half_a_body_with_the_length_of_the_whole(self, simulator, ask):
        simulator.fault("casedev", "", CutOff())
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            await ask("casedev")

    async def test_half_a_body_with_its_own_length(self, simulator, ask):
        simulator.fault("casedev", "", CutOff(honest_length=True))
        answer = await ask("casedev")
        with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
            answer.json()

    @pytest.mark.parametrize(("effect", "error"), [(Reset(), httpx.ReadError), (Close(), httpx.RemoteProtocolError)])
    async def test_broken_connections(self, simulator, ask, effect, error):
        simulator.fault("casedev", "", effect, times=1)
        with pytest.raises(error):
            await ask("casedev")
        assert (await ask("casedev")).status_code == 200
        assert [request.status for request in simulator.asked("casedev")] == [None, 200]

    async def test_delays(self, simulator, ask):
        simulator.fault("casedev", "", Delay(0.3))
        before = time.monotonic()
        assert (await ask("casedev")).status_code == 200
        assert time.monotonic() - before >= 0.3

    @pytest.mark.parametrize("effect", [Hang(), Delay(600)])
    async def test_a_request_left_hanging_does_not_hold_up_the_end(self, client, effect):
        async with Simulator() as simulator:
            simulator.fault("casedev", "", effect)
            url = simulator.urls["casedev"] + LISTS["casedev"]
            hanging = asyncio.create_task(client.get(url, headers=auth(simulator, "casedev")))
            deadline = time.monotonic() + 5
            while not simulator.requests:
                assert time.monotonic() < deadline
                await asyncio.sleep(0)
            before = time.monotonic()
        assert time.monotonic() - before < 10
        with pytest.raises(httpx.TransportError):
            await hanging


class TestLifeOfTheSimulator:
    async def test_a_port_can_be_fixed_and_used_again(self, client):
        async with Simulator() as first:
            port = httpx.URL(first.urls["flowyble"]).port
        assert port is not None
        async with Simulator(ports={"flowyble": port}) as second:
            assert second.urls["flowyble"] == f"http://127.0.0.1:{port}/v1"
            assert (await client.get(second.urls["flowyble"])).status_code == 401
        async with httpx.AsyncClient() as fresh:
            with pytest.raises(httpx.ConnectError):
                await fresh.get(second.urls["flowyble"])

    def test_in_a_thread(self):
        with Simulator().in_thread() as simulator:
            url = simulator.urls["casedev"] + LISTS["casedev"]
            assert httpx.get(url, headers=auth(simulator, "casedev")).status_code == 200

    async def test_the_companys_day(self, clock):
        world = World(now=clock)
        populate(world)
        clock.to(600)
        runs = [run for platform in PLATFORMS for run in world.runs(platform)]
        assert len(runs) >= 40
        assert len({run.run_id for run in runs}) == len(runs)
        again = World(now=Clock())
        populate(again)
        assert [run.body for run in runs] == [run.body for platform in PLATFORMS for run in again.runs(platform)]
        async with Simulator(world) as simulator, httpx.AsyncClient(timeout=5) as client:
            for run in runs:
                url = simulator.urls[run.platform] + details_path(run)
                answer = await client.get(url, headers=auth(simulator, run.platform))
                assert answer.status_code == 200
                if not run.documented and run.platform != "elizaos":
                    assert answer.json() == run.body or run.ended_at_ns is None
