"""How case.dev's runs are found and fetched, where its answers are odd."""

import time
from typing import Any

import pytest

from runspan.errors import RunGone, RunUnreadable, SourceUnavailable
from runspan.model import Locator, RunBody, RunRef, Step, StepKind
from runspan.sources.base import Listed, Page, Scope, Window
from runspan.sources.casedev import CaseDev, CaseDevConfig
from runspan.sources.casedev_run import read_run, under_tools
from tests.unit.scripted import ScriptedClient

SECOND_NS = 1_000_000_000
TEN_NS = 1_777_629_600 * SECOND_NS
"""2026-05-01T10:00:00Z"""
LIST = "/agent/v1/run"
AGENTS = "/agent/v1/agents"


def source(answer: Any, **config: Any) -> tuple[CaseDev, ScriptedClient]:
    client = ScriptedClient(answer if callable(answer) else lambda path, _: answer[path])
    settings = CaseDevConfig(name="c", platform="casedev", base_url="https://platform.example.test", **config)
    return CaseDev(settings, client), client


def row(number: int, **changes: Any) -> dict[str, Any]:
    """A run that was created `number` minutes after ten."""
    created = {"createdAt": f"2026-05-01T10:{number:02d}:00Z", "completedAt": f"2026-05-01T10:{number:02d}:30Z"}
    return {"id": f"run_{number}", "agentId": "agent_1", "status": "completed", **created} | changes


def open_row(number: int, status: str = "running") -> dict[str, Any]:
    return row(number, status=status, completedAt=None)


def page_of(*rows: Any, cursor: str | None = None, more: bool | None = None) -> dict[str, Any]:
    return {"runs": list(rows), "hasMore": cursor is not None if more is None else more, "nextCursor": cursor}


def agents_of(**names: str) -> dict[str, Any]:
    agents = [{"id": agent_id, "name": name} for agent_id, name in names.items()]
    return {"agents": agents, "hasMore": False, "nextCursor": None}


async def first_page(answer: Any, window: Window | None = None) -> Page:
    casedev, _ = source({LIST: answer, AGENTS: agents_of(agent_1="reviewer")})
    return await casedev.page(Scope(), window or Window(1), None)


def minutes(number: int) -> int:
    return TEN_NS + number * 60 * SECOND_NS


async def test_reading_stops_behind_the_window() -> None:
    page = await first_page(page_of(row(9), row(5), cursor="run_5"), Window(minutes(6)))
    assert [listed.run_id for listed in page.rows] == ["run_9"]
    assert page.cursor is not None, "a page may be out of order: one old row is not the end"
    assert (await first_page(page_of(row(5), row(4), cursor="run_4"), Window(minutes(6)))).cursor is None


async def test_a_row_on_the_edge_of_the_window() -> None:
    page = await first_page(page_of(row(9), row(8), row(6), row(5)), Window(minutes(6), minutes(9)))
    assert [listed.run_id for listed in page.rows] == ["run_8", "run_6"]


async def test_a_row_without_a_time_is_listed_and_tells_no_position() -> None:
    page = await first_page(page_of(row(9, createdAt="soon"), cursor="run_9"), Window(minutes(30)))
    assert [(listed.run_id, listed.time_ns) for listed in page.rows] == [("run_9", None)]
    assert page.cursor is not None
    assert page.problems == ("runs[0].createdAt: not a time",)


@pytest.mark.parametrize(
    "end", [page_of(row(1), cursor="run_1", more=False), page_of(), page_of(row(1)), {"runs": [row(1)]}]
)
async def test_what_ends_a_list(end: Any) -> None:
    page = await first_page(end)
    assert (page.cursor, page.broken_off) == (None, None)


async def test_where_no_cursor_is_named_the_list_goes_on_behind_its_last_run() -> None:
    """That is what the platform's cursors are."""
    casedev, client = source(lambda path, params: page_of() if "cursor" in params else page_of(row(1), more=True))
    page = await casedev.page(Scope(), Window(1), None)
    assert (await casedev.page(Scope(), Window(1), page.cursor)).rows == ()
    assert client.asked[-1] == (LIST, {"limit": 250, "cursor": "run_1"})


async def test_a_list_that_says_there_is_more_and_shows_nothing_has_not_come_to_its_end() -> None:
    page = await first_page(page_of(more=True))
    assert page.cursor is None
    assert page.broken_off == "source c: the list of runs breaks off, it says that there is more, and not where"


async def test_the_largest_page_is_asked_for_and_no_agent() -> None:
    casedev, client = source({LIST: page_of()})
    await casedev.page(Scope(), Window(1), None)
    assert client.asked == [(LIST, {"limit": 250})]


