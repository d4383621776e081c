"""From an order to start a machine to all that its QEMU is given on this host."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from innkeeper.agent.orders.naming import new_identity
from innkeeper.agent.watching.going_on import Memory
from innkeeper.agent.watching.machines import Machines
from innkeeper.drivers.linuxnet.hand import LinuxNet
from innkeeper.drivers.memory.faults import MemoryFault
from innkeeper.drivers.memory.hand import Memories
from innkeeper.drivers.qcow2.hand import Volumes
from innkeeper.drivers.qcow2.places import Places
from innkeeper.drivers.qcow2.templates import TemplateFiles, Templates
from innkeeper.drivers.qemu.render import Accelerator, CardFacts
from innkeeper.drivers.qemu.start import Confinement, DiskFiles, KernelFiles, LayerFile, StartSpec, UefiFiles
from innkeeper.model.actions import BakeMemory, Chain, StartMachine
from innkeeper.model.hardware import Disk, Firmware
from innkeeper.model.ids import NicId
from innkeeper.ports.launcher import Users


@dataclass(frozen=True, slots=True, kw_only=True)
class HostWays:
    """What is the same for every machine of this host. `groups` lets QEMU open /dev/kvm where that is used."""

    binary: str
    accelerator: Accelerator
    groups: tuple[int, ...]
    users: Users
    uefi: UefiFiles
    seeds: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Disks:
    """The pool, as far as a start needs it."""

    places: Places
    volumes: Volumes
    templates: Templates


class Starting:
    def __init__(self, ways: HostWays, pool: Disks, net: LinuxNet, machines: Machines, memories: Memories) -> None:
        self._ways = ways
        self._pool = pool
        self._net = net
        self._machines = machines
        self._memories = memories

    async def start(self, action: StartMachine, generation: int) -> None:
        if await self._machines.already_up(action.instance, generation):
            return  # it holds its taps itself
        async with self._taps(action) as taps:
            spec = await self._spec(action, taps)
            await self._machines.start(spec, generation, await self._memory(action))

    async def _memory(self, action: StartMachine) -> Memory | str:
        """What it goes on from, or why it boots."""
        warm = action.warm
        if warm is None:
            return ""
        try:
            opened = await self._memories.open(warm.memory, self._machines.pids())
        except MemoryFault as fault:
            return str(fault)
        return Memory(ram_fd=opened.ram_fd, state_fd=opened.state_fd, identity=new_identity(action.instance, warm))

    @contextlib.asynccontextmanager
    async def _taps(self, action: StartMachine) -> AsyncIterator[dict[NicId, CardFacts]]:
        taps: dict[NicId, CardFacts] = {}
        try:
            for card in action.hardware.cards():
                taps[card.nic] = CardFacts(tap=await self._net.open_tap(card.network, card.nic))
            yield taps
        finally:
            for tap in taps.values():
                os.close(tap.tap)

    async def _spec(self, action: StartMachine, taps: dict[NicId, CardFacts]) -> StartSpec:
        ways, uid = self._ways, self._ways.users.of_slot(action.uid_slot)
        template = await self._pool.templates.files(action.template)
        return StartSpec(
            instance=action.instance,
            name=action.name,
            hardware=action.hardware,
            binary=ways.binary,
            accelerator=ways.accelerator,
            confinement=Confinement(uid=uid, gid=uid, groups=ways.groups),
            disks={d.volume: await self._files(action, d, template.disk) for d in action.hardware.disks()},
            taps=taps,
            seed=ways.seeds / f"{action.instance}.iso" if action.hardware.has_seed() else None,
            boot=boot_files(action, template, ways.uefi),
        )

    async def _files(self, action: StartMachine, disk: Disk, bottom: Path) -> DiskFiles:
        """The disk's files, once their headers were seen to be ours.

        A QEMU that was taken over may have written others there.
        """
        chain = next((c for c in action.chains if c.volume == disk.volume), Chain(volume=disk.volume))
        await self._pool.volumes.check_chain(chain, action.template)
        places = self._pool.places
        below = [LayerFile(name=volume, file=places.volume(volume)) for volume in chain.below]
        # Two disks may stand over one template, each with a node of its own for it.
        below.append(LayerFile(name=f"{action.template}.{disk.slot}", file=bottom))
        return DiskFiles(top=places.volume(disk.volume), below=tuple(below))


def boot_files(
    action: StartMachine | BakeMemory, template: TemplateFiles, uefi: UefiFiles
) -> KernelFiles | UefiFiles | None:
    """From where the machine's first instruction comes; None where its disk has it."""
    if action.hardware.firmware is Firmware.DIRECT and template.kernel is not None:
        return KernelFiles(kernel=template.kernel, initrd=template.initrd, arguments=action.kernel_args or "")
    return uefi if action.hardware.firmware is Firmware.UEFI else None
