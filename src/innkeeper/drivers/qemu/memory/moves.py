"""What is asked and told over a machine's monitor about its state: all that QEMU holds of it, but for memory in a file.

QEMU calls it migration, whether the state goes to another host, to a file or comes from one.
"""

from __future__ import annotations

from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.qmp import Monitor, nothing
from innkeeper.drivers.qemu.said import optional, plain
from innkeeper.drivers.qemu.seen import Seen

_NAME = "state"
# Its events tell of the end, so that nobody has to ask again and again; memory in a file stays where it is.
_EVENTS, _MEMORY_STAYS = "events", "x-ignore-shared"


class Moves:
    """Raises NoAnswer and Rejected as the monitor does."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    async def prepare(self) -> None:
        """What moves from now on leaves out memory that lies in a file."""
        await self._allow({_EVENTS: True, _MEMORY_STAYS: True})

    async def take_memory_along(self) -> None:
        """Take back `prepare`: a later save that left memory out would lose what the guest has written since."""
        await self._allow({_MEMORY_STAYS: False})

    async def announce_once(self) -> None:
        """QEMU and the guest tell the network of the address that it was saved with only once, and at once: while the
        card has no link, nobody hears it.
        """
        # Not never: with no rounds at all QEMU frees the card's timer when it loads, and crashes when the guest resets
        # the card, that is when it reboots or shuts down (seen with 7.2, and unchanged since).
        await self._monitor.ask("migrate-set-parameters", nothing, {"announce-rounds": 1})

    async def write_to(self, fd: int) -> None:
        """QEMU begins to write the state, from where this open file stands on."""
        await self._hand_over(fd)
        await self._monitor.ask("migrate", nothing, {"uri": f"fd:{_NAME}"})

    async def read_from(self, fd: int) -> None:
        """QEMU begins to read the state, from where this open file stands on."""
        await self._hand_over(fd)
        await self._monitor.ask("migrate-incoming", nothing, {"uri": f"fd:{_NAME}"})

    async def why_not(self) -> str:
        """Why the last move failed; nothing if QEMU does not say."""
        said = await self._monitor.ask("query-migrate", lambda told: optional(told, "error-desc", str))
        return plain(said)

    async def _allow(self, abilities: dict[str, bool]) -> None:
        listed = [{"capability": name, "state": on} for name, on in abilities.items()]
        await self._monitor.ask("migrate-set-capabilities", nothing, {"capabilities": listed})

    async def _hand_over(self, fd: int) -> None:
        await self._monitor.hand_over(fd, "getfd", nothing, {"fdname": _NAME})


async def moved(machine: Machine, before: int) -> Seen:
    """Wait until the state was moved once more than `before`, or QEMU has ended."""
    async for seen in machine.changes():
        if seen.moves > before:
            return seen
    return machine.seen
