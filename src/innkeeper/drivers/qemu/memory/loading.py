"""A machine that goes on where another one was saved.

    start      with `incoming`: the same hardware, memory as copies of the saved one's pages
    load       the state; the guest stands still, and knows nothing of what happened since
    go         it runs, with the identity of the one that was saved
    link       its network card, once it has an identity of its own

A card's link is part of the state: it is as it was when the machine was saved. It must be down then, or the guest tells
the network of an address that is not its own.
"""

from __future__ import annotations

import asyncio
import os

from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.memory.moves import Moves, moved
from innkeeper.drivers.qemu.qmp import NoAnswer, Rejected, nothing
from innkeeper.drivers.qemu.render import card_device
from innkeeper.drivers.qemu.seen import Run
from innkeeper.model.ids import NicId

# A QEMU that cannot load ends by itself at once.
LAST_WORDS_S = 0.5
KILL_TIMEOUT_S = 10.0


class LoadFailed(Exception):
    """The guest does not go on, and QEMU has ended; the text says why, in its own words where it has some."""


async def load(machine: Machine, state_fd: int, timeout_s: float) -> None:
    """Read the state from the beginning of this file, which any number of machines may read at once.

    The guest's programs on channels are seen (`open_channels`) only once it has gone on.

    Raises:
        LoadFailed: the machine is gone; unless it never waited for a state: then nothing has happened to it.
    """
    if machine.seen.run is not Run.LOADING:
        raise LoadFailed(f"{machine.name} does not wait for a state to be loaded: it is {machine.seen.run}")
    try:
        async with asyncio.timeout(timeout_s):
            await _load(machine, state_fd)
    except TimeoutError:
        await _end(machine)
        raise LoadFailed(f"{machine.name} was not loaded in {timeout_s:g} s") from None
    except (NoAnswer, Rejected, OSError) as error:
        words = await _end(machine)
        # Where QEMU gave up, its own words tell more than that it does not answer.
        why = words if isinstance(error, NoAnswer) and words else error
        raise LoadFailed(f"{machine.name} could not be loaded: {why}") from error
    except BaseException:
        machine.pull_plug()
        raise


async def go(machine: Machine) -> None:
    """The loaded guest runs. Its state may now be saved in full, memory included.

    Raises:
        NoAnswer: nobody knows.
        Rejected: it does not, because QEMU declined.
    """
    await machine.monitor.resume()


async def link(machine: Machine, card: NicId, *, up: bool) -> None:
    """The guest's network card has a link or none, as by plugging a cable.

    Raises:
        NoAnswer: nobody knows.
        Rejected: there is no such card.
    """
    await machine.monitor.ask("set_link", nothing, {"name": card_device(card), "up": up})


async def _load(machine: Machine, state_fd: int) -> None:
    moves, before = Moves(machine.monitor), machine.seen.moves
    await moves.prepare()
    await moves.announce_once()
    # Opened afresh: machines that share a description would share its place in the file.
    fd = os.open(f"/proc/self/fd/{state_fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        await moves.read_from(fd)
    finally:
        os.close(fd)
    seen = await moved(machine, before)
    if not seen.moved_well or seen.end is not None:
        raise LoadFailed(f"{machine.name} could not be loaded: {await _end(machine) or 'QEMU does not say why'}")
    await moves.take_memory_along()


async def _end(machine: Machine) -> str:
    """It is gone. What it said last, on its own if it was given the time to."""
    if not await machine.gone_within(LAST_WORDS_S):
        machine.pull_plug()
        await machine.gone_within(KILL_TIMEOUT_S)
    return machine.directory.log_tail()
