"""Rows as discovery sees them: new runs are noted, and open ones that have ended become due."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    select,
    update,
)
from sqlalchemy.dialects import sqlite

from runspan.ledger.schema import runs
from runspan.ledger.values import FILTERED, SETTLED, UNWANTED, Account, NewRow, Noted, RowState
from runspan.model import Locator, RunRef

GONE_AGAIN_NS = 10 * 60 * 1_000_000_000
"""After this a run that is gone, and still listed, is asked for again: a gateway may have said 404 for its platform."""

_CHUNK = 500
"""Ids per SELECT: far below the number of variables any database allows in a statement."""

KEY = and_(
    runs.c.platform == bindparam("key_platform"),
    runs.c.tenant == bindparam("key_tenant"),
    runs.c.run_id == bindparam("key_run_id"),
)
"""One row, for statements that are executed with a list of `key(ref) | {...}`."""


def param(name: str) -> BindParameter[Any]:
    """`bindparam`, of which a type checker cannot tell what it gives."""
    return bindparam(name)


def key(ref: RunRef) -> dict[str, Any]:
    """The parameters of `KEY`."""
    return {"key_platform": ref.platform, "key_tenant": ref.tenant, "key_run_id": ref.run_id}


def of(account: Account, table: Table = runs) -> ColumnElement[bool]:
    """The rows of one account, in `runs` or another table."""
    return and_(table.c.platform == account.platform, table.c.tenant == account.tenant)


def ref_of(row: Row[Any]) -> RunRef:
    """A row's identity and locator."""
    return RunRef(
        row.platform,
        row.tenant,
        row.run_id,
        Locator(agent_id=row.agent_id, agent_name=row.agent_name, room=row.room, created_ns=row.created_ns),
    )


def read(connection: Connection, account: Account, run_ids: Iterable[str], *columns: Column[Any]) -> Iterable[Row[Any]]:
    """These columns of the rows with these ids, as far as there are such rows."""
    ids = list(run_ids)
    for start in range(0, len(ids), _CHUNK):
        some = ids[start : start + _CHUNK]
        found: Select[Any] = select(*columns).where(of(account), runs.c.run_id.in_(some))
        yield from connection.execute(found)


def states(connection: Connection, account: Account, run_ids: Iterable[str]) -> dict[str, RowState]:
    """The state of each of these runs that has a row."""
    found = read(connection, account, run_ids, runs.c.run_id, runs.c.state)
    return {row.run_id: RowState(row.state) for row in found}


_NOTED = ("state", "due_ns", "reason", "raw_status", "terminal_seen_ns", "finished_ns", "attempts")
_LOCATOR = ("agent_id", "agent_name", "room", "created_ns")
_CHANGEABLE = (*_NOTED, *_LOCATOR, "job", "listed_by")


class Listed(NamedTuple):
    """What a job learned from noting some runs: how many it had not seen before, and how many of those were over."""

    listed: int
    known: int


def note(
    connection: Connection, now_ns: int, rows: Sequence[NewRow], job: str | None, *, force: bool
) -> tuple[Noted, Listed]:
    """Insert or update the rows.

    A new run is inserted as given. One that was open or expired and has ended takes the new state, and so does one that
    was skipped for its agent or for how it ended, where that is wanted now, or that is gone and is listed all the same.
    Else only what is missing in the locator is filled in. A job takes over what is left to do, and with `force` also
    what was exported before the job listed it.
    """
    unique: dict[RunRef, NewRow] = {}
    for row in rows:
        if row.ref not in unique or unique[row.ref].state is RowState.OPEN:
            unique[row.ref] = row

    stored = _stored(connection, unique)
    inserts: list[dict[str, Any]] = []
    updates: list[dict[str, Any]] = []
    became_due = listed = known = 0
    for ref, row in unique.items():
        values = _values(row, now_ns)
        before = stored.get(ref)
        if before is None:
            inserts.append(values | _identity(row, now_ns) | {"job": job, "listed_by": job})
            continue
        after = before | {name: values[name] for name in _LOCATOR if before[name] is None}
        state = before["state"]
        was_skipped = state == RowState.SKIPPED and row.state is not RowState.SKIPPED
        wanted_now = was_skipped and _is_wanted(row, before["reason"])
        ended = state in (RowState.OPEN, RowState.EXPIRED) and row.state not in (RowState.OPEN, RowState.EXPIRED)
        is_new_job = job is not None and before["listed_by"] != job
        there_again = state == RowState.GONE and (is_new_job or before["finished_ns"] <= now_ns - GONE_AGAIN_NS)
        if wanted_now or ended or there_again:
            after |= {name: values[name] for name in _NOTED}
            became_due += 1
        if is_new_job:
            listed += 1
            after["listed_by"] = job
            if force and state == RowState.EXPORTED:
                # The digest stays, so that a repeat with other bytes is seen.
                after |= {"state": RowState.DUE, "due_ns": now_ns, "finished_ns": None, "attempts": 0, "job": job}
            elif state in (RowState.EXPORTED, RowState.SKIPPED) and not wanted_now:
                known += 1
            else:
                after["job"] = job
        if after != before:
            updates.append(key(ref) | after)

    if inserts:
        connection.execute(sqlite.insert(runs).on_conflict_do_nothing(), inserts)
    if updates:
        connection.execute(update(runs).where(KEY).values({name: param(name) for name in _CHANGEABLE}), updates)
    new_ids = frozenset(str(insert["run_id"]) for insert in inserts)
    noted = Noted(len(inserts), became_due, len(unique) - len(inserts) - became_due, new_ids)
    return noted, Listed(len(inserts) + listed, known)


