"""The rate budget of a source, shared by every process of the ledger.

One row per budget says when the next request may go out. A process that is granted one moves that time on by the
interval before anyone else can look, so requests keep a strict distance and no burst can form.
"""

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects import sqlite

from runspan.ledger.schema import budgets


def debit(connection: Connection, now_ns: int, key: str, interval_ns: int) -> int:
    """0: granted; else how long to wait before asking again, in nanoseconds."""
    row = connection.execute(select(budgets).where(budgets.c.key == key)).one_or_none()
    if row is None:
        first = {"key": key, "granted_ns": now_ns, "next_free_ns": now_ns + interval_ns}
        connection.execute(sqlite.insert(budgets).values(first))
        return 0
    granted_ns, next_free_ns = _rebased(now_ns, row.granted_ns, row.next_free_ns)
    paused_ns, paused_until_ns = _rebased(now_ns, row.paused_ns, row.paused_until_ns)
    wait_ns = max(next_free_ns, paused_until_ns) - now_ns
    if wait_ns <= 0:
        wait_ns, granted_ns, next_free_ns = 0, now_ns, now_ns + interval_ns
    stands = (granted_ns, next_free_ns, paused_ns, paused_until_ns)
    if stands != (row.granted_ns, row.next_free_ns, row.paused_ns, row.paused_until_ns):
        names = ("granted_ns", "next_free_ns", "paused_ns", "paused_until_ns")
        connection.execute(update(budgets).where(budgets.c.key == key).values(dict(zip(names, stands, strict=True))))
    return wait_ns


def delay(connection: Connection, now_ns: int, key: str, by_ns: int) -> None:
    """Put off the next grant."""
    row = connection.execute(select(budgets).where(budgets.c.key == key)).one_or_none()
    if row is not None:
        _, next_free_ns = _rebased(now_ns, row.granted_ns, row.next_free_ns)
        later = {"granted_ns": now_ns, "next_free_ns": max(next_free_ns, now_ns) + by_ns}
        connection.execute(update(budgets).where(budgets.c.key == key).values(later))


def _rebased(now_ns: int, since_ns: int, until_ns: int) -> tuple[int, int]:
    # A clock that was set back leaves `since` in the future. What was agreed then is a distance: it starts again now.
    return (now_ns, until_ns - (since_ns - now_ns)) if since_ns > now_ns else (since_ns, until_ns)


def pause(connection: Connection, now_ns: int, key: str, until_ns: int) -> None:
    """Grant nothing before `until_ns`; a pause that lasts longer already stays."""
    paused = sqlite.insert(budgets).values(
        key=key, granted_ns=0, next_free_ns=0, paused_ns=now_ns, paused_until_ns=until_ns
    )
    connection.execute(
        paused.on_conflict_do_update(
            index_elements=["key"],
            set_={"paused_ns": now_ns, "paused_until_ns": until_ns},
            where=budgets.c.paused_until_ns < until_ns,
        )
    )
