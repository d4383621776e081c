"""Finding the operations that known idempotency keys have led to."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.engine import Connection

from innkeeper.model.work import Operation
from innkeeper.store.database import schema
from innkeeper.store.database.rows import unsealed
from innkeeper.store.work.standing import Key


def earlier(connection: Connection, keys: Iterable[str]) -> dict[Key, Operation]:
    """For a whole batch at once. Whose key it is decides later: the same word may be used by several principals."""
    words = sorted(keys)
    if not words:
        return {}
    table = schema.operations
    rows = connection.execute(select(table).where(table.c.idempotency_key.in_(words)))
    return {(row.principal, row.idempotency_key): unsealed("operations", row.id, row, Operation) for row in rows}