async def test_a_list_without_an_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runspan.sources.walk.MAX_PAGES", 5)
    fresh = iter(range(100))
    casedev, _ = source(lambda path, _: page_of(cursor=f"run_{next(fresh)}"))
    page = await casedev.page(Scope(), Window(1), None)
    while page.cursor is not None:
        page = await casedev.page(Scope(), Window(1), page.cursor)
    assert next(fresh) == 5
    assert page.broken_off
    assert "does not end" in page.broken_off


@pytest.mark.parametrize(
    ("changes", "terminal"),
    [
        ({"status": "Completed"}, True),
        ({"status": "failed", "completedAt": None}, True),
        ({"status": "canceled"}, True),
        ({"status": "running"}, False),
        ({"status": "queued", "completedAt": None}, False),
        ({"status": "archived"}, True),
        ({"status": "paused", "completedAt": None}, False),
        ({"status": None, "completedAt": None}, False),
    ],
)
async def test_which_rows_have_ended(changes: dict[str, Any], terminal: bool) -> None:
    (listed,) = (await first_page(page_of(row(1, **changes)))).rows
    assert listed.terminal is terminal


async def test_open_runs_are_those_queued_or_running_on_all_pages() -> None:
    def answer(path: str, params: dict[str, Any]) -> Any:
        return {
            ("running", None): page_of(open_row(3), open_row(2), cursor="run_2"),
            ("running", "run_2"): page_of(open_row(1)),
            ("queued", None): page_of(open_row(9, "queued")),
        }[params["status"], params.get("cursor")]

    casedev, client = source(answer)
    assert await casedev.open_run_ids() == {"run_1", "run_2", "run_3", "run_9"}
    assert len(client.asked) == 3


@pytest.mark.parametrize("error", [SourceUnavailable("later"), RunGone("404"), RunUnreadable("400")])
async def test_open_runs_are_not_told_from_half_an_answer(error: Exception) -> None:
    def answer(path: str, params: dict[str, Any]) -> Any:
        return error if "cursor" in params else page_of(open_row(1), cursor="run_1")

    casedev, _ = source(answer)
    with pytest.raises(SourceUnavailable):
        await casedev.open_run_ids()


async def test_a_run_that_has_ended_is_not_open_though_the_list_takes_no_heed_of_the_status_it_is_asked_for() -> None:
    casedev, _ = source(lambda path, params: page_of(open_row(2), row(1)))
    assert await casedev.open_run_ids() == {"run_2"}


async def test_a_run_that_starts_while_open_runs_are_asked_for_is_open() -> None:
    status = {"run_1": "queued"}

    def answer(path: str, params: dict[str, Any]) -> Any:
        listed = [open_row(1, status["run_1"])] if status["run_1"] == params["status"] else []
        status["run_1"] = "running"
        return page_of(*listed)

    casedev, _ = source(answer)
    assert await casedev.open_run_ids() == {"run_1"}


async def test_names_come_from_the_agents_list_which_is_read_once() -> None:
    names = agents_of(agent_1="reviewer")
    runs = page_of(row(1), row(2), row(3, agentId="ephemeral"), row(4, agentId=None))
    casedev, client = source({LIST: runs, AGENTS: names})
    for _ in range(2):
        page = await casedev.page(Scope(), Window(1), None)
        assert [listed.locator.agent_name for listed in page.rows] == ["reviewer", "reviewer", None, None]
    assert [path for path, _ in client.asked].count(AGENTS) == 1


async def test_runs_are_listed_without_names_where_these_cannot_be_had() -> None:
    casedev, _ = source({LIST: page_of(row(1)), AGENTS: SourceUnavailable("later")})
    (listed,) = (await casedev.page(Scope(), Window(1), None)).rows
    assert isinstance(listed, Listed)
    assert listed.locator == Locator(agent_id="agent_1", created_ns=minutes(1))


async def test_a_run_fed_by_its_id_gets_its_agents_name() -> None:
    casedev, _ = source({"/agent/v1/run/run_1/details": row(1), AGENTS: agents_of(agent_1="reviewer")})
    body = await casedev.fetch(RunRef("casedev", "t", "run_1"))
    assert (body.ref.locator.agent_id, body.ref.locator.agent_name) == ("agent_1", "reviewer")
    assert casedev.read(body).agent_name == "reviewer"


async def test_the_name_a_run_was_first_seen_with_stays() -> None:
    casedev, client = source({"/agent/v1/run/run_1/details": row(1)})
    body = await casedev.fetch(RunRef("casedev", "t", "run_1", Locator(agent_id="agent_1", agent_name="as it was")))
    assert casedev.read(body).agent_name == "as it was"
    assert len(client.asked) == 1


