"""Rows and positions against a reference so small that it is plainly right."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from runspan.ledger import LEASE_NS, Finished, Ledger, RowState
from runspan.ledger.rows import GONE_AGAIN_NS
from tests.ledgers import ACCOUNT, SECOND, START_NS, Clock, ref, row

OPEN, DUE, EXPIRED = RowState.OPEN, RowState.DUE, RowState.EXPIRED
WAITING = {OPEN, DUE, EXPIRED}
OVER = {RowState.EXPORTED, RowState.SKIPPED, RowState.GONE}

run_ids = st.sampled_from([f"run-{number}" for number in range(8)])
listed = st.lists(st.tuples(run_ids, st.sampled_from([OPEN, DUE, RowState.SKIPPED])), max_size=5)
moments = st.integers(-100, 100).map(lambda seconds: START_NS + seconds * SECOND)


@dataclass
class ReferenceRow:
    state: RowState
    due_ns: int | None
    over_ns: int | None = None
    leased_until_ns: int = 0
    attempts: int = 0


class LedgerModel(RuleBasedStateMachine):
    claims = Bundle("claims")

    @initialize()
    def start(self) -> None:
        self.clock = Clock()
        self.ledger = Ledger.open("sqlite://", now=self.clock)
        self.rows: dict[str, ReferenceRow] = {}
        self.position_ns = START_NS - 50 * SECOND
        self.window_start_ns = self.position_ns
        self.cursor: int | None = None
        self.high_ns: int | None = None
        self.begin(0)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()

    @rule(seconds=st.integers(0, 400))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(back_seconds=st.integers(-5, 60))
    def begin(self, back_seconds: int) -> None:
        """A pass that begins before the position or, by mistake, after it."""
        self.window_start_ns = self.position_ns - back_seconds * SECOND
        self.cursor = self.high_ns = None
        self.ledger.begin_sweep(
            ACCOUNT,
            "",
            "poll",
            window_start_ns=self.window_start_ns,
            window_end_ns=None,
            position_ns=self.position_ns,
        )

    @rule(page=listed, cursor=st.none() | st.integers(1, 9), high_ns=st.none() | moments)
    def note_page(self, page: list[tuple[str, RowState]], cursor: int | None, high_ns: int | None) -> None:
        self.note(page)
        new_rows = [row(run_id, state, self.clock.ns) for run_id, state in page]
        self.ledger.note_page(ACCOUNT, "", "poll", new_rows, cursor=cursor, high_ns=high_ns)
        self.cursor = cursor
        self.high_ns = max(self.high_ns or 0, high_ns or 0) or None
        if cursor is None and self.high_ns and self.window_start_ns <= self.position_ns:
            self.position_ns = max(self.position_ns, min(self.high_ns, self.clock.ns))

    @rule(page=listed)
    def note_rows(self, page: list[tuple[str, RowState]]) -> None:
        self.note(page)
        self.ledger.note_rows([row(run_id, state, self.clock.ns) for run_id, state in page])

    def note(self, page: list[tuple[str, RowState]]) -> None:
        said: dict[str, RowState] = {}
        for run_id, state in page:
            if said.get(run_id, OPEN) is OPEN:
                said[run_id] = state
        for run_id, state in said.items():
            known = self.rows.get(run_id)
            if known is None:
                known = self.rows[run_id] = ReferenceRow(state, None)
            elif known.state is RowState.GONE and (known.over_ns or 0) <= self.clock.ns - GONE_AGAIN_NS:
                pass  # It is there again.
            elif known.state not in (OPEN, EXPIRED) or state is OPEN:
                continue
            known.state, known.attempts = state, 0
            known.due_ns = self.clock.ns if state in WAITING else None
            known.over_ns = None if state in WAITING else self.clock.ns

    @rule(target=claims, limit=st.integers(1, 4))
    def claim(self, limit: int) -> object:
        claimed = self.ledger.claim(ACCOUNT, limit=limit)
        free = [
            known.due_ns
            for known in self.rows.values()
            if known.due_ns is not None and known.due_ns <= self.clock.ns and known.leased_until_ns <= self.clock.ns
        ]
        assert [self.rows[claim.ref.run_id].due_ns for claim in claimed] == sorted(free)[:limit]
        for claim in claimed:
            known = self.rows[claim.ref.run_id]
            assert (claim.state, claim.attempts) == (known.state, known.attempts)
            assert known.leased_until_ns <= self.clock.ns
            known.leased_until_ns = self.clock.ns + LEASE_NS
        return multiple(*[claim.ref.run_id for claim in claimed])

    @rule(run_id=consumes(claims), state=st.sampled_from(RowState), delay=st.integers(0, 90), counts=st.booleans())
    def finish(self, run_id: str, state: RowState, delay: int, counts: bool) -> None:
        due_ns = self.clock.ns + delay * SECOND if state in WAITING else None
        lost = self.ledger.finish([Finished(ref(run_id), state, due_ns=due_ns, count_attempt=counts)])
        known = self.rows.get(run_id)
        writes = known is not None and (
            known.leased_until_ns > 0 or (state is RowState.EXPORTED and known.over_ns is None)
        )
        assert lost == (not writes)
        if known is None or not writes:
            return
        known.state, known.due_ns, known.leased_until_ns = state, due_ns, 0
        known.over_ns = self.clock.ns if state in OVER else None
        known.attempts = known.attempts + 1 if counts else 0 if state is OPEN else known.attempts

    @rule(run_id=consumes(claims))
    def give_up(self, run_id: str) -> None:
        self.ledger.release([ref(run_id)])
        if run_id in self.rows:
            self.rows[run_id].leased_until_ns = 0

    @rule()
    def retry(self) -> None:
        self.ledger.retry()
        for known in self.rows.values():
            if known.state is RowState.QUARANTINED:
                known.state, known.due_ns, known.attempts = DUE, self.clock.ns, 0

    @rule(still_open=st.frozensets(run_ids))
    def settle_open(self, still_open: frozenset[str]) -> None:
        self.ledger.settle_open(ACCOUNT, still_open, listed_ns=self.clock.ns + 1, ask_again=lambda age_ns: 30 * SECOND)
        for run_id, known in self.rows.items():
            if known.state is not OPEN or known.leased_until_ns:
                continue
            if run_id in still_open:
                known.due_ns = self.clock.ns + 30 * SECOND
            elif known.attempts == 0:
                known.due_ns = self.clock.ns

    @rule(age_seconds=st.integers(100, 2000))
    def prune(self, age_seconds: int) -> None:
        before_ns = self.clock.ns - age_seconds * SECOND
        old = [run_id for run_id, known in self.rows.items() if known.over_ns and known.over_ns < before_ns]
        pruned = self.ledger.prune(ACCOUNT, before_ns=before_ns)
        # What its list still shows stays: see TestPruning.
        gone = set(self.rows) - {run.ref.run_id for run in self.ledger.runs()}
        assert gone <= set(old)
        assert pruned == len(gone)
        for run_id in gone:
            del self.rows[run_id]

    @invariant()
    def rows_agree(self) -> None:
        if hasattr(self, "ledger"):
            stored = {run.ref.run_id: (run.state, run.due_ns, run.attempts) for run in self.ledger.runs()}
            assert stored == {
                run_id: (known.state, known.due_ns, known.attempts) for run_id, known in self.rows.items()
            }

    @invariant()
    def positions_agree(self) -> None:
        if hasattr(self, "ledger"):
            sweep = self.ledger.sweep(ACCOUNT, "", "poll")
            assert sweep is not None
            assert (sweep.position_ns, sweep.cursor, sweep.high_ns) == (self.position_ns, self.cursor, self.high_ns)

    @invariant()
    def the_next_due_time_is_when_a_claim_can_succeed(self) -> None:
        if hasattr(self, "ledger"):
            times = [max(known.due_ns, known.leased_until_ns) for known in self.rows.values() if known.due_ns]
            assert self.ledger.next_due_ns(ACCOUNT) == min(times, default=None)


TestLedgerModel = LedgerModel.TestCase
TestLedgerModel.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
