"""Memory as files without a name (memfd), and the seals that make one unchangeable for everybody, root included.

Whoever copies a guest's memory must open it for writing: QEMU does so even where it only ever writes to its own copies
of pages. So a finished one may be opened by all, and its seals keep what is in it: no writing, growing or shrinking, no
taking back of seals.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable

from innkeeper.drivers.memory.faults import MemoryFailed
from innkeeper.model.ids import MemoryImageId

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
# Of <linux/memfd.h>, since Linux 6.3; some hosts are set to refuse memory without it.
_NOEXEC_SEAL = 0x0008


def new(name: str, size_bytes: int) -> int:
    """Ours alone, and all zero."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create(name, flags)
    try:
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, size_bytes)
    except BaseException:
        os.close(fd)
        raise
    return fd


def memory_name(memory: MemoryImageId) -> str:
    return f"innkeeper-{memory}"


def state_name(memory: MemoryImageId) -> str:
    return f"innkeeper-{memory}-state"


def seal(fd: int, what: str) -> None:
    """Nothing changes it from here on. It is ours again, whoever it was lent to.

    Raises:
        MemoryFailed: a process could still write to it.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise MemoryFailed(
                f"{what} cannot be sealed: a process still has it mapped and could write to it",
                "Wait until the QEMU that wrote it is gone, then make the memory image anew",
            ) from error
        if error.errno == errno.EPERM:
            raise MemoryFailed(f"{what} cannot be sealed: whoever it was lent to forbade it") from error
        raise
    os.fchown(fd, os.geteuid(), os.getegid())


def open_to_all(fd: int) -> None:
    os.fchmod(fd, 0o666)


def is_sealed(fd: int) -> bool:
    return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS


def find(memory: MemoryImageId, size_bytes: int, pids: Iterable[int]) -> int | None:
    """A descriptor of this memory that one of these processes has open; None if none has.

    Everybody can give memory of his own this name. Only that of ours belongs to us, and a sealed one is as it was when
    it was given away.
    """
    wanted = f"/memfd:{memory_name(memory)} (deleted)"
    for pid in pids:
        for link in _links_to(wanted, pid):
            fd = _opened(link)
            if fd is None:
                continue
            if _is_ours(fd, size_bytes):
                return fd
            os.close(fd)
    return None


def _links_to(wanted: str, pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    found = []
    try:
        for name in os.listdir(folder):
            if os.readlink(f"{folder}/{name}") == wanted:
                found.append(f"{folder}/{name}")
    except OSError:
        return []  # it has ended, or just closed one: another process, or the file, serves as well
    return found


def _opened(link: str) -> int | None:
    """Never one that would block or act when it is opened: the name says memory, and is believed only afterwards."""
    try:
        return os.open(link, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None


def _is_ours(fd: int, size_bytes: int) -> bool:
    about = os.fstat(fd)
    try:
        return about.st_uid == os.geteuid() and about.st_size == size_bytes and is_sealed(fd)
    except OSError:
        return False  # no memory at all
