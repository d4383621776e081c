"""What hosts report. Observed state flows only this way: a host reports, the store keeps, everybody else reads.

`seq` grows with each report of one host about one object, also across restarts of its agent; an older one never
replaces a newer one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from innkeeper.model.host import HostFacts
from innkeeper.model.ids import HostId, InstanceId, MemoryImageId, OperationId, SnapshotId, TemplateId
from innkeeper.model.instance import Taken
from innkeeper.model.template import Baked, Image


class Phase(StrEnum):
    """What a machine was last seen doing."""

    UNKNOWN = "unknown"  # not reported yet, or QEMU is there and does not answer
    STARTING = "starting"  # QEMU runs, nothing in the guest has answered
    RUNNING = "running"
    PAUSED = "paused"
    PANICKED = "panicked"  # QEMU runs; the guest's kernel has given up, and nothing in it answers
    NO_SPACE = "no-space"  # the guest is paused because the pool is full
    STOPPED = "stopped"
    CRASHED = "crashed"  # QEMU ended without being asked to, and not by the guest's own shutdown


class Ended(StrEnum):
    """Why a machine is no longer running. `GUEST` and `CRASH` and `HOST_BOOT` were not asked for by anybody here."""

    NO = "no"
    ASKED = "asked"
    GUEST = "guest"
    CRASH = "crash"
    HOST_BOOT = "host-boot"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineState:
    """One instance on its host. `obeyed` is the generation of the last order carried out for it.

    `since` is when the phase began, in seconds of the epoch; `addresses` are what the guest itself says it uses.
    `warm` says that it went on from its memory image, `cold` why it did not though it was to.
    """

    instance: InstanceId
    host: HostId
    seq: int
    phase: Phase
    since: float
    ended: Ended = Ended.NO
    reason: str = ""
    pid: int | None = None
    obeyed: int = 0
    agent: bool = False
    guest_program: bool = False
    cloud_init: str = ""
    addresses: tuple[str, ...] = ()
    warm: bool = False
    cold: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateState:
    """A template's artefacts, complete, on a host."""

    template: TemplateId
    host: HostId
    seq: int
    image: Image


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotState:
    """A snapshot that stands on a host. What was kept with it never changes."""

    snapshot: SnapshotId
    host: HostId
    seq: int
    taken: Taken


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryState:
    """A memory image that stands on a host. It is never written again."""

    memory: MemoryImageId
    host: HostId
    seq: int
    baked: Baked


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    host: HostId
    seq: int
    facts: HostFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress:
    """A long step's way: `fraction` 0..1. Not kept in the store; lost ones do not matter."""

    operation: OperationId
    step: int
    fraction: float
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Counters of one running machine at one moment. All but `memory_mib` only grow while QEMU lives.

    CPU seconds are of the whole QEMU process; memory is its proportional set size.
    """

    instance: InstanceId
    at: float
    cpu_s: float
    memory_mib: float
    disk_read_bytes: int
    disk_written_bytes: int
    net_received_bytes: int
    net_sent_bytes: int


State = MachineState | TemplateState | SnapshotState | MemoryState | HostState
Report = State | StepProgress | Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Everything of ours that a host holds, found by looking, for repair. Ids only: what is known about each comes
    by reports.

    `disks` are volume ids, `seeds` instance ids with a seed disk, `leftovers` names of things that bear our mark
    but no id that can be read (half-made staging directories and the like), which the host may remove by itself.
    """

    host: HostId
    boot_id: str
    machines: tuple[MachineState, ...]
    disks: tuple[str, ...]
    seeds: tuple[InstanceId, ...]
    templates: tuple[TemplateId, ...]
    networks: tuple[str, ...]
    memories: tuple[MemoryImageId, ...] = ()
    leftovers: tuple[str, ...] = ()
