"""A daemon is killed with signal 9 at any moment of a switch: its next life does the rest, and the guest goes on."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from innkeeper.agent.watching.stillness import Moment, Stillness
from innkeeper.drivers.qcow2.places import write_sparse
from innkeeper.drivers.qcow2.render import overlay
from innkeeper.drivers.qemu.blocks.disks import Disks
from innkeeper.drivers.qemu.blocks.switching import switch
from innkeeper.drivers.qemu.hand import adopt
from innkeeper.drivers.qemu.start import start
from innkeeper.model.actions import Chain
from innkeeper.model.ids import VolumeId
from tests.vm.machines import QEMU, VOLUME, Bench, bench, unable
from tests.vm.test_qemu_tiny import tiny, until_it_answers

ROUNDS = 12
ROOT = Path(__file__).resolve().parents[3]

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(unable() is not None, reason=str(unable())),
    pytest.mark.skipif(not QEMU.exists(), reason=f"{QEMU} is not installed"),
]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


async def life(place: Path, chain: Chain) -> bool:
    """All that an order does to a running machine."""
    machine = await adopt(place / "i-3f09c2d41b7a", "web")
    assert machine is not None
    assert machine.seen.unreachable == ""
    moment, still = Moment(), Stillness(machine)
    try:
        async with asyncio.TaskGroup() as group:
            letting_go = group.create_task(still.run())
            held = still.held(moment, ask=True)
            await switch(Disks(machine.monitor), [chain], lambda volume: place / f"{volume}.qcow2", held)
            async with asyncio.timeout(60):
                while machine.directory.still_file.exists():
                    await asyncio.sleep(0.01)
            letting_go.cancel()
    finally:
        await machine.close()
    return moment.consistent


async def killed_after(place: Path, chain: Chain, seconds: float) -> None:
    words = [str(place), chain.volume, *chain.below]
    argv = [sys.executable, "-m", "tests.vm.snapshots.test_killed", *words]
    process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"begins\n"
    await asyncio.sleep(seconds)
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    await process.wait()


async def test_killed_at_any_moment(world: Bench) -> None:
    spec = tiny(world, world.place / f"{VOLUME}.qcow2")
    size_bytes = int.from_bytes((world.place / f"{VOLUME}.qcow2").read_bytes()[24:32], "big")
    machine = world.holding(await start(spec, world.directory, world.launcher))
    await until_it_answers(machine)
    await machine.agent.ping(20)
    await machine.close()
    below: tuple[VolumeId, ...] = (VOLUME,)
    begun = time.monotonic()
    await life(world.place, _new(world.place, 0, below, size_bytes))
    whole_s = time.monotonic() - begun
    below = (VolumeId("vol-000"), *below)
    notes = 0
    for number in range(1, ROUNDS):
        chain = _new(world.place, number, below, size_bytes)
        await killed_after(world.place, chain, whole_s * number / ROUNDS)
        notes += world.directory.joinpath("still.json").exists()
        await life(world.place, chain)
        assert not world.directory.joinpath("still.json").exists()
        below = (chain.volume, *below)
    again = await adopt(world.directory, "web")
    assert again is not None
    world.holding(again)
    assert await Disks(again.monitor).tops() == {below[0]}
    # It can write: a guest whose file systems are held does not come to its end.
    await again.agent.shut_down(10)
    assert await again.gone_within(60)
    assert notes > 0  # or nothing of this was seen


def _new(place: Path, number: int, below: tuple[VolumeId, ...], size_bytes: int) -> Chain:
    volume = VolumeId(f"vol-{number:03}")
    write_sparse(place / f"{volume}.qcow2", overlay(size_bytes, f"{below[0]}.qcow2"), 0)
    return Chain(volume=volume, below=below)


if __name__ == "__main__":
    place, volume, *below = sys.argv[1:]
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    asyncio.run(life(Path(place), Chain(volume=VolumeId(volume), below=tuple(map(VolumeId, below)))))
