"""What every source must do, whatever its platform: found, fetched and read over real HTTP.

The simulator stands in for the platforms, with the oddities that its `Quirks` and faults add. A platform that joins the
registry joins here with one `Case`.
"""

import copy
import json
import math
import random
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runspan.config import SourceConfig, bind
from runspan.demo import samples
from runspan.demo.faults import CutOff, Effect, Reply, Reset, html, redirect
from runspan.demo.platforms.flowyble import ListShape
from runspan.demo.samples import casedev_run, elizaos_run, flowyble_run, runtype_execution
from runspan.demo.simulator import Simulator
from runspan.demo.world import SECOND_NS, World, WorldAgent, WorldRun
from runspan.errors import RunGone, RunspanError, RunUnreadable, SourceRefused, SourceUnavailable
from runspan.http import Connection
from runspan.model import Locator, Run, RunBody, RunRef, RunStatus
from runspan.pipeline.sweep import pages as pages_of
from runspan.projection import ProjectionSettings, project
from runspan.rate import Limiter
from runspan.sources import platforms, registry
from runspan.sources.base import Listed, Page, Scope, Source, Window
from runspan.sources.client import Client
from runspan.trace import Trace
from tests.unit.test_goldens import FIXTURES, source_of

HOUR_NS = 3600 * SECOND_NS
NOW_NS = 1_790_000_000 * SECOND_NS
ALL_TIME = Window(1)
PAGE_SIZE = 7
MOST_PAGES = 200
AGENTS = (
    WorldAgent(agent_id="0b9d4c52-7a18-4f3e-9c06-1d2e3f4a5b6c", name="Ada"),
    WorldAgent(agent_id="c7e1f0a3-2b64-4d59-8e17-6f5a4b3c2d1e", name="Bo"),
)
UNKNOWN_ID = "4d3c2b1a-0f9e-4d8c-b7a6-95847362514f"
SETTINGS = ProjectionSettings(source="s")
WITH_CONTENT = ProjectionSettings(source="s", capture_content=True)


@dataclass(frozen=True, slots=True)
class Case:
    """What the suite must know of a platform to make it work and to make it fail."""

    platform: str
    run: Callable[..., WorldRun]
    page_size: str | None
    """The constant that says how many rows a page has; None where it is configured."""
    list_path: str
    """What the path of a list of runs looks like, as a regular expression."""
    other_end: str = "?x="
    """What, behind a run's id, would make an unencoded id ask for that run."""
    scoped_by_agent: bool = True
    has_cursors: bool = True
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    name: str = ""


def flowyble_list(pagination: str) -> dict[str, Any]:
    agents = [agent.agent_id for agent in AGENTS]
    return {"list": {"agents": agents, "pagination": pagination, "page_size": PAGE_SIZE}}


FLOWYBLE: dict[str, Any] = {
    "platform": "flowyble",
    "run": flowyble_run,
    "page_size": None,
    "list_path": r"^/v1/agents/[^/]+/runs",
    "other_end": "/details?x=",
}
CASES = [
    Case(
        platform="casedev",
        run=casedev_run,
        page_size="runspan.sources.casedev.PAGE_SIZE",
        list_path=r"^/agent/v1/run\?",
        other_end="/details?x=",
        scoped_by_agent=False,
    ),
    Case(**FLOWYBLE, config=flowyble_list("page"), has_cursors=False, name="flowyble by page"),
    Case(**FLOWYBLE, config=flowyble_list("offset"), has_cursors=False, name="flowyble by offset"),
    Case(**FLOWYBLE, config=flowyble_list("cursor"), name="flowyble by cursor"),
    Case(
        platform="runtype",
        run=runtype_execution,
        page_size="runspan.sources.runtype.PAGE_LIMIT",
        list_path=r"^/v1/agents/[^/]+/executions\?",
    ),
    Case(
        platform="elizaos",
        run=elizaos_run,
        page_size="runspan.sources.elizaos.LIST_LIMIT",
        list_path=r"^/api/agents/[^/]+/runs\?",
        has_cursors=False,
    ),
]
every_source = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name or case.platform)


