"""Memory images: whole or not at all, never changed, never believed without comparing."""

from __future__ import annotations

import asyncio
import fcntl
import json
import mmap
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from innkeeper.drivers.memory.faults import DamagedImage, MemoryFailed, NoRoom
from innkeeper.drivers.memory.hand import MIB, Memories
from innkeeper.drivers.memory.sealed import SEALS
from innkeeper.model.ids import MemoryImageId
from tests.contract.disks.pools import fill as fill_up
from tests.contract.disks.pools import needs_root, small
from tests.contract.memory.staged import ABOUT, CONTENT, M1, M2, MEMORY_MIB, OWNER, STATE, content, fill, make

__all__ = ["small"]


@pytest.fixture
async def memories(tmp_path: Path) -> AsyncIterator[Memories]:
    made = Memories(tmp_path)
    await made.prepare()
    yield made
    made.close()


@pytest.fixture
async def later(tmp_path: Path, memories: Memories) -> AsyncIterator[Memories]:
    """A later life of the daemon, which holds nothing."""
    await make(memories)
    memories.close()
    made = Memories(tmp_path)
    await made.prepare()
    yield made
    made.close()


def files(root: Path) -> Path:
    return root / "memories" / "images" / M1


def is_whole(ram_fd: int) -> bool:
    wanted = bytearray(MEMORY_MIB * MIB)
    for at, data in CONTENT.items():
        wanted[at : at + len(data)] = data
    return content(ram_fd) == wanted


async def test_what_was_staged_is_held_and_stands(tmp_path: Path, memories: Memories) -> None:
    adopted = await make(memories)
    opened = await memories.open(M1)
    assert is_whole(opened.ram_fd)
    assert content(opened.state_fd) == STATE
    assert (opened.about, opened.memory_mib, opened.digest) == (ABOUT, MEMORY_MIB, adopted.digest)
    assert await memories.list_images() == (M1,)
    assert await memories.leftovers() == ()
    # Four runs of pages and the state, not eight mebibytes.
    assert adopted.stored_bytes < 256 * 1024
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(tmp_path).iterdir()} == {0o444}
    assert stat.S_IMODE(files(tmp_path).stat().st_mode) == 0o700


async def test_it_is_read_back_as_it_was(later: Memories) -> None:
    opened = await later.open(M1)
    assert is_whole(opened.ram_fd)
    assert content(opened.state_fd) == STATE
    assert opened.about == ABOUT


async def test_equal_content_has_one_digest_however_it_came_to_be(tmp_path: Path, memories: Memories) -> None:
    """Also where pages of zeros were written: a file system may well fill a hole."""
    first = await make(memories)
    async with memories.stage(M2, MEMORY_MIB, OWNER) as staging:
        os.pwrite(staging.ram_fd, bytes(MEMORY_MIB * MIB), 0)
        fill(staging.ram_fd, staging.state_fd)
        await memories.adopt(staging, ABOUT)
    records = [json.loads((files(tmp_path).with_name(memory) / "about.json").read_text()) for memory in (M1, M2)]
    assert records[0]["memory_digest"] == records[1]["memory_digest"]
    assert records[0]["digest"] == first.digest != records[1]["digest"]


@pytest.mark.parametrize("again", [False, True], ids=["made", "read back"])
async def test_nobody_changes_it_not_even_we(tmp_path: Path, memories: Memories, again: bool) -> None:
    await make(memories)
    if again:
        await memories.let_go(M1)
    opened = await memories.open(M1)
    for fd in (opened.ram_fd, opened.state_fd):
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
        assert os.fstat(fd).st_uid == os.geteuid()
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 1)
        with pytest.raises(PermissionError):
            mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    # Copies of its pages are anybody's own.
    with mmap.mmap(opened.ram_fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as copy:
        copy[0:5] = b"wrote"
    assert stat.S_IMODE(os.fstat(opened.ram_fd).st_mode) == 0o666
    assert is_whole(opened.ram_fd)


@needs_root
async def test_until_then_only_the_one_it_is_lent_to_may_open_it(memories: Memories) -> None:
    async with memories.stage(M1, MEMORY_MIB, OWNER) as staging:
        about = os.fstat(staging.ram_fd)
        assert (about.st_uid, stat.S_IMODE(about.st_mode), about.st_size) == (OWNER, 0o600, MEMORY_MIB * MIB)
        assert os.readlink(f"/proc/self/fd/{staging.ram_fd}") == f"/memfd:innkeeper-{M1} (deleted)"


async def test_what_is_still_written_to_is_not_adopted(memories: Memories) -> None:
    async with memories.stage(M1, MEMORY_MIB, OWNER) as staging:
        fill(staging.ram_fd, staging.state_fd)
        with mmap.mmap(staging.ram_fd, 0), pytest.raises(MemoryFailed, match=r"still has it mapped.*QEMU"):
            await memories.adopt(staging, ABOUT)
    assert (await memories.list_images(), await memories.leftovers()) == ((), ())


async def test_what_was_sealed_in_between_is_not_adopted(memories: Memories) -> None:
    async with memories.stage(M1, MEMORY_MIB, OWNER) as staging:
        fill(staging.ram_fd, staging.state_fd)
        fcntl.fcntl(staging.ram_fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
        with pytest.raises(MemoryFailed, match="forbade"):
            await memories.adopt(staging, ABOUT)


async def test_memory_of_another_size_and_no_state_are_not_adopted(memories: Memories) -> None:
    async with memories.stage(M1, MEMORY_MIB, OWNER) as staging:
        with pytest.raises(MemoryFailed, match="0 bytes: it was not saved"):
            await memories.adopt(staging, ABOUT)
    async with memories.stage(M1, MEMORY_MIB, OWNER) as staging:
        fill(staging.ram_fd, staging.state_fd)
        os.ftruncate(staging.ram_fd, MIB)
        with pytest.raises(MemoryFailed, match="another size"):
            await memories.adopt(staging, ABOUT)
    assert await memories.list_images() == ()


async def test_an_image_is_never_replaced(memories: Memories) -> None:
    first = await make(memories)
    with pytest.raises(MemoryFailed, match="stands as mem-000000000001 already"):
        await make(memories)
    assert (await memories.open(M1)).digest == first.digest
    assert await memories.leftovers() == ()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def grow(path: Path) -> None:
    os.truncate(path, path.stat().st_size + 1)


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))


