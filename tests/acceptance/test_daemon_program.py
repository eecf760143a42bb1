"""`runspan run` as it is run for months: a whole day of four platforms, kills, a destination that is away."""

import fcntl
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runspan.demo import samples
from runspan.demo.platforms.flowyble import Flowyble, ListShape
from runspan.demo.samples.builders import casedev_run, elizaos_run, flowyble_run, runtype_execution
from runspan.demo.simulator import Simulator
from runspan.demo.world import SECOND_NS, World, WorldRun
from tests.acceptance.program import (
    Program,
    Row,
    Settings,
    Started,
    answered,
    closing_table,
    exactly_once,
    source,
    wait_until,
)
from tests.otlp_store import OtlpStore, Reply, Request

PLATFORMS = ("flowyble", "runtype", "elizaos", "casedev")
WRONG_KEY = "sk_case_wrong_canary_77aa"
BUILDERS = {
    "flowyble": flowyble_run, "runtype": runtype_execution, "elizaos": elizaos_run, "casedev": casedev_run,
}  # fmt: skip
SKIPPED_STATUSES = {"self", "muted", "off", "replaced", "noMessageId"}
CONTENT_KEYS = {
    "userMessage", "finalOutput", "inputData", "outputData", "reasoning",
    "inputMessages", "iterationDetails", "inputParameters", "outputResult",
    "prompt", "params", "response", "prompts",
    "guidance", "content", "toolInput", "toolOutput", "output", "summary", "logs",
}  # fmt: skip
"""Where the platforms' bodies hold what was said; what they declare as errors is not among it."""


def simulated(world: World) -> Simulator:
    simulator = Simulator(world, rate_limited=False)
    flowyble = simulator.platforms["flowyble"]
    assert isinstance(flowyble, Flowyble)
    flowyble.list_shape = ListShape("items")
    return simulator


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with simulated(World()).in_thread() as running:
        yield running


@pytest.fixture
def store() -> Iterator[OtlpStore]:
    with OtlpStore() as running:
        yield running


def ended_runs(simulator: Simulator, each: int) -> list[WorldRun]:
    """So many runs of every platform, which ended hours ago."""
    now_ns = time.time_ns()
    return [
        simulator.world.add(build(key, created_at_ns=now_ns - (7200 + 10 * key) * SECOND_NS))
        for key in range(each)
        for build in BUILDERS.values()
    ]


def all_sources(simulator: Simulator, **settings: Any) -> list[Settings]:
    return [source(simulator, platform, **settings) for platform in PLATFORMS]


def ids(runs: list[WorldRun]) -> set[str]:
    return {run.run_id for run in runs}


def runs_in(store: OtlpStore) -> set[str]:
    return {span.attributes["runspan.run.id"] for span in list(store.spans)}


