"""An honest fake: the same promises as `hand.build`, kept in a blink and with images in which nothing would boot.

It checks requests with the same code, tells progress, can be cancelled between its steps, leaves an empty staging
directory when it is, and makes a disk that any reader of qcow2 accepts: of the right size, with nothing in it.
"""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

from innkeeper.drivers.images.hand import BuildRequest, Progress, checked, emptied_unless_done, finish
from innkeeper.drivers.images.render import Workshop

_CLUSTER = 65536
_STEPS = ((0.0, "looking for a mirror"), (0.1, "downloading packages"), (0.5, "installing packages"))


async def build(request: BuildRequest, progress: Progress) -> None:
    recipe = checked(request)
    staging = request.staging
    async with emptied_unless_done(staging):
        Path(Workshop(staging=str(staging)).place).mkdir()
        for fraction, words in _STEPS:
            progress(fraction, words)
            await asyncio.sleep(0)
        (staging / "disk.qcow2").write_bytes(empty_qcow2(recipe.size_gib << 30))
        (staging / "vmlinuz").write_bytes(b"a kernel that nobody starts\n")
        (staging / "initrd.img").write_bytes(b"a RAM disk that nobody reads\n")
        finish(staging)
        progress(1.0, "built")


def empty_qcow2(size_bytes: int) -> bytes:
    """Header, a table of mappings that maps nothing, and a table and block that count the clusters in use."""
    mappings = -(-size_bytes // (_CLUSTER * (_CLUSTER // 8)))
    if mappings * 8 > _CLUSTER:
        raise ValueError(f"{size_bytes} bytes need more than one cluster of mappings")
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, 0, 0, 16, size_bytes, 0, mappings, 3 * _CLUSTER, _CLUSTER, 1, 0, 0),
        *(0, 0, 0, 4, 104),
    )
    counts_table = struct.pack(">Q", 2 * _CLUSTER)
    counts = struct.pack(">4H", 1, 1, 1, 1)
    return b"".join(part.ljust(_CLUSTER, b"\0") for part in (header, counts_table, counts, b""))
