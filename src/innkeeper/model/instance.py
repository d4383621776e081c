"""The instance, its size and its disks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from innkeeper.model.hardware import Hardware
from innkeeper.model.ids import (
    HostId,
    InstanceId,
    Kind,
    MemoryImageId,
    ProjectId,
    Ref,
    SecretRef,
    SnapshotId,
    TemplateId,
    VolumeId,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What an instance is given. Named sizes are only names for such values."""

    vcpus: int
    memory_mib: int
    disk_gib: int


class Wanted(StrEnum):
    """What an instance should be. ABSENT stands while it is deleted, or while its launch is undone."""

    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstBoot:
    """What cloud-init is told. User-data may hold secrets, so only its reference stands here.

    SSH keys are public ones.
    """

    user_data: SecretRef | None = None
    ssh_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """`uid_slot` is the number of the user, unique on its host, as whom the instance's QEMU runs.

    `expires_at` is in seconds of the epoch; an expired instance is deleted. An `ephemeral` one is deleted once it
    stops. `memory` is the image of which it was launched to go on; without one `cold` says why it boots. With
    `warms` a memory image of its template may be made after it.
    """

    id: InstanceId
    project: ProjectId
    name: str
    host: HostId
    template: TemplateId
    size: Size
    hardware: Hardware
    uid_slot: int
    wanted: Wanted
    created_at: float
    generation: int = 1
    autostart: bool = False
    ephemeral: bool = False
    expires_at: float | None = None
    first_boot: FirstBoot = FirstBoot()
    memory: MemoryImageId | None = None
    cold: str = ""
    warms: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> Ref:
        return Ref(Kind.INSTANCE, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A disk: a copy-on-write layer over another volume (`over`), or else over its template's disk.

    A volume that others stand over is frozen: it belongs to no instance any more, is never written again, and is called
    by its id. Each volume is a file of its own for ever, so that a snapshot moves nothing: it freezes the instance's
    volume where it is and gives the instance a new one over it.
    """

    id: VolumeId
    project: ProjectId
    name: str
    host: HostId
    instance: InstanceId | None
    template: TemplateId | None
    size_gib: int
    generation: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    over: VolumeId | None = None

    @property
    def ref(self) -> Ref:
        return Ref(Kind.VOLUME, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What its host tells of a snapshot once it is taken.

    `stored_bytes` are those of its own layers: what was written since the snapshot before. `consistent`: the file
    systems stood still, because the guest froze them or was off; otherwise they are as after a loss of power.
    """

    stored_bytes: int
    consistent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One instance at one moment: its frozen volumes, in the order of its disks.

    It goes with its instance; what others stand over stays.
    """

    id: SnapshotId
    project: ProjectId
    instance: InstanceId
    name: str
    host: HostId
    template: TemplateId
    size: Size
    volumes: tuple[VolumeId, ...]
    created_at: float
    taken: Taken | None = None
    generation: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> Ref:
        return Ref(Kind.SNAPSHOT, self.id)

    @property
    def full_name(self) -> str:
        """Unique in its project, and the same after its instance was renamed."""
        return f"{self.instance}/{self.name}"
