"""The ledger: the durable table of runs, positions and jobs. `runspan.ledger.ledger` opens with its design."""

from runspan.ledger.ledger import LEASE_NS, Ledger
from runspan.ledger.values import (
    SAMPLED_OUT,
    SETTLED,
    UNSETTLED,
    UNWANTED,
    Account,
    Claim,
    Count,
    Finished,
    Job,
    JobCounts,
    JobState,
    NewRow,
    Noted,
    RowState,
    RunRow,
    Summary,
    Sweep,
)

__all__ = [
    "LEASE_NS",
    "SAMPLED_OUT",
    "SETTLED",
    "UNSETTLED",
    "UNWANTED",
    "Account",
    "Claim",
    "Count",
    "Finished",
    "Job",
    "JobCounts",
    "JobState",
    "Ledger",
    "NewRow",
    "Noted",
    "RowState",
    "RunRow",
    "Summary",
    "Sweep",
]
