"""Tools that drivers run: each in a session of its own, so that it ends with all that it began, and dying with us.

A tool's children hold the pipes that we read, also those that a package's script put into the background: only when
the end of these pipes is reached is nobody left who could still write or mount.

Where nobody can end it any more, because we were killed, the kernel does: at once, but only the tool itself. One that
has children who must not write on runs in a process namespace, whose first process dies with it and takes the rest.
What is to outlive us (QEMU, a network's services) is not begun here.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from typing import Any

from innkeeper.ports.scores import scored
from innkeeper.ports.tasks import unbroken

_END_DEADLINE_S = 30
# The kernel forgets it where a program becomes another user or comes by more rights: such ones say it again.
_DYING_WITH_US = ("/usr/bin/setpriv", "--pdeathsig=KILL", "--")


async def begin(score: int, argv: Sequence[str], **more: Any) -> Process:
    """The tool, which reads nothing and has this score when memory runs out; `more` as for asyncio's subprocesses.

    Cancelled meanwhile, nothing of it runs on. It dies with the thread of the loop that this is awaited in.
    """
    words = (*_DYING_WITH_US, *scored(score, argv))
    return await unbroken(asyncio.create_subprocess_exec(*words, stdin=DEVNULL, start_new_session=True, **more), end)


async def end(process: Process) -> None:
    """At once, with its children, also where it itself has ended and they have not."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nobody is left
    async with asyncio.timeout(_END_DEADLINE_S):
        for pipe in (process.stdout, process.stderr):
            while pipe is not None and await pipe.read(65536):
                pass
        await process.wait()
