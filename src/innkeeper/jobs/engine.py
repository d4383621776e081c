"""The engine: takes durable operations and carries their plans out, step by step, until each has ended.

The theory. A plan was committed before its first order; that commit is the only one that precedes an effect. Orders
are safe to give twice, so nothing is written before an order, only after it: a worker that dies between effect and
record leaves a step that is simply given again. States and ways between them:

    forward: give step `done`; recorded done+1 … all done -> finish, SUCCEEDED
       | refused, or cancelled at a step's boundary, and no step done has NO_WAY_BACK
       v
    undoing: retreat; undo step done-1 … none done -> abandon, FAILED or CANCELLED

Past a NO_WAY_BACK step there is only forward: a refusal is tried again with growing pauses, and at last the
operation fails where it stands; repair goes on from the rows. A host that does not answer is asked again until its
patience is over, since its silence says nothing about the effect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from innkeeper.jobs.execute import OncePerPicture, order_for, undo_for
from innkeeper.jobs.trail import TakenOver, Trail
from innkeeper.jobs.turns import Turn, Turns
from innkeeper.model.actions import ConvergeNetwork, StopMachine
from innkeeper.model.ids import HostId, OperationId
from innkeeper.model.observed import State
from innkeeper.model.plans import NoUndo
from innkeeper.model.work import (
    Accepted,
    Done,
    Moment,
    Operation,
    OperationState,
    Order,
    Outcome,
    Record,
    Refused,
    Work,
)
from innkeeper.ports.clock import Clock
from innkeeper.ports.host import HostAway, HostPort
from innkeeper.ports.store import Contradiction, Pictures, Works

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long and how often. `away_s` bounds the silence of a host, `tries` the refusals past the point of no return.

    `at_once` is how many operations are worked on at once; those that wait for others do not count.
    """

    away_s: float = 120.0
    pause_first_s: float = 0.2
    pause_most_s: float = 10.0
    ask_again_s: float = 0.5
    tries: int = 5
    at_once: int = 64


_CANCELLED = Refused(reason="cancelled")


