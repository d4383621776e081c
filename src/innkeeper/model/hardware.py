"""What a guest sees: the hardware record, kept with each instance and rendered to QEMU's arguments from it alone.

A guest that was installed, hibernated or migrated must find the same machine again: machine type with its version, CPU
model, and each device at its place. So places are written down here, and nothing is numbered while rendering.

PCI slots of the root bus are fixed numbers (`slot`), given at plan time: 1..30. Slot 0 is the host bridge and 31 the
chipset's. What can be hot-plugged later sits behind root ports, one per plug-in slot, which are devices of the
record too.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from innkeeper.model.ids import NetworkId, NicId, VolumeId

AGENT_CHANNEL = "org.qemu.guest_agent.0"
GUEST_CHANNEL = "org.innkeeper.guest.0"


class Firmware(StrEnum):
    """How the first instruction is found."""

    DIRECT = "direct"  # the host hands kernel and initial RAM disk to the machine
    BIOS = "bios"  # SeaBIOS reads the root disk's boot sector
    UEFI = "uefi"  # OVMF reads the root disk's EFI system partition


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """`serial` is what the guest reads; it stays when a snapshot or a restore puts another volume into the place."""

    slot: int
    volume: VolumeId
    serial: str = ""

    @property
    def label(self) -> str:
        return self.serial or self.volume


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedDisk:
    """The read-only disk with label `cidata` from which cloud-init reads."""

    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCard:
    slot: int
    nic: NicId
    network: NetworkId
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """The virtio-serial controller with its named ports, one line each to the agent and to our guest program."""

    slot: int
    names: tuple[str, ...] = (AGENT_CHANNEL, GUEST_CHANNEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSource:
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RootPort:
    """An empty socket for a device that is plugged in later."""

    slot: int
    chassis: int


Device = Disk | SeedDisk | NetworkCard | Channels | RandomSource | RootPort


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """`cpu_model` is QEMU's name for it; `max` means all that this host's accelerator offers."""

    machine: str
    cpu_model: str
    firmware: Firmware
    vcpus: int
    memory_mib: int
    devices: tuple[Device, ...]

    def disks(self) -> tuple[Disk, ...]:
        return tuple(d for d in self.devices if isinstance(d, Disk))

    def cards(self) -> tuple[NetworkCard, ...]:
        return tuple(d for d in self.devices if isinstance(d, NetworkCard))

    def has_seed(self) -> bool:
        return any(isinstance(d, SeedDisk) for d in self.devices)
