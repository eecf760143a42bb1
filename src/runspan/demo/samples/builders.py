"""Builders of runs in the vendors' body shapes, each with good defaults.

A `key` (a number, a word) stands for the run: the same key gives the same id and the same numbers, in any process.
What the agent did is told as `Call`s, the same way for every platform. `changes` overwrites fields of the finished
body, so that a test can make it as bad as it likes. A run starts `queue_seconds` after its creation and takes
`seconds`; None: it never ends.
"""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from runspan.demo.world import MS_NS, SECOND_NS, Json, WorldAgent, WorldRun, iso_ms, iso_seconds

NAMESPACE = uuid.UUID("5c0f4a52-7b1e-4c58-9e64-2f6d1a3b9c07")


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call (elizaOS: an action) and the thought that led to it. `ms` None: a fair share of the run."""

    tool: str
    arguments: Json = field(default_factory=dict[str, Any])
    result: Any = None
    thought: str = ""
    ms: int | None = None
    error: str | None = None


STOCK_BOT = WorldAgent(agent_id="51aa0c3e-6f0d-4d7b-9a52-0b6c1f7e2d94", name="stock-bot")
REPORT_WRITER = WorldAgent(agent_id="agent_7d21c0b94e6a", name="report-writer")
FREJA = WorldAgent(agent_id="9e0f2b64-31c8-4f0a-8f6d-5b7a2c4d1e30", name="Freja")
CONTRACT_REVIEWER = WorldAgent(agent_id="agent_c41f09a2", name="contract-reviewer")

STOCK_CALLS = (
    Call(
        "LookupStock", {"sku": "TENT-3P-GRN"}, {"sku": "TENT-3P-GRN", "on_hand": 4}, "The stock level comes first.", 640
    ),
    Call("FindSupplier", {"sku": "TENT-3P-GRN"}, {"supplier": "Fjell AS", "lead_days": 9}, "Four are too few.", 980),
)
REPORT_CALLS = (
    Call("search_docs", {"query": "returns by region, Q3"}, {"hits": 14}, "Collect the figures.", 812),
    Call("run_query", {"sql": "select region, sum(amount) from returns group by 1"}, {"rows": 6}, "Add them up.", 430),
)
CHAT_CALLS = (Call("REPLY", {"text": "Your parcel is in Kiruna."}, None, "The customer wants to know where it is."),)
CONTRACT_CALLS = (
    Call("vault_search", {"q": "limitation of liability"}, {"objects": ["obj_18", "obj_22"]}, "Find the clause.", 310),
    Call("bash", {"cmd": "pdftotext lease.pdf - | head -80"}, "14.2 Liability shall not exceed ...", "Read it.", 290),
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
    started_ns, ended_ns = _instants(created_at_ns, queue_seconds, seconds)
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
            "duration": _call_ms(call, seconds, len(calls)),
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
    run_id = ("otel-" if external else "exec_") + _hex("runtype", key, 16)
    started_ns, ended_ns = _instants(created_at_ns, queue_seconds, seconds)
    tokens = [random.randrange(180, 420) for _ in range(len(calls) + 1)]
    outputs = [call.thought for call in calls] + ["Final answer written."]
    share_ns = int((seconds or 60) * SECOND_NS / len(tokens))
    tool_calls: list[Json] = [
        {
            "id": f"tc_{_hex('runtype', key, 8)}_{number}",
            "toolName": call.tool,
            "toolDescription": None,
            "model": "claude-sonnet-4-5",
            "status": "failed" if call.error else "completed",
            "errorMessage": call.error,
            "executionTimeMs": _call_ms(call, seconds, len(calls)),
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


def elizaos_run(
    key: int | str,
    *,
    created_at_ns: int,
    agent: WorldAgent = FREJA,
    status: str = "completed",
    seconds: float | None = 2.4,
    error: str | None = None,
    prompt: str = "Where is my parcel?",
    calls: Sequence[Call] = CHAT_CALLS,
    evaluators: Sequence[str] = (),
    room: str = "",
    tokens: bool = False,
    ends_again_after_seconds: float | None = None,
    late_ms: int = 15,
    visible_at_ns: int | None = None,
    documented: bool = False,
    changes: Json | None = None,
) -> WorldRun:
    """A run of elizaOS; `created_at_ns` is the instant of its RUN_STARTED, cut to milliseconds.

    `status` may be one that ends a run early (self, off, muted, replaced, noMessageId). `error` is what a run that
    threw leaves behind. `room` names the conversation (default: one of its own). `tokens` adds what real servers do not
    report. `ends_again_after_seconds` (of the first end) gives a timed-out run its second end. Two embedding rows are
    written up to `late_ms` after the end.
    """
    random = Random(f"elizaos {key}")  # noqa: S311
    run_id = _uuid("run", key)
    message_id = _uuid("message", key)
    start_ms = created_at_ns // MS_NS
    length_ms = int((seconds if seconds is not None else 3600.0) * 1000)
    events: list[Json] = []

    def write(kind: str, at_ms: int, **data: Any) -> None:
        events.append({"type": kind, "timestamp": at_ms, "data": data})

    def model_used(
        model_type: str, end_ms: int, duration_ms: float, text: str, reply: str, action: Json | None
    ) -> None:
        data: Json = {"modelType": model_type, "provider": "openai", "executionTime": duration_ms}
        data |= {"actionContext": action} if action else {}
        data |= {"prompt": text, "params": {"prompt": text, "stream": False}, "response": reply}
        data |= {"inputTokens": random.randrange(300, 900), "outputTokens": random.randrange(30, 120)} if tokens else {}
        write("MODEL_USED", end_ms, **data)

    write("RUN_STARTED", start_ms, source="messageHandler", messageId=message_id)
    share_ms = length_ms // (len(calls) + 1)
    stale: Json | None = None
    for number, call in enumerate(calls):
        begin_ms = start_ms + number * share_ms
        action: Json = {"actionId": _uuid("action", f"{key} {number}"), "actionName": call.tool}
        thought_ms = share_ms * random.randrange(20, 35) / 100 + 0.25
        asked = f"# Task: choose what to do.\n# Message: {prompt}"
        model_used("TEXT_LARGE", begin_ms + int(thought_ms) + 1, thought_ms, asked, call.thought, None)
        action_ms = begin_ms + int(thought_ms) + 40
        if call.error:
            # An action that throws leaves no row of its own; what comes later still carries its context.
            stale = action
            continue
        write("ACTION_STARTED", action_ms, **action, messageId=action["actionId"])
        worded_ms = (call.ms or share_ms // 2) * 0.8
        end_ms = action_ms + int(worded_ms) + 20
        model_used("TEXT_SMALL", end_ms - 5, worded_ms, f"Write {call.tool}", json.dumps(call.arguments), action)
        prompts = [{"prompt": f"Write {call.tool}", "modelType": "TEXT_SMALL", "timestamp": end_ms - 6}]
        write("ACTION_COMPLETED", end_ms, **action, success=True, result=None, promptCount=1, prompts=prompts)
    end_ms = start_ms + length_ms
    for evaluator in evaluators:
        write("EVALUATOR_COMPLETED", end_ms - 3, evaluatorName=evaluator, success=True)
    if seconds is not None:
        ended = {"status": status} | ({"error": error} if error else {})
        write("RUN_ENDED", end_ms, **ended, durationMs=length_ms)
        if ends_again_after_seconds is not None:
            again_ms = int(ends_again_after_seconds * 1000)
            write("RUN_ENDED", end_ms + again_ms, status="completed", durationMs=length_ms + again_ms)
        if late_ms and status in ("completed", "timeout"):
            model_used("TEXT_EMBEDDING", end_ms + late_ms // 2, 4.5, prompt, "[array]", stale)
            memory_id = _uuid("memory", key)
            write("EMBEDDING_EVENT", end_ms + late_ms, status="completed", memoryId=memory_id, durationMs=4)
    body: Json = {"roomId": _uuid("room", room or key), "entityId": _uuid("customer", room or key), "events": events}
    start_ns = start_ms * MS_NS
    return WorldRun(
        platform="elizaos",
        run_id=run_id,
        agent_id=agent.agent_id,
        agent_name=agent.name,
        body=body | (changes or {}),
        created_at_ns=start_ns,
        started_at_ns=start_ns,
        ended_at_ns=None if seconds is None else end_ms * MS_NS,
        visible_at_ns=visible_at_ns,
        documented=documented,
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
    run_id = "run_" + _hex("casedev", key, 20)
    started_ns, ended_ns = _instants(created_at_ns, queue_seconds, seconds)
    begin_ns = started_ns or created_at_ns
    share_ns = int((seconds or 60) * SECOND_NS / (len(calls) + 1))
    steps: list[Json] = []
    entries: list[Json] = []

    def step(at_ns: int, kind: str, **fields: Any) -> None:
        empty = {"content": None, "toolName": None, "toolInput": None, "toolOutput": None, "durationMs": None}
        identity = {"id": f"step_{_hex('casedev', key, 8)}_{len(steps)}", "type": kind}
        steps.append(identity | empty | fields | {"timestamp": iso_ms(at_ns)})

    def entry(at_ns: int, kind: str, status_code: int = 200, **fields: Any) -> None:
        used = {"promptTokens": random.randrange(600, 2400), "completionTokens": random.randrange(60, 400)}
        if kind == "llm":
            cost = used["promptTokens"] * 3 + used["completionTokens"] * 15
            used |= {"totalTokens": sum(used.values()), "costMicros": cost, "model": model}
        else:
            used = {"promptTokens": None, "completionTokens": None, "totalTokens": None, "costMicros": 0, "model": None}
        identity = {"id": f"use_{_hex('casedev', key, 8)}_{len(entries)}", "kind": kind, "method": "POST"}
        entries.append(
            identity | fields | used | {"statusCode": status_code, "timestamp": iso_ms(at_ns), "metadata": None}
        )

    for number, call in enumerate(calls):
        at_ns = begin_ns + number * share_ns
        entry(at_ns + share_ns // 3, "llm", service="llm", endpoint="/llm/v1/chat/completions")
        step(at_ns + share_ns // 3, "thinking", content=call.thought)
        call_ns = at_ns + share_ns // 2
        duration_ms = _call_ms(call, seconds, len(calls))
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
        "workflowId": "wf_" + _hex("casedev", key, 12),
        "modalSandboxId": None,
        "provider": "vercel",
        "runtimeId": "rt_" + _hex("casedev", key, 12),
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


def _instants(created_at_ns: int, queue_seconds: float | None, seconds: float | None) -> tuple[int | None, int | None]:
    started_ns = None if queue_seconds is None else created_at_ns + int(queue_seconds * SECOND_NS)
    begin_ns = created_at_ns if started_ns is None else started_ns
    return started_ns, None if seconds is None else begin_ns + int(seconds * SECOND_NS)


def _call_ms(call: Call, seconds: float | None, calls: int) -> int:
    return call.ms if call.ms is not None else int((seconds or 60) * 1000 / (calls * 3))


def _hex(platform: str, key: int | str, length: int) -> str:
    return hashlib.sha256(f"{platform} {key}".encode()).hexdigest()[:length]


def _uuid(kind: str, key: int | str) -> str:
    return str(uuid.uuid5(NAMESPACE, f"elizaos {kind} {key}"))
