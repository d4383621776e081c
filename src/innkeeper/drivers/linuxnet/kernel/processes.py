"""Processes that outlive whoever started them: found again by what they were told on their command line.

A pid says little, for it may be another's by now. So a process is held by a pidfd, opened before it is looked at, and
known by its first argument, which the one who starts it makes unmistakable. But anybody may start anything with that
argument. So only those are looked at that run as users who do nothing in anybody else's name, and from the program that
we start: who runs a program that lends him root's rights chooses its arguments, too.

A stranger's command line is not even read: its bytes are in his own memory, and he may let us wait for them.
"""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

from innkeeper.drivers.linuxnet.kernel.namespaces import Space
from innkeeper.ports.processes import users_of

_REPLACED = " (deleted)"  # the kernel's word behind the path of a program that was upgraded while it runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """By what processes of ours are known: how their first argument begins, from where they are started, as whom."""

    argument: str
    programs: frozenset[str]
    uids: frozenset[int]


class Process:
    """One process, held. Its number cannot become another's as long as it is."""

    def __init__(self, pid: int) -> None:
        """ProcessLookupError: there is none of this number."""
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def close(self) -> None:
        os.close(self._pidfd)

    def runs(self) -> bool:
        return not self.ended_within(0)

    def ended_within(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def tell(self, number: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return  # it ended by itself, which the next look sees

    def bears(self, mark: Mark) -> bool:
        # If it still runs after the look, its number was not another's meanwhile.
        return bears(self.pid, mark) and self.runs()

    def space(self) -> Space | None:
        """The network namespace that it is in, open; None if it ended."""
        try:
            return Space(f"/proc/{self.pid}/ns/net")
        except (FileNotFoundError, ProcessLookupError):
            return None

    def lives_in(self, inode: int) -> bool:
        """Whether it is in the network namespace of this inode."""
        try:
            return os.stat(f"/proc/{self.pid}/ns/net").st_ino == inode
        except (FileNotFoundError, ProcessLookupError):
            return False


def bears(pid: int, mark: Mark) -> bool:
    """Whether this process can only be ours."""
    proc = Path("/proc", str(pid))
    try:
        if not set(users_of(pid)) <= mark.uids:
            return False
        if os.readlink(proc / "exe").removesuffix(_REPLACED) not in mark.programs:
            return False
        words = (proc / "cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False  # it ended, or it is the kernel's own
    except PermissionError:
        return False  # it may do more than we may, so we did not start it
    return any(os.fsdecode(word).startswith(mark.argument) for word in words[1:2])


def bearing(mark: Mark, likely: int = 0) -> list[int]:
    """Numbers of all processes that bear this mark. If the `likely` one does, it alone."""
    if likely and bears(likely, mark):
        return [likely]
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and bears(int(name), mark)]


def held(pid: int) -> Process | None:
    """None if it ended meanwhile."""
    try:
        return Process(pid)
    except ProcessLookupError:
        return None
