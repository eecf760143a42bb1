"""`runspan backfill` as a person runs it: killed and started again, watched, limited, forced, tried dry."""

import contextlib
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from runspan.demo.faults import Delay, Hang, Reply
from runspan.demo.samples.builders import FREJA, Call, casedev_run, elizaos_run, flowyble_run, runtype_execution
from runspan.demo.simulator import Simulator
from runspan.demo.world import SECOND_NS, World, WorldRun
from tests.acceptance.program import (
    DEADLINE_SECONDS,
    Program,
    answered,
    closing_table,
    exactly_once,
    source,
    wait_until,
)
from tests.otlp_store import OtlpStore, StoredSpan, slow

RUNS = 60
CONCURRENCY = 8
SINCE = ("--source", "casedev", "--since", "1d")


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(World(), rate_limited=False).in_thread() as running:
        yield running


@pytest.fixture
def store() -> Iterator[OtlpStore]:
    with OtlpStore() as running:
        yield running


def ended_runs(simulator: Simulator, number: int) -> list[WorldRun]:
    """So many runs of case.dev that ended hours ago."""
    now_ns = time.time_ns()
    return [
        simulator.world.add(casedev_run(key, created_at_ns=now_ns - (7200 + 10 * key) * SECOND_NS))
        for key in range(number)
    ]


def ids(runs: list[WorldRun]) -> set[str]:
    return {run.run_id for run in runs}


def details(simulator: Simulator) -> int:
    return len(simulator.asked("casedev", "/details"))


def test_killed_at_40_percent_and_started_again(simulator: Simulator, store: OtlpStore, tmp_path: Path) -> None:
    runs = ended_runs(simulator, RUNS)
    program = Program.between(simulator, store, tmp_path)
    simulator.fault("casedev", "/details", Delay(0.02))
    with program.start("backfill", *SINCE) as first:
        wait_until(lambda: answered(simulator, "casedev", "/details") >= RUNS * 0.4, "40 % of the details")
        first.kill()
    asked, marked = details(simulator), program.states().get("exported", 0)
    assert asked < RUNS, "killed too late to tell anything"
    again = program.run("backfill", *SINCE)

    assert again.returncode == 0
    assert "Traceback" not in again.stderr
    assert closing_table(again.stdout) == {
        "listed": RUNS, "exported": RUNS, "already known": 0, "still open": 0, "quarantined": 0,
    }  # fmt: skip
    assert set(exactly_once(store)) == ids(runs)
    assert program.states() == {"exported": RUNS}
    # Only what was under way is asked for twice: asked for, and not marked.
    assert details(simulator) == asked + RUNS - marked <= RUNS + CONCURRENCY
    twice = {span.attributes["runspan.run.id"] for span in store.spans if len(copies_of(store, span)) > 1}
    assert len(twice) <= asked - marked


def copies_of(store: OtlpStore, span: StoredSpan) -> list[bytes]:
    return store.traces[span.trace_id][span.span_id]


def test_a_slow_destination_and_a_kill_cost_no_more_than_the_requests_under_way(
    simulator: Simulator, store: OtlpStore, tmp_path: Path
) -> None:
    ended_runs(simulator, RUNS)
    program = Program.between(simulator, store, tmp_path)
    store.answer(slow(DEADLINE_SECONDS))
    with program.start("backfill", *SINCE) as first:
        store.wait(lambda: bool(store.requests))
        simulator.fault("casedev", "/details", Delay(0.05))
        with contextlib.suppress(AssertionError):
            wait_until(lambda: details(simulator) > 3 * CONCURRENCY, "more bodies than are allowed", 5)
        first.kill()
    assert program.run("backfill", *SINCE).returncode == 0
    assert details(simulator) <= RUNS + CONCURRENCY


