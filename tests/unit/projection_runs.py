"""Runs as the sources would read them, for the tests of the projection."""

from decimal import Decimal
from typing import Any

from runspan.model import Cost, Run, RunRef, RunStatus, Step, StepError, StepKind, Usage
from runspan.projection import ProjectionSettings, project
from runspan.trace import Span, Trace

SECOND = 10**9
MS = 10**6
START = 1_774_778_401 * SECOND

SETTINGS = ProjectionSettings(source="test")


def run_of(*steps: Step, **fields: Any) -> Run:
    """A finished run of ten seconds."""
    given: dict[str, Any] = {
        "ref": RunRef("flowyble", "https://api.flowyble.com", "run-1"),
        "status": RunStatus.SUCCESS,
        "started_ns": START,
        "ended_ns": START + 10 * SECOND,
        "steps": steps,
    }
    return Run(**(given | fields))


def step(kind: StepKind, *key: str, **fields: Any) -> Step:
    return Step(kind=kind, key=key or (kind.value,), **fields)


def chat(*key: str, **fields: Any) -> Step:
    return step(StepKind.MODEL_CALL, *key, **fields)


def tool(*key: str, **fields: Any) -> Step:
    return step(StepKind.TOOL_CALL, *key, **fields)


def note(name: str, **fields: Any) -> Step:
    return step(StepKind.NOTE, name, name=name, **fields)


def iteration(number: int, *children: Step, **fields: Any) -> Step:
    key = ("iteration", str(number))
    return Step(kind=StepKind.ITERATION, key=key, iteration=number, children=children, **fields)


def traced(*steps: Step, settings: ProjectionSettings = SETTINGS, **fields: Any) -> Trace:
    return project(run_of(*steps, **fields), settings)


def seconds(span: Span, trace: Trace) -> tuple[float, float]:
    """Start and end, relative to the root's start."""
    origin = trace.root.start_ns
    return (span.start_ns - origin) / SECOND, (span.end_ns - origin) / SECOND


def outline(trace: Trace) -> list[tuple[int, str, float, float, str]]:
    """Of each span its depth, name, start and end in seconds, and the first letter of its timing."""
    depths: dict[bytes | None, int] = {None: -1}
    rows: list[tuple[int, str, float, float, str]] = []
    for span in trace.spans:
        depths[span.span_id] = depths[span.parent_id] + 1
        letter = str(span.attributes["runspan.timing"])[0]
        rows.append((depths[span.span_id], span.name, *seconds(span, trace), letter))
    return rows


def flowyble_run() -> Run:
    """The vendor page's body: three steps reported, two listed, and an answer that is no step."""

    def listed(number: int, tokens: tuple[int, int], milliseconds: int) -> Step:
        return iteration(
            number,
            chat("chat", str(number), usage=Usage(input_tokens=tokens[0], output_tokens=tokens[1])),
            tool(
                "step",
                str(number),
                name="SearchKnowledge",
                duration_ns=milliseconds * MS,
                attributes={"gen_ai.tool.type": "extension", "runspan.step": number},
            ),
        )

    return Run(
        ref=RunRef("flowyble", "https://api.flowyble.com", "550e8400-e29b-41d4-a716-446655440000"),
        status=RunStatus.SUCCESS,
        raw_status="Completed",
        agent_id="660e8400-e29b-41d4-a716-446655440000",
        agent_name="stock-bot",
        created_ns=START - SECOND,
        started_ns=START,
        ended_ns=START + 11 * SECOND,
        usage=Usage(total_tokens=2450),
        cost=Cost(Decimal("0.85"), "credits"),
        steps_reported=3,
        steps_listed=2,
        steps=(
            listed(1, (850, 120), 1200),
            listed(2, (1100, 150), 980),
            chat("final_answer", attributes={"runspan.call": "final_answer"}),
        ),
    )


