"""What is published: the picture, the unended operations, who waits for them, and the feed's recent end.

Lives on the event loop alone. The writing thread hands over one publication after each commit, whole, so that whoever
was told of a change finds it in the picture.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from innkeeper.model.ids import OperationId
from innkeeper.model.work import Operation, Work
from innkeeper.ports.store import Event, StoreFailed, TooOld
from innkeeper.store.work.load import Loaded
from innkeeper.store.work.standing import Standing

_RECENT = 2_000
_TAIL = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One commit's outcome. `floor` is the greatest revision that is no longer kept."""

    standing: Standing
    changed: tuple[Operation, ...]
    begun: tuple[OperationId, ...]
    events: tuple[Event, ...]
    floor: int


class Board:
    def __init__(self, loaded: Loaded) -> None:
        self.standing = loaded.standing
        self.floor = loaded.floor
        self._recent: OrderedDict[OperationId, Operation] = OrderedDict()
        self._tail: deque[Event] = deque(maxlen=_TAIL)
        self._waiting: deque[OperationId] = deque(loaded.waiting)
        self._arrived = asyncio.Event()
        self._changed = asyncio.Event()
        self._ends: dict[OperationId, asyncio.Event] = {}
        self._closed: BaseException | None = None
        self._over = asyncio.Event()

    @property
    def revision(self) -> int:
        return self.standing.cluster.revision

    def publish(self, news: Publication) -> None:
        self.standing = news.standing
        self.floor = news.floor
        self._tail.extend(news.events)
        for operation in news.changed:
            if operation.state.ended:
                self._end(operation)
        self._waiting.extend(news.begun)
        if news.begun:
            self._arrived.set()
        if news.events:
            self._changed.set()
            self._changed = asyncio.Event()

    def close(self, why: BaseException) -> None:
        """Whoever waits is told; nothing is published any more."""
        self._closed = why
        self._over.set()
        self._arrived.set()
        self._changed.set()
        for end in self._ends.values():
            end.set()

    async def over(self) -> BaseException | None:
        """Why nothing is published any more, once that is so."""
        await self._over.wait()
        return self._closed

    def _end(self, operation: Operation) -> None:
        self._recent[operation.id] = operation
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        if (end := self._ends.pop(operation.id, None)) is not None:
            end.set()

    # --- operations

    def operation(self, id: OperationId) -> Operation | None:
        """One that is unended, or ended lately. None says nothing."""
        return self.standing.operations.get(id) or self._recent.get(id)

    async def take(self, limit: int) -> tuple[Work, ...]:
        while True:
            taken: list[Work] = []
            while self._waiting and len(taken) < limit:
                id = self._waiting.popleft()
                # One may have ended before anybody took it: its claims were taken over.
                if id in self.standing.operations:
                    taken.append(Work(operation=self.standing.operations[id], plan=self.standing.plans[id]))
            if taken:
                return tuple(taken)
            self._raise_if_closed()
            self._arrived.clear()
            await self._arrived.wait()

    async def ended(self, id: OperationId, timeout_s: float) -> None:
        """Returns when the operation is not, or no longer, among the unended ones, or when time is up."""
        if id not in self.standing.operations:
            return
        end = self._ends.setdefault(id, asyncio.Event())
        try:
            async with asyncio.timeout(timeout_s):
                await end.wait()
        except TimeoutError:
            return  # the caller shows the operation as it is
        self._raise_if_closed()

    # --- the feed

    def since(self, revision: int) -> Sequence[Event] | None:
        """The events after a revision, from memory. None: they are further back than memory goes.

        Raises:
            TooOld: they are kept nowhere; or the reader comes from a future that this store has not seen.
        """
        self._raise_if_closed()
        if not self.floor <= revision <= self.revision:
            raise TooOld(f"events after {revision} are not kept; there are those from {self.floor} to {self.revision}")
        if revision == self.revision:
            return ()
        if not self._tail or self._tail[0].revision > revision + 1:
            return None
        tail = list(self._tail)
        return tail[bisect_right(tail, revision, key=lambda event: event.revision) :]

    async def news(self) -> None:
        """Returns after the next publication with events."""
        await self._changed.wait()

    def _raise_if_closed(self) -> None:
        if self._closed is not None:
            raise self._closed


def closed() -> StoreFailed:
    return StoreFailed("the store is closed: the daemon is stopping")
