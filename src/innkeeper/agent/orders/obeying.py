"""Obeying orders: once, in order of generation, and never half.

    an order that was carried out       is answered Done again, without a second effect
    one that was undone                 is refused as stale, and so is an older one than was obeyed
    the same one, under way             is waited for
    a newer one while one is under way  interrupts it, and begins once that has ended
    everything else                     is carried out, noted, answered

Each order is carried out by a task of the agent's, not of the caller's: a caller that goes away interrupts nothing.
Making a template or a memory image takes its time and is accepted after a moment; everything else is waited for, within
reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from innkeeper.agent.faults import refusal_of
from innkeeper.agent.kept.records import Records, order_name, undo_name
from innkeeper.model.actions import LongAction
from innkeeper.model.ids import OperationId, Ref
from innkeeper.model.observed import State
from innkeeper.model.work import Accepted, Done, Order, Outcome, Refused
from innkeeper.ports.host import HostAway
from innkeeper.ports.tasks import until_ended

log = logging.getLogger(__name__)

# How long a caller waits before it hears that the order takes longer.
LONG_ORDER_S, OTHER_ORDER_S = 0.5, 120.0
# How long a refusal waits for somebody to ask for it.
ANSWER_KEPT_S = 600.0

CarryOut = Callable[[Order], Awaitable[Done]]
_Task: TypeAlias = asyncio.Task[Done | Refused]
StatesOf = Callable[[Order], Awaitable[tuple[State, ...]]]


@dataclass(slots=True, kw_only=True, eq=False)
class _UnderWay:
    order: Order
    task: _Task
    interrupted: Refused | None = None

    def interrupt(self, why: Refused) -> None:
        """What has ended stays as it ended."""
        if not self.task.done():
            self.interrupted = why
            self.task.cancel()

    def outcome(self) -> Done | Refused:
        """Once the task has ended."""
        if self.task.cancelled():
            if self.interrupted is None:
                raise HostAway("the agent of this host is stopping")
            return self.interrupted
        outcome = self.task.result()
        return outcome if isinstance(outcome, Done) or self.interrupted is None else self.interrupted


class Obeying:
    """`carry_out` does an order's work or raises a driver's failure; `states` are what belongs to its answer."""

    def __init__(self, records: Records, group: asyncio.TaskGroup, carry_out: CarryOut, states: StatesOf) -> None:
        self._records = records
        self._group = group
        self._carry_out = carry_out
        self._states = states
        self._under_way: dict[Ref, _UnderWay] = {}
        # Tasks about each object that have not ended; all but one are letting go.
        self._at_work: dict[Ref, set[_Task]] = {}

    async def give(self, order: Order) -> Outcome:
        if self._records.is_done(order):
            return Done(states=await self._states(order))
        current = self._under_way.get(order.about)
        if current is not None and order_name(current.order) == order_name(order):
            return await self._answer(current)
        late = self._too_late(order, current)
        if late is not None:
            return late
        # From here to the entry nothing is awaited: of two newer orders, the second interrupts the first.
        at_work = self._at_work.setdefault(order.about, set())
        if current is not None:
            current.interrupt(Refused(reason=f"{order.about} was given a newer order", stale=True))
        task = self._group.create_task(self._work(order, tuple(at_work)), name=order_name(order))
        at_work.add(task)
        begun = self._under_way[order.about] = _UnderWay(order=order, task=task)
        task.add_done_callback(lambda _: self._ended(begun))
        return await self._answer(begun)

    async def at_once(self, order: Order) -> Outcome:
        """For whole states, which carry their own generation: neither noted nor interrupted."""
        task = self._group.create_task(self._work(order, (), noted=False), name=order_name(order))
        await asyncio.wait({task}, timeout=OTHER_ORDER_S)
        return _UnderWay(order=order, task=task).outcome() if task.done() else Accepted()

    def cancel(self, operation: OperationId, step: int) -> None:
        for current in self._under_way.values():
            if (current.order.operation, current.order.step, current.order.undo) == (operation, step, False):
                current.interrupt(Refused(reason="cancelled"))

    def busy(self) -> frozenset[Ref]:
        """What orders are under way about."""
        return frozenset(self._at_work)

    def _too_late(self, order: Order, current: _UnderWay | None) -> Refused | None:
        undoing = current is not None and not order.undo and order_name(current.order) == undo_name(order)
        if undoing or self._records.is_undone(order):
            return Refused(reason=f"this order about {order.about} was undone", hint="Look again", stale=True)
        newest = max(self._records.of(order.about).generation, current.order.generation if current else 0)
        if order.generation >= newest:
            return None
        older = f"{order.about} has obeyed generation {newest}, newer than {order.generation}"
        return Refused(reason=older, hint="Look at the cluster again", stale=True)

    async def _answer(self, current: _UnderWay) -> Outcome:
        long = isinstance(current.order.action, LongAction)
        await asyncio.wait({current.task}, timeout=LONG_ORDER_S if long else OTHER_ORDER_S)
        if not current.task.done():
            return Accepted()
        self._forget(current)
        return current.outcome()

    def _ended(self, current: _UnderWay) -> None:
        """What was done stands in the records. A refusal is kept for who asks, but not for ever."""
        at_work = self._at_work[current.order.about]
        at_work.discard(current.task)
        if not at_work:
            del self._at_work[current.order.about]
        if not current.task.cancelled() and isinstance(current.task.result(), Done):
            self._forget(current)
        else:
            asyncio.get_running_loop().call_later(ANSWER_KEPT_S, self._forget, current)

    def _forget(self, current: _UnderWay) -> None:
        if self._under_way.get(current.order.about) is current:
            del self._under_way[current.order.about]

    async def _work(self, order: Order, before: tuple[_Task, ...], *, noted: bool = True) -> Done | Refused:
        # All of them: one that was interrupted before it began has waited for nobody.
        for task in before:
            await until_ended(task)
        try:
            done = await self._carry_out(order)
            if noted:
                self._records.note(order)
            return done
        except Exception as failure:
            known = refusal_of(failure)
            if known is not None:
                return known
            # A fault of ours in one order must not end the agent with all that it watches.
            log.exception("%s failed in a way nobody thought of", order_name(order))
            return Refused(reason=f"a fault in Innkeeper itself: {failure!r}", hint="Please report it with the log")
