"""From a draft to rows: a handful of statements for a whole batch, however many callers it has.

What is written is the difference between the draft's beginning and its end, so that an object changed twice in a
batch is written once. The guards are written too, and the database has the last word on them: `Guarded` or its own
complaint about a unique key mean that memory and file do not agree, and undo the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Column, Table, bindparam, delete, insert, tuple_, update
from sqlalchemy.engine import Connection

from innkeeper.model.cluster import Cluster, Usage, name_key
from innkeeper.model.host import Host
from innkeeper.model.ids import Kind, OperationId, Ref
from innkeeper.model.work import Operation
from innkeeper.plan.size import capacity
from innkeeper.ports.store import StoreFailed
from innkeeper.store.database import schema
from innkeeper.store.database.rows import Row, holdings, machine_row, object_row, operation_row
from innkeeper.store.work.standing import Draft

_AT_ONCE = 400


class Guarded(StoreFailed):
    """The database does not allow what memory allowed."""


def flush(connection: Connection, draft: Draft) -> None:
    _objects(connection, draft)
    _rooms(connection, draft)
    _operations(connection, draft)
    _claims(connection, draft)
    _machines(connection, draft)
    _insert(connection, schema.records, draft.records)
    _insert(connection, schema.events, [_event_row(event) for event in draft.events])
    for other in draft.others:
        other(connection)


# --- objects, and what only one may hold


def _objects(connection: Connection, draft: Draft) -> None:
    before, after, reports = draft.base.cluster, draft.cluster, draft.standing.reports
    gone: list[tuple[str, str]] = []
    new: list[Row] = []
    changed: list[Row] = []
    freed: set[tuple[str, str]] = set()
    taken: list[Row] = []
    for ref in sorted(draft.touched):
        was, now = before.get(ref), after.get(ref)
        if now is was:
            continue
        held, holds = holdings(was), holdings(now)
        freed |= held - holds
        taken += [{"scope": scope, "key": key, "holder": ref.id} for scope, key in sorted(holds - held)]
        # A renamed row is taken out first, so that within a batch names may be handed round.
        if was is not None and (now is None or name_key(was) != name_key(now)):
            gone.append((ref.kind.value, ref.id))
            was = None
        if now is not None:
            row = object_row(now, draft.revision, reports.get(ref, 0))
            (new if was is None else changed).append(row)
    _delete(connection, schema.objects, (schema.objects.c.kind, schema.objects.c.id), gone)
    _update(connection, schema.objects, ("kind", "id"), changed)
    _insert(connection, schema.objects, new)
    columns = (schema.reservations.c.scope, schema.reservations.c.key)
    _delete(connection, schema.reservations, columns, sorted(freed))
    _insert(connection, schema.reservations, taken)


# --- room on hosts

_GROW = (
    update(schema.rooms)
    .where(schema.rooms.c.host == bindparam("of_host"))
    .values(
        vcpus=schema.rooms.c.vcpus + bindparam("d_vcpus"),
        memory_mib=schema.rooms.c.memory_mib + bindparam("d_memory_mib"),
        disk_gib=schema.rooms.c.disk_gib + bindparam("d_disk_gib"),
    )
)
_GROW_IF_ROOM = _GROW.where(
    (bindparam("d_vcpus") <= 0) | (schema.rooms.c.vcpus + bindparam("d_vcpus") <= schema.rooms.c.vcpus_total),
    (bindparam("d_memory_mib") <= 0)
    | (schema.rooms.c.memory_mib + bindparam("d_memory_mib") <= schema.rooms.c.memory_total_mib),
    (bindparam("d_disk_gib") <= 0)
    | (schema.rooms.c.disk_gib + bindparam("d_disk_gib") <= schema.rooms.c.disk_total_gib),
)


def _rooms(connection: Connection, draft: Draft) -> None:
    before, after = draft.base.cluster, draft.cluster
    shrunk: list[Row] = []
    for ref in (ref for ref in sorted(draft.touched) if ref.kind is Kind.HOST):
        was, now = before.get(ref), after.get(ref)
        if not isinstance(now, Host):
            _delete(connection, schema.rooms, (schema.rooms.c.host,), [(ref.id,)])
        elif was is None:
            _insert(connection, schema.rooms, [room_row(after, now)])
        elif isinstance(was, Host) and _totals(was) != _totals(now):
            row = {"host": now.id, **_totals(now)}
            if all(_totals(was)[name] <= total for name, total in _totals(now).items()):
                _update(connection, schema.rooms, ("host",), [row])
            else:
                shrunk.append(row)
    _promises(connection, draft)
    _update(connection, schema.rooms, ("host",), shrunk)


def _promises(connection: Connection, draft: Draft) -> None:
    """After hosts have grown and before they shrink, so that what was allowed in this order is allowed here."""
    before, after = draft.base.cluster, draft.cluster
    for host in sorted({*before.usage.keys(), *after.usage.keys()} & _hosts_of(draft)):
        if host not in before.hosts or host not in after.hosts:
            continue
        had, has = before.usage.get(host, Usage()), after.usage.get(host, Usage())
        if had == has:
            continue
        grown = {
            "of_host": host,
            "d_vcpus": has.vcpus - had.vcpus,
            "d_memory_mib": has.memory_mib - had.memory_mib,
            "d_disk_gib": has.disk_gib - had.disk_gib,
        }
        guarded = host in draft.growing
        if connection.execute(_GROW_IF_ROOM if guarded else _GROW, grown).rowcount != 1:
            raise Guarded(
                f"host {host} has less room in the database than in memory: restart the daemon, which mends it"
            )


def _hosts_of(draft: Draft) -> set[Any]:
    nouns = (cluster.get(ref) for ref in draft.touched for cluster in (draft.base.cluster, draft.cluster))
    return {host for noun in nouns if (host := getattr(noun, "host", None)) is not None}


def room_row(cluster: Cluster, host: Host) -> Row:
    used = cluster.usage.get(host.id, Usage())
    promised = {"vcpus": used.vcpus, "memory_mib": used.memory_mib, "disk_gib": used.disk_gib}
    return {"host": host.id, **promised, **_totals(host)}


def _totals(host: Host) -> Row:
    total = capacity(host)
    return {
        "vcpus_total": total.vcpus,
        "memory_total_mib": total.memory_mib,
        "disk_total_gib": total.disk_gib,
    }


# --- operations


def _operations(connection: Connection, draft: Draft) -> None:
    accepted = dict(draft.accepted)
    new = [_new_row(draft.latest[id], key) for id, key in accepted.items()]
    _insert(connection, schema.operations, new)
    _insert(connection, schema.plans, draft.plans)
    old = [draft.latest[id] for id in sorted(draft.rewritten) if id not in accepted and id in draft.latest]
    _update(connection, schema.operations, ("id",), [operation_row(operation) for operation in old])


def _new_row(operation: Operation, key: str | None) -> Row:
    return {
        **operation_row(operation),
        "project": operation.project,
        "parent": operation.parent,
        "principal": operation.principal,
        "idempotency_key": key,
        "born": operation.revision,
    }


def _claims(connection: Connection, draft: Draft) -> None:
    before, after = draft.base.cluster.claims, draft.cluster.claims
    freed = [(r.kind.value, r.id) for r in sorted(draft.claimed) if r in before and before[r] != after.get(r)]
    taken = [claim_row(r, after[r]) for r in sorted(draft.claimed) if r in after and after[r] != before.get(r)]
    _delete(connection, schema.claims, (schema.claims.c.kind, schema.claims.c.id), freed)
    _insert(connection, schema.claims, taken)


def claim_row(ref: Ref, operation: OperationId) -> Row:
    return {"kind": ref.kind.value, "id": ref.id, "operation": operation}


# --- the rest


def _machines(connection: Connection, draft: Draft) -> None:
    before, after = draft.base.cluster.machines, draft.cluster.machines
    changed = [i for i in sorted(draft.machines) if before.get(i) != after.get(i)]
    _delete(connection, schema.machines, (schema.machines.c.instance,), [(i,) for i in changed if i in before])
    rows = [machine_row(after[i], draft.revision) for i in changed if i in after]
    _insert(connection, schema.machines, rows)


def _event_row(event: Any) -> Row:
    ref: Ref | None = event.ref
    return {
        "revision": event.revision,
        "kind": event.kind,
        "ref_kind": None if ref is None else ref.kind.value,
        "ref_id": None if ref is None else ref.id,
        "operation": event.operation,
        "what": event.what,
    }


def _insert(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    if rows:
        connection.execute(insert(table), rows)


def _update(connection: Connection, table: Table, key: tuple[str, ...], rows: Sequence[Row]) -> None:
    if not rows:
        return
    statement = update(table).values({name: bindparam(name) for name in rows[0] if name not in key})
    for name in key:
        statement = statement.where(table.c[name] == bindparam(f"of_{name}"))
    connection.execute(statement, [{**row, **{f"of_{name}": row[name] for name in key}} for row in rows])


def _delete(
    connection: Connection, table: Table, columns: tuple[Column[Any], ...], keys: Iterable[tuple[Any, ...]]
) -> None:
    left = iter(keys)
    while some := list(islice(left, _AT_ONCE)):
        if len(columns) == 1:
            condition = columns[0].in_([key[0] for key in some])
        else:
            condition = tuple_(*columns).in_(some)
        connection.execute(delete(table).where(condition))
