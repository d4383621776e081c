"""Our process on a simulated host: as strict as a kernel, with the faults of a test.

What it holds in memory is lost with it, as a real agent's is: waits, long work, open lines, unread reports.
Everything else lies in `SimState`. Whatever waits is kept as data that timers and events move on, not in a caller's
coroutine: a caller that goes away interrupts nothing.

Once it has died, by a fault, by `end()`, by a reboot or because a successor was made over the same state, every
call raises Killed: code that was running in a dead process does nothing more, not even in its `finally`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from innkeeper.model.actions import WriteSeed
from innkeeper.model.ids import HostId, InstanceId, OperationId, SecretRef
from innkeeper.model.observed import Inventory, Phase, Report
from innkeeper.model.work import Order, Outcome, Refused
from innkeeper.ports.host import HostAway, NoLine
from innkeeper.ports.streams import ExecRequest, GuestStatus
from innkeeper.sim.faults import Fault, Faults, Killed
from innkeeper.sim.metal.guests import Machine
from innkeeper.sim.obeying import Answer
from innkeeper.sim.process import Process, Witness
from innkeeper.sim.state import SimState
from innkeeper.sim.streams import SimConsole, SimSession, status

Redeem = Callable[[SecretRef], Awaitable[bytes]]
"""Fetches a secret over the host's own line; raises KeyError where there is none."""


class SimHost:
    """Satisfies HostPort and StreamPort. Where the host is away, every call raises HostAway."""

    def __init__(
        self,
        state: SimState,
        faults: Faults | None = None,
        *,
        redeem: Redeem | None = None,
        witness: Witness | None = None,
    ) -> None:
        """Our process starts: it takes over the machine, sweeps what is half-made, and finds what runs."""
        self._state = state
        self._faults = faults or Faults()
        self._redeem = redeem
        self._witness = witness
        self._given = 0
        self._process = Process(state, witness)
        self._obeying = self._process.obeying

    @property
    def id(self) -> HostId:
        return self._state.host

    # --- orders

    async def give(self, order: Order) -> Outcome:
        self._enter()
        self._given += 1
        fault = self._faults.orders.get(self._given)
        if self._witness is not None and not self._obeying.is_done(order):
            self._witness.ordered(order)
        answer = await self._answer(order, fault)
        if self._witness is not None:
            self._witness.answered(order, answer)
        if isinstance(answer, Killed):
            self._process.end()
        if isinstance(answer, BaseException):
            raise answer
        self._process.rearm()
        return answer

    async def _answer(self, order: Order, fault: Fault | None) -> Answer:
        match fault:
            case Fault.KILL_BEFORE:
                return Killed("the agent's process died before the effect")
            case Fault.AWAY:
                return HostAway(f"{self.id} does not answer")
            case Fault.REFUSE:
                return Refused(reason=f"{self.id} refuses this", hint="This was arranged by a test.")
            case _:
                pass
        action, user_data = order.action, b""
        if isinstance(action, WriteSeed) and action.user_data is not None and not self._obeying.is_done(order):
            if self._redeem is None:
                return Refused(reason=f"{self.id} has no line to fetch the user-data of {action.instance} over")
            try:
                user_data = await self._redeem(action.user_data)
            except KeyError:
                return Refused(reason=f"the user-data of {action.instance} is gone", hint="Launch it again.")
            self._enter()
        return await self._obeying.obey(order, fault, user_data)

    async def cancel(self, operation: OperationId, step: int) -> None:
        self._enter()
        self._obeying.cancel((operation, step, False))

    async def inventory(self) -> Inventory:
        self._enter()
        state = self._state
        state.settle()
        seen = {**state.known, **state.machines, **state.endings}
        return Inventory(
            host=state.host,
            boot_id=state.facts.boot_id,
            machines=tuple(state.known[instance] for instance in seen),
            disks=tuple(state.pool.disks),
            seeds=tuple(state.seeds),
            templates=tuple(state.pool.templates),
            networks=tuple(state.networks.applied),
            memories=tuple(state.pool.memories),
            leftovers=tuple(name for name in state.pool.staging if name not in self._obeying.long.staging()),
        )

    async def reports(self) -> AsyncIterator[Report]:
        self._process.live()
        self._process.rearm()
        async for report in self._process.outbox.read():
            while (away_s := self._faults.back_in(self._state.clock.monotonic())) > 0:
                await self._state.clock.sleep(away_s)
            self._process.live()
            if report is not None:
                yield report

    # --- streams

    async def exec(self, instance: InstanceId, request: ExecRequest) -> SimSession:
        machine = self._answering(instance)
        return self._process.open(machine, request)

    async def console(self, instance: InstanceId) -> SimConsole:
        return SimConsole(self._line_to(instance))

    async def guest(self, instance: InstanceId) -> GuestStatus:
        return status(self._state, self._answering(instance))

    async def log(self, instance: InstanceId) -> bytes:
        self._enter()
        line = self._state.lines.get(instance)
        if line is None:
            raise NoLine(f"{instance} has never run on {self.id}, so it has no log here")
        return bytes(line.text)

    def _answering(self, instance: InstanceId) -> Machine:
        machine = self._line_to(instance)
        if machine.phase is Phase.PANICKED:
            raise NoLine(f"the kernel of {machine.action.name} has panicked, so nothing in it answers")
        if not machine.agent:
            raise NoLine(f"nothing in {machine.action.name} answers yet; wait for it, or look at its console")
        if machine.phase is not Phase.RUNNING:
            raise NoLine(f"{machine.action.name} is {machine.phase.value}, so nothing in it answers; resume it first")
        return machine

    def _line_to(self, instance: InstanceId) -> Machine:
        self._enter()
        self._state.settle()
        machine = self._state.machines.get(instance)
        if machine is None:
            raise NoLine(f"{instance} does not run on {self.id}; start it first")
        return machine

    def end(self) -> None:
        """The process is gone, at this instruction; machines run on. May be repeated."""
        self._process.end()

    def _enter(self) -> None:
        self._process.live()
        if self._faults.back_in(self._state.clock.monotonic()) > 0:
            raise HostAway(f"{self.id} does not answer")
