"""The monitor of one QEMU: the few commands that we use, each with a deadline, and its events as values.

Raw QMP is never passed on: some of its commands open files and sockets by name, and one (`migrate exec:`) gets a
confined QEMU killed. What is not a method here, or in blocks/disks.py or memory/moves.py, cannot be said.

The other way round nothing is believed: a QEMU that its guest has taken over may answer with nonsense, and talk without
pause. Nonsense is no answer, or no event. Talk is heard at the rate that we set; the rest waits with QEMU.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from typing import TypeVar

from qemu.qmp import ExecuteError, Message, QMPClient, QMPError, Runstate

from innkeeper.drivers.qemu.said import Odd, entries, field, optional, plain
from innkeeper.drivers.qemu.seen import (
    ChannelChanged,
    DiskTrouble,
    Event,
    Panicked,
    Reset,
    Resumed,
    Run,
    ShutDown,
    StateMoved,
    Stopped,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

COMMAND_TIMEOUT_S = 5.0
# The longest honest answer is about the disks: some 10 KiB for each.
MESSAGE_MOST_BYTES = 1024 * 1024
# A message costs us its length, and something for its mere coming. So much is heard without a pause, which takes about
# a millisecond; and so much in a second, which is some six thousand events and a sixth of a processor.
MESSAGE_COST_BYTES = 128
AT_ONCE_BYTES = 8 * 1024
RATE_BYTES = 2 * 1024 * 1024

_RUNS = {
    "running": Run.RUNNING,
    "paused": Run.PAUSED,
    "prelaunch": Run.PAUSED,
    "postmigrate": Run.PAUSED,
    "inmigrate": Run.LOADING,
    "suspended": Run.PAUSED,
    "io-error": Run.IO_ERROR,
    "shutdown": Run.SHUT_DOWN,
    "internal-error": Run.BROKEN,
    "guest-panicked": Run.BROKEN,
    "watchdog": Run.BROKEN,
}


class NoAnswer(Exception):
    """QEMU is not there to be asked, or did not answer in time or not as QEMU would."""


class Rejected(Exception):
    """QEMU understood and declined; the text is its own."""


class Monitor:
    """One connection. Lost ones are not mended; make another."""

    def __init__(self, name: str, channels: Mapping[str, str], heard: Callable[[Event], None]) -> None:
        """`channels` maps QEMU's port ids to channel names; `heard` is called with each event as it comes."""
        self._name = name
        self._channels = channels
        self._heard = heard
        self._odd = False
        self._handing_over = asyncio.Lock()
        self._client = _Client(name, self._take)
        self._line: socket.socket | None = None

    @property
    def connected(self) -> bool:
        return self._client.runstate is Runstate.RUNNING

    async def connect(self, line: socket.socket, timeout_s: float) -> None:
        """Greet QEMU over a connected socket, which belongs to the monitor from then on.

        Raises:
            NoAnswer: it ended, or is busy with something else than us.
        """
        self._line = line
        try:
            async with asyncio.timeout(timeout_s):
                await self._client.connect(line)
        except TimeoutError:
            raise NoAnswer(f"QEMU of {self._name} did not answer in {timeout_s:g} s") from None
        except (QMPError, OSError, EOFError) as error:
            raise NoAnswer(f"QEMU of {self._name} does not answer: {plain(str(error))}") from error
        finally:
            if not self.connected:
                line.close()

    async def run(self) -> Run:
        return await self.ask("query-status", lambda said: _RUNS.get(field(said, "status", str), Run.BUSY))

    async def pause(self) -> None:
        await self.ask("stop", nothing)

    async def resume(self) -> None:
        await self.ask("cont", nothing)

    async def press_power_button(self) -> None:
        await self.ask("system_powerdown", nothing)

    async def quit(self) -> None:
        """QEMU writes out what it holds of the disks and ends."""
        await self.ask("quit", nothing)

    async def open_ends(self) -> frozenset[str]:
        """Labels of character devices that somebody in the guest has open."""
        return await self.ask("query-chardev", _open_ends)

    async def drain(self, timeout_s: float) -> None:
        """Hear the last words of a QEMU that has ended, then let the line go."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.connected:
                    await self._client.runstate_changed()
        except TimeoutError:
            pass  # no last words came: the line goes all the same
        await self.close()

    async def close(self) -> None:
        """Let the line go; QEMU runs on. May be repeated."""
        if self._line is not None:
            # Or we would wait until a QEMU that hangs has read what we said last.
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_RDWR)
        try:
            await self._client.disconnect()
        except Exception as error:
            # It says how the line was lost, in every way there is, which is of no use once we want it lost.
            log.debug("the monitor of %s was let go: %s", self._name, plain(repr(error)))

    async def hand_over(self, fd: int, command: str, pick: Callable[[object], T], arguments: Mapping[str, object]) -> T:
        """As `ask`, of a command that takes an open file: QEMU then has it too."""
        async with self._handing_over:
            try:
                # The library's own way reaches into asyncio's transport, which other event loops do not have. A blank
                # is what QMP passes over, and between two commands nothing else is on its way.
                if self._line is None:
                    raise NoAnswer(f"QEMU of {self._name} was never asked")
                socket.send_fds(self._line, [b" "], [fd])
            except OSError as error:
                raise NoAnswer(f"QEMU of {self._name} cannot be given a file: {plain(str(error))}") from error
            return await self.ask(command, pick, arguments)

    async def ask(
        self,
        command: str,
        pick: Callable[[object], T],
        arguments: Mapping[str, object] | None = None,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> T:
        """What `pick` finds in the answer. Only for what is a method here, or in one of those files.

        Raises:
            NoAnswer: none came in time, or there was nothing in it that QEMU would say.
            Rejected: QEMU declined.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return pick(await self._client.execute(command, arguments))
        except TimeoutError:
            raise NoAnswer(f"QEMU of {self._name} did not answer `{command}` in {timeout_s:g} s") from None
        except ExecuteError as error:
            raise Rejected(f"QEMU of {self._name} declined `{command}`: {plain(str(error))}") from error
        except Odd as odd:
            raise NoAnswer(f"QEMU of {self._name} answers `{command}` as no QEMU would, with {odd}") from odd
        except (QMPError, OSError, EOFError) as error:
            raise NoAnswer(f"QEMU of {self._name} cannot be asked `{command}`: {plain(str(error))}") from error

    def _take(self, message: Message) -> None:
        """What QEMU says without having been asked."""
        try:
            event = translate(message, self._channels)
        except Odd as odd:
            # Said once: what comes from a guest must not fill our log.
            if not self._odd:
                log.warning("QEMU of %s says what no QEMU would, %s: has its guest taken it over?", self._name, odd)
            self._odd = True
            return
        if event is not None:
            self._heard(event)


