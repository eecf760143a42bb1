"""Runs that ended longer ago than their backend shows: a backfill stops before it sends them, a daemon says so once."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from runspan.config import DestinationConfig
from runspan.demo.samples import casedev_run
from runspan.demo.world import WorldAgent, WorldRun
from runspan.errors import ConfigError, DeliveryRefused
from runspan.model import Locator
from runspan.otlp.base import Answer, AnswerKind
from runspan.otlp.memory import accept
from runspan.pipeline.age import CATCH_UP_OVER, AgeLimit, OldRuns, age_limit
from runspan.pipeline.backfill import Backfill
from runspan.pipeline.discovery import Discovery
from runspan.pipeline.report import Report
from runspan.pipeline.request import Request
from tests.ledgers import SECOND, START_NS, Clock
from tests.pipelines import HOUR, Bench, counted, until, working

ADA = WorldAgent(agent_id="0b9d4c52-7a18-4f3e-9c06-1d2e3f4a5b6c", name="Ada")


@pytest.fixture
def noon_ns() -> int:
    """A full second some hours ago."""
    return time.time_ns() // SECOND * SECOND - 6 * HOUR


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr("runspan.pipeline.backfill.LOOK_SECONDS", 0.01)
    bench = Bench(tmp_path / "ledger.db", time.time_ns)
    async with bench.simulator:
        yield bench


def ended(count: int, from_ns: int) -> Iterator[WorldRun]:
    for number in range(count):
        yield casedev_run(number, created_at_ns=from_ns + number * SECOND, agent=ADA, seconds=2.0)


async def backfill(bench: Bench, *, destination: dict[str, Any] | None = None, **asked: Any) -> Report:
    if since_ns := asked.get("since_ns"):
        asked["since"] = str(since_ns)
    async with bench.pipeline(bench.source("casedev"), destination=destination or {}) as line_up:
        return await Backfill(line_up, line_up.lines[0], Request(**asked)).run()


async def test_it_stops_before_anything_is_asked_or_sent(bench: Bench, noon_ns: int):
    bench.add(ended(3, noon_ns))
    expected = r"begins 20\S+Z, and jaeger may not show what is older than 3d; with Elasticsearch .*; or add --force"
    with pytest.raises(ConfigError, match=expected):
        await backfill(bench, since_ns=noon_ns - 90 * HOUR)
    assert bench.simulator.requests == []
    with bench.ledger() as ledger:
        assert ledger.runs() == []
    # Nothing of it is left behind: the same command within the limit begins anew.
    assert (await backfill(bench, since_ns=noon_ns - HOUR)).exported == 3


async def test_with_force_it_warns_once_and_goes_on(bench: Bench, noon_ns: int):
    bench.add(ended(3, noon_ns - 100 * HOUR))
    with capture_logs() as logs:
        report = await backfill(bench, since_ns=noon_ns - 200 * HOUR, force=True)
    assert report.exported == 3
    [warning] = [line for line in logs if line["action"] == "older_than_backend_keeps"]
    assert warning["log_level"] == "warning"
    assert "max_span_age" in warning["event"]


async def test_a_dry_run_only_warns(bench: Bench, noon_ns: int):
    bench.add(ended(3, noon_ns - 100 * HOUR))
    with capture_logs() as logs:
        report = await backfill(bench, since_ns=noon_ns - 200 * HOUR, dry_run=True)
    assert report.exported == 3
    assert [line["action"] for line in logs].count("older_than_backend_keeps") == 1


async def test_what_had_begun_goes_on(bench: Bench, noon_ns: int):
    bench.add(ended(9, noon_ns - 100 * HOUR))
    since_ns = noon_ns - 200 * HOUR
    bench.exporter.respond = lambda traces: Answer(AnswerKind.WRONG, "HTTP 401")
    with pytest.raises(DeliveryRefused):
        await backfill(bench, since_ns=since_ns, destination={"max_span_age": "0s"})
    bench.exporter.respond = accept
    assert (await backfill(bench, since_ns=since_ns)).exported == 9


@pytest.mark.parametrize(
    ("destination", "hours", "stops"),
    [
        ({}, 72.0, False),
        ({}, 73.0, True),
        ({"preset": "tempo"}, 168.0, False),
        ({"preset": "tempo"}, 169.0, True),
        ({"preset": "generic"}, 9999.0, False),
        ({"preset": "generic", "max_span_age": "1h"}, 2.0, True),
        ({"preset": "jaeger", "max_span_age": "30d"}, 100.0, False),
        ({"preset": "jaeger", "max_span_age": "0s"}, 9999.0, False),
        ({"protocol": "file", "endpoint": "/nowhere"}, 9999.0, False),
        ({"protocol": "file", "endpoint": "/nowhere", "max_span_age": "1h"}, 2.0, True),
    ],
)
async def test_the_limit_is_that_of_the_preset_or_as_configured(
    bench: Bench, destination: dict[str, Any], hours: float, stops: bool
):
    since_ns = time.time_ns() - int(hours * HOUR)
    if stops:
        with pytest.raises(ConfigError, match="may not show"):
            await backfill(bench, since_ns=since_ns, destination=destination)
    else:
        assert await backfill(bench, since_ns=since_ns, destination=destination) == Report()


async def test_of_ids_it_is_seen_only_when_they_come(bench: Bench, noon_ns: int):
    ids = bench.add(ended(3, noon_ns - 100 * HOUR))
    with capture_logs() as logs:
        assert (await backfill(bench, ids=tuple((run, Locator()) for run in ids))).exported == 3
    assert [line["action"] for line in logs].count("older_than_backend_keeps") == 1


# The limit


def test_advice_says_what_to_change_in_the_backend_and_here() -> None:
    limit = age_limit(DestinationConfig(preset="tempo"))
    assert str(limit) == (
        "tempo may not show what is older than 7d; "
        "raise query_frontend.search.max_duration, and during the import also "
        "storage.trace.wal.ingestion_time_range_slack, or search finds them only by the time of the import; "
        "destination.max_span_age says how far back it shows them (0s: as far as one likes)"
    )


# The daemon


async def test_a_daemon_that_catches_up_says_so_once_and_goes_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "ledger.db", Clock())
    async with bench.simulator:
        runs = bench.add(ended(5, START_NS - 100 * HOUR))
        with capture_logs() as logs:
            async with bench.pipeline(bench.source("casedev", start="7d")) as line_up:
                await Discovery(line_up.lines[0], line_up.ledger, line_up.now).poll()
                async with working(line_up):
                    await until(lambda: bench.exported == Counter(runs))
                assert sum(counted(line_up.ledger).values()) == 5
    [warning] = [line for line in logs if line["action"] == "older_than_backend_keeps"]
    assert warning["log_level"] == "warning"
    assert warning["event"].startswith("runs are sent that ended long ago: jaeger may not show what is older than 3d; ")


def test_another_catch_up_is_another_warning() -> None:
    clock = Clock()
    old_runs = OldRuns(AgeLimit("x", timedelta(days=3), "y"), clock)
    with capture_logs() as logs:
        for pause in (timedelta(0), CATCH_UP_OVER / 2, CATCH_UP_OVER, CATCH_UP_OVER + timedelta(seconds=1)):
            clock.advance(pause.total_seconds())
            old_runs.about_to_send("a", clock.ns - 80 * HOUR)
            old_runs.about_to_send("b", clock.ns - HOUR)
    assert [line["run"] for line in logs] == ["a", "a"]
    with capture_logs() as logs:
        OldRuns(None, clock).about_to_send("a", 1)
    assert logs == []
