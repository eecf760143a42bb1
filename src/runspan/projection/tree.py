"""From a run to its trace: which spans there are, what they are called and what they say. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from runspan.model import AttributeValue, Run, RunStatus, Step, StepKind
from runspan.projection.accounting import account, sound_usage
from runspan.projection.content import run_content, step_content
from runspan.projection.conventions import CONVENTIONS, Convention, gen_ai, own
from runspan.projection.ids import SpanIds, root_span_id, trace_id
from runspan.projection.prices import priced
from runspan.projection.redaction import redact_start
from runspan.projection.settings import ProjectionSettings
from runspan.projection.timing import (
    Interval,
    Placed,
    Timing,
    is_instant,
    lay_out,
    run_interval,
    sound_time,
    with_length,
)
from runspan.projection.traceparent import parse_traceparent
from runspan.projection.values import clean_attributes, clean_text, one_line
from runspan.trace import Link, Span, SpanEvent, SpanKind, Trace

_DESCRIPTION_CHARACTERS = 256
_NAME_CHARACTERS = 256
_MOST_PROBLEMS = 20
_MOST_SPANS = 10_000
"""In one trace, beside its root."""
_MOST_EVENTS = 1000
"""On one span. The SDK stops at 128, which is less than some runs have thoughts."""
_LABEL_BYTES = 1024
"""Of every attribute that is not content: a body's names and ids stand on each of its spans."""

_ON_EVENTS: Sequence[Convention] = (gen_ai,)
"""No backend reads the names of other conventions on events."""

_CLIENT_KINDS = (StepKind.MODEL_CALL, StepKind.EMBEDDINGS, StepKind.API_CALL)


def project(run: Run, settings: ProjectionSettings) -> Trace:
    """The trace of a terminal run.

    The same run and settings give the same trace, always. Raises RunUnreadable where nothing in the run has a time.
    """
    resolved = _resolved(run, settings)
    return _Projection(priced(resolved, settings.prices, settings.currency, settings.credit_rate), settings).trace()


