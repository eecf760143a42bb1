"""Costs that a platform does not tell, from prices that the configuration names. Pure.

A cost made here is `local`. Nothing is guessed: where a call's model, its tokens or a price is not known, it has no
cost. Where the platform tells the run's cost, that is the cost, and nothing is added to it but what credits are worth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Protocol

from runspan.model import NO_USAGE, Cost, Run, Step, StepKind, Usage
from runspan.projection.accounting import account, cost_unit, is_counted, walk

MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPrice:
    """What a million tokens cost, None where that is not known.

    Cached and reasoning tokens without a price of their own cost as much as the input and output they are part of.
    """

    currency: str
    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    reasoning: Decimal | None = None

    def of(self, usage: Usage) -> Cost | None:
        """What these tokens cost; None where there are tokens of unknown price, or parts larger than their whole."""
        read, written, thought = (
            usage.cache_read_tokens or 0,
            usage.cache_write_tokens or 0,
            usage.reasoning_tokens or 0,
        )
        parts = (
            ((usage.input_tokens or 0) - read - written, self.input),
            (read, _first(self.cache_read, self.input)),
            (written, _first(self.cache_write, self.input)),
            ((usage.output_tokens or 0) - thought, self.output),
            (thought, _first(self.reasoning, self.output)),
        )
        amount = Decimal(0)
        for tokens, price in parts:
            if tokens < 0 or (tokens and price is None):
                return None
            amount += tokens * (price or Decimal(0))
        return Cost(amount / MILLION, self.currency, local=True)


class Published(Protocol):
    """Prices out of a published collection."""

    def __call__(self, model: str, provider: str | None, usage: Usage, at_ns: int, *, one_call: bool) -> Cost | None:
        """What these tokens cost at that time, None where it is not known.

        `one_call` is False for the tokens of several calls, which a price that depends on a call's length cannot tell.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """A table of models, by name or with `*` for any characters, and a published collection for those not in it."""

    table: Mapping[str, ModelPrice] = field(default_factory=dict[str, ModelPrice])
    published: Published | None = None

    def find(self, model: str) -> ModelPrice | None:
        """The table's price of a model: by its very name, else by the longest pattern that it matches."""
        name = model.casefold()
        matching = [(key.casefold() == name, len(key), key) for key in self.table if fnmatchcase(name, key.casefold())]
        return self.table[max(matching)[-1]] if matching else None

    def cost(
        self, model: str, provider: str | None, usage: Usage, at_ns: int | None, *, one_call: bool = True
    ) -> Cost | None:
        """What these tokens of a model cost, None where it is not known."""
        price = self.find(model)
        if price is not None:
            return price.of(usage)
        if self.published is None or at_ns is None:
            return None
        return self.published(model, provider, usage, at_ns, one_call=one_call)


NO_PRICES = Prices()


def priced(run: Run, prices: Prices, currency: str | None, credit_rate: Decimal | None) -> Run:
    """The run with what its credits are worth, and with the costs of its calls where the platform tells none."""
    if run.cost is None and (prices.table or prices.published) and account(run, currency).tokens_agree:
        run = replace(run, steps=_with_costs(run.steps, run, prices))
        run = replace(run, cost=_total(run, prices, currency))
    if credit_rate is None or currency is None:
        return run
    return replace(
        run,
        cost=_with_worth(run.cost, currency, credit_rate),
        steps=_with_worths(run.steps, currency, credit_rate),
    )


def _with_costs(steps: Sequence[Step], run: Run, prices: Prices) -> tuple[Step, ...]:
    return tuple(
        replace(step, children=_with_costs(step.children, run, prices), cost=step.cost or _cost(step, run, prices))
        for step in steps
    )


def _cost(step: Step, run: Run, prices: Prices) -> Cost | None:
    model = step.name or run.model
    whole = step.usage.output_tokens is not None or step.kind is StepKind.EMBEDDINGS
    if not is_counted(step) or model is None or step.usage.input_tokens is None or not whole:
        return None
    provider = step.attributes.get("gen_ai.provider.name")
    at_ns = step.end_ns or step.start_ns or _time_ns(run)
    return prices.cost(model, provider if isinstance(provider, str) else None, step.usage, at_ns)


def _total(run: Run, prices: Prices, currency: str | None) -> Cost | None:
    """What the run cost, where that is the sum of its calls, or follows from its own tokens since no call has any."""
    steps = list(walk(run.steps))
    if all(step.usage == NO_USAGE and step.cost is None for step in steps):
        if run.model is None or run.usage.input_tokens is None or run.usage.output_tokens is None:
            return None
        return prices.cost(run.model, None, run.usage, _time_ns(run), one_call=False)
    costs = [step.cost for step in steps if step.cost is not None]
    all_known = all(step.cost is not None for step in steps if is_counted(step))
    units = {cost_unit(cost, currency) for cost in costs}
    if not all_known or len(units) != 1 or account(run, currency).unattributed_tokens:
        return None
    if not any(cost.local for cost in costs):
        return None  # the platform could have told the sum itself
    return Cost(sum((cost.amount for cost in costs), Decimal(0)), units.pop(), local=True)


def _with_worths(steps: Sequence[Step], currency: str, credit_rate: Decimal) -> tuple[Step, ...]:
    return tuple(
        replace(
            step,
            children=_with_worths(step.children, currency, credit_rate),
            cost=_with_worth(step.cost, currency, credit_rate),
        )
        for step in steps
    )


def _with_worth(cost: Cost | None, currency: str, credit_rate: Decimal) -> Cost | None:
    if cost is None or cost.unit != "credits":
        return cost
    return replace(cost, worth=Cost(cost.amount * credit_rate, currency, local=True))


def _time_ns(run: Run) -> int | None:
    return run.ended_ns or run.started_ns or run.created_ns


def _first(price: Decimal | None, other: Decimal | None) -> Decimal | None:
    return other if price is None else price
