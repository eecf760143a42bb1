import asyncio
from collections.abc import Callable, Sequence

import pytest
from structlog.testing import capture_logs

from runspan.otlp.base import Answer, AnswerKind, EncodedTrace, Outcome, Verdict
from runspan.otlp.delivery import Delivery
from runspan.otlp.memory import MemoryExporter, accept
from tests.traces import delivered, encoded_trace

SECOND_NS = 1_000_000_000
WALL_NS = 1_767_225_600 * SECOND_NS

EXPORTED, DUE, DOUBTFUL, QUARANTINED = Verdict.EXPORTED, Verdict.DUE, Verdict.DOUBTFUL, Verdict.QUARANTINED


class Bench:
    """A delivery to a destination in memory, with a clock that stands still until it is told to go on."""

    def __init__(self, respond: Callable[[Sequence[EncodedTrace]], Answer] = accept, **settings: int) -> None:
        self.seconds = 1000.0
        self.exporter = MemoryExporter(respond, **settings)
        self.delivery = Delivery(
            self.exporter,
            now_ns=lambda: WALL_NS + int(self.seconds * SECOND_NS),
            monotonic_ns=lambda: int(self.seconds * SECOND_NS),
            jitter=lambda: 1.0,
        )

    async def deliver(self, *run_ids: str) -> list[Outcome]:
        return await delivered(self.delivery, [encoded_trace(run_id) for run_id in run_ids])

    async def verdicts(self, *run_ids: str) -> list[Verdict]:
        return [outcome.verdict for outcome in await self.deliver(*run_ids)]

    @property
    def sent(self) -> list[list[str]]:
        return [[trace.trace.ref.run_id for trace in request] for request in self.exporter.requests]

    @property
    def hold_seconds(self) -> float:
        return (self.delivery.retry_at_ns - WALL_NS) / SECOND_NS - self.seconds


def holds(traces: Sequence[EncodedTrace], *run_ids: str) -> bool:
    return any(trace.trace.ref.run_id in run_ids for trace in traces)


def poison(kind: AnswerKind, *run_ids: str) -> Callable[[Sequence[EncodedTrace]], Answer]:
    """A destination that refuses each request with one of these runs in it, and takes all others."""
    return lambda traces: Answer(kind, "HTTP 4xx: bad span") if holds(traces, *run_ids) else accept(traces)


def always(kind: AnswerKind, reason: str = "no", retry_after_seconds: float | None = None):
    return lambda traces: Answer(kind, reason, retry_after_seconds=retry_after_seconds)


async def test_traces_are_batched_in_order_below_the_request_size():
    size = len(encoded_trace("a").payload)
    bench = Bench(max_request_bytes=2 * size)
    assert await bench.verdicts("a", "b", "c", "d", "e") == [EXPORTED] * 5
    assert bench.sent == [["a", "b"], ["c", "d"], ["e"]]
    assert bench.delivery.healthy


async def test_trace_above_the_request_size_still_goes_alone():
    bench = Bench(max_request_bytes=10)
    assert await bench.verdicts("a", "b") == [EXPORTED] * 2
    assert bench.sent == [["a"], ["b"]]


async def test_what_a_request_has_settled_is_told_before_the_next_one():
    bench = Bench(poison(AnswerKind.TOO_LARGE, "c"))
    told = bench.delivery.deliver([encoded_trace(run_id) for run_id in "abcd"])
    seen = [([*outcomes], len(bench.sent)) async for outcomes in told]
    assert bench.sent == [list("abcd"), ["a", "b"], ["c", "d"], ["c"], ["d"]]
    assert seen == [([0, 1], 2), ([2], 4), ([3], 5)]


async def test_an_exporter_that_raises_is_a_destination_that_fails():
    def raises(traces: Sequence[EncodedTrace]) -> Answer:
        raise ZeroDivisionError

    bench = Bench(raises)
    assert await bench.verdicts("a", "b") == [DUE, DUE]
    assert not bench.delivery.healthy
    assert "ZeroDivisionError" in (bench.delivery.last_error or "")


