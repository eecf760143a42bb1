"""The daemon: by the clock, over real HTTP on all its sides, and stopped in order."""

import asyncio
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as classic_text_string_to_metric_families
from structlog.testing import capture_logs

from runspan.daemon import daemon
from runspan.demo.faults import Hang, html
from runspan.demo.samples import casedev_run, elizaos_run, runtype_execution
from runspan.errors import ConfigError, LedgerUnusable
from runspan.ledger import Account, Finished, Ledger, NewRow, RowState
from runspan.model import Locator, RunRef
from runspan.pipeline.assembly import pipeline
from runspan.pipeline.backfill import Backfill
from runspan.pipeline.discovery import Discovery
from runspan.pipeline.request import Request
from tests.ledgers import SECOND
from tests.otlp_store import OtlpStore, Reply, accept, lost_ack, refuse, slow
from tests.otlp_store import Request as Posted
from tests.pipelines import HOUR, Bench, counted, position_ns, row_of, until

EXPORTED, DUE = RowState.EXPORTED, RowState.DUE
PACE = {"poll_every": "100ms", "settle": "0s", "rate": "1000/s"}


@pytest.fixture
def store() -> Iterator[OtlpStore]:
    with OtlpStore() as store:
        yield store


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr("runspan.sources.client.ATTEMPTS", 1)
    monkeypatch.setattr("runspan.daemon.daemon.START_SPREAD_SECONDS", 0.02)
    monkeypatch.setattr("runspan.pipeline.line.PAUSE_SECONDS", (0.05, 300.0))
    monkeypatch.setattr("runspan.pipeline.standing.RETRY_FLOOR", timedelta(milliseconds=50))
    monkeypatch.setattr("runspan.otlp.delivery.BACKOFF_SECONDS", 0.1)
    bench = Bench(tmp_path / "ledger.db", time.time_ns)
    async with bench.simulator:
        yield bench


class Running:
    """A daemon under way: its ledger, its page, and what it ends with."""

    def __init__(self, ledger: Ledger, stop: asyncio.Event, task: "asyncio.Task[None]", url: str) -> None:
        self.ledger = ledger
        self.task = task
        self.url = url
        self._stop = stop

    async def stop(self) -> float:
        """Stop it; gives how many seconds that took."""
        begun = time.monotonic()
        self._stop.set()
        await self.task
        return time.monotonic() - begun

    async def get(self, path: str, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, timeout=5) as client:
            return await client.get(path, headers=headers)

    async def metric(self, name: str, **labels: str) -> float | None:
        """The value of one sample, None where there is none."""
        answer = await self.get("/metrics")
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return None


@asynccontextmanager
async def running(bench: Bench, store: OtlpStore, *sources: dict[str, Any], **tables: Any) -> AsyncIterator[Running]:
    config = bench.config(*sources, destination={"endpoint": store.http_endpoint}, **tables)
    stop = asyncio.Event()
    with bench.ledger() as ledger, capture_logs() as logs:
        task = asyncio.create_task(daemon.run(config, ledger, stop=stop))
        try:
            await until(lambda: task.done() or any(log["action"] == "web_started" for log in logs))
            if task.done():
                await task
            [url] = [log["url"] for log in logs if log["action"] == "web_started"]
            yield Running(ledger, stop, task, url)
            if not task.done():
                stop.set()
                await task
        finally:
            task.cancel()
            await asyncio.wait([task])


def runs_of(store: OtlpStore) -> set[str]:
    return {run_id for request in list(store.requests) for run_id in request.run_ids}


def copies(store: OtlpStore) -> set[int]:
    """How often the spans were sent, each."""
    return {len(sent) for spans in store.traces.values() for sent in spans.values()}


