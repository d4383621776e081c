"""Processes that outlive whoever started them: found again by what they were told on their command line.

A pid says little, for it may be another's by now. So a process is held by a pidfd, opened before it is looked at, and
known by its first argument, which the one who starts it makes unmistakable.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path


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

    def was_told(self, beginning: str) -> bool:
        return was_told(self.pid, beginning)

    def lives_in(self, inode: int) -> bool:
        """Whether it is in the network namespace of this inode."""
        try:
            return os.stat(f"/proc/{self.pid}/ns/net").st_ino == inode
        except (FileNotFoundError, ProcessLookupError):
            return False


def was_told(pid: int, beginning: str) -> bool:
    """Whether the first argument of this process begins so."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(os.fsdecode(word).startswith(beginning) for word in words[1:2])


def told(beginning: str, likely: int = 0) -> list[int]:
    """Numbers of all processes whose first argument begins so. If the `likely` one is such, it alone."""
    if likely and was_told(likely, beginning):
        return [likely]
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and was_told(int(name), beginning)]


def held(pid: int) -> Process | None:
    """None if it ended meanwhile."""
    try:
        return Process(pid)
    except ProcessLookupError:
        return None
