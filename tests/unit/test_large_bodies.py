"""Bodies that are large in one way or another cost time and memory in proportion, and not beyond a bound."""

import json
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runspan.model import Json, Locator, RunBody, RunRef, Step, StepKind
from runspan.otlp.encode import encode
from runspan.projection import ProjectionSettings, project
from runspan.sources.answers import find_traceparent
from runspan.sources.casedev_run import read_steps
from runspan.sources.fields import MAX_ROWS, Fields
from runspan.sources.runtype_iterations import read_iterations
from runspan.trace import Trace
from tests.otlp_validator import LABEL_BYTES, MOST_EVENTS, MOST_SPANS, Rules, faults
from tests.unit.test_goldens import source_of

ROWS = 2 * MAX_ROWS
MANY = 20_000
"""Rows with which something quadratic takes a minute and more."""
MIB = 2**20
T0_MS = 1_777_000_000_000


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails where the block takes more processor time: some twenty times what it does take."""
    began = time.thread_time()
    yield
    assert time.thread_time() - began < seconds


def at(second: int) -> str:
    return f"2026-05-{1 + second // 86400:02}T{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}Z"


def flowyble(*steps: Json) -> Json:
    return {"status": "Completed", "startedAt": at(0), "finishedAt": at(100), "finalOutput": "x", "steps": list(steps)}


def runtype(*iterations: Json) -> Json:
    return {"status": "completed", "startedAt": at(0), "completedAt": at(9000), "iterationDetails": list(iterations)}


def elizaos(*events: Json, **summary: Json) -> Json:
    return {"summary": {"status": "completed", "endedAt": T0_MS + 60_000, **summary}, "events": list(events)}


def casedev(*steps: Json, **fields: Json) -> Json:
    return {"status": "completed", "startedAt": at(0), "completedAt": at(9000), "steps": list(steps), **fields}


def model_used(number: int = 0) -> Json:
    data = {"modelType": "TEXT_LARGE", "executionTime": 1.5}
    return {"type": "MODEL_USED", "timestamp": T0_MS + number, "data": data}


def problems(trace: Trace) -> tuple[str, ...]:
    told = trace.root.attributes.get("runspan.problems", ())
    assert isinstance(told, tuple)
    return told


def trace_of(platform: str, *, with_content: bool = False, **documents: Json) -> Trace:
    source = source_of(platform)
    body = RunBody(RunRef(platform, source.tenant, "run-1", Locator(agent_id="a", agent_name="tester")), documents)
    return project(source.read(body), ProjectionSettings(source="s", capture_content=with_content))


def bodies(count: int) -> Iterator[tuple[str, str, dict[str, Json]]]:
    """What there are too many of, the platform, and its documents."""
    rows = range(count)
    turns = [{"iterationNumber": i, "toolName": "x"} for i in rows]
    yield "turns of one call", "flowyble", {"detail": flowyble(*turns)}
    yield "calls of one turn", "flowyble", {"detail": flowyble(*({**turn, "iterationNumber": 1} for turn in turns))}
    yield "calls of no turn", "flowyble", {"detail": flowyble(*({"toolName": "x", "duration": i} for i in rows))}
    yield "turns", "runtype", {"detail": runtype(*({"iteration": i, "tokensUsed": 3} for i in rows))}
    calls = [{"createdAt": at(i % 9000)} for i in rows]
    yield "tool calls", "runtype", {"detail": runtype(), "tools": {"toolCalls": calls}}
    yield "model calls", "elizaos", {"detail": elizaos(*map(model_used, rows))}
    yield "rows of a new kind", "elizaos", {"detail": elizaos(*({"type": "NEW", "timestamp": T0_MS + i} for i in rows))}
    steps = [{"type": "tool_call", "timestamp": at(i), "durationMs": 1000 * (2 * count - i)} for i in rows]
    yield "calls that overlap", "casedev", {"detail": casedev(*steps)}
    yield "thoughts", "casedev", {"detail": casedev(*({"type": "thinking"} for _ in rows))}
    yield "usage entries", "casedev", {"detail": casedev(usage={"entries": [{"kind": "llm"} for _ in rows]})}
    yield "issues", "casedev", {"detail": casedev(result={"finalResponse": {"issues": ["i"] * count}})}


def test_of_too_many_rows_the_first_ones_are_read_and_the_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runspan.sources.fields.MAX_ROWS", 100)
    told = "101 rows, of which only the first 100 are read"
    for count in (100, 101):
        for what, platform, documents in bodies(count):
            trace = trace_of(platform, **documents)
            assert any(told in problem for problem in problems(trace)) is (count == 101), what


@pytest.mark.parametrize("what", ["turns of one call", "tool calls", "model calls", "calls that overlap"])
def test_the_largest_trace_is_made_soon_and_is_valid(what: str) -> None:
    ((platform, documents),) = [(platform, documents) for name, platform, documents in bodies(ROWS) if name == what]
    with within(20):
        trace = trace_of(platform, **documents)
        payload = encode(trace).payload
    assert len(trace.spans) == MOST_SPANS
    assert len(payload) < 8 * MIB
    assert faults(payload) == []


def test_a_trace_that_is_cut_says_so_first() -> None:
    steps = [{"iterationNumber": i, "toolName": "x", "duration": "?"} for i in range(MAX_ROWS)]
    trace = trace_of("flowyble", detail=flowyble(*steps))
    assert problems(trace)[0] == f"steps: of {3 * MAX_ROWS + 1} spans, only the first {MAX_ROWS} are kept"
    thoughts = [{"type": "thinking"} for _ in range(MOST_EVENTS + 1)]
    trace = trace_of("casedev", detail=casedev(*thoughts))
    assert problems(trace) == ("steps: of 1001 events, only the first 1000 are kept",)


def test_a_long_id_is_not_repeated_in_full_on_every_span() -> None:
    detail = elizaos(*map(model_used, range(1000)), roomId="r" * MIB)
    trace = trace_of("elizaos", detail=detail)
    assert {len(str(span.attributes["gen_ai.conversation.id"]).encode()) for span in trace.spans} == {LABEL_BYTES}


def test_calls_and_results_are_paired_in_linear_time() -> None:
    calls = [{"type": "tool_call", "toolName": f"x{i}", "timestamp": at(i)} for i in range(MANY)]
    results = [{"type": "tool_result", "timestamp": at(MANY + i)} for i in range(MANY)]
    with within(15):
        steps = read_steps(Fields({"steps": calls + results}, []).children("steps"), "start")
    assert len(steps) == MANY


def test_tool_calls_find_their_place_among_turns_in_linear_time() -> None:
    turns = [{"iteration": i, "completedAt": at(2 * i)} for i in range(MANY)]
    first_ns = 1_777_593_601 * 10**9
    calls = [Step(kind=StepKind.TOOL_CALL, key=(str(i),), end_ns=first_ns + i * 2 * 10**9) for i in range(MANY)]
    with within(15):
        steps = read_iterations(Fields({"turns": turns}, []).children("turns"), calls, None, None)
    assert [step.kind for step in steps[:4]] == [StepKind.ITERATION, StepKind.TOOL_CALL] * 2
    assert len(steps) == 2 * MANY


def test_a_traceparent_is_looked_for_among_so_many_values_and_no_more() -> None:
    context = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    assert find_traceparent({"headers": [1, "x", {"deep": context}]}) == context["traceparent"]
    assert find_traceparent(None, 3, [[[[[context]]]]]) is None
    crowd = [0] * (16 * MIB)
    tracemalloc.start()
    with within(5):
        assert find_traceparent({"first": crowd}, context) is None
    assert tracemalloc.get_traced_memory()[1] < MIB
    tracemalloc.stop()


LONG = "Ünicode\n" * MIB
HUGE: dict[str, dict[str, Json]] = {
    "flowyble": {"detail": {**flowyble({"outputData": LONG}), "errorMessage": LONG}},
    "runtype": {"detail": {**runtype({"output": LONG}), "finalOutput": LONG, "stopReason": LONG}},
    "elizaos": {"detail": elizaos({"type": LONG, "data": {"prompt": LONG}}, roomId=LONG)},
    "casedev": {"detail": casedev({"type": LONG, "content": LONG}, result={"output": LONG, "logs": {"runner": LONG}})},
}


@pytest.mark.parametrize("with_content", [False, True], ids=["without content", "with content"])
@pytest.mark.parametrize("platform", HUGE)
def test_texts_of_many_megabytes_are_copied_a_few_times_and_not_kept(platform: str, with_content: bool) -> None:
    documents = HUGE[platform]
    body_bytes = len(json.dumps(documents, ensure_ascii=False))
    tracemalloc.start()
    with within(20):
        trace = trace_of(platform, with_content=with_content, **documents)
        payload = encode(trace).payload
    kept_bytes, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < MIB
    assert peak_bytes < 6 * body_bytes
    assert len(payload) < MIB // 4
    assert faults(payload, Rules(with_content=with_content)) == []
