"""All that is SQLite's own: how the file is opened, how a transaction begins, and what its errors mean to an operator.

Everything else in the store is portable Core; PostgreSQL would get a sibling of this file.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from innkeeper.ports.store import StoreFailed

_BUSY_MS = 5000

# Before a connection is ready, its driver's errors come unwrapped.
FAILURES = (DBAPIError, sqlite3.Error, OSError)

_MEANINGS = {
    "SQLITE_FULL": "no space is left. Free some on that disk; work goes on by itself once there is room",
    "SQLITE_IOERR": "the disk refused. See the kernel's log (dmesg) and whether the disk is full; it is tried again",
    "SQLITE_READONLY": "it cannot be written. Is its disk mounted read-only, or does it belong to another user?",
    "SQLITE_CANTOPEN": "it cannot be opened. Are its folder there and its owner right?",
    "SQLITE_BUSY": "another program holds it. Find it with: fuser -v on the file, and end it",
    "SQLITE_CORRUPT": "it is damaged. Stop the daemon and restore the file from the newest backup",
    "SQLITE_NOTADB": "it is no database. Restore the file from the newest backup, or name another data directory",
}


def engine(path: Path, *, writing: bool) -> Engine:
    """One connection to the file. The file is made, for its owner only, if it is not there."""
    if writing:
        _make(path)
    made = create_engine(f"sqlite:///{path}", poolclass=QueuePool, pool_size=1, max_overflow=0)
    # One statement for many rows, as on PostgreSQL: each statement gives up the interpreter's lock, and a busy event
    # loop hands it back late. Row by row, a batch of a hundred launches would wait hundreds of times.
    made.dialect.use_insertmanyvalues_wo_returning = True

    @event.listens_for(made, "connect")
    def prepare(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        # The driver would begin transactions by itself, and only before some statements.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        if writing:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA foreign_keys=ON")
        else:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @event.listens_for(made, "begin")
    def begin(connection: Connection) -> None:
        # A writer that began by reading could not go on once somebody else had written.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return made


def failure(path: Path, error: Exception) -> StoreFailed:
    """The error in words."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    name = getattr(cause, "sqlite_errorname", "") if isinstance(cause, sqlite3.Error) else ""
    meaning = next((words for prefix, words in _MEANINGS.items() if name.startswith(prefix)), None)
    if meaning is None:
        meaning = f"{cause}. Nothing was written. If it happens again, see the daemon's log and restart it"
    return StoreFailed(f"database {path}: {meaning}")


def _make(path: Path) -> None:
    """For its owner only, from the first moment; SQLite gives the files beside it the same mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
