"""How Runtype's executions are found and fetched, where its answers are odd."""

from typing import Any

import pytest

from runspan.errors import AnswerTooLarge, RunGone, RunUnreadable, SourceUnavailable
from runspan.model import Locator, RunRef
from runspan.sources.base import Listed, Scope, Window
from runspan.sources.runtype import Runtype, RuntypeConfig
from tests.unit.scripted import ScriptedClient

SECOND_NS = 1_000_000_000
NINE_NS = 1_777_626_000 * SECOND_NS
"""2026-05-01T09:00:00Z"""
SCOPE = Scope("agent_1", "figures")
REF = RunRef("runtype", "t", "exec_1", Locator(agent_id="agent_1", agent_name="figures"))
DETAIL = "/v1/agents/agent_1/executions/exec_1"


def source(answer: Any, **config: Any) -> tuple[Runtype, ScriptedClient]:
    client = ScriptedClient(answer if callable(answer) else lambda path, _: answer[path])
    settings = RuntypeConfig(name="r", platform="runtype", base_url="https://platform.example.test", **config)
    return Runtype(settings, client), client


def row(number: int, **changes: Any) -> dict[str, Any]:
    times = {"createdAt": "2026-05-01T09:00:00Z", "completedAt": "2026-05-01T09:00:07Z"}
    return {"executionId": f"exec_{number}", "agentId": "agent_1", "status": "completed", **times} | changes


def page_of(*rows: Any, cursor: Any = None, more: bool = False) -> dict[str, Any]:
    return {"data": list(rows), "pagination": {"nextCursor": cursor, "hasMore": more}}


async def sweep(runtype: Runtype, window: Window) -> tuple[dict[str, Listed], list[str]]:
    rows: dict[str, Listed] = {}
    problems: list[str] = []
    cursor = None
    for _ in range(30):
        page = await runtype.page(SCOPE, window, cursor)
        rows |= {row.run_id: row for row in page.rows}
        problems += page.problems
        cursor = page.cursor
        if cursor is None:
            return rows, problems
    raise AssertionError("the list goes on for ever")


async def listed(*rows: Any, window: Window | None = None, **config: Any) -> dict[str, Listed]:
    runtype, _ = source(lambda path, params: page_of(*rows), **config)
    return (await sweep(runtype, window or Window(NINE_NS - 3600 * SECOND_NS)))[0]


@pytest.mark.parametrize(
    ("changes", "terminal"),
    [
        ({}, True),
        ({"status": "CANCELLED", "completedAt": None}, True),
        ({"status": "halted"}, True),
        ({"status": "paused", "completedAt": None}, False),
        ({"status": "halted", "completedAt": None}, False),
        ({"status": None, "completedAt": None}, False),
        ({"completedAt": "soon", "status": "running"}, False),
    ],
)
async def test_terminal_is_what_has_ended_or_says_so(changes: dict[str, Any], terminal: bool) -> None:
    rows = await listed(row(1, **changes))
    assert rows["exec_1"].terminal is terminal


async def test_terminal_words_are_configured() -> None:
    rows = await listed(row(1, status="Halted", completedAt=None), terminal_statuses=("halted",))
    assert rows["exec_1"].terminal


async def test_imports_are_skipped_unless_wanted() -> None:
    rows = [row(1, executionId="otel-1"), row(2, agentSource="external"), row(3, agentSource="stored")]
    rows += [row(4, executionId="OTEL-4"), row(5, agentSource="External")]
    skipped = {run_id: listed.skip_reason for run_id, listed in (await listed(*rows)).items()}
    assert skipped == {
        "otel-1": "external",
        "exec_2": "external",
        "exec_3": None,
        "OTEL-4": "external",
        "exec_5": "external",
    }
    wanted = await listed(*rows, include_external=True)
    assert {listed.skip_reason for listed in wanted.values()} == {None}


async def test_window_is_checked_again() -> None:
    rows = await listed(
        row(1, createdAt="2026-05-01T07:00:00Z", completedAt="2026-05-01T07:30:00Z"),
        row(2, createdAt="2026-05-01T07:00:00Z", completedAt="2026-05-01T08:30:00Z"),
        row(3, createdAt="2026-05-01T07:00:00Z", completedAt=None, status="running"),
        row(4, createdAt="2026-05-01T09:00:00Z"),
        row(5, createdAt=None, completedAt=None),
        window=Window(NINE_NS - 3600 * SECOND_NS, NINE_NS),
    )
    assert set(rows) == {"exec_2", "exec_3", "exec_5"}


async def test_window_is_asked_for_in_iso() -> None:
    runtype, client = source({"/v1/agents/agent_1/executions": page_of()})
    await runtype.page(SCOPE, Window(NINE_NS + 1_999_999, NINE_NS + SECOND_NS + 1), None)
    sent = client.asked[0][1]
    assert (sent["from"], sent["to"]) == ("2026-05-01T09:00:00.001Z", "2026-05-01T09:00:01.001Z")


async def test_repeated_cursor_is_asked_again_before_it_is_believed() -> None:
    answers = iter([page_of(row(1), cursor="c", more=True)] * 3 + [page_of(row(2))])
    runtype, _ = source(lambda path, params: next(answers))
    rows, problems = await sweep(runtype, Window(0))
    assert (set(rows), problems) == ({"exec_1", "exec_2"}, [])