class TestTooLarge:
    async def test_splits_until_it_fits(self):
        bench = Bench(lambda traces: Answer(AnswerKind.TOO_LARGE) if len(traces) > 2 else accept(traces))
        assert await bench.verdicts(*"abcde") == [EXPORTED] * 5
        assert bench.sent == [list("abcde"), ["a", "b"], ["c", "d", "e"], ["c"], ["d", "e"]]

    async def test_quarantines_the_trace_that_is_too_large_alone(self):
        bench = Bench(poison(AnswerKind.TOO_LARGE, "b"))
        outcomes = await bench.deliver("a", "b", "c")
        assert [outcome.verdict for outcome in outcomes] == [EXPORTED, QUARANTINED, EXPORTED]
        assert outcomes[1].reason == "HTTP 4xx: bad span"
        assert outcomes[1].retryable  # a backend's limit can be raised
        assert bench.delivery.healthy


class TestBadData:
    async def test_bisects_down_to_the_poisonous_trace(self):
        bench = Bench(poison(AnswerKind.BAD_DATA, "f"))
        assert await bench.verdicts("before") == [EXPORTED]
        with capture_logs() as logs:
            outcomes = await bench.deliver(*"abcdefgh")
        assert [o.verdict for o in outcomes] == [EXPORTED] * 5 + [QUARANTINED] + [EXPORTED] * 2
        assert outcomes[5] == Outcome(QUARANTINED, "HTTP 4xx: bad span", retryable=False)
        assert [] not in bench.sent  # another trace had been accepted: no probe was needed
        assert [(log["action"], log["run"]) for log in logs] == [("trace_quarantined", "f")]

    async def test_probes_with_an_empty_request_where_nothing_was_accepted_in_the_same_minute(self):
        bench = Bench(poison(AnswerKind.BAD_DATA, "b"))
        await bench.deliver("before")
        bench.seconds += 61
        assert await bench.verdicts("a", "b") == [EXPORTED, QUARANTINED]
        assert bench.sent == [["before"], ["a", "b"], [], ["a"], ["b"]]

    async def test_lone_trace_is_quarantined_on_the_strength_of_the_probe(self):
        bench = Bench(poison(AnswerKind.BAD_DATA, "a"))
        (outcome,) = await bench.deliver("a")
        assert outcome.verdict is QUARANTINED
        assert outcome.retryable  # nothing but an empty request was ever taken
        assert bench.delivery.healthy

    async def test_destination_that_refuses_the_probe_too_is_wrong_and_holds_everything(self):
        bench = Bench(always(AnswerKind.BAD_DATA, "HTTP 400"))
        with capture_logs() as logs:
            assert await bench.verdicts("a", "b", "c") == [DUE] * 3
        assert bench.sent == [["a", "b", "c"], []]
        assert not bench.delivery.healthy
        assert bench.delivery.last_error == "HTTP 400; and it refuses an empty request too"
        assert [(log["action"], log["log_level"]) for log in logs] == [("destination_wrong", "error")]

    async def test_probe_that_meets_an_outage_leaves_the_traces_due(self):
        bench = Bench(
            lambda traces: Answer(AnswerKind.BAD_DATA, "HTTP 400") if traces else Answer(AnswerKind.RETRY, "HTTP 503")
        )
        assert await bench.verdicts("a") == [DUE]
        assert bench.delivery.last_error == "HTTP 503"

    async def test_destination_that_takes_nothing_but_probes_costs_one_trace_however_long_it_lasts(self):
        bench = Bench(lambda traces: Answer(AnswerKind.BAD_DATA, "HTTP 400") if traces else accept(traces))
        with capture_logs() as logs:
            assert await bench.verdicts(*"abcdefgh") == [QUARANTINED] + [DUE] * 7
            assert bench.sent.count([]) == 1  # a probe holds for a minute
            for run_id in "bcdefgh" * 20:
                assert not bench.delivery.healthy
                bench.seconds += 60
                assert await bench.verdicts(run_id) == [DUE]
        said = [log["action"] for log in logs]
        assert said == ["trace_quarantined", "destination_down", "destination_wrong"]
        bench.exporter.respond = accept
        bench.seconds += 60
        assert await bench.verdicts(*"bcdefgh") == [EXPORTED] * 7

    async def test_destination_that_takes_traces_in_between_is_not_suspected(self):
        bench = Bench(poison(AnswerKind.BAD_DATA, "bad-1", "bad-2", "bad-3"))
        for run_id in ("bad-1", "bad-2", "bad-3"):
            assert await bench.verdicts(run_id) == [QUARANTINED]
            assert bench.delivery.healthy
            assert await bench.verdicts("good") == [EXPORTED]
            bench.seconds += 61

    @pytest.mark.parametrize("kind", [AnswerKind.BAD_DATA, AnswerKind.TOO_LARGE])
    async def test_destination_that_begins_to_refuse_everything_is_suspected_and_not_the_traces(self, kind: AnswerKind):
        """A lost tenant, a gateway's new rule: that traces were taken a moment ago vouches for few."""
        bench = Bench(poison(kind, *(f"r{number}" for number in range(40))))
        assert await bench.verdicts("before") == [EXPORTED]
        with capture_logs() as logs:
            verdicts = await bench.verdicts(*(f"r{number}" for number in range(40)))
            for number in range(20):
                bench.seconds += 60
                verdicts += await bench.verdicts(f"r{20 + number}")
        assert verdicts.count(QUARANTINED) == 3
        assert verdicts.count(DUE) == 57
        assert not bench.delivery.healthy
        assert logs[-1]["action"] == "destination_wrong"

    async def test_poisonous_traces_in_a_row_do_not_stop_the_good_ones_behind_them(self):
        bench = Bench(poison(AnswerKind.BAD_DATA, "a", "b"))
        assert await bench.verdicts(*"abcd") == [QUARANTINED, DUE, DUE, DUE]
        assert not bench.delivery.wrong, "that is to be seen"
        bench.seconds += 60
        assert await bench.verdicts("c", "d") == [EXPORTED] * 2
        assert bench.delivery.healthy
        assert await bench.verdicts("b") == [QUARANTINED]


