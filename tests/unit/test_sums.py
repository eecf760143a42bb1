"""Nothing is counted twice: whatever a backend adds up over a trace is at most what the platform told of the run."""

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runspan.model import Cost, Run, Step, StepKind, Usage
from runspan.otlp.presets import GENERIC
from runspan.projection import ProjectionSettings, project
from runspan.projection.accounting import sound_usage
from runspan.projection.conventions import CONVENTIONS
from runspan.trace import Span, Trace
from tests.unit.fixture_runs import fixture_runs, full_run
from tests.unit.projection_runs import run_of

Figures = Counter[str]
GEN_AI = {"gen_ai.usage.input_tokens": "input", "gen_ai.usage.output_tokens": "output"}
OPENINFERENCE = {
    "llm.token_count.prompt": "input",
    "llm.token_count.completion": "output",
    "llm.token_count.total": "total",
    "llm.cost.total": "usd",
}
FIGURES = {
    **GEN_AI,
    **OPENINFERENCE,
    "gen_ai.usage.cache_read.input_tokens": "cache read",
    "gen_ai.usage.cache_write.input_tokens": "cache write",
    "gen_ai.usage.reasoning.output_tokens": "reasoning",
    "llm.token_count.prompt_details.cache_read": "cache read",
    "llm.token_count.prompt_details.cache_write": "cache write",
    "llm.token_count.completion_details.reasoning": "reasoning",
    "runspan.usage.total_tokens": "total",
    "runspan.cost.usd": "usd",
}
"""What of the platform's own account the sum of a name over all spans is held against."""
LANGFUSE = {
    "input": "input",
    "input_cached_tokens": "input",
    "input_cache_creation": "input",
    "output": "output",
    "output_reasoning_tokens": "output",
    "total": "total",
}


def by_signoz(spans: tuple[Span, ...]) -> Figures:
    """The GenAI names, over every span."""
    return added(span.attributes for span in spans)


def by_phoenix(spans: tuple[Span, ...]) -> Figures:
    """OpenInference's names, on spans of kind LLM alone."""
    return added(
        (span.attributes for span in spans if span.attributes.get("openinference.span.kind") == "LLM"), OPENINFERENCE
    )


def by_langfuse(spans: tuple[Span, ...]) -> Figures:
    """Its own names before the GenAI ones, on no span that invokes an agent."""
    figures: Figures = Counter()
    for span in spans:
        if span.attributes.get("gen_ai.operation.name") == "invoke_agent":
            continue
        details = span.attributes.get("langfuse.observation.usage_details")
        if isinstance(details, str):
            figures += langfuse_usage(details)
        else:
            figures += added([span.attributes])
        cost = json.loads(str(span.attributes.get("langfuse.observation.cost_details", "{}")))
        figures["usd"] += cost.get("total", 0)
    return figures


def by_nobody(spans: tuple[Span, ...]) -> Figures:
    """Langfuse's names over every span, as one does who does not know its rule."""
    figures: Figures = Counter()
    for span in spans:
        figures += langfuse_usage(str(span.attributes.get("langfuse.observation.usage_details", "{}")))
        figures["usd"] += json.loads(str(span.attributes.get("langfuse.observation.cost_details", "{}"))).get(
            "total", 0
        )
    return figures


RULES: Mapping[str, Callable[[tuple[Span, ...]], Figures]] = {
    "SigNoz": by_signoz,
    "Phoenix": by_phoenix,
    "Langfuse": by_langfuse,
    "Langfuse's names": by_nobody,
}


def added(attributes: Any, names: Mapping[str, str] = GEN_AI) -> Figures:
    figures: Figures = Counter()
    for each in attributes:
        for name, figure in names.items():
            figures[figure] += each.get(name, 0)
    return figures


def langfuse_usage(details: str) -> Figures:
    figures: Figures = Counter()
    for name, count in json.loads(details).items():
        figures[LANGFUSE[name]] += count
    return figures


def told_by_platform(run: Run, settings: ProjectionSettings) -> dict[str, float]:
    usage = sound_usage(run.usage)
    told: dict[str, float | None] = {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "total": usage.known_total,
        "cache read": usage.cache_read_tokens,
        "cache write": usage.cache_write_tokens,
        "reasoning": usage.reasoning_tokens,
        "usd": None,
    }
    if run.cost and run.cost.amount.is_finite():
        unit = run.cost.unit or settings.currency
        if unit == "usd":
            told["usd"] = float(run.cost.amount)
        elif unit == "credits" and settings.credit_rate is not None:
            told["usd"] = float(run.cost.amount * settings.credit_rate)
    return {figure: count for figure, count in told.items() if count is not None}


def counted_twice(trace: Trace, told: Mapping[str, float]) -> Iterator[str]:
    sums = {name: added((span.attributes for span in trace.spans), {name: figure}) for name, figure in FIGURES.items()}
    for whose, figures in {**sums, **{name: rule(trace.spans) for name, rule in RULES.items()}}.items():
        for figure, count in figures.items():
            limit = told.get(figure, math.inf)
            if count > limit + abs(limit) * 1e-9:
                yield f"{whose}: {figure} adds up to {count}, the platform told {limit}"


SETTINGS = ProjectionSettings(
    source="s", preset=replace(GENERIC, conventions=tuple(CONVENTIONS)), credit_rate=Decimal("0.01")
)
RUNS = {
    **dict(fixture_runs()),
    "a full run": full_run(),
    "its totals alone": replace(full_run(), steps=()),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_no_figure_of_a_fixture_is_counted_twice(run: Run) -> None:
    assert list(counted_twice(project(run, SETTINGS), told_by_platform(run, SETTINGS))) == []


counts = st.none() | st.integers(0, 50)
usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    total_tokens=counts,
    cache_read_tokens=counts,
    cache_write_tokens=counts,
    reasoning_tokens=counts,
)
costs = st.none() | st.builds(Cost, st.decimals(0, 5, places=2), st.sampled_from([None, "usd", "credits", "eur"]))


def steps_of(kinds: Collection[StepKind], children: st.SearchStrategy[tuple[Step, ...]]) -> st.SearchStrategy[Step]:
    return st.builds(
        Step,
        kind=st.sampled_from(sorted(kinds)),
        key=st.just(("step",)),
        usage=usages,
        cost=costs,
        duration_ns=st.none() | st.just(10**6),
        children=children,
    )


leaves = steps_of(set(StepKind) - {StepKind.ITERATION}, st.just(()))
few_leaves = st.lists(leaves, max_size=3).map(tuple)
runs = st.builds(
    lambda steps, usage, cost: run_of(*steps, usage=usage, cost=cost),
    st.lists(leaves | steps_of({StepKind.ITERATION, StepKind.TOOL_CALL}, few_leaves), max_size=4),
    usages,
    costs,
)


@settings(max_examples=10 * settings().max_examples)
@given(runs)
def test_no_figure_of_any_run_is_counted_twice(run: Run) -> None:
    assert list(counted_twice(project(run, SETTINGS), told_by_platform(run, SETTINGS))) == []


def test_a_figure_that_is_counted_twice_is_found() -> None:
    run = full_run()
    trace = project(run, SETTINGS)
    twice = replace(trace, spans=(*trace.spans, *trace.spans))
    found = list(counted_twice(twice, told_by_platform(run, SETTINGS)))
    for name in (*FIGURES, *RULES):
        assert any(fault.startswith(f"{name}: ") for fault in found), name
