"""Obeying orders: once, in order of generation, and never half.

    an order that was carried out        answers what it answered before
    an older one than was obeyed         is refused as stale
    the same one, still waiting          waits for the same answer
    a newer one while one waits          interrupts it
    everything else                      is carried out, noted, answered

Only asking a guest to shut down waits. It is kept as data (`_Stopping`) that a timer or the machine's end concludes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from innkeeper.model.actions import (
    Action,
    ApplyNetwork,
    BakeMemory,
    BuildTemplate,
    ConvergeNetwork,
    CreateDisk,
    DeleteDisk,
    DeleteMemory,
    DeleteTemplate,
    DiskAction,
    ForgetMachine,
    ImportTemplate,
    PauseMachine,
    PublishTemplate,
    ResumeMachine,
    StartMachine,
    StopMachine,
    TakeSnapshot,
    WriteSeed,
)
from innkeeper.model.ids import InstanceId, Kind, Ref
from innkeeper.model.observed import MachineState, Report
from innkeeper.model.work import Done, Order, Outcome, Refused
from innkeeper.ports.host import HostAway
from innkeeper.sim import machines
from innkeeper.sim.faults import Fault, Killed
from innkeeper.sim.long import LongOrders
from innkeeper.sim.snapshots import take
from innkeeper.sim.state import Key, SimSeed, SimState, key_of

Answer = Outcome | HostAway | Killed
_CONVERGE = "a host is given whole networks: the wanted state joins ConvergeNetwork as ApplyNetwork before it is sent"


class _Stopping:
    """A guest has been asked and has until a deadline."""

    def __init__(self, order: Order, fault: Fault | None) -> None:
        self.order = order
        self.fault = fault
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None

    def conclude(self, answer: Answer) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if not self.answer.done():
            self.answer.set_result(answer)


class Obeying:
    def __init__(self, state: SimState, tell: Callable[[Report], None]) -> None:
        self.long = LongOrders(state, tell)
        self._state = state
        self._tell = tell
        self._stopping: dict[str, _Stopping] = {}

    async def obey(self, order: Order, fault: Fault | None, user_data: bytes) -> Answer:
        """Carry out, then let the fault strike. Cancelling the caller changes nothing here."""
        self._state.settle()
        before = self._before(order)
        if before is not None:
            return _after(fault, before)
        waiting = self._stopping.get(order.about.id)
        if waiting is not None and key_of(waiting.order) == key_of(order):
            return await asyncio.shield(waiting.answer)
        if waiting is not None:
            self._interrupt(waiting, f"{order.about} was given a newer order", stale=True)
        action = order.action
        if isinstance(action, StopMachine) and action.grace_s > 0 and machines.hears(self._state, action.instance):
            return await asyncio.shield(self._ask_to_stop(order, action, fault).answer)
        return self._conclude(order, fault, self._effect(order, user_data))

    def is_done(self, order: Order) -> bool:
        return self._state.obedience.result(key_of(order)) is not None

    def cancel(self, key: Key) -> None:
        self._state.settle()
        self.long.cancel(key)
        for waiting in tuple(self._stopping.values()):
            if key_of(waiting.order) == key:
                self._interrupt(waiting, f"stopping {waiting.order.about} was cancelled", stale=False)

    def noticed(self, instance: InstanceId) -> None:
        """Something happened to a machine, and is reported. If a stop waited for its end, that is its answer."""
        waiting = self._stopping.get(instance) if instance not in self._state.machines else None
        if waiting is None:
            self._report(instance, self._state.obedience.generation(Ref(Kind.INSTANCE, instance)))
            return
        del self._stopping[instance]
        report = self._report(instance, waiting.order.generation)
        waiting.conclude(self._note(waiting.order, waiting.fault, Done(states=report)))

    def end(self) -> None:
        """Our process is dead, and so is everybody who waits in it."""
        stopping, self._stopping = self._stopping, {}
        for waiting in stopping.values():
            waiting.conclude(Killed("this agent's process has ended"))

    # --- before the effect

    def _before(self, order: Order) -> Done | Refused | None:
        done = self._state.obedience.result(key_of(order))
        if done is not None:
            return done
        if order.host != self._state.host:
            return Refused(reason=f"this is {self._state.host}, the order is for {order.host}")
        waiting = self._stopping.get(order.about.id)
        newest = self._state.obedience.generation(order.about)
        if waiting is not None:
            newest = max(newest, waiting.order.generation)
        if order.generation < newest:
            older = f"{order.about} has obeyed generation {newest}, newer than {order.generation}"
            return Refused(reason=older, hint="Look at the cluster again.", stale=True)
        if not order.undo and self._state.obedience.result(key_of(replace(order, undo=True))) is not None:
            return Refused(reason=f"this order about {order.about} was undone", hint="Look again.", stale=True)
        return None

    # --- the effect

    def _effect(self, order: Order, user_data: bytes) -> Outcome:
        action = order.action
        match action:
            case StartMachine() | StopMachine() | PauseMachine() | ResumeMachine() | ForgetMachine():
                return machines.carry_out(self._state, action)
            case CreateDisk() | DeleteDisk() | WriteSeed() | TakeSnapshot():
                return self._disk_effect(action, user_data)
            case ApplyNetwork():
                return self._state.networks.apply(action, self._state.cards()) or Done()
            case ConvergeNetwork():
                return Refused(reason=_CONVERGE)
            case BuildTemplate() | ImportTemplate() | PublishTemplate() | BakeMemory():
                return self.long.give(order, action)
            case DeleteTemplate():
                self.long.interrupt(action.template)
                return self._state.pool.delete_template(action.template) or Done()
            case DeleteMemory():
                self.long.interrupt(action.memory)
                self._state.pool.delete_memory(action.memory)
                return Done()
            case _:
                assert_never(action)

    def _disk_effect(self, action: DiskAction, user_data: bytes) -> Outcome:
        match action:
            case CreateDisk():
                return self._state.pool.create(action) or Done()
            case DeleteDisk():
                return self._state.pool.delete(action.volume, self._state.holders.get(action.volume)) or Done()
            case WriteSeed():
                self._state.seeds[action.instance] = SimSeed(action=action, user_data=user_data)
                return Done()
            case TakeSnapshot():
                taken = take(self._state, action)
                return taken if isinstance(taken, Refused) else Done(states=(taken,))
            case _:
                assert_never(action)

    def _ask_to_stop(self, order: Order, action: StopMachine, fault: Fault | None) -> _Stopping:
        waiting = _Stopping(order, fault)
        self._stopping[action.instance] = waiting
        reason = f"the guest did not shut down within {action.grace_s:g} s and was stopped by force"
        machines.ask_to_stop(self._state, action.instance)
        waiting.timer = self._state.clock.later(
            action.grace_s, lambda: machines.stop(self._state, action.instance, reason)
        )
        return waiting

    def _interrupt(self, waiting: _Stopping, why: str, stale: bool) -> None:
        """The guest was asked and may still shut down; but nobody waits for it, and nobody will force it."""
        del self._stopping[waiting.order.about.id]
        waiting.conclude(Refused(reason=why, stale=stale))

    # --- after the effect

    def _conclude(self, order: Order, fault: Fault | None, outcome: Outcome) -> Answer:
        if isinstance(outcome, Done):
            instance = _machine_of(order.action)
            if instance is not None:
                outcome = Done(states=(*self._report(instance, order.generation), *outcome.states))
            return self._note(order, fault, outcome)
        return _after(fault, outcome)

    def _note(self, order: Order, fault: Fault | None, done: Done) -> Answer:
        if fault not in (Fault.KILL_UNRECORDED, Fault.REFUSE_AFTER):
            self._state.obedience.note(order, done)
        return _after(fault, done)

    def _report(self, instance: InstanceId, generation: int) -> tuple[MachineState, ...]:
        report = machines.observe(self._state, instance, generation)
        if report is None:
            return ()
        self._state.known[instance] = report
        self._tell(report)
        return (report,)


def _machine_of(action: Action) -> InstanceId | None:
    """Whose state belongs to the answer."""
    if isinstance(action, StartMachine | StopMachine | PauseMachine | ResumeMachine | TakeSnapshot):
        return action.instance
    return None


def _after(fault: Fault | None, outcome: Outcome) -> Answer:
    """What comes back of an outcome."""
    match fault:
        case Fault.KILL_UNRECORDED | Fault.KILL_AFTER:
            return Killed("the agent's process died after an effect")
        case Fault.LOSE_ANSWER:
            return HostAway("the line went down before the answer came")
        case Fault.REFUSE_AFTER if not isinstance(outcome, Refused):
            return Refused(reason="the host failed after the effect", hint="Repair will find what it left.")
        case _:
            return outcome
