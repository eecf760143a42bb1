"""Executions of Runtype."""

from collections.abc import Sequence
from random import Random
from typing import Any

from runspan.demo.samples.builders.call import Call, call_ms, hex_id, instants
from runspan.demo.world import SECOND_NS, Json, WorldAgent, WorldRun, iso_ms

REPORT_WRITER = WorldAgent(agent_id="agent_7d21c0b94e6a", name="report-writer")
REPORT_CALLS = (
    Call("search_docs", {"query": "returns by region, Q3"}, {"hits": 14}, "Collect the figures.", 812),
    Call("run_query", {"sql": "select region, sum(amount) from returns group by 1"}, {"rows": 6}, "Add them up.", 430),
)


def runtype_execution(
    key: int | str,
    *,
    created_at_ns: int,
    agent: WorldAgent = REPORT_WRITER,
    status: str = "completed",
    stop_reason: str | None = "end_turn",
    queue_seconds: float | None = 2.0,
    seconds: float | None = 24.0,
    prompt: str = "Write the summary of the returns in the third quarter.",
    answer: Any = None,
    calls: Sequence[Call] = REPORT_CALLS,
    parent: WorldRun | None = None,
    surface: str = "api",
    external: bool = False,
    visible_at_ns: int | None = None,
    late_rows: int = 0,
    late_seconds: float = 2.0,
    changes: Json | None = None,
) -> WorldRun:
    """An execution of Runtype: one iteration per call and one that answers.

    `external` makes it one that came in over OTLP. With `seconds` None and `status` "paused" it waits for an approval.
    """
    random = Random(f"runtype {key}")  # noqa: S311
    run_id = ("otel-" if external else "exec_") + hex_id("runtype", key, 16)
    started_ns, ended_ns = instants(created_at_ns, queue_seconds, seconds)
    tokens = [random.randrange(180, 420) for _ in range(len(calls) + 1)]
    outputs = [call.thought for call in calls] + ["Final answer written."]
    share_ns = int((seconds or 60) * SECOND_NS / len(tokens))
    tool_calls: list[Json] = [
        {
            "id": f"tc_{hex_id('runtype', key, 8)}_{number}",
            "toolName": call.tool,
            "toolDescription": None,
            "model": "claude-sonnet-4-5",
            "status": "failed" if call.error else "completed",
            "errorMessage": call.error,
            "executionTimeMs": call_ms(call, seconds, len(calls)),
            "createdAt": iso_ms((started_ns or created_at_ns) + number * share_ns),
            "iteration": number,
            "toolId": f"tool_{call.tool}",
            "inputParameters": call.arguments,
            "outputResult": None if call.error else call.result,
        }
        for number, call in enumerate(calls, start=1)
    ]
    body: Json = {
        "id": run_id,
        "executionId": run_id,
        "agentId": agent.agent_id,
        "agentSource": "external" if external else "stored",
        "parentExecutionId": None if parent is None else parent.run_id,
        "surfaceType": surface,
        "status": status,
        "iterations": len(tokens),
        "totalCost": f"{sum(tokens) * 0.000016:.4f}",
        "totalTokens": sum(tokens),
        "stopReason": stop_reason,
        "startedAt": iso_ms(started_ns),
        "completedAt": iso_ms(ended_ns),
        "createdAt": iso_ms(created_at_ns),
        "agentSpec": None,
        "inputMessages": [{"role": "user", "content": prompt}],
        "finalOutput": answer or {"summary": "Returns fell by 8 %, most of all for footwear."},
        "iterationDetails": [
            {"iteration": number, "output": output, "tokensUsed": used}
            for number, (output, used) in enumerate(zip(outputs, tokens, strict=True), start=1)
        ],
        "loopConfig": {"maxIterations": 10, "stopOnCondition": None, "retryOnFailure": False},
    }
    return WorldRun(
        platform="runtype",
        run_id=run_id,
        agent_id=agent.agent_id,
        agent_name=agent.name,
        body=body | (changes or {}),
        created_at_ns=created_at_ns,
        started_at_ns=started_ns,
        ended_at_ns=ended_ns,
        visible_at_ns=visible_at_ns,
        late_rows=late_rows,
        late_by_ns=int(late_seconds * SECOND_NS),
        tool_calls=tool_calls,
    )
