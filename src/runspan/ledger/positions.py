"""How far each list has been read, and from when on."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, insert, or_, select, update
from sqlalchemy.dialects import sqlite

from runspan.ledger.rows import of
from runspan.ledger.schema import accounts, sweeps
from runspan.ledger.values import POLL, SLOW, Account, Sweep
from runspan.model import Json


def _at(account: Account, scope: str, kind: str) -> ColumnElement[bool]:
    return and_(of(account, sweeps), sweeps.c.scope == scope, sweeps.c.kind == kind)


def sweep(connection: Connection, account: Account, scope: str, kind: str) -> Sweep | None:
    """How far this sweep has come, if it was ever begun."""
    row = connection.execute(select(sweeps).where(_at(account, scope, kind))).one_or_none()
    if row is None:
        return None
    return Sweep(
        scope=row.scope,
        kind=row.kind,
        start_ns=row.start_ns,
        position_ns=row.position_ns,
        window_start_ns=row.window_start_ns,
        window_end_ns=row.window_end_ns,
        cursor=row.cursor,
        high_ns=row.high_ns,
        finished_ns=row.finished_ns,
    )


def begin_sweep(
    connection: Connection,
    account: Account,
    scope: str,
    kind: str,
    *,
    window_start_ns: int | None,
    window_end_ns: int | None,
    position_ns: int | None,
) -> Sweep:
    """Start a pass over a window; the position is only used when there is none yet."""
    new_pass = {"window_start_ns": window_start_ns, "window_end_ns": window_end_ns, "cursor": None, "high_ns": None}
    if sweep(connection, account, scope, kind) is None:
        identity = asdict(account) | {"scope": scope, "kind": kind}
        begin = {"start_ns": position_ns, "position_ns": position_ns}
        connection.execute(insert(sweeps).values(identity | new_pass | begin))
    else:
        connection.execute(update(sweeps).where(_at(account, scope, kind)).values(new_pass))
    begun = sweep(connection, account, scope, kind)
    assert begun is not None
    return begun


def note_page(
    connection: Connection,
    now_ns: int,
    account: Account,
    scope: str,
    kind: str,
    *,
    cursor: Json | None,
    high_ns: int | None,
    complete: bool,
) -> None:
    """Store where the sweep stands after a page; a complete poll may move the position."""
    stood = sweep(connection, account, scope, kind)
    if stood is None:
        raise LookupError(f"sweep {kind} of scope {scope!r} was never begun")
    highs = [high for high in (stood.high_ns, high_ns) if high is not None]
    high_ns = max(highs, default=None)
    changes: dict[str, Any] = {"cursor": cursor, "high_ns": high_ns}
    if complete:
        changes["finished_ns"] = now_ns
    position_ns = stood.position_ns or 0
    leaves_no_gap = (stood.window_start_ns or 0) <= position_ns or stood.position_ns is None
    if complete and high_ns is not None and kind == POLL and leaves_no_gap:
        # One row dated into the future must not carry the position past runs that are still to come.
        changes["position_ns"] = max(min(high_ns, now_ns), position_ns)
    connection.execute(update(sweeps).where(_at(account, scope, kind)).values(changes))


def rewind(connection: Connection, account: Account, *, latest_ns: int, start_ns: int) -> int:
    """See `Ledger.rewind`."""
    late = and_(sweeps.c.kind.in_((POLL, SLOW)), or_(sweeps.c.position_ns > latest_ns, sweeps.c.start_ns > latest_ns))
    # Where the list began is only as wrong as its position if it is late itself.
    begin_ns = case((sweeps.c.start_ns > latest_ns, start_ns), else_=sweeps.c.start_ns)
    position_ns = case((begin_ns > start_ns, begin_ns), else_=start_ns)
    again = {"start_ns": begin_ns, "position_ns": position_ns, "window_start_ns": position_ns, "cursor": None}
    rewound = connection.execute(update(sweeps).where(of(account, sweeps), late).values(again)).rowcount
    begun_late = update(accounts).where(of(account, accounts), accounts.c.start_ns > latest_ns)
    connection.execute(begun_late.values(start_ns=start_ns))
    return rewound


def start_ns(connection: Connection, account: Account) -> int | None:
    """From when on the account's runs are read, if that was ever said."""
    return connection.scalar(select(accounts.c.start_ns).where(of(account, accounts)))


def begin(connection: Connection, account: Account, if_new_ns: int) -> int:
    """Say from when on the account's runs are read, where that was not said before; gives what holds."""
    row = sqlite.insert(accounts).values(asdict(account) | {"start_ns": if_new_ns})
    said_ns = func.coalesce(accounts.c.start_ns, if_new_ns)
    connection.execute(row.on_conflict_do_update(index_elements=["platform", "tenant"], set_={"start_ns": said_ns}))
    return connection.scalars(select(accounts.c.start_ns).where(of(account, accounts))).one()
