"""Parents and children: a parent has no plan of its own, its state follows from its children's.

It is opened in the draft in which its children are accepted, so there is never one of them without the others. Those
of its steps that never get a child were refused: they count as done, and as failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from immutables import Map

from innkeeper.model.ids import OperationId
from innkeeper.model.work import Operation, OperationState
from innkeeper.store.work.standing import Draft


def open_parent(draft: Draft, parent: Operation, refused: Sequence[str]) -> None:
    """Its children follow in the same draft."""
    error = refused[0] if refused else ""
    _keep(draft, replace(parent, state=OperationState.RUNNING, done=len(refused), error=error))
    draft.change(children=draft.standing.children.set(parent.id, Map()))


def refuse(draft: Draft, parent: OperationId, reason: str) -> None:
    """One child less will come."""
    operation = draft.standing.operations[parent]
    _count(draft, replace(operation, error=operation.error or reason))


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
    _count(draft, parent)


def _count(draft: Draft, parent: Operation) -> None:
    parent = replace(parent, done=parent.done + 1)
    if parent.done == parent.steps:
        parent = _ended(parent, list(draft.standing.children[parent.id].values()))
    _keep(draft, parent)


def _ended(parent: Operation, states: list[OperationState]) -> Operation:
    failed = states.count(OperationState.FAILED) + parent.steps - len(states)
    stopped = states.count(OperationState.CANCELLED)
    if failed:
        error = f"{failed} of {parent.steps} failed: {parent.error}" if parent.steps > 1 else parent.error
        return replace(parent, state=OperationState.FAILED, error=error)
    if stopped:
        return replace(parent, state=OperationState.CANCELLED, error=f"{stopped} of {parent.steps} were cancelled")
    return replace(parent, state=OperationState.SUCCEEDED)


def _keep(draft: Draft, parent: Operation) -> None:
    draft.keep(parent, f"{parent.state.value} {parent.done}/{parent.steps}", write=True)
