"""Backfill: one stretch of time or a list of ids, as a job that can be stopped and goes on."""

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from runspan.demo.faults import Fault, Hang, html
from runspan.demo.platforms.flowyble import ListShape
from runspan.demo.samples import casedev_run, elizaos_run, flowyble_run, runtype_execution
from runspan.demo.world import WorldAgent
from runspan.errors import ConfigError, DeliveryRefused, LedgerUnusable, SourceRefused, SourceUnavailable
from runspan.ledger import Ledger, RowState
from runspan.model import Locator
from runspan.otlp.base import Answer, AnswerKind, EncodedTrace
from runspan.otlp.discard import DiscardExporter
from runspan.otlp.memory import MemoryExporter, accept
from runspan.pipeline.assembly import pipeline
from runspan.pipeline.backfill import Backfill
from runspan.pipeline.discovery import Discovery
from runspan.pipeline.report import Report
from runspan.pipeline.request import Request
from runspan.pipeline.sweep import rows_of_ids
from runspan.pipeline.work import Work
from runspan.quantities import Start
from runspan.secrets import Secret
from tests.ledgers import SECOND
from tests.pipelines import HOUR, Bench, NoQuota, counted, delete_between_pages, row_of, until

ADA = WorldAgent(agent_id="0b9d4c52-7a18-4f3e-9c06-1d2e3f4a5b6c", name="Ada")
BO = WorldAgent(agent_id="c7e1f0a3-2b64-4d59-8e17-6f5a4b3c2d1e", name="Bo")
RUN = {"casedev": casedev_run, "runtype": runtype_execution, "elizaos": elizaos_run}
CONCURRENCY = 4