class Engine:
    """One per process. `run` never returns; cancelling it is like kill -9, nothing is lost."""

    def __init__(
        self, works: Works, pictures: Pictures, hosts: Mapping[HostId, HostPort], clock: Clock, patience: Patience
    ) -> None:
        self._works = works
        self._pictures = pictures
        self._hosts = hosts
        self._clock = clock
        self._patience = patience
        self._project = OncePerPicture()
        self._turns: dict[OperationId, Turn] = {}

    async def run(self) -> None:
        turns = Turns(self._patience.at_once)
        async with asyncio.TaskGroup() as group:
            while True:
                turn = await turns.next()
                for work in await self._works.take(1):
                    group.create_task(self._work(work, turn), name=f"operation {work.operation.id}")

    async def _work(self, work: Work, turn: Turn) -> None:
        self._turns[work.operation.id] = turn
        try:
            async with asyncio.TaskGroup() as group:
                trail = Trail(self._works, self._clock, group, self._patience.pause_most_s)
                await self._carry_out(work, trail)
        except* TakenOver:
            log.info("operation %s (%s) was taken over and stops here", work.operation.id, work.operation.title)
        except* Exception:
            log.exception(
                "operation %s (%s) failed in a way nobody thought of", work.operation.id, work.operation.title
            )
            await self._give_up(work)
        finally:
            turn.end()
            del self._turns[work.operation.id]

    async def _give_up(self, work: Work) -> None:
        """A fault of ours ends the one operation that it struck; what it leaves on its host is repair's.

        Where the plan leads to a point of no return its rows stay as accepted, else they go back.
        """
        onward = any(s.undo is NoUndo.NO_WAY_BACK for s in work.plan.steps)
        fault = Refused(reason="a fault in Innkeeper itself", hint="Please report it with the daemon's log")
        ended = self._stepped(_because(work, fault), 0, OperationState.FAILED).operation
        standing = replace(ended, done=max(1, ended.done))
        try:
            try:
                await self._works.record(_record(standing if onward else replace(ended, done=0), Moment.ENDED))
            except Contradiction:
                # Not even the way back can be written down: then the rows stay, and what they claim becomes free.
                await self._works.record(_record(standing, Moment.ENDED))
        except Exception:
            # Raised, it would end all other work.
            log.exception("operation %s stays open until the next start", ended.id)

    async def _carry_out(self, work: Work, trail: Trail) -> None:
        if work.operation.state is OperationState.UNDOING:
            await self._undo(work, trail)
            return
        while work.operation.done < len(work.plan.steps):
            if self._works.cancel_wanted(work.operation.id) and _way_back(work):
                await self._retreat(work, trail, _CANCELLED)
                return
            outcome = await self._forward(work)
            if isinstance(outcome, Refused):
                await self._refused(work, trail, outcome)
                return
            work = self._stepped(work, 1, OperationState.RUNNING)
            trail.soon(_record(work.operation, Moment.STEP_DONE, outcome.states))
        await self._turned(work, trail, Moment.ENDED, OperationState.SUCCEEDED)

    # --- forward

    async def _forward(self, work: Work) -> Done | Refused:
        """The next step's outcome. Past the point of no return refusals are tried again."""
        number = work.operation.done
        pause = self._patience.pause_first_s
        tries = 1
        while True:
            step = work.plan.steps[number]
            order = order_for(self._pictures.cluster(), work.operation, number, step, self._project)
            outcome = Done() if order is None else await self._give(order)
            if isinstance(outcome, Done) or tries == self._patience.tries or not _worth_another_try(work, outcome):
                return outcome
            log.warning("%s: %s refused: %s; trying again", work.operation.title, order, outcome.reason)
            await self._waited(work.operation.id, pause)
            pause = min(pause * 2, self._patience.pause_most_s)
            tries += 1

    async def _refused(self, work: Work, trail: Trail, outcome: Refused) -> None:
        if _way_back(work):
            cancelled = self._works.cancel_wanted(work.operation.id)
            await self._retreat(work, trail, _CANCELLED if cancelled else outcome)
        else:
            await self._turned(_because(work, outcome), trail, Moment.ENDED, OperationState.FAILED)

    # --- back

    async def _retreat(self, work: Work, trail: Trail, why: Refused) -> None:
        undoing = await self._turned(_because(work, why), trail, Moment.UNDO_BEGUN, OperationState.UNDOING)
        await self._undo(undoing, trail)

    async def _undo(self, work: Work, trail: Trail) -> None:
        """The refused step is undone too.

        Its host promises that nothing half-made remains, but a lost answer promises nothing.
        """
        standing = min(work.operation.done + 1, len(work.plan.steps))
        problems: list[str] = []
        for number in reversed(range(standing)):
            step = work.plan.steps[number]
            order = undo_for(self._pictures.cluster(), work.operation, number, step, self._project)
            outcome = Done() if order is None else await self._give(order)
            if isinstance(outcome, Refused):
                problems.append(f"could not be undone: {outcome.reason}; repair goes on")
                log.error("%s: undoing step %d: %s", work.operation.title, number, outcome.reason)
            if number < work.operation.done:
                work = self._stepped(work, -1, OperationState.UNDOING)
                trail.soon(_record(work.operation, Moment.STEP_UNDONE))
        cancelled = work.operation.error == _CANCELLED.reason
        state = OperationState.CANCELLED if cancelled else OperationState.FAILED
        error = "; ".join([work.operation.error, *problems])
        ended = _because(work, Refused(reason=error, hint=work.operation.hint))
        await self._turned(ended, trail, Moment.ENDED, state)

    # --- one order

    async def _give(self, order: Order) -> Done | Refused:
        """The order's final outcome: long ones are asked again, silence is waited out, cancelling is passed on."""
        silence = 0.0
        pause = self._patience.pause_first_s
        while True:
            try:
                outcome = await self._given(order)
            except HostAway as away:
                if silence >= self._patience.away_s:
                    return Refused(reason=f"{order.host} does not answer: {away}", hint="See: inn host list")
                silence += pause
                await self._waited(order.operation, pause)
                pause = min(pause * 2, self._patience.pause_most_s)
                continue
            except Exception as fault:
                # A fault of ours in one order must not stop all other work; it is told as what it is.
                log.exception("%s failed in a way nobody thought of", order)
                return Refused(
                    reason=f"a fault in Innkeeper itself: {fault!r}", hint="Please report it with the daemon's log"
                )
            silence, pause = 0.0, self._patience.pause_first_s
            if not isinstance(outcome, Accepted):
                return outcome
            if not order.undo and self._works.cancel_wanted(order.operation):
                await self._host(order).cancel(order.operation, order.step)
            await self._waited(order.operation, self._patience.ask_again_s)

    async def _given(self, order: Order) -> Outcome:
        host, action = self._host(order), order.action
        if not isinstance(action, StopMachine) or action.grace_s == 0:
            return await host.give(order)
        async with self._turns[order.operation].lent():  # its guest takes its time
            pause = partial(self._clock.sleep, self._patience.ask_again_s)
            return await _unless_cancelled(host, order, partial(self._works.cancel_wanted, order.operation), pause)

    async def _waited(self, operation: OperationId, pause_s: float) -> None:
        async with self._turns[operation].lent():
            await self._clock.sleep(pause_s)

    def _host(self, order: Order) -> HostPort:
        host = self._hosts.get(order.host)
        if host is None:
            raise HostAway(f"there is no line to {order.host}")
        return host

    # --- what stands then

    def _stepped(self, work: Work, step: int, state: OperationState) -> Work:
        operation = work.operation
        done = operation.done + step
        return replace(work, operation=replace(operation, state=state, done=done, updated_at=self._clock.now()))

    async def _turned(self, work: Work, trail: Trail, moment: Moment, state: OperationState) -> Work:
        """The operation takes a turn, which is durable when this returns."""
        work = self._stepped(work, 0, state)
        await trail.now(_record(work.operation, moment))
        return work