def fill_a_hole(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\1")


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [cut, grow, flip, fill_a_hole, remove])
@pytest.mark.parametrize("name", ["memory", "state"])
async def test_a_damaged_file_is_refused_with_its_name(
    tmp_path: Path, later: Memories, name: str, harm: object
) -> None:
    assert callable(harm)
    harm(files(tmp_path) / name)
    before = open_files()
    with pytest.raises(DamagedImage, match=rf"{M1}/{name} is damaged.*boot cold"):
        await later.open(M1)
    assert open_files() == before


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"digest": 1, "form": 1}', "[" * 100_000, "\0" * 100])
async def test_a_damaged_record_is_refused(tmp_path: Path, later: Memories, text: str) -> None:
    (files(tmp_path) / "about.json").write_text(text)
    with pytest.raises(DamagedImage, match=r"about\.json is damaged"):
        await later.open(M1)


@pytest.mark.parametrize("field,value", [("about", "{}"), ("memory_bytes", 4096), ("memory_digest", "0" * 64)])
async def test_an_altered_record_is_refused(tmp_path: Path, later: Memories, field: str, value: object) -> None:
    path = files(tmp_path) / "about.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(DamagedImage, match="altered"):
        await later.open(M1)


async def test_another_release_s_record_and_another_s_folder_are_told_apart(tmp_path: Path, later: Memories) -> None:
    path = files(tmp_path) / "about.json"
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text) | {"form": 2}))
    with pytest.raises(MemoryFailed, match="another release"):
        await later.open(M1)
    path.write_text(text)
    files(tmp_path).rename(files(tmp_path).with_name(M2))
    with pytest.raises(DamagedImage, match=f"belongs to {M1}"):
        await later.open(M2)


async def test_two_who_ask_at_once_get_one(later: Memories) -> None:
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(later.open(M1)) for _ in range(4)]
    assert len({task.result().ram_fd for task in asked}) == 1


async def test_what_one_gives_up_asking_for_another_still_gets(later: Memories) -> None:
    async with asyncio.TaskGroup() as group:
        first, second = (group.create_task(later.open(M1)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
    assert first.cancelled()
    assert is_whole(second.result().ram_fd)


async def test_let_go_is_read_again_and_deleted_is_gone(memories: Memories) -> None:
    await make(memories)
    before = open_files()
    await memories.let_go(M1)
    await memories.let_go(M1)
    assert open_files() == before - 2
    assert is_whole((await memories.open(M1)).ram_fd)
    await memories.delete(M1)
    await memories.delete(M1)
    assert (await memories.list_images(), await memories.leftovers()) == ((), ())
    assert open_files() == before - 2
    with pytest.raises(MemoryFailed, match="there is no memory image"):
        await memories.open(M1)


@needs_root
async def test_a_full_disk_is_said_and_leaves_nothing(small: Path) -> None:
    memories = Memories(small)
    await memories.prepare()
    free = os.statvfs(small).f_bfree
    async with memories.stage(M1, 16, OWNER) as staging:
        os.pwrite(staging.ram_fd, os.urandom(12 * MIB), 0)
        os.write(staging.state_fd, STATE)
        with pytest.raises(NoRoom, match=r"no room left in .*Delete"):
            await memories.adopt(staging, ABOUT)
    assert os.statvfs(small).f_bfree == free
    assert (await memories.list_images(), await memories.leftovers()) == ((), ())
    with pytest.raises(MemoryFailed, match="there is no memory image"):
        await memories.open(M1)
    fill_up(small)
    with pytest.raises(NoRoom):
        await make(memories)
    (small / "ballast").unlink()
    await make(memories)
    memories.close()


async def test_what_an_earlier_life_left_half_made_goes(tmp_path: Path, memories: Memories) -> None:
    left = tmp_path / "memories" / "staging" / f"{M1}.0123456789ab"
    left.mkdir()
    (left / "memory").write_bytes(b"half")
    assert await memories.leftovers() == (left.name,)
    await memories.clean_staging()
    assert await memories.leftovers() == ()


async def test_given_up_while_it_is_saved_it_does_not_stand(memories: Memories) -> None:
    async def attempt() -> None:
        async with memories.stage(M1, 256, OWNER) as staging:
            for at in range(0, 256 * MIB, MIB):
                os.pwrite(staging.ram_fd, b"x" * MIB, at)
            os.write(staging.state_fd, STATE)
            begun.set()
            await memories.adopt(staging, ABOUT)

    before, begun = open_files(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(attempt())
        await begun.wait()
        await asyncio.sleep(0.01)
        task.cancel()
    assert task.cancelled()
    assert (await memories.list_images(), await memories.leftovers()) == ((), ())
    assert open_files() == before


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "mem\0"])
async def test_an_id_never_leads_elsewhere(memories: Memories, name: str) -> None:
    for attempt in (memories.open, memories.delete):
        with pytest.raises(MemoryFailed, match="not an id"):
            await attempt(MemoryImageId(name))
    with pytest.raises(MemoryFailed, match="not an id"):
        async with memories.stage(MemoryImageId(name), 1, OWNER):
            pass


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
