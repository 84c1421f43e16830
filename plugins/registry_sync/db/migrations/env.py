"""Runs the migrations for each Alembic command, on the connection and in the transaction that the caller passes."""

from __future__ import annotations

from alembic import context

from registry_sync.db.schema import VERSION_TABLE
from registry_sync.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite changes a column by copying its table; and its DDL is transactional as it is opened here.
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
