from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from runspan.model import (
    Content,
    Cost,
    Locator,
    Message,
    RunRef,
    RunStatus,
    StepError,
    StepKind,
    Usage,
)
from runspan.otlp.presets import PRESETS
from runspan.projection import ProjectionSettings, root_span_id, trace_id
from runspan.projection.text import trace_text
from runspan.trace import SpanKind
from tests.unit.projection_runs import (
    SECOND,
    SETTINGS,
    START,
    chat,
    iteration,
    note,
    outline,
    step,
    tool,
    traced,
)

# Status


@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.TIMEOUT, RunStatus.CANCELLED])
def test_a_run_that_did_not_succeed_is_an_error_named_by_its_status(status: RunStatus) -> None:
    root = traced(status=status, error_description="it broke").root
    assert (root.error, root.attributes["error.type"]) == ("it broke", status.value)


def test_success_leaves_the_status_unset_whatever_its_steps_did() -> None:
    trace = traced(tool(error=StepError("502", "HTTP 502")), error_description="not the run's")
    assert trace.root.error is None
    assert "error.type" not in trace.root.attributes
    assert (trace.spans[1].error, trace.spans[1].attributes["error.type"]) == ("HTTP 502", "502")


def test_cancelled_is_no_error_where_the_settings_say_so() -> None:
    settings = replace(SETTINGS, cancelled_is_error=False)
    assert traced(status=RunStatus.CANCELLED, settings=settings).root.error is None
    assert traced(status=RunStatus.FAILED, settings=settings).root.error == ""


def test_an_errors_text_is_masked_and_cut() -> None:
    text = "key sk-abcdefghijklmnop1234 of jo@example.com\nwas " + "refused " * 60
    error = traced(status=RunStatus.FAILED, error_description=text).root.error
    assert error is not None
    assert error.startswith("key [redacted] of [redacted] was refused refused")
    assert len(error) == 256
    assert error.endswith("…")


# Names and kinds


@pytest.mark.parametrize(
    ("kind", "name", "span_name", "span_kind"),
    [
        (StepKind.MODEL_CALL, "m", "chat m", SpanKind.CLIENT),
        (StepKind.MODEL_CALL, None, "chat", SpanKind.CLIENT),
        (StepKind.EMBEDDINGS, None, "embeddings", SpanKind.CLIENT),
        (StepKind.TOOL_CALL, "grep", "execute_tool grep", SpanKind.INTERNAL),
        (StepKind.TOOL_CALL, None, "execute_tool", SpanKind.INTERNAL),
        (StepKind.API_CALL, "ocr", "api ocr", SpanKind.CLIENT),
        (StepKind.NOTE, "evaluator reflection", "evaluator reflection", SpanKind.INTERNAL),
        (StepKind.TOOL_CALL, "a\0\ud800 \n b", "execute_tool a b", SpanKind.INTERNAL),
    ],
)
def test_span_names(kind: StepKind, name: str | None, span_name: str, span_kind: SpanKind) -> None:
    span = traced(step(kind, name=name, duration_ns=SECOND)).spans[1]
    assert (span.name, span.kind) == (span_name, span_kind)


def test_a_span_name_has_an_end() -> None:
    assert len(traced(tool(name="x" * 10_000)).spans[1].name) == 256


def test_an_agents_name_comes_from_the_platform_else_the_ledger_else_the_settings() -> None:
    settings = replace(SETTINGS, agent_names={"a1": "configured"})
    ref = RunRef("p", "t", "r", Locator(agent_id="a1", agent_name="first seen"))
    assert traced(ref=ref, agent_name="told", settings=settings).root.name == "invoke_agent told"
    assert traced(ref=ref, settings=settings).root.name == "invoke_agent first seen"
    assert traced(agent_id="a1", settings=settings).root.name == "invoke_agent configured"
    nameless = traced(agent_id="a2", settings=settings).root
    assert (nameless.name, nameless.attributes["gen_ai.agent.id"]) == ("invoke_agent", "a2")


def test_a_call_says_which_provider_it_was_where_that_is_known() -> None:
    trace = traced(chat("1"), chat("2", attributes={"gen_ai.provider.name": "openai"}))
    assert [span.attributes["gen_ai.provider.name"] for span in trace.spans] == ["flowyble", "flowyble", "openai"]


# Iterations and notes


