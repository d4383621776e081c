"""The past and the feed. What is unended, or ended lately, comes from memory; the rest from the tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from sqlalchemy import Row, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.sql import ColumnElement

from innkeeper.model.ids import Kind, OperationId, ProjectId, Ref
from innkeeper.model.plans import Plan
from innkeeper.model.work import Operation, OperationState, Record
from innkeeper.ports.store import Event
from innkeeper.store.board import Board
from innkeeper.store.database import schema
from innkeeper.store.database.rows import unsealed
from innkeeper.store.reader import Reader
from innkeeper.store.work.earlier import earlier

_ENDED = [state.value for state in OperationState if state.ended]
_AT_ONCE = 500
_TABLE = schema.operations
# Asked so that no database looks for it in the index of parents: that would find nearly all there are, to sort them.
_ON_TOP = func.coalesce(_TABLE.c.parent, "") == ""


class Chronicle:
    """ports.store.Journal."""

    def __init__(self, board: Board, reader: Reader) -> None:
        self._board = board
        self._reader = reader

    async def operation(self, id_or_prefix: str) -> Operation | None:
        """None also when a prefix fits several."""
        exact = await self.exact(OperationId(id_or_prefix))
        if exact is not None or not id_or_prefix:
            return exact
        found = await self._reader.read(lambda c: _some(c, _TABLE.c.id.startswith(id_or_prefix, autoescape=True), 2))
        return self._newest(found[0]) if len(found) == 1 else None

    async def exact(self, id: OperationId) -> Operation | None:
        known = self._board.operation(id)
        if known is not None:
            return known
        found = await self._reader.read(lambda c: _some(c, _TABLE.c.id == id, 1))
        return found[0] if found else None

    async def earlier(self, principal: str, key: str) -> Operation | None:
        found = await self._reader.read(lambda c: earlier(c, [key]))
        operation = found.get((principal, key))
        return None if operation is None else self._newest(operation)

    async def operations(
        self, project: ProjectId | None, limit: int, before: int | None = None
    ) -> tuple[Operation, ...]:
        """By their last change, newest first, so that going on from a revision neither repeats nor, without a change,
        skips."""
        # Memory first: what ends while the tables are read is then seen twice, never missed.
        mine = [
            operation
            for operation in self._board.standing.operations.values()
            if operation.parent is None
            and (project is None or operation.project == project)
            and (before is None or operation.revision < before)
        ]
        past = await self._reader.read(lambda c: _page(c, project, limit, before))
        found = {operation.id: operation for operation in (*mine, *map(self._newest, past))}
        return tuple(sorted(found.values(), key=lambda operation: -operation.revision)[:limit])

    async def children(self, parent: OperationId) -> tuple[Operation, ...]:
        """In the order of their acceptance."""
        rows = await self._reader.read(lambda c: _some(c, _TABLE.c.parent == parent, None))
        return tuple(self._newest(row) for row in rows)

    async def plan_of(self, operation: OperationId) -> Plan | None:
        known = self._board.standing.plans.get(operation)
        return known or await self._reader.read(lambda c: _plan(c, operation))

    async def records(self, operation: OperationId) -> tuple[Record, ...]:
        """What happened to an operation, in order; without the states that came with it."""
        return await self._reader.read(lambda c: _records(c, operation))

    async def wait_ended(self, operation: OperationId, timeout_s: float) -> Operation | None:
        await self._board.ended(operation, timeout_s)
        return await self.exact(operation)

    async def events(self, after: int) -> AsyncIterator[Event]:
        while True:
            some = self._board.since(after)
            if some is None:
                some = await self._reader.read(partial(_events, after=after, most=self._board.revision))
                self._board.since(after)  # were they pruned while we read?
            for event in some:
                yield event
                after = event.revision
            if not some:
                await self._board.news()

    def _newest(self, row: Operation) -> Operation:
        """A row of an operation under way is as old as its acceptance, and one that has just ended is ahead of the
        picture: who hears of an end must find its effects there. So memory has the word."""
        return self._board.operation(row.id) or row


def _operation(row: Row[tuple[object, ...]]) -> Operation:
    return unsealed("operations", row.id, row, Operation)


def _some(connection: Connection, condition: ColumnElement[bool], limit: int | None) -> list[Operation]:
    query = select(_TABLE).where(condition).order_by(_TABLE.c.born).limit(limit)
    return [_operation(row) for row in connection.execute(query)]


def _page(connection: Connection, project: ProjectId | None, limit: int, before: int | None) -> list[Operation]:
    query = select(_TABLE).where(_ON_TOP, _TABLE.c.state.in_(_ENDED))
    if project is not None:
        query = query.where(_TABLE.c.project == project)
    if before is not None:
        query = query.where(_TABLE.c.revision < before)
    rows = connection.execute(query.order_by(_TABLE.c.revision.desc()).limit(limit))
    return [_operation(row) for row in rows]


def _plan(connection: Connection, operation: OperationId) -> Plan | None:
    row = connection.execute(select(schema.plans).where(schema.plans.c.operation == operation)).one_or_none()
    return None if row is None else unsealed("plans", operation, row, Plan)


def _records(connection: Connection, operation: OperationId) -> tuple[Record, ...]:
    table = schema.records
    rows = connection.execute(select(table).where(table.c.operation == operation).order_by(table.c.revision))
    return tuple(unsealed("records", f"{operation}/{row.revision}", row, Record) for row in rows)


def _events(connection: Connection, after: int, most: int) -> list[Event]:
    """None beyond `most`: who is told of a change must find it in the published picture."""
    table = schema.events
    query = select(table).where(table.c.revision > after, table.c.revision <= most)
    return [
        Event(
            revision=row.revision,
            kind=row.kind,
            ref=None if row.ref_kind is None else Ref(Kind(row.ref_kind), row.ref_id),
            operation=row.operation,
            what=row.what,
        )
        for row in connection.execute(query.order_by(table.c.revision).limit(_AT_ONCE))
    ]
