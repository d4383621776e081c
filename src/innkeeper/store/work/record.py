"""What happens to accepted operations, and what hosts report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from innkeeper.model.ids import Kind, OperationId, Ref
from innkeeper.model.observed import HostState, MachineState, MemoryState, SnapshotState, State, TemplateState
from innkeeper.model.plans import Change, Plan
from innkeeper.model.work import Moment, Operation, OperationState, Record
from innkeeper.ports.store import Contradiction
from innkeeper.store.database.rows import sealed
from innkeeper.store.work import family
from innkeeper.store.work.standing import Draft
from innkeeper.store.work.submit import apply, clash, release


def record(draft: Draft, happened: Record) -> bool:
    """False: the operation has ended, be it by being taken over.

    Raises:
        Contradiction: the plan's rows for this moment contradict others, which is a fault in its planner.
    """
    operation = draft.standing.operations.get(happened.operation)
    plan = draft.standing.plans.get(happened.operation)
    if operation is None or plan is None:
        return False
    report(draft, happened.states)
    _follow_plan(draft, operation, _changes(plan, happened), happened)
    if happened.moment is Moment.ENDED:
        release(draft, operation.id)
    operation = replace(
        operation,
        state=happened.state,
        done=happened.done,
        updated_at=happened.at,
        error=happened.error,
        hint=happened.hint,
    )
    what = f"{operation.state.value} {operation.done}/{operation.steps}"
    operation = draft.keep(operation, what, write=operation.state.ended)
    body = sealed(f"{operation.id}/{operation.revision}", replace(happened, states=()))
    draft.records.append({"revision": operation.revision, "operation": operation.id, **body})
    family.follow(draft, operation)
    return True


def _follow_plan(draft: Draft, operation: Operation, changes: tuple[Change, ...], happened: Record) -> None:
    if not changes:
        return
    after = draft.cluster.after(changes, draft.revision)
    stale = clash(draft.cluster, after, changes)
    if stale is not None:
        raise Contradiction(
            f"operation {operation.id} ({operation.title}) cannot record {happened.moment.value}: {stale.what}"
        )
    apply(draft, changes, after)


def _changes(plan: Plan, happened: Record) -> tuple[Change, ...]:
    if happened.moment is Moment.UNDO_BEGUN:
        return plan.retreat
    if happened.moment is Moment.ENDED:
        if happened.state is OperationState.SUCCEEDED:
            return plan.finish
        # Steps that still stand cannot be undone: then the rows stay as accepted, and repair goes on from them.
        return plan.abandon if happened.done == 0 else ()
    return ()


def report(draft: Draft, states: Sequence[State]) -> None:
    """Newer reports, kept; older ones, and those about what is not there, change nothing."""
    for state in states:
        match state:
            case MachineState():
                _machine(draft, state)
            case TemplateState() | SnapshotState() | MemoryState() | HostState():
                _merged(draft, state)


def _machine(draft: Draft, state: MachineState) -> None:
    known = draft.cluster.machines.get(state.instance)
    after = draft.cluster.seen(state)
    if after is draft.cluster:
        return
    draft.change(cluster=after)
    draft.machines.add(state.instance)
    # A repeated report is kept for its number, so that an older one never passes for new; it is no news.
    if known is None or replace(known, seq=state.seq) != state:
        draft.say("state", state.phase.value, ref=Ref(Kind.INSTANCE, state.instance))


def _merged(draft: Draft, state: TemplateState | SnapshotState | MemoryState | HostState) -> None:
    """Reports that become part of an object's row."""
    ref = _row_of(state)
    before = draft.cluster.get(ref)
    if draft.standing.reports.get(ref, 0) >= state.seq:
        return
    after = draft.cluster.seen(state)
    if after.get(ref) == before:
        return
    draft.change(cluster=after, reports=draft.standing.reports.set(ref, state.seq))
    draft.touched.add(ref)
    draft.say("state", "facts" if isinstance(state, HostState) else "complete", ref=ref)


def _row_of(state: TemplateState | SnapshotState | MemoryState | HostState) -> Ref:
    match state:
        case HostState():
            return Ref(Kind.HOST, state.host)
        case TemplateState():
            return Ref(Kind.TEMPLATE, state.template)
        case SnapshotState():
            return Ref(Kind.SNAPSHOT, state.snapshot)
        case MemoryState():
            return Ref(Kind.MEMORY, state.memory)
        case _:
            assert_never(state)


def cancel(draft: Draft, id: OperationId) -> Operation | None:
    """None: not among the unended ones."""
    operation = draft.standing.operations.get(id)
    if operation is None:
        return None
    for child in sorted(draft.standing.children.get(id, ())):
        cancel(draft, child)
    if operation.cancel_wanted or operation.state is OperationState.UNDOING:
        return operation
    return draft.keep(replace(operation, cancel_wanted=True), "cancel wanted", write=True)
