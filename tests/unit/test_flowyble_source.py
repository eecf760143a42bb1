"""How Flowyble's runs are fetched, and listed where the configuration describes a list."""

from typing import Any

import pytest
from pydantic import ValidationError

from runspan.errors import RunGone, RunUnreadable, SourceUnavailable
from runspan.model import RunRef, RunStatus
from runspan.sources import runlist
from runspan.sources.base import Page, Scope, Window
from runspan.sources.flowyble import Flowyble, FlowybleConfig
from tests.unit.scripted import ScriptedClient

SECOND_NS = 1_000_000_000
EIGHT_NS = 1_777_622_400 * SECOND_NS
"""2026-05-01T08:00:00Z"""
REF = RunRef("flowyble", "t", "run-1")
STATUS = "/agents/run/run-1/status"
DETAILS = "/agents/run/run-1/details"
SCOPE = Scope("a1")


def source(answer: Any, **config: Any) -> tuple[Flowyble, ScriptedClient]:
    client = ScriptedClient(answer if callable(answer) else lambda path, _: answer[path])
    settings = FlowybleConfig(name="f", platform="flowyble", base_url="https://platform.example.test/v1", **config)
    return Flowyble(settings, client), client


def listing(answer: Any, **changes: Any) -> tuple[Flowyble, ScriptedClient]:
    return source(answer, list={"agents": ["a1", "a2"], "page_size": 2} | changes)


def row(number: int, **changes: Any) -> dict[str, Any]:
    """A run that was created `number` minutes after eight."""
    created = {"createdAt": f"2026-05-01T08:{number:02d}:00Z", "finishedAt": f"2026-05-01T08:{number:02d}:30Z"}
    return {"id": f"r{number}", "status": "Completed", **created} | changes


async def sweep(flowyble: Flowyble, window: Window | None = None) -> list[Page]:
    pages: list[Page] = []
    cursor = None
    while len(pages) < 50:
        page = await flowyble.page(SCOPE, window or Window(1), cursor)
        pages.append(page)
        cursor = page.cursor
        if cursor is None:
            break
    return pages


def found(pages: list[Page]) -> list[str]:
    """The ids, each where it came first: behind the last page the one before it is read again."""
    return list(dict.fromkeys(listed.run_id for page in pages for listed in page.rows))


async def test_an_open_run_costs_its_status_alone() -> None:
    flowyble, client = source({STATUS: row(1, status="Running", finishedAt=None)})
    body = await flowyble.fetch(REF, known_open=True)
    assert flowyble.read(body).status is RunStatus.OPEN
    assert [path for path, _ in client.asked] == [STATUS]


async def test_a_run_that_has_ended_is_asked_for_its_steps() -> None:
    flowyble, client = source({STATUS: row(1, status="CANCELLED"), DETAILS: row(1, status="CANCELLED", steps=[])})
    assert flowyble.read(await flowyble.fetch(REF, known_open=True)).status is RunStatus.CANCELLED
    assert [path for path, _ in client.asked] == [STATUS, DETAILS]


async def test_a_run_not_known_to_be_open_costs_one_request() -> None:
    flowyble, client = source({DETAILS: row(1)})
    await flowyble.fetch(REF)
    assert [path for path, _ in client.asked] == [DETAILS]


def test_without_a_list_there_is_nothing_to_list() -> None:
    flowyble, _ = source({})
    assert not flowyble.lists
    assert listing({})[0].lists


async def test_scopes_are_the_agents_of_the_list_else_those_of_the_source() -> None:
    async def keys(**config: Any) -> list[str]:
        return [scope.key for scope in (await source({}, **config)[0].scopes()).found]

    assert await keys() == []
    assert await keys(list={"agents": ["a1", "a2", "a1"]}) == ["a1", "a2"]
    assert await keys(list={}, agents=["a3"]) == ["a3"]
    assert await keys(list={"path": "/runs"}) == [""]


@pytest.mark.parametrize(
    "config",
    [
        {"list": {}},
        {"list": {"path": "runs"}},
        {"list": {"path": "/runs?type=agent"}},
        {"list": {"path": "/runs", "pagination": "links"}},
        {"list": {"path": "/runs", "page_size": 0}},
        {"list": {"pth": "/runs"}},
    ],
)
def test_a_list_that_cannot_be_is_refused(config: Any) -> None:
    with pytest.raises(ValidationError):
        source({}, **config)


