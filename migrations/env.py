"""Alembic's entry: runs revisions on the connection that `controlplane.schema` hands over."""

from alembic import context

from controlplane.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata(),
    # A lock lasts as long as its transaction: no revision keeps those of the ones before it.
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
