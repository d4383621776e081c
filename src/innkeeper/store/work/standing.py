"""Where everything stands at one revision: all that the writing thread knows by heart, as one immutable value.

Checks are made against it, not against the database, so that accepting a plan costs no query. What happens within a
batch is written on a `Draft` that begins at the committed standing; if the commit fails, the draft is dropped, and
nothing ever happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from immutables import Map
from sqlalchemy.engine import Connection

from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import HostId, InstanceId, OperationId, Ref
from innkeeper.model.plans import Plan
from innkeeper.model.work import Operation, OperationState
from innkeeper.ports.store import Event
from innkeeper.store.database.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`operations` are the unended ones: those with a plan are carried out, those with `children` are parents.

    `reports` holds the newest report that was merged into an object's row. The cluster's own revision is this one's.
    """

    cluster: Cluster = Cluster()
    operations: Map[OperationId, Operation] = Map()
    plans: Map[OperationId, Plan] = Map()
    children: Map[OperationId, Map[OperationId, OperationState]] = Map()
    reports: Map[Ref, int] = Map()


Key = tuple[str, str]  # principal, idempotency key


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a draft stood before one caller's part of it."""

    standing: Standing
    latest: Map[OperationId, Operation]
    known: Map[Key, Operation]
    lengths: tuple[int, ...]


class Draft:
    """What one batch has done so far.

    `latest` is each touched operation as it is now, ended or not. `touched`, `rewritten` and `growing` may name too
    much: what is written follows from comparing the draft's end with its beginning.
    """

    def __init__(self, base: Standing, known: Mapping[Key, Operation]) -> None:
        self.base = base
        self.standing = base
        self.latest: Map[OperationId, Operation] = Map()
        self.accepted: list[tuple[OperationId, str | None]] = []
        self.plans: list[Row] = []
        self.records: list[Row] = []
        self.events: list[Event] = []
        self.others: list[Callable[[Connection], object]] = []
        self.touched: set[Ref] = set()
        self.claimed: set[Ref] = set()
        self.machines: set[InstanceId] = set()
        self.rewritten: set[OperationId] = set()
        self.growing: set[HostId] = set()
        self._known: Map[Key, Operation] = Map(dict(known))

    @property
    def revision(self) -> int:
        return self.base.cluster.revision + len(self.events)

    @property
    def cluster(self) -> Cluster:
        return self.standing.cluster

    @property
    def empty(self) -> bool:
        return not (self.events or self.machines or self.others or self.rewritten)

    def mark(self) -> Mark:
        return Mark(self.standing, self.latest, self._known, tuple(len(part) for part in self._parts()))

    def rewind(self, mark: Mark) -> None:
        """As if nothing had been done since the mark."""
        self.standing, self.latest, self._known = mark.standing, mark.latest, mark.known
        for part, length in zip(self._parts(), mark.lengths, strict=True):
            del part[length:]

    def _parts(self) -> tuple[list[Any], ...]:
        return (self.accepted, self.plans, self.records, self.events, self.others)

    def change(self, **parts: Any) -> None:
        """Replaces parts of the standing."""
        self.standing = replace(self.standing, **parts)

    def say(self, kind: str, what: str, *, ref: Ref | None = None, operation: OperationId | None = None) -> int:
        """An event; its revision."""
        revision = self.revision + 1
        self.events.append(Event(revision=revision, kind=kind, ref=ref, operation=operation, what=what))
        return revision

    def keep(self, operation: Operation, what: str, *, write: bool) -> Operation:
        """An operation's new state, announced; `write` where records do not tell it. Ended ones leave the standing."""
        operation = replace(operation, revision=self.say("operation", what, operation=operation.id))
        self.latest = self.latest.set(operation.id, operation)
        standing = self.standing
        if write:
            self.rewritten.add(operation.id)
        if operation.state.ended:
            self.change(
                operations=standing.operations.delete(operation.id),
                plans=_without(standing.plans, operation.id),
                children=_without(standing.children, operation.id),
            )
        else:
            self.change(operations=standing.operations.set(operation.id, operation))
        return operation

    def earlier(self, principal: str, key: str | None) -> Operation | None:
        """The operation that this idempotency key of this principal has led to, as it is now."""
        found = None if key is None else self._known.get((principal, key))
        if found is None:
            return None
        return self.latest.get(found.id) or self.standing.operations.get(found.id) or found

    def remember(self, principal: str, key: str | None, operation: Operation) -> None:
        if key is not None:
            self._known = self._known.set((principal, key), operation)

    def claim(self, refs: Iterable[Ref], operation: OperationId | None) -> None:
        """Claims taken, or released with None."""
        refs = tuple(refs)
        self.claimed.update(refs)
        self.change(cluster=self.cluster.claimed(refs, operation))


def _without(held: Map[OperationId, Any], id: OperationId) -> Map[OperationId, Any]:
    return held.delete(id) if id in held else held
