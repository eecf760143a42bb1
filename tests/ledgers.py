"""What the ledger's tests share: an account, rows, a clock that is set by hand, another process."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from sqlalchemy import create_engine, text

from runspan.ledger import Account, Ledger, NewRow, RowState, migrations, schema
from runspan.model import Locator, RunRef

ACCOUNT = Account("casedev", "https://api.case.dev")
START_NS = 1_780_000_000_000_000_000
SECOND = 1_000_000_000
DAY = 86_400 * SECOND


@dataclass
class Clock:
    ns: int = START_NS

    def __call__(self) -> int:
        return self.ns

    def advance(self, seconds: float) -> None:
        self.ns += int(seconds * SECOND)


def ref(run_id: str, **locator: Any) -> RunRef:
    return RunRef(ACCOUNT.platform, ACCOUNT.tenant, run_id, Locator(**locator))


def row(run_id: str, state: RowState = RowState.DUE, due_ns: int | None = START_NS, **fields: Any) -> NewRow:
    due = due_ns if state in (RowState.OPEN, RowState.DUE, RowState.EXPIRED) else None
    locator = {name: fields.pop(name) for name in ("agent_id", "agent_name", "room") if name in fields}
    return NewRow(ref(run_id, **locator), "case-prod", state, due_ns=due, **fields)


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def open_ledger(path: Path, clock: Clock | None = None, **options: Any) -> Ledger:
    return Ledger.open(url(path), now=clock or Clock(), **options)


def make_first_ledger(path: Path, *statements: str) -> None:
    """A ledger as the first release made it, with what `statements` put into it."""
    path.parent.mkdir(mode=0o700)
    engine = create_engine(url(path))
    with engine.connect() as connection:
        connection.execute(text("PRAGMA journal_mode = WAL"))
    with engine.begin() as connection:
        connection.execute(text(f"PRAGMA application_id = {schema.APPLICATION_ID}"))
        command.upgrade(migrations.configuration(connection), "0001")
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def ids(claims: list[Any]) -> list[str]:
    return [claim.ref.run_id for claim in claims]


@contextmanager
def other_process(script: str, path: Path) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """Run `script` (with `ledger`, `ACCOUNT` and `say`) in a process of its own, which then waits to be ended.

    Gives the process, and what it said.
    """
    prelude = (
        "import json, sys\n"
        "from runspan.ledger import *\n"
        f"ACCOUNT = Account({ACCOUNT.platform!r}, {ACCOUNT.tenant!r})\n"
        "def say(value): print(json.dumps(value), flush=True)\n"
        f"ledger = Ledger.open({url(path)!r}, now=lambda: {START_NS})\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"{prelude}{script}\nsys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        assert said, "the other process said nothing"
        yield process, json.loads(said)
    finally:
        process.kill()
        process.communicate()
