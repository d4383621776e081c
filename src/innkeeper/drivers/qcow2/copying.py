"""A private copy of a file that somebody else may be writing to."""

from __future__ import annotations

import errno
import fcntl
import os
from functools import partial
from pathlib import Path

from innkeeper.drivers.qcow2.confined import Progress
from innkeeper.drivers.qcow2.faults import ImageRefused
from innkeeper.drivers.qcow2.places import free_bytes, full, in_words
from innkeeper.ports.tasks import to_the_end

_FICLONE = 0x40049409  # from linux/fs.h: share all blocks until one side writes (btrfs, XFS)
_AT_ONCE = 64 << 20


async def copy_privately(source: int, target: Path, root: Path, said: Progress) -> None:
    """All of an open file into a new one that only we can read; holes stay holes.

    Raises:
        PoolFull: the pool has no room for it.
        ImageRefused: the source became shorter meanwhile.
    """
    length = os.fstat(source).st_size
    with in_words(f"making {target}", root):
        copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
    try:
        if await to_the_end(partial(_share, source, copy)):
            said(1.0)
            return
        doing = "copying the image into the pool"
        if os.fstat(source).st_blocks * 512 > free_bytes(root):
            raise full(doing, root)
        at = 0
        while at < length:
            with in_words(doing, root):
                at = await to_the_end(partial(_copy_some, source, copy, at, length))
            said(at / length)
        with in_words(doing, root):
            os.ftruncate(copy, length)
    finally:
        os.close(copy)


def _share(source: int, copy: int) -> bool:
    """Whether the file system gave the copy the same blocks; most cannot, or not between two of them."""
    try:
        fcntl.ioctl(copy, _FICLONE, source)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ETXTBSY):
            return False
        raise
    return True


def _copy_some(source: int, copy: int, at: int, length: int) -> int:
    """Go on from `at`, through one hole and at most _AT_ONCE bytes of data. Returns how far it came."""
    try:
        start = os.lseek(source, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return length  # a hole up to the end
        raise
    if start >= length:
        return length  # only what was written since we asked for the length
    end = min(os.lseek(source, start, os.SEEK_HOLE), start + _AT_ONCE, length)
    os.lseek(copy, start, os.SEEK_SET)
    while start < end:
        done = os.sendfile(copy, source, start, end - start)
        if done == 0:
            raise ImageRefused(
                "the image became shorter while it was copied", "Wait until it is complete, then import it"
            )
        start += done
    return end
