"""The machines of this host: found again, started, and ended.

A machine is whatever process we find to be one, not what we remember: one that was started by an order which nobody saw
to its end is taken up like all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from innkeeper.agent.faults import CannotObey
from innkeeper.agent.watching.finding import Finding, Generation
from innkeeper.agent.watching.going_on import CannotGoOn, Memory, go_on
from innkeeper.agent.watching.roster import Roster
from innkeeper.agent.watching.watched import Watched
from innkeeper.drivers.qemu import hand
from innkeeper.drivers.qemu.directory import Began, note_began, read_began
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.start import StartSpec, start
from innkeeper.model.ids import InstanceId
from innkeeper.ports.launcher import LauncherGone, LauncherPort
from innkeeper.ports.tasks import to_the_end, until_ended

log = logging.getLogger(__name__)


class Machines:
    """`obeyed` tells the newest generation that was obeyed for an instance, also in earlier lives of ours."""

    def __init__(
        self, roster: Roster, root: Path, launcher: LauncherPort, group: asyncio.TaskGroup, obeyed: Generation
    ) -> None:
        self._roster = roster
        self._launcher = launcher
        self._group = group
        self._finding = Finding(roster, root, obeyed)

    async def find_again(self) -> None:
        """At start: all machines that run are taken up, and it is told how the others ended."""
        await self._finding.at_start()

    def pids(self) -> tuple[int, ...]:
        """Of the QEMUs that run."""
        return tuple(machine.record.pid for machine in self._roster.up().values())

    async def look(self) -> None:
        """Take up machines that run and that nobody holds, and end processes of ours that are no machine."""
        await self._finding.look()

    # --- orders

    async def already_up(self, instance: InstanceId, generation: int) -> bool:
        """One whose guest was not told who it is, because we died meanwhile, is ended: it is not what was ordered."""
        async with self._finding.turn(instance):
            watched = await self._finding.take_up(instance)
            if watched is None:
                return False
            if read_began(watched.machine.directory).nameless:
                self._roster.let_go(instance, watched, await watched.stop(0))
                return False
        self._roster.update(instance, generation)
        return True

    async def start(self, spec: StartSpec, generation: int, memory: Memory | str = "") -> None:
        """For a machine that is not up. With memory it goes on from that if it can; without, a text may say why it
        boots.

        Interrupted, it is seen to its end all the same: a QEMU that runs is always one that we hold.
        """
        work = self._group.create_task(self._run(spec, generation, memory), name=f"starting {spec.instance}")
        await until_ended(work)
        if work.cancelled():
            raise asyncio.CancelledError  # the agent is stopping
        if (failure := work.result()) is not None:
            raise failure

    async def stop(self, instance: InstanceId, grace_s: float, generation: int) -> None:
        async with self._finding.turn(instance):
            watched = await self._finding.take_up(instance)
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

    @contextlib.asynccontextmanager
    async def held(self, instance: InstanceId) -> AsyncIterator[Watched | None]:
        """The machine, or None for one that is off. Meanwhile nobody else here starts, stops or forgets it."""
        async with self._finding.turn(instance):
            yield await self._finding.take_up(instance)

    async def left_whole(self, instance: InstanceId) -> bool:
        """Of a machine that is off: whether its guest ended by itself, or none ever ran."""
        return await asyncio.to_thread(hand.left_whole, self._finding.path(instance))

    async def forget(self, instance: InstanceId) -> None:
        async with self._finding.turn(instance):
            if await self._finding.take_up(instance) is not None:
                raise CannotObey(f"{instance} is running", "Stop it first")
            self._roster.forget(instance)
            await to_the_end(lambda: _remove(self._finding.path(instance)))
        self._finding.forget(instance)

    def _running(self, instance: InstanceId) -> Machine:
        watched = self._roster.find(instance)
        if watched is None:
            raise CannotObey(f"{instance} is not running", f"Start it: inn start {instance}")
        return watched.machine

    async def _run(self, spec: StartSpec, generation: int, memory: Memory | str) -> Exception | None:
        """In a task of its own, whose failure must be a value: raised, it would end all other tasks of the agent."""
        async with self._finding.turn(spec.instance):
            try:
                cold = await _gone_on(spec, memory, self._finding.path(spec.instance), self._roster, self._launcher)
                if cold is None:
                    self._roster.update(spec.instance, generation)
                    return None
                machine = await self._started(spec)
                note_began(machine.directory, Began(cold=cold))
            except Exception as failure:
                return failure
            self._roster.hold(spec.instance, machine, generation)
            return None

    async def _started(self, spec: StartSpec) -> Machine:
        path = self._finding.path(spec.instance)
        path.mkdir(exist_ok=True, mode=0o700)
        try:
            return await start(spec, path, self._launcher)
        except LauncherGone as gone:
            log.warning("%s: %s; trying once more", spec.name, gone)
            return await hand.adopt(path, spec.name) or await start(spec, path, self._launcher)


async def _gone_on(
    spec: StartSpec, memory: Memory | str, path: Path, roster: Roster, launcher: LauncherPort
) -> str | None:
    """None: it did. Otherwise it boots, and this is why, where there is anything to explain."""
    if isinstance(memory, str):
        return memory
    path.mkdir(exist_ok=True, mode=0o700)
    try:
        await go_on(spec, path, memory, roster, launcher)
    except CannotGoOn as why:
        log.warning("%s boots, for it cannot go on from memory: %s", spec.name, why)
        return str(why)
    return None


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.is_symlink():
            path.unlink()  # what lies behind it was put elsewhere by somebody, and is not ours to remove
        else:
            shutil.rmtree(path)
