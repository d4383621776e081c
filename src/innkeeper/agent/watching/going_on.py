"""Going on from a memory image instead of booting.

    started, waiting ──▶ state loaded ──▶ noted as nameless ──▶ it runs ──▶ told who it is ──▶ its cards are linked

Only a machine that never began before goes on so: its disks agree with the memory as long as they are empty. Until it
was told who it is, no network reaches it and nobody is let to it. Whatever goes wrong before that, it is ended, and is
as one that never began; who asked may boot it instead.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

from innkeeper.agent.watching.roster import Roster
from innkeeper.agent.watching.watched import Watched
from innkeeper.drivers.guestlink.frames import Unsendable
from innkeeper.drivers.guestlink.identity import Identity, IdentityFailed
from innkeeper.drivers.guestlink.line import LinkDown
from innkeeper.drivers.qemu.directory import Began, MachineDirectory, note_began
from innkeeper.drivers.qemu.hand import kill
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.memory.loading import LoadFailed, go, link, load
from innkeeper.drivers.qemu.qmp import NoAnswer, Rejected
from innkeeper.drivers.qemu.render import MemoryFacts
from innkeeper.drivers.qemu.start import StartFailed, StartSpec, start
from innkeeper.model.hardware import GUEST_CHANNEL
from innkeeper.ports.host import NoLine
from innkeeper.ports.launcher import LauncherGone, LauncherPort

_LOAD_S, _INTRODUCED_S = 20.0, 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """An image that is held, and who the guest becomes. The descriptors stay the giver's."""

    ram_fd: int
    state_fd: int
    identity: Identity


class CannotGoOn(Exception):
    """It does not run; the text says why it did not go on."""


async def go_on(spec: StartSpec, path: Path, memory: Memory, roster: Roster, launcher: LauncherPort) -> Watched:
    """
    Raises:
        CannotGoOn: and whatever begins in this directory next boots.
    """
    directory = MachineDirectory(path)
    if directory.user() is not None:
        raise CannotGoOn("an earlier start came so far that its disk may have been written to")
    facts = MemoryFacts(fd=memory.ram_fd, shared=False)
    try:
        machine = await start(replace(spec, memory=facts, incoming=True), path, launcher)
    except (StartFailed, LauncherGone) as failed:
        raise CannotGoOn(str(failed)) from failed
    try:
        await load(machine, memory.state_fd, _LOAD_S)
        note_began(directory, Began(warm=True, nameless=True))
        await go(machine)
    except BaseException as failed:
        machine.pull_plug()
        await machine.close()
        if isinstance(failed, LoadFailed | NoAnswer | Rejected | OSError):
            raise CannotGoOn(str(failed)) from failed
        raise
    watched = roster.hold(spec.instance, machine)
    try:
        await _introduce(watched, machine, spec, memory.identity)
    except BaseException as failed:
        await _end(watched, machine, spec, roster)
        if isinstance(failed, NoLine | NoAnswer | Rejected | OSError):
            raise CannotGoOn(str(failed)) from failed
        raise
    return watched


async def _introduce(watched: Watched, machine: Machine, spec: StartSpec, identity: Identity) -> None:
    await _told(watched, machine, identity)
    for card in spec.hardware.cards():
        await link(machine, card.nic, up=True)
    note_began(machine.directory, Began(warm=True))
    watched.guest.named.met()


async def _told(watched: Watched, machine: Machine, identity: Identity) -> None:
    """Our program in the guest has made it that. It opens its channel as soon as the guest goes on."""
    try:
        async with asyncio.timeout(_INTRODUCED_S):
            async for seen in machine.changes():
                if seen.end is not None or GUEST_CHANNEL in seen.open_channels:
                    break
            await (await watched.guest.linked()).introduce(identity, _INTRODUCED_S)
    except TimeoutError:
        raise NoLine(f"our program in the guest did not answer in {_INTRODUCED_S:g} s") from None
    except (LinkDown, IdentityFailed, Unsendable) as failed:
        raise NoLine(str(failed)) from failed


async def _end(watched: Watched, machine: Machine, spec: StartSpec, roster: Roster) -> None:
    roster.let_go(spec.instance, watched, await kill(machine, "it could not be told who it is"))