def test_a_stop_costs_no_more_than_the_requests_under_way(
    simulator: Simulator, store: OtlpStore, tmp_path: Path
) -> None:
    runs = ended_runs(simulator, RUNS)
    program = Program.between(simulator, store, tmp_path)
    simulator.fault("casedev", "/details", Delay(0), times=24)
    stuck = simulator.fault("casedev", "/details", Hang())
    with program.start("backfill", *SINCE) as first:
        wait_until(lambda: len(store.traces) == 24 and details(simulator) == 24 + CONCURRENCY, "24 runs, and 8 asked")
        wait_until(lambda: program.states().get("exported") == 24, "their marks")
        # On no terminal there is no bar, but a line every ten seconds.
        line = first.wait_logged("backfill_progress")
        code = first.signalled(signal.SIGINT)
    assert (line["done"], line["listed"]) == (24, RUNS)
    assert code == 130
    assert first.stderr.splitlines()[-1] == "stopped; start the same command again to go on"
    assert "Traceback" not in first.stderr
    assert first.stdout == ""
    assert program.states() == {"exported": 24, "due": RUNS - 24}

    simulator.faults.remove(stuck)
    again = program.run("backfill", *SINCE)
    assert again.returncode == 0
    assert details(simulator) == RUNS + CONCURRENCY
    assert set(exactly_once(store)) == ids(runs)
    assert {len(copies) for spans in store.traces.values() for copies in spans.values()} == {1}


def test_the_closing_table_and_the_exit_code_tell_what_became_of_all(
    simulator: Simulator, store: OtlpStore, tmp_path: Path
) -> None:
    runs = ended_runs(simulator, 6)
    now_ns = time.time_ns()
    simulator.world.add(casedev_run("goes on", created_at_ns=now_ns - 60 * SECOND_NS, seconds=None))
    timeless = {"createdAt": None, "startedAt": None, "completedAt": None, "usage": None, "steps": []}
    broken = simulator.world.add(casedev_run("no times", created_at_ns=now_ns - 9000 * SECOND_NS, changes=timeless))
    deleted = runs[0].run_id
    simulator.fault("casedev", f"{deleted}/details", Reply(404, "{}"))
    program = Program.between(simulator, store, tmp_path)

    ended = program.run("backfill", *SINCE)
    assert ended.returncode == 1
    table = closing_table(ended.stdout)
    reasons = {text: number for text, number in table.items() if ":" in text}
    assert {text: number for text, number in table.items() if ":" not in text} == {
        "listed": 8, "exported": 5, "already known": 0, "still open": 1, "quarantined": 1, "gone": 1,
    }  # fmt: skip
    assert set(reasons.values()) == {1}
    assert sorted(text.partition(":")[0] for text in reasons) == ["gone", "quarantined"]
    rows = program.rows()
    assert rows[deleted]["state"] == "gone"
    assert rows[deleted]["reason"] == "the platform no longer has this run"
    assert rows[broken.run_id]["state"] == "quarantined"
    assert f"quarantined: {rows[broken.run_id]['reason']}" in reasons
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert {line["run"] for line in lines if line["action"] in ("run_gone", "run_quarantined")} == {
        deleted, broken.run_id,
    }  # fmt: skip

    # The same command again knows them all, and asks for none that is exported, but to tell that the platform is there.
    before = details(simulator)
    again = program.run("backfill", *SINCE)
    assert closing_table(again.stdout)["already known"] == 5
    assert details(simulator) - before <= 1 + 1 + 2 * 2
    assert set(exactly_once(store)) == ids(runs) - {deleted}


