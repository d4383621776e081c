"""A hardware record as QEMU's arguments. Pure: what the host supplies comes as `RunFacts`.

Three rules that a reader cannot see in the text:

- Every number that a guest can see (slots, ports, chassis) stands in the record, or is a constant here that is never
  changed for a machine type that exists: a guest that sleeps must wake in the machine it knows.
- QEMU opens nothing by a name that an image could hold. Disks come as descriptors in numbered sets, each layer of a
  chain is named here with its format, and a layer without a backing says so.
- Nothing exists that is not on the line: no default devices, no user configuration, no option ROMs, no USB, no display.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, assert_never

from innkeeper.drivers.qemu.blocks.nodes import DiskFacts, Layer, disk_node, raw_node
from innkeeper.model.hardware import (
    Channels,
    Device,
    Disk,
    Firmware,
    Hardware,
    NetworkCard,
    RandomSource,
    RootPort,
    SeedDisk,
)
from innkeeper.model.ids import NicId, VolumeId

SEED_NODE = "seed"
# 1 GiB is QEMU's own limit, per machine; ten idle guests would hold 3 GiB more than with this one.
TCG_CACHE_MIB = 64
# Parts of the board that no guest of ours needs and that were holes before, or are slow to search at boot.
ABSENT = "usb=off,vmport=off,sata=off,smbus=off"


class Accelerator(StrEnum):
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """A tap opened for this machine."""

    tap: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFacts:
    """An open file that is the guest's memory. Not `shared`: what the guest writes stays in its own copies of pages."""

    fd: int
    shared: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectBoot:
    """Paths as QEMU will see them: it opens these two by name, and cannot take descriptors for them."""

    kernel: str
    initrd: str | None
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UefiBoot:
    code: int
    variables: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What this host supplies for one run. All `int` are descriptor numbers in QEMU; sockets are listening ones.

    Without `memory` the guest's is QEMU's own. `incoming`: the guest ran before; QEMU waits for its state, and then for
    the word to go on.
    """

    binary: str
    accelerator: Accelerator
    name: str
    uuid: str
    qmp: int
    console: int
    channels: Mapping[str, int]
    disks: Mapping[VolumeId, DiskFacts]
    cards: Mapping[NicId, CardFacts]
    seed: Layer | None = None
    boot: DirectBoot | UefiBoot | None = None
    memory: MemoryFacts | None = None
    incoming: bool = False
    settings: tuple[str, ...] = field(default=("-msg", "timestamp=on"))


def render_argv(hardware: Hardware, facts: RunFacts) -> tuple[str, ...]:
    """The whole command line, program included."""
    parts = [
        [facts.binary, "-no-user-config", "-nodefaults", *facts.settings],
        ["-name", f"guest={_quoted(facts.name)},debug-threads=on", "-uuid", facts.uuid],
        ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
        _board(hardware, facts),
        # A panic is reported and nothing else: whether the guest then dumps, reboots or stands still is its own affair.
        ["-action", "reboot=reset,shutdown=poweroff,panic=none"],
        ["-display", "none", "-rtc", "base=utc", "-boot", "menu=off,strict=on"],
        _monitor(facts),
        _console(facts),
        ["-device", "pvpanic,id=panic"],
        _firmware(hardware, facts),
        *(_device(device, facts, first=device in hardware.disks()[:1]) for device in hardware.devices),
        ["-S", "-incoming", "defer"] if facts.incoming else [],
    ]
    return tuple(word for part in parts for word in part)


def _board(hardware: Hardware, facts: RunFacts) -> list[str]:
    board = f"{hardware.machine},memory-backend=memory,dump-guest-core=off,mem-merge=off,{ABSENT}"
    if isinstance(facts.boot, UefiBoot):
        board += ",pflash0=firmware-code,pflash1=firmware-variables"
    else:
        board += ",smm=off"  # without UEFI nobody needs the mode that hides from the guest
    if facts.accelerator is Accelerator.TCG:
        accelerator = f"tcg,thread=multi,tb-size={TCG_CACHE_MIB}"
    else:
        accelerator = "kvm"
    return [
        *("-machine", board),
        *("-accel", accelerator),
        *("-cpu", hardware.cpu_model),
        *("-smp", f"{hardware.vcpus},sockets=1,cores={hardware.vcpus},threads=1"),
        *("-m", f"{hardware.memory_mib}M"),
        *("-object", _memory(hardware, facts.memory)),
        # A guest that sleeps looks like one that hangs, and nothing here wakes it.
        *("-global", "ICH9-LPC.disable_s3=1", "-global", "ICH9-LPC.disable_s4=1"),
    ]


def _memory(hardware: Hardware, memory: MemoryFacts | None) -> str:
    """Nothing here gives memory back to the host (no balloon, no reports of free pages): QEMU would punch the holes
    into the file itself, also where only copies of its pages are the guest's, and so into the memory of all others."""
    # The name is part of a saved state: it must be the same where that is loaded.
    name = f"id=memory,size={hardware.memory_mib}M"
    if memory is None:
        return f"memory-backend-ram,{name}"
    share = "on" if memory.shared else "off"
    return f"memory-backend-file,{name},mem-path=/proc/self/fd/{memory.fd},share={share}"


