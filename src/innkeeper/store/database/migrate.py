"""Brings a database to the present schema: a new one from schema.py at once, one that exists by migrations."""

from __future__ import annotations

import importlib
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    insert,
    inspect,
    select,
)

from innkeeper.store.database import schema

# As Alembic keeps it.
_VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32)),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def migrate(engine: Engine, path: Path) -> None:
    """
    Raises:
        StoreFailed: the database is of a newer release.
    """
    with engine.begin() as connection:
        present = _present(connection)
        if present == schema.REVISION:
            return
        if present is None and not inspect(connection).get_table_names():
            schema.metadata.create_all(connection)
            _VERSION.create(connection)
            connection.execute(insert(_VERSION).values(version_num=schema.REVISION))
            return
        # Loaded only where there is something to migrate: a daemon that runs for months should not hold it.
        importlib.import_module("innkeeper.store.database.upgrade").upgrade(connection, path, present)


def _present(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION.name):
        return None
    return connection.execute(select(_VERSION.c.version_num)).scalar_one_or_none()
