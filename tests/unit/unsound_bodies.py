"""Bodies of runs as no platform should send them, and as some day one will.

`spoiled` takes the real ones apart: types swapped, fields missing, doubled, nested, renamed; `made_up` builds them from
the lists of fields that the vendors document. Both put in values of which each has broken some program.
"""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from hypothesis import strategies as st

Json: TypeAlias = Any
Documents: TypeAlias = dict[str, Json]
Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]

MOST_CHARACTERS = 200_000
"""In all copies that are made of a value."""
DEEPEST = 900
"""Levels that Python's JSON parser still reads with its usual recursion limit."""


def deep(levels: int = DEEPEST, *, of_objects: bool = False) -> Json:
    value: Json = "deep"
    for _ in range(levels):
        value = {"inputTokens": value} if of_objects else [value]
    return value


NUMBERS: tuple[Json, ...] = (
    0, 1, -1, 3, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 10**400, 0.1, -0.0, -1.5, 2.5, 5e-324,
    1e18, 1e308, float("nan"), float("inf"), float("-inf"), 1_777_000_000_000, 1_777_000_000_000.25, -1_777_000_000_000,
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "a\0b", "\ud800", "x\udfffy", "\ufeff", "\u202e\u2028\x85\r\n", "ü" * 300, "🧵" * 400, "x" * 100_000,
    "0", "-1", "3", " 7 ", "3.7", "1e999", "1E+40", "-5", "+5", "1" * 39, "1" * 400, "٣", "0x10", "1_000", "NaN",
    "Infinity", "true", "null", "{", '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', "[" * 5000, '"', "<html>",
    "completed", "Completed", "failed", "timeout", "error", "running", "otel-1", "self", "external",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
)  # fmt: skip
TIMES = (
    "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59.999Z",
    "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000001Z", "2262-04-11T23:47:16.854775807Z",
    "2262-04-11T23:47:16.854775808Z", "9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59-14:00",
    "10000-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-05-01T24:00:00Z", "2026-05-01T23:59:60Z",
    "2026-05-01T10:00:05+25:00", "2026-05-01T10:00:05.123456789123456789Z", "2026-05-01 10:00:05", "2026-05-01",
    "2026-05-01T10:00:05Z", "2024-06-10T09:15:31.5+02:00", "1777000000100", "٢٠٢٦-05-01T10:00:00Z",
)  # fmt: skip
SHAPES: tuple[Json, ...] = (
    [], {}, [[]], [{}], [None], {"": ""}, {"\0": 1}, {"\ud800": [1]}, {"success": True, "data": []},
)  # fmt: skip

odd_values = st.one_of(
    st.sampled_from((None, True, False)),
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.sampled_from(TIMES),
    st.sampled_from(SHAPES).map(copy.deepcopy),
    st.builds(deep, of_objects=st.booleans()),
    st.integers(-(2**64), 2**64),
    st.floats(),
    st.text(max_size=20),
    st.text(st.characters(codec=None, categories=None), max_size=10),
    st.integers(1, 400).map(lambda count: [{"id": number} for number in range(count)]),
    st.integers(1, 400).map(lambda count: {f"key {number}": number for number in range(count)}),
)
few = st.integers(1, 4)
many = st.sampled_from((1, 1, 1, 1, 2, 2, 3, 3, 10, 10, 40, 200))


def spoiled(bodies: Sequence[Documents]) -> st.SearchStrategy[Documents]:
    """One of the bodies with up to eight things done to it."""

    @st.composite
    def strategy(draw: Draw) -> Documents:
        documents = json.loads(draw(st.sampled_from(texts)))
        for _ in range(draw(st.integers(0, 8))):
            _spoil(draw, documents)
        return {"detail": None} | documents

    texts = [json.dumps(body) for body in bodies]
    return strategy()


ACTIONS = ("odd", "odd", "double", "drop", "swap", "double", "change", "shuffle", "nest", "rename", "odd", "change")


def _spoil(draw: Draw, document: Json) -> None:
    places = list(_places(document))
    if not places:
        return
    in_lists = [(holder, key) for holder, key in places if isinstance(holder, list)]
    holder, key = _pick(draw, places)
    value = holder[key]
    match _pick(draw, ACTIONS):
        case "drop":
            del holder[key]
        case "odd":
            holder[key] = draw(odd_values)
        case "swap":
            other, other_key = _pick(draw, places)
            # Copies, since one may stand in the other.
            holder[key], other[other_key] = _clone(other[other_key]), _clone(value)
        case "double" if in_lists:
            rows, place = _pick(draw, in_lists)
            rows[place:place] = _clones(rows[place], draw(many))
        case "shuffle" if in_lists:
            rows, place = _pick(draw, in_lists)
            rows[:] = rows[place:] + rows[:place][::-1]
        case "nest":
            holder[key] = _pick(draw, ([value], {"data": value}, {"success": True, "data": value}, {str(key): value}))
        case "rename" if isinstance(holder, dict):
            name = _pick(draw, [name for place, name in places if isinstance(place, dict)])
            holder[name] = _clone(value)
        case "change":
            holder[key] = _pick(draw, _changed(value))
        case _:
            holder[key] = None


