from collections.abc import Callable
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runspan.errors import RunUnreadable
from runspan.model import RunRef, Step, StepKind, Usage
from runspan.projection.timing import Interval, Placed, Timing, lay_out, run_interval
from runspan.trace import Trace
from tests.unit.projection_runs import (
    MS,
    SECOND,
    START,
    chat,
    iteration,
    note,
    outline,
    run_of,
    step,
    tool,
    traced,
)

RUN = Interval(START, START + 10 * SECOND, Timing.REPORTED)


def rows(*steps: Step, **fields: Any) -> list[tuple[float, float, str]]:
    """Start, end and timing of each span but the root's, to the microsecond."""
    shown = outline(traced(*steps, **fields))[1:]
    return [(round(start, 6), round(end, 6), timing) for _, _, start, end, timing in shown]


def at(seconds: float) -> int:
    return START + round(seconds * SECOND)


# The root


def test_a_run_lies_where_the_platform_says() -> None:
    assert run_interval(run_of()) == RUN


@pytest.mark.parametrize(
    ("fields", "start", "end", "timing"),
    [
        ({"started_ns": None, "created_ns": at(-2)}, -2, 10, "inferred"),
        ({"started_ns": None, "created_ns": None}, 3, 10, "inferred"),
        ({"ended_ns": None, "duration_ns": 4 * SECOND}, 0, 4, "reported"),
        ({"ended_ns": None}, 0, 5, "inferred"),
        ({"ended_ns": at(-1)}, 0, 5, "clamped"),
        ({"ended_ns": at(-1), "duration_ns": 4 * SECOND}, 0, 4, "clamped"),
        ({"started_ns": -1, "created_ns": 2**63}, 3, 10, "inferred"),
        ({"duration_ns": -1}, 0, 10, "reported"),
    ],
)
def test_a_run_falls_back_on_what_else_has_a_time(
    fields: dict[str, Any], start: float, end: float, timing: str
) -> None:
    interval = run_interval(run_of(tool(start_ns=at(3), duration_ns=2 * SECOND), **fields))
    assert (interval.start_ns, interval.end_ns, interval.timing) == (at(start), at(end), timing)


def test_a_run_of_which_only_the_end_and_the_duration_are_known_starts_before_its_end() -> None:
    interval = run_interval(run_of(started_ns=None, duration_ns=4 * SECOND))
    assert (interval.start_ns, interval.end_ns) == (at(6), at(10))


@pytest.mark.parametrize("time_ns", [2**63 - 2, 2**63 - 1])
def test_no_run_ends_behind_what_64_bits_can_hold(time_ns: int) -> None:
    run = run_of(tool(start_ns=time_ns), created_ns=time_ns - 1, started_ns=time_ns, ended_ns=time_ns)
    interval = run_interval(run)
    assert interval.start_ns < interval.end_ns <= 2**63 - 1


def test_a_run_without_any_time_is_unreadable() -> None:
    with pytest.raises(RunUnreadable, match=r"run-1.*no time at all") as caught:
        run_interval(run_of(chat(duration_ns=SECOND), started_ns=None, ended_ns=None, duration_ns=SECOND))
    assert caught.value.retryable


def test_a_duration_that_the_run_does_not_show_is_kept() -> None:
    attributes = traced(duration_ns=9_999 * MS).root.attributes
    assert attributes["runspan.reported_duration_ms"] == 9999.0
    assert "runspan.reported_duration_ms" not in traced(duration_ns=10 * SECOND).root.attributes


# Gaps


def usage(output: int | None = None, total: int | None = None) -> Usage:
    return Usage(output_tokens=output, total_tokens=total)


