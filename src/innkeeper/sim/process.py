"""Inside a simulated agent's process: what it hears from the machine, when it looks, and what it reports.

It ends at any instruction, and with it all that it holds: unread reports, waits, long work, lines into guests.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Protocol

from innkeeper.model.host import HostFacts
from innkeeper.model.ids import HostId, InstanceId
from innkeeper.model.observed import (
    HostState,
    MemoryState,
    Phase,
    Report,
    Sample,
    SnapshotState,
    StepProgress,
    TemplateState,
)
from innkeeper.model.work import Order
from innkeeper.ports.streams import ExecRequest
from innkeeper.sim.faults import Killed
from innkeeper.sim.metal.guests import Machine
from innkeeper.sim.obeying import Answer, Obeying
from innkeeper.sim.state import SimState
from innkeeper.sim.streams import SimSession


class Witness(Protocol):
    """Hears what is said to a host and what it says."""

    def ordered(self, order: Order) -> None: ...

    def answered(self, order: Order, answer: Answer) -> None: ...

    def reported(self, host: HostId, report: Report) -> None: ...


class Outbox:
    """Reports not read yet: of each object only the newest."""

    def __init__(self) -> None:
        self._waiting: dict[object, Report] = {}
        self._filled = asyncio.Event()
        self._readers = 0

    def put(self, report: Report) -> None:
        self._waiting[_subject(report)] = report
        self._filled.set()

    def wake(self) -> None:
        self._filled.set()

    async def read(self) -> AsyncIterator[Report | None]:
        """Endlessly, and None when woken for nothing. A new reader takes over, and an earlier one ends."""
        self._readers += 1
        mine = self._readers
        self._filled.set()
        while True:
            await self._filled.wait()
            if mine != self._readers:
                return
            self._filled.clear()
            yield None
            while self._waiting and mine == self._readers:
                yield self._waiting.pop(next(iter(self._waiting)))


def _subject(report: Report) -> object:
    match report:
        case StepProgress():
            return (StepProgress, report.operation, report.step)
        case TemplateState():
            return report.template
        case SnapshotState():
            return report.snapshot
        case MemoryState():
            return report.memory
        case HostState():
            return report.host
        case Sample():
            return (Sample, report.instance)
        case _:
            return report.instance


class Process:
    """Satisfies `Agent`. A new one ends its predecessor, sweeps what is half-made and finds what runs."""

    def __init__(self, state: SimState, witness: Witness | None) -> None:
        self.outbox = Outbox()
        self._state = state
        self._witness = witness
        self._dead = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._told_facts: HostFacts | None = None
        # Not all hosts at once: each has its own place in the interval.
        place = zlib.crc32(state.host.encode()) / 2**32
        self._sample_at = state.clock.monotonic() + state.sample_every_s * (1 + place) / 2
        self._sessions: dict[InstanceId, list[SimSession]] = {}
        if state.agent is not None:
            state.agent.end()
        state.settle()
        self.obeying = Obeying(state, self._tell)
        state.agent = self
        self.room_changed()
        for template, image in state.pool.templates.items():
            self._tell(self.obeying.long.state_of(template, image))
        for memory, baked in state.pool.memories.items():
            self._tell(self.obeying.long.state_of(memory, baked))
        for instance in {**state.known, **state.machines, **state.endings}:
            self.noticed(instance)

    def live(self) -> None:
        if self._dead:
            raise Killed("this agent's process has ended")

    def open(self, machine: Machine, request: ExecRequest) -> SimSession:
        session = SimSession(self._state, machine, request)
        lines = self._sessions.setdefault(machine.action.instance, [])
        lines[:] = [*(line for line in lines if not line.ended), session]
        return session

    # --- what the machine tells its agent

    def noticed(self, instance: InstanceId) -> None:
        self.obeying.noticed(instance)
        machine = self._state.machines.get(instance)
        if machine is None or machine.phase is Phase.PANICKED:
            why = "the machine has ended" if machine is None else "the guest's kernel has panicked"
            for session in self._sessions.pop(instance, ()):
                session.fail(why)

    def room_changed(self) -> None:
        facts = self._state.facts
        if facts != self._told_facts:
            self._told_facts = facts
            self._state.seq += 1
            self._tell(HostState(host=self._state.host, seq=self._state.seq, facts=facts))

    def rearm(self) -> None:
        """Something is due: one timer, set to what comes first."""
        if self._dead:
            return
        state = self._state
        now = state.clock.monotonic()
        if self._sample_at <= now:
            self._sample_at = now + state.sample_every_s
        times = [state.timeline.next_at(), self.obeying.long.next_at()]
        if state.sample_every_s > 0 and state.machines:
            times.append(self._sample_at)
        first = min((at for at in times if at is not None), default=None)
        if first == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if first is None else state.clock.later(max(0.0, first - now), self._tick)
        self._timer_at = first

    def end(self) -> None:
        """The process is gone, at this instruction. May be repeated."""
        self._dead = True
        if self._state.agent is self:
            self._state.agent = None
        if self._timer is not None:
            self._timer.cancel()
        self.obeying.end()
        self.outbox.wake()
        for session in (session for sessions in self._sessions.values() for session in sessions):
            session.fail("the host's agent has ended")

    def _tell(self, report: Report) -> None:
        self.outbox.put(report)
        if self._witness is not None:
            self._witness.reported(self._state.host, report)

    def _tick(self) -> None:
        self._timer_at = self._timer = None
        self._state.settle()
        self.obeying.long.tick()
        self.room_changed()
        if self._sample_at <= self._state.clock.monotonic():
            self._sample()
        self.rearm()

    def _sample(self) -> None:
        at, now = self._state.clock.monotonic(), self._state.clock.now()
        for machine in self._state.machines.values():
            self.outbox.put(machine.sample(at, now))
