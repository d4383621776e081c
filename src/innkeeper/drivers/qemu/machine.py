"""One running machine, as the daemon holds it: a process, a monitor, a console, and what was seen of them.

It has no tasks of its own. Events come in as the monitor's library reads them, the end by the process's descriptor;
both change `seen`, which wakes whoever follows `changes`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

from innkeeper.drivers.qemu import process
from innkeeper.drivers.qemu.agent import GuestAgent
from innkeeper.drivers.qemu.blocks.disks import Disks
from innkeeper.drivers.qemu.directory import CHANNELS, QMP, MachineDirectory, Record, boot_id
from innkeeper.drivers.qemu.qmp import Monitor, NoAnswer, Rejected
from innkeeper.drivers.qemu.render import channel_label, channel_port
from innkeeper.drivers.qemu.seen import NO_SPACE, End, EndFacts, Event, Run, Seen, ShutDown, explain, follow
from innkeeper.drivers.qemu.serial import ConsoleLine
from innkeeper.model.hardware import AGENT_CHANNEL

log = logging.getLogger(__name__)

LAST_WORDS_TIMEOUT_S = 0.5
# The launcher writes how a process ended right after the kernel has told both of us that it did.
EXIT_FILE_LOOK_S, EXIT_FILE_LOOKS = 0.01, 200


class Machine:
    """Made by `hand.start` and `hand.adopt`. Belongs to one event loop."""

    def __init__(self, name: str, directory: MachineDirectory, record: Record, held: int) -> None:
        """`held` is a descriptor of the process and belongs to the machine from then on."""
        self.name = name
        self.directory = directory
        self.record = record
        self.agent = GuestAgent(lambda: directory.connect(CHANNELS[AGENT_CHANNEL]))
        self.console: ConsoleLine | None = None
        self.seen = Seen()
        self._held: int | None = held
        self._monitor: Monitor | None = None
        self._gone = asyncio.Event()
        self._change = asyncio.Event()
        self._explaining = asyncio.Lock()
        asyncio.get_running_loop().add_reader(held, self._went)

    @property
    def monitor(self) -> Monitor:
        """Raises NoAnswer when there is nobody to ask."""
        if self._monitor is None or self._gone.is_set():
            raise NoAnswer(f"QEMU of {self.name} cannot be asked: {self.seen.unreachable or 'it has ended'}")
        return self._monitor

    # --- looking

    async def attach(self, timeout_s: float, line: socket.socket | None = None) -> None:
        """Connect to the monitor, or see whether it still answers, and learn how the machine is now.

        That QEMU does not answer is not raised but seen (`unreachable`): a process that hangs is still this machine.
        """
        if self._monitor is not None and self._monitor.connected:
            await self._see_whether_it_hangs(self._monitor)
            return
        if self._monitor is not None:
            await self._monitor.close()
        monitor = Monitor(self.name, {channel_port(name): name for name in CHANNELS}, self._heard)
        try:
            async with asyncio.timeout(timeout_s):
                await monitor.connect(line or self.directory.connect(QMP), timeout_s)
                run, ends = await monitor.run(), await monitor.open_ends()
                full = run is Run.IO_ERROR and await Disks(monitor).out_of_space()
        except (NoAnswer, Rejected, OSError) as error:
            await monitor.close()
            why = str(error) or f"it did not answer in {timeout_s:g} s"
            self._cannot_ask(why)
            return
        except BaseException:
            # QEMU serves one monitor at a time: one that nobody holds would keep us out.
            await monitor.close()
            raise
        self._monitor = monitor
        channels = frozenset(name for name in CHANNELS if channel_label(name) in ends)
        answered = self.seen.answered or bool(channels)
        seen = replace(self.seen, run=run, open_channels=channels, answered=answered, unreachable="", no_space=full)
        # The event that named the disk came to an earlier life of ours.
        self._see(replace(seen, trouble=seen.trouble or NO_SPACE) if full else seen)

    async def _see_whether_it_hangs(self, monitor: Monitor) -> None:
        """What it did meanwhile it tells itself, in order, once it goes on."""
        try:
            await monitor.run()
        except (NoAnswer, Rejected) as error:
            self._cannot_ask(str(error))
        else:
            if self.seen.unreachable:
                self._see(replace(self.seen, unreachable=""))

    def _cannot_ask(self, why: str) -> None:
        self._see(replace(self.seen, unreachable=f"QEMU runs (pid {self.record.pid}) and cannot be asked: {why}"))

    async def changes(self) -> AsyncIterator[Seen]:
        """What is seen now, then whenever it changed, newest only; the last one has an `end`. Any number may follow."""
        shown: Seen | None = None
        while True:
            change = self._change
            if self._gone.is_set():
                await self.ended()
            if self.seen != shown:
                shown = self.seen
                yield shown
            if shown.end is not None:
                return
            await change.wait()

    async def ended(self) -> End:
        """Wait for the end, and for what explains it."""
        await self._gone.wait()
        async with self._explaining:
            if self.seen.end is None:
                self._see(replace(self.seen, end=await self._explain()))
        end = self.seen.end
        assert end is not None
        return end

    async def gone_within(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._gone.wait()
        except TimeoutError:
            pass  # the answer says so
        return self._gone.is_set()

    # --- acting

    def pull_plug(self) -> None:
        """Kill the process. One that has ended is no error."""
        if self._held is not None:
            process.kill(self._held)

    async def close(self) -> None:
        """Let go of a machine that may run on. May be repeated."""
        self._let_go()
        if self.console is not None:
            self.console.close()
        if self._monitor is not None:
            await self._monitor.close()

    # --- within

    def _heard(self, event: Event) -> None:
        self._see(follow(self.seen, event))

    def _see(self, seen: Seen) -> None:
        self.seen = seen
        self._change.set()
        self._change = asyncio.Event()

    def _went(self) -> None:
        self._let_go()
        self._gone.set()
        self._see(self.seen)

    def _let_go(self) -> None:
        if self._held is not None:
            asyncio.get_running_loop().remove_reader(self._held)
            os.close(self._held)
            self._held = None

    async def _explain(self) -> End:
        if self._monitor is not None:
            await self._monitor.drain(LAST_WORDS_TIMEOUT_S)
        if self.console is not None:
            await self.console.drain(LAST_WORDS_TIMEOUT_S)
        await exit_is_written(self.directory, self.record)
        shut_down = self.seen.shut_down
        if shut_down is not None and shut_down.by_guest:
            try:
                self.directory.mark(self.directory.left_file)
            except OSError as full:
                log.warning("%s: that its guest shut down cannot be noted: %s", self.name, full)
        return explain(end_facts(self.directory, self.record, shut_down))


async def exit_is_written(directory: MachineDirectory, record: Record | None) -> None:
    """Give the launcher time to write how a process ended that has just ended.

    Looks again and again, which is cheap, short and rare: launchers of earlier daemons have no line to us.
    """
    for _ in range(EXIT_FILE_LOOKS):
        if record is None or directory.exit() is not None or process.start_time(record.launcher) is None:
            return
        await asyncio.sleep(EXIT_FILE_LOOK_S)


def end_facts(directory: MachineDirectory, record: Record, shut_down: ShutDown | None = None) -> EndFacts:
    """What is known about the end of a machine that runs no more. `shut_down` is what QEMU itself told us of it."""
    exit_ = directory.exit()
    if exit_ is not None and (exit_.pid, exit_.start_time) != (record.pid, record.start_time):
        exit_ = None
    killed = exit_ is None or exit_.signal is not None
    return EndFacts(
        code=exit_.code if exit_ else None,
        signal=exit_.signal if exit_ else None,
        at=exit_.at if exit_ else None,
        asked=directory.asked(),
        shut_down=shut_down,
        out_of_memory=process.out_of_memory(record.pid) if killed else None,
        host_booted=record.boot_id != boot_id(),
        log=directory.log_tail(),
    )