@pytest.fixture
def noon_ns() -> int:
    """A full second some hours ago."""
    return time.time_ns() // SECOND * SECOND - 6 * HOUR


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr("runspan.sources.client.ATTEMPTS", 1)
    monkeypatch.setattr("runspan.sources.casedev.PAGE_SIZE", 7)
    monkeypatch.setattr("runspan.sources.runtype.PAGE_LIMIT", 7)
    monkeypatch.setattr("runspan.pipeline.backfill.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("runspan.pipeline.joblist.PATIENCE_SECONDS", 0.4)
    monkeypatch.setattr("runspan.pipeline.line.PAUSE_SECONDS", (0.01, 300.0))
    monkeypatch.setattr("runspan.pipeline.standing.RETRY_FLOOR", timedelta(milliseconds=10))
    monkeypatch.setattr("runspan.pipeline.work.JOB_PATIENCE", timedelta(milliseconds=50))
    monkeypatch.setattr("runspan.otlp.delivery.BACKOFF_SECONDS", 0.05)
    bench = Bench(tmp_path / "ledger.db", time.time_ns)
    async with bench.simulator:
        yield bench


async def backfill(bench: Bench, platform: str = "casedev", *, source: dict[str, Any] | None = None, **asked: Any):
    """One start of the command, in a process of its own as far as the ledger can tell."""
    destination = asked.pop("destination", {})
    table = bench.source(platform, concurrency=CONCURRENCY, **(source or {}))
    async with bench.pipeline(table, destination=destination) as line_up:
        return await Backfill(line_up, line_up.lines[0], request(**asked)).run()


def request(**asked: Any) -> Request:
    for name in ("since", "until"):
        if isinstance(asked.get(name), int):
            asked[f"{name}_ns"] = asked[name]
            asked[name] = str(asked[name])
    if "ids" in asked:
        asked["ids"] = tuple(one if isinstance(one, tuple) else (one, Locator()) for one in asked["ids"])
    return Request(**asked)


def ended(
    count: int, noon_ns: int, platform: str = "casedev", *, agent: WorldAgent = ADA, key: str = "run", **settings: Any
):
    for number in range(count):
        yield RUN[platform](
            f"{key} {number}", created_at_ns=noon_ns + number * SECOND, agent=agent, **({"seconds": 2.0} | settings)
        )


@asynccontextmanager
async def query_api(shows: Callable[[str], bool]) -> AsyncIterator[tuple[str, list[str], Counter[str]]]:
    """Jaeger's, as far as it is needed: gives its URL, every trace id asked for, and the most at one time."""
    asked: list[str] = []
    at_once: Counter[str] = Counter()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        trace_id = head.split(b" ")[1].decode().rpartition("/")[2]
        asked.append(trace_id)
        at_once["now"] += 1
        at_once["most"] = max(at_once["most"], at_once["now"])
        await asyncio.sleep(0.01)
        at_once["now"] -= 1
        status, body = ("200 OK", b'{"result": {}}') if shows(trace_id) else ("404 Not Found", b"{}")
        writer.write(f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked, at_once


class TestStretch:
    @pytest.mark.parametrize("platform", RUN)
    async def test_runs_belong_by_their_creation_from_since_to_before_until(
        self, bench: Bench, noon_ns: int, platform: str
    ):
        since_ns, until_ns = noon_ns, noon_ns + 600 * SECOND

        def run(at_seconds: int, seconds: float = 2.0):
            return RUN[platform](at_seconds, created_at_ns=noon_ns + at_seconds * SECOND, seconds=seconds, agent=ADA)

        bench.add([run(-100), run(-1), run(-3, seconds=300), run(-5, seconds=1000), run(600), run(700)])
        wanted = bench.add([run(0), run(1), run(300), run(599, seconds=300), run(500, seconds=101)])
        report = await backfill(bench, platform, since=since_ns, until=until_ns)
        assert bench.exported == Counter(wanted)
        assert (report.listed, report.exported, report.complete) == (5, 5, True)

    async def test_without_an_until_it_ends_now(self, bench: Bench, noon_ns: int):
        ids = bench.add(ended(10, noon_ns))
        report = await backfill(bench, since=noon_ns)
        assert bench.exported == Counter(ids)
        assert report == Report(listed=10, exported=10)

    async def test_the_report_counts_every_run_in_one_place(self, bench: Bench, noon_ns: int):
        bench.add(ended(3, noon_ns, key="known"))
        await backfill(bench, since=noon_ns)
        good = bench.add(ended(4, noon_ns, key="good"))
        [bad] = bench.add(ended(1, noon_ns, key="bad", changes={"status": None, "completedAt": None}))
        bench.add(ended(1, noon_ns, key="skipped", agent=BO))
        [gone] = bench.add(ended(1, noon_ns, key="gone"))
        [still_open] = bench.add(ended(1, noon_ns, key="open", seconds=None))
        bench.simulator.faults.append(Fault("casedev", f"{gone}/details", html(404)))
        bench.simulator.faults.append(Fault("casedev", f"{bad}/details", html(422)))
        report = await backfill(bench, since=noon_ns, source={"exclude_agents": [BO.agent_id]})
        numbers = (report.listed, report.known, report.exported, report.still_open, report.skipped)
        assert numbers == (11, 3, 4, 1, 1)
        assert (report.gone, report.quarantined, report.expired, report.complete) == (1, 1, 0, False)
        assert report.reasons[RowState.GONE, "the platform no longer has this run"] == 1
        assert any("422" in reason for state, reason in report.reasons if state is RowState.QUARANTINED)
        with bench.ledger() as ledger:
            # It is the daemon's from here on.
            assert row_of(ledger, still_open).state is RowState.OPEN
            assert row_of(ledger, still_open).leased_until_ns is None
        assert set(good) < set(bench.exported)

    async def test_a_run_that_ended_behind_its_list_is_exported(self, bench: Bench):
        """The list may be older than the run's end; so an open one is asked for once."""
        now_ns = time.time_ns()
        [run_id] = bench.add([casedev_run("a", created_at_ns=now_ns - HOUR, seconds=None)])
        table = bench.source("casedev")
        async with bench.pipeline(table) as line_up:
            source = line_up.lines[0].source
            page = source.page

            async def then_ends(*args: Any) -> Any:
                listed = await page(*args)
                bench.add([casedev_run("a", created_at_ns=now_ns - HOUR, seconds=60.0)])
                return listed

            source.page = then_ends  # pyright: ignore[reportAttributeAccessIssue]
            await Backfill(line_up, line_up.lines[0], request(since=now_ns - 2 * HOUR)).run()
        assert bench.exported == {run_id: 1}

    async def test_a_source_without_a_list_needs_ids(self, bench: Bench):
        with pytest.raises(ConfigError, match="--ids-file"):
            await backfill(bench, "flowyble", since=0)


class TestJob:
    async def test_stopped_at_forty_percent_it_goes_on_and_asks_for_nothing_twice(self, bench: Bench, noon_ns: int):
        ids = bench.add(ended(50, noon_ns))
        table = bench.source("casedev", concurrency=CONCURRENCY)
        asked = {"since": noon_ns, "until": noon_ns + HOUR}
        async with bench.pipeline(table) as line_up:
            job = asyncio.create_task(Backfill(line_up, line_up.lines[0], request(**asked)).run())
            await until(lambda: len(bench.exporter.taken) >= 20)
            job.cancel()
            await asyncio.wait([job])
            assert job.cancelled()
            done = counted(line_up.ledger)[RowState.EXPORTED]
            assert 20 <= done < 50
        # What had been fetched was sent before it stopped.
        assert done == len(bench.exporter.taken)
        with bench.ledger() as ledger:
            assert all(row.leased_until_ns is None for row in ledger.runs())
        lists = len([r for r in bench.simulator.asked("casedev") if r.path == "/agent/v1/run"])

        report = await backfill(bench, **asked)
        assert report == Report(listed=50, exported=50)
        assert bench.exported == Counter(ids)
        assert sum(bench.details_asked().values()) <= 50 + CONCURRENCY
        # The list was read to its end the first time.
        assert len([r for r in bench.simulator.asked("casedev") if r.path == "/agent/v1/run"]) == lists

    async def test_what_was_fetched_when_it_was_stopped_is_sent_all_the_same(self, bench: Bench, noon_ns: int):
        ids = bench.add(ended(20, noon_ns))
        gate = asyncio.Event()

        class Slow(MemoryExporter):
            async def send(self, traces: Sequence[EncodedTrace]) -> Answer:
                await gate.wait()
                return await super().send(traces)

        bench.exporter = Slow()
        async with bench.pipeline(bench.source("casedev", concurrency=CONCURRENCY)) as line_up:
            job = asyncio.create_task(Backfill(line_up, line_up.lines[0], request(since=noon_ns)).run())
            await until(lambda: line_up.outbox.fetching == 0 and len(line_up.outbox.leased) == CONCURRENCY)
            job.cancel()
            gate.set()
            await asyncio.wait([job])
            assert counted(line_up.ledger) == {RowState.EXPORTED: CONCURRENCY, RowState.DUE: 20 - CONCURRENCY}
        await backfill(bench, since=noon_ns)
        assert bench.exported == Counter(ids)
        assert set(bench.details_asked().values()) == {1}

    async def test_stopped_in_the_list_it_goes_on_at_its_cursor(self, bench: Bench, noon_ns: int):
        ids = bench.add(ended(40, noon_ns))
        newest_first = ids[::-1]
        wall = bench.simulator.fault("casedev", f"cursor={newest_first[20]}", html(503))
        with pytest.raises(SourceUnavailable):
            await backfill(bench, since=noon_ns)
        assert bench.exporter.requests == []
        bench.simulator.faults.remove(wall)
        bench.simulator.requests.clear()
        report = await backfill(bench, since=noon_ns)
        assert report.exported == 40
        lists = [r.query.get("cursor") for r in bench.simulator.asked("casedev") if r.path == "/agent/v1/run"]
        # And then for what has been created since it was begun.
        assert lists == [newest_first[20], newest_first[27], newest_first[34], None]

    @pytest.mark.parametrize("known", [0, 36], ids=["new runs", "known ones but for that"])
    async def test_what_deletions_push_past_the_edge_of_a_page_is_found_by_reading_again(
        self, bench: Bench, noon_ns: int, monkeypatch: pytest.MonkeyPatch, known: int
    ):
        """In a list that is paged by number: each run that is gone moves all behind it up, over the edge."""
        made = [flowyble_run(f"run {n}", created_at_ns=noon_ns + n * SECOND, seconds=2.0, agent=ADA) for n in range(40)]
        ids = bench.add(made)
        listing = {"agents": [ADA.agent_id], "page_size": 5}
        bench.simulator.platforms["flowyble"].list_shape = ListShape()
        async with bench.pipeline(bench.source("flowyble", list=listing)) as line_up:
            pushed = set(ids[31:35])  # the oldest of each page, as the list stands when it is begun
            others = [(run_id, Locator()) for run_id in ids[:known] if run_id not in pushed]
            line_up.ledger.note_rows(rows_of_ids(others, line_up.lines[0], bench.clock()))
            delete_between_pages(monkeypatch, bench, line_up.lines[0].source, ids[::-1][:4])
            report = await Backfill(line_up, line_up.lines[0], request(since=noon_ns)).run()
        assert set(bench.exported) == set(ids[:-4])
        assert report.listed >= 36

    @pytest.mark.parametrize("platform", RUN)
    async def test_what_was_created_since_it_was_begun_is_read_too(self, bench: Bench, noon_ns: int, platform: str):
        """Else a command that is given every night would skip a day wherever a run had failed the night before."""
        first = bench.add(ended(3, noon_ns, platform))
        failing = bench.simulator.fault(platform, first[0], html(500))
        at_once = {"settle": "0s"}
        report = await backfill(bench, platform, source=at_once, since="1d", since_ns=noon_ns)
        assert (report.exported, report.failing) == (2, 1)
        bench.simulator.faults.remove(failing)

        now_ns = time.time_ns() // SECOND * SECOND
        since_then = bench.add(ended(20, now_ns - 60 * SECOND, platform, key="later"))
        report = await backfill(bench, platform, source=at_once, since="1d", since_ns=now_ns - 50 * SECOND)
        # A day ago is later by now, and what was asked for the first time stays asked for.
        assert bench.exported == Counter(first + since_then[10:])
        assert report == Report(listed=13, exported=13)

    @pytest.mark.parametrize("status", [400, 404])
    async def test_a_cursor_that_expired_meanwhile_starts_the_list_over(self, bench: Bench, noon_ns: int, status: int):
        ids = bench.add(ended(20, noon_ns))
        wall = bench.simulator.fault("casedev", "cursor=", html(503))
        with pytest.raises(SourceUnavailable):
            await backfill(bench, since=noon_ns)
        bench.simulator.faults.remove(wall)
        quirks = bench.simulator.platforms["casedev"].quirks
        quirks.expired_status, quirks.expired_cursors = status, 1
        assert await backfill(bench, since=noon_ns) == Report(listed=20, exported=20)
        assert bench.exported == Counter(ids)

    async def test_a_finished_job_started_again_finds_everything_known(self, bench: Bench, noon_ns: int):
        bench.add(ended(10, noon_ns))
        await backfill(bench, since=noon_ns)
        asked = bench.details_asked()
        bench.add(ended(2, noon_ns, key="new"))
        assert await backfill(bench, since=noon_ns) == Report(listed=12, exported=2, known=10)
        assert sum((bench.details_asked() - asked).values()) == 2
        assert set(bench.exported.values()) == {1}

    async def test_it_moves_no_position_of_the_daemon(self, bench: Bench, noon_ns: int):
        bench.add(ended(10, noon_ns))
        async with bench.pipeline(bench.source("casedev", start="2h")) as line_up:
            looking = Discovery(line_up.lines[0], line_up.ledger, line_up.now)
            bench.add([casedev_run("young", created_at_ns=time.time_ns() - 600 * SECOND)])
            await looking.poll()
            await looking.look_back()
        before = positions(bench)
        assert len(before) == 2
        await backfill(bench, since=noon_ns - HOUR)
        assert len(bench.exported) == 11
        assert positions(bench) == before

    async def test_a_run_that_the_daemon_took_first_is_not_done_twice(self, bench: Bench, noon_ns: int):
        bench.add(ended(30, noon_ns))
        table = bench.source("casedev", concurrency=CONCURRENCY)
        async with bench.pipeline(table) as daemon, bench.pipeline(table) as ours:
            [line] = daemon.lines
            await Discovery(line, daemon.ledger, daemon.now).poll()
            tasks = [asyncio.create_task(Work(line, daemon.ledger, daemon.outbox, daemon.now).run())]
            tasks.append(asyncio.create_task(daemon.outbox.run()))
            report = await Backfill(ours, ours.lines[0], request(since=noon_ns)).run()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        assert report.listed == 30
        assert report.exported + report.known == 30
        assert set(bench.exported.values()) == {1}
        assert set(bench.details_asked().values()) == {1}

    async def test_leases_are_renewed_while_a_request_takes_its_time(
        self, bench: Bench, noon_ns: int, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("runspan.pipeline.backfill.LEASE_RENEWAL", timedelta(milliseconds=30))
        [run_id] = bench.add(ended(1, noon_ns))
        bench.simulator.fault("casedev", "/details", Hang())
        async with bench.pipeline(bench.source("casedev")) as line_up:
            job = asyncio.create_task(Backfill(line_up, line_up.lines[0], request(since=noon_ns)).run())
            await until(lambda: bool(bench.details_asked()))
            leased_ns = row_of(line_up.ledger, run_id).leased_until_ns or 0
            await until(lambda: (row_of(line_up.ledger, run_id).leased_until_ns or 0) > leased_ns > 0)
            job.cancel()
            await asyncio.wait([job])

    async def test_limit(self, bench: Bench, noon_ns: int):
        bench.add(ended(30, noon_ns))
        for limit in (10, 7, 1):
            bench.exporter.taken.clear()
            report = await backfill(bench, since=noon_ns, limit=limit, force=True)
            assert (report.listed, report.exported) == (limit, limit)
            assert len(bench.exporter.taken) == limit

    async def test_limit_counts_what_is_known_too(self, bench: Bench, noon_ns: int):
        bench.add(ended(30, noon_ns))
        await backfill(bench, since=noon_ns, limit=10)
        assert await backfill(bench, since=noon_ns, limit=16) == Report(listed=16, exported=6, known=10)

    async def test_force_sends_the_same_bytes_again(self, bench: Bench, noon_ns: int):
        ids = bench.add(ended(12, noon_ns))
        await backfill(bench, since=noon_ns)
        assert await backfill(bench, since=noon_ns, force=True) == Report(listed=12, exported=12)
        assert bench.exported == Counter(ids * 2)
        assert len({trace.payload for trace in bench.exporter.taken}) == 12

    async def test_force_stopped_and_started_again_sends_each_once_more_only(self, bench: Bench, noon_ns: int):
        ids = bench.add(ended(30, noon_ns))
        await backfill(bench, since=noon_ns)
        async with bench.pipeline(bench.source("casedev", concurrency=CONCURRENCY)) as line_up:
            forced = request(since=noon_ns, force=True)
            job = asyncio.create_task(Backfill(line_up, line_up.lines[0], forced).run())
            await until(lambda: len(bench.exporter.taken) >= 40)
            job.cancel()
            await asyncio.wait([job])
        await backfill(bench, since=noon_ns, force=True)
        assert bench.exported == Counter(ids * 2)


class TestIds:
    async def test_ids_with_and_without_their_agent(self, bench: Bench, noon_ns: int):
        for platform in ("runtype", "elizaos"):
            for agent in (ADA, BO):
                bench.world.add_agent(platform, agent)
            one, other = bench.add(
                [next(ended(1, noon_ns, platform, agent=agent, key=agent.name)) for agent in (ADA, BO)]
            )
            asked = [(one, Locator(agent_id=ADA.agent_id)), (other, Locator())]
            bench.exporter.taken.clear()
            assert await backfill(bench, platform, ids=asked) == Report(listed=2, exported=2)
            agents = {trace.trace.root.attributes.get("gen_ai.agent.id") for trace in bench.exporter.taken}
            assert agents == {ADA.agent_id, BO.agent_id}

    @pytest.mark.parametrize("platform", RUN)
    async def test_a_run_is_the_same_bytes_by_its_list_and_by_its_id(
        self, bench: Bench, noon_ns: int, platform: str, monkeypatch: pytest.MonkeyPatch
    ):
        """Also where agents cannot be listed for a moment: their names are part of it."""
        monkeypatch.setattr("runspan.sources.names.TRIED_AGAIN_NS", 0)
        bench.world.add_agent(platform, ADA)
        [run_id] = bench.add(ended(1, noon_ns, platform))
        by_list = await backfill(bench, platform, since=noon_ns)
        assert by_list.exported == 1
        for locator in (Locator(), Locator(agent_id=ADA.agent_id)):
            bench.path = bench.path.with_name(f"{locator.agent_id}.db")
            bench.simulator.fault(platform, "/agents(\\?|$)", html(503), times=1)
            assert (await backfill(bench, platform, ids=[(run_id, locator)])).exported == 1
        payloads = {trace.payload for trace in bench.exporter.taken}
        assert len(bench.exporter.taken) == 3
        assert len(payloads) == 1
        assert bench.exporter.taken[0].trace.root.attributes["gen_ai.agent.name"] == "Ada"

    async def test_ids_of_a_platform_that_has_no_list(self, bench: Bench, noon_ns: int):
        ids = bench.add(flowyble_run(n, created_at_ns=noon_ns) for n in range(20))
        report = await backfill(bench, "flowyble", ids=[*ids, "no-such-run", ids[0]])
        assert (report.listed, report.exported, report.gone, report.complete) == (21, 20, 1, False)
        assert bench.exported == Counter(ids)
        bench.simulator.requests.clear()
        assert (await backfill(bench, "flowyble", ids=ids)).known == 20
        assert bench.simulator.requests == []

    async def test_an_id_that_cannot_be_asked_for_is_quarantined(self, bench: Bench, noon_ns: int):
        [good] = bench.add([flowyble_run(1, created_at_ns=noon_ns)])
        report = await backfill(bench, "flowyble", ids=["..", good])
        assert (report.exported, report.quarantined) == (1, 1)

    async def test_limit_holds_for_ids_too(self, bench: Bench, noon_ns: int):
        ids = bench.add(flowyble_run(n, created_at_ns=noon_ns) for n in range(9))
        assert (await backfill(bench, "flowyble", ids=ids, limit=4)).listed == 4


class TestDryRun:
    async def test_a_run_that_stands_on_two_pages_counts_once(self, bench: Bench, noon_ns: int):
        """The pages of elizaOS share the millisecond between them."""
        bench.world.add_agent("elizaos", ADA)
        bench.add(ended(250, noon_ns, "elizaos"))
        assert (await backfill(bench, "elizaos", since=noon_ns)).listed == 250
        with bench.ledger(read_only=True) as known_in, Ledger.open("sqlite://") as memory:
            config = bench.config(bench.source("elizaos"))
            async with pipeline(config, memory, budget=NoQuota(), exporter=DiscardExporter()) as line_up:
                job = Backfill(line_up, line_up.lines[0], request(since=noon_ns), known_in=known_in)
                report = await job.run()
        assert (report.listed, report.known) == (250, 250)

    async def test_nothing_is_sent_and_nothing_written(self, bench: Bench, noon_ns: int):
        bench.add(ended(4, noon_ns, key="known"))
        await backfill(bench, since=noon_ns)
        bench.add(ended(6, noon_ns, key="new"))
        bench.exporter.requests.clear()
        before = everything(bench)
        config = bench.config(bench.source("casedev"))
        for limit, listed in ((None, 10), (5, 5)):
            with bench.ledger(read_only=True) as known_in, Ledger.open("sqlite://") as memory:
                opened = pipeline(config, memory, budget=NoQuota(), exporter=DiscardExporter())
                async with opened as line_up:
                    asked = request(since=noon_ns, limit=limit)
                    report = await Backfill(line_up, line_up.lines[0], asked, known_in=known_in).run()
            assert report.listed == listed
            assert report.exported == listed - report.known
        assert everything(bench) == before
        assert bench.exporter.requests == []


class TestTrouble:
    async def test_a_refused_key_ends_it_at_once(self, bench: Bench, noon_ns: int):
        bench.add(ended(20, noon_ns))
        wrong = {"api_key": Secret.known("another-key", "KEY")}
        with pytest.raises(SourceRefused, match=r"source casedev.*401.*api_key"):
            await backfill(bench, since=noon_ns, source=wrong)
        assert len(bench.simulator.requests) == 1

    async def test_a_key_that_is_refused_midway_ends_it_at_once(
        self, bench: Bench, noon_ns: int, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("runspan.pipeline.joblist.PATIENCE_SECONDS", 60)
        bench.add(ended(20, noon_ns))
        wall = bench.simulator.fault("casedev", "/details", html(403))
        with pytest.raises(SourceUnavailable, match=r"403.*start the same command again"):
            await asyncio.wait_for(backfill(bench, since=noon_ns), 10)
        assert sum(bench.details_asked().values()) <= CONCURRENCY
        bench.simulator.faults.remove(wall)
        assert (await backfill(bench, since=noon_ns)).exported == 20

    async def test_a_source_that_stays_away_ends_it_after_a_while(self, bench: Bench, noon_ns: int):
        bench.add(ended(20, noon_ns))
        wall = bench.simulator.fault("casedev", "/details", html(503))
        with pytest.raises(SourceUnavailable, match="503"):
            await backfill(bench, since=noon_ns)
        bench.simulator.faults.remove(wall)
        assert (await backfill(bench, since=noon_ns)).exported == 20

    async def test_a_source_that_comes_back_is_waited_for(self, bench: Bench, noon_ns: int):
        bench.add(ended(20, noon_ns))
        bench.simulator.fault("casedev", ".*", html(503), times=3)
        assert (await backfill(bench, since=noon_ns)).exported == 20

    async def test_a_wrong_destination_ends_it_at_once(
        self, bench: Bench, noon_ns: int, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("runspan.pipeline.joblist.PATIENCE_SECONDS", 60)
        bench.add(ended(20, noon_ns))
        bench.exporter.respond = lambda traces: Answer(AnswerKind.WRONG, "HTTP 401: who are you")
        with pytest.raises(DeliveryRefused, match="401"):
            await asyncio.wait_for(backfill(bench, since=noon_ns), 10)
        bench.exporter.respond = accept
        with bench.ledger() as ledger:
            assert counted(ledger) == {RowState.DUE: 20}
        assert (await backfill(bench, since=noon_ns)).exported == 20

    async def test_a_destination_that_stays_away_ends_it_after_a_while(self, bench: Bench, noon_ns: int):
        bench.add(ended(20, noon_ns))
        bench.exporter.respond = lambda traces: Answer(AnswerKind.RETRY, "HTTP 503")
        with pytest.raises(DeliveryRefused, match="503"):
            await backfill(bench, since=noon_ns)
        assert bench.exporter.taken == []

    async def test_a_run_that_always_fails_does_not_keep_it_from_its_end(self, bench: Bench, noon_ns: int):
        bad, *_ = bench.add(ended(10, noon_ns))
        wall = bench.simulator.fault("casedev", f"{bad}/details", html(500))
        report = await backfill(bench, since=noon_ns)
        assert (report.exported, report.failing, report.complete) == (9, 1, False)
        assert any("answered 500" in reason for _, reason in report.reasons)
        with bench.ledger() as ledger:
            assert row_of(ledger, bad).state is RowState.DUE
        # It is the same job that goes on.
        bench.simulator.faults.remove(wall)
        report = await backfill(bench, since=noon_ns)
        assert (report.exported, report.failing, report.complete) == (10, 0, True)

    async def test_an_open_run_that_could_not_be_asked_for_is_told(self, bench: Bench, noon_ns: int):
        bench.add(ended(3, noon_ns))
        [unknown] = bench.add(ended(1, noon_ns, key="open", seconds=None))
        [is_open] = bench.add(ended(1, noon_ns, key="another", seconds=None))
        bench.simulator.fault("casedev", f"{unknown}/details", html(500))
        report = await backfill(bench, since=noon_ns)
        assert (report.exported, report.still_open, report.failing, report.complete) == (3, 1, 1, False)
        with bench.ledger() as ledger:
            assert row_of(ledger, is_open).reason is None

    async def test_a_long_pause_that_the_platform_asked_for_ends_it_at_once(self, bench: Bench, noon_ns: int):
        """Whichever process was asked."""
        bench.add(ended(3, noon_ns))
        with bench.ledger() as ledger:
            ledger.pause(f"casedev {bench.simulator.urls['casedev']}", time.time_ns() + 2 * HOUR)
            table = bench.source("casedev")
            async with bench.pipeline(table, budget=ledger) as line_up:
                with pytest.raises(SourceUnavailable, match=r"left alone for another (1h59m|2h)"):
                    await asyncio.wait_for(Backfill(line_up, line_up.lines[0], request(since=noon_ns)).run(), 10)
        assert bench.simulator.requests == []

    async def test_one_garbled_run_costs_that_run(self, bench: Bench, noon_ns: int):
        ids = bench.add(ended(10, noon_ns))
        bench.simulator.faults.append(Fault("casedev", f"{ids[0]}/details", html(200)))
        report = await backfill(bench, since=noon_ns)
        assert (report.exported, report.quarantined) == (9, 1)

    @pytest.mark.parametrize("status", [400, 403, 503])
    async def test_one_agent_that_fails_costs_that_agent_and_only_it_is_read_the_next_time(
        self, bench: Bench, noon_ns: int, status: int
    ):
        for agent in (ADA, BO):
            bench.world.add_agent("runtype", agent)
        hidden = bench.add(ended(3, noon_ns, "runtype", agent=ADA, key="ada"))
        others = bench.add(ended(3, noon_ns, "runtype", agent=BO, key="bo"))
        quirks = bench.simulator.platforms["runtype"].quirks
        quirks.failing_agents[ADA.agent_id] = status
        asked = {"since": noon_ns, "until": noon_ns + HOUR}
        report = await backfill(bench, "runtype", **asked)
        assert bench.exported == Counter(others)
        assert not report.complete
        assert len(report.problems) == 1
        assert str(status) in report.problems[0]

        quirks.failing_agents.clear()
        bench.simulator.requests.clear()
        report = await backfill(bench, "runtype", **asked)
        assert (report.exported, report.complete) == (6, True)
        assert bench.exported == Counter(hidden + others)
        assert bench.simulator.asked("runtype", BO.agent_id) == []

    async def test_a_source_none_of_whose_lists_can_be_read_is_unavailable(self, bench: Bench, noon_ns: int):
        for agent in (ADA, BO):
            bench.world.add_agent("runtype", agent)
            bench.simulator.platforms["runtype"].quirks.failing_agents[agent.agent_id] = 400
        with pytest.raises(SourceUnavailable, match="400"):
            await backfill(bench, "runtype", since=noon_ns)

    async def test_a_ledger_that_fails_stops_it(self, bench: Bench, noon_ns: int, monkeypatch: pytest.MonkeyPatch):
        bench.add(ended(20, noon_ns))

        def dies(*args: Any, **settings: Any) -> Any:
            raise LedgerUnusable("the disk is gone")

        for method in ("note_page", "about_to_send", "finish"):
            with monkeypatch.context() as patched:
                patched.setattr(Ledger, method, dies)
                with pytest.raises(LedgerUnusable, match="the disk is gone"):
                    await backfill(bench, since=noon_ns)
        assert (await backfill(bench, since=noon_ns)).exported == 20


class TestForgotten:
    @pytest.fixture
    async def pruned_ns(self, bench: Bench, noon_ns: int) -> int:
        """Up to when runs were forgotten."""
        bench.add(ended(5, noon_ns, key="old"))
        await backfill(bench, since=noon_ns)
        async with bench.pipeline(bench.source("casedev")) as line_up:
            account = line_up.lines[0].account
            assert line_up.ledger.prune(account, before_ns=time.time_ns() + SECOND) == 5
            pruned_ns = line_up.ledger.pruned_through_ns(account)
        assert pruned_ns == noon_ns + 4 * SECOND
        bench.exporter.taken.clear()
        bench.add(ended(3, noon_ns + HOUR, key="young"))
        return pruned_ns

    async def test_a_stretch_that_was_forgotten_in_part_is_refused_and_says_where_to_begin(
        self, bench: Bench, noon_ns: int, pruned_ns: int
    ):
        for since in (None, noon_ns, pruned_ns):
            with pytest.raises(ConfigError, match=r"a second time; begin with --since .*Z, or add --force") as refused:
                await backfill(bench, since=since)
        assert bench.exporter.taken == []
        hint = str(refused.value).partition("--since ")[2].partition(",")[0]
        report = await backfill(bench, since=Start.parse(hint).instant_ns(0))
        assert (report.listed, report.exported) == (3, 3)

    async def test_forced_it_warns_and_sends_them(self, bench: Bench, noon_ns: int, pruned_ns: int):
        with capture_logs() as logs:
            report = await backfill(bench, since=noon_ns, force=True)
        assert report.exported == 8
        assert [log["source"] for log in logs if log["action"] == "backfill_may_repeat"] == ["casedev"]

    async def test_of_ids_it_only_warns(self, bench: Bench, pruned_ns: int):
        with capture_logs() as logs:
            await backfill(bench, ids=["no-such-run"])
        assert "backfill_may_repeat" in [log["action"] for log in logs]

    async def test_a_job_that_had_begun_goes_on(self, bench: Bench, noon_ns: int):
        ids = bench.add(ended(10, noon_ns))
        wall = bench.simulator.fault("casedev", ids[0], html(503))
        assert (await backfill(bench, since=noon_ns)).failing == 1
        bench.simulator.faults.remove(wall)
        async with bench.pipeline(bench.source("casedev")) as line_up:
            account = line_up.lines[0].account
            assert line_up.ledger.prune(account, before_ns=time.time_ns() + SECOND) == 9
        report = await backfill(bench, since=noon_ns)
        assert report.exported == 1

    async def test_a_dry_run_asks_the_ledger_that_knows(self, bench: Bench, noon_ns: int, pruned_ns: int):
        config = bench.config(bench.source("casedev"))
        with bench.ledger(read_only=True) as known_in, Ledger.open("sqlite://") as memory:
            async with pipeline(config, memory, budget=NoQuota(), exporter=DiscardExporter()) as line_up:
                job = Backfill(line_up, line_up.lines[0], request(since=noon_ns), known_in=known_in)
                with pytest.raises(ConfigError, match="a second time"):
                    await job.run()


class TestVerify:
    @pytest.fixture(autouse=True)
    def hurry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("runspan.pipeline.backfill.READ_BACK_SECONDS", 0.3)
        monkeypatch.setattr("runspan.readback.PAUSE_SECONDS", 0.02)

    async def test_every_exported_trace_is_read_back_a_few_at_a_time(self, bench: Bench, noon_ns: int):
        bench.add(ended(5, noon_ns, key="before"))
        await backfill(bench, since=noon_ns)
        known = {trace.trace.trace_id.hex() for trace in bench.exporter.taken}
        bench.add(ended(30, noon_ns))
        async with query_api(lambda trace_id: True) as (url, asked, at_once):
            report = await backfill(bench, since=noon_ns, verify=True, destination={"query_url": url})
        assert report == Report(listed=35, exported=30, known=5)
        assert set(asked) == {trace.trace.trace_id.hex() for trace in bench.exporter.taken} - known
        assert len(asked) == 30
        assert 1 < at_once["most"] <= 8

    async def test_what_the_backend_shows_late_is_waited_for(self, bench: Bench, noon_ns: int):
        bench.add(ended(3, noon_ns))
        seen: Counter[str] = Counter()

        def third_time(trace_id: str) -> bool:
            seen[trace_id] += 1
            return seen[trace_id] >= 3

        async with query_api(third_time) as (url, _, _):
            report = await backfill(bench, since=noon_ns, verify=True, destination={"query_url": url})
        assert report.complete
        assert set(seen.values()) == {3}

    async def test_what_the_backend_lost_is_told_and_looked_for_again_the_next_time(self, bench: Bench, noon_ns: int):
        bench.add(ended(10, noon_ns))
        lost: set[str] = set()

        def shows(trace_id: str) -> bool:
            if not lost:
                lost.add(trace_id)
            return trace_id not in lost

        async with query_api(shows) as (url, asked, _):
            with capture_logs() as logs:
                report = await backfill(bench, since=noon_ns, verify=True, destination={"query_url": url})
            assert (report.exported, report.unverified, report.complete) == (10, 1, False)
            [missing] = [log["run"] for log in logs if log["action"] == "trace_missing"]
            [trace] = [t.trace for t in bench.exporter.taken if t.trace.ref.run_id == missing]
            assert {trace.trace_id.hex()} == lost

            sent = len(bench.exporter.requests)
            lost.clear()
            lost.add("none")
            asked.clear()
            report = await backfill(bench, since=noon_ns, verify=True, destination={"query_url": url})
            assert (report.exported, report.unverified, report.complete) == (10, 0, True)
            assert len(set(asked)) == 10
            assert len(bench.exporter.requests) == sent

    async def test_a_backend_that_cannot_be_read_back_is_known_before_anything_is_sent(
        self, bench: Bench, noon_ns: int
    ):
        bench.add(ended(3, noon_ns))
        destination = {"query_url": "http://127.0.0.1:9", "preset": "generic"}
        with pytest.raises(ConfigError, match="preset"):
            await backfill(bench, since=noon_ns, verify=True, destination=destination)
        assert bench.exporter.requests == []

    async def test_a_query_api_that_is_not_there(self, bench: Bench, noon_ns: int):
        bench.add(ended(3, noon_ns))
        async with query_api(lambda trace_id: True) as (url, _, _):
            pass
        with pytest.raises(DeliveryRefused, match="query_url"):
            await backfill(bench, since=noon_ns, verify=True, destination={"query_url": url})
        with bench.ledger() as ledger:
            assert counted(ledger) == {RowState.EXPORTED: 3}


def positions(bench: Bench) -> list[Any]:
    with closing(sqlite3.connect(bench.path)) as database:
        return database.execute("SELECT * FROM sweeps WHERE kind IN ('poll', 'slow') ORDER BY scope, kind").fetchall()


def everything(bench: Bench) -> list[Any]:
    with closing(sqlite3.connect(bench.path)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [(name, database.execute(f"SELECT * FROM {name}").fetchall()) for name in tables]
