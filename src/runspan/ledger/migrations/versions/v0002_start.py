"""An account's start in place of its agents: a new agent is read from there, whatever was listed before.

Passes under way begin anew: what their cursors hold has another shape.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """The start of an account that has been read is that of its first list."""
    op.drop_table("agents")
    op.add_column("accounts", sa.Column("start_ns", sa.BigInteger))
    op.execute(
        "INSERT INTO accounts (platform, tenant, start_ns) "
        "SELECT platform, tenant, min(start_ns) FROM sweeps WHERE start_ns IS NOT NULL GROUP BY platform, tenant "
        "ON CONFLICT (platform, tenant) DO UPDATE SET start_ns = excluded.start_ns"
    )
    op.drop_column("accounts", "agents_listed_ns")
    op.execute("UPDATE sweeps SET cursor = NULL")
