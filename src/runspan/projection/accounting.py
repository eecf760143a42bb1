"""Which tokens and costs a trace may show where, so that no sum over its spans exceeds what the platform reported."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal

from runspan.model import NO_USAGE, Cost, Run, Step, StepKind, Usage

_FIGURES = tuple(field.name for field in fields(Usage))
_COUNTED = (StepKind.MODEL_CALL, StepKind.EMBEDDINGS)
_MAX_INT64 = 2**63 - 1
_MAX_DECIMAL_EXPONENT = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """How the calls of a run add up to its totals.

    Where the calls say more than the platform's own total, the total counts: theirs are then shown under names that
    nobody sums (`runspan.usage.reported_...`), with a problem on the root.
    """

    calls_count_tokens: bool
    """Whether the calls carry tokens where backends add them up; if not, the root does."""
    calls_tell_parts: bool
    """Whether more than totals is told of them: input, output or parts of these; if not, the root tells of those."""
    tokens_agree: bool
    costs_agree: bool
    unattributed_tokens: int | None
    """The total less what the calls say; None where either is unknown."""
    currency: str | None
    """What an amount without a currency is taken to be in."""
    currency_assumed: bool
    problems: tuple[str, ...]
    calls_cost_usd: bool
    """Whether the calls carry costs in US dollars, which is what backends add up; if not, the root does."""

    def unit(self, cost: Cost) -> str:
        """The last part of a cost's attribute name: `credits`, a currency, or `amount` where none is known."""
        return cost_unit(cost, self.currency)

    def call_usd(self, cost: Cost | None) -> float | None:
        """What a call may show where backends add up US dollars."""
        return _usd(cost, self.currency) if self.costs_agree else None

    def run_usd(self, cost: Cost | None) -> float | None:
        """What the root may show there."""
        return None if self.calls_cost_usd else _usd(cost, self.currency)


def account(run: Run, currency: str | None) -> Account:
    """Compare a run's calls with its totals; amounts without a unit are taken to be in `currency`."""
    calls = [step for step in walk(run.steps) if is_counted(step) and step.usage != NO_USAGE]
    costs = [step.cost for step in walk(run.steps) if step.cost is not None]
    tokens_agree = not any(_exceeds(name, calls, run.usage) for name in _FIGURES) and _totals_fit(calls, run.usage)
    costs_agree = _costs_fit(run.cost, costs, currency)
    total, parts = run.usage.known_total, [step.usage.known_total for step in calls]
    known = [part for part in parts if part is not None]
    problems: list[str] = []
    if total is not None and total < (run.usage.input_tokens or 0) + (run.usage.output_tokens or 0):
        problems.append("usage: the run's total is less than its input and output")
    if not tokens_agree:
        problems.append("usage: the calls report more tokens than the run")
    if not costs_agree:
        problems.append("cost: the calls report more than the run")
    every_cost = [*costs, *([run.cost] if run.cost else [])]
    return Account(
        calls_count_tokens=bool(calls) and tokens_agree,
        calls_tell_parts=tokens_agree and any(replace(step.usage, total_tokens=None) != NO_USAGE for step in calls),
        tokens_agree=tokens_agree,
        costs_agree=costs_agree,
        unattributed_tokens=total - sum(known) if total is not None and known and tokens_agree else None,
        currency=currency,
        currency_assumed=currency is not None and any(cost.unit is None for cost in every_cost),
        problems=tuple(problems),
        calls_cost_usd=costs_agree and any(_usd(cost, currency) is not None for cost in costs),
    )


def is_counted(step: Step) -> bool:
    """Whether a step is of a kind whose tokens backends add up."""
    return step.kind in _COUNTED


def cost_unit(cost: Cost, currency: str | None) -> str:
    """`credits`, a currency, or `amount` where neither the platform nor the configuration tells one."""
    unit = re.sub(r"[^a-z0-9]+", "_", (cost.unit or currency or "").lower()).strip("_")
    return unit or "amount"


def is_amount(cost: Cost) -> bool:
    """Whether a cost is a number that a double can hold, give or take its last digits."""
    return cost.amount.is_finite() and cost.amount.adjusted() < _MAX_DECIMAL_EXPONENT


def sound_usage(usage: Usage) -> Usage:
    """The usage without figures that cannot be: negative, or beyond 64 bits."""
    unsound = {
        name: None
        for name in _FIGURES
        if (figure := getattr(usage, name)) is not None and not 0 <= figure <= _MAX_INT64
    }
    return replace(usage, **unsound) if unsound else usage


def walk(steps: Sequence[Step]) -> Iterator[Step]:
    """Every step, each before its children."""
    for step in steps:
        yield step
        yield from walk(step.children)


def _usd(cost: Cost | None, currency: str | None) -> float | None:
    money = cost.worth or cost if cost else None
    if money is None or not is_amount(money) or cost_unit(money, currency) != "usd":
        return None
    return float(money.amount)


def _exceeds(name: str, calls: Sequence[Step], total: Usage) -> bool:
    limit: int | None = getattr(total, name)
    return limit is not None and sum(getattr(step.usage, name) or 0 for step in calls) > limit


def _totals_fit(calls: Sequence[Step], total: Usage) -> bool:
    limit = total.known_total
    if limit is None:
        return True
    # Where the run tells both parts, each has been held against its own.
    parts_are_told = total.input_tokens is not None and total.output_tokens is not None
    spent = 0
    for step in calls:
        reported, parts = step.usage.total_tokens, (step.usage.input_tokens or 0) + (step.usage.output_tokens or 0)
        spent += parts if reported is None else reported if parts_are_told else max(reported, parts)
    return spent <= limit


def _costs_fit(total: Cost | None, costs: Sequence[Cost], currency: str | None) -> bool:
    parts = [amount for cost in costs for amount in _amounts(cost)]
    return all(_fit(whole, parts, currency) for whole in _amounts(total))


def _fit(whole: Cost, parts: Sequence[Cost], currency: str | None) -> bool:
    unit = cost_unit(whole, currency)
    return sum((part.amount for part in parts if cost_unit(part, currency) == unit), Decimal(0)) <= whole.amount


def _amounts(cost: Cost | None) -> Sequence[Cost]:
    """A cost in its own unit, and in the currency that credits are worth."""
    return [] if cost is None else [amount for amount in (cost, cost.worth) if amount is not None and is_amount(amount)]
