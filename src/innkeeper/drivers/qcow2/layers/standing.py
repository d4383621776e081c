"""What stands over what, by what the disks' headers say.

Whoever puts a disk over something, and whoever removes something that a disk could stand over, does it `in_turn`: or a
disk could be put over what is just being removed. The turn is a lock on the folder, so that it holds between processes
as well as between threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from innkeeper.drivers.qcow2 import header as qcow2
from innkeeper.drivers.qcow2.places import Places, in_words
from innkeeper.model.ids import VolumeId, is_id

# What our own headers and QEMU's take, name of the backing file included. One that puts it elsewhere is read whole.
_USUAL_HEAD_BYTES = 4096


@contextmanager
def in_turn(places: Places) -> Iterator[None]:
    """Blocks, for as long as it takes to look at all headers: only in a thread."""
    with in_words("locking the pool", places.root):
        folder = os.open(places.volumes, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:
            os.close(folder)
            raise
    try:
        yield
    finally:
        os.close(folder)


def volumes_over(places: Places, backing: str) -> list[VolumeId]:
    """Those whose headers state this backing file, by id.

    A header that says nothing readable belongs to nobody's disk any more.
    """
    found: list[VolumeId] = []
    with in_words("looking what stands over what", places.root):
        for entry in os.scandir(places.volumes):
            volume = entry.name.removesuffix(".qcow2")
            if volume != entry.name and is_id(volume) and _stated_backing(entry.path) == backing:
                found.append(VolumeId(volume))
    return sorted(found)


def _stated_backing(path: str) -> str | None:
    """What a header says stands below it; None where it says nothing that can be read, or is gone by now."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        for most in (_USUAL_HEAD_BYTES, 1 << qcow2.CLUSTER_BITS):
            head = os.pread(fd, most, 0)
            with contextlib.suppress(qcow2.NotReadable):
                return qcow2.backing_file(head, qcow2.parse(head))
        return None
    finally:
        os.close(fd)
