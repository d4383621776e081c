"""Where things lie in a pool, and how they get there: whole or not at all, and durable when the call returns.

    ROOT/volumes/<volume id>.qcow2                          0600, owned by the user of the instance's QEMU;
                                                            frozen: 0444, ours, never written again
                 <volume id>.frozen                         what is told of the snapshot that froze it
    ROOT/templates/<template id>/disk.qcow2                 0444: never written again
                                 vmlinuz, initrd.img        only where the machine is started directly
                                 template.json              the Image, in the model's codec
    ROOT/staging/                                           half-made things; nothing in it outlives a start of ours

The folders are 0700. QEMU gets descriptors, which root opened; the file modes only let the one who holds a descriptor
open the same file again through /proc/self/fd, as -kernel and qemu-img do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from innkeeper.drivers.qcow2.faults import DiskFailed, PoolFull
from innkeeper.drivers.qcow2.render import DISK, SparseFile
from innkeeper.model.ids import TemplateId, VolumeId, is_id
from innkeeper.ports.folders import sync_folder

KERNEL = "vmlinuz"
INITRD = "initrd.img"
ABOUT = "template.json"


@dataclass(frozen=True, slots=True)
class Places:
    root: Path

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def templates(self) -> Path:
        return self.root / "templates"

    @property
    def staging(self) -> Path:
        return self.root / "staging"

    def volume(self, volume: VolumeId) -> Path:
        return self.volumes / f"{_checked(volume)}.qcow2"

    def frozen(self, volume: VolumeId) -> Path:
        return self.volumes / f"{_checked(volume)}.frozen"

    def freezing(self, volume: VolumeId) -> Path:
        return self.volumes / f"{_checked(volume)}.freezing"

    def template(self, template: TemplateId) -> Path:
        return self.templates / _checked(template)

    def disk(self, template: TemplateId) -> Path:
        return self.template(template) / DISK

    def make(self) -> None:
        """The folders stand, closed to others. May be repeated."""
        with in_words("preparing the pool", self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            for folder in (self.volumes, self.templates, self.staging):
                folder.mkdir(mode=0o700, exist_ok=True)
                folder.chmod(0o700)
            sync_folder(self.root)


def _checked(name: str) -> str:
    """An id becomes a file name, so it must not be able to lead elsewhere."""
    if not is_id(name):
        raise DiskFailed(f"{name!r} is not an id")
    return name


@contextmanager
def in_words(doing: str, root: Path) -> Iterator[None]:
    """What the kernel refuses, said so that an operator can act on it."""
    try:
        yield
    except OSError as error:
        raise fault(doing, error, root) from error


def fault(doing: str, error: OSError, root: Path) -> PoolFull | DiskFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return full(doing, root)
    return DiskFailed(f"{doing}: {error.strerror}" + (f" ({error.filename})" if error.filename else ""))


def full(doing: str, root: Path) -> PoolFull:
    return PoolFull(
        f"{doing}: no room left in the pool {root}",
        "Delete instances or templates that nobody needs, or give the pool more room",
    )


def free_bytes(root: Path) -> int:
    with in_words("asking for free room", root):
        info = os.statvfs(root)
    return info.f_bavail * info.f_frsize


def open_regular(path: Path, flags: int, what: str, root: Path) -> int:
    """A descriptor of its own of a plain file: no symbolic link, and nothing that could block or act when opened.

    Raises:
        DiskFailed: it is missing, or is something else.
    """
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise DiskFailed(f"{what} is missing from the pool {root}", "Was it deleted by hand? Restore it") from error
    except OSError as error:
        raise fault(f"opening {what}", error, root) from error
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise DiskFailed(f"{what} is no plain file: {path}", "Somebody changed the pool by hand: put the file back")


def write_sparse(path: Path, content: SparseFile, owner_uid: int) -> None:
    """A new file with this content, durable but for its name."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, content.length_bytes)
        for extent in content.extents:
            written = os.pwrite(fd, extent.data, extent.offset)
            if written != len(extent.data):  # a file system does this only when its room ends within the extent
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if os.fstat(fd).st_uid != owner_uid:
            os.fchown(fd, owner_uid, owner_uid)
        os.fsync(fd)
    finally:
        os.close(fd)


_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid
# QEMU locks one byte for each right that it uses on an image, from 100 on (block/file-posix.c); this is writing.
_WRITING_BYTE = 101


def in_use(fd: int) -> bool:
    """Whether a QEMU or qemu-img has this image open, in whatever way: each locks bytes of it."""
    return _is_locked(fd, 0, 0)


def is_written(fd: int) -> bool:
    """Whether a QEMU or qemu-img has this image open and may write to it. A layer below others is only read."""
    return _is_locked(fd, _WRITING_BYTE, 1)


def _is_locked(fd: int, first: int, length: int) -> bool:
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, first, length, 0)
    found: int = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
    return found != fcntl.F_UNLCK
