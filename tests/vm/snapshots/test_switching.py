"""Does a running QEMU go on above what it wrote to, wholly or not at all, and is all else of it as before?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.drivers.qcow2.places import in_use, is_written, write_sparse
from innkeeper.drivers.qcow2.render import overlay
from innkeeper.drivers.qemu.blocks.disks import Disks
from innkeeper.drivers.qemu.blocks.switching import switch
from innkeeper.drivers.qemu.hand import adopt
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.qmp import Rejected
from innkeeper.drivers.qemu.start import DiskFiles, LayerFile, start
from innkeeper.model.actions import Chain
from innkeeper.model.hardware import Disk
from innkeeper.model.ids import VolumeId
from innkeeper.model.observed import Phase
from tests.vm.machines import HARDWARE, QEMU, VOLUME, Bench, bench, unable, write_qcow2
from tests.vm.test_qemu_tiny import small_pool, tiny, until, until_it_answers

__all__ = ["small_pool"]

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(unable() is not None, reason=str(unable())),
    pytest.mark.skipif(not QEMU.exists(), reason=f"{QEMU} is not installed"),
]

A, B, C = VOLUME, VolumeId("vol-00000000000b"), VolumeId("vol-00000000000c")
OTHER, OVER_OTHER = VolumeId("vol-00000000000d"), VolumeId("vol-00000000000e")
SIZE_BYTES = 64 << 20


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


def still() -> AbstractAsyncContextManager[None]:
    return nullcontext()


def empty(place: Path, volume: VolumeId, below: str = "top.qcow2", size_bytes: int = SIZE_BYTES) -> Path:
    file = place / volume
    file.unlink(missing_ok=True)
    write_sparse(file, overlay(size_bytes, below), 0)
    return file


def locked(file: Path) -> tuple[bool, bool]:
    """Whether a QEMU has it open, and may write to it."""
    fd = os.open(file, os.O_RDWR)
    try:
        return in_use(fd), is_written(fd)
    finally:
        os.close(fd)


def held(machine: Machine, file: Path) -> bool:
    """Whether its QEMU holds this file in any way."""
    folder = Path(f"/proc/{machine.record.pid}/fd")
    return str(file.resolve()) in {os.readlink(fd) for fd in folder.iterdir()}


async def test_it_writes_above_and_only_reads_below(world: Bench) -> None:
    machine = await world.start()
    disks, top = Disks(machine.monitor), world.place / "top.qcow2"
    file = empty(world.place, B)
    assert await disks.tops() == {A}
    assert locked(top) == (True, True)
    for _ in range(2):
        await switch(disks, [Chain(volume=B, below=(A,))], lambda _: file, still())
        assert await disks.tops() == {B}
        assert (locked(top), locked(file)) == ((True, False), (True, True))


async def test_several_layers_at_once(world: Bench) -> None:
    machine = await world.start()
    disks, files = Disks(machine.monitor), {v: empty(world.place, v) for v in (B, C)}
    await switch(disks, [Chain(volume=C, below=(B, A))], files.__getitem__, still())
    assert await disks.tops() == {C}
    assert [locked(file) for file in files.values()] == [(True, False), (True, True)]


async def two_disks(world: Bench) -> Machine:
    spec = world.spec()
    hardware = replace(HARDWARE, devices=(*HARDWARE.devices, Disk(slot=5, volume=OTHER)))
    more = {OTHER: DiskFiles(top=write_qcow2(world.place / "other.qcow2", SIZE_BYTES))}
    spec = replace(spec, hardware=hardware, disks={**spec.disks, **more})
    return world.holding(await start(spec, world.directory, world.launcher))


async def test_two_disks_at_once_or_neither(world: Bench) -> None:
    machine = await two_disks(world)
    disks = Disks(machine.monitor)
    files = {B: empty(world.place, B), OVER_OTHER: empty(world.place, OVER_OTHER)}
    chains = [Chain(volume=B, below=(A,)), Chain(volume=OVER_OTHER, below=(OTHER,))]
    files[OVER_OTHER].write_bytes(b"no image")
    with pytest.raises(Rejected):
        await switch(disks, chains, files.__getitem__, still())
    assert await disks.tops() == {A, OTHER}
    assert not any(held(machine, file) for file in files.values())
    empty(world.place, OVER_OTHER)
    await switch(disks, chains, files.__getitem__, still())
    assert await disks.tops() == {B, OVER_OTHER}


async def test_what_the_transaction_refuses_leaves_nothing(world: Bench) -> None:
    """The second of its parts is refused when the first was prepared."""
    machine = await two_disks(world)
    disks = Disks(machine.monitor)
    files = {v: empty(world.place, v) for v in (B, OVER_OTHER)}

    @contextlib.asynccontextmanager
    async def spoil() -> AsyncIterator[None]:
        await disks.drop(OVER_OTHER)
        yield

    with pytest.raises(Rejected):
        await switch(
            disks, [Chain(volume=B, below=(A,)), Chain(volume=OVER_OTHER, below=(OTHER,))], files.__getitem__, spoil()
        )
    assert await disks.tops() == {A, OTHER}
    assert not any(held(machine, file) for file in files.values())
    await switch(disks, [Chain(volume=B, below=(A,))], files.__getitem__, still())


async def test_a_chain_that_it_does_not_run_on_is_refused(world: Bench) -> None:
    machine = await world.start()
    with pytest.raises(Rejected, match=f"writes to {A}, and to none of {C}, {B}"):
        await switch(Disks(machine.monitor), [Chain(volume=C, below=(B,))], lambda v: empty(world.place, v), still())


async def test_what_was_added_in_an_earlier_life_and_not_used_is_taken_back(world: Bench) -> None:
    machine = await world.start()
    files = {v: empty(world.place, v) for v in (B, C)}
    disks = Disks(machine.monitor)
    await switch(disks, [Chain(volume=B, below=(A,))], files.__getitem__, still())
    await disks.add(C, files[C])
    assert held(machine, files[C])
    await machine.close()
    again = await adopt(world.directory, "web")
    assert again is not None
    world.holding(again)
    assert (held(again, files[C]), held(again, files[B])) == (False, True)
    await switch(Disks(again.monitor), [Chain(volume=C, below=(B, A))], files.__getitem__, still())
    assert await Disks(again.monitor).tops() == {C}


async def test_an_earlier_file_of_the_same_name_is_not_used(world: Bench) -> None:
    machine = await world.start()
    await Disks(machine.monitor).add(B, empty(world.place, B))
    fresh = empty(world.place, B)
    await switch(Disks(machine.monitor), [Chain(volume=B, below=(A,))], lambda _: fresh, still())
    assert locked(fresh) == (True, True)


async def test_a_long_chain_starts(world: Bench) -> None:
    layers, below = [], "template.qcow2"
    write_qcow2(world.place / below, SIZE_BYTES)
    for number in range(64):
        layers.append(empty(world.place, VolumeId(f"vol-layer{number:07x}"), below))
        below = layers[-1].name
    files = [LayerFile(name=f.name, file=f) for f in reversed(layers[:-1])]
    bottom = LayerFile(name="template", file=world.place / "template.qcow2")
    spec = replace(world.spec(), disks={VOLUME: DiskFiles(top=layers[-1], below=(*files, bottom))})
    machine = world.holding(await start(spec, world.directory, world.launcher))
    disks = Disks(machine.monitor)
    file = empty(world.place, B)
    await switch(disks, [Chain(volume=B, below=(A,))], lambda _: file, still())
    assert await disks.tops() == {B}
    await machine.close()
    again = await adopt(world.directory, "web")
    assert again is not None
    world.holding(again)
    assert again.seen.unreachable == ""


@pytest.mark.slow
async def test_a_pool_that_fills_up_later_names_the_new_volume(world: Bench, small_pool: Path) -> None:
    spec = tiny(world, world.place / "disk")
    size_bytes = int.from_bytes((world.place / "disk").read_bytes()[24:32], "big")
    file, ballast = empty(small_pool, B, size_bytes=size_bytes), small_pool / "ballast"
    with contextlib.suppress(OSError):
        ballast.write_bytes(bytes(3 << 20))
    machine = world.holding(await start(spec, world.directory, world.launcher))
    # Before the guest's first write.
    await switch(Disks(machine.monitor), [Chain(volume=B, below=(A,))], lambda _: file, still())
    seen = await until(machine, Phase.NO_SPACE)
    assert seen.trouble == f"{B}: no space left in its pool"
    before = (await Disks(machine.monitor).counters())[f"disk-{A}"]
    assert before.read_bytes > 0
    await machine.close()
    again = await adopt(world.directory, "web")
    assert again is not None
    world.holding(again)
    assert again.seen.phase is Phase.NO_SPACE
    ballast.unlink()
    await again.monitor.resume()
    await until_it_answers(again)
    after = (await Disks(again.monitor).counters())[f"disk-{A}"]
    assert after.read_bytes > before.read_bytes
    assert after.written_bytes > 0
