"""Forgetting the past: events, and operations that ended before the kept history, in small slices."""

from __future__ import annotations

from sqlalchemy import delete
from sqlalchemy.engine import Connection

from innkeeper.model.work import OperationState
from innkeeper.store.database import schema

# Enough to be worth its statements, little enough that no single commit is noticeably longer than others.
_SLICE = 500
_ENDED = [state.value for state in OperationState if state.ended]


def prune(connection: Connection, floor: int, revision: int, keep: int) -> int:
    """Keeps at least the newest `keep` revisions; the greatest revision that is gone."""
    if revision - floor < keep + _SLICE:
        return floor
    floor = revision - keep
    connection.execute(delete(schema.events).where(schema.events.c.revision <= floor))
    table = schema.operations
    # A parent is never older than its children's ends, and takes them with it, as each takes its plan and records.
    old = (table.c.revision <= floor) & table.c.state.in_(_ENDED) & table.c.parent.is_(None)
    connection.execute(delete(table).where(old))
    return floor