def _changed(value: Json) -> Sequence[Json]:
    """Values of another type or size that say nearly the same."""
    match value:
        case bool() | None:
            return (str(value), 0, 1)
        case int() | float():
            return (-value, repr(value), value * 10, value * 1000, value + 1, value - 1, [value])
        case str():
            return (value.upper(), f" {value} ", value * 40, value + "\0", value[:-1], [value])
        case list():
            return (value * 3, value[1:], {str(place): item for place, item in enumerate(value)})
        case _:
            return ([value], {}, str(type(value)))


def _pick(draw: Draw, options: Sequence[Any]) -> Any:
    return options[draw(st.integers(0, len(options) - 1))]


def _places(document: Json) -> Iterator[tuple[Json, Any]]:
    """Every place that a value stands in, as its holder and the key there; of very long lists only the beginning."""
    waiting = [document]
    while waiting:
        holder = waiting.pop(0)
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in list(keys)[:40]:
            yield holder, key
            if isinstance(holder[key], dict | list) and len(waiting) < 100:
                waiting.append(holder[key])


def _clone(value: Json) -> Json:
    """A copy, so that no change is made in two places, or a body made to hold itself."""
    try:
        return json.loads(json.dumps(value))
    except (RecursionError, ValueError):
        return "cannot be copied"


