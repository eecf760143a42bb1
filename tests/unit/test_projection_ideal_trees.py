"""The four trees of the trace contract, to the last attribute."""

from dataclasses import replace

import pytest

from runspan.model import AttributeValue, Run, RunStatus
from runspan.projection import ProjectionSettings, project, root_span_id, trace_id
from runspan.trace import Link, SpanKind, Trace
from tests.unit.projection_runs import START, casedev_run, elizaos_run, flowyble_run, outline, runtype_run


def projected(run: Run) -> Trace:
    return project(run, ProjectionSettings(source="prod"))


def own_attributes(trace: Trace) -> list[dict[str, AttributeValue]]:
    """Of each span what it says besides what every span of the trace says."""
    everywhere = {
        "runspan.run.id": trace.ref.run_id,
        "runspan.source": "prod",
        "runspan.platform": trace.ref.platform,
        "gen_ai.agent.name": trace.root.attributes["gen_ai.agent.name"],
    }
    for span in trace.spans:
        assert everywhere.items() <= span.attributes.items(), span.name
    return [
        {k: v for k, v in span.attributes.items() if k not in everywhere and k != "runspan.timing"}
        for span in trace.spans
    ]


def test_flowyble() -> None:
    trace = projected(flowyble_run())
    assert outline(trace) == [
        (0, "invoke_agent stock-bot", 0, 11, "r"),
        (1, "iteration 1", 0, 4.14, "i"),
        (2, "chat", 0, 2.94, "i"),
        (2, "execute_tool SearchKnowledge", 2.94, 4.14, "i"),
        (1, "iteration 2", 4.14, 8.06, "i"),
        (2, "chat", 4.14, 7.08, "i"),
        (2, "execute_tool SearchKnowledge", 7.08, 8.06, "i"),
        (1, "chat", 8.06, 11, "i"),
    ]
    call = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "flowyble"}
    searched = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "SearchKnowledge",
        "gen_ai.tool.type": "extension",
    }
    assert own_attributes(trace) == [
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": "flowyble",
            "gen_ai.agent.id": "660e8400-e29b-41d4-a716-446655440000",
            "runspan.run.status": "Completed",
            "runspan.run.total_tokens": 2450,
            "runspan.run.unattributed_tokens": 230,
            "runspan.run.cost.credits": 0.85,
            "runspan.run.cost.source": "platform",
            "runspan.run.queue_seconds": 1.0,
            "runspan.run.steps_reported": 3,
            "runspan.run.steps_listed": 2,
        },
        {"runspan.iteration": 1},
        {**call, "runspan.iteration": 1, "gen_ai.usage.input_tokens": 850, "gen_ai.usage.output_tokens": 120},
        {**searched, "runspan.iteration": 1, "runspan.step": 1, "runspan.reported_duration_ms": 1200.0},
        {"runspan.iteration": 2},
        {**call, "runspan.iteration": 2, "gen_ai.usage.input_tokens": 1100, "gen_ai.usage.output_tokens": 150},
        {**searched, "runspan.iteration": 2, "runspan.step": 2, "runspan.reported_duration_ms": 980.0},
        {**call, "runspan.call": "final_answer"},
    ]
    kinds = [span.kind for span in trace.spans]
    assert kinds == [
        SpanKind.CLIENT,
        *[SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.INTERNAL] * 2,
        SpanKind.CLIENT,
    ]
    assert all(span.error is None for span in trace.spans)


def test_runtype() -> None:
    trace = projected(runtype_run())
    assert outline(trace) == [
        (0, "invoke_agent report-writer", 0, 135, "r"),
        (1, "iteration 1", 0, 20, "i"),
        (2, "chat", 0, 19.188, "i"),
        (2, "execute_tool search_docs", 19.188, 20, "r"),
        (1, "chat", 20, 48.75, "i"),
        (1, "chat", 48.75, 77.5, "i"),
        (1, "chat", 77.5, 106.25, "i"),
        (1, "chat", 106.25, 135, "i"),
    ]
    call = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "runtype"}
    assert own_attributes(trace) == [
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": "runtype",
            "gen_ai.agent.id": "agent_1234abcd5678efgh",
            "runspan.run.status": "completed",
            "runspan.run.stop_reason": "max_iterations_reached",
            "runspan.run.total_tokens": 1450,
            "runspan.run.unattributed_tokens": 0,
            "runspan.run.cost.usd": 0.0234,
            "runspan.run.cost.source": "platform",
            "runspan.run.cost.currency_assumed": True,
            "runspan.run.queue_seconds": 30.0,
            "runspan.run.parent_id": "exec_1a2b3c4d5e6f7g8h",
        },
        {"runspan.iteration": 1},
        {**call, "runspan.iteration": 1, "runspan.usage.total_tokens": 250},
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "search_docs",
            "gen_ai.tool.call.id": "tc_1",
            "runspan.iteration": 1,
            "error.type": "502",
        },
        *[{**call, "runspan.iteration": n, "runspan.usage.total_tokens": 300} for n in (2, 3, 4, 5)],
    ]
    assert [span.error for span in trace.spans] == [None, None, None, "HTTP 502", None, None, None, None]
    parent = trace_id("runtype", "https://api.runtype.com", "exec_1a2b3c4d5e6f7g8h")
    assert trace.root.links == (Link(parent, root_span_id(parent), {"runspan.link": "parent_run"}),)


