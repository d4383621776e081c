"""What people read and type at machines: consoles and logs."""

from __future__ import annotations

from pathlib import Path

from innkeeper.agent.watching.watched import Watched
from innkeeper.drivers.qemu.directory import MachineDirectory
from innkeeper.drivers.qemu.serial import View, said_lately
from innkeeper.ports.host import NoLine

_LOG_MOST_BYTES = 1024 * 1024
_OWN_LINES = 100


def console(watched: Watched) -> View:
    """
    Raises:
        NoLine: its console is held by somebody else, or its QEMU hangs.
    """
    line = watched.machine.console
    if line is None:
        raise NoLine("its console cannot be reached now; it is tried again every few seconds")
    return line.view()


def log(machines: Path, instance: str) -> bytes:
    """What the machine said lately, and QEMU's own messages; also of one that ended.

    Raises:
        NoLine: it has never run here.
    """
    path = machines / instance
    if not path.is_dir():
        raise NoLine(f"{instance} has never run on this host, so it has no log; start it first")
    directory = MachineDirectory(path)
    said = said_lately(directory.console_file, _LOG_MOST_BYTES)
    own = directory.log_tail(_OWN_LINES)
    return said + (f"\n--- QEMU's own messages ---\n{own}\n".encode() if own else b"")
