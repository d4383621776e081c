"""Baking: a template is booted once, where nobody can reach it, and its memory is kept once it has settled.

    disk made anew ──▶ booted on shared memory ──▶ settled ──▶ told to forget who it is ──▶ state saved, QEMU ended
        ──▶ disk frozen ──▶ memory sealed and written down: from then on there is an image

One at a time: it takes a processor for as long as a boot does, and all run as one user.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from innkeeper.agent.faults import CannotObey
from innkeeper.agent.orders.starting import Disks, HostWays, boot_files
from innkeeper.drivers.guestlink.hand import GuestLink
from innkeeper.drivers.guestlink.identity import IdentityFailed, require_identity
from innkeeper.drivers.guestlink.line import LinkDown
from innkeeper.drivers.linuxnet.hand import LinuxNet
from innkeeper.drivers.memory.hand import Memories, Staging
from innkeeper.drivers.metadata.hand import Seeds
from innkeeper.drivers.qcow2.layers.frozen import Frozen
from innkeeper.drivers.qemu.hand import kill, kill_stray, strays
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.memory.loading import link
from innkeeper.drivers.qemu.memory.saving import save
from innkeeper.drivers.qemu.process import cpu_s
from innkeeper.drivers.qemu.render import CardFacts, MemoryFacts
from innkeeper.drivers.qemu.start import Confinement, DiskFiles, LayerFile, StartSpec, start
from innkeeper.model.actions import BakeMemory, WriteSeed
from innkeeper.model.ids import InstanceId, MemoryImageId, NicId
from innkeeper.model.template import Baked
from innkeeper.ports.launcher import LauncherPort
from innkeeper.ports.streams import CloudInit
from innkeeper.ports.tasks import to_the_end

Tell = Callable[[float, str], None]

BOOT_S = 300.0
SAVE_S = 60.0
# It has settled when it used this little of a processor for so many looks in a row.
_QUIET_SHARE, _LOOK_S, _QUIET_LOOKS = 0.1, 2.0, 2
_PREPARE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Oven:
    """Where and with what it is baked. What lies in `root` is nobody's once a bake has ended."""

    root: Path
    ways: HostWays
    pool: Disks
    net: LinuxNet
    launcher: LauncherPort