async def test_pages_by_number() -> None:
    rows = {"1": [row(5), row(4)], "2": [row(3), row(2)], "3": [row(1)]}
    flowyble, client = listing(lambda path, params: {"items": rows.get(str(params["page"]), [])})
    assert found(await sweep(flowyble)) == ["r5", "r4", "r3", "r2", "r1"]
    assert client.asked[1] == ("/agents/a1/runs", {"page": 2, "pageSize": 2})


async def test_pages_by_offset() -> None:
    rows = [row(number) for number in range(9, 0, -1)]
    # The server gives at most two, whatever is asked for.
    flowyble, client = listing(
        lambda path, params: rows[params["offset"] : params["offset"] + 2],
        pagination="offset",
        items_path="",
        page_size=5,
    )
    assert found(await sweep(flowyble)) == [f"r{number}" for number in range(9, 0, -1)]
    assert client.asked[1] == ("/agents/a1/runs", {"offset": 2, "limit": 5})


@pytest.mark.parametrize(
    "envelope",
    [
        lambda rows, cursor: {"data": {"runs": rows, "nextCursor": cursor}},
        lambda rows, cursor: {"data": {"runs": rows}, "nextCursor": cursor, "hasMore": cursor is not None},
        lambda rows, cursor: {"data": {"runs": rows}, "pagination": {"nextCursor": cursor}},
        lambda rows, cursor: {"data": {"runs": rows, "pagination": {"nextCursor": cursor}}},
        lambda rows, cursor: {"data": {"runs": rows}, "nextCursor": cursor or "2", "hasMore": cursor is not None},
    ],
)
async def test_pages_by_cursor(envelope: Any) -> None:
    def answer(path: str, params: dict[str, Any]) -> Any:
        return envelope([row(2), row(1)], None) if params.get("cursor") == "2" else envelope([row(4), row(3)], "2")

    flowyble, _ = listing(answer, pagination="cursor", items_path="data.runs")
    assert found(await sweep(flowyble)) == ["r4", "r3", "r2", "r1"]


async def test_an_empty_page_with_a_cursor_is_not_the_end() -> None:
    def answer(path: str, params: dict[str, Any]) -> Any:
        return {"items": [row(1)]} if params.get("cursor") == "2" else {"items": [], "nextCursor": 2}

    flowyble, _ = listing(answer, pagination="cursor")
    assert found(await sweep(flowyble)) == ["r1"]


