"""Whatever a platform answers when it is asked for its runs, a source gives sound rows or one of our own errors."""

import json
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runspan.config import bind
from runspan.demo.samples import casedev_run, elizaos_run, flowyble_run, runtype_execution
from runspan.errors import RunspanError
from runspan.model import Json, Locator, RunRef
from runspan.sources import platforms, registry
from runspan.sources.base import Page, Scope, Source, Window
from runspan.sources.client import encode_path
from runspan.sources.fields import MAX_INTEGER
from tests import figures
from tests.unit.scripted import ScriptedClient
from tests.unit.unsound_bodies import Documents, spoiled

T = TypeVar("T")

NOW_NS = 1_777_000_000_000_000_000
WINDOW = Window(NOW_NS - 10**15, NOW_NS + 10**15)
MOST_REQUESTS = 50
LISTS: dict[str, list[Documents]] = {
    "flowyble": [
        {"detail": {"items": [flowyble_run(key, created_at_ns=NOW_NS).body for key in range(3)]}},
        {"detail": {"items": [flowyble_run(1, created_at_ns=NOW_NS).body], "hasMore": True, "nextCursor": "abc"}},
        {"detail": {"items": [], "pagination": {"hasMore": True, "nextCursor": 17}}},
    ],
    "runtype": [
        {
            "detail": {
                "data": [runtype_execution(key, created_at_ns=NOW_NS).body for key in range(3)],
                "pagination": {"nextCursor": "exec_1", "prevCursor": None, "hasMore": True, "limit": 50},
            }
        },
        {"detail": {"data": [{"id": "agent_1", "name": "Ada", "lastRunAt": None}], "pagination": {"hasMore": False}}},
        {"detail": {"toolCalls": [{"id": "tc_1"}, {"id": 7}], "status": "completed"}},
    ],
    "elizaos": [
        {
            "detail": {
                "success": True,
                "data": {
                    "runs": [
                        {"runId": f"r{key}", "status": "completed", "startedAt": 1_777_000_000_000 + key, "roomId": "1"}
                        for key in range(3)
                    ],
                    "total": 3,
                    "hasMore": True,
                },
            }
        },
        {"detail": {"success": True, "data": {"agents": [{"id": "a1", "name": "Eliza", "status": "active"}]}}},
        {"detail": elizaos_run(1, created_at_ns=NOW_NS).body},
    ],
    "casedev": [
        {
            "detail": {
                "runs": [casedev_run(key, created_at_ns=NOW_NS).body for key in range(3)],
                "hasMore": True,
                "nextCursor": "run_1",
            }
        },
        {"detail": {"agents": [{"id": "agent_1", "name": "reviewer"}], "hasMore": False, "nextCursor": None}},
    ],
}
CONFIG: dict[str, dict[str, Any]] = {
    "flowyble": {"list": {"agents": ["a"], "pagination": "cursor"}},
    "elizaos": {"base_url": "http://localhost:3000"},
}
SPOILED = {platform: spoiled(bodies) for platform, bodies in LISTS.items()}


CONFIGS = {
    platform: bind(platforms())(source=[{"name": "s", "platform": platform, **CONFIG.get(platform, {})}]).source[0]
    for platform in registry()
}


def answered(platform: str, answer: Json) -> Source:
    """A source that is always given the same answer."""

    def door(path: str, params: dict[str, Any]) -> Json:
        assert len(client.asked) <= MOST_REQUESTS, "no answer is good for so many requests"
        assert all(isinstance(value, str | int) for value in params.values())
        encode_path(path.split("/")[1:])
        return answer

    client = ScriptedClient(door)
    return registry()[platform](CONFIGS[platform], client)


def at_once(awaitable: Awaitable[T]) -> T | None:
    """What a coroutine gives that waits for nothing; None where it ends in one of our errors."""
    try:
        awaitable.__await__().send(None)
    except StopIteration as stop:
        return stop.value
    except RunspanError:
        return None
    raise AssertionError("it waits")


def assert_sound(page: Page) -> None:
    assert json.loads(json.dumps(page.cursor)) == page.cursor
    for row in page.rows:
        for text in (row.run_id, row.raw_status, row.skip_reason, *vars_of(row.locator)):
            assert text is None or (isinstance(text, str) and text.encode())
        for time_ns in (row.time_ns, row.ended_ns, row.locator.created_ns):
            assert time_ns is None or 0 < time_ns <= MAX_INTEGER
    assert all(len(problem) < 300 and "\n" not in problem for problem in page.problems)


def vars_of(locator: Locator) -> Sequence[str | None]:
    return locator.agent_id, locator.agent_name, locator.room


@pytest.mark.parametrize("part", figures.rounds(1, 9))
@pytest.mark.parametrize("platform", registry())
@settings(max_examples=2 * settings().max_examples, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_lists_that_were_spoiled(part: int, platform: str, data: st.DataObject) -> None:
    answer = data.draw(SPOILED[platform])["detail"]
    figures.note(cases=1)
    with patch("runspan.sources.names.log"):
        at_once(answered(platform, answer).scopes())
        at_once(answered(platform, answer).open_run_ids())
        for with_content in (False, True):
            source = answered(platform, answer)
            at_once(source.fetch(RunRef(platform, source.tenant, "run-1"), with_content=with_content))
        source, cursor = answered(platform, answer), None
        for _ in range(3):
            page = at_once(source.page(Scope("a"), WINDOW, cursor))
            if page is not None:
                assert_sound(page)
            if page is None or page.cursor is None:
                break
            cursor = page.cursor
