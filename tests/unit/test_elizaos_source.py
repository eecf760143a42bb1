"""How elizaOS's runs are found and fetched, where its answers are odd."""

import json
from itertools import pairwise
from typing import Any

import pytest

from runspan.errors import RunGone, RunUnreadable, SourceUnavailable
from runspan.model import Content, Json, Locator, Run, RunBody, RunRef, RunStatus, Step, StepError, StepKind, Usage
from runspan.sources.base import Listed, Scope, Window
from runspan.sources.elizaos import FAR_AHEAD_MS, ElizaOS, ElizaOSConfig
from runspan.sources.elizaos_events import read_run
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
    assert page.cursor is not None
    assert (page.cursor[0][0], page.cursor[-1][1]) == (T0_MS, T0_MS + 400_000)
    assert all(left[1] == right[0] for left, right in pairwise(page.cursor))


@pytest.mark.parametrize("rows", [0, 3])
async def test_a_server_that_always_says_there_is_more_is_not_halved_for_ever(rows: int) -> None:
    server = Server([(f"r{n}", "completed", T0_MS * 1000 + n * 60_000_000) for n in range(rows)])

    def answer(path: str, params: dict[str, Any]) -> Any:
        document = server(path, params)
        return document | {"data": document["data"] | {"hasMore": True}}

    elizaos, client = source(answer)
    pages = [await elizaos.page(SCOPE, Window((T0_MS - 60_000) * MS_NS), None)]
    while pages[-1].cursor is not None:
        pages.append(await elizaos.page(SCOPE, Window((T0_MS - 60_000) * MS_NS), pages[-1].cursor))
    assert pages[-1].broken_off
    assert "says that there is more, and shows nothing" in pages[-1].broken_off
    assert len({row.run_id for page in pages for row in page.rows}) == rows, "what it did show is found all the same"
    assert len(client.asked) < 50


async def test_one_stretch_that_is_empty_for_once_though_it_says_more_costs_no_other() -> None:
    server = Server([(f"r{n}", "completed", T0_MS * 1000 + n * 1_000_000) for n in range(300)])
    glitches = iter([{"success": True, "data": {"runs": [], "hasMore": True}}])

    def answer(path: str, params: dict[str, Any]) -> Any:
        document = server(path, params)
        return document if document["data"]["hasMore"] else next(glitches, document)

    elizaos, _ = source(answer)
    found, problems = await sweep(elizaos, Window((T0_MS - 1000) * MS_NS))
    assert len(found) == 300
    assert problems == []


async def test_an_answer_that_says_it_failed_is_no_empty_list() -> None:
    failed = {"success": False, "data": {"agents": [], "runs": [], "hasMore": False}}
    elizaos, _ = source(lambda path, params: failed)
    with pytest.raises(SourceUnavailable, match="answered that it failed"):
        await elizaos.scopes()
    with pytest.raises(SourceUnavailable, match="answered that it failed"):
        await elizaos.page(SCOPE, Window(0), None)


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
    assert (await elizaos.scopes()).found == (Scope("a1", "Eliza"), Scope("a2", "Ada"))
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


def row(kind: str, at_ms: float, **data: Any) -> Json:
    return {"type": kind, "timestamp": T0_MS + at_ms, "data": data}


def model_used(model_type: str, at_ms: float, took_ms: float | None, **data: Any) -> Json:
    return row("MODEL_USED", at_ms, modelType=model_type, provider="openai", executionTime=took_ms, **data)


def embedded(at_ms: float, took_ms: float, status: str = "completed", memory_id: str = "m1") -> Json:
    return row("EMBEDDING_EVENT", at_ms, status=status, memoryId=memory_id, durationMs=took_ms)


def action(kind: str, at_ms: float, action_id: str = "a", **data: Any) -> Json:
    return row(f"ACTION_{kind}", at_ms, actionId=action_id, actionName="SEND", **data)


def read(*rows: Json) -> Run:
    """The run of these rows, which is the same in whatever order they come."""
    events = [row("RUN_STARTED", 0), *rows, row("RUN_ENDED", 900, status="completed", durationMs=900)]
    run, backwards = (
        read_run(RunBody(REF, {"detail": {"summary": {"runId": "run"}, "events": ordered}}))
        for ordered in (events, events[::-1])
    )
    assert run == backwards
    return run


def of_kind(run: Run, kind: StepKind) -> list[Step]:
    return [step for step in run.steps if step.kind is kind]


@pytest.mark.parametrize(
    ("model_row", "event"),
    [
        (model_used("TEXT_EMBEDDING", 50, 30.0), embedded(55, 36)),
        (model_used("TEXT_EMBEDDING", 96, 0.0429), embedded(106, 1)),
        (model_used("TEXT_EMBEDDING", 53, 30.4), embedded(52, 30)),
    ],
    ids=["around it", "stored later", "row written late"],
)
def test_embedding_told_by_two_rows_is_one(model_row: Json, event: Json) -> None:
    assert read(model_row, event).steps == read(model_row).steps


def test_embedding_is_failed_where_its_event_is() -> None:
    (step,) = read(model_used("TEXT_EMBEDDING", 50, 30.0), embedded(55, 36, "failed")).steps
    assert (step.error, step.duration_ns) == (StepError("failed"), 30 * MS_NS)


