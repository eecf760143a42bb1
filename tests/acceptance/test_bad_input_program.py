"""Answers as no platform should give them, and as some day one will: every run comes through or says why not."""

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runspan.demo.faults import CutOff, Effect, Reply, html
from runspan.demo.platforms import casedev, elizaos, flowyble, runtype
from runspan.demo.platforms.flowyble import Flowyble, ListShape
from runspan.demo.samples.builders import (
    casedev_run,
    elizaos_run,
    flowyble_run,
    runtype_execution,
)
from runspan.demo.simulator import Simulator
from runspan.demo.world import MS_NS, SECOND_NS, World, WorldRun
from tests.acceptance.program import Program, Row, closing_table, exactly_once, source, unsound, wait_until
from tests.otlp_store import OtlpStore

PLATFORMS = ("flowyble", "runtype", "elizaos", "casedev")
BUILDERS = {
    "flowyble": flowyble_run, "runtype": runtype_execution, "elizaos": elizaos_run, "casedev": casedev_run,
}  # fmt: skip
HOURS_AGO_NS = 7200 * SECOND_NS
NEIGHBOURS = 3
MAX_BODY = "1MB"

Json = Any
Change = Callable[[Json], Json]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    world = World()
    simulator = Simulator(world, rate_limited=False)
    flowyble_platform = simulator.platforms["flowyble"]
    assert isinstance(flowyble_platform, Flowyble)
    flowyble_platform.list_shape = ListShape("items")
    for platform, build in BUILDERS.items():
        for key in range(NEIGHBOURS):
            world.add(build(f"neighbour {key}", created_at_ns=time.time_ns() - HOURS_AGO_NS))
        assert len(world.runs(platform)) == NEIGHBOURS
    with simulator.in_thread():
        yield simulator


@pytest.fixture
def store() -> Iterator[OtlpStore]:
    with OtlpStore() as running:
        yield running