class _Client(QMPClient):
    """The library's client, kept from what would take our time and memory."""

    def __init__(self, name: str, unasked: Callable[[Message], None]) -> None:
        super().__init__(name, MESSAGE_MOST_BYTES)
        # Every end of a machine is an error to the library, and every message that it cannot place. We tell of it
        # ourselves, with its reason.
        self.logger = logging.getLogger("innkeeper.qmp.library")
        self.logger.setLevel(logging.CRITICAL + 1)
        self._unasked = unasked
        self._cost_bytes = 0

    def _cb_inbound(self, msg: Message) -> Message:
        """As it is. The library would write each message out in full, for a log that nobody keeps."""
        return msg

    async def _on_message(self, msg: Message) -> None:
        """Events go round the library's listeners, of which one keeps all that it ever heard."""
        id_ = msg.get("id")
        if "event" in msg or not (id_ is None or isinstance(id_, str)):
            self._unasked(msg)
        else:
            await super()._on_message(msg)
        self._cost_bytes += len(bytes(msg)) + MESSAGE_COST_BYTES
        if self._cost_bytes > AT_ONCE_BYTES:
            cost_bytes, self._cost_bytes = self._cost_bytes, 0
            await asyncio.sleep(cost_bytes / RATE_BYTES)


def translate(event: Mapping[str, object], channels: Mapping[str, str]) -> Event | None:
    """An event of QEMU's as one of ours; None for those that say nothing to us.

    Raises:
        Odd: QEMU would not say so.
    """
    data = event.get("data")
    match field(event, "event", str):
        case "SHUTDOWN":
            return ShutDown(field(data, "guest", bool), plain(optional(data, "reason", str)))
        case "RESET":
            return Reset(field(data, "guest", bool))
        case "STOP":
            return Stopped()
        case "RESUME":
            return Resumed()
        case "BLOCK_IO_ERROR":
            return _disk_trouble(data)
        case "GUEST_PANICKED" | "GUEST_CRASHLOADED":
            return Panicked()
        case "MIGRATION":
            ended = {"completed": True, "failed": False, "cancelled": False}.get(field(data, "status", str))
            return StateMoved(ended) if ended is not None else None
        case "VSERPORT_CHANGE":
            name, open_ = channels.get(field(data, "id", str)), field(data, "open", bool)
            return ChannelChanged(name, open_) if name is not None else None
        case _:
            return None


def _disk_trouble(data: object) -> DiskTrouble:
    # The device has no name of its own where a node was named, as with ours.
    device = plain(optional(data, "node-name", str) or field(data, "device", str))
    stops = field(data, "action", str) == "stop"
    return DiskTrouble(device, bool(optional(data, "nospace", bool)), stops, plain(optional(data, "reason", str)))


def nothing(_: object) -> None:
    """All that there is in the answer to what is no question."""


def _open_ends(said: object) -> frozenset[str]:
    found = [(field(entry, "label", str), field(entry, "frontend-open", bool)) for entry in entries(said)]
    return frozenset(label for label, open_ in found if open_)