def _clones(value: Json, number: int) -> list[Json]:
    """So many copies, or fewer of a large value: that a body can be large is tried elsewhere."""
    characters = len(json.dumps(_clone(value)))
    return [_clone(value) for _ in range(min(number, 1 + MOST_CHARACTERS // characters))]


# From scratch


def mostly(*sound: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    """One of these, and once in a while something odd."""

    @st.composite
    def strategy(draw: Draw) -> Json:
        # Not `one_of`: it takes a choice within a choice for one wide choice, in which sound values would hardly come.
        at_random = draw(st.integers(0, 12 * len(sound)))
        return draw(sound[at_random % len(sound)] if at_random else odd_values)

    return strategy()


def fields(**sound: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    """An object with nearly all of these fields, or something that is no object."""

    def without(names: frozenset[str], document: Json) -> Json:
        return {name: value for name, value in document.items() if name not in names}

    missing = st.frozensets(st.sampled_from(sorted(sound)), max_size=2)
    return mostly(st.builds(without, missing, st.fixed_dictionaries(sound)))


def rows(row: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return mostly(st.lists(row, min_size=1, max_size=10))


def statuses(*known: str) -> st.SearchStrategy[Json]:
    return mostly(st.sampled_from(known))


counts = mostly(st.integers(0, 5000), st.integers(0, 50).map(str))
amounts = mostly(st.integers(0, 100_000).map(lambda value: f"{value / 10_000}"), st.floats(0, 10))
milliseconds = mostly(st.integers(0, 90_000), st.floats(0, 90_000), st.integers(-5, 0))
ids = mostly(st.sampled_from(("1", "a", "b", "c", 7)))
words = mostly(st.sampled_from(("search", "bash", "REPLY", "vendor/model-x", None)), st.text(max_size=12))
anything = mostly(words, st.dictionaries(st.text(max_size=5), words, max_size=3), st.lists(words, max_size=3))
instants = mostly(
    st.integers(0, 119_999_999).map(lambda us: f"2026-05-01T10:0{us // 60_000_000}:{us % 60_000_000 / 1e6:09.6f}Z"),
    st.integers(0, 119).map(lambda second: f"2026-05-01T10:0{second // 60}:{second % 60:02}Z"),
    st.none(),
)
epochs_ms = mostly(st.integers(1_777_000_000_000, 1_777_000_090_000))

flowyble_details = fields(
    id=ids, agentId=ids, status=statuses("Pending", "Completed", "Failed", "Cancelled"), userMessage=words,
    finalOutput=words, errorMessage=words, stepsExecuted=counts, tokensUsed=counts, actionsUsed=counts,
    creditsUsed=amounts, createdAt=instants, startedAt=instants, finishedAt=instants,
    steps=rows(fields(
        id=ids, stepNumber=counts, iterationNumber=st.one_of(few, counts), toolName=words, inputData=words,
        outputData=words, reasoning=words, tokenUsage=fields(inputTokens=counts, outputTokens=counts),
        duration=milliseconds,
    )),
)  # fmt: skip
runtype_details = fields(
    id=ids, executionId=ids, agentId=ids, agentSource=words, parentExecutionId=ids, surfaceType=words,
    status=statuses("completed", "failed", "timeout", "paused", "cancelled"), iterations=counts, totalCost=amounts,
    totalTokens=st.one_of(counts, fields(input=counts, output=counts, total=counts)),
    stopReason=statuses("end_turn", "timeout", "error", "max_cost"), inputMessages=rows(fields(role=words,
    content=words)),
    agentSpec=words, finalOutput=words, startedAt=instants, completedAt=instants, createdAt=instants,
    metadata=fields(traceparent=mostly(st.sampled_from(TEXTS))),
    iterationDetails=rows(fields(
        iteration=st.one_of(few, counts), output=words, tokensUsed=counts, cost=amounts, duration=milliseconds,
        tokens=fields(input=counts, output=counts), completedAt=instants, toolCallsMade=counts,
    )),
)  # fmt: skip
runtype_calls = fields(
    toolCalls=rows(fields(
        id=ids, toolName=words, toolDescription=words, model=words, status=statuses("completed", "failed"),
        errorMessage=words, executionTimeMs=milliseconds, createdAt=instants, iteration=st.one_of(few, counts),
    ))
)  # fmt: skip
runtype_payload = fields(toolId=ids, inputParameters=anything, outputResult=anything)
events = [
    fields(type=mostly(st.just(kind)), timestamp=epochs_ms, data=data)
    for kind, data in {
        "RUN_STARTED": fields(source=words, messageId=ids),
        "RUN_ENDED": fields(status=statuses("completed", "timeout", "self"), error=words, durationMs=milliseconds),
        "ACTION_STARTED": fields(actionId=ids, actionName=words, messageId=ids),
        "ACTION_COMPLETED": fields(
            actionId=ids, actionName=words, success=mostly(st.booleans()), result=anything, params=anything,
            prompts=anything
        ),
        "MODEL_USED": fields(
            modelType=statuses("TEXT_LARGE", "TEXT_EMBEDDING"), provider=words, executionTime=milliseconds,
            prompt=words, actionContext=fields(actionId=ids, actionName=words), response=words, params=anything,
            cost=amounts,
            usage=fields(promptTokens=counts, completionTokens=counts, totalTokens=counts),
        ),
        "model:used": fields(modelType=words, tokens=fields(prompt=counts, completion=counts),
        executionTime=milliseconds),
        "EVALUATOR_COMPLETED": fields(evaluatorName=words, success=mostly(st.booleans())),
        "EMBEDDING_EVENT": fields(status=statuses("completed", "failed"), memoryId=ids, durationMs=milliseconds),
    }.items()
]  # fmt: skip
elizaos_events = rows(mostly(*events))
elizaos_details = st.one_of(
    fields(
        summary=fields(
            runId=ids, status=statuses("started", "completed", "timeout", "error"), startedAt=epochs_ms,
            endedAt=epochs_ms, durationMs=milliseconds, messageId=ids, roomId=ids, entityId=ids, counts=anything,
        ),
        events=elizaos_events,
    ),
    fields(
        runId=ids, agentId=ids, roomId=ids, startTime=epochs_ms, endTime=epochs_ms, events=elizaos_events,
        status=statuses("completed", "failed", "cancelled"), errors=rows(words),
        tokensUsed=fields(promptTokens=counts, completionTokens=counts, totalTokens=counts),
    ),
)  # fmt: skip
casedev_details = fields(
    id=ids, agentId=ids, status=statuses("queued", "completed", "failed", "cancelled"), prompt=words, guidance=words,
    model=words, result=fields(
        output=words, finalResponse=fields(summary=words, issues=rows(words)), logs=fields(runtime=words, runner=words)
    ),
    usage=fields(
        model=words, inputTokens=counts, outputTokens=counts, durationMs=milliseconds,
        summary=fields(costMicros=counts, totalInputTokens=counts, totalOutputTokens=counts, totalTokens=counts),
        entries=rows(fields(
            id=ids, kind=statuses("llm", "api"), service=words, endpoint=words, method=words, statusCode=counts,
            costMicros=counts, promptTokens=counts, completionTokens=counts, totalTokens=counts, model=words,
            timestamp=instants, metadata=anything,
        )),
    ),
    steps=rows(fields(
        id=ids, type=statuses("output", "thinking", "tool_call", "tool_result"), content=words, toolName=words,
        toolInput=anything, toolOutput=anything, durationMs=milliseconds, timestamp=instants,
    )),
    createdAt=instants, startedAt=instants, completedAt=instants,
)  # fmt: skip
MADE_UP: dict[str, st.SearchStrategy[Documents]] = {
    "flowyble": st.fixed_dictionaries({"detail": flowyble_details}),
    "runtype": st.fixed_dictionaries(
        {"detail": runtype_details},
        optional={"tools": runtype_calls, "tool/1": runtype_payload, "tool/a": runtype_payload},
    ),
    "elizaos": st.fixed_dictionaries(
        {"detail": st.one_of(elizaos_details, elizaos_details.map(lambda detail: {"success": True, "data": detail}))}
    ),
    "casedev": st.fixed_dictionaries({"detail": casedev_details}),
}
"""By platform, the documents of a run from scratch."""
