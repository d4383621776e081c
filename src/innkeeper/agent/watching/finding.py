"""Finding the machines of this host by looking: at what launchers wrote down, and at the marks that processes bear.

One of which nobody can find out how it is keeps us from no other: it is unknown, and tried again with each look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from innkeeper.agent.faults import CannotObey
from innkeeper.agent.watching.roster import Roster
from innkeeper.agent.watching.watched import Watched
from innkeeper.drivers.qemu import hand, process
from innkeeper.drivers.qemu.process import Stray
from innkeeper.drivers.qemu.seen import End
from innkeeper.model.ids import InstanceId, is_id
from innkeeper.model.observed import Ended, Phase

log = logging.getLogger(__name__)

_NEVER = End(ended=Ended.NO, reason="")
_ADOPT_AT_ONCE = 16

Generation = Callable[[InstanceId], int]


class Finding:
    """`root` holds a folder for each instance. `obeyed` tells the newest generation that was obeyed for one."""

    def __init__(self, roster: Roster, root: Path, obeyed: Generation) -> None:
        self._roster = roster
        self._root = root
        self._obeyed = obeyed
        self._turns: dict[InstanceId, asyncio.Lock] = {}
        root.mkdir(parents=True, exist_ok=True, mode=0o711)

    def path(self, instance: InstanceId) -> Path:
        """Where its things lie, and what is removed in the end: an id must not be able to lead elsewhere.

        Raises:
            CannotObey: it is none.
        """
        if not is_id(instance):
            raise CannotObey(f"{instance!r} is not an id", "Look at the cluster again")
        return self._root / instance

    def turn(self, instance: InstanceId) -> asyncio.Lock:
        """Two of us never work on one machine at once."""
        return self._turns.setdefault(instance, asyncio.Lock())

    def forget(self, instance: InstanceId) -> None:
        self._turns.pop(instance, None)

    async def at_start(self) -> None:
        """All machines that run are taken up, and it is told how the others ended."""
        await self.look()
        for name in sorted(p.name for p in self._root.iterdir() if is_id(p.name) and p.is_dir()):
            if self._roster.state(InstanceId(name)) is None:
                self._tell_end(InstanceId(name))

    async def look(self) -> None:
        """Take up machines that run and that nobody holds, and end processes of ours that are no machine."""
        known = {machine.record.pid for machine in self._roster.up().values()}
        strays = await asyncio.to_thread(hand.strays, self._root, known)
        room = asyncio.Semaphore(_ADOPT_AT_ONCE)

        async def sort_out(stray: Stray) -> None:
            async with room, self.turn(stray.instance):
                try:
                    await self._sort_out(stray)
                except Exception as failure:
                    self._lose(stray.instance, f"QEMU runs (pid {stray.pid}) and cannot be taken up", failure)

        async with asyncio.TaskGroup() as group:
            for stray in strays:
                group.create_task(sort_out(stray))
        running = {stray.instance for stray in strays} | self._roster.up().keys()
        for state in self._roster.states():
            if state.phase is Phase.UNKNOWN and state.instance not in running:
                self._tell_end(state.instance)

    async def take_up(self, instance: InstanceId) -> Watched | None:
        """The machine that runs, whoever started it; None if none does. For who has its turn."""
        watched, path = self._roster.find(instance), self.path(instance)
        if watched is None and path.exists():
            machine = await hand.adopt(path, instance)
            if machine is not None:
                self._roster.hold(instance, machine, self._obeyed(instance))
        return self._roster.find(instance)

    async def _sort_out(self, stray: Stray) -> None:
        watched = await self.take_up(stray.instance)
        ours = watched is not None and watched.machine.record.pid == stray.pid
        if not ours and process.start_time(stray.pid) == stray.start_time:
            log.warning("ending process %d: started for %s, or says so, and not its machine", stray.pid, stray.instance)
            hand.kill_stray(stray)

    def _tell_end(self, instance: InstanceId) -> None:
        """For one that does not run. Without a record its directory was made for a start that never came so far."""
        try:
            end = hand.why_ended(self.path(instance)) or _NEVER
        except Exception as failure:
            self._lose(instance, "it cannot be found out whether it runs", failure)
        else:
            self._roster.ended(instance, end, self._obeyed(instance))

    def _lose(self, instance: InstanceId, what: str, failure: Exception) -> None:
        log.exception("%s: %s", instance, what)
        if self._roster.find(instance) is None:
            self._roster.unknown(instance, f"{what}: {failure}; see the daemon's log", self._obeyed(instance))
