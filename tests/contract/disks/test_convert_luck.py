"""Conversions that are cancelled, killed, or find no room and no tool: nothing of them stays."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from innkeeper.drivers.qcow2.confined import Run, run
from innkeeper.drivers.qcow2.convert import Converter
from innkeeper.drivers.qcow2.faults import DiskFailed, ImageRefused, PoolFull
from innkeeper.drivers.qcow2.hand import Volumes
from innkeeper.drivers.qcow2.render import Tools
from innkeeper.drivers.qcow2.templates import Templates
from innkeeper.model.ids import TemplateId, VolumeId
from tests.contract.disks.images import MIB
from tests.contract.disks.pools import (
    WORKER,
    fill,
    make_disk,
    needs_qemu_img,
    needs_root,
    refused,
    small,
)

__all__ = ["small"]
pytestmark = needs_qemu_img

T1, T2 = TemplateId("t-000000000001"), TemplateId("t-000000000002")
V1 = VolumeId("vol-000000000001")


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    await Volumes(tmp_path / "pool").prepare()
    return tmp_path / "pool"


def alive(marker: Path) -> list[int]:
    """Processes whose working folder is this, or lies in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str(entry.joinpath("cwd").readlink()).startswith(str(marker)):
                    found.append(int(entry.name))
            except OSError:
                continue  # ended, or of the kernel
    return found


SLEEPER = """#!/bin/sh
printf '    (1.00/100%%)\\r'
echo half > disk.qcow2
sleep 1000 & sleep 1000
"""


@pytest.fixture
def sleeper(tmp_path: Path) -> Tools:
    path = Path("/tmp") / f"inn-sleeper-{os.getpid()}"
    path.write_text(SLEEPER)
    path.chmod(0o755)
    return Tools(qemu_img=str(path))


async def test_cancelling_kills_the_tool_and_leaves_nothing(root: Path, tmp_path: Path, sleeper: Tools) -> None:
    source = tmp_path / "in.qcow2"
    make_disk(source)
    under_way = asyncio.Event()

    def said(fraction: float) -> None:
        if fraction > 0.3:
            under_way.set()

    async with Templates(root).stage(T2) as staging, asyncio.TaskGroup() as group:
        task = group.create_task(Converter(root, WORKER, tools=sleeper).convert_import(source, "qcow2", staging, said))
        await asyncio.wait_for(under_way.wait(), 30)
        assert alive(staging)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert alive(staging) == []
        assert list(staging.iterdir()) == []
    Path(sleeper.qemu_img).unlink()


