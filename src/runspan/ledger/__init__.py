"""The ledger: what runspan knows for good.

What is durable is one row per run, not its spans. The platform keeps every finished run for us to fetch again, so a
queue of spans on disk would only be a second copy, with its own ways to be torn, filled and lost. A row says that the
run exists and what is left to do about it; everything else can be had again from the platform, and gives the same
bytes again.

*States.* A run enters as `open` or `due`. An open one is asked again until it has ended. A due one is fetched and sent
until the destination acknowledges it, and only then marked `exported`. What is not exported stands here with its
reason: `skipped`, `gone`, `quarantined`, `expired`. Only exported, skipped and gone rows are ever deleted, after the
retention; a row is what tells a run that was sent from one that was not, so it must outlive every list that can still
show the run.

*Positions.* A position says: every run that the platform listed up to here is a row. It says nothing of their fate, so
runs that are open, failing or refused never hold it back, and it never passes a run that is not safely noted. A page's
rows and the sweep's cursor are one transaction: killed between two pages, a sweep goes on where it stood; killed within
one, the page was never read.

*Leases.* Daemon, backfill and retry work on one ledger at the same time. Whoever works on a row leases it; a finish
counts only while the lease is still held. A lease ends by itself after ten minutes, or as soon as anybody looks if its
process is dead, since each process holds a lock on a file of its own that the operating system drops with it. Two
daemons would sweep the same lists, so of those there is one, by a lock as well, and by its name in each transaction.

*Sending.* Before bytes go out their digest is committed. After a crash the row is still due and is sent again; if the
digest is the same the copies are identical, and if not, the platform has changed the run meanwhile and that is counted.
"""

from runspan.ledger.ledger import LEASE_NS, Ledger
from runspan.ledger.values import (
    POLL,
    SAMPLED_OUT,
    SETTLED,
    SLOW,
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
    Sendable,
    Summary,
    Sweep,
)

__all__ = [
    "LEASE_NS",
    "POLL",
    "SAMPLED_OUT",
    "SETTLED",
    "SLOW",
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
    "Sendable",
    "Summary",
    "Sweep",
]
