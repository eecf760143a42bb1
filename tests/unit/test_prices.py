"""Costs that the platform does not tell: from the configuration's prices, marked, and never beside a cost it tells."""

import sys
from dataclasses import replace
from decimal import Decimal
from typing import Any

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runspan.errors import ConfigError
from runspan.model import Cost, Run, RunStatus, Step, StepKind, Usage
from runspan.projection import ProjectionSettings, project
from runspan.projection.accounting import walk
from runspan.projection.prices import ModelPrice, Prices, priced
from runspan.published_prices import published
from tests.unit.projection_runs import SECOND, START, chat, iteration, run_of, step, tool

D = Decimal
GPT = ModelPrice(currency="usd", input=D("2.5"), output=D("10"))
TABLE = Prices(table={"gpt": GPT})
USED = Usage(input_tokens=1000, output_tokens=100)
GPT_COST = Cost(D("0.0035"), "usd", local=True)


def cost_of(item: Step | Run, prices: Prices = TABLE, **fields: Any) -> Cost | None:
    """What the one call of a run costs."""
    run = priced(run_of(item, **fields) if isinstance(item, Step) else item, prices, "usd", None)
    return run.steps[0].cost


# A price


@pytest.mark.parametrize(
    ("price", "usage", "amount"),
    [
        ({}, USED, "0.0035"),
        ({}, Usage(input_tokens=1000, output_tokens=0), "0.0025"),
        ({}, Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=400, reasoning_tokens=50), "0.0035"),
        ({"cache_read": D("0.25")}, Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=400), "0.0026"),
        ({"cache_write": D("5")}, Usage(input_tokens=1000, output_tokens=100, cache_write_tokens=400), "0.0045"),
        ({"reasoning": D("20")}, Usage(input_tokens=1000, output_tokens=100, reasoning_tokens=100), "0.0045"),
        ({"cache_read": D(0)}, Usage(input_tokens=1000, output_tokens=0, cache_read_tokens=1000), "0"),
        ({"output": None}, Usage(input_tokens=1000, output_tokens=0), "0.0025"),
        ({"output": None}, USED, None),
        ({"input": None}, USED, None),
        ({}, Usage(input_tokens=10, output_tokens=1, cache_read_tokens=11), None),
        ({}, Usage(input_tokens=10, output_tokens=1, reasoning_tokens=2), None),
    ],
)
def test_tokens_cost_what_their_kind_costs(price: dict[str, Any], usage: Usage, amount: str | None) -> None:
    cost = replace(GPT, **price).of(usage)
    assert cost == (None if amount is None else Cost(D(amount), "usd", local=True))


@pytest.mark.parametrize(
    ("model", "input_price"),
    [
        ("gpt-4o", 1),
        ("GPT-4o", 1),
        ("gpt-4o-mini", 2),
        ("gpt-5", 3),
        ("openai/gpt-4o", 4),
        ("claude", None),
        ("", None),
    ],
)
def test_a_model_is_found_by_its_name_and_then_by_the_longest_pattern(model: str, input_price: int | None) -> None:
    names = {"gpt-*": 3, "gpt-4o": 1, "Gpt-4O*": 2, "*/gpt-4o": 4}
    table = Prices(table={name: replace(GPT, input=D(price)) for name, price in names.items()})
    found = table.find(model)
    assert (found and found.input) == input_price


# A run


@pytest.mark.parametrize(
    "call",
    [
        chat(name="gpt", usage=USED),
        step(StepKind.EMBEDDINGS, name="gpt", usage=Usage(input_tokens=1400)),
        iteration(1, chat(name="gpt", usage=USED)).children[0],
    ],
)
def test_a_call_of_known_model_and_tokens_gets_a_cost(call: Step) -> None:
    assert cost_of(call) == GPT_COST


def test_a_run_of_one_model_tells_that_of_its_calls() -> None:
    assert cost_of(chat(usage=USED), model="gpt") == GPT_COST
    assert cost_of(chat(name="other", usage=USED), model="gpt") is None


@pytest.mark.parametrize(
    "call",
    [
        chat(usage=USED),
        chat(name="gpt"),
        chat(name="gpt", usage=Usage(total_tokens=1100)),
        chat(name="gpt", usage=Usage(input_tokens=1000)),
        chat(name="gpt", usage=Usage(output_tokens=100)),
        chat(name="unknown", usage=USED),
        tool(name="gpt", usage=USED),
    ],
)
def test_where_anything_is_missing_there_is_no_cost(call: Step) -> None:
    assert cost_of(call) is None
    assert priced(run_of(call), TABLE, "usd", None).cost is None


