"""The files of one template while it is made: whole, measured, sealed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from innkeeper.drivers.qcow2.faults import DiskFailed, ImageRefused
from innkeeper.drivers.qcow2.inspect import HEAD_BYTES, TAIL_BYTES, Limits, Sample, inspect
from innkeeper.drivers.qcow2.places import ABOUT, INITRD, KERNEL, in_words, open_regular
from innkeeper.drivers.qcow2.render import DISK
from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import TemplateId
from innkeeper.model.template import Image
from innkeeper.ports.tasks import to_the_end

STOCK_INITRD = "initrd-stock.img"  # as its packages made it; for comparison, never used to start a machine
ARTEFACTS = (DISK, KERNEL, INITRD, STOCK_INITRD)
_HASHED_AT_ONCE = 64 << 20
_HASH_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefacts:
    """What is measured of a template's files for its Image."""

    digest: str
    virtual_size_bytes: int
    stored_bytes: int


async def measure(staging: Path, kernel_args: str | None, root: Path) -> Artefacts:
    """Of a finished staging folder. The digest is over sha256sum's lines for all artefacts and the kernel's arguments.

    Raises:
        ImageRefused: the disk is no free-standing qcow2.
        DiskFailed: it is missing.
    """
    names = sorted(n for n in ARTEFACTS if (staging / n).exists())
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{await _digest(staging / name, root)}  {name}\n".encode())
    digest.update(f"{kernel_args or ''}\n".encode())

    def work() -> Artefacts:
        with in_words("measuring a template", root):
            stored = sum((staging / name).stat().st_blocks * 512 for name in names)
        size = disk_size(staging / DISK, root)
        return Artefacts(digest=digest.hexdigest(), virtual_size_bytes=size, stored_bytes=stored)

    return await to_the_end(work)


async def _digest(path: Path, root: Path) -> str:
    """In steps, so that a cancellation need not wait for the end of a large disk."""
    digest = hashlib.sha256()
    fd = open_regular(path, os.O_RDONLY, path.name, root)
    try:
        length = os.fstat(fd).st_size
        for start in range(0, length, _HASHED_AT_ONCE):
            await to_the_end(partial(_hash, fd, start, min(start + _HASHED_AT_ONCE, length), digest))
        return digest.hexdigest()
    finally:
        os.close(fd)


def disk_size(disk: Path, root: Path) -> int:
    """The virtual size of a disk that stands on nothing else.

    Raises:
        ImageRefused: it is no such disk.
    """
    fd = open_regular(disk, os.O_RDONLY, f"the disk {disk}", root)
    try:
        with in_words(f"reading {disk}", root):
            return inspect("qcow2", read_sample(fd), Limits()).virtual_bytes
    finally:
        os.close(fd)


def complete(template: TemplateId, staging: Path, image: Image, root: Path) -> list[str]:
    """Names of the artefacts, none missing and none unknown."""
    names = sorted(p.name for p in staging.iterdir() if p.name != ABOUT)
    needed = {DISK, KERNEL} if image.firmware is Firmware.DIRECT else {DISK}
    if missing := needed - set(names):
        raise DiskFailed(f"template {template} lacks {', '.join(sorted(missing))}", "Make it again")
    if unknown := set(names) - set(ARTEFACTS):
        raise DiskFailed(f"template {template} holds {', '.join(sorted(unknown))}, which no template has")
    size = disk_size(staging / DISK, root)
    if size != image.virtual_size_bytes:
        raise DiskFailed(f"template {template} has a disk of {size} bytes, not the {image.virtual_size_bytes} stated")
    return names


def open_source(path: Path) -> int:
    """An image from outside, opened once. Nothing happens by opening it: no link followed, no device or pipe touched.

    Raises:
        ImageRefused: it is missing, or is no plain file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ImageRefused(f"there is no file {path}", "Give the path of the image on this host") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ImageRefused(f"{path} is a symbolic link", "Give the path of the image itself") from error
        raise ImageRefused(f"{path} cannot be opened: {error.strerror}", "Give the path of a plain file") from error
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise ImageRefused(f"{path} is no plain file", "Give the path of a plain file: no folder, pipe or device is read")


def read_sample(fd: int) -> Sample:
    length = os.fstat(fd).st_size
    return Sample(
        head=os.pread(fd, HEAD_BYTES, 0),
        tail=os.pread(fd, TAIL_BYTES, max(0, length - TAIL_BYTES)),
        length_bytes=length,
    )


def _hash(fd: int, start: int, end: int, digest: hashlib._Hash) -> None:
    for at in range(start, end, _HASH_BLOCK):
        digest.update(os.pread(fd, min(_HASH_BLOCK, end - at), at))


def seal(path: Path) -> None:
    """Ours, written by nobody any more, and on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise DiskFailed(f"{path} is no plain file", "Somebody changed the pool by hand: put the file back")
        if os.fstat(fd).st_uid != os.geteuid():
            os.fchown(fd, os.geteuid(), os.getegid())
        os.fchmod(fd, 0o444)
        os.fsync(fd)
    finally:
        os.close(fd)