@pytest.mark.parametrize(
    ("usages", "boundary"),
    [
        ((usage(output=100, total=1), usage(output=300, total=1)), 2.5),
        ((usage(output=100, total=100), usage(total=900)), 1.0),
        ((usage(output=100), usage(total=900)), 5.0),
        ((usage(output=0), usage(output=0)), 5.0),
        ((usage(), usage()), 5.0),
    ],
)
def test_a_gap_is_shared_by_tokens_where_every_call_has_them(usages: tuple[Usage, Usage], boundary: float) -> None:
    first, second = (chat(str(i), usage=u) for i, u in enumerate(usages))
    assert rows(first, second) == [(0, boundary, "i"), (boundary, 10, "i")]


def test_only_the_gap_around_a_reported_tool_is_shared() -> None:
    reported = tool(start_ns=at(2), end_ns=at(4))
    assert rows(chat("1"), reported, chat("2"), chat("3")) == [
        (0, 2, "i"),
        (2, 4, "r"),
        (4, 7, "i"),
        (7, 10, "i"),
    ]


def test_a_call_with_an_end_alone_starts_at_the_boundary_before_it() -> None:
    calls = [chat(str(end), end_ns=at(end)) for end in (3, 7)]
    assert rows(tool(start_ns=at(0.5), end_ns=at(1)), *calls) == [(0.5, 1, "r"), (1, 3, "i"), (3, 7, "i")]


def test_a_call_that_ends_while_a_tool_runs_starts_where_the_tool_did() -> None:
    assert rows(tool(start_ns=at(1), end_ns=at(8)), chat(end_ns=at(4))) == [(1, 8, "r"), (1, 4, "i")]


def test_a_call_with_a_start_alone_lasts_until_the_next_boundary() -> None:
    assert rows(chat(start_ns=at(2)), tool(start_ns=at(5), end_ns=at(6))) == [(2, 5, "i"), (5, 6, "r")]


def test_a_call_with_a_start_alone_takes_no_time_where_the_next_thing_began_before() -> None:
    assert rows(chat(start_ns=at(5)), tool(start_ns=at(2), end_ns=at(3))) == [(5, 5, "i"), (2, 3, "r")]


def test_reported_ends_of_an_iteration_are_anchors() -> None:
    first = iteration(1, chat("1"), tool("1", duration_ns=SECOND), end_ns=at(4))
    second = iteration(2, chat("2"), tool("2", duration_ns=SECOND))
    assert rows(first, second) == [
        (0, 4, "i"),
        (0, 3, "i"),
        (3, 4, "i"),
        (4, 10, "i"),
        (4, 9, "i"),
        (9, 10, "i"),
    ]


def test_the_times_of_an_iteration_that_is_only_its_call_are_the_calls() -> None:
    assert rows(iteration(1, chat(), start_ns=at(1), end_ns=at(4))) == [(1, 4, "r")]


def test_tools_of_one_iteration_run_side_by_side_where_they_do_not_fit_in_a_row() -> None:
    tools = [tool(str(n), duration_ns=n * SECOND) for n in (4, 6)]
    assert rows(iteration(1, chat(), *tools)) == [(0, 10, "i"), (0, 0, "i"), (0, 4, "i"), (4, 10, "i")]
    tools = [tool(str(n), duration_ns=n * SECOND) for n in (5, 6)]
    assert rows(iteration(1, chat(), *tools)) == [(0, 10, "i"), (0, 4, "i"), (4, 9, "i"), (4, 10, "i")]


def test_a_tool_longer_than_its_run_is_cut_and_says_how_long_it_was() -> None:
    trace = traced(tool(duration_ns=12 * SECOND))
    assert outline(trace)[1][2:] == (0, 10, "i")
    assert trace.spans[1].attributes["runspan.reported_duration_ms"] == 12_000.0


def test_steps_of_no_known_duration_take_no_time() -> None:
    point = step(StepKind.API_CALL, end_ns=at(4))
    assert rows(tool(start_ns=at(2)), point) == [(2, 2, "i"), (4, 4, "i")]


