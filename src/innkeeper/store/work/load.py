"""Reading everything at open, and mending what only follows from it.

A damaged body is an error that names its row: nothing is guessed. Claims, reservations and rooms are another matter;
they follow from the bodies, so a difference is mended, and told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from immutables import Map
from sqlalchemy import Table, delete, func, insert, select
from sqlalchemy.engine import Connection

from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import OperationId, Ref
from innkeeper.model.observed import MachineState
from innkeeper.model.plans import Noun, Plan, Put
from innkeeper.model.work import Operation, OperationState, Record
from innkeeper.store.database import schema
from innkeeper.store.database.rows import Damaged, Row, holdings, object_key, unsealed
from innkeeper.store.work.flush import claim_row, room_row
from innkeeper.store.work.referred import sweep
from innkeeper.store.work.standing import Standing

_UNENDED = [state.value for state in OperationState if not state.ended]
_SHOWN = 5
_AT_ONCE = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """`waiting` are the unended operations with a plan, in the order of their acceptance; `ended` is how many others
    the tables hold; `mended` are sentences."""

    standing: Standing
    waiting: tuple[OperationId, ...]
    ended: int
    floor: int
    mended: tuple[str, ...]


class _Damages:
    """Collects what is damaged, so that the operator is told all of it at once."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def read(self, table: str, key: str, row: Any, as_type: Any) -> Any:
        try:
            return unsealed(table, key, row, as_type)
        except Damaged as damage:
            self._found.append(str(damage))
            return None

    def complain(self) -> None:
        if self._found:
            more = len(self._found) - _SHOWN
            raise Damaged("; ".join(self._found[:_SHOWN]) + (f"; and {more} more rows" if more > 0 else ""))


def load(connection: Connection) -> Loaded:
    """
    Raises:
        Damaged: names the damaged rows.
    """
    damages = _Damages()
    newest, oldest = connection.execute(
        select(func.max(schema.events.c.revision), func.min(schema.events.c.revision))
    ).one()
    cluster, reports = _cluster(connection, damages, newest or 0)
    operations, waiting = _operations(connection, damages)
    plans = _plans(connection, damages, waiting)
    damages.complain()
    for id in waiting:
        cluster = cluster.claimed(plans[id].claims, id)
    children = _children(connection, operations.keys() - set(waiting))
    standing = Standing(
        cluster=cluster,
        operations=Map(operations),
        plans=Map(plans),
        children=Map(children),
        reports=Map(reports),
    )
    mended = tuple(_mended(connection, standing))
    return Loaded(
        standing=standing,
        waiting=waiting,
        ended=_count(connection, schema.operations) - len(operations),
        floor=max(0, (oldest or 1) - 1),
        mended=mended,
    )


def _count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _cluster(connection: Connection, damages: _Damages, revision: int) -> tuple[Cluster, dict[Ref, int]]:
    nouns: list[Noun] = []
    reports: dict[Ref, int] = {}
    for row in connection.execute(select(schema.objects)):
        noun = damages.read("objects", object_key(row.kind, row.id), row, Noun)
        if noun is not None:
            nouns.append(noun)
        if noun is not None and row.seq:
            reports[noun.ref] = row.seq
    cluster = Cluster().after((Put(noun=noun) for noun in nouns), revision)
    for row in connection.execute(select(schema.machines)):
        state = damages.read("machines", row.instance, row, MachineState)
        cluster = cluster if state is None else cluster.seen(state)
    return cluster, reports


def _operations(
    connection: Connection, damages: _Damages
) -> tuple[dict[OperationId, Operation], tuple[OperationId, ...]]:
    """The unended ones as their newest record left them, and which of them have a plan."""
    table, plans = schema.operations, schema.plans
    unended = table.c.state.in_(_UNENDED)
    found: dict[OperationId, Operation] = {}
    waiting: list[OperationId] = []
    query = select(table, plans.c.operation.label("plan")).outerjoin(plans, plans.c.operation == table.c.id)
    for row in connection.execute(query.where(unended).order_by(table.c.born)):
        operation = damages.read("operations", row.id, row, Operation)
        if operation is not None:
            found[operation.id] = operation
        if operation is not None and row.plan is not None:
            waiting.append(operation.id)
    for row in _newest_records(connection, found):
        record = damages.read("records", f"{row.operation}/{row.revision}", row, Record)
        if record is not None and record.operation in found:
            found[record.operation] = recorded(found[record.operation], record, row.revision)
    return found, tuple(waiting)


def _newest_records(connection: Connection, operations: Iterable[OperationId]) -> Iterator[Any]:
    """By name: to look for the unended ones among all operations that are kept would read all of their records."""
    table = schema.records
    for some in _some(operations):
        newest = select(func.max(table.c.revision)).where(table.c.operation.in_(some)).group_by(table.c.operation)
        yield from connection.execute(select(table).where(table.c.revision.in_(newest)))


def recorded(operation: Operation, record: Record, revision: int) -> Operation:
    """The operation as a record left it."""
    return replace(
        operation,
        state=record.state,
        done=record.done,
        updated_at=record.at,
        error=record.error,
        hint=record.hint,
        revision=max(revision, operation.revision),
    )


def _plans(connection: Connection, damages: _Damages, waiting: tuple[OperationId, ...]) -> dict[OperationId, Plan]:
    table = schema.plans
    queries = (select(table).where(table.c.operation.in_(some)) for some in _some(waiting))
    rows = (row for query in queries for row in connection.execute(query))
    return {row.operation: damages.read("plans", row.operation, row, Plan) for row in rows}


def _some(operations: Iterable[OperationId]) -> Iterator[list[OperationId]]:
    left = iter(operations)
    while some := list(islice(left, _AT_ONCE)):
        yield some


def _children(connection: Connection, parents: set[OperationId]) -> dict[OperationId, Map[OperationId, OperationState]]:
    found: dict[OperationId, Map[OperationId, OperationState]] = {parent: Map() for parent in parents}
    if not parents:
        return found
    table = schema.operations
    for row in connection.execute(select(table.c.id, table.c.parent, table.c.state).where(table.c.parent.is_not(None))):
        if row.parent in found:
            found[row.parent] = found[row.parent].set(row.id, OperationState(row.state))
    return found


# --- what follows from the rest


def _mended(connection: Connection, standing: Standing) -> Iterator[str]:
    cluster = standing.cluster
    claims = [claim_row(ref, operation) for ref, operation in cluster.claims.items()]
    reservations = [
        {"scope": scope, "key": key, "holder": noun.ref.id}
        for table in (cluster.instances, cluster.nics)
        for noun in table.values()
        for scope, key in holdings(noun)
    ]
    rooms = [room_row(cluster, host) for host in cluster.hosts.values()]
    for table, rows in ((schema.claims, claims), (schema.reservations, reservations), (schema.rooms, rooms)):
        wrong = _differences(connection, table, rows)
        if wrong:
            connection.execute(delete(table))
            if rows:
                connection.execute(insert(table), rows)
            yield f"table {table.name} did not follow from the others in {wrong} rows and was made anew"
    if lost := sweep(connection, standing):
        yield f"{lost} sealed secrets, kept for launches that were never accepted, were deleted"


def _differences(connection: Connection, table: Table, wanted: list[Row]) -> int:
    order = [column.name for column in table.columns]
    found = {tuple(row) for row in connection.execute(select(table))}
    return len(found ^ {tuple(row[name] for name in order) for row in wanted})
