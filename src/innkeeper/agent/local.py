"""The host that this process runs on: orders reach its hands here, and what is observed leaves.

with an order: obeying -> carrying (one match per family) -> drivers
by themselves: roster, guests, sampler -> outbox -> reports
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from innkeeper.agent.kept.outbox import Outbox
from innkeeper.agent.kept.records import Records
from innkeeper.agent.orders.carrying import Carrying, Hands
from innkeeper.agent.orders.obeying import Obeying
from innkeeper.agent.watching import lines
from innkeeper.model.actions import ApplyNetwork
from innkeeper.model.host import HostFacts
from innkeeper.model.ids import HostId, InstanceId, OperationId
from innkeeper.model.observed import HostState, Inventory, Report
from innkeeper.model.work import Order, Outcome
from innkeeper.ports.streams import Console, ExecRequest, GuestStatus, Session
from innkeeper.ports.tasks import steady

KEEP_NETWORKS_S = 60.0
FACTS_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """All that makes a host, put together. `facts` looks at the machine anew each time; logs lie in `machines`."""

    hands: Hands
    records: Records
    outbox: Outbox
    facts: Callable[[], HostFacts]
    machines: Path


class LocalHost:
    """Satisfies HostPort and StreamPort."""

    def __init__(self, host: HostId, body: Body, group: asyncio.TaskGroup) -> None:
        self._host = host
        self._body = body
        self._hands = body.hands
        carrying = Carrying(host, body.hands, body.outbox)
        self._obeying = Obeying(body.records, group, carrying.carry_out, carrying.states)
        group.create_task(steady("keeping networks", self._keep_networks), name="keep networks")
        group.create_task(steady("telling facts", self._tell_facts), name="tell facts")

    @property
    def id(self) -> HostId:
        return self._host

    # --- HostPort

    async def give(self, order: Order) -> Outcome:
        if isinstance(order.action, ApplyNetwork):
            # Networks are whole states with a generation of their own: those that wait become one with the newest.
            return await self._obeying.at_once(order)
        return await self._obeying.give(order)

    async def cancel(self, operation: OperationId, step: int) -> None:
        self._obeying.cancel(operation, step)

    async def inventory(self) -> Inventory:
        hands = self._hands
        await hands.machines.look()
        return Inventory(
            host=self._host,
            boot_id=self._body.facts().boot_id,
            machines=hands.roster.states(),
            disks=await hands.disks.volumes(),
            seeds=await hands.disks.seeds(),
            templates=await hands.disks.templates(),
            networks=await hands.networks.present(),
            memories=await hands.baking.list_images(),
            leftovers=await self._leftovers(),
        )

    def reports(self) -> AsyncIterator[Report]:
        return self._body.outbox.reports()

    # --- StreamPort

    async def exec(self, instance: InstanceId, request: ExecRequest) -> Session:
        return await self._hands.roster.running(instance).guest.exec(request)

    async def guest(self, instance: InstanceId) -> GuestStatus:
        return await self._hands.roster.running(instance).guest.status()

    async def console(self, instance: InstanceId) -> Console:
        return lines.console(self._hands.roster.running(instance))

    async def log(self, instance: InstanceId) -> bytes:
        return await asyncio.to_thread(lines.log, self._body.machines, instance)

    # --- by itself

    async def _leftovers(self) -> tuple[str, ...]:
        """Half-made things that no order under way is making: they bear an object's id and a dot."""
        making = tuple(f"{about.id}." for about in self._obeying.busy())
        return tuple(name for name in await self._hands.disks.leftovers() if not name.startswith(making))

    async def _keep_networks(self) -> None:
        while True:
            await self._hands.networks.keep()
            await asyncio.sleep(KEEP_NETWORKS_S)

    async def _tell_facts(self) -> None:
        """When they have changed: whoever makes room is not refused for long."""
        told: HostFacts | None = None
        while True:
            facts = await asyncio.to_thread(self._body.facts)
            if facts != told:
                outbox = self._body.outbox
                outbox.put(HostState(host=self._host, seq=outbox.seq(), facts=facts))
                told = facts
            await asyncio.sleep(FACTS_S)