# Reported times


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"start_ns": at(9), "duration_ns": 3 * SECOND}, (7, 10, "c")),
        ({"start_ns": at(-1), "end_ns": at(2)}, (0, 3, "c")),
        ({"start_ns": at(-1), "end_ns": at(20)}, (0, 10, "c")),
        ({"start_ns": at(15), "end_ns": at(16)}, (9, 10, "c")),
        ({"start_ns": at(5), "end_ns": at(3)}, (5, 5, "c")),
        ({"start_ns": at(5), "end_ns": at(3), "duration_ns": SECOND}, (5, 6, "c")),
        ({"start_ns": at(5), "end_ns": 2**70}, (5, 5, "i")),
        ({"start_ns": at(5), "duration_ns": -SECOND}, (5, 5, "i")),
    ],
)
def test_unsound_times_end_inside_the_run(fields: dict[str, Any], expected: tuple[float, float, str]) -> None:
    assert rows(tool(**fields)) == [expected]


def test_a_duration_that_contradicts_both_times_is_kept_beside_them() -> None:
    span = traced(tool(start_ns=at(1), end_ns=at(3), duration_ns=MS)).spans[1]
    assert span.attributes["runspan.timing"] == "reported"
    assert span.attributes["runspan.reported_duration_ms"] == 1.0


def test_steps_inside_a_tool_share_the_tools_time() -> None:
    action = tool(start_ns=at(2), end_ns=at(6), children=(chat("1"), chat("2")))
    assert rows(action) == [(2, 6, "r"), (2, 4, "i"), (4, 6, "i")]


def test_a_tool_without_an_end_lasts_as_long_as_what_is_in_it() -> None:
    inner = chat(end_ns=at(5), duration_ns=SECOND)
    assert rows(tool(start_ns=at(2), children=(inner,))) == [(2, 5, "i"), (4, 5, "r")]
    assert rows(tool(children=(inner,))) == [(4, 5, "i"), (4, 5, "r")]


def test_notes_are_no_anchors() -> None:
    assert rows(note("thinking", start_ns=at(5)), chat(end_ns=at(8))) == [(0, 8, "i")]


# Properties

DURATIONS = st.none() | st.integers(-1, 12 * SECOND)
POINTS = st.none() | st.integers(START - SECOND, START + 11 * SECOND)
TOKENS = st.none() | st.integers(-1, 10_000)
USAGES = st.builds(Usage, output_tokens=TOKENS, total_tokens=TOKENS)


def any_step(kind: StepKind, *, timed: bool) -> st.SearchStrategy[Step]:
    points = POINTS if timed else st.none()
    return st.builds(
        step,
        st.just(kind),
        st.sampled_from("abc"),
        start_ns=points,
        end_ns=points,
        duration_ns=DURATIONS,
        usage=USAGES,
    )


def any_steps(*, timed: bool) -> st.SearchStrategy[list[Step]]:
    def of(kind: StepKind) -> st.SearchStrategy[Step]:
        return any_step(kind, timed=timed)

    leaves = st.sampled_from(StepKind).flatmap(of)
    iterations: Callable[..., Step] = lambda number, call, tools: iteration(number, call, *tools)  # noqa: E731
    nested = st.builds(
        iterations, st.integers(0, 9), of(StepKind.MODEL_CALL), st.lists(of(StepKind.TOOL_CALL), max_size=3)
    )
    actions = st.builds(
        lambda calls, start, end: tool(children=tuple(calls), start_ns=start, end_ns=end),
        st.lists(of(StepKind.MODEL_CALL), max_size=3),
        POINTS if timed else st.none(),
        POINTS if timed else st.none(),
    )
    return st.lists(leaves | nested | actions, max_size=8)


def all_placed(placed: tuple[Placed, ...]) -> list[Placed]:
    return [each for item in placed for each in (item, *all_placed(item.children))]


@given(any_steps(timed=True))
def test_every_span_lies_inside_its_run_and_ends_after_it_starts(steps: list[Step]) -> None:
    for item in all_placed(lay_out(steps, RUN)):
        if item.interval is not None:
            assert RUN.start_ns <= item.interval.start_ns <= item.interval.end_ns <= RUN.end_ns


