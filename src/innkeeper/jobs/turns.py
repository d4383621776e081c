"""Turns: how many operations are worked on at once.

An operation that waits for somebody else (a guest that is asked to shut down, a host that is away, a template that
is built) lends its turn meanwhile: however many wait, the next one is taken, above all the one that ends their waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Turn:
    """Of one operation; given back once, whoever ends it."""

    def __init__(self, room: asyncio.Semaphore) -> None:
        self._room = room
        self._held = True

    @contextlib.asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """For the time of a wait. It is taken again before the block is left, unless by an exception."""
        self.end()
        yield
        await self._room.acquire()
        self._held = True

    def end(self) -> None:
        """May be repeated."""
        if self._held:
            self._held = False
            self._room.release()


class Turns:
    def __init__(self, at_once: int) -> None:
        self._room = asyncio.Semaphore(at_once)

    async def next(self) -> Turn:
        await self._room.acquire()
        return Turn(self._room)