class TestWork:
    async def test_runs_of_all_platforms_are_found_as_they_end_and_sent_once(self, bench: Bench, store: OtlpStore):
        now_ns = time.time_ns()
        old = [
            casedev_run("old", created_at_ns=now_ns - HOUR),
            runtype_execution("old", created_at_ns=now_ns - HOUR),
            elizaos_run("old", created_at_ns=now_ns - HOUR),
        ]
        bench.add(old)
        sources = [bench.source(run.platform, **PACE) for run in old]
        async with running(bench, store, *sources) as one:
            await until(lambda: counted(one.ledger) == {EXPORTED: 3})
            now_ns = time.time_ns()
            young = [
                casedev_run("young", created_at_ns=now_ns, queue_seconds=0.1, seconds=0.5),
                runtype_execution("young", created_at_ns=now_ns, queue_seconds=0.1, seconds=0.5),
                elizaos_run("young", created_at_ns=now_ns, seconds=0.5),
            ]
            bench.add(young)
            await until(lambda: counted(one.ledger) == {EXPORTED: 6})
        assert runs_of(store) == {run.run_id for run in (*old, *young)}
        assert copies(store) == {1}

    async def test_positions_and_rows_outlive_it(self, bench: Bench, store: OtlpStore):
        now_ns = time.time_ns()
        bench.add(runtype_execution(n, created_at_ns=now_ns - HOUR + n * SECOND) for n in range(5))
        source = bench.source("runtype", **PACE)
        async with running(bench, store, source) as one:
            await until(lambda: counted(one.ledger) == {EXPORTED: 5})
        bench.simulator.requests.clear()
        ids = bench.add([runtype_execution("new", created_at_ns=now_ns - 1800 * SECOND)])
        async with running(bench, store, source) as other:
            await until(lambda: counted(other.ledger) == {EXPORTED: 6})
        assert set(bench.details_asked("runtype")) >= set(ids)
        assert {path for path in bench.details_asked("runtype") if "/" not in path} == set(ids)
        first = next(r for r in bench.simulator.asked("runtype") if r.path.endswith("/executions"))
        # Read from the stored position on, not from `start`.
        assert first.query["from"] >= time.strftime("%Y-%m-%dT%H:%M", time.gmtime(now_ns / 1e9 - 3600 - 660))
        assert copies(store) == {1}

    async def test_the_slow_sweep_finds_what_the_polls_do_not_reach(self, bench: Bench, store: OtlpStore):
        now_ns = time.time_ns()
        bench.add([casedev_run("young", created_at_ns=now_ns - 60 * SECOND, seconds=1.0)])
        source = bench.source("casedev", **PACE, overlap="1s", lookback="2h", sweep_every="400ms")
        async with running(bench, store, source) as one:
            await until(lambda: counted(one.ledger) == {EXPORTED: 1})
            bench.add([casedev_run("late", created_at_ns=now_ns - HOUR)])
            await until(lambda: counted(one.ledger) == {EXPORTED: 2})

    async def test_old_rows_are_forgotten(self, bench: Bench, store: OtlpStore):
        long_ago_ns = time.time_ns() - 100 * 24 * HOUR
        source = bench.source("casedev", **PACE)
        tenant = bench.simulator.urls["casedev"]
        refs = [RunRef("casedev", tenant, run_id, Locator(created_ns=long_ago_ns)) for run_id in ("sent", "waits")]
        with Ledger.open(bench.config().ledger.url, now=lambda: long_ago_ns) as past:
            past.note_rows([NewRow(ref, "casedev", DUE, due_ns=long_ago_ns) for ref in refs])
            past.finish([Finished(refs[0], EXPORTED)])
        async with running(bench, store, source) as one:
            await until(lambda: one.ledger.find("sent") == [])
            assert len(one.ledger.find("waits")) == 1

    async def test_leases_are_renewed_while_a_request_takes_its_time(
        self, bench: Bench, store: OtlpStore, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("runspan.daemon.daemon.LEASE_RENEWAL", timedelta(milliseconds=100))
        monkeypatch.setattr("runspan.daemon.daemon.DRAIN_SECONDS", 0.1)
        [run_id] = bench.add([casedev_run("a", created_at_ns=time.time_ns() - HOUR)])
        bench.simulator.fault("casedev", "/details", Hang())
        async with running(bench, store, bench.source("casedev", **PACE)) as one:
            await until(lambda: bool(bench.details_asked()))
            leased_ns = row_of(one.ledger, run_id).leased_until_ns
            assert leased_ns is not None
            await until(lambda: (row_of(one.ledger, run_id).leased_until_ns or 0) > leased_ns)

    async def test_a_destination_that_comes_back_gets_everything(self, bench: Bench, store: OtlpStore):
        ids = bench.add(casedev_run(n, created_at_ns=time.time_ns() - HOUR) for n in range(20))
        store.down()
        async with running(bench, store, bench.source("casedev", **PACE)) as one:
            await until(lambda: counted(one.ledger) == {DUE: 20})
            await until(lambda: bool(bench.details_asked()))
            late = bench.add(casedev_run(n, created_at_ns=time.time_ns() - HOUR) for n in range(100, 105))
            # Discovery goes on.
            await until(lambda: counted(one.ledger) == {DUE: 25})
            store.up()
            await until(lambda: counted(one.ledger) == {EXPORTED: 25})
        assert runs_of(store) == {*ids, *late}
        assert copies(store) == {1}


class TestStopping:
    async def test_what_is_under_way_is_finished_and_marked(self, bench: Bench, store: OtlpStore):
        bench.add(casedev_run(n, created_at_ns=time.time_ns() - HOUR) for n in range(60))
        store.rule = lambda request: slow(0.1)
        async with running(bench, store, bench.source("casedev", **PACE, concurrency=2)) as one:
            await until(lambda: len(store.requests) >= 2)
            assert await one.stop() < daemon.DRAIN_SECONDS
            sent = runs_of(store)
            assert 0 < len(sent) < 60
            assert counted(one.ledger) == {EXPORTED: len(sent), DUE: 60 - len(sent)}
            assert all(row.leased_until_ns is None for row in one.ledger.runs())
        # Nothing that had been fetched was thrown away.
        assert set(bench.details_asked()) == sent

    async def test_what_cannot_be_finished_in_time_stays_due(
        self, bench: Bench, store: OtlpStore, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("runspan.daemon.daemon.DRAIN_SECONDS", 0.3)
        bench.add(casedev_run(n, created_at_ns=time.time_ns() - HOUR) for n in range(5))
        bench.simulator.fault("casedev", "/details", Hang())
        async with running(bench, store, bench.source("casedev", **PACE)) as one:
            await until(lambda: len(bench.details_asked()) == 5)
            assert 0.2 < await one.stop() < 2
            assert counted(one.ledger) == {DUE: 5}
            assert all(row.leased_until_ns is None for row in one.ledger.runs())

    async def test_what_was_acknowledged_is_marked_though_its_batch_is_cut_short(
        self, bench: Bench, store: OtlpStore, monkeypatch: pytest.MonkeyPatch
    ):
        """Here the batch is one request for each trace, and the last of them is not answered any more."""
        monkeypatch.setattr("runspan.daemon.daemon.DRAIN_SECONDS", 0.3)
        bench.add(casedev_run(n, created_at_ns=time.time_ns() - HOUR) for n in range(12))
        taken: list[str] = []

        def answer(request: Posted) -> Reply:
            if len(request.run_ids) > 1:
                return refuse(413)
            if len(taken) == 3:
                return slow(2)
            taken.extend(request.run_ids)
            return accept()

        store.rule = answer
        async with running(bench, store, bench.source("casedev", **PACE, concurrency=12)) as one:
            await until(lambda: len(store.requests) > 3 and len(store.requests[-1].run_ids) == 1 and len(taken) == 3)
            await one.stop()
            assert {row.ref.run_id for row in one.ledger.runs() if row.state is EXPORTED} == {*taken}

    async def test_a_look_that_is_under_way_does_not_hold_it_up(self, bench: Bench, store: OtlpStore):
        bench.simulator.fault("casedev", "/run", Hang())
        async with running(bench, store, bench.source("casedev", **PACE)) as one:
            await until(lambda: bool(bench.simulator.asked("casedev")))
            assert await one.stop() < 2

    async def test_a_look_that_takes_its_time_to_end_is_no_failed_job(
        self, bench: Bench, store: OtlpStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        looking = asyncio.Event()

        async def look(discovery: Discovery) -> None:
            looking.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.2)

        monkeypatch.setattr(Discovery, "poll", look)
        async with running(bench, store, bench.source("casedev", **PACE)) as one:
            await looking.wait()
            assert await one.stop() < 2
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


class TestLedger:
    async def test_a_second_daemon_is_refused_and_told_who_was_first(self, bench: Bench, store: OtlpStore):
        source = bench.source("casedev", **PACE)
        async with running(bench, store, source) as one:
            with pytest.raises(LedgerUnusable, match=rf"pid \d+ on host {socket.gethostname()} holds the ledger"):
                async with running(bench, store, source):
                    pass
            bench.add([casedev_run("a", created_at_ns=time.time_ns() - HOUR)])
            await until(lambda: counted(one.ledger) == {EXPORTED: 1})
        async with running(bench, store, source):
            pass

    @pytest.mark.parametrize("table", ["sweeps", "runs"])
    async def test_a_ledger_that_fails_stops_it_and_says_why(self, bench: Bench, store: OtlpStore, table: str):
        bench.add([casedev_run("a", created_at_ns=time.time_ns() - HOUR)])
        async with running(bench, store, bench.source("casedev", **PACE)) as one:
            await until(lambda: counted(one.ledger) == {EXPORTED: 1})
            with closing(sqlite3.connect(bench.path)) as other, other:
                other.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
            with pytest.raises(LedgerUnusable, match="no such table"):
                await asyncio.wait_for(one.task, 10)
            with closing(sqlite3.connect(bench.path)) as other, other:
                other.execute(f"ALTER TABLE elsewhere RENAME TO {table}")

    async def test_a_ledger_that_fails_at_the_last_mark_is_no_quiet_stop(
        self, bench: Bench, store: OtlpStore, monkeypatch: pytest.MonkeyPatch
    ):
        bench.add([casedev_run("a", created_at_ns=time.time_ns() - HOUR)])
        store.rule = lambda request: slow(0.3)

        def dies(*args: Any) -> Any:
            raise LedgerUnusable("the disk is gone")

        async with running(bench, store, bench.source("casedev", **PACE)) as one:
            await until(lambda: bool(store.requests))
            monkeypatch.setattr(one.ledger, "finish", dies)
            with pytest.raises(LedgerUnusable, match="the disk is gone"):
                await one.stop()

    async def test_a_start_under_a_clock_that_was_ahead_loses_no_runs(self, bench: Bench, store: OtlpStore):
        future_ns = time.time_ns() + 400 * 24 * HOUR
        config = bench.config(bench.source("casedev", **PACE))
        tenant = bench.simulator.urls["casedev"]
        with Ledger.open(config.ledger.url, now=lambda: future_ns) as ledger:
            window = {"window_start_ns": future_ns - HOUR, "window_end_ns": None}
            ledger.begin_sweep(Account("casedev", tenant), "", "poll", position_ns=future_ns, **window)
        [run_id] = bench.add([casedev_run("a", created_at_ns=time.time_ns() - HOUR)])
        async with running(bench, store, bench.source("casedev", **PACE)) as one:
            await until(lambda: [row.state for row in one.ledger.find(run_id)] == [EXPORTED])

    async def test_what_is_new_about_it_is_said(self, bench: Bench, store: OtlpStore):
        source = bench.source("casedev", **PACE)
        for destination, actions in (
            ("http://localhost:4318", {"ledger_created"}),
            ("http://localhost:4318", set[str]()),
            ("http://localhost:4318/v1/traces", set[str]()),
            ("http://localhost:4319", {"destination_changed"}),
        ):
            stop = asyncio.Event()
            stop.set()
            with capture_logs() as logs, bench.ledger() as ledger:
                config = bench.config(source, destination={"endpoint": destination})
                await daemon.run(config, ledger, stop=stop)
            assert {log["action"] for log in logs} & {"ledger_created", "destination_changed"} == actions


class TestWindow:
    async def test_health_readiness_metrics_and_the_page_tell_how_it_is(self, bench: Bench, store: OtlpStore):
        now_ns = time.time_ns()
        bench.add(casedev_run(n, created_at_ns=now_ns - HOUR) for n in range(3))
        bench.add([casedev_run("open", created_at_ns=now_ns - 600 * SECOND, seconds=None)])
        bench.add([runtype_execution("import", created_at_ns=now_ns - HOUR, external=True)])
        sources = [bench.source("casedev", **PACE), bench.source("runtype", **PACE), bench.source("flowyble", **PACE)]
        async with running(bench, store, *sources) as one:
            await until(lambda: counted(one.ledger)[EXPORTED] == 3)
            await until(lambda: counted(one.ledger)[RowState.SKIPPED] == 1)
            alive, ready, metrics, page = [await one.get(path) for path in ("/healthz", "/readyz", "/metrics", "/")]
            assert (alive.status_code, alive.text) == (200, "ok\n")
            assert ready.status_code == 200
            assert ready.json() == {"ready": True, "troubles": []}
            assert metrics.headers["content-type"].startswith("application/openmetrics-text")
            assert await one.metric("runspan_rows", source="casedev", state="exported") == 3
            assert await one.metric("runspan_rows", source="casedev", state="open") == 1
            assert await one.metric("runspan_rows", source="runtype", state="skipped") == 1
            assert await one.metric("runspan_runs_marked_total", source="casedev", state="exported") == 3
            assert await one.metric("runspan_source_paused", source="casedev") == 0
            last = await one.metric("runspan_source_last_success_timestamp_seconds", source="casedev")
            assert last == pytest.approx(time.time(), abs=5)
            assert await one.metric("runspan_source_last_success_timestamp_seconds", source="flowyble") is None
            assert await one.metric("runspan_destination_healthy") == 1
            assert await one.metric("runspan_ledger_created") == 1
            assert await one.metric("runspan_repeats_differing_total") == 0
            assert await one.metric("runspan_oldest_due_seconds", source="casedev") == 0
            assert page.status_code == 200
            assert "3 exported" in page.text
            assert "1 skipped (external)" in page.text
            assert (await one.get("/nowhere")).status_code == 404

    async def test_trouble_of_a_source_or_the_destination_is_seen_and_its_end_too(
        self, bench: Bench, store: OtlpStore, monkeypatch: pytest.MonkeyPatch
    ):
        wall = bench.simulator.fault("casedev", ".*", html(503))
        sources = [bench.source("casedev", **PACE), bench.source("runtype", **PACE)]
        async with running(bench, store, *sources) as one:

            async def troubles() -> list[str]:
                answer = await one.get("/readyz")
                told: list[str] = answer.json()["troubles"]
                assert answer.status_code == (503 if told else 200)
                return told

            await eventually(lambda: troubles(), lambda told: any("casedev" in t and "503" in t for t in told))
            assert await one.metric("runspan_source_paused", source="runtype") == 0
            await eventually(lambda: one.metric("runspan_source_paused", source="casedev"), lambda value: value == 1)
            assert "503" in (await one.get("/")).text
            assert (await one.get("/healthz")).status_code == 200
            bench.simulator.faults.remove(wall)
            await eventually(lambda: troubles(), lambda told: not told)

            store.rule = lambda request: refuse(503)
            bench.add([casedev_run("a", created_at_ns=time.time_ns() - HOUR)])
            await eventually(lambda: troubles(), lambda told: any("destination" in text for text in told))
            assert await one.metric("runspan_destination_healthy") == 0
            await eventually(
                lambda: one.metric("runspan_oldest_due_seconds", source="casedev"), lambda value: value is not None
            )
            store.rule = lambda request: None
            await eventually(lambda: troubles(), lambda told: not told)

    async def test_a_port_that_is_taken_is_said_before_anything_begins(self, bench: Bench, store: OtlpStore):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(
                ConfigError, match=r"web\.listen: .* \(Address already in use\): write an address of this"
            ):
                async with running(bench, store, bench.source("casedev"), web={"listen": listen}):
                    pass
        assert bench.simulator.requests == []

    async def test_an_address_of_another_machine_is_said_to_be_none_of_this_one(self, bench: Bench, store: OtlpStore):
        told = r"cannot listen on 192\.0\.2\.1:9464 \(Cannot assign requested address\): write an address of this"
        with pytest.raises(ConfigError, match=told):
            async with running(bench, store, bench.source("casedev"), web={"listen": "192.0.2.1:9464"}):
                pass

    async def test_who_only_connects_takes_few_places_and_none_for_long(
        self, bench: Bench, store: OtlpStore, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("runspan.daemon.connection.MOST_CONNECTIONS", 5)
        monkeypatch.setattr("runspan.daemon.connection.IDLE_SECONDS", 0.3)
        async with running(bench, store, bench.source("casedev", **PACE)) as one, AsyncExitStack() as stack:
            port = int(one.url.rpartition(":")[2])
            readers: list[asyncio.StreamReader] = []
            for sent in [b""] * 8 + [b"GET /healthz HTTP/1.1\r\nhost: a"] * 2:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                stack.callback(writer.close)
                writer.write(sent)
                readers.append(reader)
            # The last ones at once, and the first ones after a while.
            for reader in reversed(readers):
                with suppress(ConnectionError):
                    assert await asyncio.wait_for(reader.read(), 10) == b""
            assert (await one.get("/healthz")).status_code == 200


class TestRunMetrics:
    async def test_what_was_exported_is_counted_and_shown_with_its_traces(self, bench: Bench, store: OtlpStore):
        now_ns = time.time_ns()
        bench.add(casedev_run(n, created_at_ns=now_ns - HOUR) for n in range(2))
        bench.add([casedev_run("open", created_at_ns=now_ns, seconds=None)])
        bench.add([runtype_execution("a", created_at_ns=now_ns - HOUR)])
        async with running(bench, store, bench.source("casedev", **PACE), bench.source("runtype", **PACE)) as one:
            await until(lambda: counted(one.ledger)[EXPORTED] == 3)
            answer = await one.get("/metrics")
        samples = [s for family in text_string_to_metric_families(answer.text) for s in family.samples]
        runs = [s for s in samples if s.name == "runspan_agent_runs_total"]
        assert {(s.labels["source"], s.labels["status"]): s.value for s in runs} == {
            ("casedev", "success"): 2,
            ("runtype", "success"): 1,
        }
        assert {"", "open"}.isdisjoint(s.labels["agent"] for s in runs)
        told = {s.exemplar.labels["trace_id"] for s in samples if s.exemplar}
        assert told
        assert told <= store.traces.keys()
        of_runs = {s.labels["source"]: s.value for s in samples if s.name == "runspan_agent_run_duration_seconds_count"}
        assert of_runs == {"casedev": 2, "runtype": 1}

    @pytest.mark.parametrize(
        ("accept", "form"),
        [
            (None, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
            ("*/*", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
                "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ),
            ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "text/plain; version=0.0.4; charset=utf-8"),
            ("application/openmetrics-text;q=0.1, text/plain", "text/plain; version=0.0.4; charset=utf-8"),
            ("Text/Plain; q=nonsense", "text/plain; version=0.0.4; charset=utf-8"),
        ],
    )
    async def test_prometheus_gets_the_form_it_asks_for(
        self, bench: Bench, store: OtlpStore, accept: str | None, form: str
    ):
        bench.add([casedev_run("a", created_at_ns=time.time_ns() - HOUR)])
        async with running(bench, store, bench.source("casedev", **PACE)) as one:
            await until(lambda: counted(one.ledger)[EXPORTED] == 1)
            answer = await one.get("/metrics", **({} if accept is None else {"accept": accept}))
        assert answer.headers["content-type"] == form
        is_open = form.startswith("application/openmetrics-text")
        assert ("# {" in answer.text) == is_open
        parse = text_string_to_metric_families if is_open else classic_text_string_to_metric_families
        assert [s.value for family in parse(answer.text) for s in family.samples if "runs_total" in s.name] == [1.0]

    async def test_a_run_that_is_sent_again_counts_once(self, bench: Bench, store: OtlpStore):
        bench.add([casedev_run("a", created_at_ns=time.time_ns() - HOUR)])
        store.answer(lost_ack())
        async with running(bench, store, bench.source("casedev", **PACE)) as one:
            await until(lambda: counted(one.ledger)[EXPORTED] == 1)
            assert len(store.requests) == 2
            assert await self.runs(one) == 1

    async def test_what_a_backfill_brought_up_does_not_count_whoever_sends_it(self, bench: Bench, store: OtlpStore):
        now_ns = time.time_ns()
        old = [*bench.add(casedev_run(n, created_at_ns=now_ns - HOUR) for n in range(3))]
        source, tenant = bench.source("casedev", **PACE | {"start": "now"}), bench.simulator.urls["casedev"]
        refs = [RunRef("casedev", tenant, run_id) for run_id in old]
        [news] = bench.add([casedev_run("news", created_at_ns=now_ns, queue_seconds=0.1, seconds=0.5)])
        with bench.ledger() as ledger:
            job = ledger.start_job("job", {})
            ledger.note_rows([NewRow(ref, "casedev", DUE, due_ns=now_ns) for ref in refs], job=job.id)
            # The backfill saw this one before it ended.
            open_row = NewRow(RunRef("casedev", tenant, news), "casedev", RowState.OPEN, due_ns=now_ns)
            ledger.note_rows([open_row], job=job.id)
        async with running(bench, store, source) as one:
            await until(lambda: counted(one.ledger) == {EXPORTED: 4})
            assert await self.runs(one) == 1
            # Nor does it count when a backfill has it sent once more.
            with bench.ledger() as ledger:
                again = NewRow(RunRef("casedev", tenant, news), "casedev", DUE, due_ns=now_ns)
                ledger.note_rows([again], job=ledger.start_job("forced", {}).id, force=True)
            await until(lambda: len(store.requests) >= 2 and 2 in copies(store))
            await until(lambda: counted(one.ledger) == {EXPORTED: 4})
            await eventually(
                lambda: one.metric("runspan_runs_marked_total", source="casedev", state="exported"),
                lambda value: value == 5,
            )
            assert await self.runs(one) == 1

    async def runs(self, one: Running) -> float:
        families = text_string_to_metric_families((await one.get("/metrics")).text)
        return sum(s.value for family in families for s in family.samples if s.name == "runspan_agent_runs_total")


class TestQuota:
    @pytest.mark.parametrize(("rate", "requests", "window_seconds"), [("10/2s", 10, 2.0), ("20/s", 20, 1.0)])
    async def test_daemon_and_backfill_together_never_pass_the_rate(
        self, bench: Bench, store: OtlpStore, rate: str, requests: int, window_seconds: float
    ):
        """The platform counts, not we."""
        now_ns = time.time_ns()
        count = int(requests * 1.3)
        bench.add(casedev_run(n, created_at_ns=now_ns - 2 * HOUR + n * SECOND) for n in range(count))
        bench.add(casedev_run(f"open {n}", created_at_ns=now_ns - n * SECOND, seconds=None) for n in range(5))
        source = bench.source("casedev", **PACE | {"rate": rate, "start": "1h", "poll_every": "700ms"})
        async with running(bench, store, source) as one:
            config = bench.config(source, destination={"endpoint": store.http_endpoint})
            with bench.ledger() as ledger:
                async with pipeline(config, ledger) as line_up:
                    since_ns = now_ns - 3 * HOUR
                    request = Request(since="3h", since_ns=since_ns, until_ns=now_ns - HOUR)
                    report = await asyncio.wait_for(Backfill(line_up, line_up.lines[0], request).run(), 30)
            assert report.exported == count
            assert not one.task.done()
            assert len(bench.simulator.requests) > requests
            busiest = bench.simulator.busiest("casedev", window_seconds)
            assert busiest <= requests
            # And the rate is used: slower would be kept too easily.
            assert busiest >= 0.4 * requests
            assert position_ns(one.ledger, line_up.lines[0].account) is not None


async def eventually(ask: Any, holds: Any) -> None:
    """Ask until the answer is as wanted; fails after a while."""
    deadline = time.monotonic() + 10
    while not holds(answer := await ask()):
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.02)
