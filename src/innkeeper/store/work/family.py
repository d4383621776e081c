"""Parents and children: a parent has no plan of its own, its state follows from its children's.

It is PENDING until it is closed, that is until no more children can come. One that is cancelled before ends with the
last child under way, or at once: nobody need be left who would close it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from immutables import Map
from sqlalchemy import update
from sqlalchemy.engine import Connection

from innkeeper.model.ids import OperationId
from innkeeper.model.work import Operation, OperationState, Stale
from innkeeper.store.database import schema
from innkeeper.store.work.standing import Draft

_OPEN = OperationState.PENDING


def open_parent(draft: Draft, operation: Operation, key: str | None) -> Operation:
    earlier = draft.earlier(operation.principal, key)
    if earlier is not None:
        return earlier
    operation = replace(operation, state=_OPEN, done=0, parent=None)
    operation = draft.keep(operation, _OPEN.value, write=True)
    draft.accepted.append((operation.id, key))
    draft.remember(operation.principal, key, operation)
    draft.change(children=draft.standing.children.set(operation.id, Map()))
    return operation


def close_parent(draft: Draft, parent: OperationId, refused: Sequence[str], rest: str = "") -> Operation | None:
    """None: unknown, or no parent. An ended or closed one is returned as it is. `rest`: see ports.store.Works."""
    operation = draft.standing.operations.get(parent)
    if operation is None or parent not in draft.standing.children:
        return None
    if operation.state is not _OPEN:
        return operation
    children = len(draft.standing.children[parent])
    if rest:
        refused = (*refused, *(rest,) * (operation.steps - children - len(refused)))
    if not children:
        draft.others.append(partial(_forget_key, parent=parent))
    steps = children + len(refused)
    closed = replace(operation, state=OperationState.RUNNING, steps=steps)
    if refused and not closed.error:
        closed = replace(closed, error=refused[0])
    return _settle(draft, closed)


def cancel(draft: Draft, parent: Operation) -> Operation:
    """After its children were told."""
    parent = draft.keep(replace(parent, cancel_wanted=True), "cancel wanted", write=True)
    over = parent.state is _OPEN and all(state.ended for state in draft.standing.children[parent.id].values())
    return _settle(draft, parent) if over else parent


def _forget_key(connection: Connection, parent: OperationId) -> None:
    """Nothing came of it, so the same request may be made again under the same key."""
    table = schema.operations
    connection.execute(update(table).where(table.c.id == parent).values(idempotency_key=None))


def refuses(draft: Draft, parent: OperationId | None) -> Stale | None:
    """Why an operation cannot become this one's child."""
    if parent is None:
        return None
    operation = draft.standing.operations.get(parent)
    if operation is None or parent not in draft.standing.children:
        return Stale(what=f"operation {parent} is over or has no parts")
    if operation.state is not _OPEN:
        return Stale(what=f"operation {parent} takes no more parts")
    return None


def cancelled(draft: Draft, parent: OperationId | None) -> bool:
    return parent is not None and draft.standing.operations[parent].cancel_wanted


def follow(draft: Draft, child: Operation) -> None:
    """The parent, if there is one, after something happened to a child."""
    if child.parent is None or child.parent not in draft.standing.children:
        return
    parent = draft.standing.operations[child.parent]
    children = draft.standing.children[parent.id]
    before = children.get(child.id)
    draft.change(children=draft.standing.children.set(parent.id, children.set(child.id, child.state)))
    if not child.state.ended or (before is not None and before.ended):
        return
    parent = replace(parent, updated_at=child.updated_at)
    if child.state is OperationState.FAILED and not parent.error:
        parent = replace(parent, error=f"{child.title}: {child.error}", hint=child.hint)
    _settle(draft, parent)


def _settle(draft: Draft, parent: Operation) -> Operation:
    states = list(draft.standing.children[parent.id].values())
    ended = sum(state.ended for state in states)
    missing = max(0, parent.steps - len(states))
    if parent.state is not _OPEN:
        states += [OperationState.FAILED] * missing
    elif parent.cancel_wanted and ended == len(states):
        states += [OperationState.CANCELLED] * missing
    else:
        return draft.keep(replace(parent, done=ended), f"{parent.state.value} {ended}/{parent.steps}", write=True)
    parent = replace(parent, steps=len(states), done=sum(state.ended for state in states))
    if parent.done == parent.steps:
        parent = _ended(parent, states)
    return draft.keep(parent, f"{parent.state.value} {parent.done}/{parent.steps}", write=True)


def _ended(parent: Operation, states: list[OperationState]) -> Operation:
    failed = states.count(OperationState.FAILED)
    stopped = states.count(OperationState.CANCELLED)
    if failed:
        error = f"{failed} of {parent.steps} failed: {parent.error}" if parent.steps > 1 else parent.error
        return replace(parent, state=OperationState.FAILED, error=error)
    if stopped:
        return replace(parent, state=OperationState.CANCELLED, error=f"{stopped} of {parent.steps} were cancelled")
    return replace(parent, state=OperationState.SUCCEEDED)
