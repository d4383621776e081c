"""Metrics that outlive the ring in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import delete, insert, select, tuple_
from sqlalchemy.engine import Connection

from innkeeper.ports.store import MetricRow
from innkeeper.store.database import schema
from innkeeper.store.reader import Reader
from innkeeper.store.work.standing import Draft
from innkeeper.store.writer import Writer

_TABLE = schema.metrics
_AT_ONCE = 400


class MetricHistory:
    """ports.store.History."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def keep(self, rows: Sequence[MetricRow], forget_before: int) -> None:
        """A row that is kept already is replaced."""

        def put(connection: Connection) -> None:
            connection.execute(delete(_TABLE).where(_TABLE.c.at < forget_before))
            for first in range(0, len(rows), _AT_ONCE):
                some = rows[first : first + _AT_ONCE]
                keys = [(row.instance, row.at) for row in some]
                connection.execute(delete(_TABLE).where(tuple_(_TABLE.c.instance, _TABLE.c.at).in_(keys)))
                connection.execute(insert(_TABLE), [asdict(row) for row in some])

        def also(draft: Draft) -> None:
            draft.others.append(put)

        await self._writer.ask(also)

    async def metrics(self, instance: str, since: int) -> tuple[MetricRow, ...]:
        """From the moment `since` on, oldest first."""
        query = select(_TABLE).where(_TABLE.c.instance == instance, _TABLE.c.at >= since).order_by(_TABLE.c.at)
        return await self._reader.read(lambda c: tuple(MetricRow(**row._mapping) for row in c.execute(query)))