def _listening(id_: str, fd: int) -> list[str]:
    """A socket that somebody may connect to, again and again; while nobody does, what the guest writes is dropped."""
    return ["-chardev", f"socket,id={id_},fd={fd},server=on,wait=off"]


def _monitor(facts: RunFacts) -> list[str]:
    return [*_listening("qmp", facts.qmp), "-mon", "chardev=qmp,mode=control"]


def _console(facts: RunFacts) -> list[str]:
    return [*_listening("console", facts.console), "-device", "isa-serial,id=serial0,index=0,chardev=console"]


def _firmware(hardware: Hardware, facts: RunFacts) -> list[str]:
    match hardware.firmware, facts.boot:
        case Firmware.BIOS, None:
            return []
        case Firmware.DIRECT, DirectBoot() as boot:
            initrd = ["-initrd", boot.initrd] if boot.initrd is not None else []
            return ["-kernel", boot.kernel, *initrd, "-append", boot.arguments]
        case Firmware.UEFI, UefiBoot() as boot:
            code = {"node-name": "firmware-code", **raw_node(boot.code, read_only=True)}
            variables = {"node-name": "firmware-variables", **raw_node(boot.variables, read_only=False)}
            return [*_fd_set(boot.code), *_fd_set(boot.variables), *_blockdev(code), *_blockdev(variables)]
        case _:
            raise ValueError(f"{facts.name}: firmware {hardware.firmware} cannot be started with {facts.boot}")


def _device(device: Device, facts: RunFacts, *, first: bool) -> list[str]:
    match device:
        case Disk():
            return _disk(device, facts.disks[device.volume], first=first)
        case SeedDisk():
            return _seed(device, facts)
        case NetworkCard():
            return _card(device, facts.cards[device.nic])
        case Channels():
            return _channels(device, facts)
        case RandomSource():
            random = f"virtio-rng-pci,id=random,rng=entropy,{_place(device.slot)}"
            return ["-object", "rng-builtin,id=entropy", "-device", random]
        case RootPort():
            port = f"pcie-root-port,id=port{device.chassis},bus=pcie.0,addr={device.slot:#x},chassis={device.chassis}"
            return ["-device", port]
        case _:
            assert_never(device)


def _place(slot: int) -> str:
    # The legacy interface of virtio is one more thing to attack, and every guest since 2014 speaks the modern one.
    return f"bus=pcie.0,addr={slot:#x},disable-legacy=on"


def _disk(disk: Disk, facts: DiskFacts, *, first: bool) -> list[str]:
    device = f"virtio-blk-pci,id={disk_device(disk)},drive={disk.volume},serial={disk.label},{_place(disk.slot)}"
    # A full pool pauses the guest, which can go on once there is room; other errors are the guest's to hear of.
    device += ",werror=enospc,rerror=report" + (",bootindex=1" if first else "")
    sets = [word for layer in (facts.top, *facts.below) for word in _fd_set(layer.fd)]
    return [*sets, *_blockdev(disk_node(disk.volume, facts)), "-device", device]


def disk_device(disk: Disk) -> str:
    """How QEMU calls the disk that the guest sees, whichever volume it is."""
    return f"disk-{disk.label}"


def _seed(seed: SeedDisk, facts: RunFacts) -> list[str]:
    if facts.seed is None:
        raise ValueError(f"{facts.name}: the hardware has a seed disk, and the host supplied none")
    node = {"node-name": SEED_NODE, **raw_node(facts.seed.fd, read_only=True)}
    device = f"virtio-blk-pci,id=disk-seed,drive={SEED_NODE},{_place(seed.slot)}"
    return [*_fd_set(facts.seed.fd), *_blockdev(node), "-device", device]


def _card(card: NetworkCard, facts: CardFacts) -> list[str]:
    device = f"virtio-net-pci,id={card_device(card.nic)},netdev={card.nic},mac={card.mac},romfile=,{_place(card.slot)}"
    return ["-netdev", f"tap,id={card.nic},fd={facts.tap},vhost=off", "-device", device]


def card_device(nic: NicId) -> str:
    """How QEMU calls the network card that the guest sees."""
    return f"card-{nic}"


def _channels(channels: Channels, facts: RunFacts) -> list[str]:
    words = ["-device", f"virtio-serial-pci,id=channels,{_place(channels.slot)}"]
    for number, name in enumerate(channels.names, start=1):
        label = channel_label(name)
        port = f"virtserialport,id={channel_port(name)},bus=channels.0,nr={number},chardev={label},name={name}"
        words += [*_listening(label, facts.channels[name]), "-device", port]
    return words


def channel_label(name: str) -> str:
    """How QEMU calls the host's end of a named channel."""
    return f"channel-{name}"


def channel_port(name: str) -> str:
    """How QEMU calls the guest's end of a named channel, also in its events."""
    return f"port-{name}"


# --- words for block devices


def _blockdev(node: Mapping[str, Any]) -> list[str]:
    return ["-blockdev", json.dumps(node, separators=(",", ":"))]


def _fd_set(fd: int) -> list[str]:
    return ["-add-fd", f"fd={fd},set={fd}"]


def _quoted(value: str) -> str:
    return value.replace(",", ",,")
