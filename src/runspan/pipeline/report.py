"""How a backfill ended, in numbers of runs."""

from dataclasses import dataclass, field

from runspan.ledger import Job, JobCounts, RowState


@dataclass(slots=True)
class Report:
    """Each run that was listed is counted in one of these; `reasons` by state and reason.

    `failing`: left to be asked for or sent again later. `unverified`: exported, and not shown when read back.
    """

    listed: int = 0
    exported: int = 0
    known: int = 0
    still_open: int = 0
    skipped: int = 0
    gone: int = 0
    expired: int = 0
    quarantined: int = 0
    failing: int = 0
    unverified: int = 0
    reasons: dict[tuple[RowState, str], int] = field(default_factory=dict[tuple[RowState, str], int])
    problems: list[str] = field(default_factory=list[str])

    @property
    def complete(self) -> bool:
        """Whether every run that was listed is exported, skipped, known or merely still open."""
        left = self.quarantined or self.gone or self.expired or self.failing or self.unverified
        return not (left or self.problems)


def report_of(job: Job, counts: JobCounts) -> Report:
    """What the ledger tells of a job."""
    states = counts.states
    # A row that is still to be worked on has a reason only where that has failed.
    unasked = sum(rows for (state, _), rows in counts.reasons.items() if state is RowState.OPEN)
    return Report(
        listed=job.listed,
        exported=states.get(RowState.EXPORTED, 0),
        known=job.known,
        still_open=states.get(RowState.OPEN, 0) - unasked,
        skipped=states.get(RowState.SKIPPED, 0),
        gone=states.get(RowState.GONE, 0),
        expired=states.get(RowState.EXPIRED, 0),
        quarantined=states.get(RowState.QUARANTINED, 0),
        failing=states.get(RowState.DUE, 0) + unasked,
        reasons=dict(counts.reasons),
    )