class _Projection:
    """One run on its way to a trace."""

    def __init__(self, run: Run, settings: ProjectionSettings) -> None:
        self.run = run
        self.settings = settings
        self.limit = settings.preset.attribute_bytes
        self.account = account(run, settings.currency)
        self.trace_id = trace_id(run.ref.platform, run.ref.tenant, run.ref.run_id)
        self.ids = SpanIds(self.trace_id)
        self.conventions: Sequence[Convention] = [CONVENTIONS[name] for name in settings.preset.conventions]
        self.common = dict(own.on_every_span(run, settings.source))
        for convention in self.conventions:
            self.common |= convention.on_every_span(run)
        self.problems = [*run.problems, *self.account.problems]
        self.spans: list[Span] = []
        self.interval = run_interval(run)

    def trace(self) -> Trace:
        interval = self.interval
        if interval.timing is Timing.CLAMPED:
            self.problems.append("ended: before the run started")
        root_id = root_span_id(self.trace_id)
        placed = lay_out(self.run.steps, interval)
        self._add_spans(placed, root_id, interval)
        if (count := _count_spans(placed)) > _MOST_SPANS:
            self.problems.insert(0, f"steps: of {count} spans, only the first {_MOST_SPANS} are kept")
        # The root is made last, so that it can tell of every problem met on the way.
        events = self._events(placed, interval)
        resource = self._attributes(self._resource_pairs(), "resource", self.limit)
        root = self._root(root_id, interval, events)
        return Trace(ref=self.run.ref, trace_id=self.trace_id, resource=resource, spans=(root, *self.spans))

    def _root(self, root_id: bytes, interval: Interval, events: tuple[SpanEvent, ...]) -> Span:
        run = self.run
        is_error = run.status in (RunStatus.FAILED, RunStatus.TIMEOUT) or (
            run.status is RunStatus.CANCELLED and self.settings.cancelled_is_error
        )
        pairs: list[tuple[str, AttributeValue | None]] = [*self.common.items(), *own.on_interval(interval).items()]
        for convention in self.conventions:
            pairs += convention.on_root(run, self.account).items()
        pairs += own.on_root(run, self.account).items()
        pairs += run.attributes.items()
        error = self._description(run.error_description) if is_error else None
        if error is not None:
            for convention in self.conventions:
                pairs += convention.on_error(run.status.value, error).items()
        links = self._links()
        attributes = dict(self._attributes(pairs, "run"))
        if self.settings.capture_content:
            said = run_content(run, self.limit, self.settings.content)
            attributes |= self._content(None, said, "run", self.conventions)
        if self.problems:
            attributes[own.PROBLEMS] = _told(self.problems)
        return Span(
            span_id=root_id,
            parent_id=None,
            name=_named("invoke_agent", run.agent_name),
            kind=SpanKind.CLIENT,
            start_ns=interval.start_ns,
            end_ns=interval.end_ns,
            attributes=attributes,
            events=events,
            links=links,
            error=error,
        )

    def _add_spans(self, placed: Iterable[Placed], parent_id: bytes, parent: Interval) -> None:
        for item in placed:
            if item.interval is None:
                continue
            if len(self.spans) == _MOST_SPANS:
                return
            span_id = self.ids.next(item.step.key)
            interval = with_length(item.interval, parent)
            self.spans.append(self._span(item, interval, span_id, parent_id))
            self._add_spans(item.children, span_id, interval)

    def _span(self, item: Placed, interval: Interval, span_id: bytes, parent_id: bytes) -> Span:
        step = item.step
        return Span(
            span_id=span_id,
            parent_id=parent_id,
            name=_span_name(step),
            kind=SpanKind.CLIENT if step.kind in _CLIENT_KINDS else SpanKind.INTERNAL,
            start_ns=interval.start_ns,
            end_ns=interval.end_ns,
            attributes=self._step_attributes(
                step, step.kind, {**self.common, **own.on_interval(interval)}, self.conventions
            ),
            events=self._events(item.children, interval),
            error=self._description(step.error.description) if step.error else None,
        )

    def _events(self, placed: Iterable[Placed], parent: Interval) -> tuple[SpanEvent, ...]:
        """The notes among the children: at their time, or at their parent's end where they have none."""
        events: list[SpanEvent] = []
        notes = [item for item in placed if item.interval is None]
        if len(notes) > _MOST_EVENTS:
            self.problems.insert(0, f"steps: of {len(notes)} events, only the first {_MOST_EVENTS} are kept")
        for item in notes[:_MOST_EVENTS]:
            said = sound_time(item.step.start_ns) or sound_time(item.step.end_ns)
            at = parent.end_ns if said is None else max(parent.start_ns, min(said, parent.end_ns))
            timing = Timing.INFERRED if said is None else Timing.REPORTED if at == said else Timing.CLAMPED
            name = _span_name(item.step)
            attributes = self._step_attributes(item.step, name, {own.TIMING: timing.value}, _ON_EVENTS)
            events.append(SpanEvent(name, at, attributes))
        return tuple(events)

    def _step_attributes(
        self,
        step: Step,
        where: str,
        outer: Mapping[str, AttributeValue | None],
        conventions: Sequence[Convention],
    ) -> Mapping[str, AttributeValue]:
        """What the step says, beside what it has in common with others."""
        pairs = [*outer.items()]
        for convention in conventions:
            pairs += convention.on_step(step, self.run, self.account).items()
        pairs += own.on_step(step, self.account).items()
        pairs += step.attributes.items()
        if step.error:
            description = self._description(step.error.description)
            for convention in conventions:
                pairs += convention.on_error(step.error.type, description).items()
        attributes = self._attributes(pairs, where)
        if self.settings.capture_content:
            said = step_content(step, self.limit, self.settings.content)
            attributes = {**attributes, **self._content(step.kind, said, where, conventions)}
        return attributes

    def _content(
        self,
        kind: StepKind | None,
        pairs: Iterable[tuple[str, AttributeValue | None]],
        where: str,
        conventions: Sequence[Convention],
    ) -> Mapping[str, AttributeValue]:
        said = self._attributes(pairs, where, self.limit)
        told = [pair for convention in conventions for pair in convention.on_content(kind, said).items()]
        return self._attributes(told, where, self.limit)

    def _description(self, text: str | None) -> str:
        """An error's text, masked before it is cut, so that no half of a secret is left."""
        masked = redact_start(clean_text(text or ""), _DESCRIPTION_CHARACTERS, self.settings.content.masks)
        return one_line(masked, _DESCRIPTION_CHARACTERS)

    def _links(self) -> tuple[Link, ...]:
        ref, links = self.run.ref, list[Link]()
        if self.run.parent_run_id is not None and self.run.parent_run_id != ref.run_id:
            parent = trace_id(ref.platform, ref.tenant, self.run.parent_run_id)
            links.append(Link(parent, root_span_id(parent), {own.LINK: "parent_run"}))
        if self.run.traceparent is not None:
            if caller := parse_traceparent(self.run.traceparent):
                links.append(Link(*caller, {own.LINK: "caller"}))
            else:
                self.problems.append("traceparent: not a W3C trace context")
        return tuple(links)

    def _resource_pairs(self) -> list[tuple[str, AttributeValue | None]]:
        run, settings = self.run, self.settings
        service = settings.service_name
        agent = one_line(run.agent_name or run.agent_id or "", _NAME_CHARACTERS) or "unknown"
        for name, value in (("source", settings.source), ("platform", run.ref.platform), ("agent", agent)):
            service = service.replace(f"{{{name}}}", value)
        return [
            ("service.name", service),
            ("service.namespace", settings.service_namespace),
            *settings.resource.items(),
        ]

    def _attributes(
        self, pairs: Iterable[tuple[str, AttributeValue | None]], where: str, limit_bytes: int = _LABEL_BYTES
    ) -> Mapping[str, AttributeValue]:
        attributes, dropped = clean_attributes(pairs, min(limit_bytes, self.limit))
        self.problems += [f"{where}: {key} is a number that cannot be sent" for key in dropped]
        return attributes


