"""What a contract test needs of a world behind the host's seam, and how it makes ids and orders in any of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

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
    ImportTemplate,
    PublishTemplate,
    SeedCard,
    StartMachine,
    StopMachine,
    WriteSeed,
)
from innkeeper.model.hardware import Channels, Disk, Hardware, NetworkCard, RandomSource, SeedDisk
from innkeeper.model.host import HostFacts
from innkeeper.model.ids import InstanceId, Kind, NicId, OperationId, Ref, TemplateId, VolumeId
from innkeeper.model.network import Network, NetworkWanted, Port
from innkeeper.model.observed import MachineState, Report
from innkeeper.model.template import Image
from innkeeper.model.work import Accepted, Done, Order, Outcome, Refused
from innkeeper.ports.host import HostPort, StreamPort

T = TypeVar("T", bound=Report)


class AnyHost(HostPort, StreamPort, Protocol):
    """A host with orders and streams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a world offers. `deadline_s` is ample for anything that must happen; `grace_s` for the shutdown of a guest
    that is not deaf.

    `template` is ready on the host, small, with an agent; a test may delete it. `recipe` builds another such, slowly
    enough to be caught at it.
    """

    facts: HostFacts
    template: TemplateId
    image: Image
    network: Network
    recipe: str
    deadline_s: float
    grace_s: float


class World(Protocol):
    @property
    def host(self) -> AnyHost: ...
    @property
    def stage(self) -> Stage: ...

    async def restart_agent(self) -> None:
        """Our process dies without warning and is started anew; `host` is the new one."""
        ...

    async def kill_qemu(self, machine: MachineState) -> None:
        """Kill it with signal 9, behind the agent's back."""
        ...

    async def deafen(self, instance: InstanceId) -> None:
        """From now on the running guest takes no notice of wishes that it shut down. It still runs commands."""
        ...

    async def panic(self, instance: InstanceId) -> None:
        """The running guest's kernel gives up."""
        ...


_numbers = itertools.count(1)


def _id(prefix: str) -> str:
    return f"{prefix}-{next(_numbers):012x}"


