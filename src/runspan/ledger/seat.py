"""The seat of a ledger's one daemon: two would sweep the same lists.

It is held twice: by a lock beside the database, which the operating system drops with the process, and by a name in the
ledger, since whoever removes the lock's file lets a second daemon have the lock.
"""

import os
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

from filelock import Timeout
from sqlalchemy import Connection

from runspan.errors import LedgerUnusable
from runspan.ledger import facts
from runspan.ledger.owners import Owners, daemon_lock
from runspan.ledger.store import Store, explained
from runspan.quantities import format_instant

_FACT = "daemon"


@contextmanager
def held(store: Store, owners: Owners | None, owner: str, now: Callable[[], int]) -> Generator[None]:
    """Holds the seat for the process `owner`, and lets no transaction write once another has it.

    A ledger in memory has but one process. Raises LedgerUnusable that names the other daemon, if there is one.
    """
    path = store.path
    if path is None:
        yield
        return

    def refused(holder: Any) -> LedgerUnusable:
        who, since = "another daemon", ""
        if holder:
            who = f"daemon pid {holder['pid']} on host {holder['host']}"
            since = f" since {format_instant(holder['since_ns'])}"
        return LedgerUnusable(f"{who} holds the ledger {path}{since}; stop it or use another ledger")

    def check(connection: Connection) -> None:
        holder: Any = facts.recall(connection, _FACT)
        if not holder or holder.get("owner") != owner:
            raise refused(holder)

    lock = daemon_lock(path.with_name(path.name + ".daemon"))
    with explained(path):
        try:
            lock.acquire()
        except Timeout:
            with store.read() as connection:
                raise refused(facts.recall(connection, _FACT)) from None
    try:
        with store.write() as connection:
            before: Any = facts.recall(connection, _FACT)
            if before and _lives(before.get("owner"), owner, owners):
                raise refused(before)
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since_ns": now(), "owner": owner}
            facts.remember(connection, _FACT, holder)
        store.guard = check
        yield
    finally:
        store.guard = None
        with suppress(LedgerUnusable), store.write() as connection:
            check(connection)
            facts.forget(connection, _FACT)
        lock.release()


def _lives(other: str | None, owner: str, owners: Owners | None) -> bool:
    return bool(other and other != owner and owners and not owners.dead([other]))
