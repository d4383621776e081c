"""Running one tool to its end, with its words: each line is heard, the last are kept for the error, and nothing
survives it.

A tool runs in a session of its own, so that it can be ended with all its children, also those that a package's script
put into the background: all of them hold the pipe that we read, and only when its end is reached is nobody left who
could still write or mount.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from innkeeper.drivers.images.render import OOM_SCORE
from innkeeper.ports.scores import scored
from innkeeper.ports.tasks import unbroken

_TAIL_LINES = 40
_END_DEADLINE_S = 30


class ToolFailed(Exception):
    """`tail` is what the tool said last. A code below zero is a signal."""

    def __init__(self, argv: Sequence[str], code: int, tail: tuple[str, ...]) -> None:
        super().__init__(f"{argv[0]} ended with {code}")
        self.code = code
        self.tail = tail


async def run(argv: Sequence[str], env: Mapping[str, str], hear: Callable[[str], None] = lambda line: None) -> None:
    """Run to the end. Cancelled, it kills the tool and returns only when all of it is gone.

    Raises:
        ToolFailed: it said no.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    starting = asyncio.create_subprocess_exec(
        *scored(OOM_SCORE, argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(env),
        start_new_session=True,
    )
    process = await unbroken(starting, _end)
    assert process.stdout is not None
    try:
        await _listen(process.stdout, tail, hear)
        code = await process.wait()
    except BaseException:
        await asyncio.shield(_end(process))
        raise
    if code:
        raise ToolFailed(argv, code, tuple(tail))


async def _listen(out: asyncio.StreamReader, tail: deque[str], hear: Callable[[str], None]) -> None:
    rest = b""
    while chunk := await out.read(65536):
        *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        # A tool that never ends a line must not fill our memory.
        rest = rest[-65536:]
        for line in lines:
            if text := line.decode(errors="replace").rstrip():
                tail.append(text)
                hear(text)
    if rest:
        tail.append(rest.decode(errors="replace"))


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    async with asyncio.timeout(_END_DEADLINE_S):
        while await process.stdout.read(65536):
            pass
        await process.wait()
