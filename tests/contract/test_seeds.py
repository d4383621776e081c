"""Seeds on disk and in memory keep the same promises; and what they hold is what a guest will read."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycdlib import PyCdlib

from innkeeper.drivers.metadata.fake import FakeSeeds
from innkeeper.drivers.metadata.hand import SeedFailed, Seeds, iso
from innkeeper.drivers.metadata.render import seed_files
from innkeeper.model.ids import InstanceId
from tests.contract.disks.pools import fill, needs_root, small
from tests.golden.test_seed_words import PLAIN, TWO_CARDS

__all__ = ["small"]
NAMES = ["meta-data", "network-config", "user-data"]


def read_back(image: bytes) -> dict[str, bytes]:
    """Through another reader than the kernel's: by Rock Ridge names."""
    disk = PyCdlib()
    disk.open_fp(io.BytesIO(image))
    found = {}
    for entry in disk.list_children(iso_path="/"):
        if entry.is_file():
            content = io.BytesIO()
            disk.get_file_from_iso_fp(content, iso_path=disk.full_path_from_dirrecord(entry))
            found[entry.rock_ridge.name().decode()] = content.getvalue()
    disk.close()
    return found


def content(fd: int) -> bytes:
    try:
        return os.pread(fd, 1 << 24, 0)
    finally:
        os.close(fd)


@pytest.fixture(params=[Seeds, FakeSeeds])
async def seeds(request: pytest.FixtureRequest, tmp_path: Path) -> Seeds | FakeSeeds:
    made: Seeds | FakeSeeds = Seeds(tmp_path / "seeds") if request.param is Seeds else FakeSeeds()
    await made.prepare()
    return made


async def test_a_seed_is_written_read_replaced_and_removed(seeds: Seeds | FakeSeeds) -> None:
    await seeds.write(PLAIN, b"#!/bin/sh\n")
    assert read_back(content(await seeds.open(PLAIN.instance))) == seed_files(PLAIN, b"#!/bin/sh\n")
    earlier = await seeds.open(PLAIN.instance)
    await seeds.write(PLAIN, b"#!/bin/true\n")
    assert read_back(content(earlier))["user-data"] == b"#!/bin/sh\n"
    assert read_back(content(await seeds.open(PLAIN.instance)))["user-data"] == b"#!/bin/true\n"
    await seeds.write(TWO_CARDS, None)
    assert await seeds.list_seeds() == (TWO_CARDS.instance, PLAIN.instance)
    for _ in range(2):
        await seeds.delete(PLAIN.instance)
    assert await seeds.list_seeds() == (TWO_CARDS.instance,)
    with pytest.raises(SeedFailed, match=PLAIN.instance):
        await seeds.open(PLAIN.instance)


async def test_one_that_was_given_up_replaces_none_that_comes_later(tmp_path: Path) -> None:
    """The agent goes on with a newer order once the older one has ended: nothing of it may then be under way."""
    begun, enough = threading.Event(), threading.Event()

    class Slow(ThreadPoolExecutor):
        def submit(self, work: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
            def late() -> Any:
                begun.set()
                assert enough.wait(30)
                return work(*args, **more)

            return super().submit(late)

    seeds, loop = Seeds(tmp_path), asyncio.get_running_loop()
    loop.set_default_executor(Slow())
    older = loop.create_task(seeds.write(PLAIN, b"older"))
    while not begun.is_set():
        await asyncio.sleep(0.01)
    loop.call_later(0.5, enough.set)
    older.cancel()
    with pytest.raises(asyncio.CancelledError):
        await older
    (written,) = tmp_path.iterdir()
    assert read_back(written.read_bytes())["user-data"] == b"older"


async def test_an_id_never_leads_elsewhere(seeds: Seeds | FakeSeeds) -> None:
    for name in ("../x", "a/b", ""):
        with pytest.raises(SeedFailed, match="not an id"):
            await seeds.write(replace(PLAIN, instance=InstanceId(name)), None)


async def test_nobody_else_reads_a_seed(tmp_path: Path) -> None:
    seeds = Seeds(tmp_path / "seeds")
    await seeds.prepare()
    await seeds.write(PLAIN, b"#cloud-config\npassword: secret\n")
    path = tmp_path / "seeds" / f"{PLAIN.instance}.iso"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    fd = await seeds.open(PLAIN.instance)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(fd, b"x", 0)
    os.close(fd)


async def test_drafts_of_an_earlier_life_are_removed(tmp_path: Path) -> None:
    await Seeds(tmp_path).prepare()
    (tmp_path / ".draft-i-1.abc").write_bytes(b"half")
    await Seeds(tmp_path).prepare()
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(
    user_data=st.one_of(
        st.binary(max_size=9000), st.sampled_from([0, 1, 2047, 2048, 2049, 1 << 20]).map(lambda n: b"#" * n)
    )
)
def test_user_data_comes_back_byte_for_byte(user_data: bytes) -> None:
    image = iso(seed_files(PLAIN, user_data))
    assert read_back(image)["user-data"] == user_data
    assert len(image) % 2048 == 0


@pytest.mark.skipif(shutil.which("blkid") is None, reason="blkid is not installed")
def test_it_is_found_by_its_label(tmp_path: Path) -> None:
    """The very question by which cloud-init looks for its seed."""
    path = tmp_path / "seed.iso"
    path.write_bytes(iso(seed_files(PLAIN, None)))
    told = subprocess.run(
        ["blkid", "-p", "-o", "export", str(path)], check=True, capture_output=True, text=True, timeout=30
    )
    assert {"LABEL=cidata", "TYPE=iso9660"} <= set(told.stdout.split())


@needs_root
def test_the_kernel_reads_it(tmp_path: Path) -> None:
    path, mounted_at = tmp_path / "seed.iso", tmp_path / "mnt"
    path.write_bytes(iso(seed_files(PLAIN, b"#!/bin/sh\n")))
    mounted_at.mkdir()
    argv = ["mount", "-t", "iso9660", "-o", "loop,ro", str(path), str(mounted_at)]
    mounted = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.strip()}")
    try:
        assert sorted(p.name for p in mounted_at.iterdir()) == NAMES
        assert (mounted_at / "user-data").read_bytes() == b"#!/bin/sh\n"
    finally:
        subprocess.run(["umount", str(mounted_at)], check=True, timeout=30)


@needs_root
async def test_no_room_is_said_so_and_the_earlier_seed_stays(small: Path) -> None:
    seeds = Seeds(small)
    await seeds.prepare()
    await seeds.write(PLAIN, b"#!/bin/sh\n")
    fill(small)
    with pytest.raises(SeedFailed, match="no room left"):
        await seeds.write(PLAIN, b"#" * 300_000)
    assert read_back(content(await seeds.open(PLAIN.instance)))["user-data"] == b"#!/bin/sh\n"
    assert sorted(p.name for p in small.iterdir()) == ["ballast", f"{PLAIN.instance}.iso"]