class TestPartialSuccess:
    async def test_trace_alone_is_quarantined_with_the_backends_words(self):
        bench = Bench(lambda traces: Answer(AnswerKind.PARTIAL, "span too old", rejected_spans=1))
        (outcome,) = await bench.deliver("a")
        assert outcome == Outcome(QUARANTINED, "the backend rejected 1 spans: span too old", retryable=False)
        assert bench.sent == [["a"]]

    async def test_batch_is_doubtful_and_the_next_go_one_by_one_until_an_answer_is_clean(self):
        bench = Bench()
        answers = iter(
            [
                Answer(AnswerKind.PARTIAL, "too old", rejected_spans=2),
                Answer(AnswerKind.PARTIAL, "too old", rejected_spans=2),
                Answer(AnswerKind.ACCEPTED),
                Answer(AnswerKind.ACCEPTED),
            ]
        )
        bench.exporter.respond = lambda traces: next(answers)
        with capture_logs() as logs:
            assert await bench.verdicts("a", "b") == [DOUBTFUL] * 2
        assert [log["action"] for log in logs] == ["export_doubtful"]
        assert await bench.verdicts("c", "d", "e", "f") == [QUARANTINED, EXPORTED, EXPORTED, EXPORTED]
        assert bench.sent == [["a", "b"], ["c"], ["d"], ["e", "f"]]
        assert bench.delivery.healthy

    async def test_warning_without_rejected_spans_is_success(self):
        bench = Bench(lambda traces: Answer(AnswerKind.PARTIAL, "use v2 soon"))
        with capture_logs() as logs:
            assert await bench.deliver("a", "b") == [Outcome(EXPORTED, "use v2 soon")] * 2
        assert [(log["action"], log["log_level"]) for log in logs] == [("destination_warning", "warning")]
        assert await bench.verdicts("c", "d") == [EXPORTED] * 2
        assert bench.sent == [["a", "b"], ["c", "d"]]


