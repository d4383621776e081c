"""What a decision returns: a plan, which is data to be stored, shown, carried out and undone; or a refusal.

A plan holds row changes for four moments, and steps between them:

    accept   with the plan's acceptance, in the same transaction as claims and reservations
    retreat  when undoing begins
    abandon  when everything was undone
    finish   when all steps are done

Nothing is left to choose while it runs: every id, address, slot and order was picked beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from innkeeper.model.actions import Action
from innkeeper.model.host import Host, Project
from innkeeper.model.ids import HostId, Ref
from innkeeper.model.instance import Instance, Snapshot, Volume
from innkeeper.model.network import Network, Nic
from innkeeper.model.template import MemoryImage, Template

Noun = Project | Host | Template | Network | Instance | Volume | Nic | Snapshot | MemoryImage


class Verb(StrEnum):
    """What an operation does, in the words of the command line."""

    LAUNCH = "launch"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    PAUSE = "pause"
    RESUME = "resume"
    RENAME = "rename"
    DELETE = "delete"
    BUILD = "build"
    IMPORT = "import"
    PUBLISH = "publish"
    DELETE_TEMPLATE = "delete-template"
    SNAPSHOT = "snapshot"
    RESTORE = "restore"
    DELETE_SNAPSHOT = "delete-snapshot"
    WARM = "warm"
    DELETE_MEMORY = "delete-memory"
    REPAIR = "repair"
    SET_UP = "set-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """This row, as a whole, replacing an earlier one of the same id."""

    noun: Noun


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    ref: Ref


Change = Put | Drop


class NoUndo(StrEnum):
    NOTHING = "nothing"  # the step leaves nothing that needs undoing
    NO_WAY_BACK = "no-way-back"  # from here on the plan can only go forward


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One order to one host about one object. `generation` is the object's.

    A host refuses an order older than one it obeyed.
    """

    host: HostId
    about: Ref
    generation: int
    action: Action
    undo: Action | NoUndo


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """What the planner saw: the object's generation, or None for «does not exist». Otherwise the plan is stale."""

    ref: Ref
    generation: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`takes_over` lets the plan take claims from a running operation, which then stops where it is (force only)."""

    verb: Verb
    title: str
    subjects: tuple[Ref, ...]
    expects: tuple[Expect, ...] = ()
    claims: tuple[Ref, ...] = ()
    takes_over: bool = False
    accept: tuple[Change, ...] = ()
    steps: tuple[Step, ...] = ()
    retreat: tuple[Change, ...] = ()
    abandon: tuple[Change, ...] = ()
    finish: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()


class Why(StrEnum):
    """Kinds of refusal; edges translate them to status and exit codes."""

    INVALID = "invalid"  # the wish itself is wrong
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"  # the object's state does not allow it, or the name is taken
    BUSY = "busy"  # another operation holds the object
    CHANGED = "changed"  # the object is not as it was when the asker read it
    NO_ROOM = "no-room"
    FORBIDDEN = "forbidden"
    UNAVAILABLE = "unavailable"  # the host cannot do it now


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A decision not to act. `reason` says what and on what; `hint` says what to do next."""

    why: Why
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.reason}. {self.hint}" if self.hint else self.reason