async def test_the_version_is_a_segment_of_every_path() -> None:
    casedev, client = source(lambda path, _: page_of(row(1)), api_version="v2")
    await casedev.page(Scope(), Window(1), None)
    await casedev.fetch(RunRef("casedev", "t", "run_1"))
    assert {path for path, _ in client.asked} == {"/agent/v2/run", "/agent/v2/agents", "/agent/v2/run/run_1/details"}


def tool_of(step_time: Any, *rows: dict[str, Any]) -> Step:
    document = {"status": "completed", "steps": list(rows)}
    run = read_run(RunBody(RunRef("casedev", "t", "run_1"), {"detail": document}), step_time)
    (step,) = run.steps
    assert step.kind is StepKind.TOOL_CALL
    return step


def call(minute: int, kind: str = "tool_call", **more: Any) -> dict[str, Any]:
    return {
        "id": f"s{minute}{kind}",
        "type": kind,
        "toolName": "bash",
        "timestamp": f"2026-05-01T10:0{minute}:00Z",
    } | more


@pytest.mark.parametrize(
    ("step_time", "rows", "start", "end"),
    [
        ("start", [call(1)], 1, None),
        ("end", [call(1)], None, 1),
        ("start", [call(1), call(3, "tool_result")], 1, 3),
        ("end", [call(1), call(3, "tool_result")], 1, 3),
        ("start", [call(1, durationMs=5), call(3, "tool_result")], 1, 3),
        ("end", [call(1, durationMs=5), call(3, "tool_result")], None, 3),
        ("start", [call(3, "tool_result", durationMs=5)], None, 3),
        ("end", [call(3, "tool_result", durationMs=5)], None, 3),
    ],
)
def test_what_a_timestamp_tells(step_time: Any, rows: Any, start: int | None, end: int | None) -> None:
    step = tool_of(step_time, *rows)
    assert step.start_ns == (None if start is None else minutes(start))
    assert step.end_ns == (None if end is None else minutes(end))


@pytest.mark.parametrize(("status", "description"), [("failed", "no; none"), ("cancelled", None), ("completed", None)])
def test_issues_are_the_error_of_a_failed_run_alone(status: str, description: str | None) -> None:
    result = {
        "output": "secret",
        "finalResponse": {"summary": "secret", "issues": ["no", "", "none"]},
        "logs": "secret",
    }
    run = read_run(RunBody(RunRef("casedev", "t", "run_1"), {"detail": {"status": status, "result": result}}))
    assert run.error_description == description
    assert [step.content.text for step in run.steps if step.name == "issue"] == ["no", "none"]


def test_ten_thousand_calls_are_paired_in_no_time() -> None:
    rows = [call(1, id=f"c{n}") for n in range(10_000)] + [call(2, "tool_result", id=f"r{n}") for n in range(10_000)]
    document = {"status": "completed", "steps": rows}
    run = read_run(RunBody(RunRef("casedev", "t", "run_1"), {"detail": document}))
    assert len(run.steps) == 10_000


SPANS = {"one": (10, 20), "other": (15, 25), "open": (12, None)}


@pytest.mark.parametrize(
    ("ended", "tools", "parent"),
    [
        (12, ["one"], "one"),
        (20, ["one"], "one"),
        (10, ["one"], None),
        (21, ["one"], None),
        (None, ["one"], None),
        (17, ["one", "other"], None),
        (22, ["one", "other"], "other"),
        (12, ["one", "open"], "one"),
        (22, ["open"], None),
    ],
)
def test_a_service_belongs_to_the_only_tool_that_ran_when_it_answered(
    ended: int | None, tools: list[str], parent: str | None
) -> None:
    steps = [
        Step(kind=StepKind.TOOL_CALL, key=(name,), start_ns=SPANS[name][0], end_ns=SPANS[name][1]) for name in tools
    ]
    for kind, expected in ((StepKind.API_CALL, parent), (StepKind.MODEL_CALL, None)):
        placed = under_tools([Step(kind=kind, key=("entry",), end_ns=ended)], steps)
        assert [step.key[0] for step in placed if step.children] == ([expected] if expected else [])
        assert len(placed) == len(tools) + (expected is None)


def test_ten_thousand_services_find_their_tools_in_no_time() -> None:
    tools = [Step(kind=StepKind.TOOL_CALL, key=(str(n),), start_ns=10 * n, duration_ns=5) for n in range(10_000)]
    entries = [Step(kind=StepKind.API_CALL, key=(str(n),), end_ns=10 * n + 1) for n in range(10_000)]
    before = time.process_time()
    assert all(len(step.children) == 1 for step in under_tools(entries, tools))
    assert time.process_time() - before < 2