class TestHolding:
    async def test_unhealthy_destination_is_sent_nothing_before_its_time(self):
        bench = Bench(always(AnswerKind.RETRY, "HTTP 503"))
        outcomes = await bench.deliver("a", "b")
        assert outcomes == [Outcome(DUE, "HTTP 503", 1.0)] * 2
        assert not bench.delivery.healthy
        bench.seconds += 0.4
        (outcome,) = await bench.deliver("c")
        assert outcome.verdict is DUE
        assert outcome.retry_after_seconds == pytest.approx(0.6)
        assert bench.sent == [["a", "b"]]

    async def test_one_trace_goes_ahead_and_the_rest_follow_only_if_it_passes(self):
        bench = Bench(always(AnswerKind.RETRY))
        await bench.deliver("a", "b", "c")
        bench.seconds += 1
        assert await bench.verdicts("a", "b", "c") == [DUE] * 3
        bench.seconds += 2
        bench.exporter.respond = accept
        with capture_logs() as logs:
            assert await bench.verdicts("a", "b", "c") == [EXPORTED] * 3
        assert bench.sent == [["a", "b", "c"], ["a"], ["a"], ["b", "c"]]
        assert [log["action"] for log in logs] == ["destination_up"]
        assert bench.delivery.healthy
        assert bench.delivery.retry_at_ns == 0

    async def test_a_wait_that_is_over_lies_behind_every_clock_that_is_read_now(self):
        bench = Bench(always(AnswerKind.RETRY))
        await bench.deliver("a")
        assert bench.delivery.retry_at_ns == WALL_NS + 1001 * SECOND_NS
        bench.seconds += 1
        assert not bench.delivery.healthy
        assert bench.delivery.retry_at_ns == 0

    async def test_wait_doubles_up_to_a_minute_and_starts_over_after_success(self):
        bench = Bench(always(AnswerKind.RETRY))
        waits = []
        for _ in range(9):
            await bench.deliver("a")
            waits.append(round(bench.hold_seconds, 6))
            bench.seconds += bench.hold_seconds
        assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        bench.exporter.respond = accept
        await bench.deliver("a")
        bench.exporter.respond = always(AnswerKind.RETRY)
        await bench.deliver("b")
        assert bench.hold_seconds == pytest.approx(1)

    async def test_jitter_takes_up_to_half_of_the_wait(self):
        bench = Bench(always(AnswerKind.RETRY))
        bench.delivery = Delivery(bench.exporter, now_ns=lambda: WALL_NS, monotonic_ns=lambda: 0, jitter=lambda: 0.0)
        (outcome,) = await bench.deliver("a")
        assert outcome.retry_after_seconds == 0.5

    @pytest.mark.parametrize(("asked", "waited"), [(0.2, 1.0), (120.0, 120.0), (10.0**9, 3600.0)])
    async def test_honours_what_the_destination_asks_for(self, asked, waited):
        bench = Bench(always(AnswerKind.RETRY, "HTTP 429", asked))
        (outcome,) = await bench.deliver("a")
        assert outcome.retry_after_seconds == waited
        assert bench.hold_seconds == pytest.approx(waited)

    @pytest.mark.parametrize(
        ("kind", "action", "level"),
        [
            (AnswerKind.RETRY, "destination_down", "warning"),
            (AnswerKind.FAILED, "destination_down", "warning"),
            (AnswerKind.WRONG, "destination_wrong", "error"),
        ],
    )
    async def test_says_once_what_is_wrong_and_again_when_that_changes(self, kind, action, level):
        bench = Bench(always(kind, "this"))
        with capture_logs() as logs:
            for reason in ("this", "this", "that"):
                bench.exporter.respond = always(kind, reason)
                await bench.deliver("a")
                bench.seconds += 60
        assert [(log["action"], log["log_level"], log["reason"]) for log in logs] == [
            (action, level, "this"),
            (action, level, "that"),
        ]

    async def test_hold_in_the_middle_of_a_batch_leaves_the_rest_due(self):
        bench = Bench(max_request_bytes=10)
        answers = iter([Answer(AnswerKind.ACCEPTED), Answer(AnswerKind.RETRY, "HTTP 503")])
        bench.exporter.respond = lambda traces: next(answers)
        assert await bench.verdicts("a", "b", "c") == [EXPORTED, DUE, DUE]


