"""Processes that are not our children, held by descriptor: a number given to another meanwhile never misleads us."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from innkeeper.ports.launcher import MARK, USERS

KERNEL_LOG_RECORD_BYTES = 8192


def start_time(pid: int) -> int | None:
    """In ticks since boot; None if there is no such process, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def hold(pid: int, started: int) -> int | None:
    """A descriptor of this very process; None if it has ended."""
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # Only now: what the descriptor holds can no longer change into another process.
    if start_time(pid) != started:
        os.close(held)
        return None
    return held


def kill(held: int) -> None:
    """At once. One that has ended already is no error."""
    try:
        signal.pidfd_send_signal(held, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it is as it should be


async def gone(held: int, timeout_s: float) -> bool:
    """Wait for the end, or until time is up."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(held, ended.set)
    try:
        async with asyncio.timeout(timeout_s):
            await ended.wait()
    except TimeoutError:
        pass  # the answer says so
    finally:
        loop.remove_reader(held)
    return ended.is_set()


def cpu_s(pid: int) -> float | None:
    """Processor time of a whole process so far; None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """A process that bears our mark. `directory` is where its record stands, or should."""

    pid: int
    start_time: int
    directory: Path


def find_marked(root: Path) -> list[Stray]:
    """Every process that a launcher started for a directory below `root`, by the mark in its environment.

    Anybody can write such a mark into his own environment, so it is believed of root and of instances' users only.
    """
    found = []
    start = f"{MARK}={root}/".encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            words = Path(f"/proc/{entry.name}/environ").read_bytes().split(b"\0")
        except OSError:
            words = []  # ended meanwhile, or somebody else's
        marks = [word for word in words if word.startswith(start)]
        started = start_time(int(entry.name)) if marks and _ours(int(entry.name)) else None
        if started is not None:
            record = Path(os.fsdecode(marks[0].partition(b"=")[2]))
            found.append(Stray(pid=int(entry.name), start_time=started, directory=record.parent))
    return found


def _ours(pid: int) -> bool:
    """By the real user; the owner of the folder in /proc is root for everything that may not be dumped."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False  # ended meanwhile
    found = re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)
    return found is not None and (int(found[1]) == 0 or int(found[1]) in USERS)


def out_of_memory(pid: int, cgroups: tuple[str, ...]) -> bool | None:
    """Whether the kernel killed this process for want of memory. None: it left no trace that we may read."""
    if any(_group_says(Path(group)) for group in cgroups):
        return True
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _kernel_says(log, pid)
    finally:
        os.close(log)


def _group_says(group: Path) -> bool:
    """A group of our own holds one machine only: a kill in it since it was made was this machine's."""
    for name in ("memory.events", "memory.oom_control"):
        file = group / name
        if file.exists():
            counts = re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
            return counts is not None and int(counts[1]) > 0
    return False


def _kernel_says(log: int, pid: int) -> bool:
    wanted = re.compile(rb"Killed process %d \(" % pid)
    killed = False
    while True:
        try:
            killed = wanted.search(os.read(log, KERNEL_LOG_RECORD_BYTES)) is not None or killed
        except BlockingIOError:
            return killed
        except BrokenPipeError:
            continue  # the oldest message was overwritten while we read: go on with the next
