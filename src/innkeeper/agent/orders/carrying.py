"""The one door to effects on this host: a match for each family of orders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from innkeeper.agent.faults import CannotObey
from innkeeper.agent.kept.outbox import Outbox
from innkeeper.agent.orders.baking import Baking
from innkeeper.agent.orders.disks import Disks
from innkeeper.agent.orders.networks import Networks
from innkeeper.agent.orders.snapshots import Snapshots
from innkeeper.agent.orders.starting import Starting
from innkeeper.agent.orders.templates import Templates
from innkeeper.agent.watching.machines import Machines
from innkeeper.agent.watching.roster import Roster
from innkeeper.model.actions import (
    ApplyNetwork,
    BakeMemory,
    BuildTemplate,
    ConvergeNetwork,
    CreateDisk,
    DeleteDisk,
    DeleteMemory,
    DeleteTemplate,
    ForgetMachine,
    ImportTemplate,
    MachineAction,
    MemoryAction,
    PauseMachine,
    PublishTemplate,
    ResumeMachine,
    StartMachine,
    StopMachine,
    TakeSnapshot,
    TemplateAction,
    WriteSeed,
)
from innkeeper.model.ids import HostId, InstanceId, Kind, MemoryImageId, TemplateId
from innkeeper.model.observed import MemoryState, Phase, SnapshotState, State, StepProgress, TemplateState
from innkeeper.model.work import Done, Order

_WHOLE = "a host is given whole networks: ConvergeNetwork becomes ApplyNetwork before it is sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What the host can do, by family."""

    roster: Roster
    machines: Machines
    starting: Starting
    disks: Disks
    snapshots: Snapshots
    networks: Networks
    templates: Templates
    baking: Baking


class Carrying:
    """Carries orders out, and tells what is known of an order's object."""

    def __init__(self, host: HostId, hands: Hands, outbox: Outbox) -> None:
        self._host = host
        self._hands = hands
        self._outbox = outbox

    async def carry_out(self, order: Order) -> Done:
        """
        Raises:
            CannotObey: it makes no sense here.
            Exception: a driver's, as `faults` knows them.
        """
        if order.host != self._host:
            raise CannotObey(f"this is {self._host}, and the order is for {order.host}", "Look at the cluster again")
        action, hands = order.action, self._hands
        match action:
            case StartMachine() | StopMachine() | PauseMachine() | ResumeMachine() | ForgetMachine():
                await self._machine(action, order.generation)
            case CreateDisk() | DeleteDisk() | WriteSeed():
                await hands.disks.carry_out(action)
            case TakeSnapshot():
                await hands.snapshots.take(action, order.generation)
            case ApplyNetwork():
                await hands.networks.apply(action, hands.roster.up())
            case ConvergeNetwork():
                raise CannotObey(_WHOLE)
            case BuildTemplate() | ImportTemplate() | PublishTemplate() | DeleteTemplate():
                await self._template(action, order)
            case BakeMemory() | DeleteMemory():
                await self._memory(action, order)
            case _:
                assert_never(action)
        return Done(states=await self.states(order))

    async def states(self, order: Order) -> tuple[State, ...]:
        """What belongs to the answer: the object as it is now."""
        match order.about.kind:
            case Kind.INSTANCE:
                machine = self._hands.roster.state(InstanceId(order.about.id))
                snapshot = await self._snapshot(order.action) if isinstance(order.action, TakeSnapshot) else None
                return tuple(state for state in (machine, snapshot) if state is not None)
            case Kind.TEMPLATE:
                template = TemplateId(order.about.id)
                image = await self._hands.templates.image(template)
                if image is None:
                    return ()
                return (TemplateState(template=template, host=self._host, seq=self._outbox.seq(), image=image),)
            case Kind.MEMORY:
                memory = MemoryImageId(order.about.id)
                baked = await self._hands.baking.baked(memory)
                if baked is None:
                    return ()
                return (MemoryState(memory=memory, host=self._host, seq=self._outbox.seq(), baked=baked),)
            case _:
                return ()

    async def _snapshot(self, action: TakeSnapshot) -> SnapshotState | None:
        taken = await self._hands.snapshots.taken(action)
        if taken is None:
            return None
        return SnapshotState(snapshot=action.snapshot, host=self._host, seq=self._outbox.seq(), taken=taken)

    async def _machine(self, action: MachineAction, generation: int) -> None:
        machines = self._hands.machines
        match action:
            case StartMachine():
                await self._hands.starting.start(action, generation)
            case StopMachine():
                await machines.stop(action.instance, action.grace_s, generation)
            case PauseMachine():
                await machines.pause(action.instance, generation)
            case ResumeMachine():
                state = self._hands.roster.state(action.instance)
                if state is not None and state.phase is Phase.NO_SPACE:
                    await self._hands.disks.see_room(action.instance)
                await machines.resume(action.instance, generation)
            case ForgetMachine():
                await machines.forget(action.instance)
                await self._hands.disks.forget_seed(action.instance)
            case _:
                assert_never(action)

    async def _template(self, action: TemplateAction, order: Order) -> None:
        if isinstance(action, PublishTemplate) and action.instance in self._hands.roster.up():
            raise CannotObey(f"{action.instance} runs, so its disk is not at rest", "Stop it first")
        await self._hands.templates.carry_out(action, self._teller(order))

    async def _memory(self, action: MemoryAction, order: Order) -> None:
        match action:
            case BakeMemory():
                await self._hands.baking.bake(action, self._teller(order))
            case DeleteMemory():
                await self._hands.baking.delete(action.memory)
            case _:
                assert_never(action)

    def _teller(self, order: Order) -> Callable[[float, str], None]:
        def tell(fraction: float, words: str) -> None:
            progress = StepProgress(operation=order.operation, step=order.step, fraction=fraction, words=words)
            self._outbox.put(progress)

        return tell
