"""Whether a guest's file systems stand still for a moment, and that they never do for longer.

    note that it may ──▶ ask the agent to hold them ──▶ the moment ──▶ ask it to let go ──▶ remove the note

A guest that is held cannot write, so nothing is held on a hope: whatever happens after the note was written, the guest
is asked to let go until its agent has answered that, by a later life of ours if need be. And nobody waits for a guest
for longer than a few seconds: one that is slow, or has no agent, is taken as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from innkeeper.drivers.qemu.agent import Declined, NoAgent
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.seen import Run
from innkeeper.model.hardware import AGENT_CHANNEL

log = logging.getLogger(__name__)

HOLD_S = 5.0
LET_GO_S = 2.0
_PAUSE_FIRST_S, _PAUSE_MOST_S = 1.0, 30.0


@dataclass(slots=True)
class Moment:
    """Whether the guest's file systems stood still, known once it has passed."""

    consistent: bool = False


class Stillness:
    """Of one machine's guest, whoever asked it: what an earlier life left held is let go by `run`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._turn = asyncio.Lock()
        self._left_held = asyncio.Event()
        self._told = False
        if self._note_exists():
            self._left_held.set()

    @asynccontextmanager
    async def held(self, moment: Moment, *, ask: bool) -> AsyncIterator[None]:
        """Meanwhile they stand still, where the guest can do that; afterwards the moment tells whether they did.

        Only a guest whose agent is known to answer should be asked.
        """
        async with self._turn:
            try:
                held = ask and await self._hold()
                yield
            finally:
                until_now = await self._release()
            moment.consistent = held and until_now

    async def run(self) -> None:
        """Lets go what is held and should not be, until cancelled."""
        pause_s = _PAUSE_FIRST_S
        while True:
            await self._left_held.wait()
            async with self._turn:
                if not self._note_exists() or await self._let_go() is not None:
                    self._left_held.clear()
                    pause_s = _PAUSE_FIRST_S
                    continue
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MOST_S)

    # --- in turn

    async def _hold(self) -> bool:
        seen = self._machine.seen
        if seen.run is not Run.RUNNING or seen.panicked or seen.unreachable or AGENT_CHANNEL not in seen.open_channels:
            return False
        try:
            self._machine.directory.mark(self._machine.directory.still_file)
            return await self._machine.agent.hold_still(HOLD_S) > 0
        except (NoAgent, OSError) as failed:
            log.info("%s: its file systems do not stand still for the snapshot: %s", self._machine.name, failed)
            return False

    async def _release(self) -> bool:
        """Whether they stood still until now."""
        try:
            held = await self._let_go() if self._note_exists() else 0
        finally:
            # Whatever happened: as long as there is the note, somebody must ask.
            if self._note_exists():
                self._left_held.set()
        return held is not None and held > 0

    async def _let_go(self) -> int | None:
        """How many were held; None: nobody knows yet."""
        try:
            held = await self._machine.agent.let_go(LET_GO_S)
        except Declined as will_not:
            self._remark("its file systems may be held: %s", will_not)
            held = 0
        except NoAgent as silent:
            self._remark("its file systems may be held, and it is asked on to let go: %s", silent)
            return None
        self._machine.directory.still_file.unlink(missing_ok=True)
        self._told = False
        return held

    def _remark(self, words: str, why: NoAgent) -> None:
        """Once: a guest decides how often it does not answer."""
        log.log(logging.DEBUG if self._told else logging.WARNING, f"%s: {words}", self._machine.name, why)
        self._told = True

    def _note_exists(self) -> bool:
        return self._machine.directory.still_file.exists()
