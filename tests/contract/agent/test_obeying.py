"""Orders that cross each other: whatever comes when, work about one object is done one piece at a time and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from innkeeper.agent.faults import CannotObey
from innkeeper.agent.kept.records import Records
from innkeeper.agent.orders.obeying import Obeying
from innkeeper.model.observed import State
from innkeeper.model.work import Done, Order, Outcome, Refused
from tests.contract.agent.orders import stop


@dataclass
class Work:
    """Takes its time, and longer to let go when it is interrupted; sees to it that nobody else is at work meanwhile."""

    takes_s: float = 0.02
    lets_go_s: float = 0.02
    failures: list[Exception] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    at_work: set[int] = field(default_factory=set, init=False)

    async def carry_out(self, order: Order) -> Done:
        assert not self.at_work
        self.at_work.add(order.generation)
        self.begun.append(order.generation)
        try:
            if self.failures:
                raise self.failures.pop(0)
            await asyncio.sleep(self.takes_s)
            self.ended.append(order.generation)
            return Done()
        except asyncio.CancelledError:
            await asyncio.sleep(self.lets_go_s)
            raise
        finally:
            self.at_work.discard(order.generation)

    async def states(self, order: Order) -> tuple[State, ...]:
        return ()


class _Over(Exception):
    """Ends what is still under way."""


@asynccontextmanager
async def obeying(root: Path, work: Work) -> AsyncIterator[Obeying]:
    try:
        async with asyncio.TaskGroup() as group:
            yield Obeying(Records(root), group, work.carry_out, work.states)
            raise _Over
    except* _Over:
        pass  # it has done its work: all tasks have ended


async def test_of_several_newer_orders_the_newest_is_carried_out(tmp_path: Path) -> None:
    work = Work()
    async with obeying(tmp_path, work) as agent, asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[Outcome]] = []
        for generation in range(1, 6):
            tasks.append(group.create_task(agent.give(stop(generation))))
            await asyncio.sleep(0.005)
    *interrupted, last = (task.result() for task in tasks)
    assert isinstance(last, Done)
    assert [isinstance(outcome, Refused) and outcome.stale for outcome in interrupted] == [True] * 4
    assert work.ended == [5]


async def test_newer_orders_given_in_the_same_moment_do_not_meet(tmp_path: Path) -> None:
    work = Work()
    async with obeying(tmp_path, work) as agent, asyncio.TaskGroup() as group:
        first = group.create_task(agent.give(stop(1)))
        await asyncio.sleep(0.005)
        newer = stop(2)
        tasks = [group.create_task(agent.give(order)) for order in (newer, newer, stop(3), stop(2))]
    assert isinstance(first.result(), Refused)
    assert isinstance(tasks[2].result(), Done)
    assert work.ended == [3]


async def test_an_order_that_was_undone_is_not_carried_out_again(tmp_path: Path) -> None:
    work = Work()
    order, undo = stop(1, operation="op-1"), stop(1, operation="op-1", undo=True)
    async with obeying(tmp_path, work) as agent, asyncio.TaskGroup() as group:
        given = group.create_task(agent.give(order))
        await asyncio.sleep(0.005)
        undoing = group.create_task(agent.give(undo))
        await asyncio.sleep(0.005)
        during = await agent.give(order)
    assert isinstance(given.result(), Refused)
    assert isinstance(undoing.result(), Done)
    async with obeying(tmp_path, work) as agent:
        after = await agent.give(order)
    assert [isinstance(outcome, Refused) and outcome.stale for outcome in (during, after)] == [True, True]


async def test_what_was_refused_is_tried_again_when_it_is_given_again(tmp_path: Path) -> None:
    work = Work(failures=[CannotObey("no"), OSError(28, "No space left on device"), RuntimeError("a fault of ours")])
    order = stop(1)
    async with obeying(tmp_path, work) as agent:
        refusals = [await agent.give(order) for _ in range(3)]
        assert isinstance(await agent.give(order), Done)
        assert not agent.busy()
    reasons = [outcome.reason for outcome in refusals if isinstance(outcome, Refused)]
    assert reasons[0] == "no"
    assert "No space left" in reasons[1]
    assert "a fault in Innkeeper itself" in reasons[2]  # and the agent lives on


async def test_a_caller_that_leaves_interrupts_nothing(tmp_path: Path) -> None:
    work = Work()
    order = stop(1)
    async with obeying(tmp_path, work) as agent:
        async with asyncio.TaskGroup() as group:
            caller = group.create_task(agent.give(order))
            await asyncio.sleep(0.005)
            caller.cancel()
        assert isinstance(await agent.give(order), Done)
    assert (work.begun, work.ended) == ([1], [1])


async def test_cancelling_ends_what_is_under_way(tmp_path: Path) -> None:
    work = Work(takes_s=60)
    order = stop(1)
    async with obeying(tmp_path, work) as agent, asyncio.TaskGroup() as group:
        given = group.create_task(agent.give(order))
        await asyncio.sleep(0.005)
        agent.cancel(order.operation, order.step)
        agent.cancel(order.operation, order.step)
    assert given.result() == Refused(reason="cancelled")
    assert work.ended == []


async def test_a_next_order_waits_for_who_still_lets_go(tmp_path: Path) -> None:
    """The second is cancelled before it began, and its answer fetched, while the first has not let go yet."""
    work = Work(takes_s=60, lets_go_s=0.1)
    second = stop(2)
    async with obeying(tmp_path, work) as agent, asyncio.TaskGroup() as group:
        first = group.create_task(agent.give(stop(1)))
        await asyncio.sleep(0.005)
        asked = group.create_task(agent.give(second))
        await asyncio.sleep(0)
        agent.cancel(second.operation, second.step)
        assert isinstance(await asked, Refused)
        work.takes_s = 0.01
        assert isinstance(await agent.give(stop(3)), Done)
        assert not agent.busy()
    assert isinstance(first.result(), Refused)
    assert work.ended == [3]