class Baking:
    def __init__(self, oven: Oven, memories: Memories, frozen: Frozen) -> None:
        self._oven = oven
        self._memories = memories
        self._frozen = frozen
        self._seeds = Seeds(oven.root / "seeds")
        self._one_by_one = asyncio.Lock()

    async def prepare(self) -> None:
        """At start: what an earlier life of ours was baking is ended, and nothing remains of it."""
        await to_the_end(lambda: _clear(self._oven.root))
        await self._seeds.prepare()

    async def baked(self, memory: MemoryImageId) -> Baked | None:
        found = await self._memories.image(memory)
        return None if found is None else Baked(digest=found.digest, stored_bytes=found.stored_bytes)

    async def delete(self, memory: MemoryImageId) -> None:
        await self._memories.delete(memory)

    async def list_images(self) -> tuple[MemoryImageId, ...]:
        return await self._memories.list_images()

    async def bake(self, action: BakeMemory, tell: Tell) -> None:
        """
        Raises:
            CannotObey: its guest cannot be told who it is, or did not settle.
        """
        async with self._one_by_one:
            if await self.baked(action.memory) is not None:
                return
            baker = self._oven.ways.users.baker
            volumes = [disk.volume for disk in action.hardware.disks()]
            for volume in volumes:
                # An earlier life of ours may have died over it: what it wrote belongs to no memory.
                await self._oven.pool.volumes.delete(volume)
                await self._oven.pool.volumes.create_overlay(volume, action.template, action.disk_gib, baker)
            async with self._memories.stage(action.memory, action.hardware.memory_mib, baker) as staging:
                async with self._booted(action, staging) as machine:
                    await self._settled(machine, action, tell)
                    tell(0.8, "keeping its memory")
                    await save(machine, staging.state_fd, SAVE_S)
                await self._frozen.freeze(volumes, action.memory, consistent=True)
                await self._memories.adopt(staging, "")

    # --- the machine

    @contextlib.asynccontextmanager
    async def _booted(self, action: BakeMemory, staging: Staging) -> AsyncIterator[Machine]:
        """It runs meanwhile, and QEMU is gone afterwards."""
        path = self._oven.root / action.memory
        taps: dict[NicId, CardFacts] = {}
        try:
            await to_the_end(lambda: path.mkdir(mode=0o700))
            for card in action.hardware.cards():
                taps[card.nic] = CardFacts(tap=await self._oven.net.open_loose_tap())
            machine = await start(await self._spec(action, staging, taps), path, self._oven.launcher)
            try:
                for card in action.hardware.cards():
                    await link(machine, card.nic, up=False)
                yield machine
            finally:
                await asyncio.shield(_end(machine))
        finally:
            for tap in taps.values():
                os.close(tap.tap)
            await to_the_end(lambda: shutil.rmtree(path, ignore_errors=True))

    async def _spec(self, action: BakeMemory, staging: Staging, taps: dict[NicId, CardFacts]) -> StartSpec:
        ways, pool, me = self._oven.ways, self._oven.pool, InstanceId(action.memory)
        template = await pool.templates.files(action.template)
        await self._seeds.write(
            WriteSeed(instance=me, hostname="template", domain="", ssh_keys=(), user_data=None, cards=()), None
        )
        return StartSpec(
            instance=me,
            name=f"memory image {action.memory}",
            hardware=action.hardware,
            binary=ways.binary,
            accelerator=ways.accelerator,
            confinement=Confinement(uid=ways.users.baker, gid=ways.users.baker, groups=ways.groups),
            disks={
                disk.volume: DiskFiles(
                    top=pool.places.volume(disk.volume),
                    below=(LayerFile(name=f"{action.template}.{disk.slot}", file=template.disk),),
                )
                for disk in action.hardware.disks()
            },
            taps=taps,
            seed=self._oven.root / "seeds" / f"{me}.iso" if action.hardware.has_seed() else None,
            boot=boot_files(action, template, ways.uefi),
            memory=MemoryFacts(fd=staging.ram_fd, shared=True),
        )

    # --- its guest

    async def _settled(self, machine: Machine, action: BakeMemory, tell: Tell) -> None:
        try:
            async with asyncio.timeout(BOOT_S):
                tell(0.1, "booting it")
                guest = await _greeted(machine)
                try:
                    tell(0.4, "waiting until it has settled")
                    await _quiet(machine, guest, cloud_init=action.cloud_init)
                    tell(0.7, "making it forget who it is")
                    await guest.prepare(_PREPARE_S)
                finally:
                    await guest.close()
        except TimeoutError:
            raise CannotObey(
                f"the machine that {action.memory} is made from did not settle within {BOOT_S:g} s",
                "Look what its guest is busy with: launch one with --cold, and inn top",
            ) from None
        except (LinkDown, IdentityFailed) as failed:
            raise CannotObey(f"{action.memory} cannot be made: {failed}", "Its instances boot") from failed


async def _greeted(machine: Machine) -> GuestLink:
    with machine.directory.short_path() as short:
        guest = await GuestLink.connect(f"{short}/guest.sock", BOOT_S)
    try:
        require_identity(await guest.hello(BOOT_S))
    except BaseException:
        await guest.close()
        raise
    return guest


async def _quiet(machine: Machine, guest: GuestLink, *, cloud_init: bool) -> None:
    """Return once it has nothing more to do. Both agents answer by then."""
    looks, before = 0, cpu_s(machine.record.pid)
    while looks < _QUIET_LOOKS:
        await asyncio.sleep(_LOOK_S)
        now = cpu_s(machine.record.pid)
        if now is None or before is None:
            raise LinkDown(f"QEMU has ended: {(await machine.ended()).reason}")
        idle = now - before < _QUIET_SHARE * _LOOK_S
        configures = cloud_init and idle and (await guest.status()).cloud_init is CloudInit.RUNNING
        looks, before = looks + 1 if idle and not configures else 0, now
    await machine.agent.ping(_PREPARE_S)


async def _end(machine: Machine) -> None:
    try:
        await kill(machine, "its memory was kept, or could not be")
    finally:
        await machine.close()


def _clear(root: Path) -> None:
    if root.is_dir():
        for stray in strays(root, ()):
            kill_stray(stray)
        shutil.rmtree(root)
    root.mkdir(parents=True, mode=0o711)
