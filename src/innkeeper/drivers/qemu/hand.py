"""Finding machines again that outlived an earlier daemon, and ending machines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Container, Iterator
from pathlib import Path

from innkeeper.drivers.qemu import process
from innkeeper.drivers.qemu.agent import NoAgent
from innkeeper.drivers.qemu.blocks.disks import Disks
from innkeeper.drivers.qemu.directory import CONSOLE, MachineDirectory, Record, boot_id, machine_uuid
from innkeeper.drivers.qemu.machine import Machine, end_facts
from innkeeper.drivers.qemu.qmp import NoAnswer, Rejected
from innkeeper.drivers.qemu.seen import End, Run, explain
from innkeeper.drivers.qemu.serial import ConsoleLine
from innkeeper.model.hardware import AGENT_CHANNEL
from innkeeper.model.ids import InstanceId, is_id
from innkeeper.model.observed import Ended
from innkeeper.ports.launcher import USERS

ADOPTION_TIMEOUT_S = 2.0
AGENT_TIMEOUT_S = 5.0
QUIT_TIMEOUT_S = 5.0
KILL_TIMEOUT_S = 10.0


class NotEnding(Exception):
    """QEMU was killed and does not go: the kernel holds it."""


# --- finding again


async def adopt(path: Path, name: str, timeout_s: float = ADOPTION_TIMEOUT_S) -> Machine | None:
    """The machine that runs in this directory, whoever started it; None if none does: then ask `why_ended`.

    One that does not answer is returned all the same, `seen.unreachable`.
    """
    directory = MachineDirectory(path)
    record = directory.record()
    held = _held(record) if record is not None else None
    if held is None:
        record = await asyncio.to_thread(_unrecorded, directory)
        held = _held(record) if record is not None else None
    if held is None or record is None:
        return None
    machine = Machine(name, directory, record, held)
    try:
        # One that hangs or is just ending takes nobody: it is looked after without a console.
        with contextlib.suppress(OSError):
            machine.console = await ConsoleLine.over(directory.connect(CONSOLE), directory.console_file)
        await machine.attach(timeout_s)
        if not machine.seen.unreachable:
            with contextlib.suppress(NoAnswer, Rejected):
                await Disks(machine.monitor).drop_unused()
    except BaseException:
        await machine.close()
        raise
    return machine


def why_ended(path: Path) -> End | None:
    """How the machine ended that ran in this directory last; None if none ever did, or one runs."""
    directory = MachineDirectory(path)
    record = directory.record()
    if record is None:
        return None
    held = _held(record)
    if held is not None:
        os.close(held)
        return None
    return explain(end_facts(directory, record))


def left_whole(path: Path) -> bool:
    """Whether the guest that ran in this directory last ended by itself, or none ever ran: its disks are whole."""
    directory = MachineDirectory(path)
    if directory.left_file.exists() or directory.user() is None:
        return True
    end = why_ended(path)
    return end is not None and end.ended is Ended.GUEST


def strays(root: Path, known: Container[int]) -> list[process.Stray]:
    """Processes that we once started for instances whose folders are in `root`, but for those with a known pid.

    What the launcher wrote down holds, whatever a process says of itself. Of those that nobody wrote down, and of those
    that lie, only such are told as run as one of our users: nobody else's process is ours to end.
    """
    recorded = {stray.pid: stray for stray in _recorded(root)}
    noted = set(_noted_users(root))
    found = process.find_marked(root, lambda uid: uid in USERS or uid in noted)
    marked = (stray for stray in found if stray.pid not in recorded)
    ours = (s for s in marked if s.uid in USERS or s.uid == MachineDirectory(root / s.instance).user())
    return [stray for stray in (*recorded.values(), *ours) if stray.pid not in known]


def kill_stray(stray: process.Stray) -> None:
    held = process.hold(stray.pid, stray.start_time)
    if held is not None:
        process.kill(held)
        os.close(held)


def _held(record: Record) -> int | None:
    return process.hold(record.pid, record.start_time) if record.boot_id == boot_id() else None


def _directories(root: Path) -> Iterator[MachineDirectory]:
    for entry in os.scandir(root) if root.is_dir() else ():
        if is_id(entry.name):
            yield MachineDirectory(Path(entry.path))


def _noted_users(root: Path) -> Iterator[int]:
    """As whom machines were started here, also by releases that chose other users than ours."""
    for directory in _directories(root):
        with contextlib.suppress(OSError):
            if (uid := directory.user()) is not None:
                yield uid


def _recorded(root: Path) -> Iterator[process.Stray]:
    """A record that cannot be read is passed over: who looks at that machine alone is told why."""
    for directory in _directories(root):
        instance, record = InstanceId(directory.path.name), None
        with contextlib.suppress(OSError):
            record = directory.record()
        if record is None or (record.boot_id, record.uuid) != (boot_id(), machine_uuid(instance)):
            continue  # the host's earlier uptime, or the folder of another machine under a new name
        found = process.look(record.pid, instance)
        if found is not None and found.start_time == record.start_time:
            yield found


def _unrecorded(directory: MachineDirectory) -> Record | None:
    """A process whose launcher was killed between starting it and writing that down.

    It goes by its mark, which every QEMU can write, and by its user, which only the launcher can give.
    """
    uid = directory.user()
    if uid is None:
        return None  # nothing was ever started here
    for stray in process.find_marked(directory.path.parent, lambda one: one == uid):
        if (stray.instance, stray.uid) == (directory.path.name, uid):
            return Record(
                pid=stray.pid, start_time=stray.start_time, launcher=0, boot_id=boot_id(), started_at=time.time()
            )
    return None


# --- the end


async def stop(machine: Machine, grace_s: float, words: str = "it was asked to stop") -> End:
    """The end, asked for in four ways: agent, power button, QEMU, kernel. May be repeated, and cancelled between them.

    Raises:
        NotEnding: not even the kernel could end it.
    """
    machine.directory.ask(words)
    if grace_s > 0 and machine.seen.run is not Run.LOADING:
        await _ask_guest(machine, grace_s)
    try:
        await machine.monitor.quit()
        await machine.gone_within(QUIT_TIMEOUT_S)
    except (NoAnswer, Rejected):
        pass  # it has ended, or it hangs; the kernel knows which
    return await kill(machine, words)


async def kill(machine: Machine, words: str = "it was ended by force, as asked") -> End:
    """At once, as by pulling the plug.

    Raises:
        NotEnding: the kernel does not let it go.
    """
    machine.directory.ask(words)
    machine.pull_plug()
    if not await machine.gone_within(KILL_TIMEOUT_S):
        raise NotEnding(
            f"QEMU of {machine.name} (pid {machine.record.pid}) was killed and does not end: "
            "look for a disk or file system of this host that does not answer"
        )
    return await machine.ended()


async def _ask_guest(machine: Machine, grace_s: float) -> None:
    until = asyncio.get_running_loop().time() + grace_s
    try:
        if machine.seen.run in (Run.PAUSED, Run.IO_ERROR):
            await machine.monitor.resume()  # one that stands still hears nothing
        if AGENT_CHANNEL in machine.seen.open_channels:
            await machine.agent.shut_down(min(AGENT_TIMEOUT_S, grace_s / 2))
            if await machine.gone_within(grace_s / 2):
                return
    except (NoAgent, NoAnswer, Rejected):
        pass  # the power button is left
    # Twice, because a guest that is still starting does not feel the first press.
    for share in (0.5, 1.0):
        try:
            await machine.monitor.press_power_button()
        except (NoAnswer, Rejected):
            return
        if await machine.gone_within(max(0.0, until - asyncio.get_running_loop().time()) * share):
            return
