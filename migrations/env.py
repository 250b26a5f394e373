"""Alembic's entry: runs revisions on the connection that `controlplane.schema` hands over."""

from alembic import context

from controlplane.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata())
context.run_migrations()
