"""Operations, the orders that carry them out, and what hosts answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from innkeeper.model.actions import Action
from innkeeper.model.ids import HostId, OperationId, ProjectId, Ref
from innkeeper.model.observed import State
from innkeeper.model.plans import Plan, Verb


class OperationState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    UNDOING = "undoing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Durable work. `done` counts steps carried out; while undoing it counts down to 0.

    A parent has children and no plan of its own: its state follows from theirs, and steps that have no child are parts
    that never came to be. `principal` is the name of who asked, `asked` tells the request from others that come under
    the same idempotency key; it says nothing else.
    """

    id: OperationId
    project: ProjectId
    verb: Verb
    title: str
    subjects: tuple[Ref, ...]
    principal: str
    state: OperationState
    created_at: float
    updated_at: float
    steps: int
    done: int = 0
    error: str = ""
    hint: str = ""
    cancel_wanted: bool = False
    parent: OperationId | None = None
    revision: int = 0
    asked: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    """What a parent has instead of a plan: its parts, and why others never came to be.

    They are accepted in one, or not at all; then each is an operation of its own, which fails for itself.
    """

    verb: Verb
    title: str
    parts: tuple[tuple[OperationId, Plan], ...]
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A plan on its way into the store. `key` is the caller's idempotency key.

    The second submission finds the first's operation.
    """

    operation: OperationId
    project: ProjectId
    principal: str
    at: float
    plan: Plan | Several
    key: str | None = None
    asked: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """The world moved between looking and submitting: look again, plan again.

    `busy` names an operation that holds a claim.
    """

    what: str
    busy: OperationId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A step sent to a host. Undo steps carry `undo=True`, so that a step and its undo are told apart."""

    operation: OperationId
    step: int
    undo: bool
    host: HostId
    about: Ref
    generation: int
    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The order is carried out; given again, it is answered the same.

    `states` are reports that belong to it, so that they are recorded together with the step.
    """

    states: tuple[State, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A long order is under way; progress comes in reports, and giving the order again asks how it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The host will not, and holds nothing half-made of it. `stale`: it has obeyed a newer order about the object."""

    reason: str
    hint: str = ""
    stale: bool = False


Outcome = Done | Accepted | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An operation taken by a worker, with the plan to carry out."""

    operation: Operation
    plan: Plan


class Moment(StrEnum):
    """What a worker records."""

    STEP_DONE = "step-done"
    UNDO_BEGUN = "undo-begun"
    STEP_UNDONE = "step-undone"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One thing that happened to an operation: written once, in order. `state` is the operation's afterwards.

    `done` is the count of steps that stand afterwards. On UNDO_BEGUN the plan's `retreat` is applied; on ENDED,
    `finish` is applied if the operation succeeded, `abandon` if all was undone, neither if it failed where no way leads
    back; claims and reservations of dropped rows are released.
    """

    operation: OperationId
    moment: Moment
    state: OperationState
    done: int
    at: float
    error: str = ""
    hint: str = ""
    states: tuple[State, ...] = ()