@given(any_steps(timed=True))
def test_what_is_called_reported_is_where_the_platform_said(steps: list[Step]) -> None:
    for item in all_placed(lay_out(steps, RUN)):
        if item.interval is None or item.interval.timing is not Timing.REPORTED:
            continue
        start, end = item.interval.start_ns, item.interval.end_ns
        said = item.step
        assert said.start_ns == start if said.start_ns is not None else said.duration_ns == end - start
        assert said.end_ns == end if said.end_ns is not None else said.duration_ns == end - start


@given(any_steps(timed=True))
def test_a_reported_duration_is_never_lost(steps: list[Step]) -> None:
    for item in all_placed(lay_out(steps, RUN)):
        said = item.step.duration_ns
        if item.interval is not None and said is not None and said >= 0:
            shown = item.interval.end_ns - item.interval.start_ns
            assert item.interval.said_duration_ns == said or shown == said


@given(any_steps(timed=True))
def test_what_has_children_holds_them(steps: list[Step]) -> None:
    for item in all_placed(lay_out(steps, RUN)):
        if item.interval is not None:
            for child in item.children:
                assert child.interval is not None
                assert item.interval.start_ns <= child.interval.start_ns
                assert child.interval.end_ns <= item.interval.end_ns


@given(st.lists(any_step(StepKind.MODEL_CALL, timed=False) | any_step(StepKind.TOOL_CALL, timed=False)))
def test_steps_without_times_keep_their_order_and_do_not_overlap(steps: list[Step]) -> None:
    placed = lay_out(steps, RUN)
    durations = [item.step.duration_ns or 0 for item in placed]
    for before, after in pairwise(placed):
        assert before.interval is not None
        assert after.interval is not None
        assert before.interval.start_ns <= after.interval.start_ns
        if sum(max(0, d) for d in durations) <= 10 * SECOND:
            assert before.interval.end_ns <= after.interval.start_ns


@given(st.lists(st.builds(chat, st.sampled_from("ab"), usage=USAGES), min_size=1))
def test_calls_without_times_fill_their_run_to_the_nanosecond(calls: list[Step]) -> None:
    intervals = [item.interval for item in lay_out(calls, RUN)]
    assert sum(i.end_ns - i.start_ns for i in intervals if i) == 10 * SECOND