@pytest.mark.parametrize("cost", [Cost(D(0)), Cost(D(1), "credits"), Cost(D(1), "eur")])
def test_a_cost_that_the_platform_tells_is_the_cost(cost: Cost) -> None:
    run = run_of(chat(name="gpt", usage=USED), cost=cost, model="gpt")
    assert priced(run, TABLE, "usd", None) == run
    told = run_of(chat(name="gpt", usage=USED, cost=cost))
    assert cost_of(told) == cost


def test_calls_that_say_more_than_their_run_are_not_priced() -> None:
    run = run_of(chat(name="gpt", usage=USED), usage=Usage(total_tokens=500))
    assert priced(run, TABLE, "usd", None) == run


@pytest.mark.parametrize(
    ("run", "total"),
    [
        (run_of(chat("1", name="gpt", usage=USED), tool("2", children=(chat("3", name="gpt", usage=USED),))), "0.007"),
        (run_of(chat(name="gpt", usage=USED), usage=Usage(total_tokens=1100)), "0.0035"),
        (run_of(chat("1", name="gpt", usage=USED), chat("2", usage=USED, cost=Cost(D("0.001")))), "0.0045"),
        (run_of(model="gpt", usage=USED), "0.0035"),
        (run_of(tool(), model="gpt", usage=USED), "0.0035"),
        # Of these the sum of the calls is not all that the run cost.
        (run_of(chat("1", name="gpt", usage=USED), chat("2", name="unknown", usage=USED)), None),
        (run_of(chat("1", name="gpt", usage=USED), chat("2")), None),
        (run_of(chat(name="gpt", usage=USED), usage=Usage(total_tokens=1101)), None),
        (run_of(chat("1", name="gpt", usage=USED), chat("2", usage=USED, cost=Cost(D(1), "eur"))), None),
        # These are for the platform to sum up.
        (run_of(chat(name="gpt", usage=USED, cost=Cost(D(1)))), None),
        (run_of(model="gpt", usage=Usage(total_tokens=1100)), None),
    ],
)
def test_a_run_costs_what_all_its_calls_cost(run: Run, total: str | None) -> None:
    expected = None if total is None else Cost(D(total), "usd", local=True)
    assert priced(run, TABLE, "usd", None).cost == expected


CALLS = st.builds(
    chat,
    st.sampled_from("abc"),
    name=st.sampled_from(["gpt", "unknown", None]),
    usage=st.builds(
        Usage,
        input_tokens=st.none() | st.integers(0, 5000),
        output_tokens=st.none() | st.integers(0, 5000),
        cache_read_tokens=st.none() | st.integers(0, 100),
    ),
    cost=st.none() | st.builds(Cost, st.decimals(0, 1, places=4), st.sampled_from([None, "usd", "credits"])),
)


@given(st.lists(CALLS, max_size=5), st.none() | st.builds(Usage, total_tokens=st.integers(0, 20_000)))
def test_no_sum_of_calls_exceeds_the_total_and_each_local_cost_says_so(calls: list[Step], usage: Usage | None) -> None:
    settings = ProjectionSettings(source="s", prices=TABLE, credit_rate=D("0.01"))
    trace = project(run_of(*calls, usage=usage or Usage()), settings)
    root, spans = trace.root.attributes, trace.spans[1:]
    for unit in ("usd", "credits"):
        total = root.get(f"runspan.run.cost.{unit}")
        summed = sum(float(str(span.attributes.get(f"runspan.cost.{unit}", 0))) for span in spans)
        assert total is None or summed <= float(str(total)) * (1 + 1e-12)
    for span in spans:
        has_cost = "runspan.cost.usd" in span.attributes
        assert ("runspan.cost.source" in span.attributes) is has_cost
        is_local = span.attributes.get("runspan.cost.source") == "local"
        if is_local and "runspan.cost.credits" not in span.attributes:
            assert span.attributes["gen_ai.request.model"] == "gpt"


# Credits


def test_credits_stay_and_are_worth_what_the_rate_says() -> None:
    settings = ProjectionSettings(source="s", currency="eur", credit_rate=D("0.01"))
    run = run_of(chat(cost=Cost(D("0.5"), "credits")), cost=Cost(D("0.85"), "credits"))
    trace = project(run, settings)
    assert {key: value for key, value in trace.root.attributes.items() if "cost" in key} == {
        "runspan.run.cost.credits": 0.85,
        "runspan.run.cost.eur": 0.0085,
        "runspan.run.cost.source": "local",
    }
    assert {key: value for key, value in trace.spans[1].attributes.items() if "cost" in key} == {
        "runspan.cost.credits": 0.5,
        "runspan.cost.eur": 0.005,
        "runspan.cost.source": "local",
    }


