"""Alembic's entry: runs the migrations on the connection that `api.ledger.migrate` hands over."""

from __future__ import annotations

from alembic import context

from api.ledger.neighbours import VERSION_TABLE
from api.ledger.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=False, version_table=VERSION_TABLE)
context.run_migrations()