async def test_cancelling_while_copying_leaves_nothing(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.raw"
    with source.open("wb") as file:
        for _ in range(192):
            file.write(b"x" * MIB)
    started = asyncio.Event()
    async with Templates(root).stage(T2) as staging, asyncio.TaskGroup() as group:
        converter = Converter(root, WORKER)
        task = group.create_task(converter.convert_import(source, "raw", staging, lambda _: started.set()))
        await asyncio.wait_for(started.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list(staging.iterdir()) == []
        assert alive(staging) == []


async def test_the_tool_dies_with_us(root: Path, tmp_path: Path, sleeper: Tools) -> None:
    """kill -9 of the daemon: nothing may go on writing into a folder that the next start removes."""
    source = tmp_path / "in.qcow2"
    make_disk(source)
    program = tmp_path / "daemon.py"
    program.write_text(DAEMON.format(root=str(root), worker=WORKER, tool=sleeper.qemu_img, source=str(source)))
    daemon = await asyncio.create_subprocess_exec(sys.executable, str(program), stdout=asyncio.subprocess.PIPE)
    assert daemon.stdout is not None
    try:
        assert await asyncio.wait_for(daemon.stdout.readline(), 60) == b"under way\n"
        tool = alive(root / "staging")
        assert tool
    finally:
        daemon.kill()
        await daemon.wait()
    async with asyncio.timeout(20):
        while not await _is_gone(tool[0]):
            await asyncio.sleep(0.05)
    for left in alive(root / "staging"):
        os.kill(left, 9)  # the sleeper's own children, which know nothing of parents
    await Templates(root).clean_staging()
    assert await Templates(root).leftovers() == ()
    Path(sleeper.qemu_img).unlink()


async def _is_gone(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


DAEMON = """
import asyncio, pathlib
from innkeeper.drivers.qcow2.confined import Run, run
from innkeeper.drivers.qcow2.convert import Converter
from innkeeper.drivers.qcow2.render import Tools
from innkeeper.drivers.qcow2.templates import Templates
from innkeeper.model.ids import TemplateId

async def main():
    root = pathlib.Path({root!r})
    said = lambda f: f > 0.3 and print("under way", flush=True)
    async with Templates(root).stage(TemplateId("t-2")) as staging:
        converter = Converter(root, {worker}, tools=Tools(qemu_img={tool!r}))
        await converter.convert_import(pathlib.Path({source!r}), "qcow2", staging, said)

asyncio.run(main())
"""


async def test_a_tool_that_never_ends_is_given_up(tmp_path: Path) -> None:
    job = Run(
        doing="importing x",
        argv=("/bin/sh", "-c", "sleep 1000 & sleep 1000"),
        folder=tmp_path,
        pool=tmp_path,
        deadline_s=0.2,
    )
    with pytest.raises(DiskFailed, match="not done after"):
        await run(job, lambda _: None)
    assert alive(tmp_path) == []


async def test_a_result_larger_than_any_is_stopped(root: Path, tmp_path: Path) -> None:
    """The kernel stops who writes more than the image states, as a tool that was taken over would."""
    source = tmp_path / "in.qcow2"
    make_disk(source)
    greedy = Path("/tmp") / f"inn-greedy-{os.getpid()}"
    greedy.write_text("#!/bin/sh\nexec truncate -s 3G disk.qcow2\n")
    greedy.chmod(0o755)
    converter = Converter(root, WORKER, tools=Tools(qemu_img=str(greedy)))
    try:
        async with Templates(root).stage(T2) as staging:
            with pytest.raises(ImageRefused, match="grew beyond"):
                await converter.convert_import(source, "qcow2", staging, lambda _: None)
            assert list(staging.iterdir()) == []
    finally:
        greedy.unlink()


async def test_a_tool_that_leaves_something_else_is_found_out(root: Path, tmp_path: Path) -> None:
    """One that was taken over ends well, and leaves a disk that would read this host's files later."""
    source = tmp_path / "in.qcow2"
    make_disk(source)
    liar = Path("/tmp") / f"inn-liar-{os.getpid()}"
    liar.write_text("#!/bin/sh\nexec qemu-img create -q -f qcow2 -u -b /etc/shadow -F raw disk.qcow2 1G\n")
    liar.chmod(0o755)
    converter = Converter(root, WORKER, tools=Tools(qemu_img=str(liar)))
    try:
        async with Templates(root).stage(T2) as staging:
            with pytest.raises(ImageRefused, match="backing file"):
                await converter.convert_import(source, "qcow2", staging, lambda _: None)
            assert list(staging.iterdir()) == []
        liar.write_text("#!/bin/sh\nexec ln -s /etc/shadow disk.qcow2\n")
        async with Templates(root).stage(T2) as staging:
            with pytest.raises(DiskFailed):
                await converter.convert_import(source, "qcow2", staging, lambda _: None)
            assert list(staging.iterdir()) == []
    finally:
        liar.unlink()


@pytest.mark.parametrize(
    "tools", [Tools(prlimit="/no/such"), Tools(setpriv="/no/such"), Tools(qemu_img="/no/such")], ids=str
)
async def test_a_missing_tool_is_said_so(root: Path, tmp_path: Path, tools: Tools) -> None:
    source = tmp_path / "in.qcow2"
    make_disk(source)
    converter = Converter(root, WORKER, tools=tools)
    async with Templates(root).stage(T2) as staging:
        with pytest.raises(DiskFailed, match=r"missing .*/no/such.*Install"):
            await converter.convert_import(source, "qcow2", staging, lambda _: None)
        assert list(staging.iterdir()) == []


@needs_root
async def test_no_room_for_the_copy_or_for_the_result(small: Path, tmp_path: Path) -> None:
    await Volumes(small).prepare()
    large = tmp_path / "large.raw"
    large.write_bytes(os.urandom(12 * MIB))
    assert isinstance(await refused(small, large, "raw"), PoolFull)
    # Fits as a compressed copy, not as what it becomes.
    packed = tmp_path / "packed.qcow2"
    plain = tmp_path / "plain.raw"
    plain.write_bytes(b"Innkeeper" * (20 * MIB // 9))
    argv = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(plain), str(packed)]
    subprocess.run(argv, check=True, timeout=60)
    assert packed.stat().st_size < 4 * MIB
    error = await refused(small, packed, "qcow2")
    assert isinstance(error, PoolFull)
    assert "packed.qcow2" in error.reason
    fill(small)
    assert isinstance(await refused(small, packed, "qcow2"), PoolFull)