def test_an_iteration_that_holds_only_its_call_is_that_call() -> None:
    call = chat("c", error=StepError("429"))
    trace = traced(iteration(3, call, note("thinking"), attributes={"runspan.x": 1}))
    (span,) = trace.spans[1:]
    assert (span.name, span.attributes["runspan.iteration"], span.attributes["runspan.x"]) == ("chat", 3, 1)
    assert [event.name for event in span.events] == ["thinking"]
    whole = traced(iteration(3, call, tool()))
    assert [each.name for each in whole.spans[1:]] == ["iteration 3", "chat", "execute_tool"]
    assert span.span_id == whole.spans[2].span_id


@pytest.mark.parametrize(
    ("said", "seconds", "timing"), [(4.0, 4.0, "reported"), (99.0, 10.0, "clamped"), (None, 10.0, "inferred")]
)
def test_a_note_is_an_event_at_its_time_else_at_its_parents_end(
    said: float | None, seconds: float, timing: str
) -> None:
    time_ns = None if said is None else START + int(said * SECOND)
    trace = traced(note("output", start_ns=time_ns, content=Content(text="secret words")))
    (event,) = trace.root.events
    assert (event.name, (event.time_ns - START) / SECOND) == ("output", seconds)
    assert event.attributes == {"runspan.timing": timing}


def test_a_note_with_a_duration_is_a_span() -> None:
    trace = traced(note("evaluator reflection", end_ns=START + 3 * SECOND, duration_ns=SECOND))
    assert outline(trace)[1:] == [(1, "evaluator reflection", 2, 3, "r")]


# Links


def test_a_parent_run_is_linked_by_ids_that_need_no_look_at_it() -> None:
    (link,) = traced(parent_run_id="run-0").root.links
    parent = trace_id("flowyble", "https://api.flowyble.com", "run-0")
    assert (link.trace_id, link.span_id) == (parent, root_span_id(parent))
    assert traced(parent_run_id="run-1").root.links == ()


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("header", [f"00-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-more", f" 00-{TRACE}-{SPAN}-00 "])
def test_a_callers_trace_context_is_linked(header: str) -> None:
    (link,) = traced(traceparent=header).root.links
    assert (link.trace_id.hex(), link.span_id.hex(), link.attributes) == (TRACE, SPAN, {"runspan.link": "caller"})


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_what_is_no_trace_context_is_no_link_and_is_told(header: str) -> None:
    root = traced(traceparent=header).root
    assert root.links == ()
    assert root.attributes["runspan.problems"] == ("traceparent: not a W3C trace context",)


# Tokens and cost


def added(trace: Any, key: str) -> float:
    return sum(span.attributes.get(key, 0) for span in trace.spans)


def test_the_root_shows_tokens_as_usage_only_where_no_call_does() -> None:
    total = Usage(input_tokens=10, output_tokens=5, cache_read_tokens=4)
    alone = traced(chat(), usage=total).root.attributes
    assert (alone["gen_ai.usage.input_tokens"], alone["gen_ai.usage.output_tokens"]) == (10, 5)
    assert alone["gen_ai.usage.cache_read.input_tokens"] == 4
    assert (alone["runspan.run.total_tokens"], alone["runspan.run.cache_read_tokens"]) == (15, 4)
    shared = traced(chat(usage=Usage(input_tokens=1)), usage=total).root.attributes
    assert "gen_ai.usage.input_tokens" not in shared
    assert shared["runspan.run.input_tokens"] == 10


@pytest.mark.parametrize(
    ("total", "calls"),
    [
        (Usage(input_tokens=10, output_tokens=10), [Usage(input_tokens=6), Usage(input_tokens=6)]),
        (Usage(total_tokens=10), [Usage(input_tokens=6), Usage(output_tokens=6)]),
        (Usage(total_tokens=10), [Usage(total_tokens=11, input_tokens=1, output_tokens=1)]),
        (Usage(total_tokens=10, reasoning_tokens=1), [Usage(reasoning_tokens=2)]),
    ],
)
def test_calls_that_say_more_than_the_run_are_set_aside(total: Usage, calls: list[Usage]) -> None:
    trace = traced(*(chat(str(n), usage=usage) for n, usage in enumerate(calls)), usage=total)
    assert added(trace, "gen_ai.usage.input_tokens") == (total.input_tokens or 0)
    assert added(trace, "gen_ai.usage.output_tokens") == (total.output_tokens or 0)
    assert added(trace, "runspan.usage.total_tokens") == 0
    assert added(trace, "gen_ai.usage.reasoning.output_tokens") == (total.reasoning_tokens or 0)
    for key in ("input_tokens", "output_tokens", "total_tokens", "reasoning_tokens"):
        said = sum(getattr(usage, key) or 0 for usage in calls)
        assert added(trace, f"runspan.usage.reported_{key}") == said
    assert "runspan.run.unattributed_tokens" not in trace.root.attributes
    assert trace.root.attributes["runspan.problems"] == ("usage: the calls report more tokens than the run",)