def test_a_terminal_gets_a_progress_bar(simulator: Simulator, store: OtlpStore, tmp_path: Path) -> None:
    ended_runs(simulator, 12)
    simulator.fault("casedev", "/details", Delay(0.1))
    program = Program.between(simulator, store, tmp_path)
    ours, theirs = pty.openpty()
    seen = bytearray()

    def read() -> None:
        try:
            while data := os.read(ours, 4096):
                seen.extend(data)
        except OSError:
            return  # the terminal's other side is closed: this is how its end reads on Linux

    process = subprocess.Popen(
        program.arguments("backfill", *SINCE),
        env=program.environ | {"COLUMNS": "100"},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    reader = threading.Thread(target=read)
    reader.start()
    stdout, _ = process.communicate(timeout=DEADLINE_SECONDS)
    reader.join(DEADLINE_SECONDS)
    os.close(ours)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert process.returncode == 0
    assert closing_table(stdout)["exported"] == 12
    assert "exporting" in shown
    assert "━" in shown
    assert "12/12" in shown
    assert '{"' not in shown, "log lines are for people here"


def test_a_dry_run_sends_nothing_and_notes_nothing(simulator: Simulator, store: OtlpStore, tmp_path: Path) -> None:
    runs = ended_runs(simulator, 5)
    program = Program.between(simulator, store, tmp_path)
    tried = program.run("backfill", *SINCE, "--dry-run")
    assert tried.returncode == 0
    assert closing_table(tried.stdout)["would be exported"] == 5
    assert details(simulator) == 5
    assert not program.ledger.parent.exists()
    assert store.requests == []

    # With a ledger: what it has exported is known, and it stays as it is, but for its rate budget.
    assert program.run("backfill", *SINCE, "--limit", "2").returncode == 0
    sent, before = len(store.requests), noted_in(program.ledger)
    tried = program.run("backfill", *SINCE, "--dry-run")
    assert tried.returncode == 0
    table = closing_table(tried.stdout)
    assert (table["listed"], table["would be exported"], table["already known"]) == (5, 3, 2)
    assert noted_in(program.ledger) == before
    assert len(store.requests) == sent
    assert set(exactly_once(store)) == {run.run_id for run in runs[:2]}


def noted_in(ledger: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(ledger)) as connection:
        return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("runs", "sweeps", "jobs")}


def test_limit_and_force(simulator: Simulator, store: OtlpStore, tmp_path: Path) -> None:
    runs = ended_runs(simulator, 7)
    program = Program.between(simulator, store, tmp_path)
    limited = program.run("backfill", *SINCE, "--limit", "3")
    assert limited.returncode == 0
    assert (closing_table(limited.stdout)["listed"], closing_table(limited.stdout)["exported"]) == (3, 3)
    # The list is newest first.
    assert set(exactly_once(store)) == {run.run_id for run in runs[:3]}

    rest = closing_table(program.run("backfill", *SINCE).stdout)
    assert (rest["listed"], rest["exported"], rest["already known"]) == (7, 4, 3)
    assert details(simulator) == 7

    forced = closing_table(program.run("backfill", *SINCE, "--force").stdout)
    assert (forced["exported"], details(simulator)) == (7, 14)
    assert set(exactly_once(store)) == ids(runs)
    assert {len(copies) for spans in store.traces.values() for copies in spans.values()} == {2}


def test_ids_come_bare_and_as_json_from_standard_input(simulator: Simulator, store: OtlpStore, tmp_path: Path) -> None:
    now_ns = time.time_ns()
    world = simulator.world
    flow = [world.add(flowyble_run(key, created_at_ns=now_ns - 7200 * SECOND_NS)) for key in range(3)]
    talk = [world.add(elizaos_run(key, created_at_ns=now_ns - 7200 * SECOND_NS, room="one")) for key in range(2)]
    execution = world.add(runtype_execution(1, created_at_ns=now_ns - 7200 * SECOND_NS))
    program = Program.between(
        simulator, store, tmp_path,
        source(simulator, "flowyble"), source(simulator, "elizaos"), source(simulator, "runtype"),
    )  # fmt: skip

    bare = "\n".join([flow[0].run_id, "", f"  {flow[1].run_id}  ", json.dumps({"id": flow[2].run_id}), flow[0].run_id])
    ended = program.run("backfill", "--source", "flowyble", "--ids-file", "-", stdin=bare)
    assert ended.returncode == 0, ended.stderr
    assert closing_table(ended.stdout)["exported"] == 3

    objects = [
        {"id": talk[0].run_id, "agent": FREJA.agent_id, "room": talk[0].body["roomId"]},
        {"id": talk[1].run_id},
    ]
    ended = program.run("backfill", "--source", "elizaos", "--ids-file", "-", stdin="\n".join(map(json.dumps, objects)))
    assert (ended.returncode, closing_table(ended.stdout)["exported"]) == (0, 2), ended.stderr

    file = tmp_path / "ids.txt"
    file.write_text(execution.run_id + "\nexec_no_such_run\n")
    ended = program.run("backfill", "--source", "runtype", "--ids-file", str(file))
    assert ended.returncode == 1, ended.stdout + ended.stderr
    table = closing_table(ended.stdout)
    assert (table["listed"], table["exported"], table["gone"]) == (2, 1, 1)
    assert set(exactly_once(store)) == ids([*flow, *talk, execution])


