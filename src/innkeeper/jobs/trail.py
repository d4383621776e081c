"""The trail of one operation: what happened to it, written in order.

A step's record is not waited for before the next step begins: if it is lost with our process, the step is given
again and found done. So one commit, that of the acceptance, precedes QEMU's start. What turns the operation
(undoing, ending) is written only when all before it is, and is waited for.
"""

from __future__ import annotations

import asyncio
import logging

from innkeeper.model.ids import OperationId
from innkeeper.model.work import Record
from innkeeper.ports.clock import Clock
from innkeeper.ports.store import StoreFailed, Works

log = logging.getLogger(__name__)


class TakenOver(Exception):
    """Another operation has taken this one's claims: its worker stops where it is."""

    def __init__(self, operation: OperationId) -> None:
        super().__init__(operation)


class Trail:
    """`pause_s` is how long a store without room is left alone before it is asked again."""

    def __init__(self, works: Works, clock: Clock, group: asyncio.TaskGroup, pause_s: float) -> None:
        self._works = works
        self._clock = clock
        self._group = group
        self._pause_s = pause_s
        self._under_way: list[asyncio.Task[bool]] = []

    def soon(self, record: Record) -> None:
        """Write it with the next commit."""
        self._under_way.append(self._group.create_task(self._written(record)))

    async def now(self, record: Record) -> None:
        """Write it after all before it; durable when this returns.

        Raises:
            TakenOver: the operation is over.
        """
        written = [await task for task in self._under_way]
        self._under_way.clear()
        if not all(written) or not await self._written(record):
            raise TakenOver(record.operation)

    async def _written(self, record: Record) -> bool:
        """A store without room takes records again once there is some; until then the operation stands still."""
        while True:
            try:
                return await self._works.record(record)
            except StoreFailed as failed:
                log.error("operation %s waits for the store: %s", record.operation, failed)
                await self._clock.sleep(self._pause_s)
