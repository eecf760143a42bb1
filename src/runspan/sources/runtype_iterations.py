"""The turns of a Runtype execution: which model and tool calls they held, put into one order.

Of iterations the vendor's page shows number, output and tokens; its stream's event of a finished one has more, which is
read where it is there. Tool calls stand in a list of their own, and may name their iteration.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from runspan.model import Content, Cost, Json, Message, Step, StepKind, Usage
from runspan.sources.answers import TOOL_CALL, as_text
from runspan.sources.fields import Fields, in_order


def read_iterations(
    details: Sequence[Fields], calls: Sequence[Step], started_ns: int | None, ended_ns: int | None
) -> tuple[Step, ...]:
    """The iterations of `iterationDetails`, and those that only tool calls tell of, with the calls in them.

    `calls` are tool calls already read; one without an iteration stands among the iterations where its time lies
    between `started_ns` and `ended_ns`, the run's own.
    """
    by_iteration: dict[int | None, list[Step]] = {}
    for call in sorted(calls, key=lambda call: (_logged_ns(call), call.key)):
        by_iteration.setdefault(call.iteration, []).append(call)
    loose = by_iteration.pop(None, [])
    iterations: list[Step] = []
    for detail in in_order(details, lambda row: (row.integer("iteration") is None, row.integer("iteration") or 0)):
        number = detail.integer("iteration")
        iterations.append(_iteration(number, detail, by_iteration.pop(number, []) if number is not None else []))
    iterations += [_iteration(number, None, tools) for number, tools in by_iteration.items()]
    iterations.sort(key=lambda step: (step.iteration is None, step.iteration or 0))
    return _with_loose_calls(iterations, loose, started_ns, ended_ns)


def _iteration(number: int | None, detail: Fields | None, tools: Sequence[Step]) -> Step:
    """One turn: its model call, where the detail lists the turn, and the tools it called."""
    key = ("iteration", "" if number is None else str(number))
    if detail is None:
        return Step(kind=StepKind.ITERATION, key=key, iteration=number, children=tuple(tools))
    # `tokensUsed` is what the detail shows; the stream's event of a finished iteration has `tokens`, `cost` and times.
    tokens_key = "tokens" if detail.value("tokens") is not None else "tokensUsed"
    call = Step(
        kind=StepKind.MODEL_CALL,
        key=(*key, "chat"),
        iteration=number,
        usage=read_usage(detail, tokens_key),
        cost=read_cost(detail, "cost"),
        content=Content(output=said(detail.value("output")), finish_reason=TOOL_CALL if tools else None),
    )
    return Step(
        kind=StepKind.ITERATION,
        key=key,
        iteration=number,
        end_ns=detail.time_ns("completedAt"),
        duration_ns=detail.duration_ns("duration"),
        children=(call, *tools),
    )


def _with_loose_calls(
    iterations: list[Step], loose: Sequence[Step], started_ns: int | None, ended_ns: int | None
) -> tuple[Step, ...]:
    """Put tool calls that name no iteration among the iterations, where their time lies.

    Iterations without a time of their own count as equally long.
    """
    count = len(iterations)
    known = sorted((_logged_ns(step), place) for place, step in enumerate(iterations) if _logged_ns(step))
    times_ns = [time_ns for time_ns, _ in known]
    # Behind all that came before the call, and before all that came after it.
    firsts = [0, *accumulate((place + 1 for _, place in known), max)]
    lasts = [*accumulate((place for _, place in reversed(known)), min, initial=count)][::-1]
    among: list[list[Step]] = [[] for _ in range(count + 1)]
    for call in loose:
        at_ns = _logged_ns(call)
        earlier = bisect_right(times_ns, at_ns)
        place = count
        if at_ns and started_ns and ended_ns and ended_ns > started_ns:
            place = round(count * (at_ns - started_ns) / (ended_ns - started_ns))
        place = max(firsts[earlier], min(place, lasts[earlier]))
        among[place].append(call)
    steps = [step for calls, iteration in zip(among, iterations, strict=False) for step in (*calls, iteration)]
    return (*steps, *among[count])


def _logged_ns(step: Step) -> int:
    times_ns = [child.end_ns or child.start_ns or 0 for child in step.children]
    return step.end_ns or step.start_ns or max(times_ns, default=0)


def read_usage(fields: Fields, key: str) -> Usage:
    """`totalTokens`, `tokensUsed` and `tokens` are untyped: seen are a number, and an object of input and output."""
    if not isinstance(fields.value(key), dict):
        return Usage(total_tokens=fields.integer(key))
    tokens = fields.child(key)
    return Usage(
        input_tokens=tokens.integer("input"),
        output_tokens=tokens.integer("output"),
        total_tokens=tokens.integer("total"),
    )


def read_cost(fields: Fields, key: str) -> Cost | None:
    """An amount, as a decimal string or a number, of a currency that the vendor does not name."""
    amount = fields.decimal(key)
    return None if amount is None else Cost(amount)


def said(value: Json) -> tuple[Message, ...]:
    """An output, which is text in some places of the vendor's documents and an object in others."""
    return () if value is None else (Message(role="assistant", text=as_text(value)),)