def sound_body(run: WorldRun) -> Json:
    """What the platform's detail answers for an ended run."""
    now_ns = time.time_ns()
    match run.platform:
        case "flowyble":
            return flowyble.detail(run, now_ns)
        case "runtype":
            return runtype.detail(run, now_ns)
        case "casedev":
            return casedev.detail(run, now_ns)
        case _:
            events = elizaos.written(run, now_ns // MS_NS)
            return {"success": True, "data": {"summary": elizaos.summarised(run, events), "events": events}}


def detail_path(run_id: str) -> str:
    """What a request for a run's detail has in its path, and no request for its tool calls."""
    return rf"{run_id}(/details)?\?"


# --- bodies ---

TIMES = {
    "createdAt", "startedAt", "completedAt", "finishedAt", "timestamp", "endedAt", "durationMs", "duration",
    "executionTime", "executionTimeMs",
}  # fmt: skip
FREE_TEXTS = {
    "userMessage", "finalOutput", "errorMessage", "inputData", "outputData", "reasoning", "toolName", "output",
    "prompt", "response", "content", "model", "actionName", "provider", "guidance", "stopReason", "evaluatorName",
}  # fmt: skip
STEP_NUMBERS = {"stepNumber": 1, "iterationNumber": 1, "iteration": 1, "id": "same", "actionId": "same"}


def everywhere(value: Json, change: Callable[[str, Json], Json], key: str = "") -> Json:
    """The value with each leaf replaced by what `change` makes of its key and itself."""
    if isinstance(value, dict):
        return {name: everywhere(each, change, name) for name, each in value.items()}
    if isinstance(value, list):
        return [everywhere(each, change, key) for each in value]
    return change(key, value)


def is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers(replacement: Callable[[Json], Json], *, times: bool = False) -> Change:
    return lambda body: everywhere(
        body, lambda key, value: replacement(value) if is_number(value) and (times or key not in TIMES) else value
    )


def free_texts(replacement: Callable[[str], Json]) -> Change:
    return lambda body: everywhere(
        body, lambda key, value: replacement(value) if key in FREE_TEXTS and isinstance(value, str) else value
    )


def end_before_start(body: Json) -> Json:
    swapped = {"startedAt": "completedAt", "completedAt": "startedAt"}
    if "finishedAt" in body:
        swapped = {"startedAt": "finishedAt", "finishedAt": "startedAt"}
    if "data" in body:
        events = body["data"]["events"]
        times = [event["timestamp"] for event in events]
        turned = [event | {"timestamp": at} for event, at in zip(events, reversed(times), strict=True)]
        return body | {"data": body["data"] | {"events": turned}}
    return body | {key: body[other] for key, other in swapped.items()}


def same_step_numbers(body: Json) -> Json:
    run_id = body.get("id")
    changed = everywhere(body, lambda key, value: STEP_NUMBERS.get(key, value) if value is not None else value)
    return changed | ({"id": run_id} if run_id else {})


BODIES: dict[str, Change] = {
    "end before start": end_before_start,
    "null times": lambda body: everywhere(body, lambda key, value: None if key in TIMES else value),
    "duplicate step numbers": same_step_numbers,
    "numbers as words": numbers(lambda value: "many"),
    "numbers as texts": numbers(str),
    "NaN": numbers(lambda value: math.nan),
    "2^63": numbers(lambda value: 2**63, times=True),
    "minus one": numbers(lambda value: -1),
    "NUL": free_texts(lambda text: f"{text[:4]}\0{text[4:]}"),
    "lone surrogate": free_texts(lambda text: f"\ud800{text}\udc00"),
    "objects for texts": free_texts(lambda text: {"text": text}),
    "lists of null": lambda body: everywhere(body, lambda key, value: value) | {"steps": [None], "usage": [None]},
}
"""What is spoilt in a sound body, of every platform."""
WITHOUT_TIMES = {"null times", "2^63"}
"""After which some platform's body tells no time at all, or nothing of how the run stands."""


# --- answers ---


@dataclass(frozen=True)
class Answer:
    """Instead of a run's detail, and what the ledger is to say of the run then."""

    effect: Effect
    state: str
    reason: str


ANSWERS = {
    "html": Answer(html(200), "quarantined", "not JSON"),
    "empty": Answer(Reply(200), "quarantined", "not JSON"),
    "deep": Answer(Reply(200, "[" * 100_000 + "]" * 100_000), "quarantined", "no run"),
    "deep objects": Answer(Reply(200, '{"a":' * 100_000 + "1" + "}" * 100_000), "quarantined", "no run"),
    "cut off, honest length": Answer(CutOff(honest_length=True), "quarantined", "not JSON"),
    # Half an answer looks like a broken line, which comes back: the run waits.
    "cut off": Answer(CutOff(), "due", "broke off"),
    "null": Answer(Reply(200, "null"), "quarantined", "no run"),
    "list": Answer(Reply(200, "[]"), "quarantined", "no run"),
    "number": Answer(Reply(200, "17"), "quarantined", "no run"),
    "a number without end": Answer(Reply(200, f'{{"id": {"9" * 900_000}}}'), "quarantined", "no run"),
    "not UTF-8": Answer(Reply(200, b'{"status": "completed\xff\xfe"}'), "quarantined", "not JSON"),
    "over max_body": Answer(Reply(200, json.dumps({"id": "x" * 1_100_000})), "quarantined", "max_body"),
    "gone": Answer(Reply(404, "<html>"), "gone", "no longer has this run"),
    "teapot": Answer(Reply(418, "{}"), "quarantined", "answered 418"),
}


def test_whatever_a_detail_is_its_run_comes_through_or_says_why_not(
    simulator: Simulator, store: OtlpStore, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    world, created_ns = simulator.world, time.time_ns() - HOURS_AGO_NS
    neighbours = {run.run_id for platform in PLATFORMS for run in world.runs(platform)}
    spoilt: dict[str, tuple[str, str]] = {}
    for name, change in BODIES.items():
        for platform, build in BUILDERS.items():
            run = world.add(build(name, created_at_ns=created_ns))
            spoilt[run.run_id] = (platform, name)
            body = json.dumps(change(sound_body(run)))
            simulator.fault(platform, detail_path(run.run_id), Reply(200, body))
    refused: dict[str, Answer] = {}
    for name, answer in ANSWERS.items():
        run = world.add(casedev_run(name, created_at_ns=created_ns))
        refused[run.run_id] = answer
        simulator.fault("casedev", detail_path(run.run_id), answer.effect)
    timeless = {run_id for run_id, (_, name) in spoilt.items() if name in WITHOUT_TIMES}
    sources = [source(simulator, platform, concurrency=16) for platform in PLATFORMS]
    program = Program.between(simulator, store, tmp_path, *sources, limits={"max_body": MAX_BODY})

    with program.start("run") as daemon:
        store.wait(lambda: exported(store) >= neighbours | (set(spoilt) - timeless), 40)
        settled = {run_id for run_id, answer in refused.items() if answer.state != "due"}
        wait_until(lambda: told_of(daemon.logs) >= settled, "every run to be told of")
        assert daemon.process.poll() is None
        rows = program.rows()
        log = daemon.stderr

        for run_id, answer in refused.items():
            with subtests.test(run_id=run_id, answer=str(answer.effect)[:40]):
                assert rows[run_id]["state"] == answer.state
                assert answer.reason in rows[run_id]["reason"]
        for run_id, (platform, name) in spoilt.items():
            with subtests.test(platform=platform, body=name):
                row = rows[run_id]
                assert row["state"] == "exported" or (run_id in timeless and row["state"] == "quarantined"), row
                assert row["state"] == "exported" or row["reason"]
        with subtests.test("the traces are sound, each run is there once"):
            assert unsound(store) == {}
            assert set(exactly_once(store)) == {run_id for run_id, row in rows.items() if row["state"] == "exported"}
        with subtests.test("it says what is wrong, and never in Python"):
            assert "Traceback" not in log
            assert "please report this" not in log
            assert [line for line in log.splitlines() if len(line) > 2000] == []

        # The platform mends its answers; what was quarantined is asked for again.
        simulator.faults.clear()
        quarantined = {run_id for run_id, row in rows.items() if row["state"] == "quarantined"}
        retried = program.run("retry")
        assert retried.stdout == f"{len(quarantined)} runs are due again\n"
        store.wait(lambda: exported(store) >= quarantined, 30)
        assert daemon.process.poll() is None


def exported(store: OtlpStore) -> set[str]:
    return {span.attributes["runspan.run.id"] for span in list(store.spans)}


def told_of(lines: list[Row]) -> set[str]:
    return {line["run"] for line in lines if line["action"] in ("run_quarantined", "run_gone")}


# --- ids ---

ODD_IDS = {
    "..": "quarantined",
    ".": "quarantined",
    "a/b": "exported",
    "../../agents": "exported",
    "run?x=1#y&z=%2e%2e": "exported",
    "spa ce": "exported",
    "[/red] [bold]": "exported",
    "Ωmega ✓": "exported",
    "r" * 900: "exported",
    "tab\there": "exported",
    "esc\x1b[31m": "exported",
}


def test_an_odd_id_harms_nobody(
    simulator: Simulator, store: OtlpStore, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    world = simulator.world
    neighbours = {run.run_id for run in world.runs("casedev")}
    template = world.runs("casedev")[0]
    listed = [casedev.listed(run, time.time_ns()) for run in world.runs("casedev")]
    rows: list[Json] = [*listed, *({**listed[0], "id": run_id} for run_id in ODD_IDS)]
    rows += [{**listed[0], "id": bad} for bad in ("\ud800half", "nul\0", 17, None, "", {}, [], True, 2**70)]
    rows += [None, "row", []]
    page = json.dumps({"runs": rows, "hasMore": False, "nextCursor": None})
    simulator.fault("casedev", r"^/agent/v1/run\?limit", Reply(200, page))
    for run_id in [*ODD_IDS, "17", "?half"]:
        body = json.dumps(sound_body(template) | {"id": run_id})
        simulator.fault("casedev", f"/agent/v1/run/{re.escape(run_id)}/details", Reply(200, body))
    program = Program.between(simulator, store, tmp_path)

    ended = program.run("backfill", "--source", "casedev", "--since", "1d")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr + ended.stdout
    ledger = program.rows()
    # What is no text becomes one, or the row is left out; the platform knows nothing of the one with the NUL.
    expected = {**ODD_IDS, "17": "exported", "?half": "exported", "nul\ufffd": "gone"}
    for run_id, state in expected.items():
        with subtests.test(run_id=run_id[:30]):
            assert ledger[run_id]["state"] == state, ledger[run_id]["reason"]
    assert {run_id: ledger[run_id]["state"] for run_id in neighbours} == dict.fromkeys(neighbours, "exported")
    assert set(ledger) == {*neighbours, *expected}
    assert unsound(store) == {}
    assert set(exactly_once(store)) == {run_id for run_id, row in ledger.items() if row["state"] == "exported"}
    # Nothing was asked for outside the runs' own place.
    assert all(request.path.startswith("/agent/v1/") for request in simulator.asked("casedev"))

    table = program.run("runs")
    assert table.returncode == 0
    assert table.stderr == ""
    assert "[/red] [bold]" in table.stdout
    assert "\x1b" not in table.stdout


# --- sizes and lists ---


def test_an_output_of_50_mb_costs_its_run_no_more_than_the_output(
    simulator: Simulator, store: OtlpStore, tmp_path: Path
) -> None:
    created_ns = time.time_ns() - HOURS_AGO_NS
    huge = simulator.world.add(casedev_run("huge", created_at_ns=created_ns))
    huge.body["result"]["output"] = "y" * 50_000_000
    program = Program.between(simulator, store, tmp_path)
    ended = program.run("backfill", "--source", "casedev", "--since", "1d")
    assert (ended.returncode, closing_table(ended.stdout)["exported"]) == (0, NEIGHBOURS + 1)
    assert len(exactly_once(store)[huge.run_id]) > 3
    assert unsound(store) == {}
    assert max(request.wire_bytes for request in store.requests) < 1_000_000


@pytest.mark.parametrize(("bad", "times"), [(html(200), 3), (CutOff(), 3), (Reply(200, '{"runs": 3}'), 1)])
def test_a_list_that_is_none_is_asked_for_again(
    bad: Effect, times: int, simulator: Simulator, store: OtlpStore, tmp_path: Path
) -> None:
    neighbours = {run.run_id for run in simulator.world.runs("casedev")}
    # As often as one look at the list asks for it.
    simulator.fault("casedev", r"^/agent/v1/run\?", bad, times)
    program = Program.between(simulator, store, tmp_path)
    with program.start("run") as daemon:
        line = daemon.wait_logged("source_unavailable")
        store.wait(lambda: exported(store) == neighbours, 30)
        daemon.wait_logged("source_up")
    assert line["source"] == "casedev"
    assert "Traceback" not in daemon.stderr
