"""Running one tool to its end, with its words: each line is heard, the last are kept for the error, and nothing
survives it.
"""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE, STDOUT
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from innkeeper.drivers.images.render import OOM_SCORE
from innkeeper.ports.tools import begin, end

_TAIL_LINES = 40


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
    process = await begin(OOM_SCORE, argv, stdout=PIPE, stderr=STDOUT, env=dict(env))
    assert process.stdout is not None
    try:
        await _listen(process.stdout, tail, hear)
        code = await process.wait()
    except BaseException:
        await asyncio.shield(end(process))
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