def test_figures_are_held_against_their_like() -> None:
    """As on case.dev's page, whose total is less than its parts: what the calls tell is still no more than that."""
    said = Usage(input_tokens=123, output_tokens=123, total_tokens=123)
    trace = traced(chat(usage=said), usage=said)
    assert added(trace, "gen_ai.usage.input_tokens") == added(trace, "runspan.usage.total_tokens") == 123
    assert trace.root.attributes["runspan.run.unattributed_tokens"] == 0
    assert trace.root.attributes["runspan.problems"] == ("usage: the run's total is less than its input and output",)
    twice = traced(chat("1", usage=said), chat("2", usage=Usage(output_tokens=1)), usage=said)
    assert "usage: the calls report more tokens than the run" in twice.root.attributes["runspan.problems"]


def test_tokens_of_what_no_backend_counts_are_not_attributed() -> None:
    service = step(StepKind.API_CALL, usage=Usage(input_tokens=20, total_tokens=30))
    trace = traced(chat(usage=Usage(total_tokens=70)), service, usage=Usage(total_tokens=100))
    assert trace.root.attributes["runspan.run.unattributed_tokens"] == 30
    assert not [key for key in trace.spans[2].attributes if "tokens" in key]


def test_a_total_is_shown_unless_its_parts_tell_it() -> None:
    trace = traced(
        chat("1", usage=Usage(input_tokens=1, output_tokens=2, total_tokens=3)),
        chat("2", usage=Usage(input_tokens=1, output_tokens=2, total_tokens=4)),
        chat("3", usage=Usage(input_tokens=1, total_tokens=4)),
    )
    assert [span.attributes.get("runspan.usage.total_tokens") for span in trace.spans[1:]] == [None, 4, 4]


def test_counts_that_cannot_be_are_left_out() -> None:
    trace = traced(chat(usage=Usage(input_tokens=-1, output_tokens=2**63)), usage=Usage(total_tokens=-5))
    assert not [key for span in trace.spans for key in span.attributes if "token" in key]


def test_what_the_calls_do_not_account_for_is_told() -> None:
    calls = [chat("1", usage=Usage(total_tokens=30)), chat("2", usage=Usage(input_tokens=3))]
    assert traced(*calls, usage=Usage(total_tokens=100)).root.attributes["runspan.run.unattributed_tokens"] == 70
    for fields in ({"usage": Usage()}, {"steps": (), "usage": Usage(total_tokens=100)}):
        assert "runspan.run.unattributed_tokens" not in traced(*calls, **fields).root.attributes


@pytest.mark.parametrize(
    ("unit", "currency", "key", "assumed"),
    [
        ("credits", "usd", "credits", False),
        ("EUR", "usd", "eur", False),
        (None, "eur", "eur", True),
        (None, None, "amount", False),
    ],
)
def test_a_cost_is_named_by_its_unit(unit: str | None, currency: str | None, key: str, assumed: bool) -> None:
    settings = replace(SETTINGS, currency=currency)
    cost, part = Cost(Decimal("1.25"), unit), Cost(Decimal("0.25"), unit)
    trace = traced(chat(cost=part), cost=cost, settings=settings)
    assert trace.root.attributes[f"runspan.run.cost.{key}"] == 1.25
    assert trace.spans[1].attributes[f"runspan.cost.{key}"] == 0.25
    assert trace.root.attributes.get("runspan.run.cost.currency_assumed", False) is assumed


def test_calls_that_cost_more_than_the_run_are_set_aside() -> None:
    trace = traced(chat(cost=Cost(Decimal(3))), cost=Cost(Decimal(2)))
    assert added(trace, "runspan.cost.usd") == 0
    assert added(trace, "runspan.cost.reported_usd") == 3
    assert trace.root.attributes["runspan.problems"] == ("cost: the calls report more than the run",)


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "1e400", "9e999999", "sNaN"])
def test_an_amount_that_is_none_is_left_out_and_told(amount: str) -> None:
    attributes = traced(chat(cost=Cost(Decimal(1), "usd")), cost=Cost(Decimal(amount), "usd")).root.attributes
    assert "runspan.run.cost.usd" not in attributes
    assert attributes["runspan.problems"] == ("run: runspan.run.cost.usd is a number that cannot be sent",)