def runtype_run() -> Run:
    """The vendor page's body, and one failed tool that was logged 20 s after the start."""
    failed = tool(
        "tc_1",
        name="search_docs",
        end_ns=START + 20 * SECOND,
        duration_ns=812 * MS,
        error=StepError("502", "HTTP 502"),
        attributes={"gen_ai.tool.call.id": "tc_1"},
    )
    tokens = (250, 300, 300, 300, 300)
    return Run(
        ref=RunRef("runtype", "https://api.runtype.com", "exec_9f8b7c6d5a4e3f21"),
        status=RunStatus.SUCCESS,
        raw_status="completed",
        stop_reason="max_iterations_reached",
        agent_id="agent_1234abcd5678efgh",
        agent_name="report-writer",
        created_ns=START - 30 * SECOND,
        started_ns=START,
        ended_ns=START + 135 * SECOND,
        usage=Usage(total_tokens=1450),
        cost=Cost(Decimal("0.0234")),
        parent_run_id="exec_1a2b3c4d5e6f7g8h",
        steps=tuple(
            iteration(
                number,
                chat("chat", str(number), usage=Usage(total_tokens=total)),
                *([failed] if number == 1 else []),
            )
            for number, total in enumerate(tokens, 1)
        ),
    )


def elizaos_run(status: RunStatus = RunStatus.SUCCESS) -> Run:
    """The documented detail of the facts: one model call, one action with another inside, one late embedding."""

    def called(model_type: str, end_ms: int, took_us: int) -> Step:
        return chat(
            "model",
            model_type,
            str(end_ms),
            end_ns=START + end_ms * MS,
            duration_ns=took_us * 1000,
            attributes={"gen_ai.provider.name": "openai", "runspan.elizaos.model_type": model_type},
        )

    reply = tool(
        "action",
        "02",
        name="REPLY",
        start_ns=START + 200 * MS,
        end_ns=START + 620 * MS,
        attributes={"gen_ai.tool.type": "function", "runspan.elizaos.action_id": "02"},
        children=(called("TEXT_SMALL", 600, 350_000),),
    )
    embedding = step(StepKind.EMBEDDINGS, "embedding", "815", end_ns=START + 815 * MS, duration_ns=4 * MS)
    return Run(
        ref=RunRef("elizaos", "http://localhost:3000", "d0b1"),
        status=status,
        raw_status="completed",
        agent_id="b850bc30-45f8-0041-a00a-83df46d8555d",
        agent_name="Eliza",
        conversation_id="0e",
        started_ns=START,
        ended_ns=START + 800 * MS,
        duration_ns=800 * MS,
        error_description="model refused" if status is RunStatus.FAILED else None,
        steps=(called("TEXT_LARGE", 160, 140_250), reply, embedding),
    )


def casedev_run() -> Run:
    """A failed run: one usage entry, one tool call, and notes."""
    call = chat(
        "u1",
        name="vendor/model-x",
        end_ns=START + 19 * SECOND,
        usage=Usage(input_tokens=900, output_tokens=120, total_tokens=1020),
        cost=Cost(Decimal("0.0042")),
        attributes={"http.response.status_code": 200},
    )
    return Run(
        ref=RunRef("casedev", "https://api.case.dev", "run_9"),
        status=RunStatus.FAILED,
        raw_status="failed",
        agent_id="agent_2",
        agent_name="contract-reviewer",
        model="vendor/model-x",
        created_ns=START - SECOND,
        started_ns=START,
        ended_ns=START + 59 * SECOND,
        duration_ns=59 * SECOND,
        usage=Usage(input_tokens=900, output_tokens=120, total_tokens=1020),
        cost=Cost(Decimal("0.0042")),
        error_description="tool failed",
        steps=(
            note("thinking", start_ns=START + 5 * SECOND),
            call,
            tool("s1", name="bash", start_ns=START + 20 * SECOND, duration_ns=300 * MS),
            note("output", start_ns=START + 50 * SECOND),
            note("issue"),
        ),
    )
