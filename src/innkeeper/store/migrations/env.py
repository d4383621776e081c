"""Run by Alembic for each migration, with the connection that database/upgrade.py brings."""

from __future__ import annotations

from alembic import context

connection = context.config.attributes["connection"]
# SQLite, too, undoes changes of the schema with their transaction.
context.configure(connection=connection, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