class TestRefusedAlone:
    async def test_failing_trace_waits_longer_while_others_pass_and_is_quarantined_after_an_hour(self):
        bench = Bench(poison(AnswerKind.FAILED, "bad"))
        started = bench.seconds
        delays, outcome = [], None
        for _ in range(20):
            (outcome,) = await bench.deliver("bad")
            if outcome.verdict is QUARANTINED:
                break
            delays.append(outcome.retry_after_seconds)
            bench.seconds += outcome.retry_after_seconds
            assert await bench.verdicts("good") == [EXPORTED]
            assert bench.delivery.healthy
        assert outcome is not None
        assert outcome.verdict is QUARANTINED
        assert "while other traces passed: HTTP 4xx: bad span" in outcome.reason
        assert delays == [5, 60, 120, 240, 480, 900, 900, 900]
        assert bench.seconds - started >= 3600

    async def test_no_trace_is_parked_for_as_long_as_a_destination_likes(self):
        refuse = always(AnswerKind.FAILED, retry_after_seconds=1e9)
        bench = Bench(lambda traces: refuse(traces) if holds(traces, "bad") else accept(traces))
        for _ in range(3):
            (outcome,) = await bench.deliver("bad")
            bench.seconds += 3600
            assert await bench.verdicts("good") == [EXPORTED]
        assert outcome.retry_after_seconds == 3600

    async def test_trace_is_never_quarantined_while_everything_fails(self):
        bench = Bench(always(AnswerKind.FAILED, "HTTP 500"))
        for _ in range(100):
            assert await bench.verdicts("a") == [DUE]
            bench.seconds += 60
        assert bench.delivery.healthy is False

    async def test_failing_trace_blocks_no_other(self):
        bench = Bench(poison(AnswerKind.FAILED, "bad"))
        assert await bench.verdicts("bad", "b", "c") == [DUE] * 3
        # One goes ahead alone. If it is the bad one, then the next time it is another; and what has failed twice
        # while others passed goes alone from then on.
        for first, second, third in (("bad", "b", "c"), ("b", "c", "bad"), ("c", "bad", "b")):
            bench.seconds += 20
            await bench.deliver(first, second, third)
        assert {trace.trace.ref.run_id for trace in bench.exporter.taken} == {"b", "c"}
        bench.seconds += 60
        assert await bench.verdicts("bad", "d", "e") == [DUE, EXPORTED, EXPORTED]
        assert bench.sent[-2:] == [["d", "e"], ["bad"]]
        assert bench.delivery.healthy

    async def test_trace_on_which_the_destination_hangs_is_kept_due_but_ever_more_rarely(self):
        bench = Bench(poison(AnswerKind.RETRY, "bad"))
        delays = []
        for _ in range(8):
            (outcome,) = await bench.deliver("bad")
            assert outcome.verdict is DUE
            delays.append(outcome.retry_after_seconds)
            bench.seconds += outcome.retry_after_seconds
            assert await bench.verdicts("good") == [EXPORTED]
        assert delays == [1, 60, 120, 240, 480, 900, 900, 900]

    async def test_passing_clears_a_traces_history(self):
        bench = Bench(poison(AnswerKind.FAILED, "bad"))
        for _ in range(3):
            await bench.deliver("bad")
            bench.seconds += 120
            await bench.deliver("good")
        bench.exporter.respond = accept
        assert await bench.verdicts("bad") == [EXPORTED]
        bench.exporter.respond = poison(AnswerKind.FAILED, "bad")
        (outcome,) = await bench.deliver("bad")
        assert outcome.retry_after_seconds == 5


async def test_callers_take_turns():
    bench = Bench()
    running = 0

    async def send(traces: Sequence[EncodedTrace]) -> Answer:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0)
        running -= 1
        return Answer(AnswerKind.ACCEPTED)

    bench.exporter.send = send
    results = await asyncio.gather(*(bench.verdicts(f"run-{n}") for n in range(5)))
    assert results == [[EXPORTED]] * 5
