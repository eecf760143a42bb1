"""What is counted of a run: each thing once, by the platform's word, under names that cannot grow without bound."""

from dataclasses import replace
from decimal import Decimal

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import exposition
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from runspan import run_metrics
from runspan.model import Cost, Run, RunStatus, StepKind, Usage
from runspan.otlp.presets import PRESETS, Preset
from runspan.projection import ProjectionSettings, project
from runspan.run_metrics import RunMetrics
from runspan.trace import Trace
from tests.unit.fixture_runs import fixture_runs
from tests.unit.projection_runs import (
    MS,
    SECOND,
    SETTINGS,
    START,
    casedev_run,
    chat,
    elizaos_run,
    flowyble_run,
    iteration,
    run_of,
    runtype_run,
    step,
    tool,
    traced,
)


class Counted:
    """Metrics of some runs, read as Prometheus would read them."""

    def __init__(self, *runs: Run | Trace, settings: ProjectionSettings = SETTINGS, source: str = "s") -> None:
        self.registry = CollectorRegistry()
        self.metrics = RunMetrics(self.registry)
        for run in runs:
            self.count(run if isinstance(run, Trace) else project(run, settings), source)

    def count(self, trace: Trace, source: str = "s", status: str = "success", error_type: str | None = None) -> None:
        self.metrics.count(trace, source=source, status=status, error_type=error_type)

    @property
    def samples(self) -> list[Sample]:
        text = exposition.generate_latest(self.registry).decode()
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def values(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """By these labels."""
        return {tuple(s.labels[label] for label in labels): round(s.value, 9) for s in self.samples if s.name == name}

    def tokens(self) -> dict[str, float]:
        return {kind: value for (kind,), value in self.values("runspan_agent_tokens_total", "type").items()}

    def cost(self) -> dict[str, float]:
        return {unit: value for (unit,), value in self.values("runspan_agent_cost_total", "unit").items()}


class TestRuns:
    def test_runs_are_counted_by_agent_and_by_how_they_ended(self):
        counted = Counted()
        for _ in range(2):
            counted.count(project(runtype_run(), SETTINGS))
        counted.count(project(casedev_run(), SETTINGS), status="failed", error_type="failed")
        runs = counted.values("runspan_agent_runs_total", "source", "agent", "status", "error_type")
        assert runs == {("s", "report-writer", "success", ""): 2, ("s", "contract-reviewer", "failed", "failed"): 1}

    @pytest.mark.parametrize(
        ("fields", "agent"),
        [
            ({"agent_name": "writer", "agent_id": "agent_1"}, "writer"),
            ({"agent_id": "agent_1"}, "agent_1"),
            ({}, "unknown"),
        ],
    )
    def test_an_agent_without_a_name_goes_by_its_id(self, fields: dict[str, str], agent: str):
        assert Counted(run_of(**fields)).values("runspan_agent_runs_total", "agent") == {(agent,): 1}

    def test_every_figure_tells_of_a_trace_that_made_it(self):
        trace = project(elizaos_run(), SETTINGS)
        exemplars = [sample.exemplar for sample in Counted(trace).samples if sample.exemplar]
        assert {exemplar.labels["trace_id"] for exemplar in exemplars} == {trace.trace_id.hex()}
        named = {exemplar.labels["span_id"] for exemplar in exemplars}
        assert named <= {span.span_id.hex() for span in trace.spans}
        # The run, its two kinds of calls, and its action.
        assert len(named) >= 4
        assert all(sum(len(k) + len(v) for k, v in exemplar.labels.items()) <= 128 for exemplar in exemplars)


class TestDurations:
    def test_the_platforms_word_counts_and_what_is_inferred_does_not(self):
        counted = Counted(flowyble_run())
        runs = counted.values("runspan_agent_run_duration_seconds_sum", "agent")
        assert runs == {("stock-bot",): 11.0}
        # The tools' places are inferred, their durations are not; of the model calls neither is known.
        assert counted.values("runspan_tool_call_duration_seconds_sum", "tool") == {("SearchKnowledge",): 2.18}
        assert counted.values("runspan_model_call_duration_seconds_count", "model") == {}

    def test_calls_are_told_apart_by_operation_and_model(self):
        counted = Counted(elizaos_run())
        calls = counted.values("runspan_model_call_duration_seconds_count", "operation", "model")
        assert calls == {("chat", "unknown"): 2, ("embeddings", "unknown"): 1}
        assert counted.values("runspan_tool_call_duration_seconds_sum", "tool") == {("REPLY",): 0.42}

    def test_what_was_moved_or_cut_counts_as_it_was_said(self):
        late = tool(name="late", end_ns=START + 12 * SECOND, duration_ns=11 * SECOND)
        assert traced(late).spans[1].end_ns - traced(late).spans[1].start_ns == 10 * SECOND
        counted = Counted(run_of(late))
        assert counted.values("runspan_tool_call_duration_seconds_sum", "tool") == {("late",): 11.0}

    def test_times_that_contradict_each_other_tell_no_duration(self):
        counted = Counted(
            run_of(tool(name="odd", start_ns=START + 5 * SECOND, end_ns=START)), run_of(ended_ns=START - 1)
        )
        assert counted.values("runspan_tool_call_duration_seconds_count", "tool") == {}
        assert counted.values("runspan_agent_run_duration_seconds_count") == {(): 1}

    def test_a_run_of_which_no_end_is_known_has_no_duration(self):
        counted = Counted(run_of(tool(start_ns=START, duration_ns=SECOND), ended_ns=None))
        assert counted.values("runspan_agent_run_duration_seconds_count") == {}

    def test_buckets_reach_from_milliseconds_to_hours(self):
        counted = Counted(run_of(tool(start_ns=START, duration_ns=20 * MS), ended_ns=START + 3 * 3600 * SECOND))
        tools = counted.values("runspan_tool_call_duration_seconds_bucket", "le")
        assert (tools["0.01",], tools["0.05",]) == (0, 1)
        runs = counted.values("runspan_agent_run_duration_seconds_bucket", "le")
        assert (runs["7200.0",], runs["14400.0",]) == (0, 1)


class TestTokens:
    def test_the_parts_add_up_to_the_platforms_total(self):
        assert Counted(flowyble_run()).tokens() == {"input": 1950, "output": 270, "unspecified": 230}
        assert Counted(casedev_run()).tokens() == {"input": 900, "output": 120}

    def test_a_total_alone_is_neither_input_nor_output(self):
        assert Counted(runtype_run()).tokens() == {"unspecified": 1450}

    def test_the_runs_own_figures_go_before_those_of_its_calls(self):
        calls = [chat(str(n), usage=Usage(input_tokens=10, output_tokens=5)) for n in range(3)]
        of_run = Usage(input_tokens=100, output_tokens=20)
        assert Counted(run_of(*calls, usage=of_run)).tokens() == {"input": 100, "output": 20}
        assert Counted(run_of(*calls)).tokens() == {"input": 30, "output": 15}
        totals = [iteration(n, chat(str(n), usage=Usage(total_tokens=7))) for n in range(3)]
        assert Counted(run_of(*totals)).tokens() == {"unspecified": 21}

    def test_calls_that_report_more_than_the_run_do_not_count(self):
        calls = [chat(str(n), usage=Usage(input_tokens=10, output_tokens=5)) for n in range(3)]
        assert Counted(run_of(*calls, usage=Usage(total_tokens=20))).tokens() == {"unspecified": 20}

    def test_a_total_that_is_less_than_its_parts_counts(self):
        usage = Usage(input_tokens=10, output_tokens=10, total_tokens=12)
        assert Counted(run_of(usage=usage)).tokens() == {"unspecified": 12}

    @pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
    def test_whatever_a_backend_is_shown_the_platforms_total_is_what_counts(self, preset: Preset):
        totals: list[int] = []
        for name, run in fixture_runs():
            trace = project(run, replace(SETTINGS, preset=preset))
            total = trace.root.attributes.get("runspan.run.total_tokens")
            if isinstance(total, int):
                totals.append(total)
                assert sum(Counted(trace).tokens().values()) == total, name
        assert len(totals) > 60

    def test_nothing_said_is_not_zero(self):
        counted = Counted(elizaos_run())
        assert (counted.tokens(), counted.cost()) == ({}, {})


class TestCost:
    def test_amounts_are_counted_by_unit(self):
        assert Counted(flowyble_run()).cost() == {"credits": 0.85}
        both = Counted(runtype_run(), casedev_run()).values("runspan_agent_cost_total", "agent", "unit")
        assert both == {("report-writer", "usd"): 0.0234, ("contract-reviewer", "usd"): 0.0042}
        without = replace(SETTINGS, currency=None)
        assert Counted(runtype_run(), settings=without).cost() == {"amount": 0.0234}

    def test_the_runs_own_amount_goes_before_those_of_its_calls(self):
        calls = [chat(str(n), cost=Cost(Decimal("0.25"))) for n in range(2)]
        assert Counted(run_of(*calls, cost=Cost(Decimal(2)))).cost() == {"usd": 2.0}
        assert Counted(run_of(*calls)).cost() == {"usd": 0.5}
        assert Counted(run_of(*calls, cost=Cost(Decimal("0.1")))).cost() == {"usd": 0.1}

    def test_an_amount_below_zero_is_left_out(self):
        assert Counted(run_of(cost=Cost(Decimal(-1)))).cost() == {}


class TestNames:
    def test_the_first_names_of_a_source_are_kept_and_the_rest_are_other(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(run_metrics, "MOST_AGENTS", 2)
        counted = Counted()
        for source, names in {"s": "abcab", "t": "cd"}.items():
            for name in names:
                counted.count(traced(agent_name=name), source)
        runs = counted.values("runspan_agent_runs_total", "source", "agent")
        first = {("s", "a"): 2, ("s", "b"): 2, ("s", "other"): 1}
        assert runs == {**first, ("t", "c"): 1, ("t", "d"): 1}

    def test_a_flood_of_names_stays_within_bounds(self):
        counted = Counted()
        for number in range(300):
            call = tool(name=f"tool {number}", start_ns=START, duration_ns=MS)
            model = chat("m", name=f"model {number}", start_ns=START, duration_ns=MS)
            counted.count(traced(call, model, agent_name=f"agent {number}"))
        assert len(counted.values("runspan_agent_runs_total", "agent")) == run_metrics.MOST_AGENTS + 1
        assert len(counted.values("runspan_tool_call_duration_seconds_count", "tool")) == run_metrics.MOST_TOOLS + 1
        models = counted.values("runspan_model_call_duration_seconds_count", "model")
        assert len(models) == run_metrics.MOST_MODELS + 1
        assert models["other",] == 300 - run_metrics.MOST_MODELS

    @pytest.mark.parametrize(
        ("name", "label"),
        [
            ('a"} 1\nrunspan_rows{source="x"', 'a"} 1 runspan_rows{source="x"'),
            ("back\\slash\\n", "back\\slash\\n"),
            ("tab\tand\x1b[31m red\u202e", "tab and [31m red"),
            ("\ud800half", "half"),
            (" \0\n ", "unknown"),
            ("日本語🤖", "日本語🤖"),
            ("long " * 1000, ("long " * 16)[:79] + "…"),
        ],
    )
    def test_a_hostile_name_is_a_label_and_nothing_else(self, name: str, label: str):
        counted = Counted(run_of(tool(name=name, start_ns=START, duration_ns=MS), agent_name=name))
        assert counted.values("runspan_agent_runs_total", "agent") == {(label,): 1}
        tools = counted.values("runspan_tool_call_duration_seconds_count", "tool")
        assert list(tools) == [(label,)]

    def test_steps_that_are_no_calls_are_not_counted(self):
        api = step(StepKind.API_CALL, name="storage", start_ns=START, duration_ns=MS)
        names = {sample.name for sample in Counted(run_of(iteration(1, api), status=RunStatus.FAILED)).samples}
        assert not any(name.startswith(("runspan_tool", "runspan_model")) for name in names)
