"""Actions: all that can be done to a host, as data, in families of at most ten.

An action says everything its execution needs; the host chooses nothing. Each can be given twice: the second time
finds its work done. What undoes an action is written beside it in the plan, not here.
"""

from __future__ import annotations

from dataclasses import dataclass

from innkeeper.model.hardware import Firmware, Hardware
from innkeeper.model.ids import InstanceId, MemoryImageId, NetworkId, SecretRef, SnapshotId, TemplateId, VolumeId
from innkeeper.model.network import NetworkWanted

# --- machines


@dataclass(frozen=True, slots=True, kw_only=True)
class StartMachine:
    """QEMU runs with this hardware afterwards. Given to a running machine, it does nothing.

    Disks without a chain stand over the template's alone. With `warm` it goes on from a memory image if that can be
    done and its disks are still empty; otherwise it boots, and its report says why.
    """

    instance: InstanceId
    name: str
    template: TemplateId
    hardware: Hardware
    kernel_args: str | None
    uid_slot: int
    chains: tuple[Chain, ...] = ()
    warm: Warm | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A volume, and the frozen ones below it from the top down; below the last lies the template's disk."""

    volume: VolumeId
    below: tuple[VolumeId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """Going on from a memory image, and who the guest is from then on: no network before it has become that.

    `cards` are in the order of the hardware's. `configure`: cloud-init has something to apply, and runs at once.
    """

    memory: MemoryImageId
    hostname: str
    domain: str
    machine_id: str
    cards: tuple[WarmCard, ...]
    configure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmCard:
    """`baked_mac` is by which the guest knows the card until then."""

    baked_mac: str
    becomes: SeedCard


@dataclass(frozen=True, slots=True, kw_only=True)
class StopMachine:
    """QEMU is gone afterwards. The guest is asked first (agent, then power button) and has `grace_s`.

    0 means at once.
    """

    instance: InstanceId
    grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseMachine:
    instance: InstanceId


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeMachine:
    """Virtual CPUs run afterwards, also after a pause for want of disk space."""

    instance: InstanceId


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetMachine:
    """Logs, sockets and seed of an instance are gone afterwards. Refused while QEMU runs."""

    instance: InstanceId


MachineAction = StartMachine | StopMachine | PauseMachine | ResumeMachine | ForgetMachine

# --- disks


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateDisk:
    """A copy-on-write disk over the volume `over`, or else over the template's, grown to `size_gib`."""

    volume: VolumeId
    template: TemplateId
    size_gib: int
    uid_slot: int
    over: VolumeId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteDisk:
    """Refused while QEMU has it open, or while another disk stands over it."""

    volume: VolumeId


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeSnapshot:
    """What the guest writes goes to the tops of these chains afterwards, and nobody can write to what is below them.

    `volumes` are the frozen ones that the snapshot keeps, of which its `Taken` tells: mostly those right below the
    tops, but not where its taking is completed late. The tops stand already, empty. A machine that runs is switched
    over at one moment for all its disks, with its file systems frozen where the guest can do that; one that is off has
    nothing to switch. Given again, it finds the machine as it should be.
    """

    instance: InstanceId
    snapshot: SnapshotId
    volumes: tuple[VolumeId, ...]
    chains: tuple[Chain, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSeed:
    """The NoCloud disk of an instance. User-data is fetched by its reference over the host's own line, never
    carried here.

    `cards` hold, each, MAC, addresses with prefix, gateway and name servers.
    """

    instance: InstanceId
    hostname: str
    domain: str
    ssh_keys: tuple[str, ...]
    user_data: SecretRef | None
    cards: tuple[SeedCard, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedCard:
    mac: str
    addresses: tuple[str, ...]  # with prefix length: 10.1.2.3/20
    gateway: str | None
    dns: tuple[str, ...]
    mtu: int


DiskAction = CreateDisk | DeleteDisk | WriteSeed | TakeSnapshot

# --- networks


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvergeNetwork:
    """The host's part of this network is exactly what the cluster says.

    The whole wanted state joins when the order is given.
    """

    network: NetworkId


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyNetwork:
    """ConvergeNetwork as a host receives it. Without ports and with `absent`, nothing of the network remains."""

    wanted: NetworkWanted
    absent: bool = False


NetworkAction = ConvergeNetwork | ApplyNetwork

# --- templates (long: accepted at once, progress in reports, asked again by operation and step)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildTemplate:
    template: TemplateId
    recipe: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportTemplate:
    """From an uploaded or local file whose format is stated, never guessed: `qcow2` or `raw`."""

    template: TemplateId
    path: str
    format: str
    firmware: Firmware


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishTemplate:
    """From the root disk of a stopped instance: flattened, so that it depends on nothing.

    `below` are the frozen volumes under its volume, from the top down.
    """

    template: TemplateId
    instance: InstanceId
    volume: VolumeId
    parent: TemplateId
    below: tuple[VolumeId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteTemplate:
    template: TemplateId


TemplateAction = BuildTemplate | ImportTemplate | PublishTemplate | DeleteTemplate

# --- memory images (making one is long)


@dataclass(frozen=True, slots=True, kw_only=True)
class BakeMemory:
    """Boots a machine of this hardware, reachable by nobody, and keeps its memory once it has settled.

    Its volumes are emptied before, and frozen afterwards. No card of it is connected to anything.
    """

    memory: MemoryImageId
    template: TemplateId
    hardware: Hardware
    disk_gib: int
    kernel_args: str | None
    cloud_init: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteMemory:
    """Clones that run keep what they have of it."""

    memory: MemoryImageId


MemoryAction = BakeMemory | DeleteMemory
LongAction = BuildTemplate | ImportTemplate | PublishTemplate | BakeMemory

Action = (
    StartMachine
    | StopMachine
    | PauseMachine
    | ResumeMachine
    | ForgetMachine
    | CreateDisk
    | DeleteDisk
    | WriteSeed
    | TakeSnapshot
    | ConvergeNetwork
    | ApplyNetwork
    | BuildTemplate
    | ImportTemplate
    | PublishTemplate
    | DeleteTemplate
    | BakeMemory
    | DeleteMemory
)
