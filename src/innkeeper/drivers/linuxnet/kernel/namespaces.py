"""Network namespaces: made, named, entered and dropped, without starting a process.

A thread is in exactly one network namespace, and sockets, taps, sysctls and children that it makes belong there. So a
namespace is *entered*: for the length of a `with`, in the one thread that runs it. Only worker threads do that, and
they always come back: a thread that stayed would keep a dropped namespace alive.

Namespaces are named the way `ip netns` names them (a bind mount below /run/netns), so `ip netns exec` works on ours.
pyroute2 forks the whole process to make or enter one; a daemon with threads must not fork like that, hence the few
system calls here.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAMED = Path("/run/netns")

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 1 << 20
_MNT_DETACH = 2
_NS_GET_USERNS = 0xB701
_THREAD = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


class Space:
    """An open network namespace. It lives at least as long as this is open, whatever becomes of its name."""

    def __init__(self, path: str | Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._open = True
        self._lock = threading.Lock()
        self.inode = os.fstat(self._fd).st_ino

    @property
    def fd(self) -> int:
        return self._fd

    @property
    def path(self) -> str:
        """Leads to the namespace even when its name is gone."""
        return f"/proc/self/fd/{self._fd}"

    def close(self) -> None:
        with self._lock:
            self._open = False
            os.close(self._fd)

    def is_ours(self) -> bool:
        """Whether rights like ours made it. What a user makes without them belongs to a user namespace of his, and so
        does all power over what happens in it."""
        try:
            owner = fcntl.ioctl(self._fd, _NS_GET_USERNS)
        except PermissionError:
            return False  # it belongs to somebody above or beside us
        try:
            return os.path.samestat(os.fstat(owner), os.stat("/proc/self/ns/user"))
        finally:
            os.close(owner)

    @contextmanager
    def entered(self) -> Iterator[None]:
        with _coming_back():
            # Another thread may close it meanwhile, and its number may then be another file's.
            with self._lock:
                if not self._open:
                    raise OSError(errno.EBADF, "the namespace was let go of")
                _check(_libc.setns(self._fd, _CLONE_NEWNET), "setns")
            yield


def named(name: str | None) -> Space:
    """The namespace of this name; None is the one this process was started in."""
    return Space("/proc/self/ns/net" if name is None else NAMED / name)


def exists(name: str) -> bool:
    """Whether a namespace has this name. A mere file does not count: a crash between two system calls leaves one."""
    try:
        return (NAMED / name).stat().st_dev == os.stat("/proc/self/ns/net").st_dev
    except FileNotFoundError:
        return False


def names() -> list[str]:
    """Everything that stands where names stand, also half-made."""
    try:
        return sorted(os.listdir(NAMED))
    except FileNotFoundError:
        return []


def create(name: str) -> None:
    """A new namespace of this name. Refused by the kernel's own word if the name is taken."""
    with _coming_back():
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        give_name(name, _THREAD)


@contextmanager
def nameless() -> Iterator[None]:
    """In a new namespace that ends, with all that was made in it, when this does."""
    with _coming_back():
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        yield


def give_name(name: str, source: str) -> None:
    """Name a namespace that is reached by `source`: a new one, or one whose name was taken away while it lived."""
    _share_folder()
    path = NAMED / name
    if not exists(name):
        path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    _mount(source, path, _MS_BIND)


def drop(name: str) -> None:
    """Take the name away. The namespace ends once nothing runs in it and nobody holds it open. May be repeated."""
    path = NAMED / name
    while exists(name):
        _check(_libc.umount2(os.fsencode(path), _MNT_DETACH), f"unmount {path}")
    path.unlink(missing_ok=True)


@contextmanager
def _coming_back() -> Iterator[None]:
    home = os.open(_THREAD, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        try:
            _check(_libc.setns(home, _CLONE_NEWNET), "setns back")
        finally:
            os.close(home)


def _share_folder() -> None:
    """As `ip netns` does: names made here are seen in other mount namespaces, and disappear there too."""
    NAMED.mkdir(parents=True, exist_ok=True)
    if _libc.mount(b"", os.fsencode(NAMED), b"none", _MS_SHARED | _MS_REC, None) != 0:
        _mount(str(NAMED), NAMED, _MS_BIND | _MS_REC)
        _mount("", NAMED, _MS_SHARED | _MS_REC)


def _mount(source: str, target: Path, flags: int) -> None:
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), b"none", flags, None), f"mount {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
