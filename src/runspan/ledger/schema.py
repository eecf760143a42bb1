"""The ledger's tables, as the newest migration leaves them.

`REVISION` names that migration. A change here goes with a new file under migrations/versions and a new REVISION; a test
holds the two together.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    column,
    false,
)

REVISION = "0002"

APPLICATION_ID = 0x72757370
"""SQLite's mark of whose database a file is: "rusp"."""

metadata = MetaData()


class Words(TypeDecorator[str]):
    """Text of any origin: some send lone surrogates, which no database takes, or NUL, where SQLite may stop reading."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The text with such characters as U+FFFD."""
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Whole(TypeDecorator[int]):
    """A whole number of any origin: what 64 bits cannot hold (the year 9999 in nanoseconds) is stored as not known."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        """The number, or None where it does not fit."""
        return value if value is not None and -(2**63) <= value < 2**63 else None


def _account() -> tuple[Column[Any], Column[Any]]:
    return Column("platform", Words, primary_key=True), Column("tenant", Words, primary_key=True)


def _partial(name: str, *columns: str, where: str) -> Index:
    condition = column(where).is_not(None)
    return Index(name, *columns, sqlite_where=condition)


runs = Table(
    "runs",
    metadata,
    *_account(),
    Column("run_id", Words, primary_key=True),
    Column("source", Words, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Words),
    Column("retryable", Boolean, nullable=False, server_default=false()),
    Column("doubtful", Boolean, nullable=False, server_default=false()),
    Column("raw_status", Words),
    # The locator: what besides its id is needed to ask for the run.
    Column("agent_id", Words),
    Column("agent_name", Words),
    Column("room", Words),
    Column("created_ns", Whole),
    Column("first_seen_ns", BigInteger, nullable=False),
    Column("terminal_seen_ns", Whole),
    Column("due_ns", Whole),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("lease_owner", Text),
    Column("lease_until_ns", BigInteger),
    # The job whose claims take this row, and the one that listed it last: it may have been exported before.
    Column("job", Text),
    Column("listed_by", Text),
    Column("digest", Text),
    Column("sent", Boolean, nullable=False, server_default=false()),
    Column("exported_ns", BigInteger),
    # Since when the state is a settled one; null in every other, which is what keeps such rows from being pruned.
    Column("finished_ns", BigInteger),
    # The summary of an exported run.
    Column("status", Words),
    Column("error_type", Words),
    Column("started_ns", Whole),
    Column("ended_ns", Whole),
    Column("input_tokens", Whole),
    Column("output_tokens", Whole),
    Column("total_tokens", Whole),
    Column("cost_amount", Words),
    Column("cost_unit", Words),
    Column("step_count", Whole),
    Column("trace_id", Text),
    Index("runs_due", "platform", "tenant", "state", "due_ns"),
    _partial("runs_finished", "platform", "tenant", "finished_ns", where="finished_ns"),
    _partial("runs_leased", "platform", "tenant", "state", "lease_owner", where="lease_owner"),
    _partial("runs_job", "job", "platform", "tenant", "state", "due_ns", where="job"),
)

sweeps = Table(
    "sweeps",
    metadata,
    *_account(),
    Column("scope", Words, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("start_ns", Whole),
    Column("position_ns", Whole),
    Column("window_start_ns", Whole),
    Column("window_end_ns", Whole),
    Column("cursor", JSON(none_as_null=True)),
    Column("high_ns", Whole),
    Column("finished_ns", BigInteger),
)

accounts = Table(
    "accounts",
    metadata,
    *_account(),
    Column("pruned_through_ns", BigInteger),
    Column("start_ns", BigInteger),
)

sources = Table(
    "sources",
    metadata,
    Column("name", Words, primary_key=True),
    Column("platform", Words, primary_key=True),
    Column("tenant", Words, nullable=False),
)

budgets = Table(
    "budgets",
    metadata,
    Column("key", Words, primary_key=True),
    Column("granted_ns", BigInteger, nullable=False),
    Column("next_free_ns", BigInteger, nullable=False),
    Column("paused_ns", BigInteger, nullable=False, server_default="0"),
    Column("paused_until_ns", BigInteger, nullable=False, server_default="0"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("arguments", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("started_ns", BigInteger, nullable=False),
    Column("finished_ns", BigInteger),
    Column("listed", Integer, nullable=False, server_default="0"),
    Column("known", Integer, nullable=False, server_default="0"),
)

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", JSON),
)
