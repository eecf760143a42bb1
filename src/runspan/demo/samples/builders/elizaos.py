"""Runs of elizaOS."""

import json
import uuid
from collections.abc import Sequence
from random import Random
from typing import Any

from runspan.demo.samples.builders.call import NAMESPACE, Call
from runspan.demo.world import MS_NS, Json, WorldAgent, WorldRun

FREJA = WorldAgent(agent_id="9e0f2b64-31c8-4f0a-8f6d-5b7a2c4d1e30", name="Freja")
CHAT_CALLS = (Call("REPLY", {"text": "Your parcel is in Kiruna."}, None, "The customer wants to know where it is."),)


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


def _uuid(kind: str, key: int | str) -> str:
    return str(uuid.uuid5(NAMESPACE, f"elizaos {kind} {key}"))
