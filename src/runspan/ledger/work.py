"""Rows as the pipeline works on them: claimed under a lease, sent, finished."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, and_, case, func, or_, select, update

from runspan.ledger.rows import KEY, key, of, param, ref_of
from runspan.ledger.schema import runs
from runspan.ledger.values import SETTLED, Account, Claim, Finished, RowState, Sendable, Summary
from runspan.model import RunRef

SUMMARY_COLUMNS = tuple(field.name for field in fields(Summary))

_LOCATOR_COLUMNS = ("agent_id", "agent_name")
"""Columns of the summary that the locator has too: what was seen first stays, since it feeds the trace."""


class Lease(NamedTuple):
    """Whose rows are, and until when."""

    owner: str
    until_ns: int


def claim(
    connection: Connection,
    now_ns: int,
    lease: Lease,
    account: Account,
    *,
    limit: int,
    most_open: int,
    states: Iterable[RowState],
    job: str | None,
    due_before_ns: int,
    at_random: bool,
) -> list[Claim]:
    """Lease the rows that are due longest, or any; see `Ledger.claim`."""
    free = or_(runs.c.lease_until_ns.is_(None), runs.c.lease_until_ns <= now_ns)
    candidates: list[Row[Any]] = []
    for state in states:  # one by one, so that each query reads the index in due order and stops at the limit
        due = select(runs).where(of(account), runs.c.state == state, runs.c.due_ns <= due_before_ns, free)
        if job is not None:
            due = due.where(runs.c.job == job)
        at_most = limit if state is RowState.DUE else min(limit, most_open)
        in_turn = due.order_by(func.random() if at_random else runs.c.due_ns)
        candidates += connection.execute(in_turn.limit(at_most))
    if not at_random:
        candidates.sort(key=lambda row: row.due_ns)
    surplus = {row.run_id for row in [row for row in candidates if row.state != RowState.DUE][most_open:]}
    chosen = [row for row in candidates if row.run_id not in surplus][:limit]
    if chosen:
        connection.execute(
            update(runs)
            .where(of(account), runs.c.run_id.in_([row.run_id for row in chosen]))
            .values(lease_owner=lease.owner, lease_until_ns=lease.until_ns)
        )
    return [_claimed(row) for row in chosen]


def _claimed(row: Row[Any]) -> Claim:
    return Claim(
        ref=ref_of(row),
        source=row.source,
        state=RowState(row.state),
        attempts=row.attempts,
        first_seen_ns=row.first_seen_ns,
        terminal_seen_ns=row.terminal_seen_ns,
        digest=row.digest,
        sent=row.sent,
        job=row.job,
    )


def next_due_ns(connection: Connection, account: Account, states: Iterable[RowState], job: str | None) -> int | None:
    """When the next row can be claimed: its due time or, for one that is leased, the end of its lease."""
    times: list[int | None] = []
    for state in states:
        waiting = and_(of(account), runs.c.state == state, runs.c.due_ns.is_not(None))
        if job is not None:
            waiting = and_(waiting, runs.c.job == job)
        free = select(runs.c.due_ns).where(waiting, runs.c.lease_owner.is_(None))
        times.append(connection.scalar(free.order_by(runs.c.due_ns).limit(1)))
        later = case((runs.c.lease_until_ns > runs.c.due_ns, runs.c.lease_until_ns), else_=runs.c.due_ns)
        leased = select(func.min(later))
        times.append(connection.scalar(leased.where(waiting, runs.c.lease_owner.is_not(None))))
    return min((time for time in times if time is not None), default=None)


def about_to_send(connection: Connection, owner: str, digests: Sequence[tuple[RunRef, str]]) -> Sendable:
    """Write down what is about to be sent of what is still leased by `owner`; see `Ledger.about_to_send`."""
    ours: set[RunRef] = set()
    differing = 0
    leased = select(runs.c.digest, runs.c.sent).where(KEY, runs.c.lease_owner == param("by"))
    for ref, digest in digests:
        before = connection.execute(leased, key(ref) | {"by": owner}).one_or_none()
        if before is not None:
            ours.add(ref)
            differing += before.sent and before.digest != digest
    if ours:
        change = update(runs).where(KEY).values(digest=param("new_digest"), sent=True)
        connection.execute(change, [key(ref) | {"new_digest": digest} for ref, digest in digests if ref in ours])
    return Sendable(ours, differing)


_FREED = {"lease_owner": None, "lease_until_ns": None}

_FINISH = (
    update(runs)
    .where(
        KEY,
        or_(
            runs.c.lease_owner == param("by"),
            # An acknowledged delivery is a fact, whoever holds the lease by now: not marking it would send it again.
            and_(param("new_state") == RowState.EXPORTED, runs.c.finished_ns.is_(None)),
        ),
    )
    .values(
        state=param("new_state"),
        reason=param("new_reason"),
        retryable=param("new_retryable"),
        doubtful=param("new_doubtful"),
        due_ns=param("new_due_ns"),
        raw_status=func.coalesce(param("new_raw_status"), runs.c.raw_status),
        terminal_seen_ns=func.coalesce(param("new_terminal_seen_ns"), runs.c.terminal_seen_ns),
        attempts=runs.c.attempts * param("keep_attempts") + param("add_attempts"),
        exported_ns=func.coalesce(param("new_exported_ns"), runs.c.exported_ns),
        finished_ns=param("new_finished_ns"),
        **_FREED,
    )
)
"""Guarded by the lease: a process that was stopped for longer than its lease must not undo what its successor did."""

_FINISH_WITH_SUMMARY = _FINISH.values(
    {name: param(f"summary_{name}") for name in SUMMARY_COLUMNS if name not in _LOCATOR_COLUMNS}
    | {name: func.coalesce(runs.c[name], param(f"summary_{name}")) for name in _LOCATOR_COLUMNS}
)


def finish(connection: Connection, now_ns: int, owner: str, done: Sequence[Finished]) -> int:
    """Write what became of claimed rows; gives how many were ours no more, and stay as they are."""
    plain = [_finished(one, now_ns, owner) for one in done if one.summary is None]
    summed = [_finished(one, now_ns, owner) | _summed(one.summary) for one in done if one.summary is not None]
    written = 0
    if plain:
        written += connection.execute(_FINISH, plain).rowcount
    if summed:
        written += connection.execute(_FINISH_WITH_SUMMARY, summed).rowcount
    return len(done) - written


def _finished(one: Finished, now_ns: int, owner: str) -> dict[str, Any]:
    return key(one.ref) | {
        "by": owner,
        "new_state": one.state,
        "new_reason": one.reason,
        "new_retryable": one.retryable,
        "new_doubtful": one.doubtful,
        "new_due_ns": one.due_ns,
        "new_raw_status": one.raw_status,
        "new_terminal_seen_ns": one.terminal_seen_ns,
        # A sound answer that the run is still open ends a row of failures.
        "keep_attempts": int(one.count_attempt or one.state is not RowState.OPEN),
        "add_attempts": int(one.count_attempt),
        "new_exported_ns": now_ns if one.state is RowState.EXPORTED else None,
        "new_finished_ns": now_ns if one.state in SETTLED else None,
    }


def _summed(summary: Summary) -> dict[str, Any]:
    return {f"summary_{name}": getattr(summary, name) for name in SUMMARY_COLUMNS}


def release(connection: Connection, owner: str, refs: Iterable[RunRef]) -> None:
    """Give leases back; the rows stay as they were."""
    parameters = [key(ref) for ref in refs]
    if parameters:
        connection.execute(update(runs).where(KEY, runs.c.lease_owner == owner).values(_FREED), parameters)


def renew(connection: Connection, lease: Lease, refs: Iterable[RunRef]) -> None:
    """Move the end of leases that are still ours."""
    parameters = [key(ref) for ref in refs]
    if parameters:
        ours = update(runs).where(KEY, runs.c.lease_owner == lease.owner)
        connection.execute(ours.values(lease_until_ns=lease.until_ns), parameters)


def hasten(connection: Connection, now_ns: int, account: Account, latest_ns: Mapping[RowState, int]) -> int:
    """Let what is due later than that be due now; gives how many rows there were."""
    hastened = 0
    for state, bound_ns in latest_ns.items():
        late = update(runs).where(of(account), runs.c.state == state, runs.c.due_ns > bound_ns)
        hastened += connection.execute(late.values(due_ns=now_ns)).rowcount
    return hastened


def lease_owners(connection: Connection) -> list[str]:
    """Every process that holds a lease."""
    held = select(runs.c.lease_owner).where(runs.c.lease_owner.is_not(None)).distinct()
    return [owner for owner in connection.scalars(held) if owner is not None]


def release_owners(connection: Connection, owners: Sequence[str]) -> int:
    """Give back every lease of these owners; gives how many there were."""
    if not owners:
        return 0
    return connection.execute(update(runs).where(runs.c.lease_owner.in_(owners)).values(_FREED)).rowcount


def retry(
    connection: Connection,
    now_ns: int,
    *,
    source: str | None,
    run_ids: Sequence[str] | None,
    reason_like: str | None,
) -> int:
    """Put quarantined rows back to due, and of those named by their ids the gone ones too."""
    states = [RowState.QUARANTINED] if run_ids is None else [RowState.QUARANTINED, RowState.GONE]
    change = update(runs).where(runs.c.state.in_(states))
    if source is not None:
        change = change.where(runs.c.source == source)
    if run_ids is not None:
        change = change.where(runs.c.run_id.in_(run_ids))
    if reason_like is not None:
        change = change.where(runs.c.reason.contains(reason_like, autoescape=True))
    due = change.values(state=RowState.DUE, due_ns=now_ns, attempts=0, reason=None, finished_ns=None)
    return connection.execute(due).rowcount
