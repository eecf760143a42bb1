"""The runs in the fixture bodies, and one that tells whatever a run can tell."""

import contextlib
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from runspan.errors import RunUnreadable
from runspan.model import (
    Content,
    Cost,
    Locator,
    Message,
    Run,
    RunBody,
    RunRef,
    RunStatus,
    StepError,
    StepKind,
    Usage,
)
from runspan.projection import project
from tests.unit.projection_runs import MS, SETTINGS, START, chat, iteration, note, run_of, step, tool
from tests.unit.test_goldens import CASES, FIXTURES, source_of


def name_of(path: Path) -> str:
    return str(path.relative_to(FIXTURES).with_suffix(""))


def fixture_run(path: Path) -> Run:
    """The run of a fixture, whatever its status. Raises RunUnreadable."""
    source = source_of(path.relative_to(FIXTURES).parts[0])
    fixture = json.loads(path.read_text())
    body = fixture if "documents" in fixture else {"run_id": path.stem, "documents": {"detail": fixture}}
    ref = RunRef(source.platform, source.tenant, body["run_id"], Locator(**body.get("locator", {})))
    return source.read(RunBody(ref, body["documents"]))


def fixture_runs() -> Iterator[tuple[str, Run]]:
    """All that can become a trace, by name."""
    for path in CASES:
        with contextlib.suppress(RunUnreadable):
            run = fixture_run(path)
            project(run, SETTINGS)
            yield name_of(path), run


def full_run() -> Run:
    """Everything at once: more than any of our platforms tells, and what a plug-in's may."""
    usage = Usage(
        input_tokens=100,
        output_tokens=50,
        total_tokens=160,
        cache_read_tokens=20,
        cache_write_tokens=10,
        reasoning_tokens=30,
    )
    said = Content(
        input=(Message(role="user", text="Which of them?"), Message(role="assistant", text="?", reasoning="Hm.")),
        output=(Message(role="assistant", text="This one.", reasoning="It has to be."),),
    )
    return run_of(
        iteration(
            1,
            chat(name="m-1", usage=usage, cost=Cost(Decimal("0.2")), content=said),
            tool(
                name="search",
                duration_ns=MS,
                error=StepError("502", "no answer"),
                content=Content(arguments={"query": "x"}, result=["y"]),
                attributes={"gen_ai.tool.call.id": "call-1", "gen_ai.tool.type": "extension"},
            ),
            error=StepError("tool_error"),
        ),
        chat("refused", name="m-1", error=StepError("429")),
        step(StepKind.EMBEDDINGS, name="m-2", usage=usage, cost=Cost(Decimal("0.05")), content=said),
        step(StepKind.API_CALL, name="vault", cost=Cost(Decimal("0.01"))),
        note("evaluator", start_ns=START + MS, duration_ns=MS, error=StepError("failed"), content=Content(text="No.")),
        note("thinking", start_ns=START + MS, content=Content(text="Hm.")),
        status=RunStatus.FAILED,
        error_description="it broke",
        agent_id="a-1",
        agent_name="finder",
        conversation_id="room-1",
        model="m-1",
        usage=Usage(
            input_tokens=210,
            output_tokens=110,
            total_tokens=340,
            cache_read_tokens=40,
            cache_write_tokens=20,
            reasoning_tokens=60,
        ),
        cost=Cost(Decimal("0.3")),
        content=Content(system="Be brief.", input=said.input, output=said.output),
    )
