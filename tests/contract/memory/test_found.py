"""Memory that a running process of ours still has is shared with it; memory that only looks like that is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from innkeeper.drivers.memory.hand import MIB, Memories
from tests.contract.disks.pools import needs_root
from tests.contract.memory.staged import M1, MEMORY_MIB, OWNER, fill, make

FORGE = f"""
import sys
fd = os.memfd_create("innkeeper-{M1}", os.MFD_ALLOW_SEALING)
os.ftruncate(fd, {MEMORY_MIB * MIB})
os.write(fd, b"not what was made")
fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 15)
print("ready", flush=True)
sys.stdin.read()
"""
HOLD = 'import sys; print("ready", flush=True); sys.stdin.read()'


@contextmanager
def process(code: str, uid: int, fds: tuple[int, ...] = ()) -> Iterator[int]:
    """Its pid, once it has begun. It ends with its standard input."""
    # It becomes that user by itself, since our Python may lie where nobody else can read.
    become = f"import fcntl, os; os.setgroups([]); os.setresgid({uid}, {uid}, {uid}); os.setresuid({uid}, {uid}, {uid})"
    argv = [sys.executable, "-I", "-S", "-c", f"{become}\n{code}"]
    running = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=fds)
    with running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        yield running.pid
        assert running.stdin is not None
        running.stdin.close()
        running.wait(10)


@pytest.fixture
async def later(tmp_path: Path) -> AsyncIterator[Memories]:
    made = Memories(tmp_path)
    yield made
    made.close()


@pytest.fixture
async def memories(tmp_path: Path) -> AsyncIterator[Memories]:
    made = Memories(tmp_path)
    await made.prepare()
    await make(made)
    yield made
    made.close()


def inode(fd: int) -> tuple[int, int]:
    about = os.fstat(fd)
    return about.st_dev, about.st_ino


@needs_root
async def test_what_a_process_has_is_shared_with_it(tmp_path: Path, memories: Memories, later: Memories) -> None:
    first = await memories.open(M1)
    shared = inode(first.ram_fd)
    with process(HOLD, OWNER, (first.ram_fd,)) as pid:
        memories.close()
        # Its file is not even read: what is sealed is what was compared.
        (tmp_path / "memories" / "images" / M1 / "memory").write_bytes(b"gone")
        found = await later.open(M1, [2**22 + 1, pid])
        assert inode(found.ram_fd) == shared
        assert os.pread(found.ram_fd, 5, 0) == b"first"


@needs_root
async def test_a_forged_one_is_not_believed(memories: Memories, later: Memories) -> None:
    memories.close()
    with process(FORGE, OWNER) as pid:
        links = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
        assert f"/memfd:innkeeper-{M1} (deleted)" in links
        opened = await later.open(M1, [pid])
        assert os.pread(opened.ram_fd, 5, 0) == b"first"


@needs_root
async def test_one_that_can_still_change_is_not_believed(memories: Memories, later: Memories) -> None:
    memories.close()
    async with later.stage(M1, MEMORY_MIB, os.geteuid()) as staging:
        fill(staging.ram_fd, staging.state_fd)
        opened = await later.open(M1, [os.getpid()])
        assert inode(opened.ram_fd) != inode(staging.ram_fd)
