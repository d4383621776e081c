"""Commands of simulated guests: a handful, and each does what it says, on what it is given.

Files lie on the instance's root disk, in a few folders that are always there; they stay when it stops, and are gone
with it. Any other command is not found, rather than made up.
"""

from __future__ import annotations

from dataclasses import dataclass
from posixpath import dirname

from innkeeper.ports.streams import Pty
from innkeeper.sim.metal.guests import Machine
from innkeeper.sim.metal.pool import GuestFile, SimDisk
from innkeeper.sim.state import SimState

_FOLDERS = ("/", "/etc", "/root", "/tmp")
_MODE_NEW = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command says on both its outputs, and its exit code."""

    out: bytes = b""
    err: str = ""
    code: int = 0


def answer(state: SimState, machine: Machine, pty: Pty | None, argv: tuple[str, ...]) -> Said | None:
    """Of commands that end at once. None: there is no such command."""
    name = machine.action.name
    match argv:
        case ("true",):
            return Said()
        case ("false",):
            return Said(code=1)
        case ("echo", *words):
            return Said(out=f"{' '.join(words)}\n".encode())
        case ("hostname",):
            return Said(out=f"{name}\n".encode())
        case ("uname", "-a"):
            return Said(out=f"Linux {name} {state.size.kernel} simulated x86_64 GNU/Linux\n".encode())
        case ("stty", "size") if pty is not None:
            return Said(out=f"{pty.rows} {pty.cols}\n".encode())
        case ("poweroff",):
            # The session is answered before its line goes down with the machine.
            state.clock.later(0.0, lambda: _power_off(state, machine))
            return Said()
        case _:
            return _on_files(disk_of(state, machine), argv)


def output_file(argv: tuple[str, ...]) -> str | None:
    """Where `dd` writes what it reads; None: this is not how we are asked to."""
    if argv[:1] != ("dd",):
        return None
    return next((word.removeprefix("of=") for word in argv if word.startswith("of=")), None)


def write_file(state: SimState, machine: Machine, path: str, data: bytes) -> Said:
    """All that `dd` has read. On a full pool the machine is paused, and nobody answers any more."""
    disk = disk_of(state, machine)
    if disk is None or dirname(path) not in _FOLDERS or path in _FOLDERS:
        return Said(err=f"dd: can't open '{path}': No such file or directory\n", code=1)
    volume = machine.action.hardware.disks()[0].volume
    if not state.write(machine.action.instance, volume, len(data)):
        return Said(err=f"dd: error writing '{path}': Input/output error\n", code=1)
    disk.files[path] = GuestFile(data=data, mode=_MODE_NEW)
    return Said()


def disk_of(state: SimState, machine: Machine) -> SimDisk | None:
    """The root disk."""
    disks = machine.action.hardware.disks()
    return state.pool.disks[disks[0].volume] if disks else None


def _on_files(disk: SimDisk | None, argv: tuple[str, ...]) -> Said | None:
    files = {} if disk is None else disk.files
    match argv:
        case ("test", "-d", path):
            return Said(code=0 if path.rstrip("/") in _FOLDERS or path == "/" else 1)
        case ("cat", path) if path in files:
            return Said(out=files[path].data)
        case ("stat", "-c", "%a", path) if path in files:
            return Said(out=f"{files[path].mode:o}\n".encode())
        case ("chmod", mode, path) if path in files and mode.isdigit():
            files[path] = GuestFile(data=files[path].data, mode=int(mode, 8))
            return Said()
        case ("mv", "-f", path, target) if path in files and dirname(target) in _FOLDERS and target not in _FOLDERS:
            files[target] = files.pop(path)
            return Said()
        case ("rm", "-f", path):
            files.pop(path, None)
            return Said()
        case ("cat" | "chmod" | "mv" | "stat" as command, *_, path):
            return Said(err=f"{command}: {path}: No such file or directory\n", code=1)
        case _:
            return None


def _power_off(state: SimState, machine: Machine) -> None:
    if state.machines.get(machine.action.instance) is machine:
        state.shut_down(machine.action.instance)