def _resolved(run: Run, settings: ProjectionSettings) -> Run:
    """The run with the names that the configuration or the ledger adds, and with its steps as they are to be shown."""
    agent_id = run.agent_id or run.ref.locator.agent_id
    configured = settings.agent_names.get(agent_id) if agent_id else None
    unsound = [
        f"{name}: not a time between 1970 and 2262"
        for name, time_ns in (("created", run.created_ns), ("started", run.started_ns), ("ended", run.ended_ns))
        if time_ns is not None and sound_time(time_ns) is None
    ]
    return replace(
        run,
        agent_id=agent_id,
        agent_name=run.agent_name or run.ref.locator.agent_name or configured,
        created_ns=sound_time(run.created_ns),
        started_ns=sound_time(run.started_ns),
        ended_ns=sound_time(run.ended_ns),
        usage=sound_usage(run.usage),
        steps=tuple(_shown(step) for step in run.steps),
        problems=(*run.problems, *unsound),
    )


def _shown(step: Step) -> Step:
    """The step as a reader wants it: an iteration that holds only its model call is that call."""
    children = tuple(_shown(_within(step, child)) for child in step.children)
    step = replace(step, children=children, usage=sound_usage(step.usage))
    if step.kind is not StepKind.ITERATION:
        return step
    spans = [child for child in children if not is_instant(child)]
    if len(spans) != 1 or spans[0].kind is not StepKind.MODEL_CALL:
        return step
    (call,) = spans
    notes = tuple(child for child in children if is_instant(child))
    timed = call.start_ns is not None or call.end_ns is not None or call.duration_ns is not None
    times = call if timed else step
    return replace(
        call,
        start_ns=times.start_ns,
        end_ns=times.end_ns,
        duration_ns=times.duration_ns,
        error=call.error or step.error,
        children=(*call.children, *notes),
        attributes={**step.attributes, **call.attributes},
    )


def _within(parent: Step, child: Step) -> Step:
    """The child with the number of the iteration it belongs to."""
    if child.iteration is not None or parent.iteration is None:
        return child
    return replace(child, iteration=parent.iteration)


def _span_name(step: Step) -> str:
    match step.kind:
        case StepKind.ITERATION:
            return _named("iteration", None if step.iteration is None else str(step.iteration))
        case StepKind.MODEL_CALL:
            return _named("chat", step.name)
        case StepKind.EMBEDDINGS:
            return _named("embeddings", step.name)
        case StepKind.TOOL_CALL:
            return _named("execute_tool", step.name)
        case StepKind.API_CALL:
            return _named("api", step.name)
        case StepKind.NOTE:
            return one_line(step.name or "", _NAME_CHARACTERS) or "note"


def _count_spans(placed: Iterable[Placed]) -> int:
    return sum(1 + _count_spans(item.children) for item in placed if item.interval is not None)


def _named(operation: str, name: str | None) -> str:
    return one_line(f"{operation} {name or ''}", _NAME_CHARACTERS)


def _told(problems: list[str]) -> tuple[str, ...]:
    told = [one_line(problem, _DESCRIPTION_CHARACTERS) for problem in problems]
    if len(told) > _MOST_PROBLEMS:
        told[_MOST_PROBLEMS - 1 :] = [f"and {len(told) - _MOST_PROBLEMS + 1} more"]
    return tuple(told)
