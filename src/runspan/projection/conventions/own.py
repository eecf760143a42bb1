"""Our own names, for what no convention has a word for. They are always there, beside whatever convention is chosen."""

import math
from collections.abc import Mapping

from runspan.model import AttributeValue, Cost, Run, Step, Usage
from runspan.projection.accounting import Account, is_amount, is_counted
from runspan.projection.timing import Interval

ITERATION = "runspan.iteration"
LINK = "runspan.link"
NOTE_TEXT = "runspan.note.text"
PROBLEMS = "runspan.problems"
RUN_ID = "runspan.run.id"
TIMING = "runspan.timing"
TRIMMED = "runspan.trimmed"

_NS_PER_SECOND = 1_000_000_000
_NS_PER_MS = 1_000_000


def on_every_span(run: Run, source: str) -> Mapping[str, AttributeValue | None]:
    """Whose span it is."""
    return {RUN_ID: run.ref.run_id, "runspan.source": source, "runspan.platform": run.ref.platform}


def on_root(run: Run, account: Account) -> Mapping[str, AttributeValue | None]:
    """The platform's totals: authoritative, whatever the calls add up to."""
    return {
        "runspan.run.status": run.raw_status,
        "runspan.run.stop_reason": run.stop_reason,
        "runspan.run.queue_seconds": _queue_seconds(run),
        "runspan.run.steps_reported": run.steps_reported,
        "runspan.run.steps_listed": run.steps_listed,
        "runspan.run.parent_id": run.parent_run_id,
        **_tokens("runspan.run.", run.usage),
        "runspan.run.total_tokens": run.usage.known_total,
        "runspan.run.unattributed_tokens": account.unattributed_tokens,
        **_cost("runspan.run.cost.", run.cost, account),
        "runspan.run.cost.currency_assumed": True if account.currency_assumed else None,
        "runspan.incomplete": True if run.incomplete else None,
    }


def on_step(step: Step, account: Account) -> Mapping[str, AttributeValue | None]:
    """What a step cost and which iteration it belongs to."""
    spent: Mapping[str, AttributeValue | None] = {}
    if is_counted(step) and not account.tokens_agree:
        prefix = "runspan.usage.reported_"
        spent = {**_tokens(prefix, step.usage), f"{prefix}total_tokens": step.usage.total_tokens}
    elif is_counted(step) and step.usage.total_tokens != _both(step.usage):
        spent = {"runspan.usage.total_tokens": step.usage.total_tokens}
    cost_prefix = "runspan.cost." if account.costs_agree else "runspan.cost.reported_"
    return {ITERATION: step.iteration, **spent, **_cost(cost_prefix, step.cost, account)}


def on_interval(interval: Interval) -> Mapping[str, AttributeValue | None]:
    """How the times came about, and the duration that was said where they do not show it."""
    said = interval.said_duration_ns
    return {TIMING: interval.timing.value, "runspan.reported_duration_ms": None if said is None else said / _NS_PER_MS}


def _tokens(prefix: str, usage: Usage) -> Mapping[str, AttributeValue | None]:
    return {
        f"{prefix}input_tokens": usage.input_tokens,
        f"{prefix}output_tokens": usage.output_tokens,
        f"{prefix}cache_read_tokens": usage.cache_read_tokens,
        f"{prefix}cache_write_tokens": usage.cache_write_tokens,
        f"{prefix}reasoning_tokens": usage.reasoning_tokens,
    }


def _both(usage: Usage) -> int | None:
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    return usage.input_tokens + usage.output_tokens


def _cost(prefix: str, cost: Cost | None, account: Account) -> Mapping[str, AttributeValue | None]:
    if cost is None:
        return {}
    money = cost.worth or cost
    return {
        # An amount that is none becomes a number that cannot be sent, and so is named among the problems.
        **{f"{prefix}{account.unit(one)}": float(one.amount) if is_amount(one) else math.nan for one in (cost, money)},
        f"{prefix}source": "local" if money.local else "platform",
    }


def _queue_seconds(run: Run) -> float | None:
    if run.created_ns is None or run.started_ns is None or run.started_ns < run.created_ns:
        return None
    return (run.started_ns - run.created_ns) / _NS_PER_SECOND