def test_a_wrong_id_ends_with_2_and_its_line(simulator: Simulator, store: OtlpStore, tmp_path: Path) -> None:
    program = Program.between(simulator, store, tmp_path)
    text = '{"id": "run_1"}\n{"id": ' + "[" * 100_000
    ended = program.run("backfill", "--source", "casedev", "--ids-file", "-", stdin=text)
    complaint = "--ids-file - line 2: not JSON; write a bare id, or an object with id, agent and room\n"
    assert (ended.returncode, ended.stderr, ended.stdout) == (2, complaint, "")
    assert not program.ledger.exists()
    assert simulator.requests == []


def test_show_runs_retry_and_id_agree(simulator: Simulator, store: OtlpStore, tmp_path: Path) -> None:
    runs = ended_runs(simulator, 2)
    execution = simulator.world.add(
        runtype_execution(
            "r", created_at_ns=time.time_ns() - 7200 * SECOND_NS, calls=[Call("search", error="HTTP 502")]
        )
    )
    program = Program.between(simulator, store, tmp_path, source(simulator, "casedev"), source(simulator, "runtype"))
    spoilt = simulator.fault("casedev", f"{runs[1].run_id}/details", Reply(200, "[]"))
    assert program.run("backfill", *SINCE).returncode == 1
    assert program.run("backfill", "--source", "runtype", "--since", "1d").returncode == 0
    simulator.faults.remove(spoilt)

    rows = program.rows()
    for run in (runs[0], execution):
        told = program.run("id", "--platform", run.platform, run.run_id)
        computed = dict(line.split(" ") for line in told.stdout.splitlines())
        assert rows[run.run_id]["trace_id"] == computed["trace_id"]
        assert computed["trace_id"] in store.traces
        if run is execution:
            shown = program.run("show", "--source", "runtype", run.run_id, "--format", "otlp-json")
            spans = spans_of(shown.stdout)
            assert {span["traceId"] for span in spans} == {computed["trace_id"]}
            assert [span["spanId"] for span in spans if "parentSpanId" not in span] == [computed["root_span_id"]]
            assert {span["spanId"] for span in spans} == set(store.traces[computed["trace_id"]])
        else:
            shown = program.run("show", "--source", "casedev", run.run_id)
            assert f"run {run.run_id}" in shown.stdout
            assert f"trace {computed['trace_id']}" in shown.stdout

    # A person sees in the table which run is not there.
    assert rows[runs[1].run_id]["state"] == "quarantined"
    assert "trace_id" not in rows[runs[1].run_id]
    listed = program.run("runs", "--state", "quarantined")
    assert runs[1].run_id in listed.stdout
    assert runs[0].run_id not in listed.stdout
    assert "in all: " in listed.stdout

    assert program.run("retry", runs[1].run_id).stdout == "1 run is due again\n"
    assert closing_table(program.run("backfill", *SINCE).stdout)["exported"] == 1
    listed = program.run("runs", "--json")
    assert {row["run_id"]: row for row in map(json.loads, listed.stdout.splitlines())} == program.rows()
    assert set(exactly_once(store)) == ids([*runs, execution])


def spans_of(text: str) -> list[dict[str, object]]:
    document = json.loads(text)
    return [span for part in document["resourceSpans"] for scope in part["scopeSpans"] for span in scope["spans"]]


def test_a_destination_that_was_down_gets_everything(simulator: Simulator, store: OtlpStore, tmp_path: Path) -> None:
    runs = ended_runs(simulator, 4)
    program = Program.between(simulator, store, tmp_path)
    store.down()
    with program.start("backfill", *SINCE) as backfill:
        backfill.wait_logged("destination_down")
        assert program.states() == {"due": 4}
        store.up()
        assert backfill.ended() == 0
    assert "Traceback" not in backfill.stderr
    assert closing_table(backfill.stdout)["exported"] == 4
    assert set(exactly_once(store)) == ids(runs)


