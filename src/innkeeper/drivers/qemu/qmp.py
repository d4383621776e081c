"""The monitor of one QEMU: the few commands that we use, each with a deadline, and its events as values.

Raw QMP is never passed on: some of its commands open files and sockets by name, and one (`migrate exec:`) gets a
confined QEMU killed. What is not a method here cannot be said.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qemu.qmp import ExecuteError, Message, QMPClient, QMPError, Runstate
from qemu.qmp.events import EventListener

from innkeeper.drivers.qemu.seen import (
    ChannelChanged,
    DiskTrouble,
    Event,
    Panicked,
    Reset,
    Resumed,
    Run,
    ShutDown,
    Stopped,
)

COMMAND_TIMEOUT_S = 5.0

_RUNS = {
    "running": Run.RUNNING,
    "paused": Run.PAUSED,
    "prelaunch": Run.PAUSED,
    "suspended": Run.PAUSED,
    "io-error": Run.IO_ERROR,
    "shutdown": Run.SHUT_DOWN,
    "internal-error": Run.BROKEN,
    "guest-panicked": Run.BROKEN,
    "watchdog": Run.BROKEN,
}


class NoAnswer(Exception):
    """QEMU is not there to be asked, or did not answer in time."""


class Rejected(Exception):
    """QEMU understood and declined; the text is its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCounters:
    read_bytes: int
    written_bytes: int
    reads: int
    writes: int


class Monitor:
    """One connection. Lost ones are not mended; make another."""

    def __init__(self, name: str, channels: Mapping[str, str], heard: Callable[[Event], None]) -> None:
        """`channels` maps QEMU's port ids to channel names; `heard` is called with each event as it comes."""
        self._name = name
        self._client = QMPClient(name)
        # Every end of a machine is an error to the library; we tell of it ourselves, with its reason.
        self._client.logger = logging.getLogger("innkeeper.qmp.library")
        self._client.logger.setLevel(logging.CRITICAL + 1)
        self._client.register_listener(_Listener(channels, heard))
        # The library's own listener keeps all it ever heard, so it is told to wait for what never comes.
        self._client.events.names.add("NONE")

    @property
    def connected(self) -> bool:
        return self._client.runstate is Runstate.RUNNING

    async def connect(self, line: socket.socket, timeout_s: float) -> None:
        """Greet QEMU over a connected socket, which belongs to the monitor from then on.

        Raises:
            NoAnswer: it ended, or is busy with something else than us.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._client.connect(line)
        except TimeoutError:
            raise NoAnswer(f"QEMU of {self._name} did not answer in {timeout_s:g} s") from None
        except (QMPError, OSError, EOFError) as error:
            raise NoAnswer(f"QEMU of {self._name} does not answer: {error}") from error
        finally:
            if not self.connected:
                line.close()

    async def run(self) -> Run:
        answer = await self._say("query-status")
        return _RUNS.get(answer["status"], Run.BUSY)

    async def pause(self) -> None:
        await self._say("stop")

    async def resume(self) -> None:
        await self._say("cont")

    async def press_power_button(self) -> None:
        await self._say("system_powerdown")

    async def press_reset_button(self) -> None:
        await self._say("system_reset")

    async def quit(self) -> None:
        """QEMU writes out what it holds of the disks and ends."""
        await self._say("quit")

    async def open_ends(self) -> frozenset[str]:
        """Labels of character devices that somebody in the guest has open."""
        answer = await self._say("query-chardev")
        return frozenset(entry["label"] for entry in answer if entry["frontend-open"])

    async def out_of_space(self) -> bool:
        """Whether a disk stands still because its file system was full when it was last written to."""
        answer = await self._say("query-block")
        return any(entry.get("io-status") == "nospace" for entry in answer)

    async def block_counters(self) -> dict[str, BlockCounters]:
        """By device id."""
        found = {}
        for entry in await self._say("query-blockstats"):
            stats = entry["stats"]
            # Virtio devices are told by a path that ends in the id of the front end.
            id_ = str(entry.get("qdev", "")).removesuffix("/virtio-backend").rpartition("/")[2]
            found[id_] = BlockCounters(
                read_bytes=stats["rd_bytes"],
                written_bytes=stats["wr_bytes"],
                reads=stats["rd_operations"],
                writes=stats["wr_operations"],
            )
        return found

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
        try:
            await self._client.disconnect()
        except (QMPError, OSError, EOFError):
            pass  # it says how the line was lost, which is of no use once we want it lost

    async def _say(self, command: str) -> Any:
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                return await self._client.execute(command)
        except TimeoutError:
            raise NoAnswer(f"QEMU of {self._name} did not answer `{command}` in {COMMAND_TIMEOUT_S:g} s") from None
        except ExecuteError as error:
            raise Rejected(f"QEMU of {self._name} declined `{command}`: {error}") from error
        except (QMPError, OSError, EOFError) as error:
            raise NoAnswer(f"QEMU of {self._name} cannot be asked `{command}`: {error}") from error


class _Listener(EventListener):
    """Passes events on as they are read, in place of the library's endless queue."""

    def __init__(self, channels: Mapping[str, str], heard: Callable[[Event], None]) -> None:
        super().__init__()
        self._channels = channels
        self._heard = heard

    async def put(self, event: Message) -> None:
        known = translate(event, self._channels)
        if known is not None:
            self._heard(known)


def translate(event: Mapping[str, Any], channels: Mapping[str, str]) -> Event | None:
    """An event of QEMU's as one of ours; None for those that say nothing to us."""
    data = event.get("data", {})
    match event["event"]:
        case "SHUTDOWN":
            return ShutDown(bool(data["guest"]), str(data.get("reason", "")))
        case "RESET":
            return Reset(bool(data["guest"]))
        case "STOP":
            return Stopped()
        case "RESUME":
            return Resumed()
        case "BLOCK_IO_ERROR":
            return _disk_trouble(data)
        case "GUEST_PANICKED" | "GUEST_CRASHLOADED":
            return Panicked()
        case "VSERPORT_CHANGE" if data["id"] in channels:
            return ChannelChanged(channels[data["id"]], bool(data["open"]))
        case _:
            return None


def _disk_trouble(data: Mapping[str, Any]) -> DiskTrouble:
    device = str(data.get("node-name") or data.get("device"))
    return DiskTrouble(device, bool(data.get("nospace")), data["action"] == "stop", str(data.get("reason", "")))
