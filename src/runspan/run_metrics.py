"""What we measure of runs, for Prometheus: how many, how long, how many tokens, what they cost.

Backends that make metrics from spans leave out spans that ended a while ago (Tempo: 30 s), and a run is sent after it
has ended; so they are made here, from the trace that was sent. Inferred durations are left out. Agents, models and
tools are named by whoever made them: each source has a bounded number of names, and `other` for the rest.
"""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram

from runspan.model import AttributeValue
from runspan.projection.values import one_line
from runspan.trace import Span, Trace

MOST_AGENTS = 100
MOST_MODELS = 100
MOST_TOOLS = 200
"""Names a source may have as label values, first come first served."""
OTHER = "other"
"""The label of all names beyond these."""
UNKNOWN = "unknown"
NAME_CHARACTERS = 80

RUN_SECONDS = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800)
"""Buckets for runs: agents work for seconds or for hours."""
CALL_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
"""Buckets for model calls and tools."""

_MODEL_OPERATIONS = ("chat", "embeddings")
_RUN_COST = "runspan.run.cost."
_CALL_COST = "runspan.cost."
_CALL_COST_APART = "runspan.cost.reported_"
"""What calls say beyond their run's total; the total counts."""


class RunMetrics:
    """Counts runs by their traces, in the given registry. Nothing is read back: it starts anew with each process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._agents = _Names(MOST_AGENTS)
        self._models = _Names(MOST_MODELS)
        self._tools = _Names(MOST_TOOLS)
        self._runs = Counter(
            "runspan_agent_runs",
            "Runs that were exported, by how they ended.",
            ["source", "agent", "status", "error_type"],
            registry=registry,
        )
        self._run_seconds = Histogram(
            "runspan_agent_run_duration_seconds",
            "How long runs took, as their platforms say.",
            ["source", "agent"],
            buckets=RUN_SECONDS,
            registry=registry,
        )
        self._model_seconds = Histogram(
            "runspan_model_call_duration_seconds",
            "How long model calls took, where the platform says it.",
            ["source", "operation", "model"],
            buckets=CALL_SECONDS,
            registry=registry,
        )
        self._tool_seconds = Histogram(
            "runspan_tool_call_duration_seconds",
            "How long tools and actions took, where the platform says it.",
            ["source", "tool"],
            buckets=CALL_SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "runspan_agent_tokens",
            "Tokens of runs. `unspecified` are those of which the platform tells only that they are part of the total.",
            ["source", "agent", "type"],
            registry=registry,
        )
        self._cost = Counter(
            "runspan_agent_cost",
            "What runs cost, in the unit that the platform or the configuration names.",
            ["source", "agent", "unit"],
            registry=registry,
        )

    def count(self, trace: Trace, *, source: str, status: str, error_type: str | None) -> None:
        """Count one run that was exported; `status` and `error_type` are those of the run as a whole."""
        root = trace.root.attributes
        named = root.get("gen_ai.agent.name") or root.get("gen_ai.agent.id") or UNKNOWN
        agent = self._agents.label(source, str(named))
        exemplar = _exemplar(trace, trace.root)
        self._runs.labels(source, agent, status, error_type or "").inc(exemplar=exemplar)
        seconds = _seconds(trace.root)
        if seconds is not None:
            self._run_seconds.labels(source, agent).observe(seconds, exemplar)
        for kind, tokens in _tokens(trace).items():
            self._tokens.labels(source, agent, kind).inc(tokens, exemplar)
        for unit, amount in _costs(trace).items():
            self._cost.labels(source, agent, unit).inc(amount, exemplar)
        for span in trace.spans[1:]:
            self._count_call(trace, span, source)

    def _count_call(self, trace: Trace, span: Span, source: str) -> None:
        operation, seconds = span.attributes.get("gen_ai.operation.name"), _seconds(span)
        if seconds is None:
            return
        if operation in _MODEL_OPERATIONS:
            model = self._models.label(source, str(span.attributes.get("gen_ai.request.model", UNKNOWN)))
            histogram = self._model_seconds.labels(source, operation, model)
        elif operation == "execute_tool":
            tool = self._tools.label(source, str(span.attributes.get("gen_ai.tool.name", UNKNOWN)))
            histogram = self._tool_seconds.labels(source, tool)
        else:
            return
        histogram.observe(seconds, _exemplar(trace, span))


class _Names:
    """Names from outside as label values: clean, short, and not more than so many for each source."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[str, set[str]] = {}

    def label(self, source: str, name: str) -> str:
        known = self._known.setdefault(source, set())
        label = one_line("".join(c if c.isprintable() else " " for c in name), NAME_CHARACTERS) or UNKNOWN
        if label in known:
            return label
        if len(known) >= self._most:
            return OTHER
        known.add(label)
        return label


def _exemplar(trace: Trace, span: Span) -> dict[str, str]:
    """63 of the 128 characters that OpenMetrics allows."""
    return {"trace_id": trace.trace_id.hex(), "span_id": span.span_id.hex()}


def _seconds(span: Span) -> float | None:
    """How long it took by the platform's own word, which may differ from its length; None where it does not say."""
    said_ms = span.attributes.get("runspan.reported_duration_ms")
    if isinstance(said_ms, float | int):
        return said_ms / 1e3
    # What was clamped without such a word had times that contradict each other.
    return (span.end_ns - span.start_ns) / 1e9 if span.attributes.get("runspan.timing") == "reported" else None


def _tokens(trace: Trace) -> Mapping[str, int]:
    """Tokens by type, each token once. The run's own figures count; those of its calls only where it has none."""
    root, calls = trace.root.attributes, [span.attributes for span in trace.spans[1:]]
    into = _figure(root, "runspan.run.input_tokens", calls, "gen_ai.usage.input_tokens")
    out = _figure(root, "runspan.run.output_tokens", calls, "gen_ai.usage.output_tokens")
    total = _figure(root, "runspan.run.total_tokens", calls, "runspan.usage.total_tokens")
    if total and into + out > total:
        # The platform contradicts itself; its total counts.
        into = out = 0
    by_type = {"input": into, "output": out, "unspecified": total - into - out}
    return {kind: tokens for kind, tokens in by_type.items() if tokens > 0}


def _figure(
    root: Mapping[str, AttributeValue], name: str, calls: list[Mapping[str, AttributeValue]], name_on_calls: str
) -> int:
    figures = [root[name]] if name in root else [call.get(name_on_calls, 0) for call in calls]
    return sum(figure for figure in figures if isinstance(figure, int))


def _costs(trace: Trace) -> Mapping[str, float]:
    """Amounts by unit: the run's own, or those of its calls where it has none."""
    costs = dict(_amounts(trace.root.attributes, _RUN_COST))
    if not costs:
        for span in trace.spans[1:]:
            for unit, amount in _amounts(span.attributes, _CALL_COST):
                costs[unit] = costs.get(unit, 0.0) + amount
    return costs


def _amounts(attributes: Mapping[str, AttributeValue], prefix: str) -> Iterator[tuple[str, float]]:
    for name, amount in attributes.items():
        is_cost = name.startswith(prefix) and not name.startswith(_CALL_COST_APART)
        # Other things are said of a cost beside its amount; and counters only rise.
        if is_cost and isinstance(amount, float) and amount > 0:
            yield name.removeprefix(prefix), amount