def test_a_source_that_refuses_the_key_ends_with_3(simulator: Simulator, store: OtlpStore, tmp_path: Path) -> None:
    ended_runs(simulator, 1)
    program = Program.between(simulator, store, tmp_path)
    simulator.platforms["casedev"].key = "another"
    ended = program.run("backfill", *SINCE)
    assert ended.returncode == 3
    assert "check this source's api_key" in ended.stderr.splitlines()[-1]
    assert len(simulator.requests) == 1


def test_what_the_backend_would_not_show_is_not_sent_unless_it_is_forced(
    simulator: Simulator, store: OtlpStore, tmp_path: Path
) -> None:
    """Jaeger's 72 hours: the stop comes with exit 2 and the remedy, before anything is asked for."""
    created_ns = time.time_ns() - 5 * 86_400 * SECOND_NS
    run = simulator.world.add(casedev_run("old", created_at_ns=created_ns))
    program = Program.between(simulator, store, tmp_path)
    old = ("backfill", "--source", "casedev", "--since", "6d")
    stopped = program.run(*old)
    assert stopped.returncode == 2
    assert "jaeger may not show what is older than 3d; with Elasticsearch or OpenSearch raise" in stopped.stderr
    assert "--force" in stopped.stderr
    assert simulator.requests == []

    assert program.run(*old, "--dry-run").returncode == 0
    assert store.requests == []
    forced = program.run(*old, "--force")
    assert forced.returncode == 0
    assert forced.stderr.count("older_than_backend_keeps") == 1
    assert set(exactly_once(store)) == {run.run_id}


def test_runs_that_always_fail_do_not_keep_it_from_its_end(
    simulator: Simulator, store: OtlpStore, tmp_path: Path
) -> None:
    bad, *good = ended_runs(simulator, 12)
    wall = simulator.fault("casedev", f"{bad.run_id}/details", Reply(500))
    program = Program.between(simulator, store, tmp_path)
    ended = program.run("backfill", *SINCE)
    assert ended.returncode == 1
    assert "1  failing: start the same command again" in ended.stdout
    assert "answered 500" in ended.stdout
    assert set(exactly_once(store)) == ids(good)
    simulator.faults.remove(wall)
    assert program.run("backfill", *SINCE).returncode == 0
    assert set(exactly_once(store)) == {bad.run_id, *ids(good)}


def test_a_pause_that_another_process_was_asked_for_is_said_and_not_waited_for(
    simulator: Simulator, store: OtlpStore, tmp_path: Path
) -> None:
    ended_runs(simulator, 3)
    busy = simulator.fault("casedev", "/details", Reply(429, headers={"retry-after": "1800"}))
    program = Program.between(simulator, store, tmp_path)
    assert program.run("backfill", *SINCE).returncode == 3
    simulator.faults.remove(busy)
    asked = len(simulator.requests)
    second = program.run("backfill", *SINCE)
    assert second.returncode == 3
    assert "left alone for another 29m" in second.stderr
    assert len(simulator.requests) == asked


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_whoever_stops_it_what_is_under_way_is_marked_first(
    simulator: Simulator, store: OtlpStore, tmp_path: Path, number: signal.Signals
) -> None:
    runs = ended_runs(simulator, RUNS)
    program = Program.between(simulator, store, tmp_path)
    simulator.fault("casedev", "/details", Delay(0.05))
    with program.start("backfill", *SINCE) as first:
        wait_until(lambda: answered(simulator, "casedev", "/details") >= RUNS * 0.3, "30 % of the details")
        assert first.signalled(number) == 130
        assert "start the same command again" in first.stderr
    assert program.run("backfill", *SINCE).returncode == 0
    assert set(exactly_once(store)) == ids(runs)
    assert {len(copies) for spans in store.traces.values() for copies in spans.values()} == {1}
