"""What goes into the ledger and comes out of it: plain values, no SQL."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum

from runspan.model import ENDED, Json, RunRef, RunStatus


class RowState(StrEnum):
    """How a run stands in the ledger."""

    OPEN = "open"
    """Not ended when last seen; asked again at its due time."""
    DUE = "due"
    """Ended; to be fetched and sent at its due time, as often as it takes."""
    EXPORTED = "exported"
    """Acknowledged by the destination."""
    SKIPPED = "skipped"
    """Not to be exported; the reason says why."""
    GONE = "gone"
    """The platform does not have it any more."""
    QUARANTINED = "quarantined"
    """Cannot be exported as it is; `runspan retry` puts it back."""
    EXPIRED = "expired"
    """Open for longer than `open_for`; still asked, rarely."""


UNSETTLED = (RowState.OPEN, RowState.DUE, RowState.EXPIRED)
"""The states with a due time: what there is to do."""

SETTLED = (RowState.EXPORTED, RowState.SKIPPED, RowState.GONE)
"""The states that are over, and pruned after the retention. A quarantined row is neither: it waits for a person."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whose run ids these are: a platform, and the tenant within which its run ids are unique."""

    platform: str
    tenant: str


@dataclass(frozen=True, slots=True)
class NewRow:
    """What discovery says of one run.

    `source` is the label of the source that saw it. `due_ns` is when to ask or fetch next, for OPEN, DUE and EXPIRED.
    `created_ns` serves where the ref's locator has none.
    """

    ref: RunRef
    source: str
    state: RowState
    due_ns: int | None = None
    reason: str | None = None
    raw_status: str | None = None
    created_ns: int | None = None
    terminal_seen_ns: int | None = None
    exports: frozenset[RunStatus] = ENDED
    """With which statuses the configuration lets this run through."""


@dataclass(frozen=True, slots=True)
class Noted:
    """What noting some runs came to; each run counts once, in one of these."""

    new: int = 0
    became_due: int = 0
    """Open or expired before; now ended, or to be skipped."""
    known: int = 0
    new_ids: frozenset[str] = field(default=frozenset(), compare=False)


@dataclass(frozen=True, slots=True)
class Sendable:
    """What of some runs may be sent: `refs` are leased to this process. `differing`: of them, sent before with other
    bytes."""

    refs: AbstractSet[RunRef]
    differing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A row leased to this process: nobody else works on it until it is finished, released, or the lease runs out."""

    ref: RunRef
    source: str
    state: RowState
    attempts: int
    first_seen_ns: int
    terminal_seen_ns: int | None
    digest: str | None
    """Of the bytes last sent, or about to be sent, for this run."""
    sent: bool
    """Whether bytes of this run may have reached the destination before."""
    job: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What an exported row keeps of its run: numbers and names, no content."""

    agent_id: str | None = None
    agent_name: str | None = None
    status: str | None = None
    error_type: str | None = None
    started_ns: int | None = None
    ended_ns: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cost_amount: str | None = None
    """A decimal number as text, exact."""
    cost_unit: str | None = None
    step_count: int | None = None
    trace_id: str | None = None
    """32 hex digits."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of one claimed row.

    `state` may be OPEN, DUE or EXPIRED again, then with `due_ns`. `count_attempt` says that this was a failed try that
    counts against the run. What is None (`raw_status`, `terminal_seen_ns`, `summary`) stays as it was.
    """

    ref: RunRef
    state: RowState
    reason: str | None = None
    retryable: bool = False
    due_ns: int | None = None
    raw_status: str | None = None
    doubtful: bool = False
    terminal_seen_ns: int | None = None
    count_attempt: bool = False
    summary: Summary | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """Everything the ledger knows of one run."""

    ref: RunRef
    source: str
    state: RowState
    reason: str | None
    retryable: bool
    doubtful: bool
    raw_status: str | None
    attempts: int
    first_seen_ns: int
    terminal_seen_ns: int | None
    due_ns: int | None
    leased_until_ns: int | None
    exported_ns: int | None
    digest: str | None
    job: str | None
    summary: Summary | None
    """None until the run has been exported."""


POLL = "poll"
SLOW = "slow"
"""The kinds of sweeps that move a position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """How far the reading of one list has come.

    `kind` is `poll`, `slow` or `job:<id>`. `position_ns` says only: every run the platform listed up to here is a row;
    `start_ns` is where it began, and nothing before it is ever read again.
    The current pass reads [window_start_ns, window_end_ns) of the list's own time axis (end None: up to now) and
    stands at `cursor`; `high_ns` is the latest time it has seen. `finished_ns` is when a pass last came to its end.
    """

    scope: str
    kind: str
    start_ns: int | None
    position_ns: int | None
    window_start_ns: int | None
    window_end_ns: int | None
    cursor: Json | None
    high_ns: int | None
    finished_ns: int | None

    @property
    def interrupted(self) -> bool:
        """Whether a pass stopped midway: it goes on at `cursor`. If not, the next pass begins with begin_sweep."""
        return self.cursor is not None


UNWANTED = "agent"
"""The reason of rows that are skipped only because the configuration does not want their agent: it may change."""
SAMPLED_OUT = "sampled out"
"""The reason of successful runs that are not in the share that the configuration keeps."""
FILTERED = {f"filtered: {status}": status for status in sorted(ENDED)} | {SAMPLED_OUT: RunStatus.SUCCESS}
"""The reasons of rows that are skipped only because the configuration does not want runs that ended so, with how that
was: it may change too."""


class JobState(StrEnum):
    """How a job stands."""

    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A backfill: the same command finds the same job again.

    `listed` counts the runs its lists and id files named, each once however often the job was stopped; `known` those
    of them that had been exported or skipped before it came.
    """

    id: str
    arguments: Mapping[str, Json]
    state: JobState
    started_ns: int
    finished_ns: int | None
    listed: int
    known: int


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How the rows of a job stand: `states` by state, `reasons` by (state, reason) where there is a reason."""

    states: Mapping[RowState, int]
    reasons: Mapping[tuple[RowState, str], int]


@dataclass(frozen=True, slots=True)
class Count:
    """How many rows of a source stand in one state for one reason."""

    source: str
    state: RowState
    reason: str | None
    rows: int
