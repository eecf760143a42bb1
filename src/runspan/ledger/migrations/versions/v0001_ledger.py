"""The ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _account() -> tuple[sa.Column[str], sa.Column[str]]:
    return sa.Column("platform", sa.Text, primary_key=True), sa.Column("tenant", sa.Text, primary_key=True)


def _partial(name: str, columns: list[str], where: str) -> None:
    condition = sa.column(where).is_not(None)
    op.create_index(name, "runs", columns, sqlite_where=condition, postgresql_where=condition)


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "runs",
        *_account(),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("retryable", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("doubtful", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("raw_status", sa.Text),
        sa.Column("agent_id", sa.Text),
        sa.Column("agent_name", sa.Text),
        sa.Column("room", sa.Text),
        sa.Column("created_ns", sa.BigInteger),
        sa.Column("first_seen_ns", sa.BigInteger, nullable=False),
        sa.Column("terminal_seen_ns", sa.BigInteger),
        sa.Column("due_ns", sa.BigInteger),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until_ns", sa.BigInteger),
        sa.Column("job", sa.Text),
        sa.Column("listed_by", sa.Text),
        sa.Column("digest", sa.Text),
        sa.Column("sent", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("exported_ns", sa.BigInteger),
        sa.Column("finished_ns", sa.BigInteger),
        sa.Column("status", sa.Text),
        sa.Column("error_type", sa.Text),
        sa.Column("started_ns", sa.BigInteger),
        sa.Column("ended_ns", sa.BigInteger),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("total_tokens", sa.BigInteger),
        sa.Column("cost_amount", sa.Text),
        sa.Column("cost_unit", sa.Text),
        sa.Column("step_count", sa.BigInteger),
        sa.Column("trace_id", sa.Text),
    )
    op.create_index("runs_due", "runs", ["platform", "tenant", "state", "due_ns"])
    _partial("runs_finished", ["platform", "tenant", "finished_ns"], where="finished_ns")
    _partial("runs_leased", ["platform", "tenant", "state", "lease_owner"], where="lease_owner")
    _partial("runs_job", ["job", "platform", "tenant", "state", "due_ns"], where="job")

    op.create_table(
        "sweeps",
        *_account(),
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("start_ns", sa.BigInteger),
        sa.Column("position_ns", sa.BigInteger),
        sa.Column("window_start_ns", sa.BigInteger),
        sa.Column("window_end_ns", sa.BigInteger),
        sa.Column("cursor", sa.JSON),
        sa.Column("high_ns", sa.BigInteger),
        sa.Column("finished_ns", sa.BigInteger),
    )
    op.create_table(
        "accounts",
        *_account(),
        sa.Column("agents_listed_ns", sa.BigInteger),
        sa.Column("pruned_through_ns", sa.BigInteger),
    )
    op.create_table(
        "agents",
        *_account(),
        sa.Column("agent_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text),
        sa.Column("start_ns", sa.BigInteger),
    )
    op.create_table(
        "sources",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("platform", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
    )
    op.create_table(
        "budgets",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("granted_ns", sa.BigInteger, nullable=False),
        sa.Column("next_free_ns", sa.BigInteger, nullable=False),
        sa.Column("paused_ns", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("paused_until_ns", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("started_ns", sa.BigInteger, nullable=False),
        sa.Column("finished_ns", sa.BigInteger),
        sa.Column("listed", sa.Integer, nullable=False, server_default="0"),
        sa.Column("known", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.JSON),
    )
