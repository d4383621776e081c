"""Processes that are not our children, held by descriptor: a number given to another meanwhile never misleads us."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from innkeeper.drivers.qemu.directory import RECORD
from innkeeper.model.ids import InstanceId, is_id
from innkeeper.ports.launcher import MARK
from innkeeper.ports.processes import users_of

KERNEL_LOG_RECORD_BYTES = 8192
# The launcher gives less than that. A process can make the kernel show all its memory as its environment.
ENVIRONMENT_BYTES = 16 * 1024


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
    """A process that was started for an instance, or says so. `uid` is its real user."""

    pid: int
    start_time: int
    instance: InstanceId
    uid: int


def find_marked(root: Path, ours: Callable[[int], bool]) -> list[Stray]:
    """Every process of `ours` whose environment says that it was started for an instance whose folder is in `root`.

    A process writes what it likes there, which of all instances included. Only its user it cannot change, which `ours`
    tells about: a stranger's environment is not even read.
    """
    found = [_claim(int(entry.name), root, ours) for entry in os.scandir("/proc") if entry.name.isdigit()]
    return [stray for stray in found if stray is not None]


def look(pid: int, instance: InstanceId) -> Stray | None:
    """None if there is no such process, or only its remains."""
    started = start_time(pid)
    try:
        uid = users_of(pid)[0]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if started is None else Stray(pid=pid, start_time=started, instance=instance, uid=uid)


def _claim(pid: int, root: Path, ours: Callable[[int], bool]) -> Stray | None:
    try:
        if not all(map(ours, users_of(pid))):
            return None
        with open(f"/proc/{pid}/environ", "rb") as environment:
            words = environment.read(ENVIRONMENT_BYTES).split(b"\0")
    except OSError:
        return None  # ended meanwhile, or somebody else's
    start, end = os.fsencode(f"{MARK}={root}/"), os.fsencode(f"/{RECORD}")
    for word in words:
        if word.startswith(start) and word.endswith(end):
            # Nothing but an id in between: `root/../machine.json` is somebody else's file.
            instance = os.fsdecode(word[len(start) : -len(end)])
            return look(pid, InstanceId(instance)) if is_id(instance) else None
    return None


def out_of_memory(pid: int) -> bool | None:
    """Whether the kernel killed this process for want of memory. None: it left no trace that we may read."""
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _kernel_says(log, pid)
    finally:
        os.close(log)


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
