"""One guest is booted once; any number go on from there, each alone with what it writes."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from innkeeper.drivers.memory.faults import DamagedImage
from innkeeper.drivers.memory.hand import Memories
from innkeeper.drivers.qemu.hand import adopt, kill, stop, strays
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.memory.loading import LoadFailed, go, link, load
from innkeeper.drivers.qemu.memory.saving import SaveFailed, save
from innkeeper.drivers.qemu.qmp import Rejected
from innkeeper.drivers.qemu.seen import Run
from innkeeper.drivers.qemu.start import StartFailed
from innkeeper.model.ids import NicId
from innkeeper.model.observed import Ended, Phase
from tests.vm.machines import QEMU, bench, unable
from tests.vm.memory.baking import (
    BAKER,
    MEMORY,
    MEMORY_MIB,
    TIMEOUT_S,
    Bakery,
    Place,
    bakery,
    pss_kib,
    until_it_answers,
)

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.skipif(unable() is not None, reason=str(unable())),
    pytest.mark.skipif(not QEMU.exists(), reason=f"{QEMU} is not installed"),
]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Bakery]:
    async with bench(tmp_path) as world, bakery(world) as made:
        yield made


def digest(fd: int) -> str:
    with os.fdopen(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def going(place: Bakery, number: int) -> Machine:
    machine = await place.clone(number)
    await load(machine, (await place.memories.open(MEMORY)).state_fd, TIMEOUT_S)
    # Its programs on channels are seen only once it goes on.
    assert (machine.seen.phase, machine.seen.run) == (Phase.STARTING, Run.LOADING)
    assert machine.seen.open_channels == frozenset()
    await go(machine)
    await until_it_answers(machine)
    await machine.agent.ping(TIMEOUT_S)
    assert machine.seen.phase is Phase.RUNNING
    return machine


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}


async def test_three_at_once_share_what_none_can_change(place: Bakery) -> None:
    opened = await place.bake()
    before = digest(opened.ram_fd)
    baked = place.file(0).read_bytes()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(going(place, number)) for number in (1, 2, 3)]
    clones = [task.result() for task in tasks]
    # Each as its own user, without any rights, within the filter of system calls.
    for number, machine in enumerate(clones, start=1):
        found = status(machine.record.pid)
        assert set(found["Uid"].split()) == {str(Place(number).uid)}
        assert {found[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
        assert pss_kib(machine.record.pid) < MEMORY_MIB * 1024 * 0.6
    for number, machine in enumerate(clones, start=1):
        await link(machine, Place(number).nic, up=True)
        await machine.agent.ping(TIMEOUT_S)
    with pytest.raises(Rejected):
        await link(clones[0], NicId("nic-none"), up=True)
    # Their guests wrote to their memory all the time, and this one to its disk.
    end = await stop(clones[0], 60)
    assert end.ended is Ended.ASKED
    assert clones[0].seen.shut_down is not None
    assert clones[0].seen.shut_down.by_guest
    for machine in clones[1:]:
        await machine.agent.ping(TIMEOUT_S)
        await kill(machine)
    assert digest(opened.ram_fd) == before
    assert place.file(0).read_bytes() == baked
    await place.memories.let_go(MEMORY)
    assert digest((await place.memories.open(MEMORY)).ram_fd) == before


async def test_after_a_restart_it_is_shared_with_a_clone_or_read(place: Bakery) -> None:
    opened = await place.bake()
    inode = os.fstat(opened.ram_fd).st_ino
    first = await going(place, 1)
    place.memories.close()
    await first.close()
    # A later life of the daemon.
    again = await adopt(first.directory.path, "guest1")
    assert again is not None
    place.world.holding(again)
    assert again.seen.phase is Phase.RUNNING
    place.memories = Memories(place.world.place)
    found = await place.memories.open(MEMORY, [again.record.pid])
    assert os.fstat(found.ram_fd).st_ino == inode
    second = await going(place, 2)
    await kill(again)
    await kill(second)
    await place.memories.let_go(MEMORY)
    # Nobody has it any more: from the files.
    read = await place.memories.open(MEMORY, [again.record.pid, second.record.pid])
    assert os.fstat(read.ram_fd).st_ino != inode
    await going(place, 3)


async def test_one_that_waits_is_found_again_as_starting(place: Bakery) -> None:
    await place.bake()
    waiting = await place.clone(1)
    await waiting.close()
    again = await adopt(waiting.directory.path, "guest1")
    assert again is not None
    place.world.holding(again)
    assert (again.seen.phase, again.seen.run) == (Phase.STARTING, Run.LOADING)
    await load(again, (await place.memories.open(MEMORY)).state_fd, TIMEOUT_S)
    await go(again)
    await until_it_answers(again)
    # Who runs cannot be loaded, and is not harmed by the attempt.
    with pytest.raises(LoadFailed, match="does not wait"):
        await load(again, (await place.memories.open(MEMORY)).state_fd, TIMEOUT_S)
    await again.agent.ping(TIMEOUT_S)


async def test_a_damaged_image_starts_nothing(place: Bakery) -> None:
    await place.bake()
    await place.memories.let_go(MEMORY)
    file = place.world.place / "memories" / "images" / MEMORY / "memory"
    whole = file.read_bytes()
    file.chmod(0o600)
    at = whole.index(b"Linux version")
    for harmed in (whole[:-4096], whole[:at] + b"!" + whole[at + 1 :]):
        file.write_bytes(harmed)
        with pytest.raises(DamagedImage, match="memory is damaged"):
            await place.clone(1)
    file.write_bytes(whole)
    await going(place, 1)


@pytest.mark.parametrize("harm", ["other hardware", "cut", "nonsense", "empty"])
async def test_a_state_that_is_not_its_own_ends_it_with_qemu_s_words(place: Bakery, harm: str) -> None:
    state_fd = os.memfd_create("state")
    opened = await place.bake()
    state = os.pread(opened.state_fd, 1 << 24, 0)
    if harm == "other hardware":
        # As it comes from a machine whose disk sat in another slot.
        state = state.replace(b"0000:00:02.0/virtio-blk", b"0000:00:09.0/virtio-blk")
    parts = {"cut": state[: len(state) // 2], "nonsense": b"no state at all" * 1000, "empty": b""}
    os.write(state_fd, parts.get(harm, state))
    machine = await place.clone(1)
    try:
        with pytest.raises(LoadFailed, match=r"guest1 could not be loaded: .*load of migration failed"):
            await load(machine, state_fd, TIMEOUT_S)
    finally:
        os.close(state_fd)
    assert (await machine.ended()).ended is Ended.CRASH
    assert strays(place.world.place, ()) == []
    # From the same disk, which is empty still, it boots or is cloned.
    await going(place, 1)


async def test_a_qemu_that_is_killed_while_it_saves_leaves_nothing(place: Bakery) -> None:
    async with place.memories.stage(MEMORY, MEMORY_MIB, BAKER) as staging:
        machine = await place.boot(staging)
        reading, writing = os.pipe()
        try:
            # Nobody reads: it is in the midst of it until it is killed.
            async with asyncio.TaskGroup() as group:
                saving = group.create_task(refused(machine, writing))
                while machine.seen.run is not Run.PAUSED:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.3)
                machine.pull_plug()
            assert "signal 9" in saving.result()
        finally:
            os.close(reading)
            os.close(writing)
    assert (await place.memories.list_images(), await place.memories.leftovers()) == ((), ())
    assert strays(place.world.place, ()) == []


async def refused(machine: Machine, fd: int) -> str:
    with pytest.raises(SaveFailed) as caught:
        await save(machine, fd, TIMEOUT_S)
    return str(caught.value)


async def test_what_cannot_be_written_is_told_in_time_and_in_words(place: Bakery) -> None:
    async with place.memories.stage(MEMORY, MEMORY_MIB, BAKER) as staging:
        machine = await place.boot(staging)
        full = os.open("/dev/full", os.O_WRONLY)
        try:
            assert "guest0 was not saved: " in await refused(machine, full)
        finally:
            os.close(full)
        # It was not harmed: saved once more, it can be used.
        await save(machine, staging.state_fd, TIMEOUT_S)
        await stop(machine, 0)
        await place.memories.adopt(staging, "")
    await going(place, 1)


async def test_memory_that_others_could_write_to_is_given_to_nobody(place: Bakery) -> None:
    async with place.memories.stage(MEMORY, MEMORY_MIB, BAKER) as staging:
        # What one guest is baked in, nobody else's QEMU can open.
        os.fchown(staging.ram_fd, 790_001, 790_001)
        with pytest.raises(StartFailed, match=r"Permission denied"):
            await place.start(0, staging.ram_fd, clone=False)
        with pytest.raises(StartFailed, match="must be sealed"):
            await place.start(1, staging.ram_fd, clone=True)
    assert strays(place.world.place, ()) == []