async def test_a_page_of_rows_that_tell_no_run_is_not_the_end() -> None:
    pages = {1: [row(4), row(3)], 2: [{"name": "x"}, {"name": "y"}], 3: [row(2)]}
    for pagination, number in (("page", lambda params: params["page"]), ("offset", lambda p: p["offset"] // 2 + 1)):
        flowyble, _ = listing(
            lambda _, params, number=number: {"items": pages.get(number(params), [])}, pagination=pagination
        )
        assert found(await sweep(flowyble)) == ["r4", "r3", "r2"]


async def test_a_page_that_is_not_there_is_behind_the_last_one() -> None:
    """So do some that count pages. Once that is known, it costs nothing more."""
    pages = {1: [row(4), row(3)], 2: [row(2)]}
    flowyble, client = listing(lambda _, params: {"items": pages[n]} if (n := params["page"]) < 3 else RunGone("404"))
    assert found(await sweep(flowyble)) == ["r4", "r3", "r2"]
    assert len(client.asked) < 12
    client.asked.clear()
    assert found(await sweep(flowyble)) == ["r4", "r3", "r2"]
    assert len(client.asked) == 3


@pytest.mark.parametrize("size", [2, 5], ids=["full pages", "pages that the platform makes shorter"])
@pytest.mark.parametrize(
    ("pagination", "answers"),
    [
        ("page", [RunGone("404"), RunGone("404")]),
        ("page", [{"items": []}]),
        ("offset", [{"items": []}]),
        ("cursor", [{"items": []}, {"items": []}]),
    ],
)
async def test_what_is_not_there_for_once_is_not_the_end(pagination: str, answers: list[Any], size: int) -> None:
    rows = [row(number) for number in range(9, 0, -1)]

    def answer(_: str, params: dict[str, Any]) -> Any:
        place = params.get("page", 1) * 2 - 2 + params.get("offset", 0) + int(params.get("cursor", 0))
        if left and (place == 2 or "cursor" in params):
            return left.pop(0)
        some = rows[place : place + min(2, params.get("limit", 2))]
        return {"items": some, "nextCursor": str(place + len(some)) if some else None}

    left = list(answers)
    flowyble, _ = listing(answer, pagination=pagination, page_size=size)
    assert set(found(await sweep(flowyble))) == {each["id"] for each in rows}


async def test_a_list_that_says_whether_there_is_more_is_asked_for_no_page_behind_it() -> None:
    pages = {1: [row(4), row(3)], 2: [row(2), row(1)]}
    flowyble, client = listing(
        lambda _, params: {"items": pages[params["page"]], "pagination": {"hasMore": params["page"] < 2}}
    )
    assert found(await sweep(flowyble)) == ["r4", "r3", "r2", "r1"]
    assert len(client.asked) == 2


async def test_pages_may_be_counted_from_0() -> None:
    """Else the first page would be the second one, without a word."""
    pages = {0: [row(2)], 1: [row(1)]}
    flowyble, client = listing(lambda _, params: {"items": pages.get(params["page"], [])}, first_page=0)
    assert found(await sweep(flowyble)) == ["r2", "r1"]
    assert client.asked[0][1] == {"page": 0, "pageSize": 2}


@pytest.mark.parametrize("pagination", ["page", "offset", "cursor"])
async def test_a_list_without_an_end_is_left(pagination: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runspan.sources.walk.MAX_PAGES", 5)
    fresh = iter(range(1, 1000))
    flowyble, client = listing(
        lambda path, _: {"items": [row(1, id=f"r{next(fresh)}")], "nextCursor": f"c{next(fresh)}"},
        pagination=pagination,
        page_size=1,
    )
    pages = await sweep(flowyble)
    assert len(client.asked) == 5
    assert pages[-1].broken_off
    assert "does not end" in pages[-1].broken_off


async def test_reading_stops_behind_the_window_where_the_newest_come_first() -> None:
    rows = {1: [row(9), row(8)], 2: [row(5), row(4)], 3: [row(3)]}
    window = Window(EIGHT_NS + 6 * 60 * SECOND_NS)
    for order, requests in (("desc", 2), ("asc", 8), ("none", 8)):
        flowyble, client = listing(lambda path, params: {"items": rows.get(params["page"], [])}, order=order)
        assert found(await sweep(flowyble, window)) == ["r9", "r8"]
        assert len(client.asked) == requests


async def test_other_names_for_id_and_time() -> None:
    item = {"runId": 17, "startedAt": "2026-05-01T08:00:00Z", "status": "Running"}
    flowyble, _ = listing({"/runs": [item]}, path="/runs", items_path="", id_field="runId", time_field="startedAt")
    (listed,) = (await flowyble.page(Scope(), Window(1), None)).rows
    assert (listed.run_id, listed.time_ns, listed.terminal) == ("17", EIGHT_NS, False)


@pytest.mark.parametrize("answer", [RunGone("GET /x answered 404"), RunUnreadable("GET /x answered 405")])
async def test_a_list_that_is_not_there_is_one_clear_error_and_left_alone_for_a_while(
    answer: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been a gateway that said so."""
    seconds = 1000.0
    monkeypatch.setattr("runspan.sources.flowyble.time.monotonic", lambda: seconds)
    flowyble, client = listing(lambda path, _: answer if "/a1/" in path else {"items": [row(1)]})
    with pytest.raises(RunGone, match=r"no such list.*list\.path.*--ids-file"):
        await flowyble.page(SCOPE, Window(1), None)
    assert [scope.key for scope in (await flowyble.scopes()).found] == ["a2"]
    client._answer = lambda path, _: answer
    with pytest.raises(RunGone):
        await flowyble.page(Scope("a2"), Window(1), None)
    assert (await flowyble.scopes()).found == ()
    seconds += 601
    assert [scope.key for scope in (await flowyble.scopes()).found] == ["a1", "a2"]


async def test_a_list_that_is_ill_today_is_asked_again() -> None:
    flowyble, _ = listing(lambda path, _: SourceUnavailable("later"))
    with pytest.raises(SourceUnavailable):
        await flowyble.page(SCOPE, Window(1), None)
    assert flowyble.lists


def test_an_agents_id_is_one_segment_of_the_path() -> None:
    assert runlist.segments(runlist.ListConfig(), "a/../b") == ("agents", "a/../b", "runs")