@pytest.mark.parametrize("circle", [["a"], ["a", "b"], ["a", "b", "c", "d", "e"]])
async def test_a_circle_of_cursors_is_no_end_of_a_list(circle: list[str]) -> None:
    onward = dict(zip(circle, [*circle[1:], circle[0]], strict=True))
    runtype, _ = source(
        lambda path, params: page_of(row(1), cursor=onward[params["cursor"]] if "cursor" in params else "a", more=True)
    )
    page = await runtype.page(SCOPE, Window(0), None)
    while page.cursor is not None:
        page = await runtype.page(SCOPE, Window(0), page.cursor)
    assert [listed.run_id for listed in page.rows] == ["exec_1"]
    assert page.broken_off
    assert "circle" in page.broken_off


async def test_a_page_that_is_too_large_is_asked_for_in_fewer_rows() -> None:
    def answer(path: str, params: dict[str, Any]) -> Any:
        return AnswerTooLarge("over max_body") if params["limit"] > 12 else page_of(row(1))

    runtype, client = source(answer)
    for _ in range(2):
        assert [listed.run_id for listed in (await runtype.page(SCOPE, Window(0), None)).rows] == ["exec_1"]
    assert [params["limit"] for _, params in client.asked] == [50, 12, 12]


async def test_a_row_that_alone_is_too_large_ends_the_asking() -> None:
    runtype, client = source(lambda path, params: AnswerTooLarge("over max_body"))
    with pytest.raises(AnswerTooLarge):
        await runtype.page(SCOPE, Window(0), None)
    assert client.asked[-1][1]["limit"] == 1


async def test_more_without_a_cursor_is_no_end_of_a_list() -> None:
    runtype, _ = source(lambda path, params: page_of(row(1), more=True))
    page = await runtype.page(SCOPE, Window(0), None)
    assert page.cursor is None
    assert page.broken_off
    assert "not where" in page.broken_off


async def test_rows_that_cannot_be_read_are_told() -> None:
    runtype, _ = source({"/v1/agents/agent_1/executions": page_of(row(1), {"status": "completed"}, "x")})
    rows, problems = await sweep(runtype, Window(0))
    assert set(rows) == {"exec_1"}
    assert problems == ["data[2]: not an object", "data[1]: no id"]


@pytest.mark.parametrize("answer", [{"success": False}, {"data": None}, [], "odd"])
async def test_answer_without_a_list_is_not_an_empty_list(answer: Any) -> None:
    runtype, _ = source(lambda path, params: answer)
    with pytest.raises(SourceUnavailable):
        await runtype.page(SCOPE, Window(0), None)
    with pytest.raises(SourceUnavailable):
        await runtype.scopes()


async def test_agents_are_paged() -> None:
    pages = {
        None: page_of({"id": "a", "name": "Ada"}, cursor="a", more=True),
        "a": page_of({"id": "b"}, {"name": "no id"}, cursor="b", more=False),
    }
    runtype, _ = source(lambda path, params: pages[params.get("cursor")])
    assert (await runtype.scopes()).found == (Scope("a", "Ada"), Scope("b", None))


async def test_open_execution_costs_one_request() -> None:
    runtype, client = source({DETAIL: row(1, status="running", completedAt=None)})
    body = await runtype.fetch(REF, known_open=True)
    assert set(body.documents) == {"detail"}
    assert len(client.asked) == 1


async def test_payloads_are_fetched_with_content_only() -> None:
    answers = {
        DETAIL: row(1),
        f"{DETAIL}/tool-calls": {"toolCalls": [{"id": "tc_1"}, {"id": "tc_2"}, {"id": "tc_3"}, {"toolName": "no id"}]},
        f"{DETAIL}/tool-calls/tc_1": {"id": "tc_1"},
        f"{DETAIL}/tool-calls/tc_2": RunGone("gone"),
        f"{DETAIL}/tool-calls/tc_3": RunUnreadable("too large"),
    }
    runtype, _ = source(answers)
    bare = await runtype.fetch(REF)
    assert set(bare.documents) == {"detail", "tools"}
    full = await runtype.fetch(REF, with_content=True)
    assert set(full.documents) == {"detail", "tools", "tool/tc_1"}


async def test_missing_list_of_tool_calls_is_no_missing_run() -> None:
    runtype, _ = source({DETAIL: row(1), f"{DETAIL}/tool-calls": RunGone("gone")})
    assert set((await runtype.fetch(REF)).documents) == {"detail"}


async def test_agent_is_searched_where_none_is_known() -> None:
    answers = {
        "/v1/agents": page_of({"id": "agent_0", "name": "other"}, {"id": "agent_1", "name": "figures"}),
        DETAIL.replace("agent_1", "agent_0"): RunGone("gone"),
        DETAIL: row(1),
        f"{DETAIL}/tool-calls": {"toolCalls": []},
    }
    runtype, _ = source(answers)
    body = await runtype.fetch(RunRef("runtype", "t", "exec_1"))
    assert body.ref.locator == Locator(agent_id="agent_1", agent_name="figures")
    answers[DETAIL] = RunGone("gone")  # pyright: ignore[reportArgumentType]
    with pytest.raises(RunGone, match="no agent has the execution 'exec_1'"):
        await runtype.fetch(RunRef("runtype", "t", "exec_1"))


@pytest.mark.parametrize("error", [RunGone("404"), RunUnreadable("400")])
async def test_no_list_of_agents_means_a_wrong_address(error: Exception) -> None:
    runtype, _ = source(lambda path, params: error)
    with pytest.raises(SourceUnavailable, match="check base_url"):
        await runtype.scopes()
