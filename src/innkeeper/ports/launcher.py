"""The seam to whoever starts programs in confinement.

The driver that knows a program's words does not know how the program is locked in, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Protocol

FIRST_DESCRIPTOR = 3
"""In the started program, `descriptors[i]` has the number FIRST_DESCRIPTOR + i, whatever it was here."""

USERS = range(0x7000_0000, 0x8000_0000)
"""All that may belong to installations of Innkeeper: the range that systemd's list of user numbers leaves to nobody,
above those of people, services and containers."""
MARK = "INNKEEPER_RECORD"
"""In the started program's environment: the path of its record, by which it is found even if that was never written."""


@dataclass(frozen=True, slots=True)
class Users:
    """The users of one installation: `block` is one of 4096 equal parts of all, so that two installations on one
    machine share none."""

    block: int

    PER_BLOCK: ClassVar = 0x1_0000
    BLOCKS: ClassVar = len(USERS) // PER_BLOCK

    def of_slot(self, slot: int) -> int:
        """As whom the instance with this user slot runs; owns its disks."""
        return self._number(slot)

    @property
    def prover(self) -> int:
        """As whom acceleration is tried."""
        return self._number(self.PER_BLOCK - 1)

    @property
    def converter(self) -> int:
        """As whom images from outside are read. Owns nothing."""
        return self._number(self.PER_BLOCK - 2)

    @property
    def baker(self) -> int:
        """As whom a template is booted to become a memory image."""
        return self._number(self.PER_BLOCK - 3)

    def _number(self, place: int) -> int:
        if not (0 <= self.block < self.BLOCKS and 0 <= place < self.PER_BLOCK):
            raise ValueError(f"there is no user {place} in block {self.block}")
        return USERS[self.block * self.PER_BLOCK + place]


class Namespace(StrEnum):
    """What the program gets for itself, empty."""

    NET = "net"
    IPC = "ipc"
    UTS = "uts"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnRequest:
    """A program to start, and all that it is given: no capabilities, no rights but its user's, no other descriptors.

    `record` names a file that holds `note`, `pid`, `start_time` and `launcher` from before the answer on; `exit_file`
    one that holds how the program ended. Standard output and error go to `log`, a file opened to read and append,
    which is kept short. `cgroups` are directories of control groups to enter; `oom_score_adj` above 0 means: die before
    the daemon.
    """

    argv: tuple[str, ...]
    descriptors: tuple[int, ...]
    log: int
    uid: int
    gid: int
    record: str
    exit_file: str
    groups: tuple[int, ...] = ()
    note: Mapping[str, object] = field(default_factory=dict)
    cgroups: tuple[str, ...] = ()
    namespaces: tuple[Namespace, ...] = (Namespace.NET, Namespace.IPC, Namespace.UTS)
    oom_score_adj: int = 300
    limits: Mapping[str, int] = field(default_factory=lambda: {"CORE": 0, "NOFILE": 4096, "MEMLOCK": 0})


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawned:
    """`start_time` is in ticks since boot; with it a pid names one process and never a later one of the same number."""

    pid: int
    start_time: int


class SpawnFailed(Exception):
    """The program does not run, and nothing of it remains; the text says at which step and why."""


class LauncherGone(Exception):
    """The launcher died before it answered: the program may run or not. Look for its record before trying again."""


class LauncherPort(Protocol):
    async def spawn(self, request: SpawnRequest) -> Spawned:
        """Start the program. It runs on when the launcher and we ourselves end.

        Raises:
            SpawnFailed: it could not be started.
            LauncherGone: nobody knows.
        """
        ...
