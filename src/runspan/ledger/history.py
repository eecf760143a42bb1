"""Questions to the ledger, and the end of its memory: pruning."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, func, not_, or_, select
from sqlalchemy.dialects import sqlite

from runspan.ledger.rows import of, ref_of
from runspan.ledger.schema import accounts, runs, sweeps
from runspan.ledger.values import POLL, SLOW, Account, Count, RowState, RunRow, Summary
from runspan.ledger.work import SUMMARY_COLUMNS

PRUNE_CHUNK = 2000
"""Rows per transaction of a prune: others wait for the ledger no longer than that takes."""


def runs_matching(
    connection: Connection,
    *,
    source: str | None,
    state: RowState | None,
    agent: str | None,
    since_ns: int | None,
    until_ns: int | None,
    limit: int | None,
    job: str | None,
) -> list[RunRow]:
    """Rows, youngest first; see `Ledger.runs`."""
    created = func.coalesce(runs.c.created_ns, runs.c.started_ns, runs.c.first_seen_ns)
    found = select(runs).order_by(created.desc(), runs.c.run_id)
    if source is not None:
        found = found.where(runs.c.source == source)
    if state is not None:
        found = found.where(runs.c.state == state)
    if agent is not None:
        found = found.where((runs.c.agent_id == agent) | (runs.c.agent_name == agent))
    if since_ns is not None:
        found = found.where(created >= since_ns)
    if until_ns is not None:
        found = found.where(created < until_ns)
    if job is not None:
        found = found.where(runs.c.job == job)
    return [_run_row(row) for row in connection.execute(found.limit(limit))]


def find(connection: Connection, run_id: str) -> list[RunRow]:
    """Every run with this id, of whatever account."""
    return [_run_row(row) for row in connection.execute(select(runs).where(runs.c.run_id == run_id))]


def _run_row(row: Row[Any]) -> RunRow:
    return RunRow(
        ref=ref_of(row),
        source=row.source,
        state=RowState(row.state),
        reason=row.reason,
        retryable=row.retryable,
        doubtful=row.doubtful,
        raw_status=row.raw_status,
        attempts=row.attempts,
        first_seen_ns=row.first_seen_ns,
        terminal_seen_ns=row.terminal_seen_ns,
        due_ns=row.due_ns,
        leased_until_ns=row.lease_until_ns,
        exported_ns=row.exported_ns,
        digest=row.digest,
        job=row.job,
        summary=None if row.trace_id is None else Summary(**{name: getattr(row, name) for name in SUMMARY_COLUMNS}),
    )


def counts(connection: Connection) -> list[Count]:
    """How many rows stand where, over all accounts."""
    by = (runs.c.source, runs.c.state, runs.c.reason)
    found = connection.execute(select(*by, func.count().label("rows")).group_by(*by))
    return [Count(row.source, RowState(row.state), row.reason, row.rows) for row in found]


def oldest_due_ns(connection: Connection, account: Account) -> int | None:
    """The earliest due time of an ended run."""
    return connection.scalar(select(func.min(runs.c.due_ns)).where(of(account), runs.c.state == RowState.DUE))


def prune_some(connection: Connection, account: Account, before_ns: int, reach_ns: int) -> int:
    """Delete up to `PRUNE_CHUNK` settled rows that were finished before then; gives how many. See `Ledger.prune`."""
    old = select(runs.c.run_id).where(of(account), runs.c.finished_ns < before_ns, not_(_may_be_listed(reach_ns)))
    deleted = connection.execute(
        delete(runs)
        .where(of(account), runs.c.run_id.in_(old.limit(PRUNE_CHUNK)))
        .returning(func.coalesce(runs.c.created_ns, runs.c.started_ns, runs.c.first_seen_ns))
    )
    times: list[int] = list(deleted.scalars())
    if times:
        _remember_pruned(connection, account, max(times))
    return len(times)


def _may_be_listed(reach_ns: int) -> ColumnElement[bool]:
    """Whether the next passes, or one that is under way, read the list from before the run's last time on it."""
    last_ns = func.coalesce(runs.c.ended_ns, runs.c.finished_ns)
    return exists().where(
        sweeps.c.platform == runs.c.platform,
        sweeps.c.tenant == runs.c.tenant,
        or_(sweeps.c.scope == "", sweeps.c.scope == runs.c.agent_id),
        sweeps.c.kind.in_((POLL, SLOW)),
        or_(
            sweeps.c.window_start_ns <= last_ns,
            and_(sweeps.c.kind == POLL, sweeps.c.position_ns - reach_ns <= last_ns),
        ),
    )


def _remember_pruned(connection: Connection, account: Account, through_ns: int) -> None:
    row = sqlite.insert(accounts).values(asdict(account) | {"pruned_through_ns": through_ns})
    before = func.coalesce(accounts.c.pruned_through_ns, 0)
    connection.execute(
        row.on_conflict_do_update(
            index_elements=["platform", "tenant"],
            set_={"pruned_through_ns": through_ns},
            where=before < through_ns,
        )
    )


def pruned_through_ns(connection: Connection, account: Account) -> int | None:
    """The latest creation time of a run that was pruned."""
    return connection.scalar(select(accounts.c.pruned_through_ns).where(of(account, accounts)))