def _is_wanted(row: NewRow, reason: str | None) -> bool:
    """Whether the reason for which a run was skipped holds no more."""
    return reason == UNWANTED or (reason is not None and FILTERED.get(reason) in row.exports)


def _stored(connection: Connection, refs: Iterable[RunRef]) -> dict[RunRef, dict[str, Any]]:
    by_account: dict[Account, list[str]] = {}
    for ref in refs:
        by_account.setdefault(Account(ref.platform, ref.tenant), []).append(ref.run_id)
    columns = (runs.c.run_id, *(runs.c[name] for name in _CHANGEABLE))
    return {
        RunRef(account.platform, account.tenant, row.run_id): {name: getattr(row, name) for name in _CHANGEABLE}
        for account, run_ids in by_account.items()
        for row in read(connection, account, run_ids, *columns)
    }


def _values(row: NewRow, now_ns: int) -> dict[str, Any]:
    locator = row.ref.locator
    return {
        "state": row.state,
        "due_ns": row.due_ns,
        "reason": row.reason,
        "raw_status": row.raw_status,
        "terminal_seen_ns": row.terminal_seen_ns,
        "finished_ns": now_ns if row.state in SETTLED else None,
        "attempts": 0,
        "agent_id": locator.agent_id,
        "agent_name": locator.agent_name,
        "room": locator.room,
        "created_ns": row.created_ns if locator.created_ns is None else locator.created_ns,
    }


def _identity(row: NewRow, now_ns: int) -> dict[str, Any]:
    return {
        "platform": row.ref.platform,
        "tenant": row.ref.tenant,
        "run_id": row.ref.run_id,
        "source": row.source,
        "first_seen_ns": now_ns,
    }


def open_ids(connection: Connection, account: Account, limit: int) -> list[str]:
    """Open runs, oldest due first."""
    found = select(runs.c.run_id).where(of(account), runs.c.state == RowState.OPEN)
    return list(connection.scalars(found.order_by(runs.c.due_ns).limit(limit)))


def settle_open(
    connection: Connection,
    now_ns: int,
    account: Account,
    still_open: Collection[str],
    listed_ns: int,
    ask_again: Callable[[int], int],
) -> int:
    """Give every open row its next due time; see `Ledger.settle_open`."""
    found = connection.execute(
        select(runs.c.run_id, runs.c.created_ns, runs.c.first_seen_ns, runs.c.attempts).where(
            of(account),
            runs.c.state == RowState.OPEN,
            runs.c.first_seen_ns < listed_ns,
            runs.c.lease_owner.is_(None),
        )
    )
    changes: list[Mapping[str, Any]] = []
    ended = 0
    for row in found:
        ref = RunRef(account.platform, account.tenant, row.run_id)
        if row.run_id in still_open:
            age_ns = max(0, now_ns - (row.first_seen_ns if row.created_ns is None else row.created_ns))
            changes.append(key(ref) | {"due_ns": now_ns + ask_again(age_ns)})
        elif row.attempts == 0:
            # A row that is being retried keeps its time, else every poll would undo its growing delay.
            changes.append(key(ref) | {"due_ns": now_ns})
            ended += 1
    if changes:
        connection.execute(update(runs).where(KEY).values(due_ns=bindparam("due_ns")), changes)
    return ended
