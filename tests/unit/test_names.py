"""Agents' names are asked for when a run may be of an agent that is new, and waited for where that fails for now."""

import pytest
from structlog.testing import capture_logs

from runspan.errors import RunGone, SourceRefused, SourceUnavailable
from runspan.sources.base import Scope, Scopes
from runspan.sources.names import AgentNames
from tests.ledgers import SECOND, Clock


class Platform:
    """What answers when agents are listed; raises `failure` instead, where there is one."""

    def __init__(self) -> None:
        self.agents: dict[str, str | None] = {"a": "Ada", "x": None}
        self.failure: Exception | None = None
        self.broken_off: str | None = None
        self.asked = 0

    async def read(self) -> Scopes:
        self.asked += 1
        if self.failure:
            raise self.failure
        return Scopes(tuple(Scope(agent_id, name) for agent_id, name in self.agents.items()), self.broken_off)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
def names(platform: Platform, clock: Clock) -> AgentNames:
    return AgentNames("case", platform.read, now=clock)


async def test_what_is_known_is_not_asked_for(platform: Platform, names: AgentNames, clock: Clock):
    for _ in range(3):
        assert await names.of("a", clock.ns + 3600 * SECOND) == "Ada"
        assert await names.of("x", clock.ns + 3600 * SECOND) is None
        assert await names.of(None, None) is None
    assert platform.asked == 1


async def test_an_agent_that_is_newer_than_the_last_answer_is_asked_for(
    platform: Platform, names: AgentNames, clock: Clock
):
    await names.of("a", clock.ns)
    platform.agents["b"] = "Bo"
    clock.advance(5)
    assert await names.of("b", clock.ns - SECOND) == "Bo"
    assert platform.asked == 2


async def test_an_agent_that_is_there_no_more_is_asked_for_once(platform: Platform, names: AgentNames, clock: Clock):
    for _ in range(3):
        assert await names.of("gone", clock.ns - SECOND) is None
    assert platform.asked == 1
    # Of a run without a time it is not known whether it is older.
    assert await names.of("gone", None) is None
    clock.advance(600)
    assert await names.of("gone", None) is None
    assert platform.asked == 2


async def test_a_list_that_fails_for_a_moment_is_waited_for(platform: Platform, names: AgentNames, clock: Clock):
    platform.failure = SourceUnavailable("not now")
    for _ in range(5):
        with pytest.raises(SourceUnavailable):
            await names.of("a", clock.ns)
    assert platform.asked == 1, "each run of a page must not ask anew"
    clock.advance(11)
    platform.failure = None
    assert await names.of("a", clock.ns) == "Ada"


async def test_a_list_that_fails_for_minutes_keeps_no_run_back(platform: Platform, names: AgentNames, clock: Clock):
    platform.failure = SourceUnavailable("not now")
    with capture_logs() as logs:
        for _ in range(15):
            with pytest.raises(SourceUnavailable):
                await names.of("a", clock.ns)
            clock.advance(20)
        assert await names.of("a", clock.ns) is None
    assert [log["action"] for log in logs] == ["agent_names_unavailable"]
    platform.failure = None
    clock.advance(20)
    assert await names.of("a", clock.ns) == "Ada"


@pytest.mark.parametrize("failure", [SourceRefused("no right"), RunGone("no such list")])
async def test_a_list_that_is_not_for_us_keeps_no_run_back(
    platform: Platform, names: AgentNames, clock: Clock, failure: Exception
):
    platform.failure = failure
    with capture_logs() as logs:
        for _ in range(3):
            assert await names.of("a", clock.ns - SECOND) is None
    assert platform.asked == 1
    assert [log["action"] for log in logs] == ["agent_names_unavailable"]


async def test_a_list_that_breaks_off_tells_what_it_shows_and_is_not_read_for_each_that_it_does_not(
    platform: Platform, names: AgentNames, clock: Clock
):
    platform.broken_off = "the list of agents breaks off"
    with capture_logs() as logs:
        assert await names.of("a", clock.ns) == "Ada"
        for _ in range(20):
            clock.advance(29)
            assert await names.of("b", clock.ns) is None
    assert platform.asked == 1
    assert [entry["action"] for entry in logs] == ["agent_names_unavailable"]
    platform.agents["b"] = "Bo"
    clock.advance(60)
    assert await names.of("b", clock.ns) == "Bo"