class NoQuota:
    """A budget that never runs out."""

    def debit(self, key: str, interval_ns: int) -> int:
        return 0

    def delay(self, key: str, by_ns: int) -> None:
        pass

    def pause(self, key: str, until_ns: int) -> None:
        pass


class Clock:
    """The platforms' clock, which only the test moves."""

    def __init__(self) -> None:
        self.now_ns = NOW_NS

    def __call__(self) -> int:
        return self.now_ns


class Bench:
    """A simulated platform, and sources that read it."""

    def __init__(self, case: Case, simulator: Simulator, clock: Clock) -> None:
        self.case = case
        self.simulator = simulator
        self.clock = clock
        self.world = simulator.world
        self.platform = simulator.platforms[case.platform]
        self._clients: list[Client] = []

    def add(self, key: int | str, created_ns: int, agent: WorldAgent = AGENTS[0], **how: Any) -> str:
        """Add a run that has ended; its id."""
        how.setdefault("seconds", 2.0)
        return self.world.add(self.case.run(key, created_at_ns=created_ns, agent=agent, **how)).run_id

    def add_many(self, count: int, *, together: int = 1) -> set[str]:
        """Runs of both agents, `together` at a time at one instant, a minute apart; their ids."""
        start_ns = NOW_NS - 48 * HOUR_NS
        return {
            self.add(number, start_ns + (number // together) * 60 * SECOND_NS, AGENTS[number % 2])
            for number in range(count)
        }

    def open(self, key: str | None = None) -> Source:
        """A source as the configuration would make it."""
        config = source_config(self.case, self.simulator.urls[self.case.platform])
        connection = Connection(config.base_url, timeout_seconds=5, max_body_bytes=10_000_000)
        kind = registry()[self.case.platform]
        secret = key or self.platform.key
        client = Client(
            connection,
            name=config.name,
            limiter=Limiter(NoQuota(), "", 0),
            headers=lambda: kind.auth_headers(secret),
            sleep=no_sleep,
        )
        self._clients.append(client)
        return kind(config, client)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


async def no_sleep(seconds: float) -> None:
    pass


def source_config(case: Case, base_url: str) -> SourceConfig:
    entry = {"name": "s", "platform": case.platform, "base_url": base_url, **case.config}
    return bind(platforms())(source=[entry]).source[0]


@pytest.fixture
async def bench(case: Case, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Bench]:
    async with bench_of(case, monkeypatch) as bench:
        yield bench


@asynccontextmanager
async def bench_of(case: Case, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Bench]:
    if case.page_size:
        monkeypatch.setattr(case.page_size, PAGE_SIZE)
    clock = Clock()
    world = World(now=clock)
    async with Simulator(world, rate_limited=False) as simulator:
        for agent in AGENTS:
            world.add_agent(case.platform, agent)
        flowyble = simulator.platforms["flowyble"]
        flowyble.list_shape = ListShape()
        bench = Bench(case, simulator, clock)
        try:
            yield bench
        finally:
            await bench.close()


async def pages(source: Source, scope: Scope, window: Window = ALL_TIME, cursor: Any = None) -> list[Page]:
    """All pages of a sweep, as the pipeline reads them, cursors going through JSON as they do in the ledger."""

    async def ask(cursor: Any) -> Page:
        assert len(read) < MOST_PAGES, "the sweep does not end"
        return await source.page(scope, window, json.loads(json.dumps(cursor)))

    read: list[Page] = []
    async for page in pages_of(ask, cursor):
        read.append(page)
    return read


async def sweep(source: Source, window: Window = ALL_TIME) -> list[Listed]:
    """The rows of every scope that is there."""
    rows: list[Listed] = []
    for scope in (await source.scopes()).found:
        with suppress(RunGone):
            rows += [row for page in await pages(source, scope, window) for row in page.rows]
    return rows


def ids(rows: Sequence[Listed]) -> set[str]:
    return {row.run_id for row in rows}


def test_every_platform_of_the_registry_is_held_to_this() -> None:
    assert {case.platform for case in CASES} == set(registry())


@every_source
async def test_lists_every_run_with_what_is_needed_to_fetch_it(bench: Bench) -> None:
    created_ns = NOW_NS - HOUR_NS
    expected = {bench.add(number, created_ns + number * SECOND_NS, AGENTS[number % 2]) for number in range(40)}
    source = bench.open()
    rows = await sweep(source)
    assert ids(rows) == expected
    for row in rows[::9]:
        run = bench.world.run(bench.case.platform, row.run_id)
        assert run is not None
        assert row.locator.agent_id == run.agent_id
        assert row.time_ns is not None
        body = await source.fetch(RunRef(source.platform, source.tenant, row.run_id, row.locator))
        assert source.read(body).ref.run_id == row.run_id


@every_source
async def test_a_quiet_list_gives_each_run_once(bench: Bench) -> None:
    bench.add_many(40)
    rows = [row for row in await sweep(bench.open()) if row.terminal]
    # elizaOS has no pages: a stretch that is too full is read again in halves. Where pages have but numbers, the last
    # one is read again for what may be behind it.
    often = {"elizaos": 40, "flowyble": 3}.get(bench.case.platform, 1)
    assert max(Counter(row.run_id for row in rows).values()) <= often


@every_source
@pytest.mark.parametrize(
    "quirk",
    [
        {"unsorted": True},
        {"shuffled_pages": True},
        {"duplicated_rows": 3},
        {"empty_pages": True},
        {"repeated_cursors": 1},
        {"expired_cursors": 1},
        {"dead_cursors": 1},
        {"dead_cursors": 2},
        {"expired_cursors": 1, "expired_status": 404},
        {"expired_cursors": 1, "expired_status": 410},
        {"shuffled_pages": True, "duplicated_rows": 2, "empty_pages": True, "repeated_cursors": 1},
    ],
    ids=lambda quirk: " ".join(f"{name}={value}" for name, value in quirk.items()),
)
async def test_odd_lists_lose_nothing(bench: Bench, quirk: dict[str, Any]) -> None:
    # Five runs of one instant at a time: with pages of seven, most edges cut through an instant.
    expected = bench.add_many(60, together=5)
    for name, value in quirk.items():
        setattr(bench.platform.quirks, name, value)
    assert ids(await sweep(bench.open())) == expected


@every_source
async def test_a_cursor_that_repeats_for_ever_ends(bench: Bench) -> None:
    bench.add_many(40)
    bench.platform.quirks.repeated_cursors = 10**9
    source = bench.open()
    for scope in (await source.scopes()).found:
        read = await pages(source, scope)
        if bench.case.has_cursors:
            assert len(read) < 10
            assert read[-1].broken_off, "a list that was not read to its end says so"


@every_source
async def test_a_list_that_takes_no_heed_of_where_it_is_asked_to_go_on_ends(bench: Bench) -> None:
    if bench.case.platform == "elizaos":
        pytest.skip("its list is one answer for a stretch of time")
    bench.add_many(40)
    source = bench.open()
    scope = (await source.scopes()).found[0]
    first = await source.http.get_json(*await first_question(bench, source, scope))
    bench.simulator.fault(bench.case.platform, bench.case.list_path, Reply(200, json.dumps(first)))
    read = await pages(source, scope)
    assert len(read) < 10
    assert read[-1].broken_off, "a list that was not read to its end says so"


async def first_question(bench: Bench, source: Source, scope: Scope) -> tuple[list[str], dict[str, Any]]:
    """The path and the query by which a source asks for the first page."""
    await source.page(scope, ALL_TIME, None)
    lists = re.compile(bench.case.list_path)
    asked = [r for r in bench.simulator.asked(bench.case.platform) if lists.search(f"{r.path}?")]
    path = asked[-1].path.removeprefix(bench.platform.base_path)
    return path.strip("/").split("/"), dict(asked[-1].query)


@every_source
async def test_a_run_that_becomes_visible_late_is_found_by_the_next_sweep(bench: Bench) -> None:
    expected = bench.add_many(20)
    late = bench.add("late", NOW_NS - 47 * HOUR_NS, visible_at_ns=NOW_NS + 60 * SECOND_NS)
    source = bench.open()
    assert ids(await sweep(source)) == expected
    bench.clock.now_ns += 61 * SECOND_NS
    assert ids(await sweep(source)) == expected | {late}


@every_source
async def test_a_sweep_goes_on_from_every_cursor_it_gave(bench: Bench) -> None:
    expected = bench.add_many(60, together=5)
    source = bench.open()
    found: set[str] = set()
    for scope in (await source.scopes()).found:
        read = await pages(source, scope)
        for place, page in enumerate(read[:-1]):
            before = [row for earlier in read[: place + 1] for row in earlier.rows]
            after = await pages(bench.open(), scope, cursor=json.loads(json.dumps(page.cursor)))
            assert ids(before) | ids([row for later in after for row in later.rows]) >= ids(
                [row for each in read for row in each.rows]
            )
        found |= ids([row for page in read for row in page.rows])
    assert found == expected


@every_source
async def test_a_window_is_kept(bench: Bench) -> None:
    start_ns, end_ns = NOW_NS - 5 * HOUR_NS, NOW_NS - 2 * HOUR_NS
    inside = {bench.add("first", start_ns), bench.add("last", end_ns - 3 * SECOND_NS)}
    outside = {bench.add("before", start_ns - HOUR_NS), bench.add("behind", end_ns + HOUR_NS)}
    found = ids(await sweep(bench.open(), Window(start_ns, end_ns)))
    assert inside <= found
    assert not found & outside


@every_source
async def test_one_failing_agent_does_not_hide_the_others(bench: Bench) -> None:
    sound = {bench.add(number, NOW_NS - HOUR_NS + number, AGENTS[0]) for number in range(3)}
    failing = {bench.add(f"b{number}", NOW_NS - HOUR_NS + number, AGENTS[1]) for number in range(3)}
    bench.platform.quirks.failing_agents = {AGENTS[1].agent_id: 500}
    source = bench.open()
    found: set[str] = set()
    failed: list[str] = []
    for scope in (await source.scopes()).found:
        try:
            found |= ids([row for page in await pages(source, scope) for row in page.rows])
        except SourceUnavailable:
            failed.append(scope.key)
    assert found == (sound if bench.case.scoped_by_agent else sound | failing)
    assert failed == ([AGENTS[1].agent_id] if bench.case.scoped_by_agent else [])


@every_source
async def test_an_agent_that_vanished_is_gone_and_hides_nothing(bench: Bench) -> None:
    sound = bench.add("a", NOW_NS - HOUR_NS, AGENTS[0])
    other = bench.add("b", NOW_NS - HOUR_NS, AGENTS[1])
    source = bench.open()
    scopes = (await source.scopes()).found
    bench.world.remove_agent(bench.case.platform, AGENTS[1].agent_id)
    if not bench.case.scoped_by_agent:
        assert ids(await sweep(source)) == {sound, other}
        return
    for scope in scopes:
        if scope.key == AGENTS[1].agent_id:
            with pytest.raises(RunGone):
                await source.page(scope, ALL_TIME, None)
        else:
            assert ids((await source.page(scope, ALL_TIME, None)).rows) == {sound}


@every_source
async def test_a_wrong_key_is_refused_once_and_for_all(bench: Bench) -> None:
    run_id = bench.add("a", NOW_NS - HOUR_NS)
    scope = (await bench.open().scopes()).found[0]
    refused = bench.open(key="wrong")
    before = len(bench.simulator.requests)
    with pytest.raises(SourceRefused, match="api_key") as error:
        await refused.page(scope, ALL_TIME, None)
    assert "wrong" not in str(error.value)
    assert len(bench.simulator.requests) == before + 1
    with pytest.raises(SourceRefused):
        await refused.fetch(RunRef(refused.platform, refused.tenant, run_id, Locator(agent_id=AGENTS[0].agent_id)))


BAD_ANSWERS: dict[str, Effect] = {
    "a proxy's page": html(502),
    "a page with status 200": html(200),
    "half of it": CutOff(honest_length=True),
    "half of it, and a lie about its length": CutOff(),
    "500": Reply(500, '{"error": "secret-in-a-body"}'),
    "429": Reply(429, "{}", {"retry-after": "1"}),
    "a reset": Reset(),
}


@every_source
@pytest.mark.parametrize("effect", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_a_bad_answer_means_later_and_never_an_empty_list(bench: Bench, effect: Effect) -> None:
    run_id = bench.add("a", NOW_NS - HOUR_NS)
    source = bench.open()
    row, *_ = await sweep(source)
    bench.simulator.fault(bench.case.platform, "", effect)
    for ask in (
        lambda: source.page(Scope(AGENTS[0].agent_id), ALL_TIME, None),
        lambda: source.fetch(RunRef(source.platform, source.tenant, run_id, row.locator)),
        lambda: source.fetch(RunRef(source.platform, source.tenant, run_id, row.locator), known_open=True),
        lambda: source.fetch(RunRef(source.platform, source.tenant, run_id)),
    ):
        with pytest.raises(SourceUnavailable) as error:
            await ask()
        assert not isinstance(error.value, SourceRefused)
        assert "secret-in-a-body" not in str(error.value)


@every_source
async def test_a_redirect_carries_the_key_nowhere(bench: Bench) -> None:
    run_id = bench.add("a", NOW_NS - HOUR_NS)
    source = bench.open()
    scope = (await source.scopes()).found[0]
    elsewhere = next(name for name in bench.simulator.urls if name != bench.case.platform)
    bench.simulator.fault(bench.case.platform, "", redirect(bench.simulator.urls[elsewhere], 307))
    with pytest.raises(SourceUnavailable):
        await source.page(scope, ALL_TIME, None)
    with pytest.raises(SourceUnavailable):
        await source.fetch(RunRef(source.platform, source.tenant, run_id, Locator(agent_id=AGENTS[0].agent_id)))
    assert bench.simulator.asked(elsewhere) == []


@every_source
@pytest.mark.parametrize("answer", ["null", "5", '"runs"', "[]", "{}", '{"success": true, "data": null}'])
async def test_json_without_a_list_is_no_empty_list(bench: Bench, answer: str) -> None:
    source = bench.open()
    scope = (await source.scopes()).found[0]
    bench.simulator.fault(bench.case.platform, bench.case.list_path, Reply(200, answer))
    with pytest.raises(SourceUnavailable):
        await source.page(scope, ALL_TIME, None)


@every_source
async def test_rows_of_any_type_are_listed_as_far_as_they_can_be(bench: Bench) -> None:
    """A row that cannot be read is told of; the sound one beside it is listed."""
    run_id = bench.add("a", NOW_NS - HOUR_NS)
    source = bench.open()
    scope = (await source.scopes()).found[0]
    answer = await source.http.get_json(*await first_question(bench, source, scope))
    rows = next(value for value in nodes(answer) if isinstance(value, list))
    sound = rows[0]
    for broken in HOSTILE:
        if isinstance(broken, float) and not math.isfinite(broken):
            continue
        rows[:] = [broken, {}, *({**sound, name: broken} for name in sound), sound]
        fault = bench.simulator.fault(bench.case.platform, bench.case.list_path, Reply(200, json.dumps(answer)))
        page = await source.page(scope, ALL_TIME, None)
        bench.simulator.faults.remove(fault)
        assert run_id in ids(page.rows)
        assert page.problems
        assert all("secret" not in problem for problem in page.problems)


@every_source
async def test_an_unknown_run_is_gone(bench: Bench) -> None:
    bench.add("a", NOW_NS - HOUR_NS)
    source = bench.open()
    for known_open in (False, True):
        for locator in (Locator(), Locator(agent_id=AGENTS[0].agent_id)):
            with pytest.raises(RunGone):
                await source.fetch(RunRef(source.platform, source.tenant, UNKNOWN_ID, locator), known_open=known_open)


@every_source
@pytest.mark.parametrize("known_open", [False, True])
async def test_an_id_is_one_segment_of_the_path_whatever_it_holds(bench: Bench, known_open: bool) -> None:
    run_id = bench.add("a", NOW_NS - HOUR_NS)
    source = bench.open()
    for smuggled in (run_id + bench.case.other_end, f"x/../{run_id}", f"{run_id}#", f"{run_id}?", f"{run_id}%2F"):
        ref = RunRef(source.platform, source.tenant, smuggled, Locator(agent_id=AGENTS[0].agent_id))
        with pytest.raises(RunspanError):
            await source.fetch(ref, known_open=known_open)
    for impossible in ("", ".", "..", "\ud800"):
        ref = RunRef(source.platform, source.tenant, impossible, Locator(agent_id=AGENTS[0].agent_id))
        with pytest.raises(RunUnreadable):
            await source.fetch(ref, known_open=known_open)


@every_source
async def test_an_open_run_is_told_apart_in_list_and_body(bench: Bench) -> None:
    open_id = bench.add("open", NOW_NS - 60 * SECOND_NS, seconds=3600.0)
    ended_id = bench.add("ended", NOW_NS - 60 * SECOND_NS)
    source = bench.open()
    rows = {row.run_id: row for row in await sweep(source)}
    assert (rows[open_id].terminal, rows[ended_id].terminal) == (False, True)
    open_ids = await source.open_run_ids()
    assert open_ids is None or open_ids == {open_id}
    for known_open in (False, True):
        for run_id, is_open in ((open_id, True), (ended_id, False)):
            ref = RunRef(source.platform, source.tenant, run_id, rows[run_id].locator)
            run = source.read(await source.fetch(ref, known_open=known_open))
            assert (run.status is RunStatus.OPEN) == is_open
    bench.clock.now_ns += 2 * HOUR_NS
    ref = RunRef(source.platform, source.tenant, open_id, rows[open_id].locator)
    assert source.read(await source.fetch(ref, known_open=True)).status is RunStatus.SUCCESS
    assert not await source.open_run_ids()


@every_source
async def test_every_sample_run_becomes_a_sound_trace(bench: Bench) -> None:
    samples.populate(bench.world)
    bench.clock.now_ns += 30 * 24 * HOUR_NS
    source = bench.open()
    rows = {row.run_id: row for row in await sweep(source)}
    runs = bench.world.runs(bench.case.platform)
    assert runs
    exported = 0
    for run in runs:
        row = rows.get(run.run_id)
        locator = row.locator if row else Locator(agent_id=run.agent_id, agent_name=run.agent_name)
        body = await source.fetch(RunRef(source.platform, source.tenant, run.run_id, locator), with_content=True)
        read = source.read(body)
        assert read.problems == ()
        if read.skip_reason or read.status is RunStatus.OPEN:
            continue
        assert_sound(project(read, WITH_CONTENT), read)
        exported += 1
    assert exported >= len(runs) / 2


def fixture_bodies() -> Iterator[tuple[str, Path]]:
    for path in sorted(FIXTURES.glob("*/*.json")):
        yield path.parent.name, path


def body_of(platform: str, path: Path) -> tuple[Source, RunBody]:
    fixture = json.loads(path.read_text())
    body = fixture if "documents" in fixture else {"run_id": path.stem, "documents": {"detail": fixture}}
    source = source_of(platform)
    ref = RunRef(platform, source.tenant, body["run_id"], Locator(**body.get("locator", {})))
    return source, RunBody(ref, body["documents"])


def trace_of(source: Source, body: RunBody, settings: ProjectionSettings = SETTINGS) -> Trace | None:
    try:
        run = source.read(body)
        return None if run.status is RunStatus.OPEN or run.skip_reason else project(run, settings)
    except RunUnreadable:
        return None


every_fixture = pytest.mark.parametrize(
    ("platform", "path"), list(fixture_bodies()), ids=lambda value: value.stem if isinstance(value, Path) else value
)


@every_fixture
def test_rows_in_any_order_give_the_same_spans(platform: str, path: Path) -> None:
    source, body = body_of(platform, path)
    expected = trace_of(source, body)
    for seed in range(5):
        documents = copy.deepcopy(dict(body.documents))
        shuffle = random.Random(seed).shuffle
        for node in nodes(documents):
            # Messages stand in the order in which they were said.
            if isinstance(node, list) and any(isinstance(item, dict) and "role" not in item for item in node):
                shuffle(node)
        shuffled = trace_of(source, RunBody(body.ref, documents))
        if expected is None or shuffled is None:
            assert shuffled is expected
            continue
        assert {span.span_id: outline(span) for span in shuffled.spans} == {
            span.span_id: outline(span) for span in expected.spans
        }


def outline(span: Any) -> tuple[Any, ...]:
    """All that a span says but the places of fields that could not be read, which are those of the answer."""
    attributes = {name: value for name, value in span.attributes.items() if name != "runspan.problems"}
    events = Counter((event.name, event.time_ns, str(event.attributes)) for event in span.events)
    return span.name, span.parent_id, span.start_ns, span.end_ns, attributes, events, span.error


HOSTILE: list[Any] = [
    None,
    True,
    -1,
    2**63,
    10**400,
    math.nan,
    math.inf,
    "secret",
    "\x00\ud800",
    "9" * 400,
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    [],
    {},
    ["secret"],
    {"secret": {"id": "secret"}},
    [[[{}]]],
]


@every_fixture
def test_a_body_with_its_types_swapped_is_a_trace_or_unreadable(platform: str, path: Path) -> None:
    source, body = body_of(platform, path)
    documents = copy.deepcopy(dict(body.documents))
    deep: Any = "bottom"
    for _ in range(900):
        deep = [deep]
    for container, key in list(places(documents)):
        sound = container[key]
        for hostile in (*HOSTILE, deep):
            container[key] = hostile
            trace = trace_of(source, RunBody(body.ref, documents), WITH_CONTENT)
            if trace is not None:
                assert_sound(trace)
        container[key] = sound


def nodes(document: Any) -> Iterator[Any]:
    """Every value in a document."""
    yield document
    for child in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from nodes(child)


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document where a value stands: its container and its key."""
    if not isinstance(document, dict | list):
        return
    for key in list(document) if isinstance(document, dict) else range(len(document)):
        yield document, key
        yield from places(document[key])


def assert_sound(trace: Trace, run: Run | None = None) -> None:
    """What every trace must be, whatever body it came from."""
    assert len(trace.trace_id) == 16
    assert any(trace.trace_id)
    root, *others = trace.spans
    assert root.parent_id is None
    seen = {root.span_id}
    for span in others:
        assert span.parent_id in seen, "a span stands before its parent, or has none"
        assert span.span_id not in seen, "two spans share an id"
        seen.add(span.span_id)
    for span in trace.spans:
        assert len(span.span_id) == 8
        assert any(span.span_id)
        assert 0 < root.start_ns <= span.start_ns <= span.end_ns <= root.end_ns < 2**63
        texts = [span.name, span.error or "", *(value for value in span.attributes.values() if isinstance(value, str))]
        for text in texts:
            text.encode()
        for value in span.attributes.values():
            assert not isinstance(value, int) or -(2**63) <= value < 2**63
            assert not isinstance(value, float) or math.isfinite(value)
        for event in span.events:
            assert span.start_ns <= event.time_ns <= span.end_ns
    if run is not None and run.usage.input_tokens is not None:
        parts = sum(int(span.attributes.get("gen_ai.usage.input_tokens", 0)) for span in trace.spans)
        assert parts <= run.usage.input_tokens