async def _unless_cancelled(
    host: HostPort, order: Order, cancelled: Callable[[], bool], pause: Callable[[], Awaitable[None]]
) -> Outcome:
    """Answered once the order is carried out, or soon after nobody wants that any more."""

    async def pass_on() -> None:
        while order.undo or not cancelled():
            await pause()
        await host.cancel(order.operation, order.step)

    outcome: Outcome | HostAway
    async with asyncio.TaskGroup() as group:
        passing = group.create_task(pass_on())
        try:
            outcome = await host.give(order)
        except HostAway as away:
            outcome = away
        finally:
            passing.cancel()
    if isinstance(outcome, HostAway):
        raise outcome
    return outcome


def _because(work: Work, why: Refused) -> Work:
    return replace(work, operation=replace(work.operation, error=why.reason, hint=why.hint))


def _record(operation: Operation, moment: Moment, states: tuple[State, ...] = ()) -> Record:
    return Record(
        operation=operation.id,
        moment=moment,
        state=operation.state,
        done=operation.done,
        at=operation.updated_at,
        error=operation.error,
        hint=operation.hint,
        states=states,
    )


def _worth_another_try(work: Work, refused: Refused) -> bool:
    """A whole state that was overtaken by a newer one is made anew.

    Past the point of no return there is only forward.
    """
    if refused.stale:
        return isinstance(work.plan.steps[work.operation.done].action, ConvergeNetwork)
    return not _way_back(work)


def _way_back(work: Work) -> bool:
    """Whether everything done so far can be undone."""
    done = work.plan.steps[: work.operation.done]
    return not any(s.undo is NoUndo.NO_WAY_BACK for s in done)
