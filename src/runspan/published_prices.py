"""Prices out of the package genai-prices: the one module that imports it, and only where the configuration asks for it.

The package could fetch newer prices over the network; that is never started, so its version alone decides.
"""

from datetime import UTC, datetime
from decimal import Decimal
from functools import cache

from runspan.errors import ConfigError
from runspan.model import Cost, Usage
from runspan.projection.prices import Published

_NS_PER_SECOND = 1_000_000_000


@cache
def published(wanted: str) -> Published | None:
    """The collection that `[prices] use` names; None for an empty text.

    Raises ConfigError where the package is not installed, or has another version than the one that is named.
    """
    if not wanted:
        return None
    _, _, version = wanted.partition("==")
    try:
        import genai_prices
        from genai_prices.data_snapshot import get_snapshot
    except ImportError:
        raise ConfigError(
            f"[prices] use = {wanted!r} needs a package that is not installed: install runspan with its extra "
            "`prices` (requirements-prices.lock)"
        ) from None
    if version and version != genai_prices.__version__:
        raise ConfigError(
            f"[prices] use = {wanted!r}, but genai-prices {genai_prices.__version__} is installed, and costs could "
            "differ: install the one, or name the other"
        )
    get_snapshot()  # read now: it takes a quarter of a second
    return _cost


def _cost(model: str, provider: str | None, usage: Usage, at_ns: int, *, one_call: bool) -> Cost | None:
    # The first name that is known: `openai/gpt-4o` names its provider itself.
    own_provider, _, own_model = model.rpartition("/")
    for provider_id, name in ((provider, model), (own_provider or None, own_model), (None, model)):
        if (amount := _amount(name, provider_id, usage, at_ns, one_call=one_call)) is not None:
            return Cost(amount, "usd", local=True)
    return None


def _amount(model: str, provider: str | None, usage: Usage, at_ns: int, *, one_call: bool) -> Decimal | None:
    import genai_prices
    from genai_prices.types import TieredPrices

    told = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
    }
    try:
        answer = genai_prices.calc_price(
            genai_prices.Usage(**{name: tokens for name, tokens in told.items() if tokens is not None}),
            model,
            provider_id=provider,
            genai_request_timestamp=datetime.fromtimestamp(at_ns // _NS_PER_SECOND, UTC),
        )
    except (LookupError, ValueError):
        return None
    rates = [(usage.input_tokens, answer.model_price.input_mtok), (usage.output_tokens, answer.model_price.output_mtok)]
    # Where it knows no price it counts nothing, which would be a cost too low.
    if any(tokens and rate is None for tokens, rate in rates):
        return None
    if not one_call and any(isinstance(rate, TieredPrices) for _, rate in rates):
        return None
    return answer.total_price