def page(daemon: Started, path: str) -> tuple[int, str]:
    """What the daemon's window answers."""
    url = daemon.wait_logged("web_started")["url"]
    try:
        with urllib.request.urlopen(url + path, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        raise AssertionError(f"{url}{path}: {error}; exit code {daemon.process.poll()}\n{daemon.stderr}") from None


# --- a whole day ---


@dataclass
class Day:
    """What one daemon left behind that ran until all sample runs had ended."""

    world: World
    store: OtlpStore
    rows: dict[str, Row]
    log: str
    stdout: str
    ledger: bytes
    shown: str
    readiness: tuple[int, str]
    exit_code: int
    stop_seconds: float
    keys: list[str]
    refused_requests: int
    pid: int
    second: subprocess.CompletedProcess[str]
    """Another daemon on the same ledger, started meanwhile."""
    joined: subprocess.CompletedProcess[str]
    """A backfill of a source that the daemon has."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines()]

    @property
    def runs(self) -> list[WorldRun]:
        return [run for platform in PLATFORMS for run in self.world.runs(platform)]


def is_exported(run: WorldRun) -> bool:
    """Whether a sample run is one that ends and is wanted."""
    if run.platform == "elizaos":
        ends = [row["data"]["status"] for row in run.body["events"] if row["type"] == "RUN_ENDED"]
        return bool(ends) and not SKIPPED_STATUSES & set(ends)
    return run.ended_at_ns is not None and not run.run_id.startswith("otel-")


def one_day(folder: Path) -> Day:
    """A daemon over all sample runs, until each that ends has been sent and a wrong key was refused twice."""
    world = World()
    samples.populate(world)
    with simulated(world).in_thread() as simulator, OtlpStore() as store:
        # The same account with a wrong key, as another tenant: nothing of it may disturb the rest.
        wrong = source(simulator, "casedev", name="wrong-key", tenant="elsewhere", api_key="env:WRONG_KEY")
        program = Program(
            folder,
            destination=store.http_endpoint,
            sources=[wrong, *all_sources(simulator)],
            keys={**simulator.keys, "wrong": WRONG_KEY},
        )
        wanted = {run.run_id for platform in PLATFORMS for run in world.runs(platform) if is_exported(run)}
        with program.start("run") as daemon:
            store.wait(lambda: runs_in(store) >= wanted, 60)
            shown = "".join(page(daemon, path)[1] for path in ("/", "/metrics", "/readyz", "/healthz"))
            readiness = page(daemon, "/readyz")
            second = program.run("run")
            joined = program.run("backfill", "--source", "casedev", "--since", "1d")
            wait_until(lambda: len(daemon.logged("source_refused")) == 2, "the wrong key's second try")
            begun = time.monotonic()
            exit_code = daemon.signalled(signal.SIGTERM)
            stop_seconds = time.monotonic() - begun
        rows = program.rows()
        ledger = b"".join(file.read_bytes() for file in program.ledger.parent.iterdir() if file.is_file())
        keys = [*filter(None, simulator.keys.values()), WRONG_KEY]
        refused = sum(request.status == 401 for request in simulator.requests)
    return Day(
        world,
        store,
        rows,
        daemon.stderr,
        daemon.stdout,
        ledger,
        shown,
        readiness,
        exit_code,
        stop_seconds,
        keys,
        refused,
        daemon.process.pid,
        second,
        joined,
    )


def all_runs_of_all_platforms_end_in_the_store_or_in_the_ledger_with_a_reason(day: Day) -> None:
    states = {run.run_id: day.rows[run.run_id]["state"] for run in day.runs}
    assert {run_id for run_id, state in states.items() if state == "exported"} == {
        run.run_id for run in day.runs if is_exported(run)
    }
    assert set(exactly_once(day.store)) == {run_id for run_id, state in states.items() if state == "exported"}
    rest = {run.run_id: day.rows[run.run_id] for run in day.runs if not is_exported(run)}
    told = sorted((row["platform"], row["state"], row["reason"]) for row in rest.values())
    assert told == [
        ("elizaos", "open", None),
        ("elizaos", "skipped", "muted"),
        ("elizaos", "skipped", "replaced"),
        ("elizaos", "skipped", "self"),
        ("runtype", "open", None),
        ("runtype", "skipped", "external"),
    ]
    for row in day.rows.values():
        if row["state"] == "exported":
            assert set(day.store.traces[row["trace_id"]]), row["run_id"]


def each_run_is_sent_once_and_only_after_its_late_rows(day: Day) -> None:
    assert {len(copies) for spans in day.store.traces.values() for copies in spans.values()} == {1}
    tools = {
        run.run_id: len({row["id"] for row in run.tool_calls}) for run in day.world.runs("runtype") if is_exported(run)
    }
    sent: dict[str, int] = dict.fromkeys(tools, 0)
    for span in day.store.spans:
        if span.name.startswith("execute_tool") and span.attributes["runspan.run.id"] in sent:
            sent[span.attributes["runspan.run.id"]] += 1
    assert sent == tools


def a_second_daemon_says_who_holds_the_ledger(day: Day) -> None:
    assert day.second.returncode == 4
    last = day.second.stderr.splitlines()[-1]
    assert last.startswith(f"daemon pid {day.pid} on host ")
    assert re.search(r" holds the ledger /\S+/ledger\.db since 20[-0-9T:]+Z; stop it or use another ledger$", last)
    assert "Traceback" not in day.second.stderr


def a_backfill_joins(day: Day) -> None:
    assert day.joined.returncode == 0
    runs = day.world.runs("casedev")
    table = closing_table(day.joined.stdout)
    assert (table["listed"], table["already known"], table["exported"]) == (len(runs), len(runs), 0)


def sigterm_ends_it_in_order(day: Day) -> None:
    assert day.exit_code == 0
    assert day.stop_seconds < 10
    assert [line["action"] for line in day.lines[-2:]] == ["stopping", "stopped"]
    assert not [line for line in day.lines if line["action"] == "drain_timeout"]


def a_wrong_key_is_one_clear_error_and_a_growing_pause(day: Day) -> None:
    first, second = [
        line for line in day.lines if line.get("source") == "wrong-key" and line["action"] == "source_refused"
    ]
    assert (first["level"], first["source"]) == ("error", "wrong-key")
    assert re.fullmatch(
        r"source wrong-key: GET http://127\.0\.0\.1:\d+/agent/v1/run answered 401: "
        r"check this source's api_key and its rights",
        first["event"],
    )
    assert 27 <= first["paused_seconds"] <= 33
    assert 1.5 * first["paused_seconds"] <= second["paused_seconds"]
    # Two tries, each one request: a key that is refused is not hammered with.
    assert day.refused_requests == 2
    status, text = day.readiness
    assert status == 503
    assert json.loads(text)["troubles"] == [f"source wrong-key: {first['event']}"]


def the_log_is_json_with_actions_and_nothing_else(day: Day) -> None:
    assert day.stdout == ""
    for line in day.lines:
        assert {"action", "event", "level", "timestamp"} <= set(line), line
        assert line["action"] not in ("library", "job_failed"), line
    assert "Traceback" not in day.log
    levels = {line["action"]: line["level"] for line in day.lines if line["level"] not in ("info", "debug")}
    assert levels == {"ledger_created": "warning", "scope_gone": "warning", "source_refused": "error"}


def no_key_leaves_the_program_but_to_its_platform(day: Day) -> None:
    sent = b"".join(span.raw for span in day.store.spans)
    for key in day.keys:
        assert key not in day.log
        assert key not in day.shown
        assert key.encode() not in day.ledger
        assert key.encode() not in sent


def texts(value: Any, is_content: bool = False) -> Iterator[str]:
    """The texts of a body that are content and long enough to be no coincidence."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from texts(each, is_content or key in CONTENT_KEYS)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each, is_content)
    elif isinstance(value, str) and is_content and len(value) >= 12:
        yield value


def no_content_is_logged_kept_shown_or_sent_while_it_is_not_captured(day: Day) -> None:
    content = {text for run in day.runs for part in (run.body, run.tool_calls) for text in texts(part)}
    declared = {
        issue for run in day.runs for issue in (run.body.get("result") or {}).get("finalResponse", {}).get("issues", ())
    }
    assert len(content) > 100
    sent = b"".join(span.raw for span in day.store.spans)
    for text in content - declared:
        assert text not in day.log
        assert text not in day.shown
        assert text.encode() not in day.ledger
        assert text.encode() not in sent


def test_a_whole_day_of_four_platforms(tmp_path: Path, subtests: pytest.Subtests) -> None:
    day = one_day(tmp_path)
    for check in (
        all_runs_of_all_platforms_end_in_the_store_or_in_the_ledger_with_a_reason,
        each_run_is_sent_once_and_only_after_its_late_rows,
        a_second_daemon_says_who_holds_the_ledger,
        a_backfill_joins,
        sigterm_ends_it_in_order,
        a_wrong_key_is_one_clear_error_and_a_growing_pause,
        the_log_is_json_with_actions_and_nothing_else,
        no_key_leaves_the_program_but_to_its_platform,
        no_content_is_logged_kept_shown_or_sent_while_it_is_not_captured,
    ):
        with subtests.test(check.__name__):
            check(day)


# --- what may happen to it ---


def test_killed_at_every_step_it_loses_and_doubles_nothing(
    simulator: Simulator, store: OtlpStore, tmp_path: Path
) -> None:
    runs = ended_runs(simulator, 15)
    program = Program.between(simulator, store, tmp_path, *all_sources(simulator))
    victims: list[Started] = []

    def kill_before_the_answer(request: Request) -> Reply | None:
        """It is kept, and the acknowledgement finds nobody."""
        if victims:
            victims.pop().kill()
        return None

    with program.start("run") as daemon:
        wait_until(lambda: answered(simulator, "runtype", "/executions"), "a list")
        daemon.kill()
    with program.start("run") as daemon:
        wait_until(lambda: answered(simulator, "casedev", "/details") >= 6, "some details")
        daemon.kill()
    with program.start("run") as daemon:
        seen = len(store.requests)
        victims.append(daemon)
        store.rule = kill_before_the_answer
        assert daemon.ended() == -signal.SIGKILL
        assert len(store.requests) > seen
    with program.start("run") as daemon:
        daemon.wait_logged("exported")
        daemon.kill()
    with program.start("run") as daemon:
        store.wait(lambda: runs_in(store) == ids(runs), 30)
        wait_until(lambda: rows_due(daemon) == 0, "their marks")
        assert daemon.signalled(signal.SIGTERM) == 0
        assert "Traceback" not in daemon.stderr
    assert set(exactly_once(store)) == ids(runs)
    assert program.states() == {"exported": len(runs)}
    # A copy follows a delivery that was not confirmed, and nothing else: four kills, at most as many copies more.
    assert max(len(copies) for spans in store.traces.values() for copies in spans.values()) <= 5


def test_a_destination_that_is_down_marks_nothing_and_gets_everything_later(
    simulator: Simulator, store: OtlpStore, tmp_path: Path
) -> None:
    runs = ended_runs(simulator, 10)
    program = Program.between(simulator, store, tmp_path, *all_sources(simulator))
    store.down()
    with program.start("run") as daemon:
        line = daemon.wait_logged("destination_down")
        wait_until(lambda: rows_due(daemon) == len(runs), "every run to be noted")
        wait_until(lambda: page(daemon, "/readyz")[0] == 503, "the readiness to tell")
        assert program.states() == {"due": len(runs)}
        assert store.http_endpoint in line["reason"]
        asked = sum(len(simulator.asked(name, "detail")) for name in ("casedev", "flowyble"))
        assert asked <= 2 * 8 + 4, "bodies are fetched though nobody takes them"

        store.up()
        store.wait(lambda: runs_in(store) == ids(runs), 30)
        daemon.wait_logged("destination_up")
        assert daemon.signalled(signal.SIGTERM) == 0
    assert program.states() == {"exported": len(runs)}
    assert set(exactly_once(store)) == ids(runs)
    assert {len(copies) for spans in store.traces.values() for copies in spans.values()} == {1}
    assert "Traceback" not in daemon.stderr
    assert len(daemon.logged("destination_down")) == 1


def test_a_refused_key_is_said_once(simulator: Simulator, store: OtlpStore, tmp_path: Path) -> None:
    program = Program.between(simulator, store, tmp_path)
    simulator.platforms["casedev"].key = "another"
    with program.start("run") as daemon:
        daemon.wait_logged("source_refused")
        assert daemon.signalled(signal.SIGTERM) == 0
    assert len([line for line in daemon.logs if "answered 401" in line["event"]]) == 1


def rows_due(daemon: Started) -> float:
    figures = re.findall(r'^runspan_rows\{[^}]*state="due"[^}]*\} (\S+)$', page(daemon, "/metrics")[1], re.MULTILINE)
    return sum(map(float, figures))


def test_it_stops_in_time_however_small_the_quota(simulator: Simulator, store: OtlpStore, tmp_path: Path) -> None:
    runs = ended_runs(simulator, 10)
    # Eight are claimed at once, and their turns would take sixteen seconds.
    program = Program.between(simulator, store, tmp_path, source(simulator, "flowyble", rate="30/min"))
    with program.start("run") as daemon:
        store.wait(lambda: bool(store.requests), 40)
        begun = time.monotonic()
        assert daemon.signalled(signal.SIGTERM) == 0
        assert time.monotonic() - begun < 5
    assert not daemon.logged("drain_timeout")
    # Whatever the store has is marked, and nothing else; what waited for its turn can be claimed at once.
    rows = program.rows()
    exported = {run_id for run_id, row in rows.items() if row["state"] == "exported"}
    assert exported == set(exactly_once(store)) < ids(runs)
    assert {row["leased_until_ns"] for row in rows.values()} == {None}


def test_a_thread_that_hangs_does_not_keep_it_from_ending(
    simulator: Simulator, store: OtlpStore, tmp_path: Path
) -> None:
    """Another program holds the ledger, and no thread that waits for it can be cancelled."""
    program = Program.between(simulator, store, tmp_path)
    with program.start("run") as daemon:
        daemon.wait_logged("web_started")
        with closing(sqlite3.connect(program.ledger, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            begun = time.monotonic()
            assert daemon.signalled(signal.SIGTERM) == 130
            assert time.monotonic() - begun < 13
        assert "stop_forced" in daemon.stderr


class Impatient(Program):
    """One that waits for a locked ledger not for half a minute, but for `BUSY_SECONDS`."""

    BUSY_SECONDS = 6

    def arguments(self, command: str, *arguments: str) -> list[str]:
        """The command line."""
        script = (
            f"from runspan.ledger import store; store.BUSY_TIMEOUT_SECONDS = {self.BUSY_SECONDS}\n"
            "from runspan.cli import main; main()"
        )
        return [sys.executable, "-c", script, *super().arguments(command, *arguments)[1:]]


@pytest.mark.parametrize("number", [None, signal.SIGTERM])
def test_a_ledger_that_stays_locked_is_told_of_at_once_and_not_waited_for_again(
    number: signal.Signals | None, simulator: Simulator, store: OtlpStore, tmp_path: Path
) -> None:
    """Nor does a signal that comes while it ends hide why."""
    hours_ago_ns = time.time_ns() - 7200 * SECOND_NS
    runs = [simulator.world.add(casedev_run(key, created_at_ns=hours_ago_ns)) for key in range(100)]
    program = Impatient.between(simulator, store, tmp_path, source(simulator, "casedev", start="1d"))
    with program.start("run") as daemon:
        daemon.wait_logged("exported")
        with closing(sqlite3.connect(program.ledger, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            said = daemon.wait_logged("ledger_unusable")
            begun = time.monotonic()
            if number:
                daemon.process.send_signal(number)
            assert daemon.ended() == 4
            assert time.monotonic() - begun < program.BUSY_SECONDS
        lines = daemon.stderr.splitlines()
        assert lines[-1] == said["event"]
        assert [json.loads(line)["action"] for line in lines[:-1] if '"error"' in line] == ["ledger_unusable"]
    with program.start("run") as daemon:
        wait_until(lambda: program.states() == {"exported": len(runs)}, "all runs to be exported")
        assert daemon.signalled(signal.SIGTERM) == 0
    assert set(exactly_once(store)) == {run.run_id for run in runs}


def test_a_reader_of_its_log_that_stands_still_holds_up_nothing(
    simulator: Simulator, store: OtlpStore, tmp_path: Path
) -> None:
    """A log driver that blocks, a pager: the pipe is full, and whoever writes to it waits."""
    runs = ended_runs(simulator, 20)
    program = Program.between(simulator, store, tmp_path, *all_sources(simulator), log={"level": "debug"})
    command = program.arguments("run")
    with subprocess.Popen(command, env=program.environ, cwd=tmp_path, stderr=subprocess.PIPE) as daemon:
        assert daemon.stderr is not None
        fcntl.fcntl(daemon.stderr, fcntl.F_SETPIPE_SZ, 4096)
        try:
            store.wait(lambda: runs_in(store) >= ids(runs), 30)
            begun = time.monotonic()
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(13) == 0
            assert time.monotonic() - begun < 10
        finally:
            daemon.kill()
    assert program.states() == {"exported": len(runs)}


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed_ends_it_in_order_but_not_under_nohup(
    simulator: Simulator, store: OtlpStore, tmp_path: Path, ignored: bool
) -> None:
    runs = ended_runs(simulator, 5)
    program = Program.between(simulator, store, tmp_path, *all_sources(simulator))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        daemon = program.start("run")
    finally:
        signal.signal(signal.SIGHUP, before)
    with daemon:
        daemon.wait_logged("web_started")
        if ignored:
            daemon.process.send_signal(signal.SIGHUP)
            store.wait(lambda: runs_in(store) >= ids(runs), 30)
            assert daemon.signalled(signal.SIGTERM) == 0
        else:
            assert daemon.signalled(signal.SIGHUP) == 0
        assert daemon.logged("stopped")


def test_who_comes_by_a_link_meets_the_same_lock(simulator: Simulator, store: OtlpStore, tmp_path: Path) -> None:
    program = Program.between(simulator, store, tmp_path)
    link = tmp_path / "link.db"
    link.symlink_to(program.ledger)
    with program.start("run") as daemon:
        daemon.wait_logged("web_started")
        text = program.config.read_text().replace(str(program.ledger), str(link))
        assert str(link) in text
        program.config.write_text(text)
        second = program.run("run")
        assert second.returncode == 4
        assert "holds the ledger" in second.stderr
