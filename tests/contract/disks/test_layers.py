"""What only the real pool can get wrong about volumes over volumes: seals, notes, headers, room, and who came first."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from innkeeper.drivers.qcow2.convert import Converter
from innkeeper.drivers.qcow2.faults import DiskFailed, ImageRefused, PoolFull
from innkeeper.drivers.qcow2.hand import Volumes
from innkeeper.drivers.qcow2.layers.frozen import Frozen
from innkeeper.drivers.qcow2.templates import Templates
from innkeeper.model.actions import Chain
from innkeeper.model.ids import SnapshotId, TemplateId, VolumeId
from innkeeper.model.instance import Taken
from tests.contract.disks.pools import OWNER, WORKER, add_template, fill, io, needs_qemu_img, needs_root, small

__all__ = ["small"]

pytestmark = needs_qemu_img

T1, T2 = TemplateId("t-000000000001"), TemplateId("t-000000000002")
A, B, C = (VolumeId(f"vol-00000000000{letter}") for letter in "abc")
OVER_A, OVER_B = Chain(volume=B, below=(A,)), Chain(volume=C, below=(B, A))
S1, S2 = SnapshotId("snap-000000000001"), SnapshotId("snap-000000000002")


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    """A over the template and B over A, each with something of its own; C over both, empty."""
    await Volumes(tmp_path).prepare()
    await add_template(Templates(tmp_path), T1, "write -P 7 0 4M")
    await layer(tmp_path, A, None)
    io(file(tmp_path, A), "write -P 8 1M 1M")
    await layer(tmp_path, B, A)
    io(file(tmp_path, B), "write -P 9 2M 1M")
    await layer(tmp_path, C, B)
    return tmp_path


async def layer(root: Path, volume: VolumeId, over: VolumeId | None) -> None:
    await Volumes(root).create_overlay(volume, T1, 2, OWNER, over)


def file(root: Path, volume: VolumeId) -> Path:
    return root / "volumes" / f"{volume}.qcow2"


def notes(root: Path) -> set[str]:
    return {path.name for path in (root / "volumes").iterdir() if path.suffix != ".qcow2"}


@contextmanager
def in_use(disk: Path, *options: str) -> Iterator[None]:
    process = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", *options, str(disk)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.read(8) == b"qemu-io>"
        yield
    finally:
        process.communicate(b"quit\n", timeout=30)


async def test_a_layer_shows_what_is_below_it(root: Path) -> None:
    told = io(file(root, C), "read -P 7 0 1M", "read -P 8 1M 1M", "read -P 9 2M 1M", "read -P 7 3M 1M")
    assert "failed" not in told
    await Volumes(root).check_chain(OVER_B, T1)


async def test_a_frozen_volume_is_ours_and_is_read_by_who_stands_over_it(root: Path) -> None:
    before = file(root, A).read_bytes()
    await Frozen(root).make_room((A,), (OVER_A,))
    told = await Frozen(root).freeze((A,), S1, consistent=True)
    info = file(root, A).stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid) == (0o444, os.geteuid())
    assert told == Taken(stored_bytes=info.st_blocks * 512, consistent=True)
    assert file(root, A).read_bytes() == before
    assert await Volumes(root).list_volumes() == (A, B, C)
    with in_use(file(root, B)):
        assert "failed" not in io(file(root, A), "read -P 8 1M 1M", read_only=True)


async def test_what_is_still_written_to_is_not_frozen(root: Path) -> None:
    await Frozen(root).make_room((B, A), (OVER_B,))
    modes = [file(root, v).stat().st_mode for v in (A, B)]
    with in_use(file(root, B)), pytest.raises(DiskFailed, match=f"{B} is still written to"):
        await Frozen(root).freeze((A, B), S1, consistent=True)
    assert [file(root, v).stat().st_mode for v in (A, B)] == modes
    assert [file(root, v).stat().st_uid for v in (A, B)] == [OWNER, OWNER]
    assert await Frozen(root).taken((A, B), S1) is None
    with in_use(file(root, B), "-r"):
        await Frozen(root).freeze((A, B), S1, consistent=True)


async def test_room_for_the_note_is_taken_before_it_is_needed(root: Path, small: Path) -> None:
    volumes, frozen = Volumes(small), Frozen(small)
    await volumes.prepare()
    await add_template(Templates(small), T1, "write -P 7 0 64k")
    await layer(small, A, None)
    await layer(small, B, A)
    await frozen.make_room((A,), (OVER_A,))
    fill(small)
    told = await frozen.freeze((A,), S1, consistent=False)
    assert await frozen.taken((A,), S1) == told
    with pytest.raises(PoolFull):
        await frozen.make_room((B,), ())
    await frozen.give_up((B,))
    assert notes(small) == {f"{A}.frozen"}


async def test_a_note_of_another_snapshot_is_replaced(root: Path) -> None:
    await Frozen(root).freeze((A,), S1, consistent=True)
    assert await Frozen(root).taken((A,), S2) is None
    told = await Frozen(root).freeze((A,), S2, consistent=False)
    assert (await Frozen(root).taken((A,), S2), await Frozen(root).taken((A,), S1)) == (told, None)


async def test_a_damaged_note_is_told(root: Path) -> None:
    await Frozen(root).freeze((A,), S1, consistent=True)
    (root / "volumes" / f"{A}.frozen").write_text("{")
    with pytest.raises(DiskFailed, match="what was noted"):
        await Frozen(root).taken((A,), S1)


async def test_what_a_crash_left_of_notes_goes_at_the_next_start(root: Path) -> None:
    await Frozen(root).freeze((A,), S1, consistent=True)
    (root / "volumes" / "vol-00000000dead.frozen").write_text("{}")
    await Frozen(root).make_room((B,), ())
    assert f"{B}.freezing" in notes(root)
    await Volumes(root).prepare()
    assert notes(root) == {f"{A}.frozen"}
    for volume in (C, B, A):
        await Volumes(root).delete(volume)
    assert notes(root) == set()


@pytest.mark.parametrize("spoiled", [A, B, C])
async def test_a_layer_whose_header_was_rewritten_is_not_started(root: Path, spoiled: VolumeId) -> None:
    argv = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", str(file(root, spoiled))]
    subprocess.run(argv, check=True)
    with pytest.raises(ImageRefused, match=f"volume {spoiled}: .*shadow"):
        await Volumes(root).check_chain(OVER_B, T1)
    async with Templates(root).stage(T2) as staging:
        with pytest.raises(ImageRefused, match=f"volume {spoiled}: .*shadow"):
            await Converter(root, WORKER).flatten(OVER_B, T1, staging, lambda _: None)


@needs_root
async def test_a_chain_is_flattened_while_others_read_its_layers(root: Path) -> None:
    await Frozen(root).freeze((A, B), S1, consistent=True)
    async with Templates(root).stage(T2) as staging:
        with in_use(file(root, B), "-r"):
            made = await Converter(root, WORKER).flatten(OVER_B, T1, staging, lambda _: None)
        assert "failed" not in io(made, "read -P 7 0 1M", "read -P 8 1M 1M", "read -P 9 2M 1M", "read -P 7 3M 1M")


async def test_of_a_layer_and_its_removal_one_wins(root: Path) -> None:
    """Never is there a volume over one that is gone."""
    failed: list[DiskFailed] = []

    async def attempt(work: Awaitable[None]) -> None:
        try:
            await work
        except DiskFailed as failure:
            failed.append(failure)

    for number in range(20):
        below, above = VolumeId(f"vol-{number}-below"), VolumeId(f"vol-{number}-above")
        await layer(root, below, None)
        async with asyncio.TaskGroup() as group:
            for work in (layer(root, above, below), Volumes(root).delete(below))[:: 1 if number % 2 else -1]:
                group.create_task(attempt(work))
        assert len(failed) == number + 1
        listed = await Volumes(root).list_volumes()
        assert (above in listed) == (below in listed)


async def test_a_header_that_keeps_its_name_far_behind_is_read_too(root: Path) -> None:
    """QEMU may write more in front of it."""
    head = bytearray(file(root, B).read_bytes()[:65536])
    name = f"{A}.qcow2".encode()
    head[8:16] = (60_000).to_bytes(8, "big")
    head[60_000 : 60_000 + len(name)] = name
    with file(root, B).open("r+b") as written:
        written.write(head)
    with pytest.raises(DiskFailed, match=f"below volumes {B}"):
        await Volumes(root).delete(A)
