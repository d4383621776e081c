"""What is asked and told over a machine's monitor about its disks."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from innkeeper.drivers.qemu.blocks.nodes import overlay_node, overlaying
from innkeeper.drivers.qemu.qmp import Monitor, Rejected, nothing
from innkeeper.drivers.qemu.said import count, entries, field, optional, part
from innkeeper.model.ids import VolumeId

# What a guest has written by then goes to the host's disk within it, and the whole machine waits.
SWITCH_TIMEOUT_S = 30.0
_NO_NODE = "Failed to find node"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCounters:
    read_bytes: int
    written_bytes: int
    reads: int
    writes: int


class Disks:
    """Raises NoAnswer and Rejected as the monitor does."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    async def out_of_space(self) -> bool:
        """Whether a disk stands still because its file system was full when it was last written to."""
        return await self._monitor.ask("query-block", _out_of_space)

    async def counters(self) -> dict[str, BlockCounters]:
        """By device id."""
        return await self._monitor.ask("query-blockstats", _block_counters)

    async def tops(self) -> frozenset[str]:
        """Names of the nodes that the guest's disks write to."""
        return await self._monitor.ask("query-block", _tops)

    async def add(self, volume: VolumeId, file: Path) -> None:
        """QEMU has the volume open, and no disk uses it yet. What an earlier try left of it is replaced."""
        await self.drop(volume)
        direct = opens_direct(file)
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        try:
            # A set of descriptors with this number, which goes with us if nobody uses it.
            fd_set = await self._monitor.hand_over(fd, "add-fd", _fd_set, {"opaque": volume})
        finally:
            os.close(fd)
        await self._monitor.ask("blockdev-add", nothing, overlay_node(volume, fd_set, direct=direct))

    async def lay_over(self, pairs: Sequence[tuple[VolumeId, VolumeId]]) -> None:
        """Each volume is laid over the other of its pair at one moment for all of them; or nothing has changed."""
        await self._monitor.ask("transaction", nothing, {"actions": overlaying(pairs)}, timeout_s=SWITCH_TIMEOUT_S)

    async def drop(self, volume: VolumeId) -> None:
        """Take back `add`. One that was never added, or that a disk uses, is left alone."""
        for number, label in await self._monitor.ask("query-fdsets", _handed_over):
            if label == volume and await self._is_closed(volume):
                await self._monitor.ask("remove-fd", nothing, {"fdset-id": number})

    async def _is_closed(self, volume: VolumeId) -> bool:
        """It is now, if nothing uses it. QEMU is not asked for all its nodes: a long chain fills a whole message."""
        try:
            await self._monitor.ask("blockdev-del", nothing, {"node-name": volume})
        except Rejected as refused:
            return _NO_NODE in str(refused)
        return True

    async def drop_unused(self) -> None:
        """Take back all that was added in an earlier life of ours and never used."""
        for _, label in await self._monitor.ask("query-fdsets", _handed_over):
            if label:
                await self.drop(VolumeId(label))


def opens_direct(file: Path) -> bool:
    """Whether the page cache can be gone round: some file systems, such as tmpfs, do not have that."""
    try:
        os.close(os.open(file, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


# --- picking answers apart


def _out_of_space(said: object) -> bool:
    return "nospace" in [optional(entry, "io-status", str) for entry in entries(said)]


def _tops(said: object) -> frozenset[str]:
    filled = [entry for entry in entries(said) if not isinstance(entry, Mapping) or "inserted" in entry]
    return frozenset(field(part(entry, "inserted"), "node-name", str) for entry in filled)


def _fd_set(said: object) -> int:
    return count(said, "fdset-id")


def _handed_over(said: object) -> list[tuple[int, str]]:
    """The sets of descriptors, each with the label that its first one was given."""
    found = []
    for entry in entries(said):
        held = entries(entry.get("fds") if isinstance(entry, Mapping) else None)
        labels = [optional(fd, "opaque", str) or "" for fd in held]
        found.append((count(entry, "fdset-id"), labels[0] if labels else ""))
    return found


def _block_counters(said: object) -> dict[str, BlockCounters]:
    return dict(_counters(entry) for entry in entries(said))


def _counters(entry: object) -> tuple[str, BlockCounters]:
    # Virtio devices are told by a path that ends in the id of the front end.
    id_ = (optional(entry, "qdev", str) or "").removesuffix("/virtio-backend").rpartition("/")[2]
    stats = part(entry, "stats")
    return id_, BlockCounters(
        read_bytes=count(stats, "rd_bytes"),
        written_bytes=count(stats, "wr_bytes"),
        reads=count(stats, "rd_operations"),
        writes=count(stats, "wr_operations"),
    )
