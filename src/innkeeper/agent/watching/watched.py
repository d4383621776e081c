"""One machine that is up: followed by tasks of its own, and described as a state.

    QEMU's events ──▶ follow ──▶ Guest ──▶ changed() whenever there is something new to tell
    its process ────▶ follow ──▶ ended(end), once

A monitor that was lost, or that did not answer when the machine was found again, is tried again by and by.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from innkeeper.agent.watching.guests import Guest
from innkeeper.agent.watching.stillness import Stillness
from innkeeper.drivers.qemu import hand
from innkeeper.drivers.qemu.directory import CONSOLE, LineBusy
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.seen import End, Seen
from innkeeper.drivers.qemu.serial import ConsoleLine
from innkeeper.model.observed import Ended, MachineState, Phase
from innkeeper.ports.tasks import steady

# A guest without any program of ours never says that it runs; after this long it is believed.
BELIEVED_S = 120.0
_LOOK_AGAIN_S = 10.0
_ASKED = "it was asked to stop"
_ATTACH_S = 5.0


class Watched:
    """`changed` and `ended` are called from the loop, the latter once, and never after `close`."""

    def __init__(self, machine: Machine, changed: Callable[[], None], ended: Callable[[End], None]) -> None:
        self.machine = machine
        self.guest = Guest(machine, changed)
        self.stillness = Stillness(machine)
        # How long the guest may take to shut down, while somebody waits for that.
        self._asked_s: float | None = None
        self._changed = changed
        self._ended = ended
        self._booted_at = asyncio.get_running_loop().time() - max(0.0, time.time() - machine.record.started_at)
        self._resets = machine.seen.resets
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, group: asyncio.TaskGroup) -> None:
        name = self.machine.directory.path.name
        loops = (
            ("watching", self._follow),
            ("asking the guest of", self.guest.run),
            ("looking after", self._look_after),
            ("letting go of the guest of", self.stillness.run),
        )
        self._tasks = [group.create_task(steady(f"{what} {name}", loop)) for what, loop in loops]

    def describe(self, known: MachineState) -> MachineState:
        """The state now, as it follows upon an earlier one."""
        seen, said = self.machine.seen, self.guest.said
        phase = seen.phase
        if phase is Phase.STARTING and (said.agent or self._is_believed()):
            phase = Phase.RUNNING
        dead = phase in (Phase.PANICKED, Phase.UNKNOWN)
        return replace(
            known,
            phase=phase,
            since=known.since if phase is known.phase else time.time(),
            reason=seen.unreachable or seen.trouble,
            agent=said.agent and not dead,
            guest_program=said.program and not dead,
            cloud_init=said.cloud_init,
            addresses=said.addresses,
        )

    def why(self, end: End) -> str:
        """The reason of an end. A guest that went when it was asked to leaves nothing to explain."""
        if end.ended is not Ended.ASKED or self._asked_s is None:
            return end.reason
        shut_down = self.machine.seen.shut_down
        if self._asked_s == 0 or (shut_down is not None and shut_down.by_guest):
            return ""
        return f"the guest did not shut down within {self._asked_s:g} s and was ended by force"

    async def stop(self, grace_s: float) -> End:
        """Asked and then forced, as the driver does; one that has panicked hears nothing, and is forced at once.

        Interrupted, the guest may still leave, but nobody asked it to.
        """
        self._asked_s = 0 if self.machine.seen.phase is Phase.PANICKED else grace_s
        try:
            return await hand.stop(self.machine, self._asked_s, _ASKED)
        except asyncio.CancelledError:
            self._asked_s = None
            self.machine.directory.asked_file.unlink(missing_ok=True)
            raise

    async def close(self) -> None:
        """Look away. The machine may run on."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.guest.close()
        await self.machine.close()

    # --- by itself

    async def _follow(self) -> None:
        async for seen in self.machine.changes():
            if seen.end is not None:
                self._ended(seen.end)
                return
            self._saw(seen)

    def _saw(self, seen: Seen) -> None:
        if seen.resets != self._resets:
            self._resets = seen.resets
            self._booted_at = asyncio.get_running_loop().time()
        self.guest.saw(seen)
        self._changed()

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_AGAIN_S)
            await self.machine.attach(_ATTACH_S)
            if self.machine.console is None:
                await self._attach_console()
            self._changed()

    async def _attach_console(self) -> None:
        directory = self.machine.directory
        try:
            self.machine.console = await ConsoleLine.over(directory.connect(CONSOLE), directory.console_file)
        except (LineBusy, OSError):
            pass  # it hangs, or is just ending: looked at again

    def _is_believed(self) -> bool:
        return asyncio.get_running_loop().time() - self._booted_at > BELIEVED_S
