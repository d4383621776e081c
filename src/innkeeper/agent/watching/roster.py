"""Which machines of this host are up, and the newest state of each, up or not, as a report.

Every change of a state passes through here and is numbered here, in one order. The newest state is known here at once,
and so rides with the answer to an order; when it is reported, `telling` decides.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from innkeeper.agent.kept.outbox import Outbox
from innkeeper.agent.watching.telling import Telling
from innkeeper.agent.watching.watched import Watched
from innkeeper.drivers.qemu.directory import read_began
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.seen import End
from innkeeper.model.ids import HostId, InstanceId
from innkeeper.model.observed import Ended, MachineState, Phase
from innkeeper.ports.host import NoLine
from innkeeper.ports.tasks import contained


class Roster:
    def __init__(self, host: HostId, outbox: Outbox, group: asyncio.TaskGroup) -> None:
        self._host = host
        self._outbox = outbox
        self._telling = Telling(outbox)
        self._group = group
        self._up: dict[InstanceId, Watched] = {}
        self._states: dict[InstanceId, MachineState] = {}

    # --- looking

    def state(self, instance: InstanceId) -> MachineState | None:
        return self._states.get(instance)

    def states(self) -> tuple[MachineState, ...]:
        return tuple(self._states.values())

    def up(self) -> dict[InstanceId, Machine]:
        return {i: watched.machine for i, watched in self._up.items()}

    def find(self, instance: InstanceId) -> Watched | None:
        return self._up.get(instance)

    def running(self, instance: InstanceId) -> Watched:
        """
        Raises:
            NoLine: the instance is not running.
        """
        watched = self._up.get(instance)
        if watched is None:
            state = self._states.get(instance)
            why = f": {state.reason}" if state and state.reason else ""
            raise NoLine(f"it is not running{why}")
        return watched

    # --- coming and going

    def hold(self, instance: InstanceId, machine: Machine, obeyed: int = 0) -> Watched:
        """A machine that runs, from now on watched."""
        began = read_began(machine.directory)
        watched = Watched(machine, lambda: self.update(instance), lambda end: self.let_go(instance, watched, end))
        self._up[instance] = watched
        fresh = MachineState(
            instance=instance,
            host=self._host,
            seq=0,
            phase=Phase.UNKNOWN if machine.seen.unreachable else Phase.STARTING,
            since=machine.record.started_at,
            pid=machine.record.pid,
            obeyed=obeyed,
            warm=began.warm,
            cold=began.cold,
        )
        self._note(watched.describe(fresh))
        watched.begin(self._group)
        return watched

    def let_go(self, instance: InstanceId, watched: Watched, end: End) -> None:
        """It has ended: by an order, or under the eyes of its watcher, whoever comes first."""
        if self._up.get(instance) is watched:
            del self._up[instance]
            self.ended(instance, replace(end, reason=watched.why(end)), self._obeyed(instance))
            what = f"looking away from {instance}"
            self._group.create_task(contained(what, watched.close()), name=what)

    def ended(self, instance: InstanceId, end: End, obeyed: int) -> None:
        """A machine that does not run, and how that came."""
        state = MachineState(
            instance=instance,
            host=self._host,
            seq=0,
            phase=Phase.CRASHED if end.ended is Ended.CRASH else Phase.STOPPED,
            since=end.at or time.time(),
            ended=end.ended,
            reason=end.reason,
            obeyed=obeyed,
        )
        self._note(state)

    def unknown(self, instance: InstanceId, why: str, obeyed: int) -> None:
        """A machine of which we could not find out how it is; nobody holds it."""
        known = self._states.get(instance)
        if known is not None and (known.phase, known.reason) == (Phase.UNKNOWN, why):
            return
        fresh = MachineState(instance=instance, host=self._host, seq=0, phase=Phase.UNKNOWN, since=time.time())
        self._note(replace(fresh, reason=why, obeyed=obeyed))

    def update(self, instance: InstanceId, obeyed: int | None = None) -> None:
        """What is seen now, and which generation was obeyed; reported when it is anything new."""
        known, watched = self._states.get(instance), self._up.get(instance)
        if known is None:
            return
        state = known if watched is None else watched.describe(known)
        state = state if obeyed is None else replace(state, obeyed=obeyed)
        if state != known:
            self._note(state, ordered=obeyed is not None)
        elif obeyed is not None:
            self._telling.hurry(instance)

    def forget(self, instance: InstanceId) -> None:
        self._states.pop(instance, None)
        self._telling.forget(instance)

    async def close(self) -> None:
        """Let go of all machines, which run on."""
        for watched in self._up.values():
            await watched.close()
        self._up.clear()
        self._telling.close()

    def _obeyed(self, instance: InstanceId) -> int:
        known = self._states.get(instance)
        return known.obeyed if known is not None else 0

    def _note(self, state: MachineState, *, ordered: bool = True) -> None:
        numbered = replace(state, seq=self._outbox.seq())
        self._states[state.instance] = numbered
        if ordered:
            self._telling.at_once(numbered)
        else:
            self._telling.by_and_by(numbered)
