"""How elizaOS's runs are found and fetched, where its answers are odd."""

import json
from itertools import pairwise
from typing import Any

import pytest

from runspan.errors import RunGone, RunUnreadable, SourceUnavailable
from runspan.model import Locator, RunRef, RunStatus
from runspan.sources.base import Listed, Scope, Window
from runspan.sources.elizaos import FAR_AHEAD_MS, ElizaOS, ElizaOSConfig
from tests.unit.scripted import ScriptedClient

MS_NS = 1_000_000
T0_MS = 1_777_000_000_000
SCOPE = Scope("a1", "Eliza")
LOCATOR = Locator(agent_id="a1", agent_name="Eliza", room="room")
REF = RunRef("elizaos", "t", "run", LOCATOR)
DETAIL = "/api/agents/a1/runs/run"
AGENTS = {"success": True, "data": {"agents": [{"id": "a1", "name": "Eliza"}, {"id": "a2", "name": "Ada"}]}}
NOT_RUNNING = RunGone("404")


def source(answer: Any, **config: Any) -> tuple[ElizaOS, ScriptedClient]:
    client = ScriptedClient(answer if callable(answer) else lambda path, _: answer[path])
    settings = ElizaOSConfig(name="e", platform="elizaos", base_url="https://platform.example.test", **config)
    return ElizaOS(settings, client), client


