"""The tiny template booted once and kept as a memory image, and clones of it: as an agent would, without one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from innkeeper.drivers.linuxnet.kernel import taps
from innkeeper.drivers.memory.hand import Memories, Opened, Staging
from innkeeper.drivers.qemu.hand import stop
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.memory.loading import link
from innkeeper.drivers.qemu.memory.saving import save
from innkeeper.drivers.qemu.render import CardFacts, MemoryFacts
from innkeeper.drivers.qemu.start import Confinement, DiskFiles, KernelFiles, LayerFile, StartSpec, start
from innkeeper.model.hardware import AGENT_CHANNEL, Channels, Disk, Hardware, NetworkCard, RandomSource, RootPort
from innkeeper.model.ids import InstanceId, MemoryImageId, NetworkId, NicId, VolumeId
from innkeeper.ports.launcher import Users
from tests.vm.built import built_image
from tests.vm.machines import HARDWARE, Bench, write_qcow2

MEMORY = MemoryImageId("mem-3f09c2d41b7a")
MEMORY_MIB = 128
BAKER = Users(0).baker
BOOT_TIMEOUT_S, TIMEOUT_S = 90.0, 20.0
# A guest's kernel and agent have said all that they have to say some time after the agent first answered.
SETTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """Number 0 is the one that is baked; the others are clones."""

    number: int

    @property
    def volume(self) -> VolumeId:
        return VolumeId(f"vol-{self.number:012x}")

    @property
    def nic(self) -> NicId:
        return NicId(f"nic-{self.number:012x}")

    @property
    def instance(self) -> InstanceId:
        return InstanceId(f"i-{self.number:012x}")

    @property
    def uid(self) -> int:
        return Users(0).of_slot(self.number) if self.number else BAKER

    def hardware(self) -> Hardware:
        mac = f"52:54:00:00:00:{self.number:02x}"
        card = NetworkCard(slot=5, nic=self.nic, network=NetworkId("net-000000000001"), mac=mac)
        devices = (Disk(slot=2, volume=self.volume), Channels(slot=3), RandomSource(slot=4), card)
        return replace(HARDWARE, memory_mib=MEMORY_MIB, devices=(*devices, RootPort(slot=16, chassis=1)))


class Bakery:
    def __init__(self, world: Bench) -> None:
        self.world = world
        self.memories = Memories(world.place)
        self.built = built_image("tiny")

    def file(self, number: int) -> Path:
        """A disk over the template's; a clone's stands over the one that was baked."""
        return self.world.place / f"{Place(number).volume}.qcow2"

    def spec(self, number: int, tap: int, memory: MemoryFacts) -> StartSpec:
        place, built = Place(number), self.built
        size_bytes = int.from_bytes((built / "disk.qcow2").read_bytes()[24:32], "big")
        template = LayerFile(name="template", file=built / "disk.qcow2")
        below = (LayerFile(name=Place(0).volume, file=self.file(0)), template) if number else (template,)
        if not self.file(number).exists():
            os.chown(write_qcow2(self.file(number), size_bytes), place.uid, place.uid)
        kernel = KernelFiles(
            kernel=built / "vmlinuz",
            initrd=built / "initrd.img",
            arguments=(built / "kernel_args").read_text().strip(),
        )
        return StartSpec(
            instance=place.instance,
            name=f"guest{number}",
            hardware=place.hardware(),
            binary=self.world.binary,
            accelerator=self.world.spec().accelerator,
            confinement=Confinement(uid=place.uid, gid=place.uid),
            disks={place.volume: DiskFiles(top=self.file(number), below=below)},
            taps={place.nic: CardFacts(tap=tap)},
            boot=kernel,
            memory=memory,
            incoming=not memory.shared,
        )

    async def start(self, number: int, ram_fd: int, *, clone: bool) -> Machine:
        folder = self.world.place / Place(number).instance
        folder.mkdir(mode=0o700, exist_ok=True)
        tap = taps.loose()
        try:
            spec = self.spec(number, tap, MemoryFacts(fd=ram_fd, shared=not clone))
            return self.world.holding(await start(spec, folder, self.world.launcher))
        finally:
            os.close(tap)

    async def boot(self, staging: Staging) -> Machine:
        """The guest to be baked; it has answered, and has settled."""
        machine = await self.start(0, staging.ram_fd, clone=False)
        await link(machine, Place(0).nic, up=False)
        await until_it_answers(machine)
        await machine.agent.ping(TIMEOUT_S)
        await asyncio.sleep(SETTLE_S)
        return machine

    async def bake(self) -> Opened:
        async with self.memories.stage(MEMORY, MEMORY_MIB, BAKER) as staging:
            machine = await self.boot(staging)
            await save(machine, staging.state_fd, TIMEOUT_S)
            await stop(machine, 0)
            await self.memories.adopt(staging, json.dumps({"volume": Place(0).volume}))
        return await self.memories.open(MEMORY)

    async def clone(self, number: int) -> Machine:
        """It waits for its state."""
        return await self.start(number, (await self.memories.open(MEMORY)).ram_fd, clone=True)


@asynccontextmanager
async def bakery(world: Bench) -> AsyncIterator[Bakery]:
    made = Bakery(world)
    await made.memories.prepare()
    try:
        yield made
    finally:
        made.memories.close()


async def until_it_answers(machine: Machine) -> None:
    async with asyncio.timeout(BOOT_TIMEOUT_S):
        async for seen in machine.changes():
            if AGENT_CHANNEL in seen.open_channels:
                return
    raise AssertionError(f"it ended: {machine.seen.end}")


def pss_kib(pid: int) -> int:
    """What this process costs the host, its share of what others have too."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
