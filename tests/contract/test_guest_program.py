"""The guest's program is compiled once for its source; what goes wrong is said so that it can be mended."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from innkeeper.agent.faults import refusal_of
from innkeeper.drivers.guestlink.compile import CompileFailed, GuestProgram


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    return tmp_path / "workshop"


def compiler(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of cc."""
    cc = folder / "cc"
    cc.write_text(f"#!/bin/sh\n{script}\n")
    cc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


async def test_it_is_compiled_once_and_earlier_ones_go(workshop: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler here: apt-get install gcc libc6-dev")
    workshop.mkdir()
    (workshop / "innkeeper-guest-of-an-earlier-release").write_bytes(b"old")
    program = GuestProgram(workshop)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(program.compiled()) for _ in range(3)]
    (first,) = {task.result() for task in tasks}
    assert list(workshop.iterdir()) == [first]
    made = first.stat()
    assert (await GuestProgram(workshop).compiled()).stat() == made
    kind = subprocess.run(["readelf", "--program-headers", str(first)], check=True, capture_output=True, text=True)
    assert "INTERP" not in kind.stdout  # static: it runs in any guest


async def test_no_compiler_is_said_so(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompileFailed, match="no C compiler") as failed:
        await GuestProgram(workshop).compiled()
    refused = refusal_of(failed.value)
    assert refused is not None
    assert refused.hint == "apt-get install gcc libc6-dev"


async def test_a_compiler_that_fails_is_quoted(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(tmp_path, "echo main.c: no such header >&2; exit 1", monkeypatch)
    with pytest.raises(CompileFailed, match=r"main\.c: no such header"):
        await GuestProgram(workshop).compiled()
    assert not any(path.suffix != ".draft" for path in workshop.iterdir())


async def test_a_cancelled_compiler_ends_with_what_it_started(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    compiler(tmp_path, f"sleep 1000 & echo $$ $! >{pids}.new; mv {pids}.new {pids}; wait", monkeypatch)
    async with asyncio.TaskGroup() as group, asyncio.timeout(60):
        task = group.create_task(GuestProgram(workshop).compiled())
        while not pids.exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for pid in pids.read_text().split():
            while running(pid):
                await asyncio.sleep(0.01)


def running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