class Server:
    """The list of a server whose rows are told as (run id, kind, microseconds): compared by its milliseconds."""

    def __init__(self, rows: list[tuple[str, str, int]]) -> None:
        self.rows = rows

    def __call__(self, path: str, params: dict[str, Any]) -> Any:
        found: dict[str, dict[str, Any]] = {}
        for run_id, kind, time_us in self.rows:
            if params["from"] * 1000 <= time_us <= params["to"] * 1000:
                empty = {"runId": run_id, "status": "started", "startedAt": None, "endedAt": None, "roomId": "r"}
                run = found.setdefault(run_id, empty)
                if kind == "started":
                    run["startedAt"] = time_us // 1000
                else:
                    run |= {"status": kind, "endedAt": time_us // 1000}
        runs = sorted(found.values(), key=lambda run: -(run["startedAt"] or 0))
        limit = params["limit"]
        data = {"runs": runs[:limit], "total": len(runs), "hasMore": len(runs) > limit}
        return {"success": True, "data": data}


async def sweep(elizaos: ElizaOS, window: Window) -> tuple[dict[str, Listed], list[str]]:
    rows: dict[str, Listed] = {}
    problems: list[str] = []
    cursor = None
    while True:
        page = await elizaos.page(SCOPE, window, cursor)
        for row in page.rows:
            if row.run_id not in rows or row.terminal:
                rows[row.run_id] = row
        problems += page.problems
        cursor = json.loads(json.dumps(page.cursor))
        if cursor is None:
            return rows, problems


async def test_both_bounds_are_always_sent_and_never_zero() -> None:
    elizaos, client = source(Server([]))
    await elizaos.page(SCOPE, Window(0), None)
    await elizaos.page(SCOPE, Window(T0_MS * MS_NS + 1, T0_MS * MS_NS + 1), None)
    assert client.asked == [
        ("/api/agents/a1/runs", {"limit": 100, "from": 1, "to": FAR_AHEAD_MS}),
        ("/api/agents/a1/runs", {"limit": 100, "from": T0_MS, "to": T0_MS + 1}),
    ]


async def test_every_run_is_found_however_many_there_are() -> None:
    rows = [(f"r{n}", "started", T0_MS * 1000 + n * 70_123) for n in range(2000)]
    rows += [(run_id, "completed", time_us + 900_456) for run_id, _, time_us in rows[:1990]]
    elizaos, client = source(Server(rows))
    found, problems = await sweep(elizaos, Window((T0_MS - 3_600_000) * MS_NS))
    assert len(found) == 2000
    assert sum(row.terminal for row in found.values()) == 1990
    assert problems == []
    assert len(client.asked) < 120


async def test_rows_between_two_milliseconds_are_found() -> None:
    rows = [(f"r{n}", "completed", T0_MS * 1000 + n * 333) for n in range(1000)]
    elizaos, _ = source(Server(rows))
    found, problems = await sweep(elizaos, Window((T0_MS - 1000) * MS_NS))
    assert len(found) == 1000
    assert problems == []


async def test_over_a_hundred_runs_in_a_millisecond_alarm() -> None:
    elizaos, client = source(Server([(f"r{n}", "completed", T0_MS * 1000 + n) for n in range(150)]))
    found, problems = await sweep(elizaos, Window((T0_MS - 60_000) * MS_NS))
    assert len(found) == 100
    assert any("one millisecond" in problem for problem in problems)
    assert len(client.asked) < 200


async def test_stretches_left_to_read_cover_the_window() -> None:
    elizaos, _ = source(Server([(f"r{n}", "completed", T0_MS * 1000 + n * 1_000_000) for n in range(400)]))
    page = await elizaos.page(SCOPE, Window(T0_MS * MS_NS, (T0_MS + 400_000) * MS_NS), None)
    assert page.rows == ()
    assert page.cursor is not None
    assert (page.cursor[0][0], page.cursor[-1][1]) == (T0_MS, T0_MS + 400_000)
    assert all(left[1] == right[0] for left, right in pairwise(page.cursor))


async def test_listed_rows() -> None:
    runs = [
        {"runId": "over", "status": "completed", "startedAt": T0_MS, "endedAt": T0_MS + 5, "roomId": "room"},
        {"runId": "began before", "status": "timeout", "startedAt": None, "endedAt": T0_MS + 7, "roomId": "room"},
        {"runId": "open", "status": "started", "startedAt": T0_MS + 9, "endedAt": None, "roomId": "room"},
        {"runId": "documented", "status": "failed", "startedAt": T0_MS, "endedAt": None, "roomId": None},
        {"status": "completed"},
    ]
    elizaos, _ = source(lambda path, params: {"success": True, "data": {"runs": runs, "hasMore": False}})
    page = await elizaos.page(SCOPE, Window(0), None)
    assert [(row.run_id, row.terminal, (row.time_ns or 0) // MS_NS - T0_MS) for row in page.rows] == [
        ("over", True, 5),
        ("began before", True, 7),
        ("open", False, 9),
        ("documented", True, 0),
    ]
    assert page.rows[0].locator == Locator(agent_id="a1", agent_name="Eliza", room="room", created_ns=T0_MS * MS_NS)
    assert page.problems == ("runs[4]: no runId",)


async def test_agent_that_does_not_run_has_no_list() -> None:
    elizaos, _ = source({"/api/agents": AGENTS, "/api/agents/a1/runs": NOT_RUNNING})
    assert await elizaos.scopes() == (Scope("a1", "Eliza"), Scope("a2", "Ada"))
    with pytest.raises(RunGone):
        await elizaos.page(SCOPE, Window(0), None)


@pytest.mark.parametrize("answer", [{"success": False, "error": "odd"}, {"success": True, "data": {}}, []])
async def test_answer_without_a_list_is_not_an_empty_list(answer: Any) -> None:
    elizaos, _ = source(lambda path, params: answer)
    with pytest.raises(SourceUnavailable):
        await elizaos.page(SCOPE, Window(0), None)


def detail(*kinds: str, **summary: Any) -> dict[str, Any]:
    events = [{"type": kind, "timestamp": T0_MS + n, "data": {}} for n, kind in enumerate(kinds)]
    return {"success": True, "data": {"summary": {"runId": "run", "status": "completed"} | summary, "events": events}}


def in_rooms(without: Any, within: Any) -> tuple[ElizaOS, ScriptedClient]:
    return source(lambda path, params: within if "roomId" in params else without)


async def test_detail_is_asked_without_the_room_first() -> None:
    elizaos, client = in_rooms(detail("RUN_STARTED", "RUN_ENDED"), detail())
    await elizaos.fetch(REF)
    assert client.asked == [(DETAIL, {})]


@pytest.mark.parametrize("without", [detail(), detail("MODEL_USED", "RUN_ENDED")])
async def test_detail_that_faded_is_asked_for_in_its_room(without: Any) -> None:
    elizaos, client = in_rooms(without, detail("RUN_STARTED", "RUN_ENDED"))
    body = await elizaos.fetch(REF)
    assert client.asked == [(DETAIL, {}), (DETAIL, {"roomId": "room"})]
    assert not elizaos.read(body).incomplete


async def test_fuller_detail_is_kept() -> None:
    elizaos, _ = in_rooms(detail("MODEL_USED", "RUN_ENDED"), detail("RUN_ENDED"))
    body = await elizaos.fetch(REF)
    assert len(elizaos.read(body).steps) == 1


async def test_run_without_any_event_is_gone() -> None:
    elizaos, _ = in_rooms(detail(status="started"), detail(status="started"))
    with pytest.raises(RunGone):
        await elizaos.fetch(REF)


async def test_run_of_an_agent_that_stopped_is_read_through_another() -> None:
    answers = {
        "/api/agents": AGENTS,
        DETAIL: NOT_RUNNING,
        "/api/agents/a2/runs/run": detail("RUN_STARTED", "RUN_ENDED"),
    }
    elizaos, _ = source(answers)
    body = await elizaos.fetch(REF)
    assert body.ref.locator == LOCATOR


async def test_run_that_no_running_agent_shows_is_gone() -> None:
    elizaos, _ = source({"/api/agents": AGENTS, DETAIL: NOT_RUNNING, "/api/agents/a2/runs/run": NOT_RUNNING})
    with pytest.raises(RunGone):
        await elizaos.fetch(REF)


async def test_no_run_is_gone_while_no_agent_runs() -> None:
    agents = [{"id": agent_id, "name": "x", "status": "inactive"} for agent_id in ("a1", "a2")]
    elizaos, _ = source({"/api/agents": {"success": True, "data": {"agents": agents}}, DETAIL: NOT_RUNNING})
    with pytest.raises(SourceUnavailable, match="start one"):
        await elizaos.fetch(REF)


async def test_owner_is_who_lists_the_run() -> None:
    shown = detail("RUN_STARTED", "RUN_ENDED", startedAt=T0_MS, roomId="room")
    answers = {
        "/api/agents": AGENTS,
        DETAIL: shown,
        "/api/agents/a1/runs": Server([])("", {"from": 1, "to": 2, "limit": 1}),
        "/api/agents/a2/runs": Server([("run", "started", T0_MS * 1000)])("", {"from": 1, "to": T0_MS, "limit": 1}),
    }
    elizaos, client = source(answers)
    body = await elizaos.fetch(RunRef("elizaos", "t", "run"))
    assert body.ref.locator == Locator(agent_id="a2", agent_name="Ada", room="room")
    assert client.asked[-1][1] == {"limit": 100, "roomId": "room", "from": T0_MS, "to": T0_MS + 1}


async def test_any_end_is_terminal_whatever_the_list_says() -> None:
    shown = detail("RUN_STARTED", status="replaced")
    shown["data"]["events"].append({"type": "RUN_ENDED", "timestamp": T0_MS + 9, "data": {"status": "replaced"}})
    for include, reason in ((False, "replaced"), (True, None)):
        elizaos, _ = source({DETAIL: shown}, include_ignored=include)
        run = elizaos.read(await elizaos.fetch(REF))
        assert (run.status, run.skip_reason) == (RunStatus.SUCCESS, reason)


@pytest.mark.parametrize("error", [RunGone("404"), RunUnreadable("400")])
async def test_no_list_of_agents_means_a_wrong_address(error: Exception) -> None:
    elizaos, _ = source(lambda path, params: error)
    with pytest.raises(SourceUnavailable, match="check base_url"):
        await elizaos.scopes()
