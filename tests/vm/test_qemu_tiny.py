"""What needs a guest with an operating system and an agent: graceful ends, questions to the agent, a full disk."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.drivers.qemu.blocks.disks import Disks
from innkeeper.drivers.qemu.hand import adopt, stop
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.seen import Run, Seen
from innkeeper.drivers.qemu.start import DiskFiles, KernelFiles, LayerFile, StartSpec, start
from innkeeper.model.hardware import AGENT_CHANNEL
from innkeeper.model.observed import Ended, Phase
from tests.vm.built import built_image
from tests.vm.machines import HARDWARE, QEMU, VOLUME, Bench, bench, unable, write_qcow2

BOOT_TIMEOUT_S = 90

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.skipif(unable() is not None, reason=str(unable())),
    pytest.mark.skipif(not QEMU.exists(), reason=f"{QEMU} is not installed"),
]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


def tiny(world: Bench, top: Path) -> StartSpec:
    built = built_image("tiny")
    arguments = (built / "kernel_args").read_text().strip()
    size_bytes = int.from_bytes((built / "disk.qcow2").read_bytes()[24:32], "big")
    below = LayerFile(name="below", file=built / "disk.qcow2")
    return replace(
        world.spec(),
        hardware=replace(HARDWARE, memory_mib=128),
        disks={VOLUME: DiskFiles(top=write_qcow2(top, size_bytes), below=(below,))},
        boot=KernelFiles(kernel=built / "vmlinuz", initrd=built / "initrd.img", arguments=arguments),
    )


async def until(machine: Machine, phase: Phase) -> Seen:
    async with asyncio.timeout(BOOT_TIMEOUT_S):
        async for seen in machine.changes():
            if seen.phase is phase:
                return seen
    raise AssertionError(f"it ended without having been {phase}")


async def until_it_answers(machine: Machine) -> None:
    async with asyncio.timeout(BOOT_TIMEOUT_S):
        async for seen in machine.changes():
            if AGENT_CHANNEL in seen.open_channels:
                return


async def test_it_boots_answers_is_adopted_and_stops_by_agent(world: Bench) -> None:
    machine = world.holding(await start(tiny(world, world.place / "disk"), world.directory, world.launcher))
    assert machine.seen.phase is Phase.STARTING
    await until_it_answers(machine)
    await machine.agent.ping(20)
    counters = await Disks(machine.monitor).counters()
    assert counters[f"disk-{VOLUME}"].read_bytes > 0
    await machine.close()
    again = await adopt(world.directory, "web")
    assert again is not None
    world.holding(again)
    assert again.seen.phase is Phase.RUNNING
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(again.agent.ping(20))
    end = await stop(again, 60)
    assert end.ended is Ended.ASKED
    # Not by force: QEMU itself said so, and it is the guest that did it.
    assert again.seen.shut_down is not None
    assert again.seen.shut_down.by_guest


async def test_a_paused_guest_stops_gracefully_too(world: Bench) -> None:
    machine = world.holding(await start(tiny(world, world.place / "disk"), world.directory, world.launcher))
    await until_it_answers(machine)
    await machine.monitor.pause()
    await until(machine, Phase.PAUSED)
    await stop(machine, 60)
    assert machine.seen.shut_down is not None
    assert machine.seen.shut_down.by_guest


@pytest.fixture
def small_pool(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "pool"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", place], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.decode()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


async def test_a_full_pool_pauses_the_guest_and_room_lets_it_go_on(world: Bench, small_pool: Path) -> None:
    machine = world.holding(await start(tiny(world, small_pool / "disk"), world.directory, world.launcher))
    ballast = small_pool / "ballast"
    try:
        ballast.write_bytes(bytes(3 << 20))
    except OSError:
        assert ballast.stat().st_size > 0
    # The first write of the guest's file system to its disk finds no room.
    seen = await until(machine, Phase.NO_SPACE)
    assert (seen.run, seen.trouble) == (Run.IO_ERROR, f"{VOLUME}: no space left in its pool")
    await machine.monitor.resume()
    await until(machine, Phase.NO_SPACE)
    ballast.unlink()
    await machine.monitor.resume()
    await until_it_answers(machine)
    await machine.agent.ping(20)
    assert machine.seen.phase is Phase.RUNNING
    assert machine.seen.trouble == ""
