"""Memory as a QEMU would leave it, without one."""

from __future__ import annotations

import os

from innkeeper.drivers.memory.hand import MIB, Adopted, Memories
from innkeeper.model.ids import MemoryImageId

M1, M2 = MemoryImageId("mem-000000000001"), MemoryImageId("mem-000000000002")
OWNER = 790_003 if os.geteuid() == 0 else os.geteuid()
STATE = b"all else that QEMU holds" * 1000
ABOUT = '{"template": "t-000000000001"}'
MEMORY_MIB = 8
# Across the border of a chunk, a page in the middle of nothing, the last page, and one written with zeros.
CONTENT = {
    0: b"first",
    MIB - 4096: b"x" * 8192,
    5 * MIB + 123 * 4096: b"alone",
    8 * MIB - 4096: b"last",
    3 * MIB: bytes(4096),
}


def fill(ram_fd: int, state_fd: int) -> None:
    for at, data in CONTENT.items():
        os.pwrite(ram_fd, data, at)
    os.write(state_fd, STATE)


async def make(memories: Memories, memory: MemoryImageId = M1) -> Adopted:
    async with memories.stage(memory, MEMORY_MIB, OWNER) as staging:
        fill(staging.ram_fd, staging.state_fd)
        return await memories.adopt(staging, ABOUT)


def content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)