@given(st.lists(st.integers(0, 10 * SECOND), min_size=2, max_size=10), st.data())
def test_calls_between_reported_tools_overlap_nothing(points: list[int], data: st.DataObject) -> None:
    points.sort()
    steps: list[Step] = []
    for n, (start, end) in enumerate(zip(points[::2], points[1::2], strict=False)):
        steps += [chat(str(n), str(i)) for i in range(data.draw(st.integers(0, 3)))]
        steps.append(tool(str(n), start_ns=START + start, end_ns=START + end))
    placed = lay_out(steps, RUN)
    for before, after in pairwise(placed):
        assert before.interval is not None
        assert after.interval is not None
        assert before.interval.end_ns <= after.interval.start_ns
    assert [p.interval.timing for p in placed if p.interval and p.step.kind is StepKind.TOOL_CALL] == [
        Timing.REPORTED
    ] * (len(points) // 2)


TOLD = [(), *(chosen for n in (1, 2, 3) for chosen in combinations(("start_ns", "end_ns", "duration_ns"), n))]
"""What a platform may tell of a step."""


@st.composite
def one_after_the_other(draw: st.DrawFn) -> tuple[Interval, list[Step], list[Step]]:
    """A run whose steps ran one after the other, of which the platform tells only part; flat, and within iterations."""
    clock = START
    leaves: list[Step] = []
    iterations: list[Step] = []
    for number in range(draw(st.integers(1, 4))):
        inside: list[Step] = []
        for kind in [StepKind.MODEL_CALL, *draw(st.lists(st.just(StepKind.TOOL_CALL), max_size=2))]:
            start_ns = clock + draw(st.sampled_from([0, 0, 1, SECOND]))
            clock = start_ns + draw(st.sampled_from([0, 1, SECOND, 2 * SECOND]))
            true: dict[str, Any] = {"start_ns": start_ns, "end_ns": clock, "duration_ns": clock - start_ns}
            told = draw(st.sampled_from(TOLD))
            inside.append(step(kind, str(len(leaves)), **{name: true[name] for name in told}))
            leaves.append(inside[-1])
        end = {"end_ns": clock} if draw(st.booleans()) else {}
        iterations.append(iteration(number, *inside, **end))
    end_ns = clock + draw(st.sampled_from([1, SECOND]))
    return Interval(START, end_ns, Timing.REPORTED), leaves, iterations


def leaves_of(placed: tuple[Placed, ...]) -> list[Placed]:
    return [leaf for item in placed for leaf in (leaves_of(item.children) if item.children else [item])]


@given(one_after_the_other())
def test_what_ran_one_after_the_other_is_drawn_so_however_little_is_told(
    case: tuple[Interval, list[Step], list[Step]],
) -> None:
    run, flat, iterations = case
    for steps in (flat, iterations):
        drawn = leaves_of(lay_out(steps, run))
        assert [item.step for item in drawn] == flat
        intervals = [item.interval for item in drawn if item.interval]
        for said, interval in zip(flat, intervals, strict=True):
            assert said.start_ns in (None, interval.start_ns)
            assert said.end_ns in (None, interval.end_ns)
        for before, after in pairwise(intervals):
            assert before.end_ns <= after.start_ns


@pytest.mark.parametrize("at_ns", [START + 2 * SECOND, START + 3 * SECOND])
def test_a_call_without_length_stays_within_its_tool(at_ns: int) -> None:
    call = Step(kind=StepKind.API_CALL, key=("call",), name="vault", start_ns=at_ns, end_ns=at_ns)
    ran = Step(
        kind=StepKind.TOOL_CALL, key=("t",), start_ns=START + 2 * SECOND, end_ns=START + 3 * SECOND, children=(call,)
    )
    [tool, inner] = traced(ran, ref=RunRef("casedev", "t", "r")).spans[1:]
    assert tool.start_ns <= inner.start_ns < inner.end_ns <= tool.end_ns


@given(any_steps(timed=True))
def test_any_run_of_steps_becomes_a_trace(steps: list[Step]) -> None:
    trace: Trace = traced(*steps, ref=RunRef("runtype", "t", "r"))
    seen = {trace.root.span_id}
    for span in trace.spans[1:]:
        assert span.parent_id in seen
        assert span.span_id not in seen
        # A span without length is one of negative duration to Jaeger.
        assert trace.root.start_ns <= span.start_ns < span.end_ns <= trace.root.end_ns
        seen.add(span.span_id)
    marked = [item.attributes["runspan.timing"] for span in trace.spans for item in (span, *span.events)]
    assert set(marked) <= set(Timing)


def test_a_call_that_reaches_beyond_its_action_is_moved_into_it() -> None:
    inside = chat(end_ns=START + 6 * SECOND, duration_ns=2 * SECOND)
    long = chat("long", end_ns=START + 5 * SECOND, duration_ns=4 * SECOND)
    action = tool(children=(inside, long), start_ns=START + 2 * SECOND, end_ns=START + 5 * SECOND)
    [placed] = lay_out([action], RUN)
    assert placed.interval == Interval(START + 2 * SECOND, START + 5 * SECOND, Timing.REPORTED)
    assert [child.interval for child in placed.children] == [
        Interval(START + 3 * SECOND, START + 5 * SECOND, Timing.CLAMPED, 2 * SECOND),
        Interval(START + 2 * SECOND, START + 5 * SECOND, Timing.CLAMPED, 4 * SECOND),
    ]
