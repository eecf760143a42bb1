"""Rows and positions: what discovery notes, what becomes of it, and when it may be forgotten."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runspan.errors import ConfigError, LedgerUnusable
from runspan.ledger import (
    UNWANTED,
    Account,
    Finished,
    JobState,
    Ledger,
    NewRow,
    Noted,
    RowState,
    Summary,
)
from runspan.model import RunRef, RunStatus
from tests.ledgers import ACCOUNT, DAY, SECOND, START_NS, Clock, ids, open_ledger, ref, row

OPEN, DUE, EXPORTED, SKIPPED = RowState.OPEN, RowState.DUE, RowState.EXPORTED, RowState.SKIPPED
GONE, QUARANTINED, EXPIRED = RowState.GONE, RowState.QUARANTINED, RowState.EXPIRED


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path, clock: Clock) -> Iterator[Ledger]:
    with open_ledger(path, clock) as ledger:
        yield ledger


def bring(ledger: Ledger, run_id: str, state: RowState, reason: str | None = None) -> None:
    """Note a run and finish it in `state`."""
    ledger.note_rows([row(run_id, due_ns=0)])
    ledger.claim(ACCOUNT, limit=100)
    ledger.finish([Finished(ref(run_id), state, reason=reason, due_ns=START_NS if state is OPEN else None)])


class TestNoting:
    def test_each_run_counts_once_and_repeats_change_nothing(self, ledger: Ledger) -> None:
        page = [row("a"), row("b", OPEN), row("a"), row("c", SKIPPED, reason="otel import")]
        assert ledger.note_rows(page) == Noted(new=3, became_due=0, known=0)
        before = ledger.runs()
        assert ledger.note_rows(page) == Noted(new=0, became_due=0, known=3)
        assert ledger.runs() == before

    def test_a_run_skipped_for_its_agent_is_taken_up_once_the_agent_is_wanted(self, ledger: Ledger) -> None:
        ledger.note_rows([row("a", SKIPPED, reason=UNWANTED), row("b", SKIPPED, reason="self")])
        ledger.note_rows([row("a"), row("b")])
        assert ledger.states(ACCOUNT, ["a", "b"]) == {"a": DUE, "b": SKIPPED}

    @pytest.mark.parametrize(
        ("reason", "exports", "state"),
        [
            ("sampled out", {"success"}, DUE),
            ("sampled out", {"failed"}, SKIPPED),
            ("filtered: failed", {"failed"}, DUE),
            ("filtered: failed", {"success"}, SKIPPED),
        ],
    )
    def test_a_filtered_run_is_taken_up_once_its_ending_is_wanted(
        self, ledger: Ledger, reason: str, exports: set[str], state: RowState
    ) -> None:
        """Though a list says no more than that it is over: what is known of its end is the reason."""
        ledger.note_rows([row("a", SKIPPED, reason=reason)])
        ledger.note_rows([row("a", SKIPPED, reason=reason, exports=frozenset(map(RunStatus, exports)))])
        assert ledger.states(ACCOUNT, ["a"]) == {"a": SKIPPED}
        ledger.note_rows([row("a", exports=frozenset(map(RunStatus, exports)))])
        assert ledger.states(ACCOUNT, ["a"]) == {"a": state}

    def test_an_open_run_that_has_ended_becomes_due(self, ledger: Ledger) -> None:
        ledger.note_rows([row("a", OPEN, due_ns=START_NS + DAY, raw_status="running")])
        ended = row("a", DUE, due_ns=START_NS + 5, raw_status="failed", terminal_seen_ns=START_NS)
        assert ledger.note_rows([ended]) == Noted(new=0, became_due=1, known=0)
        found = ledger.find("a")[0]
        assert (found.state, found.due_ns, found.raw_status) == (DUE, START_NS + 5, "failed")
        assert found.terminal_seen_ns == START_NS

    def test_within_one_page_the_ended_row_counts(self, ledger: Ledger) -> None:
        for order in ([row("a", OPEN), row("a", DUE)], [row("b", DUE), row("b", OPEN)]):
            ledger.note_rows(order)
        assert ledger.states(ACCOUNT, ["a", "b"]) == {"a": DUE, "b": DUE}

    @pytest.mark.parametrize("state", [EXPORTED, SKIPPED, GONE, QUARANTINED])
    def test_a_run_that_is_over_stays_so_whatever_lists_say(self, ledger: Ledger, state: RowState) -> None:
        bring(ledger, "a", state)
        for said in (OPEN, DUE, SKIPPED):
            assert ledger.note_rows([row("a", said)]).known == 1
        assert ledger.states(ACCOUNT, ["a"]) == {"a": state}

    def test_a_run_that_is_gone_and_still_listed_is_asked_for_again(self, ledger: Ledger, clock: Clock) -> None:
        """A gateway may say 404 for its platform."""
        bring(ledger, "a", GONE, "404")
        clock.advance(9 * 60)
        assert ledger.note_rows([row("a")]) == Noted(new=0, became_due=0, known=1)
        clock.advance(60)
        assert ledger.note_rows([row("a")]) == Noted(new=0, became_due=1, known=0)
        assert ids(ledger.claim(ACCOUNT, limit=9)) == ["a"]

    def test_a_job_asks_for_what_is_gone_once(self, ledger: Ledger) -> None:
        bring(ledger, "a", GONE, "404")
        ledger.start_job("job", {})
        ledger.note_rows([row("a")], job="job")
        assert ids(ledger.claim(ACCOUNT, limit=9, job="job")) == ["a"]
        ledger.finish([Finished(ref("a"), GONE, reason="404")])
        ledger.note_rows([row("a")], job="job")
        assert ledger.states(ACCOUNT, ["a"]) == {"a": GONE}

    def test_an_expired_run_that_ends_after_all_becomes_due(self, ledger: Ledger) -> None:
        bring(ledger, "a", EXPIRED)
        assert ledger.note_rows([row("a", OPEN)]).known == 1
        assert ledger.note_rows([row("a", DUE)]).became_due == 1

    def test_the_locator_is_completed_and_what_was_seen_first_stays(self, ledger: Ledger) -> None:
        ledger.note_rows([row("a", agent_id="agent-1", agent_name="Freja")])
        ledger.note_rows([row("a", agent_id="agent-2", agent_name="renamed", room="room-1", created_ns=7)])
        locator = ledger.find("a")[0].ref.locator
        assert (locator.agent_id, locator.agent_name) == ("agent-1", "Freja")
        assert (locator.room, locator.created_ns) == ("room-1", 7)

    def test_the_same_id_under_another_tenant_is_another_run(self, ledger: Ledger) -> None:
        elsewhere = NewRow(RunRef("casedev", "other", "a"), "case-dev", DUE, due_ns=START_NS)
        assert ledger.note_rows([row("a"), elsewhere]).new == 2
        assert len(ledger.find("a")) == 2
        assert ids(ledger.claim(Account("casedev", "other"), limit=9)) == ["a"]

    def test_a_page_larger_than_any_statement(self, ledger: Ledger) -> None:
        page = [row(f"run-{number}") for number in range(3000)]
        assert ledger.note_rows(page).new == 3000
        assert ledger.note_rows(page).known == 3000

    def test_values_that_no_database_holds_do_not_block_the_page(self, ledger: Ledger) -> None:
        year_9999_ns = 253_402_300_799 * SECOND
        odd = row("odd\ud800\0", reason="\udfff", agent_name="\0", created_ns=year_9999_ns, terminal_seen_ns=-(2**70))
        assert ledger.note_rows([odd, row("b")]).new == 2
        found = ledger.find("odd\ud800\0")[0]
        assert (found.ref.run_id, found.reason) == ("odd\ufffd\ufffd", "\ufffd")
        assert found.ref.locator.created_ns is None


class TestSweeps:
    def begin(self, ledger: Ledger, kind: str = "poll", start_ns: int = 0) -> None:
        ledger.begin_sweep(ACCOUNT, "", kind, window_start_ns=start_ns, window_end_ns=None, position_ns=START_NS - DAY)

    def test_the_position_moves_when_the_pass_is_complete(self, ledger: Ledger) -> None:
        assert ledger.sweep(ACCOUNT, "", "poll") is None
        self.begin(ledger)
        ledger.note_page(ACCOUNT, "", "poll", [row("a")], cursor={"page": 2}, high_ns=START_NS - 5)
        midway = ledger.sweep(ACCOUNT, "", "poll")
        assert midway is not None
        assert midway.interrupted
        assert (midway.cursor, midway.high_ns, midway.finished_ns) == ({"page": 2}, START_NS - 5, None)
        assert midway.position_ns == START_NS - DAY
        ledger.note_page(ACCOUNT, "", "poll", [row("b")], cursor=None, high_ns=START_NS - 9)
        complete = ledger.sweep(ACCOUNT, "", "poll")
        assert complete is not None
        assert not complete.interrupted
        assert (complete.position_ns, complete.finished_ns) == (START_NS - 5, START_NS)

    def test_an_interrupted_pass_goes_on_after_a_restart(self, path: Path) -> None:
        with open_ledger(path) as ledger:
            self.begin(ledger)
            ledger.note_page(ACCOUNT, "", "poll", [row("a")], cursor=["c", 1], high_ns=START_NS - 5)
        with open_ledger(path) as ledger:
            sweep = ledger.sweep(ACCOUNT, "", "poll")
            assert sweep is not None
            assert sweep.cursor == ["c", 1]
            ledger.note_page(ACCOUNT, "", "poll", [], cursor=None, high_ns=None)
            sweep = ledger.sweep(ACCOUNT, "", "poll")
            assert sweep is not None
            assert sweep.position_ns == START_NS - 5

    def test_a_position_never_goes_back_nor_past_now(self, ledger: Ledger) -> None:
        self.begin(ledger)
        for high_ns, position_ns in [(None, START_NS - DAY), (5, START_NS - DAY), (START_NS + DAY, START_NS)]:
            self.begin(ledger)
            ledger.note_page(ACCOUNT, "", "poll", [], cursor=None, high_ns=high_ns)
            sweep = ledger.sweep(ACCOUNT, "", "poll")
            assert sweep is not None
            assert sweep.position_ns == position_ns

    def test_a_slow_pass_moves_none(self, ledger: Ledger) -> None:
        """A poll may be under way that has seen what the other has not, and has to be made again."""
        self.begin(ledger)
        self.begin(ledger, "slow")
        ledger.note_page(ACCOUNT, "", "slow", [], cursor=None, high_ns=START_NS - 1)
        poll = ledger.sweep(ACCOUNT, "", "poll")
        assert poll is not None
        assert poll.position_ns == START_NS - DAY

    def test_a_job_moves_no_position(self, ledger: Ledger) -> None:
        self.begin(ledger)
        before = ledger.sweep(ACCOUNT, "", "poll")
        ledger.start_job("j", {})
        ledger.begin_sweep(ACCOUNT, "", "job:j", window_start_ns=0, window_end_ns=9, position_ns=None)
        ledger.note_page(ACCOUNT, "", "job:j", [row("a")], cursor=None, high_ns=START_NS - 1, job="j")
        assert ledger.sweep(ACCOUNT, "", "poll") == before

    def test_a_new_pass_forgets_the_cursor_and_keeps_the_position(self, ledger: Ledger) -> None:
        self.begin(ledger)
        ledger.note_page(ACCOUNT, "", "poll", [], cursor="expired", high_ns=START_NS - 5)
        again = ledger.begin_sweep(ACCOUNT, "", "poll", window_start_ns=3, window_end_ns=8, position_ns=0)
        assert (again.cursor, again.high_ns, again.position_ns) == (None, None, START_NS - DAY)
        assert (again.window_start_ns, again.window_end_ns) == (3, 8)

    def test_a_page_and_its_cursor_are_stored_together_or_not_at_all(self, ledger: Ledger, path: Path) -> None:
        self.begin(ledger)
        with closing(sqlite3.connect(path, isolation_level=None)) as saboteur:
            saboteur.execute("CREATE TRIGGER no BEFORE UPDATE ON sweeps BEGIN SELECT RAISE(ABORT, 'no'); END")
            with pytest.raises(LedgerUnusable):
                ledger.note_page(ACCOUNT, "", "poll", [row("a")], cursor="2", high_ns=START_NS - 1)
            assert ledger.runs() == []
            saboteur.execute("DROP TRIGGER no")
            saboteur.execute("CREATE TRIGGER no BEFORE INSERT ON runs BEGIN SELECT RAISE(ABORT, 'no'); END")
            with pytest.raises(LedgerUnusable):
                ledger.note_page(ACCOUNT, "", "poll", [row("a")], cursor="2", high_ns=START_NS - 1)
        sweep = ledger.sweep(ACCOUNT, "", "poll")
        assert sweep is not None
        assert sweep.cursor is None

    def test_a_page_of_a_sweep_that_was_never_begun_is_a_mistake(self, ledger: Ledger) -> None:
        with pytest.raises(LookupError, match="never begun"):
            ledger.note_page(ACCOUNT, "", "poll", [row("a")], cursor=None, high_ns=None)
        assert ledger.runs() == []

    def test_an_account_is_read_from_where_it_was_first_said(self, ledger: Ledger) -> None:
        ledger.note_rows([row("a", SKIPPED)])
        ledger.prune(ACCOUNT, before_ns=START_NS + 1)
        assert ledger.start_ns(ACCOUNT, if_new_ns=START_NS) == START_NS
        assert ledger.start_ns(ACCOUNT, if_new_ns=START_NS + DAY) == START_NS
        assert ledger.start_ns(Account("casedev", "other"), if_new_ns=START_NS + DAY) == START_NS + DAY


class TestOpenRows:
    def test_those_that_left_the_platforms_list_are_due_and_the_others_asked_again(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        later_ns = START_NS + DAY
        ledger.note_rows([row("ended", OPEN, later_ns), row("runs", OPEN, later_ns, created_ns=START_NS - DAY)])
        ledger.note_rows([row("due", DUE, later_ns), row("old", OPEN, later_ns)])
        clock.advance(60)
        listed_ns = clock.ns
        ledger.note_rows([row("younger-than-the-list", OPEN, later_ns)])
        ended = ledger.settle_open(ACCOUNT, {"runs", "old"}, listed_ns=listed_ns, ask_again=lambda age_ns: age_ns // 10)
        assert ended == 1
        due = {found.ref.run_id: found.due_ns for found in ledger.runs()}
        assert due == {
            "ended": clock.ns,
            "runs": clock.ns + (DAY + 60 * SECOND) // 10,
            "old": clock.ns + 6 * SECOND,
            "due": later_ns,
            "younger-than-the-list": later_ns,
        }
        assert ledger.open_ids(ACCOUNT, 2) == ["ended", "old"]

    def test_one_that_is_being_retried_keeps_its_time(self, ledger: Ledger, clock: Clock) -> None:
        ledger.note_rows([row("a", OPEN), row("leased", OPEN, due_ns=START_NS + 1)])
        ledger.claim(ACCOUNT, limit=1)
        ledger.finish([Finished(ref("a"), OPEN, reason="502", due_ns=START_NS + DAY, count_attempt=True)])
        clock.advance(60)
        ledger.claim(ACCOUNT, limit=1)
        assert ledger.settle_open(ACCOUNT, set(), listed_ns=clock.ns, ask_again=lambda age_ns: 0) == 0
        assert {found.due_ns for found in ledger.runs()} == {START_NS + DAY, START_NS + 1}


SUMMARY = Summary(
    agent_id="agent-1",
    agent_name="Freja",
    status="failed",
    error_type="failed",
    started_ns=START_NS - 9,
    ended_ns=START_NS - 1,
    input_tokens=900,
    output_tokens=120,
    total_tokens=1020,
    cost_amount="0.0042",
    cost_unit="usd",
    step_count=4,
    trace_id="0af7651916cd43dd8448eb211c80319c",
)


class TestFinishing:
    def test_an_exported_row_keeps_numbers_and_names(self, ledger: Ledger, clock: Clock) -> None:
        ledger.note_rows([row("a", raw_status="queued")])
        ledger.claim(ACCOUNT, limit=1)
        clock.advance(5)
        assert ledger.finish([Finished(ref("a"), EXPORTED, raw_status="failed", doubtful=True, summary=SUMMARY)]) == 0
        found = ledger.find("a")[0]
        assert found.summary == SUMMARY
        assert (found.state, found.exported_ns, found.due_ns, found.doubtful) == (EXPORTED, clock.ns, None, True)
        assert found.raw_status == "failed"
        assert found.leased_until_ns is None

    def test_failures_count_until_an_answer_is_sound(self, ledger: Ledger) -> None:
        ledger.note_rows([row("a", OPEN)])
        for state, counts, attempts in [(OPEN, True, 1), (DUE, True, 2), (DUE, False, 2), (OPEN, False, 0)]:
            ledger.claim(ACCOUNT, limit=1)
            ledger.finish([Finished(ref("a"), state, due_ns=START_NS, count_attempt=counts)])
            assert ledger.find("a")[0].attempts == attempts

    def test_what_is_not_said_stays(self, ledger: Ledger) -> None:
        ledger.note_rows([row("a", raw_status="completed", terminal_seen_ns=4)])
        ledger.claim(ACCOUNT, limit=1)
        ledger.finish([Finished(ref("a"), QUARANTINED, reason="not JSON", retryable=True)])
        found = ledger.find("a")[0]
        assert (found.raw_status, found.terminal_seen_ns) == ("completed", 4)
        assert (found.reason, found.retryable, found.summary) == ("not JSON", True, None)

    def test_a_repeat_with_other_bytes_is_counted(self, ledger: Ledger) -> None:
        ledger.note_rows([row("a"), row("b")])
        ledger.claim(ACCOUNT, limit=2)
        assert ledger.about_to_send([(ref("a"), "1"), (ref("b"), "1")]).differing == 0
        assert ledger.about_to_send([(ref("a"), "1"), (ref("b"), "2")]).differing == 1
        ledger.release([ref("a"), ref("b")])
        claims = {claim.ref.run_id: claim for claim in ledger.claim(ACCOUNT, limit=2)}
        assert (claims["b"].digest, claims["b"].sent) == ("2", True)

    def test_retry_puts_quarantined_rows_back(self, ledger: Ledger) -> None:
        bring(ledger, "a", QUARANTINED, "400: 100 % wrong")
        bring(ledger, "b", QUARANTINED, "400: 1000 wrong")
        bring(ledger, "c", GONE, "400: 100 % wrong")
        assert ledger.retry(source="other") == 0
        assert ledger.retry(run_ids=["d"]) == 0
        assert ledger.retry(reason_like="100 %") == 1
        assert ledger.states(ACCOUNT, ["a", "b", "c"]) == {"a": DUE, "b": QUARANTINED, "c": GONE}
        assert ledger.retry() == 1
        assert sorted(ids(ledger.claim(ACCOUNT, limit=9))) == ["a", "b"]
        assert ledger.retry(run_ids=["c"]) == 1
        assert ids(ledger.claim(ACCOUNT, limit=9)) == ["c"]


class TestJobs:
    def test_a_job_counts_each_run_once_however_often_it_is_stopped(self, ledger: Ledger) -> None:
        bring(ledger, "exported", EXPORTED)
        bring(ledger, "gone", GONE, "the platform no longer has this run")
        page = [row("exported"), row("gone"), row("new"), row("skipped", SKIPPED, reason="otel import")]
        assert ledger.start_job("j", {"since_ns": 1}).state is JobState.RUNNING
        for _ in range(2):
            ledger.note_rows(page, job="j")
            job = ledger.start_job("j", {"ignored": True})
            assert (job.listed, job.known, job.arguments) == (4, 1, {"since_ns": 1})
        counts = ledger.job_counts("j")
        assert counts.states == {DUE: 2, SKIPPED: 1}
        assert counts.reasons == {(SKIPPED, "otel import"): 1}
        ledger.finish_job("j")
        finished = ledger.job("j")
        assert finished is not None
        assert (finished.state, finished.finished_ns) == (JobState.FINISHED, START_NS)
        assert ledger.job("other") is None

    def test_a_job_claims_its_own_rows_only(self, ledger: Ledger) -> None:
        ledger.start_job("j", {})
        ledger.note_rows([row("daemon's"), row("shared", due_ns=START_NS - 1)])
        ledger.note_rows([row("shared"), row("later", due_ns=START_NS + 7)], job="j")
        assert ledger.next_due_ns(ACCOUNT, job="j") == START_NS - 1
        assert ids(ledger.claim(ACCOUNT, limit=9, job="j")) == ["shared"]
        assert ledger.claim(ACCOUNT, limit=9, job="j") == []

    def test_force_sends_again_what_was_exported_before_the_job_and_once(self, ledger: Ledger) -> None:
        bring(ledger, "a", EXPORTED)
        bring(ledger, "b", SKIPPED)
        ledger.start_job("j", {})
        for forced in (2, 0):
            ledger.note_rows([row("a"), row("b"), row("c")], job="j", force=True)
            claims = ids(ledger.claim(ACCOUNT, limit=9, job="j"))
            assert len(claims) == forced
            ledger.finish([Finished(ref(run_id), EXPORTED) for run_id in claims])
        job = ledger.job("j")
        assert job is not None
        assert (job.listed, job.known) == (3, 1)


class TestQuestions:
    def test_runs_are_found_by_what_one_knows_of_them(self, ledger: Ledger) -> None:
        ledger.note_rows([row(f"run-{day}", created_ns=START_NS - day * DAY) for day in range(4)])
        ledger.note_rows([row("named", agent_id="a-1", agent_name="Freja", created_ns=1), row("open", OPEN)])

        def found(**filters: object) -> list[str]:
            return [run.ref.run_id for run in ledger.runs(**filters)]  # type: ignore[arg-type]

        assert found(limit=3) == ["open", "run-0", "run-1"]
        assert found(since_ns=START_NS - 3 * DAY, until_ns=START_NS - DAY) == ["run-2", "run-3"]
        assert found(state=OPEN) == ["open"]
        assert found(agent="Freja") == found(agent="a-1") == ["named"]
        assert found(source="other") == []
        assert len(found(source="case-prod")) == 6

    def test_counts_by_source_state_and_reason(self, ledger: Ledger) -> None:
        ledger.note_rows([row("a"), row("b"), row("c", SKIPPED, reason="otel import")])
        counts = {(count.source, count.state, count.reason): count.rows for count in ledger.counts()}
        assert counts == {("case-prod", DUE, None): 2, ("case-prod", SKIPPED, "otel import"): 1}

    def test_the_oldest_due_is_of_ended_runs(self, ledger: Ledger) -> None:
        assert ledger.oldest_due_ns(ACCOUNT) is None
        ledger.note_rows([row("open", OPEN, due_ns=1), row("a", due_ns=7), row("b", due_ns=5)])
        assert ledger.oldest_due_ns(ACCOUNT) == 5


class TestPruning:
    def test_only_what_is_over_and_old_goes_and_how_far_is_remembered(self, ledger: Ledger, clock: Clock) -> None:
        for state in RowState:
            bring(ledger, state.value, state)
        ledger.note_rows([row("skipped at sight", SKIPPED, created_ns=START_NS - 2 * DAY)])
        clock.advance(10 * 86_400)
        bring(ledger, "fresh", EXPORTED)
        assert ledger.pruned_through_ns(ACCOUNT) is None
        assert ledger.prune(ACCOUNT, before_ns=START_NS) == 0
        assert ledger.prune(ACCOUNT, before_ns=clock.ns) == 4
        kept = {run.ref.run_id for run in ledger.runs()}
        assert kept == {"open", "due", "quarantined", "expired", "fresh"}
        assert ledger.pruned_through_ns(ACCOUNT) == START_NS
        assert ledger.prune(Account("casedev", "other"), before_ns=clock.ns + 1) == 0

    def test_what_a_list_still_shows_stays(self, ledger: Ledger, clock: Clock) -> None:
        """Of agents that have done nothing for long, each pass reads the last runs again, and would send them again."""
        idle, busy, reach_ns = "idle", "busy", 3600 * SECOND
        old_ns = START_NS - 100 * DAY
        for agent in (idle, busy):
            for number, ended_ns in enumerate((old_ns, old_ns - reach_ns, old_ns - reach_ns - SECOND)):
                locator = {"agent_id": agent, "created_ns": ended_ns - SECOND}
                ledger.note_rows([row(f"{agent} {number}", due_ns=0, **locator)])
                ledger.claim(ACCOUNT, limit=1)
                summary = Summary(started_ns=ended_ns - SECOND, ended_ns=ended_ns, trace_id="ab")
                ledger.finish([Finished(ref(f"{agent} {number}"), EXPORTED, summary=summary)])
        for agent, position_ns in ((idle, old_ns), (busy, START_NS)):
            window = {"window_start_ns": position_ns - 60 * SECOND, "window_end_ns": None}
            ledger.begin_sweep(ACCOUNT, agent, "poll", position_ns=position_ns, **window)
            ledger.note_page(ACCOUNT, agent, "poll", [], cursor=None, high_ns=None)
        clock.advance(90 * 86_400)
        assert ledger.prune(ACCOUNT, before_ns=clock.ns, reach_ns=reach_ns) == 4
        assert {run.ref.run_id for run in ledger.runs()} == {"idle 0", "idle 1"}
        # A pass that is still under way began further back.
        ledger.begin_sweep(
            ACCOUNT, idle, "slow", window_start_ns=old_ns - reach_ns, window_end_ns=None, position_ns=old_ns
        )
        ledger.note_page(ACCOUNT, idle, "poll", [], cursor=None, high_ns=START_NS)
        assert ledger.prune(ACCOUNT, before_ns=clock.ns, reach_ns=reach_ns) == 0
        for kind in ("poll", "slow"):
            ledger.begin_sweep(ACCOUNT, idle, kind, window_start_ns=START_NS, window_end_ns=None, position_ns=None)
        assert ledger.prune(ACCOUNT, before_ns=clock.ns, reach_ns=reach_ns) == 2

    def test_how_far_never_goes_back(self, ledger: Ledger, clock: Clock) -> None:
        for created_ns in (START_NS - 5, START_NS - 9):
            ledger.note_rows([row(f"run-{created_ns}", SKIPPED, created_ns=created_ns)])
            clock.advance(1)
            assert ledger.prune(ACCOUNT, before_ns=clock.ns) == 1
        assert ledger.pruned_through_ns(ACCOUNT) == START_NS - 5

    def test_more_rows_than_one_transaction_takes(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("runspan.ledger.history.PRUNE_CHUNK", 10)
        ledger.note_rows([row(f"run-{number}", SKIPPED) for number in range(35)])
        assert ledger.prune(ACCOUNT, before_ns=START_NS + 1) == 35


class TestClockAhead:
    def test_lists_that_were_read_to_a_time_to_come_are_read_again(self, ledger: Ledger, clock: Clock) -> None:
        assert ledger.start_ns(ACCOUNT, if_new_ns=START_NS + DAY) == START_NS + DAY
        for scope, position_ns in (("sound", START_NS - DAY), ("ahead", START_NS + DAY)):
            window = {"window_start_ns": position_ns, "window_end_ns": None}
            ledger.begin_sweep(ACCOUNT, scope, "poll", position_ns=position_ns, **window)
            ledger.note_page(ACCOUNT, scope, "poll", [row(f"at {scope}")], cursor="more", high_ns=None)

        mend = {"latest_ns": START_NS + 600 * SECOND, "start_ns": START_NS - 2 * DAY}
        assert ledger.rewind(ACCOUNT, **mend) == 1
        sound, ahead = (ledger.sweep(ACCOUNT, scope, "poll") for scope in ("sound", "ahead"))
        assert sound is not None
        assert (sound.position_ns, sound.cursor) == (START_NS - DAY, "more")
        assert ahead is not None
        assert (ahead.position_ns, ahead.start_ns, ahead.cursor) == (START_NS - 2 * DAY, START_NS - 2 * DAY, None)
        assert ledger.start_ns(ACCOUNT, if_new_ns=START_NS) == START_NS - 2 * DAY
        # One that had begun before the clock went wrong is read from no earlier than that.
        began_ns = START_NS - DAY
        ledger.begin_sweep(ACCOUNT, "begun", "poll", window_start_ns=began_ns, window_end_ns=None, position_ns=began_ns)
        clock.advance(86_400)
        ledger.note_page(ACCOUNT, "begun", "poll", [], cursor=None, high_ns=START_NS + DAY)
        assert ledger.rewind(ACCOUNT, **mend) == 1
        begun = ledger.sweep(ACCOUNT, "begun", "poll")
        assert begun is not None
        assert (begun.position_ns, begun.start_ns) == (began_ns, began_ns)
        assert ledger.rewind(ACCOUNT, **mend) == 0
        assert ledger.rewind(Account("casedev", "other"), **mend) == 0


class TestIdentity:
    def test_a_tenant_is_pinned_at_the_first_start(self, path: Path) -> None:
        with open_ledger(path) as ledger:
            ledger.pin_tenant("case-prod", "casedev", "https://api.case.dev")
        with open_ledger(path) as ledger:
            ledger.pin_tenant("case-prod", "casedev", "https://api.case.dev")
            ledger.pin_tenant("case-prod", "runtype", "https://api.runtype.com")
            with pytest.raises(ConfigError, match=r'set tenant = "https://api.case.dev"'):
                ledger.pin_tenant("case-prod", "casedev", "https://eu.case.dev")

    def test_a_new_destination_is_noticed_once(self, ledger: Ledger) -> None:
        assert ledger.remember_destination("http://a") is None
        assert ledger.remember_destination("http://a") is None
        assert ledger.remember_destination("http://b") == "http://a"
        assert ledger.remember_destination("http://b") is None
