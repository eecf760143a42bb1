"""Places every step of a run in time.

What the platform reported are anchors and stays where it is. Only the gaps between anchors are shared, among the
model calls that lie in them; tools of known duration lie behind their model call. What is inferred says so.
All times are integer nanoseconds since the epoch.
"""

from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate, groupby

from runspan.errors import RunUnreadable
from runspan.model import Run, Step, StepKind

_LATEST_NS = 2**63 - 2
"""Nanoseconds in 64 bits end in the year 2262; what lies beyond, or before 1970, is no time of a run. The very last one
is left for the end of a run that starts in the one before."""


class Timing(StrEnum):
    """How the times of a span came about."""

    REPORTED = "reported"
    CLAMPED = "clamped"
    """Reported, and moved or cut so that the span lies inside its run and does not end before it starts."""
    INFERRED = "inferred"


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a span lies. `said_duration_ns` is the platform's word where the interval does not show it as reported."""

    start_ns: int
    end_ns: int
    timing: Timing
    said_duration_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A step with its place; `interval` is None for a note without a duration, which is only an instant."""

    step: Step
    interval: Interval | None
    children: tuple["Placed", ...]


def sound_time(time_ns: int | None) -> int | None:
    """The time, unless it lies outside of what can be exported."""
    return time_ns if time_ns is not None and 0 < time_ns <= _LATEST_NS else None


def is_instant(step: Step) -> bool:
    """Whether a step is an event on its parent and not a span: a note of which no duration is known."""
    if step.kind is not StepKind.NOTE:
        return False
    return step.duration_ns is None and (step.start_ns is None or step.end_ns is None)


def run_interval(run: Run) -> Interval:
    """From when to when the run was.

    Start: reported, else the creation, else the first step. End: reported, else start and duration, else the last step.
    Raises RunUnreadable where nothing in the run has a time.
    """
    started, ended = sound_time(run.started_ns), sound_time(run.ended_ns)
    duration = _sound_duration(run.duration_ns)
    points = sorted(_points(run.steps))
    start = started or sound_time(run.created_ns) or (points[0] if points else None)
    if start is None and ended is not None:
        start = max(1, ended - (duration or 0))
    if start is None:
        raise RunUnreadable(
            f"run {run.ref.run_id!r} of {run.ref.platform} has no time at all, so it cannot stand in a trace; "
            "retry once the platform shows its times",
            retryable=True,
        )
    by_duration = sound_time(start + duration) if duration is not None else None
    last = max(start, points[-1]) if points else start
    timing = Timing.REPORTED if started and (ended or by_duration) else Timing.INFERRED
    end = ended or by_duration or last
    if end < start:
        end, timing = by_duration or last, Timing.CLAMPED
    said = duration if timing is not Timing.REPORTED or duration != end - start else None
    # Jaeger takes a span that ends as it starts for one of negative duration, and warns on it (read back from 2.13).
    return Interval(start, max(end, start + 1), timing, said)


def with_length(interval: Interval, parent: Interval) -> Interval:
    """The interval of a step, a nanosecond long where it had no length, for the same reason as the run's.

    It stays inside its parent's, which has a length: backends take a child outside for one of a skewed clock.
    """
    if interval.end_ns > interval.start_ns:
        return interval
    if interval.end_ns < parent.end_ns:
        return replace(interval, end_ns=interval.start_ns + 1)
    return replace(interval, start_ns=interval.end_ns - 1)


def lay_out(steps: Sequence[Step], run: Interval) -> tuple[Placed, ...]:
    """Every step, as a tree, with its place inside the run."""
    nodes = _nodes(steps, run)
    _place(nodes, run, run.start_ns, run.end_ns)
    return _all_placed(steps, nodes)


class _Node:
    """A step while it is being placed."""

    __slots__ = ("children", "duration", "end", "reported_end", "reported_start", "start", "step", "timing")

    def __init__(self, step: Step, run: Interval) -> None:
        self.step = step
        start, end = sound_time(step.start_ns), sound_time(step.end_ns)
        self.duration = _sound_duration(step.duration_ns)
        if self.duration is not None:
            if start is None and end is not None:
                start = end - self.duration
            elif end is None and start is not None:
                end = start + self.duration
        self.timing = Timing.INFERRED
        if start is not None and end is not None:
            self.timing = Timing.REPORTED
            said = end - start
            if said < 0:
                said = self.duration or 0
                self.timing = Timing.CLAMPED
            elif self.duration is None:
                self.duration = said
            within_start, within_end = _moved_in(start, said, run)
            if (within_start, within_end) != (start, end):
                self.timing = Timing.CLAMPED
            start, end = within_start, within_end
        else:
            start = _held(start, run) if start is not None else None
            end = _held(end, run) if end is not None else None
        self.reported_start, self.reported_end = start, end
        self.start, self.end = start, end
        self.children = _nodes(step.children, self.bounds(run))

    @property
    def anchored(self) -> bool:
        return self.reported_start is not None and self.reported_end is not None

    def bounds(self, outer: Interval) -> Interval:
        """Where its children may lie: inside it, if it lies where the platform said, else wherever it may."""
        start, end = self.reported_start, self.reported_end
        if self.step.kind is StepKind.ITERATION or start is None or end is None:
            return outer
        return Interval(start, end, self.timing)

    @property
    def elastic(self) -> bool:
        """Whether it takes a share of its gap: a model call of which it is not known how long it took."""
        return self.step.kind is StepKind.MODEL_CALL and not self.anchored and self.duration is None

    @property
    def envelops(self) -> bool:
        """Whether it has no place of its own but that of its children."""
        if self.step.kind is StepKind.ITERATION:
            return bool(self.children)
        untimed = self.reported_start is None and self.reported_end is None
        return untimed and any(child.has_time for child in self.children)

    @property
    def has_time(self) -> bool:
        """Whether it or something in it has a reported time."""
        own = self.reported_start is not None or self.reported_end is not None
        return own or any(child.has_time for child in self.children)

    def put(self, start: int, end: int) -> None:
        self.start, self.end = start, end

    def enclose(self) -> None:
        """Widen to hold the children."""
        starts = [child.start for child in self.children if child.start is not None]
        ends = [child.end for child in self.children if child.end is not None]
        start = min(point for point in (self.start, *starts) if point is not None)
        end = max(point for point in (self.end, *ends) if point is not None)
        if (start, end) != (self.start, self.end):
            self.timing = Timing.INFERRED
        self.put(start, end)

    def placed(self) -> Placed:
        assert self.start is not None
        assert self.end is not None
        shown = self.duration == self.end - self.start and self.timing is Timing.REPORTED
        return Placed(
            self.step,
            Interval(self.start, self.end, self.timing, None if shown else self.duration),
            _all_placed(self.step.children, self.children),
        )


def _nodes(steps: Sequence[Step], run: Interval) -> list[_Node]:
    """A node for each step that is more than an instant."""
    return [_Node(step, run) for step in steps if not is_instant(step)]


def _all_placed(steps: Sequence[Step], nodes: Sequence[_Node]) -> tuple[Placed, ...]:
    remaining = iter(nodes)
    return tuple(Placed(step, None, ()) if is_instant(step) else next(remaining).placed() for step in steps)


def _place(nodes: Sequence[_Node], run: Interval, window_start: int, window_end: int) -> None:
    cursor = window_start
    points = [window_start]
    waiting: list[tuple[_Node, int]] = []

    def close_gap(at: int) -> None:
        # Where reported steps overlap, the gap before `at` begins at the last thing known to have happened.
        begin = cursor if cursor <= at else points[max(0, bisect_right(points, at) - 1)]
        _fill(waiting, min(begin, at), at, run)
        waiting.clear()

    for item, group in _sequence(nodes):
        if isinstance(item, int):
            close_gap(item)
            insort(points, item)
            cursor = max(cursor, item)
            continue
        start, end = item.reported_start, item.reported_end
        if start is not None and end is not None:
            close_gap(start)
            cursor = max(cursor, end)
        elif start is not None:
            close_gap(start)
            if item.elastic:
                waiting.append((item, group))
                cursor = start
            else:
                item.put(start, start)
                cursor = max(cursor, start)
        elif end is not None:
            if item.elastic:
                waiting.append((item, group))
            else:
                item.put(end, end)
            close_gap(end)
            cursor = max(cursor, end)
        else:
            waiting.append((item, group))
        for point in (start, end):
            if point is not None:
                insort(points, point)
    close_gap(max(cursor, window_end))
    for node in nodes:
        _finish(node, run)


def _sequence(nodes: Sequence[_Node], iteration: _Node | None = None) -> Iterator[tuple[_Node | int, int]]:
    """Leaves, and the reported ends of what only envelops, in order; each with a number that parallel tools share."""
    for node in nodes:
        if node.envelops:
            if node.reported_start is not None:
                yield node.reported_start, id(node)
            yield from _sequence(node.children, node)
            if node.reported_end is not None:
                yield node.reported_end, id(node)
        else:
            is_tool = node.step.kind is StepKind.TOOL_CALL
            yield node, id(iteration if is_tool and iteration is not None else node)


def _fill(waiting: Sequence[tuple[_Node, int]], begin: int, end: int, run: Interval) -> None:
    """Lay what has no place of its own in a row from `begin`, so that its model calls fill the gap up to `end`."""
    room = end - begin
    blocks = [[node] for node, _ in waiting]
    if sum(node.duration or 0 for node, _ in waiting) > room:
        blocks = [[node for node, _ in block] for _, block in groupby(waiting, key=lambda pair: pair[1])]
    taken = sum(max(node.duration or 0 for node in block) for block in blocks)
    shares = iter(_shares(max(0, room - taken), [node.step for node, _ in waiting if node.elastic]))
    lengths = [next(shares) if block[0].elastic else max(node.duration or 0 for node in block) for block in blocks]
    # Where even that is too long, steps overlap: each starts early enough for all behind it to end in time.
    latest = list(accumulate((end - length for length in reversed(lengths)), min))[::-1]
    cursor = begin
    for block, length, latest_start in zip(blocks, lengths, latest, strict=True):
        start = max(run.start_ns, min(cursor, latest_start))
        for node in block:
            if node.elastic:
                start = node.reported_start or start
                node.put(start, node.reported_end or max(start, min(start + length, end)))
            else:
                node.put(start, min(run.end_ns, start + (node.duration or 0)))
        cursor = max(cursor, min(start + length, end))


def _finish(node: _Node, run: Interval) -> None:
    if not node.children:
        return
    if node.envelops:
        for child in node.children:
            _finish(child, run)
        node.enclose()
        return
    assert node.start is not None
    assert node.end is not None
    _place(node.children, node.bounds(run), node.start, node.end)
    if node.timing is Timing.INFERRED:
        node.enclose()


def _shares(total: int, calls: Sequence[Step]) -> list[int]:
    """`total` in parts that add up to it: by output tokens if every call has them, else by all tokens, else equally."""
    outputs = [call.usage.output_tokens for call in calls]
    totals = [call.usage.known_total for call in calls]
    for figures in (outputs, totals):
        weights = [figure for figure in figures if figure is not None and figure >= 0]
        if len(weights) == len(calls) and sum(weights) > 0:
            return _apportion(total, weights)
    return _apportion(total, [1] * len(calls))


def _apportion(total: int, weights: Sequence[int]) -> list[int]:
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts


def _moved_in(start: int, length: int, run: Interval) -> tuple[int, int]:
    """An interval of that length, moved into the run, and cut only if it is longer."""
    start = max(run.start_ns, min(start, run.end_ns - length))
    return start, min(start + length, run.end_ns)


def _held(point: int, run: Interval) -> int:
    return max(run.start_ns, min(point, run.end_ns))


def _sound_duration(duration_ns: int | None) -> int | None:
    return duration_ns if duration_ns is not None and duration_ns >= 0 else None


def _points(steps: Sequence[Step]) -> Iterator[int]:
    """Every time that the steps report, or that follows from one and a duration."""
    for step in steps:
        start, end, duration = sound_time(step.start_ns), sound_time(step.end_ns), _sound_duration(step.duration_ns)
        candidates = [start, end]
        if duration is not None:
            candidates.append(sound_time(start + duration) if start is not None and end is None else None)
            candidates.append(sound_time(end - duration) if end is not None and start is None else None)
        yield from (point for point in candidates if point is not None)
        yield from _points(step.children)
