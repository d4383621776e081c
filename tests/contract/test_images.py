"""Image builds: what the real hand and the fake both promise about requests, and the fake about the rest.

What the real one makes is looked at in tests/vm.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.drivers.images import fake, hand, tool
from innkeeper.drivers.images.catalogue import RECIPES
from innkeeper.drivers.images.faults import BuildFailed
from innkeeper.drivers.images.hand import BuildRequest, Progress

Build = Callable[[BuildRequest, Progress], Awaitable[None]]

either = pytest.mark.parametrize("build", [hand.build, fake.build], ids=["hand", "fake"])


def request(staging: Path) -> BuildRequest:
    return BuildRequest(recipe="tiny", staging=staging, guest_program=None, guest_unit=None)


def deaf(fraction: float, words: str) -> None:
    """Hears no progress."""
    del fraction, words


@either
async def test_unknown_recipes_are_refused_with_the_known_ones(build: Build, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"no recipe is called huge; there are debian-12, tiny"):
        await build(replace(request(tmp_path), recipe="huge"), deaf)


@either
async def test_what_lies_in_staging_is_not_touched(build: Build, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("kept")
    with pytest.raises(BuildFailed, match="is not empty"):
        await build(request(tmp_path), deaf)
    assert (tmp_path / "theirs").read_text() == "kept"


@either
async def test_program_and_unit_go_together(build: Build, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="give both or neither"):
        await build(replace(request(tmp_path), guest_unit="[Service]"), deaf)


@pytest.mark.parametrize("recipe", RECIPES)
async def test_the_fake_fills_staging_as_the_real_one_does(recipe: str, tmp_path: Path) -> None:
    told: list[float] = []
    await fake.build(replace(request(tmp_path), recipe=recipe), lambda fraction, words: told.append(fraction))
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk.qcow2", "initrd.img", "vmlinuz"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o444 for path in tmp_path.iterdir())


async def test_the_fakes_disk_is_a_sound_image(tmp_path: Path) -> None:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    await fake.build(request(tmp_path), deaf)
    disk = str(tmp_path / "disk.qcow2")
    said = subprocess.run(["qemu-img", "check", "--output=json", disk], check=True, capture_output=True)
    assert json.loads(said.stdout)["check-errors"] == 0
    said = subprocess.run(["qemu-img", "info", "--output=json", disk], check=True, capture_output=True)
    assert json.loads(said.stdout)["virtual-size"] == RECIPES["tiny"].size_gib << 30


async def test_a_cancelled_fake_leaves_nothing(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as group:
        reached = asyncio.Event()
        task = group.create_task(fake.build(request(tmp_path), lambda fraction, words: reached.set()))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert list(tmp_path.iterdir()) == []


async def test_a_tool_that_fails_is_quoted() -> None:
    with pytest.raises(tool.ToolFailed) as failed:
        await tool.run(["sh", "-c", "echo first; printf 'second\\rthird' >&2; exit 3"], dict(os.environ))
    assert failed.value.code == 3
    assert failed.value.tail == ("first", "second", "third")


async def test_a_tools_children_end_with_it(tmp_path: Path) -> None:
    """Also one that was put into the background and outlives its parent."""
    pid = tmp_path / "pid"
    script = f"(exec sleep 1000) & echo $! >{pid}; echo ready; wait"
    async with asyncio.TaskGroup() as group:
        ready = asyncio.Event()
        task = group.create_task(tool.run(["sh", "-c", script], dict(os.environ), lambda line: ready.set()))
        await ready.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    state = Path(f"/proc/{pid.read_text().strip()}/stat")
    assert not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z"
