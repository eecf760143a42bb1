"""Runs of Flowyble."""

import json
import uuid
from collections.abc import Sequence
from random import Random

from runspan.demo.samples.builders.call import NAMESPACE, Call, call_ms, instants
from runspan.demo.world import SECOND_NS, Json, WorldAgent, WorldRun, iso_seconds

STOCK_BOT = WorldAgent(agent_id="51aa0c3e-6f0d-4d7b-9a52-0b6c1f7e2d94", name="stock-bot")
STOCK_CALLS = (
    Call(
        "LookupStock", {"sku": "TENT-3P-GRN"}, {"sku": "TENT-3P-GRN", "on_hand": 4}, "The stock level comes first.", 640
    ),
    Call("FindSupplier", {"sku": "TENT-3P-GRN"}, {"supplier": "Fjell AS", "lead_days": 9}, "Four are too few.", 980),
)


def flowyble_run(
    key: int | str,
    *,
    created_at_ns: int,
    agent: WorldAgent = STOCK_BOT,
    status: str = "Completed",
    queue_seconds: float | None = 1.0,
    seconds: float | None = 11.0,
    prompt: str = "Do we have to reorder the green three-person tent?",
    answer: str = "Yes: four are left and Fjell AS needs nine days. I put 24 on the order list.",
    error: str | None = None,
    calls: Sequence[Call] = STOCK_CALLS,
    visible_at_ns: int | None = None,
    late_rows: int = 0,
    late_seconds: float = 2.0,
    changes: Json | None = None,
) -> WorldRun:
    """A run of Flowyble: `status` Completed, Failed or Cancelled."""
    random = Random(f"flowyble {key}")  # noqa: S311
    run_id = str(uuid.uuid5(NAMESPACE, f"flowyble {key}"))
    started_ns, ended_ns = instants(created_at_ns, queue_seconds, seconds)
    steps: list[Json] = []
    for number, call in enumerate(calls, start=1):
        usage = {"inputTokens": 500 + 250 * number + random.randrange(90), "outputTokens": random.randrange(40, 160)}
        step = {
            "stepNumber": number,
            "iterationNumber": number,
            "toolName": call.tool,
            "inputData": json.dumps(call.arguments),
            "outputData": json.dumps({"error": call.error} if call.error else call.result),
            "reasoning": call.thought,
            "tokenUsage": usage,
            "duration": call_ms(call, seconds, len(calls)),
        }
        steps.append(step)
    tokens = sum(step["tokenUsage"]["inputTokens"] + step["tokenUsage"]["outputTokens"] for step in steps)
    completed = status == "Completed"
    body: Json = {
        "id": run_id,
        "agentId": agent.agent_id,
        "status": status,
        "userMessage": prompt,
        "finalOutput": answer if completed else None,
        "errorMessage": (error or "Model timeout") if status == "Failed" else None,
        # The platform counts its final answer as a step and does not list it.
        "stepsExecuted": len(steps) + completed,
        "tokensUsed": tokens + (230 if completed else 0),
        "actionsUsed": len(steps),
        "creditsUsed": round(tokens / 2600, 2),
        "createdAt": iso_seconds(created_at_ns),
        "startedAt": iso_seconds(started_ns),
        "finishedAt": iso_seconds(ended_ns),
        "steps": steps,
    }
    return WorldRun(
        platform="flowyble",
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
    )