def test_without_a_rate_credits_are_only_credits() -> None:
    root = project(run_of(cost=Cost(D("0.85"), "credits")), ProjectionSettings(source="s")).root.attributes
    assert {key for key in root if "cost" in key} == {"runspan.run.cost.credits", "runspan.run.cost.source"}
    assert root["runspan.run.cost.source"] == "platform"


def test_money_is_worth_no_more_by_a_rate() -> None:
    run = run_of(cost=Cost(D("0.85")))
    assert priced(run, TABLE, "usd", D("0.01")) == run


# genai-prices


def at(year: int) -> int:
    return (year - 1970) * 31_557_600 * SECOND


PUBLISHED = Prices(published=published("genai-prices"))


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o", None),
        ("gpt-4o", "openai"),
        ("gpt-4o", "some-platform"),
        ("openai/gpt-4o", None),
        ("openai/gpt-4o", "openrouter-like"),
    ],
)
def test_published_prices_are_found_by_model_and_provider(model: str, provider: str | None) -> None:
    attributes = {"gen_ai.provider.name": provider} if provider else {}
    assert cost_of(chat(name=model, usage=USED, attributes=attributes), PUBLISHED) == GPT_COST


@pytest.mark.parametrize("name", ["vendor/model-x", "TEXT_LARGE", "", "/", "gpt-4o/"])
def test_an_unknown_model_has_no_published_price(name: str) -> None:
    assert cost_of(chat(name=name, usage=USED), PUBLISHED) is None


@pytest.mark.parametrize(
    ("kind", "usage"),
    [
        (StepKind.MODEL_CALL, Usage(input_tokens=10, output_tokens=1, cache_read_tokens=11)),
        (StepKind.MODEL_CALL, Usage(input_tokens=10)),
    ],
)
def test_unsound_tokens_have_no_published_price(kind: StepKind, usage: Usage) -> None:
    assert cost_of(step(kind, name="gpt-4o", usage=usage), PUBLISHED) is None


def test_output_of_a_model_that_is_only_priced_by_input_has_no_published_price() -> None:
    call = step(StepKind.EMBEDDINGS, name="openai/text-embedding-3-small", usage=Usage(input_tokens=1000))
    assert cost_of(call, PUBLISHED) is not None
    assert cost_of(replace(call, usage=USED), PUBLISHED) is None


def test_published_prices_are_those_of_the_time_of_the_call() -> None:
    """The model o3 became cheaper in June 2025."""
    before, after = (
        cost_of(chat(name="o3", usage=USED, end_ns=at(year)), PUBLISHED, started_ns=at(2020), ended_ns=at(2027))
        for year in (2025, 2026)
    )
    assert before is not None
    assert after is not None
    assert before.amount > after.amount


def test_prices_that_depend_on_a_calls_length_are_for_calls_alone() -> None:
    run = run_of(model="gemini-2.5-pro", usage=USED, created_ns=START, status=RunStatus.SUCCESS)
    assert priced(run, PUBLISHED, "usd", None).cost is None
    assert cost_of(chat(name="gemini-2.5-pro", usage=USED), PUBLISHED) is not None
    assert priced(replace(run, model="gpt-4o"), PUBLISHED, "usd", None).cost == GPT_COST


def test_the_table_goes_before_what_is_published() -> None:
    both = replace(PUBLISHED, table={"gpt-4o": replace(GPT, input=D(100))})
    assert cost_of(chat(name="gpt-4o", usage=USED), both) == Cost(D("0.101"), "usd", local=True)
    unpriced = replace(PUBLISHED, table={"gpt-4o": ModelPrice(currency="usd", input=D(1))})
    assert cost_of(chat(name="gpt-4o", usage=USED), unpriced) is None


def test_another_version_than_the_named_one_is_refused() -> None:
    assert published(f"genai-prices=={genai_prices.__version__}") is not None
    assert published("") is None
    with pytest.raises(ConfigError, match=r"use = 'genai-prices==0.0.1', but genai-prices \S+ is installed") as refused:
        published("genai-prices==0.0.1")
    assert "\n" not in str(refused.value)


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    published.cache_clear()
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(ConfigError, match="install runspan with its extra `prices`"):
        published("genai-prices")


def test_every_call_of_a_run_is_walked() -> None:
    run = run_of(
        iteration(1, chat("1", name="gpt", usage=USED), tool("2", children=(chat("3", name="gpt", usage=USED),)))
    )
    costs = [item.cost for item in walk(priced(run, TABLE, "usd", None).steps)]
    assert costs == [None, GPT_COST, None, GPT_COST]