def test_nothing_is_said_of_tokens_and_costs_that_nobody_told() -> None:
    trace = traced(chat(), tool())
    assert not [key for span in trace.spans for key in span.attributes if "token" in key or "cost" in key]


# What else stands on the root


def test_problems_are_told_and_not_without_end() -> None:
    problems = tuple(f"steps[{n}].duration: not a number" for n in range(30))
    told = traced(problems=problems).root.attributes["runspan.problems"]
    assert told == (*problems[:19], "and 11 more")
    assert "runspan.problems" not in traced().root.attributes


def test_unsound_times_and_numbers_are_told() -> None:
    attributes = traced(tool(attributes={"runspan.x": 2**63, "runspan.y": float("nan")}), created_ns=-1).root.attributes
    assert attributes["runspan.problems"] == (
        "created: not a time between 1970 and 2262",
        "tool: runspan.x is a number that cannot be sent",
        "tool: runspan.y is a number that cannot be sent",
    )


def test_a_run_that_ended_before_it_started_says_so() -> None:
    attributes = traced(ended_ns=START - 1).root.attributes
    assert attributes["runspan.problems"] == ("ended: before the run started",)
    assert attributes["runspan.timing"] == "clamped"


def test_time_in_the_queue_is_shown_where_both_ends_are_known() -> None:
    assert traced(created_ns=START - SECOND // 2).root.attributes["runspan.run.queue_seconds"] == 0.5
    for created_ns in (None, START + 1, -1):
        assert "runspan.run.queue_seconds" not in traced(created_ns=created_ns).root.attributes


def test_an_incomplete_run_says_so() -> None:
    assert traced(incomplete=True).root.attributes["runspan.incomplete"] is True
    assert "runspan.incomplete" not in traced().root.attributes


def test_the_resource_comes_from_the_settings_alone() -> None:
    settings = ProjectionSettings(
        source="prod",
        service_name="{platform}/{agent}/{source}/{other}",
        service_namespace="team",
        resource={"deployment.environment.name": "live"},
    )
    assert traced(agent_name="bot", settings=settings).resource == {
        "service.name": "flowyble/bot/prod/{other}",
        "service.namespace": "team",
        "deployment.environment.name": "live",
    }
    assert traced().resource == {"service.name": "test"}
    by_agent = replace(SETTINGS, service_name="{agent}")
    assert traced(settings=by_agent).resource == {"service.name": "unknown"}
    assert traced(agent_name="\0\n", settings=by_agent).resource == {"service.name": "unknown"}


# Content


SAID = Content(
    system="SPOKEN-system",
    input=(Message(role="user", text="SPOKEN-input"),),
    output=(Message(role="assistant", text="SPOKEN-output", reasoning="SPOKEN-thought"),),
    arguments={"SPOKEN-key": "SPOKEN-argument"},
    result="SPOKEN-result",
    text="SPOKEN-text",
)


@pytest.mark.parametrize("capture", [False, True])
def test_what_was_said_is_shown_only_where_that_is_wanted(capture: bool) -> None:
    steps = [step(kind, content=SAID, duration_ns=SECOND) for kind in StepKind]
    trace = traced(
        *steps, note("output", content=SAID), content=SAID, settings=replace(SETTINGS, capture_content=capture)
    )
    shown = trace_text(trace)
    for word in ("system", "input", "output", "thought", "argument", "result", "text", "key"):
        assert (f"SPOKEN-{word}" in shown) is capture


@pytest.mark.parametrize("preset", PRESETS.values(), ids=str)
def test_no_string_is_longer_than_the_backend_keeps(preset: Any) -> None:
    long = "é" * 200_000
    trace = traced(
        tool(name=long, content=Content(arguments={"x": long})),
        agent_id=long,
        settings=replace(SETTINGS, preset=preset, capture_content=True, resource={"x": long}),
    )
    strings = [
        value
        for attributes in (trace.resource, *(span.attributes for span in trace.spans))
        for value in attributes.values()
        if isinstance(value, str)
    ]
    assert max(len(value.encode()) for value in strings) <= preset.attribute_bytes
    assert max(len(value.encode()) for value in strings) > preset.attribute_bytes - 8
