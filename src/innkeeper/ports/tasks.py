"""Work that must not be left half-done, and work that must not take the rest with it when it fails.

A fault of ours in one loop is logged as one, and neither ends the others nor goes unseen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

log = logging.getLogger(__name__)

PAUSE_FIRST_S = 1.0
PAUSE_MOST_S = 60.0

T = TypeVar("T")


async def until_ended(work: asyncio.Future[Any]) -> None:
    """Return once this has ended, however it ended.

    Cancelled, it still waits for that end and only then passes the cancellation on: whoever comes next finds nothing
    under way.
    """
    cancelled = False
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


async def to_the_end(work: Callable[[], T], threads: Executor | None = None) -> T:
    """Blocking work in a thread, which has ended when this returns, also when it returns because of a cancellation.

    So what comes after, such as closing a descriptor or removing a folder, never happens under the thread's feet. Keep
    pieces of work short: a cancellation waits for the end of one.
    """
    running = asyncio.get_running_loop().run_in_executor(threads, work)
    try:
        await until_ended(running)
    except asyncio.CancelledError:
        if not running.cancelled():
            running.exception()  # what went wrong in it no longer matters to anybody
        raise
    return running.result()


async def unbroken(work: Coroutine[Any, Any, T], take_back: Callable[[T], Awaitable[None]]) -> T:
    """Short work that makes something. Cancelled meanwhile, it is seen to its end, and what it made is taken back."""
    making = asyncio.get_running_loop().create_task(work)
    try:
        await until_ended(making)
    except asyncio.CancelledError:
        if not making.cancelled() and making.exception() is None:
            await take_back(making.result())
        raise
    return making.result()


async def contained(what: str, work: Awaitable[None]) -> None:
    """For a task of its own whose failure is to be heard of, and is nobody else's."""
    try:
        await work
    except Exception:
        log.exception("%s failed in a way nobody thought of", what)


async def steady(what: str, loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop; where it fails in a way nobody thought of, log that and run it again after a growing pause.

    It ends when the loop ends by itself, or is cancelled.
    """
    pause_s = PAUSE_FIRST_S
    while True:
        try:
            await loop()
            return
        except Exception:
            log.exception("%s failed in a way nobody thought of; it goes on in %g s", what, pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, PAUSE_MOST_S)