@pytest.mark.parametrize("status", [RunStatus.SUCCESS, RunStatus.FAILED])
def test_elizaos(status: RunStatus) -> None:
    trace = projected(elizaos_run(status))
    assert outline(trace) == [
        (0, "invoke_agent Eliza", 0, 0.8, "r"),
        (1, "chat", 0.01975, 0.16, "r"),
        (1, "execute_tool REPLY", 0.2, 0.62, "r"),
        (2, "chat", 0.25, 0.6, "r"),
        (1, "embeddings", 0.796, 0.8, "c"),
    ]
    room = {"gen_ai.conversation.id": "0e"}
    call = {**room, "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"}
    failed = {"error.type": "failed"} if status is RunStatus.FAILED else {}
    assert own_attributes(trace) == [
        {
            **room,
            **failed,
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": "elizaos",
            "gen_ai.agent.id": "b850bc30-45f8-0041-a00a-83df46d8555d",
            "runspan.run.status": "completed",
        },
        {**call, "runspan.elizaos.model_type": "TEXT_LARGE"},
        {
            **room,
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "REPLY",
            "gen_ai.tool.type": "function",
            "runspan.elizaos.action_id": "02",
        },
        {**call, "runspan.elizaos.model_type": "TEXT_SMALL"},
        {
            **room,
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "elizaos",
            "runspan.reported_duration_ms": 4.0,
        },
    ]
    assert trace.root.error == ("model refused" if status is RunStatus.FAILED else None)


def test_casedev() -> None:
    trace = projected(casedev_run())
    assert outline(trace) == [
        (0, "invoke_agent contract-reviewer", 0, 59, "r"),
        (1, "chat vendor/model-x", 0, 19, "i"),
        (1, "execute_tool bash", 20, 20.3, "r"),
    ]
    assert own_attributes(trace) == [
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": "casedev",
            "gen_ai.agent.id": "agent_2",
            "gen_ai.request.model": "vendor/model-x",
            "error.type": "failed",
            "runspan.run.status": "failed",
            "runspan.run.input_tokens": 900,
            "runspan.run.output_tokens": 120,
            "runspan.run.total_tokens": 1020,
            "runspan.run.unattributed_tokens": 0,
            "runspan.run.cost.usd": 0.0042,
            "runspan.run.cost.source": "platform",
            "runspan.run.cost.currency_assumed": True,
            "runspan.run.queue_seconds": 1.0,
        },
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "casedev",
            "gen_ai.request.model": "vendor/model-x",
            "gen_ai.usage.input_tokens": 900,
            "gen_ai.usage.output_tokens": 120,
            "runspan.cost.usd": 0.0042,
            "runspan.cost.source": "platform",
            "http.response.status_code": 200,
        },
        {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "bash"},
    ]
    assert trace.root.error == "tool failed"
    assert [(event.name, (event.time_ns - START) / 10**9) for event in trace.root.events] == [
        ("thinking", 5),
        ("output", 50),
        ("issue", 59),
    ]


@pytest.mark.parametrize("run", [flowyble_run(), runtype_run(), elizaos_run(), casedev_run()])
def test_usage_and_cost_never_add_up_to_more_than_the_platform_said(run: Run) -> None:
    trace = projected(run)

    def added(*keys: str) -> float:
        return sum(float(span.attributes.get(key, 0)) for span in trace.spans for key in keys)  # type: ignore[arg-type]

    total = run.usage.known_total or 0
    assert added("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens") <= total
    assert added("runspan.usage.total_tokens") <= total
    assert added("runspan.run.total_tokens") == total
    assert added("runspan.cost.usd") <= added("runspan.run.cost.usd")


def test_a_run_without_its_steps_keeps_its_ids() -> None:
    whole, bare = projected(flowyble_run()), projected(replace(flowyble_run(), steps=()))
    assert (whole.trace_id, whole.root.span_id) == (bare.trace_id, bare.root.span_id)
