"""How alembic runs the migrations: on the connection it is given, within that connection's transaction."""

from alembic import context

from runspan.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