class Cast:
    """One instance with its disk, seed and card, and the orders about them. Each call of `order` is a new order."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stage = world.stage
        self.number = next(_numbers) % 200 + 10
        self.instance = InstanceId(_id("i"))
        self.volume = VolumeId(_id("vol"))
        self.nic = NicId(_id("nic"))
        self.name = f"m{self.number}"
        self.mac = f"52:54:00:00:00:{self.number:02x}"
        self.address = self.stage.network.cidr.rsplit(".", 1)[0] + f".{self.number}"

    # --- actions

    def disk(self, size_gib: int = 1) -> CreateDisk:
        return CreateDisk(volume=self.volume, template=self.stage.template, size_gib=size_gib, uid_slot=self.number)

    def seed(self) -> WriteSeed:
        card = SeedCard(
            mac=self.mac,
            addresses=(f"{self.address}/24",),
            gateway=self.stage.network.gateway,
            dns=(self.stage.network.gateway,),
            mtu=1500,
        )
        return WriteSeed(
            instance=self.instance,
            hostname=self.name,
            domain="inn.internal",
            ssh_keys=(),
            user_data=None,
            cards=(card,),
        )

    def apply(self, *, empty: bool = False, absent: bool = False) -> ApplyNetwork:
        port = Port(
            nic=self.nic,
            instance=self.instance,
            hostname=self.name,
            mac=self.mac,
            addresses=(self.address,),
            uid_slot=self.number,
        )
        ports = () if empty or absent else (port,)
        wanted = NetworkWanted(network=self.stage.network, generation=next(_numbers), ports=ports)
        return ApplyNetwork(wanted=wanted, absent=absent)

    def start(self) -> StartMachine:
        hardware = Hardware(
            machine=self.stage.facts.machine_type,
            cpu_model=self.stage.facts.cpu_model,
            firmware=self.stage.image.firmware,
            vcpus=1,
            memory_mib=128,
            devices=(
                Channels(slot=1),
                RandomSource(slot=2),
                Disk(slot=3, volume=self.volume),
                SeedDisk(slot=4),
                NetworkCard(slot=5, nic=self.nic, network=self.stage.network.id, mac=self.mac),
            ),
        )
        return StartMachine(
            instance=self.instance,
            name=self.name,
            template=self.stage.template,
            hardware=hardware,
            kernel_args=self.stage.image.kernel_args,
            uid_slot=self.number,
        )

    def stop(self, grace_s: float = 0.0) -> StopMachine:
        return StopMachine(instance=self.instance, grace_s=grace_s)

    # --- orders

    def order(self, action: Action, *, generation: int = 1) -> Order:
        if isinstance(action, ApplyNetwork):
            generation = action.wanted.generation
        return Order(
            operation=OperationId(_id("op")),
            step=0,
            undo=False,
            host=self.world.host.id,
            about=_about(action),
            generation=generation,
            action=action,
        )

    # --- doing

    async def do(self, action: Action) -> Done:
        """Give the order and insist that it is carried out."""
        return done(await self.give(self.order(action)))

    async def give(self, order: Order) -> Outcome:
        async with asyncio.timeout(self.stage.deadline_s):
            return await self.world.host.give(order)

    async def prepare(self) -> None:
        """All but the machine."""
        await self.do(self.disk())
        await self.do(self.seed())
        await self.do(self.apply())

    async def launch(self) -> MachineState:
        """A machine whose guest answers."""
        await self.prepare()
        await self.do(self.start())
        return await self.answering()

    async def answering(self) -> MachineState:
        return await self.seen(lambda state: state.agent)

    async def seen(self, wanted: Callable[[MachineState], bool]) -> MachineState:
        """The machine as the host reports it, once it is as wanted."""
        async with asyncio.timeout(self.stage.deadline_s):
            async for report in self.world.host.reports():
                if isinstance(report, MachineState) and report.instance == self.instance and wanted(report):
                    return report
        raise AssertionError("reports ended")

    async def found(self) -> MachineState | None:
        """The machine in the inventory."""
        inventory = await self.world.host.inventory()
        return next((m for m in inventory.machines if m.instance == self.instance), None)

    async def settled(self, order: Order) -> Done | Refused:
        """A long order, asked again until it has ended."""
        async with asyncio.timeout(self.stage.deadline_s):
            while isinstance(outcome := await self.world.host.give(order), Accepted):
                await asyncio.sleep(0.01)
            return outcome


def _about(action: Action) -> Ref:
    match action:
        case ApplyNetwork(wanted=wanted):
            return Ref(Kind.NETWORK, wanted.network.id)
        case ConvergeNetwork(network=network):
            return Ref(Kind.NETWORK, network)
        case CreateDisk() | DeleteDisk():
            return Ref(Kind.VOLUME, action.volume)
        case BuildTemplate() | ImportTemplate() | PublishTemplate() | DeleteTemplate():
            return Ref(Kind.TEMPLATE, action.template)
        case BakeMemory() | DeleteMemory():
            return Ref(Kind.MEMORY, action.memory)
        case _:
            return Ref(Kind.INSTANCE, action.instance)


def done(outcome: Outcome) -> Done:
    assert isinstance(outcome, Done), outcome
    return outcome


def refused(outcome: Outcome) -> Refused:
    assert isinstance(outcome, Refused), outcome
    assert outcome.reason
    return outcome


def machine(outcome: Outcome) -> MachineState:
    """The machine's state that came with an answer."""
    (state,) = done(outcome).states
    assert isinstance(state, MachineState)
    return state


@asynccontextmanager
async def heard(world: World, kind: type[T]) -> AsyncIterator[list[T]]:
    """Everything of one kind that the host reports while the block runs. Meanwhile nobody else may read its reports."""
    found: list[T] = []

    async def listen() -> None:
        async for report in world.host.reports():
            if isinstance(report, kind):
                found.append(report)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(listen())
        yield found
        task.cancel()
