"""Which command line a hardware record becomes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

import pytest

from innkeeper.drivers.qemu.blocks.nodes import DiskFacts, Layer
from innkeeper.drivers.qemu.render import (
    Accelerator,
    CardFacts,
    DirectBoot,
    MemoryFacts,
    RunFacts,
    UefiBoot,
    render_argv,
)
from innkeeper.model.hardware import (
    AGENT_CHANNEL,
    GUEST_CHANNEL,
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
from innkeeper.model.ids import NetworkId, NicId, VolumeId
from tests.golden.compare import same_as_golden

ROOT = VolumeId("vol-3f09c2d41b7a")
DATA = VolumeId("vol-0123456789ab")
BELOW = "t-3f09c2d41b7a.2"
NIC = NicId("nic-3f09c2d41b7a")

SMALL = Hardware(
    machine="pc-q35-7.2",
    cpu_model="max",
    firmware=Firmware.DIRECT,
    vcpus=1,
    memory_mib=256,
    devices=(
        Disk(slot=2, volume=ROOT),
        SeedDisk(slot=3),
        NetworkCard(slot=4, nic=NIC, network=NetworkId("net-3f09c2d41b7a"), mac="52:54:00:12:34:56"),
        Channels(slot=5),
        RandomSource(slot=6),
        RootPort(slot=16, chassis=1),
        RootPort(slot=17, chassis=2),
    ),
)
FACTS = RunFacts(
    binary="/usr/bin/qemu-system-x86_64",
    accelerator=Accelerator.TCG,
    name="web",
    uuid="59708cd3-9965-5ea2-a045-5b939f9661a7",
    qmp=3,
    console=4,
    channels={AGENT_CHANNEL: 5, GUEST_CHANNEL: 6},
    disks={
        ROOT: DiskFacts(top=Layer(fd=7, format="qcow2"), below=(Layer(fd=8, format="qcow2", name=BELOW),), direct=True)
    },
    cards={NIC: CardFacts(tap=9)},
    seed=Layer(fd=10, format="raw"),
    boot=DirectBoot(kernel="/proc/self/fd/11", initrd="/proc/self/fd/12", arguments="root=/dev/vda1 console=ttyS0"),
)


def words(hardware: Hardware, facts: RunFacts) -> str:
    """One option a line."""
    lines: list[str] = []
    for word in render_argv(hardware, facts):
        if word.startswith("-") or not lines or " " in lines[-1]:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines) + "\n"


def test_direct_kernel_under_emulation() -> None:
    same_as_golden("qemu/direct-tcg.txt", words(SMALL, FACTS))


def test_bios_under_kvm_with_two_disks() -> None:
    hardware = replace(
        SMALL,
        firmware=Firmware.BIOS,
        vcpus=4,
        memory_mib=8192,
        devices=(*SMALL.devices, Disk(slot=7, volume=DATA)),
    )
    disks = {ROOT: FACTS.disks[ROOT], DATA: DiskFacts(top=Layer(fd=20, format="qcow2"))}
    facts = replace(FACTS, accelerator=Accelerator.KVM, boot=None, disks=disks)
    same_as_golden("qemu/bios-kvm.txt", words(hardware, facts))


def test_uefi_over_a_raw_template() -> None:
    disks = {ROOT: DiskFacts(top=Layer(fd=7, format="qcow2"), below=(Layer(fd=8, format="raw", name=BELOW),))}
    facts = replace(FACTS, boot=UefiBoot(code=11, variables=12), disks=disks)
    same_as_golden("qemu/uefi-raw-below.txt", words(replace(SMALL, firmware=Firmware.UEFI), facts))


def test_one_that_is_saved_has_its_memory_in_a_file() -> None:
    facts = replace(FACTS, memory=MemoryFacts(fd=13, shared=True))
    same_as_golden("qemu/memory-shared.txt", words(SMALL, facts))


def test_one_that_is_loaded_differs_in_whose_memory_it_is_and_waits() -> None:
    saved = words(SMALL, replace(FACTS, memory=MemoryFacts(fd=13, shared=True)))
    loaded = words(SMALL, replace(FACTS, memory=MemoryFacts(fd=13, shared=False), incoming=True))
    same_as_golden("qemu/memory-loaded.txt", loaded)
    assert loaded == saved.replace("share=on", "share=off") + "-S\n-incoming defer\n"


def test_nothing_gives_memory_back_to_the_host() -> None:
    """It would punch holes into the memory that all clones of a template share, and end them."""
    # A new kind of device is to be looked at here first; and what no line names, no command adds.
    assert set(get_args(Device)) == {type(device) for device in (*SMALL.devices, Disk(slot=2, volume=ROOT))}
    for shared in (True, False):
        argv = render_argv(SMALL, replace(FACTS, memory=MemoryFacts(fd=13, shared=shared)))
        assert "-nodefaults" in argv
        assert [w for w in argv if re.search("balloon|page-report|page-hint|discard-data=on|virtio-mem", w)] == []


def test_slots_do_not_move_when_a_device_in_between_is_missing() -> None:
    without_seed = replace(SMALL, devices=tuple(d for d in SMALL.devices if not isinstance(d, SeedDisk)))
    kept = set(words(SMALL, FACTS).splitlines())
    assert set(words(without_seed, replace(FACTS, seed=None)).splitlines()) < kept


def test_a_restored_disk_keeps_its_place_and_serial_over_a_chain() -> None:
    hardware = replace(SMALL, devices=(Disk(slot=2, volume=VolumeId("vol-00000000000c"), serial=ROOT),))
    below = (
        Layer(fd=8, format="qcow2", name="vol-00000000000b"),
        Layer(fd=13, format="qcow2", name=ROOT),
        Layer(fd=14, format="qcow2", name=BELOW),
    )
    chain = DiskFacts(top=Layer(fd=7, format="qcow2"), below=below)
    facts = replace(FACTS, disks={VolumeId("vol-00000000000c"): chain})
    same_as_golden("qemu/chain.txt", words(hardware, facts))


def test_only_the_first_disk_is_booted_from() -> None:
    hardware = replace(SMALL, devices=(Disk(slot=2, volume=ROOT), Disk(slot=3, volume=DATA)))
    disks = {ROOT: FACTS.disks[ROOT], DATA: DiskFacts(top=Layer(fd=20, format="qcow2"))}
    devices = [line for line in words(hardware, replace(FACTS, disks=disks)).splitlines() if "virtio-blk" in line]
    assert ["bootindex" in line for line in devices] == [True, False]


def test_a_name_cannot_add_options() -> None:
    argv = render_argv(SMALL, replace(FACTS, name="web,process=evil"))
    assert "guest=web,,process=evil,debug-threads=on" in argv


@pytest.mark.parametrize(
    "firmware,boot",
    [(Firmware.DIRECT, None), (Firmware.BIOS, UefiBoot(code=1, variables=2)), (Firmware.UEFI, FACTS.boot)],
)
def test_firmware_without_its_files_is_refused(firmware: Firmware, boot: UefiBoot | DirectBoot | None) -> None:
    with pytest.raises(ValueError, match="cannot be started with"):
        render_argv(replace(SMALL, firmware=firmware), replace(FACTS, boot=boot))


@pytest.mark.parametrize("layers", [("vmdk",), ("raw", "qcow2")])
def test_a_format_is_never_guessed(layers: tuple[str, ...]) -> None:
    top, *below = (Layer(fd=number, format=name) for number, name in enumerate(layers, start=7))
    facts = replace(FACTS, disks={ROOT: DiskFacts(top=top, below=tuple(below))})
    with pytest.raises(ValueError, match="cannot be used"):
        render_argv(SMALL, facts)


def test_a_seed_disk_without_its_file_is_refused() -> None:
    with pytest.raises(ValueError, match="seed"):
        render_argv(SMALL, replace(FACTS, seed=None))
