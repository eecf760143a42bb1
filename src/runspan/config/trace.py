"""What of the configuration shapes traces: how much of content they show, and prices for what has none."""

from decimal import Decimal
from typing import Annotated, Self, TypeAlias

from pydantic import Field, model_validator

from runspan.config.table import Table, refusal, refuse
from runspan.patterns import Pattern
from runspan.quantities import Size

Amount: TypeAlias = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
"""Money, exactly as its digits stand in the file."""
Currency: TypeAlias = Annotated[str, Field(pattern=r"^[a-z]{3}$")]
"""An ISO 4217 code in lower case."""


class ContentConfig(Table):
    """What was said in a run. All of it stays out unless capture is on; then each kind can be switched off."""

    capture: bool = False
    """Whether content is fetched and exported at all. It is masked and cut before it leaves; the ledger and the logs
    never hold any."""
    prompts: bool = True
    """System instructions (case.dev: guidance) and what was asked: Flowyble userMessage, Runtype inputMessages,
    case.dev prompt, and the prompt of each model call (elizaOS)."""
    messages: bool = True
    """What was answered: the run's final output (Flowyble, Runtype, case.dev) and that of each model call (Runtype
    iterations, elizaOS)."""
    reasoning: bool = True
    """What a model thought on the way: Flowyble reasoning, case.dev thinking steps."""
    arguments: bool = True
    """What tools and actions were given. Runtype: where arguments and results are both off, the payload of each call
    is not even fetched."""
    results: bool = True
    """What tools and actions gave back."""
    logs: bool = True
    """The texts of notes: case.dev output steps and issues, errors of runs that ended well. Why a run failed is not
    content: it is the description of its span's status, masked and cut to 256 characters."""
    allow_keys: tuple[str, ...] = Field(default=(), examples=[["order_id", "status"]])
    """Of arguments and results only what stands under these JSON keys, at every depth: a key inside another needs both
    to be named. What has no key at all is left out too. Default: all keys."""
    deny_keys: tuple[str, ...] = Field(default=(), examples=[["ssn", "card_number"]])
    """JSON keys of arguments and results, at any depth, whose values are masked whole. Both lists look into JSON that
    stands in strings as well, and take no notice of case. Default: none, but names of secrets (password, api_key,
    access_token, ...) are masked always."""
    mask: tuple[Pattern, ...] = Field(default=(), examples=[[r"\bPAT-\d{6}\b"]])
    """Regular expressions (Python's). What they match is masked in all content and in error descriptions, beside
    secrets of well-known forms and e-mail addresses. A pattern never sees more than 1024 characters at once, so what is
    longer than 512 may be missed; repetitions inside repetitions are refused, since they can take for ever.
    Default: none."""
    max_bytes: Size | None = Field(default=None, examples=["1KB"])
    """The most that one attribute with content may take; longer ones are cut with their JSON still valid. Default: the
    limit of the destination's preset."""


class ModelPriceConfig(Table):
    """What a million tokens of one model cost."""

    input: Amount | None = None
    """Input tokens that were not read from a cache."""
    output: Amount | None = None
    """Output tokens."""
    cache_read: Amount | None = None
    """Input tokens that were read from a cache. Default: as input."""
    cache_write: Amount | None = None
    """Input tokens that were written to a cache. Default: as input."""
    reasoning: Amount | None = None
    """Output tokens spent on reasoning. Default: as output."""
    currency: Currency | None = None
    """Default: that of [prices]."""

    @model_validator(mode="after")
    def _has_a_price(self) -> Self:
        if self.input is None and self.output is None:
            refuse([refusal(("input",), "missing: write what a million tokens cost, input and output")])
        return self


class PricesConfig(Table):
    """Prices, for platforms that tell tokens and a model but no cost. What they give is marked as local
    (runspan.cost.source), and never goes before a cost that the platform tells."""

    models: dict[str, ModelPriceConfig] = Field(
        default_factory=dict[str, ModelPriceConfig], examples=[{"gpt-4o*": {"input": 2.5, "output": 10.0}}]
    )
    """What a million tokens cost, by model: its name, or a pattern in which * stands for any characters. An exact name
    goes first, then the longest pattern. Keys: input, output, cache_read, cache_write, reasoning, currency."""
    currency: Currency = "usd"
    """What currency the prices of models are in."""
    use: str = Field(default="", pattern=r"^(|genai-prices(==[A-Za-z0-9.+!-]+)?)$", examples=["genai-prices"])
    """genai-prices: for models that are not in the table, the prices that this package brings (US dollars), as they
    were at the time of the call; nothing is asked over the network. Needs the extra `prices`. The package's version
    then decides what traces say, as a setting does: keep it alike on all hosts, or write genai-prices==0.2.3, and any
    other version is refused. Default: none."""
