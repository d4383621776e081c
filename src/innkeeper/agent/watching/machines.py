"""The machines of this host: found again, started, and ended.

A machine is whatever process bears our mark, not what we remember: one that was started by an order which nobody
saw to its end is found by looking, and taken up like all others. Two of us never work on one machine at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from innkeeper.agent.faults import CannotObey
from innkeeper.agent.waiting import until_ended
from innkeeper.agent.watching.roster import Roster
from innkeeper.agent.watching.watched import Watched
from innkeeper.drivers.qemu import hand, process
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.process import Stray
from innkeeper.drivers.qemu.seen import End
from innkeeper.drivers.qemu.start import StartSpec, start
from innkeeper.model.ids import InstanceId
from innkeeper.model.observed import Ended
from innkeeper.ports.launcher import LauncherGone, LauncherPort

log = logging.getLogger(__name__)

_NEVER = End(ended=Ended.NO, reason="")
_ADOPT_AT_ONCE = 16

Generation = Callable[[InstanceId], int]


class Machines:
    """`obeyed` tells the newest generation that was obeyed for an instance, also in earlier lives of ours."""

    def __init__(
        self, roster: Roster, root: Path, launcher: LauncherPort, group: asyncio.TaskGroup, obeyed: Generation
    ) -> None:
        self._roster = roster
        self._root = root
        self._launcher = launcher
        self._group = group
        self._obeyed = obeyed
        self._turns: dict[InstanceId, asyncio.Lock] = {}
        root.mkdir(parents=True, exist_ok=True, mode=0o711)

    # --- found by looking

    async def find_again(self) -> None:
        """At start: all machines that run are taken up, and it is told how the others ended."""
        await self.look()
        for path in sorted(p for p in self._root.iterdir() if p.is_dir()):
            instance = InstanceId(path.name)
            if self._roster.state(instance) is None:
                # Without a record its directory was made for a start that never came so far.
                self._roster.ended(instance, hand.why_ended(path) or _NEVER, self._obeyed(instance))

    async def look(self) -> None:
        """Take up machines that run and that nobody holds, and end processes of ours that are no machine."""
        known = {machine.record.pid for machine in self._roster.up().values()}
        strays = await asyncio.to_thread(hand.strays, self._root, known)
        room = asyncio.Semaphore(_ADOPT_AT_ONCE)

        async def sort_out(stray: Stray) -> None:
            async with room, self._turn(InstanceId(stray.directory.name)):
                await self._sort_out(stray)

        async with asyncio.TaskGroup() as group:
            for stray in strays:
                group.create_task(sort_out(stray))

    async def _sort_out(self, stray: Stray) -> None:
        watched = await self._take_up(InstanceId(stray.directory.name))
        ours = watched is not None and watched.machine.record.pid == stray.pid
        if not ours and process.start_time(stray.pid) == stray.start_time:
            log.warning("ending process %d: started for %s, and not its machine", stray.pid, stray.directory)
            hand.kill_stray(stray)

    async def _take_up(self, instance: InstanceId) -> Watched | None:
        """The machine that runs, whoever started it; None if none does. For who has its turn."""
        watched, path = self._roster.find(instance), self._root / instance
        if watched is None and path.exists():
            machine = await hand.adopt(path, instance)
            if machine is not None:
                self._roster.hold(instance, machine, self._obeyed(instance))
        return self._roster.find(instance)

    def _turn(self, instance: InstanceId) -> asyncio.Lock:
        return self._turns.setdefault(instance, asyncio.Lock())

    # --- orders

    async def already_up(self, instance: InstanceId, generation: int) -> bool:
        async with self._turn(instance):
            if await self._take_up(instance) is None:
                return False
        self._roster.update(instance, generation)
        return True

    async def start(self, spec: StartSpec, generation: int) -> None:
        """For a machine that is not up.

        Interrupted, it is seen to its end all the same: a QEMU that runs is always one that we hold.
        """
        work = self._group.create_task(self._run(spec, generation), name=f"starting {spec.instance}")
        await until_ended(work)
        if work.cancelled():
            raise asyncio.CancelledError  # the agent is stopping
        if (failure := work.result()) is not None:
            raise failure

    async def stop(self, instance: InstanceId, grace_s: float, generation: int) -> None:
        async with self._turn(instance):
            watched = await self._take_up(instance)
            if watched is not None:
                end = await watched.stop(grace_s)
                self._roster.let_go(instance, watched, end)
        self._roster.update(instance, generation)

    async def pause(self, instance: InstanceId, generation: int) -> None:
        await self._running(instance).monitor.pause()
        self._roster.update(instance, generation)

    async def resume(self, instance: InstanceId, generation: int) -> None:
        await self._running(instance).monitor.resume()
        self._roster.update(instance, generation)

    async def forget(self, instance: InstanceId) -> None:
        async with self._turn(instance):
            if await self._take_up(instance) is not None:
                raise CannotObey(f"{instance} is running", "Stop it first")
            self._roster.forget(instance)
            await asyncio.to_thread(_remove, self._root / instance)
        self._turns.pop(instance, None)

    def _running(self, instance: InstanceId) -> Machine:
        watched = self._roster.find(instance)
        if watched is None:
            raise CannotObey(f"{instance} is not running", f"Start it: inn start {instance}")
        return watched.machine

    async def _run(self, spec: StartSpec, generation: int) -> Exception | None:
        """In a task of its own, whose failure must be a value: raised, it would end all other tasks of the agent."""
        async with self._turn(spec.instance):
            try:
                machine = await self._started(spec)
            except Exception as failure:
                return failure
            self._roster.hold(spec.instance, machine, generation)
            return None

    async def _started(self, spec: StartSpec) -> Machine:
        path = self._root / spec.instance
        path.mkdir(exist_ok=True, mode=0o700)
        try:
            return await start(spec, path, self._launcher)
        except LauncherGone as gone:
            log.warning("%s: %s; trying once more", spec.name, gone)
            return await hand.adopt(path, spec.name) or await start(spec, path, self._launcher)


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)
