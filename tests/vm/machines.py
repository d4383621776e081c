"""Everything that a machine needs to be started, in a directory of the test's own."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from innkeeper.agent.kept.outbox import Outbox
from innkeeper.agent.watching.machines import Machines
from innkeeper.agent.watching.roster import Roster
from innkeeper.drivers.confine.hand import Launcher
from innkeeper.drivers.qemu.hand import kill_stray, strays
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.render import Accelerator
from innkeeper.drivers.qemu.start import Confinement, DiskFiles, KernelFiles, LayerFile, StartSpec, start
from innkeeper.model.hardware import Channels, Disk, Firmware, Hardware, RandomSource, RootPort
from innkeeper.model.ids import HostId, InstanceId, VolumeId
from innkeeper.ports.launcher import Users
from tests.vm.guests import SLEEP, write_image

QEMU = Path("/usr/bin/qemu-system-x86_64")
VOLUME = VolumeId("vol-3f09c2d41b7a")
INSTANCE = InstanceId("i-3f09c2d41b7a")
UID = Users(0).of_slot(6)
CLUSTER = 65536

HARDWARE = Hardware(
    machine="pc-q35-7.2",
    cpu_model="max",
    firmware=Firmware.DIRECT,
    vcpus=1,
    memory_mib=64,
    devices=(
        Disk(slot=2, volume=VOLUME),
        Channels(slot=3),
        RandomSource(slot=4),
        RootPort(slot=16, chassis=1),
    ),
)


def write_qcow2(path: Path, size_bytes: int) -> Path:
    """An empty image: header, one table that refers to nothing, and counts of the four clusters that it has."""
    entries = max(1, -(-size_bytes // (CLUSTER * (CLUSTER // 8))))
    head = struct.pack(
        ">IIQIIQIIQQIIQQQQII",
        *(0x514649FB, 3, 0, 0, 16, size_bytes, 0, entries, 3 * CLUSTER, CLUSTER, 1, 0, 0),
        *(0, 0, 0, 4, 104),
    )
    counts = struct.pack(">4H", 1, 1, 1, 1)
    with path.open("wb") as file:
        file.write(head)
        file.seek(CLUSTER)
        file.write(struct.pack(">Q", 2 * CLUSTER))
        file.seek(2 * CLUSTER)
        file.write(counts)
        file.truncate(4 * CLUSTER)
    path.chmod(0o600)
    return path


@dataclass
class Bench:
    """One launcher, and machines that are killed when the test ends, however it ends."""

    place: Path
    launcher: Launcher
    binary: str = str(QEMU)
    uid: int = UID
    machines: list[Machine] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        path = self.place / INSTANCE
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def spec(self, code: bytes = SLEEP, arguments: str = "") -> StartSpec:
        top, below = self.place / "top.qcow2", self.place / "below.qcow2"
        for path in (top, below):
            if not path.exists():
                write_qcow2(path, 64 * 1024 * 1024)
        image = self.place / "kernel"
        image.unlink(missing_ok=True)
        return StartSpec(
            instance=INSTANCE,
            name="web",
            hardware=HARDWARE,
            binary=self.binary,
            accelerator=Accelerator.TCG,
            confinement=Confinement(uid=self.uid, gid=self.uid),
            disks={VOLUME: DiskFiles(top=top, below=(LayerFile(name="below", file=below),))},
            boot=KernelFiles(kernel=write_image(image, code), initrd=None, arguments=arguments),
        )

    async def start(self, code: bytes = SLEEP, arguments: str = "") -> Machine:
        return self.holding(await start(self.spec(code, arguments), self.directory, self.launcher))

    def holding(self, machine: Machine) -> Machine:
        self.machines.append(machine)
        return machine


@asynccontextmanager
async def bench(place: Path, binary: Path = QEMU, uid: int = UID) -> AsyncIterator[Bench]:
    launcher = Launcher(place / "launcher.log")
    await launcher.start()
    made = Bench(place, launcher, str(binary), uid)
    try:
        yield made
    finally:
        for stray in (*strays(place, ()), *strays(place / "machines", ())):
            kill_stray(stray)
        for machine in made.machines:
            machine.pull_plug()  # where its folder's name is no id, it is no stray
            await machine.close()
        launcher.close()


class _Over(Exception):
    """Ends the agent's tasks."""


@asynccontextmanager
async def agent(world: Bench) -> AsyncIterator[tuple[Machines, Roster]]:
    """As much of an agent as finds machines. It ends as by kill -9: they run on."""
    try:
        async with asyncio.TaskGroup() as group:
            roster = Roster(HostId("h-0123456789ab"), Outbox(world.place / "seq"), group)
            yield Machines(roster, world.place / "machines", world.launcher, group, lambda _: 7), roster
            await roster.close()
            raise _Over
    except* _Over:
        pass  # all tasks have ended


def unable() -> str | None:
    """Why machines cannot be started by these tests; None if they can."""
    return "needs root: machines are started each as a user of its own" if os.geteuid() != 0 else None
