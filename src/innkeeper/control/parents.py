"""Parents of many operations that were asked for at once: opened first, and closed whatever becomes of the asking."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from innkeeper.control.submit import Asking
from innkeeper.model.ids import OperationId
from innkeeper.model.plans import Refusal
from innkeeper.model.work import Operation
from innkeeper.ports.clock import Clock
from innkeeper.ports.store import StoreFailed, Works

log = logging.getLogger(__name__)

_PAUSES_S = (0.1, 0.5, 2.0, 5.0)
_REST = "the request ended before this part was accepted"


class Parents:
    def __init__(self, works: Works, clock: Clock) -> None:
        self._works = works
        self._clock = clock

    async def open(self, parent: Operation, asking: Asking) -> Operation:
        """Whoever gets back another id than the parent's has asked before."""
        return await self._works.open_parent(parent, asking.key)

    async def close(self, parent: OperationId, refused: Sequence[Refusal]) -> Operation | None:
        """As it is then. None: the store would not, however often it was asked; the parent is still open."""
        reasons = tuple(str(refusal) for refusal in refused)
        for pause in (*_PAUSES_S, None):
            try:
                return await self._works.close_parent(parent, reasons, _REST)
            except StoreFailed as failed:
                log.error("operation %s cannot be closed: %s", parent, failed)
            if pause is not None:
                await self._clock.sleep(pause)
        log.error("operation %s stays open. Cancel it, or restart the daemon, which closes it", parent)
        return None
