"""A tool at work on bytes that a stranger wrote: limited, followed, and never outliving who asked for it."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from innkeeper.drivers.qcow2.faults import DiskFailed, ImageRefused
from innkeeper.drivers.qcow2.places import full
from innkeeper.drivers.qcow2.render import OOM_SCORE, progress
from innkeeper.ports.tools import begin, end

Progress = Callable[[float], None]

_STDERR_KEPT = 4096
_NO_ROOM = "No space left on device"
_QUOTA = "Disk quota exceeded"
_TOO_LARGE = "File too large"
_LOCKED = "Is another process using the image"
_NO_PROGRAM = 127  # how choom, prlimit and setpriv end where there is nothing of the name that they are to start
_INSTALL = "Install it (Debian: packages qemu-utils and util-linux)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a tool in `folder`. `doing` is how messages call it; `fds` are inherited under their numbers."""

    doing: str
    argv: tuple[str, ...]
    folder: Path
    pool: Path
    fds: tuple[int, ...] = ()
    deadline_s: float


async def run(job: Run, said: Progress) -> None:
    """To its good end. When it is cancelled, or time is up, the tool is dead before this returns.

    Raises:
        PoolFull: there was no room for what it wrote.
        ImageRefused: it went over a limit, or found the image damaged.
        DiskFailed: the tool is missing, or did not end in time.
    """
    try:
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
        process = await begin(OOM_SCORE, job.argv, cwd=job.folder, pass_fds=job.fds, env=env, stdout=PIPE, stderr=PIPE)
    except FileNotFoundError as error:
        raise DiskFailed(f"{job.doing}: {error.filename} is missing", _INSTALL) from error
    try:
        async with asyncio.timeout(job.deadline_s), asyncio.TaskGroup() as group:
            group.create_task(_follow(process, said))
            complaint = group.create_task(_complaint(process))
            group.create_task(process.wait())
    except BaseException as failed:
        await asyncio.shield(end(process))
        if isinstance(failed, TimeoutError):
            words = f"{job.doing}: not done after {job.deadline_s:.0f} s, given up"
            raise DiskFailed(words, "Look at the load of the host and its disks, and try again") from failed
        raise
    if process.returncode:
        raise _failure(job, process.returncode, complaint.result())


async def _follow(process: Process, said: Progress) -> None:
    assert process.stdout is not None
    last = -1.0
    while text := await process.stdout.read(4096):
        fraction = progress(text.decode(errors="replace"))
        if fraction is not None and fraction > last:
            last = fraction
            said(fraction)


async def _complaint(process: Process) -> str:
    """The end of what it complains about, in printable characters: names in it may come from the image."""
    assert process.stderr is not None
    kept = b""
    while piece := await process.stderr.read(4096):
        kept = (kept + piece)[-_STDERR_KEPT:]
    return "".join(c if c.isprintable() else " " for c in kept.decode(errors="replace")).strip()


def _failure(job: Run, code: int, complaint: str) -> Exception:
    if _NO_ROOM in complaint or _QUOTA in complaint:
        return full(job.doing, job.pool)
    if code == _NO_PROGRAM:
        return DiskFailed(f"{job.doing}: a tool is missing ({complaint})", _INSTALL)
    if _LOCKED in complaint:
        return DiskFailed(f"{job.doing}: the disk is in use", "Stop the instance first")
    if -code == signal.SIGXCPU:
        return ImageRefused(f"{job.doing}: it took more computing than an image of its size can need")
    if -code == signal.SIGXFSZ or _TOO_LARGE in complaint:
        return ImageRefused(f"{job.doing}: it grew beyond the size it states")
    if -code == signal.SIGKILL:
        return DiskFailed(f"{job.doing}: the tool was killed", "Look for the OOM killer in the kernel's log")
    if code < 0:
        return ImageRefused(f"{job.doing}: the tool crashed (signal {-code})", "Open this image nowhere else")
    return ImageRefused(f"{job.doing}: {complaint or f'exit code {code}'}")
