"""Runs of case.dev."""

from collections.abc import Sequence
from random import Random
from typing import Any

from runspan.demo.samples.builders.call import Call, call_ms, hex_id, instants
from runspan.demo.world import MS_NS, SECOND_NS, Json, WorldAgent, WorldRun, iso_ms

CONTRACT_REVIEWER = WorldAgent(agent_id="agent_c41f09a2", name="contract-reviewer")
CONTRACT_CALLS = (
    Call("vault_search", {"q": "limitation of liability"}, {"objects": ["obj_18", "obj_22"]}, "Find the clause.", 310),
    Call("bash", {"cmd": "pdftotext lease.pdf - | head -80"}, "14.2 Liability shall not exceed ...", "Read it.", 290),
)


def casedev_run(
    key: int | str,
    *,
    created_at_ns: int,
    agent: WorldAgent = CONTRACT_REVIEWER,
    ephemeral: bool = False,
    status: str = "completed",
    queue_seconds: float | None = 1.0,
    seconds: float | None = 38.0,
    prompt: str = "Review the lease of the Umeå warehouse and list every clause that limits the landlord's liability.",
    answer: str = "Clauses 14.2 and 19 limit it; 19 is unusual and should be struck.",
    issues: Sequence[str] = (),
    model: str = "anthropic/claude-sonnet-4-5",
    calls: Sequence[Call] = CONTRACT_CALLS,
    visible_at_ns: int | None = None,
    late_rows: int = 0,
    late_seconds: float = 2.0,
    changes: Json | None = None,
) -> WorldRun:
    """A run of case.dev: `status` completed, failed or cancelled; a failed one tells why in `issues` alone.

    Each call is a thought, a tool_call and a tool_result; an `ephemeral` agent is in no agents list.
    """
    random = Random(f"casedev {key}")  # noqa: S311
    run_id = "run_" + hex_id("casedev", key, 20)
    started_ns, ended_ns = instants(created_at_ns, queue_seconds, seconds)
    begin_ns = started_ns or created_at_ns
    share_ns = int((seconds or 60) * SECOND_NS / (len(calls) + 1))
    steps: list[Json] = []
    entries: list[Json] = []

    def step(at_ns: int, kind: str, **fields: Any) -> None:
        empty = {"content": None, "toolName": None, "toolInput": None, "toolOutput": None, "durationMs": None}
        identity = {"id": f"step_{hex_id('casedev', key, 8)}_{len(steps)}", "type": kind}
        steps.append(identity | empty | fields | {"timestamp": iso_ms(at_ns)})

    def entry(at_ns: int, kind: str, status_code: int = 200, **fields: Any) -> None:
        used = {"promptTokens": random.randrange(600, 2400), "completionTokens": random.randrange(60, 400)}
        if kind == "llm":
            cost = used["promptTokens"] * 3 + used["completionTokens"] * 15
            used |= {"totalTokens": sum(used.values()), "costMicros": cost, "model": model}
        else:
            used = {"promptTokens": None, "completionTokens": None, "totalTokens": None, "costMicros": 0, "model": None}
        identity = {"id": f"use_{hex_id('casedev', key, 8)}_{len(entries)}", "kind": kind, "method": "POST"}
        entries.append(
            identity | fields | used | {"statusCode": status_code, "timestamp": iso_ms(at_ns), "metadata": None}
        )

    for number, call in enumerate(calls):
        at_ns = begin_ns + number * share_ns
        entry(at_ns + share_ns // 3, "llm", service="llm", endpoint="/llm/v1/chat/completions")
        step(at_ns + share_ns // 3, "thinking", content=call.thought)
        call_ns = at_ns + share_ns // 2
        duration_ms = call_ms(call, seconds, len(calls))
        step(call_ns, "tool_call", toolName=call.tool, toolInput=call.arguments, durationMs=duration_ms)
        output = {"error": call.error} if call.error else call.result
        step(call_ns + duration_ms * MS_NS, "tool_result", toolName=call.tool, toolOutput=output)
        if call.tool.startswith("vault"):
            service: Json = {"service": "vault", "endpoint": "/vault/search"}
            entry(call_ns + duration_ms * MS_NS, "api", 502 if call.error else 200, **service)
    answered_ns = begin_ns + len(calls) * share_ns + share_ns // 2
    completed = status == "completed"
    if completed:
        entry(answered_ns, "llm", service="llm", endpoint="/llm/v1/chat/completions")
        step(answered_ns, "output", content=answer)
    llm = [row for row in entries if row["kind"] == "llm"]
    inputs, outputs = (sum(row[name] for row in llm) for name in ("promptTokens", "completionTokens"))
    final: Json = {"summary": answer if completed else "", "createdObjectIds": [], "issues": list(issues)}
    body: Json = {
        "id": run_id,
        "agentId": agent.agent_id,
        "status": status,
        "prompt": prompt,
        "guidance": None,
        "model": model,
        "workflowId": "wf_" + hex_id("casedev", key, 12),
        "modalSandboxId": None,
        "provider": "vercel",
        "runtimeId": "rt_" + hex_id("casedev", key, 12),
        "runtimeState": "ended" if completed else "error",
        "result": {
            "output": answer if completed else "",
            "outputObjectIds": [],
            "finalResponse": final,
            "logs": {"runtime": "sandbox ready in 1.4 s", "runner": f"exit {0 if completed else 1}", "opencode": None},
        },
        "usage": {
            "model": model,
            "inputTokens": inputs,
            "outputTokens": outputs,
            "toolCalls": len(calls),
            "durationMs": int((seconds or 0) * 1000),
            "summary": {
                "costMicros": sum(row["costMicros"] for row in entries),
                "totalInputTokens": inputs,
                "totalOutputTokens": outputs,
                "totalTokens": inputs + outputs,
            },
            "entries": entries,
        },
        "steps": steps,
        "createdAt": iso_ms(created_at_ns),
        "startedAt": iso_ms(started_ns),
        "completedAt": iso_ms(ended_ns),
    }
    return WorldRun(
        platform="casedev",
        run_id=run_id,
        agent_id=agent.agent_id,
        agent_name=None if ephemeral else agent.name,
        body=body | (changes or {}),
        created_at_ns=created_at_ns,
        started_at_ns=started_ns,
        ended_at_ns=ended_ns,
        visible_at_ns=visible_at_ns,
        late_rows=late_rows,
        late_by_ns=int(late_seconds * SECOND_NS),
    )
