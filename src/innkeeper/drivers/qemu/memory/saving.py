"""Saving a machine's state into a file, its memory being in one already.

Afterwards QEMU is of no use: its disks are given up, and its guest stands still. Whoever saved ends it, and only once
it is gone nobody writes to its memory any more.
"""

from __future__ import annotations

import asyncio

from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.memory.moves import Moves, moved
from innkeeper.drivers.qemu.qmp import NoAnswer, Rejected


class SaveFailed(Exception):
    """There is no whole state; the text says why, in QEMU's own words where it has some."""


async def save(machine: Machine, state_fd: int, timeout_s: float) -> None:
    """Stop the guest and write its state into this open file, from where it stands on. To be ended by the caller.

    Raises:
        SaveFailed: what was written is worth nothing. The guest may stand still, and QEMU may be gone.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await _save(machine, state_fd)
    except TimeoutError:
        raise SaveFailed(f"the state of {machine.name} was not saved in {timeout_s:g} s") from None
    except (NoAnswer, Rejected) as error:
        raise SaveFailed(f"the state of {machine.name} was not saved: {error}") from error


async def _save(machine: Machine, state_fd: int) -> None:
    await machine.monitor.pause()
    moves, before = Moves(machine.monitor), machine.seen.moves
    await moves.prepare()
    await moves.write_to(state_fd)
    seen = await moved(machine, before)
    if seen.end is not None:
        raise SaveFailed(f"the state of {machine.name} was not saved: {seen.end.reason}")
    if not seen.moved_well:
        why = await moves.why_not() or machine.directory.log_tail() or "QEMU does not say why"
        raise SaveFailed(f"the state of {machine.name} was not saved: {why}")