def test_embedding_lasted_as_long_as_its_event_where_its_model_row_does_not_say() -> None:
    (step,) = read(model_used("TEXT_EMBEDDING", 50, None), embedded(55, 36)).steps
    assert step.duration_ns == 36 * MS_NS


@pytest.mark.parametrize(
    ("event", "kept"),
    [(embedded(120, 10), 2), (embedded(40, 36), 2), (embedded(55, 36), 1)],
    ids=["later", "over before", "around it"],
)
def test_embedding_event_of_other_work_stays(event: Json, kept: int) -> None:
    run = read(model_used("TEXT_EMBEDDING", 50, 30.0), event)
    assert len(of_kind(run, StepKind.EMBEDDINGS)) == kept


def test_every_embedding_event_takes_one_model_row() -> None:
    rows = [model_used("TEXT_EMBEDDING", 50, 30.0), model_used("TEXT_EMBEDDING", 54, 33.0)]
    events = [embedded(55, 36), embedded(62, 44, memory_id="m2"), embedded(61, 40, memory_id="m3")]
    for count, expected in enumerate((2, 2, 2, 3)):
        assert len(read(*rows, *events[:count]).steps) == expected


def test_embedding_event_leaves_the_wider_one_to_the_row_that_ends_later() -> None:
    rows = [model_used("TEXT_EMBEDDING", 50, 30.0), model_used("TEXT_EMBEDDING", 80, 58.0)]
    assert len(read(*rows, embedded(55, 36), embedded(85, 66)).steps) == 2


def test_embedding_has_no_answer_in_words() -> None:
    run = read(model_used("TEXT_EMBEDDING", 50, 30.0, prompt="Where is it?", response="[array]"))
    assert [(len(step.content.input), step.content.output) for step in run.steps] == [(1, ())]


@pytest.mark.parametrize("completed_ms", [300, 298])
def test_action_of_an_instant_is_one(completed_ms: int) -> None:
    (tool,) = read(action("STARTED", 300), action("COMPLETED", completed_ms)).steps
    assert (tool.start_ns, tool.end_ns) == ((T0_MS + 300) * MS_NS, (T0_MS + completed_ms) * MS_NS)


def test_action_of_an_instant_is_one_without_an_id() -> None:
    rows = [row(f"ACTION_{kind}", 300, actionName="SEND") for kind in ("COMPLETED", "STARTED")]
    assert len(read(*rows).steps) == 1


def test_action_that_never_came_back_says_so() -> None:
    run = read(action("STARTED", 300, "hangs"), action("STARTED", 400), action("COMPLETED", 500))
    assert [tool.attributes.get("runspan.incomplete") for tool in run.steps] == [True, None]


@pytest.mark.parametrize(
    ("ended_ms", "took_ms", "is_inside"),
    [(500, 50, False), (150, 50, False), (200, 50, False), (350, 50, False), (250, 200, True), (350, 100, True)],
)
def test_call_is_inside_of_its_action_where_they_meet(ended_ms: int, took_ms: int, is_inside: bool) -> None:
    call = model_used("TEXT_SMALL", ended_ms, took_ms, actionContext={"actionId": "a"})
    run = read(action("STARTED", 200), action("COMPLETED", 300), call)
    (tool,) = of_kind(run, StepKind.TOOL_CALL)
    assert (len(tool.children), len(of_kind(run, StepKind.MODEL_CALL))) == ((1, 0) if is_inside else (0, 1))


def test_call_is_inside_of_the_action_that_did_not_come_back() -> None:
    call = model_used("TEXT_SMALL", 500, 50, actionContext={"actionId": "a"})
    (tool,) = read(action("STARTED", 200), call).steps
    assert len(tool.children) == 1


@pytest.mark.parametrize(
    "reported",
    [
        {"usage": {"promptTokens": 0, "completionTokens": 0, "totalTokens": 0}},
        {"usage": {"totalTokens": 0}, "inputTokens": 0, "outputTokens": 0},
    ],
)
def test_no_tokens_are_a_figure(reported: Json) -> None:
    (call,) = read(model_used("TEXT_LARGE", 300, 100, **reported)).steps
    assert call.usage == Usage(input_tokens=0, output_tokens=0, total_tokens=0)


@pytest.mark.parametrize(
    ("status", "ended", "shown"),
    [
        ("completed", None, ["slow", "gave up"]),
        ("cancelled", None, ["slow", "gave up"]),
        ("failed", None, ["gave up"]),
        ("timeout", None, ["gave up"]),
        ("failed", {"status": "failed", "error": "slow"}, ["gave up"]),
        ("failed", {"status": "failed", "error": "threw"}, ["slow", "gave up"]),
    ],
)
def test_errors_are_events_unless_they_describe_the_run(status: str, ended: Json, shown: list[str]) -> None:
    events = [] if ended is None else [row("RUN_ENDED", 900, **ended)]
    document = {"status": status, "startTime": T0_MS, "endTime": T0_MS + 900, "errors": ["slow", "gave up"]}
    run = read_run(RunBody(REF, {"detail": document | {"events": events}}))
    assert [(step.name, step.content) for step in run.steps] == [("error", Content(text=text)) for text in shown]
    assert run.raw_status == status
    assert run.error_description == (ended["error"] if ended else "slow")
