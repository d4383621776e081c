"""Commands of simulated guests: a handful, and each does what it says, on what it is given.

Files lie on the instance's root disk; they stay when it stops, and are gone with it. Any other command is not found,
rather than made up.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, replace

from innkeeper.ports.streams import Pty
from innkeeper.sim.metal.files import GuestFile, Tree
from innkeeper.sim.metal.guests import Machine
from innkeeper.sim.metal.pool import SimDisk
from innkeeper.sim.state import SimState

_MODE_NEW = stat.S_IFREG | 0o644
_LOOKING = ("test", "readlink", "cat", "stat")
_KINDS = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "character special file",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command says on both its outputs, and its exit code. One that does not end waits at a pipe."""

    out: bytes = b""
    err: str = ""
    code: int = 0
    ends: bool = True


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
            return _on_files(_tree(disk_of(state, machine)), argv)


def output_file(argv: tuple[str, ...]) -> str | None:
    """Where `dd` writes what it reads; None: this is not how we are asked to."""
    if argv[:1] != ("dd",):
        return None
    return next((word.removeprefix("of=") for word in argv if word.startswith("of=")), None)


def write_file(state: SimState, machine: Machine, path: str, data: bytes) -> Said:
    """All that `dd` has read. On a full pool the machine is paused, and nobody answers any more."""
    tree = _tree(disk_of(state, machine))
    before = tree.read(path) or GuestFile(mode=_MODE_NEW)
    if stat.S_ISCHR(before.mode) or stat.S_ISFIFO(before.mode):
        return Said(ends=stat.S_ISCHR(before.mode))
    if stat.S_ISDIR(before.mode) or not tree.write(path, before):
        return Said(err=f"dd: can't open '{path}': No such file or directory\n", code=1)
    volume = machine.action.hardware.disks()[0].volume
    if not state.write(machine.action.instance, volume, len(data)):
        return Said(err=f"dd: error writing '{path}': Input/output error\n", code=1)
    tree.write(path, replace(before, data=data))
    return Said()


def disk_of(state: SimState, machine: Machine) -> SimDisk | None:
    """The root disk."""
    disks = machine.action.hardware.disks()
    return state.pool.disks[disks[0].volume] if disks else None


def _tree(disk: SimDisk | None) -> Tree:
    return Tree({} if disk is None else disk.files)


def _on_files(tree: Tree, argv: tuple[str, ...]) -> Said | None:
    if argv[0] in _LOOKING:
        return _looked(tree, argv)
    match argv:
        case ("chmod", mode, path) if mode.isdigit():
            found = tree.read(path)
            well = found is not None and tree.write(path, replace(found, mode=stat.S_IFMT(found.mode) | int(mode, 8)))
        case ("mv", "-f", path, target):
            well = tree.move(path, target)
        case ("mkdir", "-m", mode, path) if mode.isdigit():
            well = tree.make(path, GuestFile(mode=stat.S_IFDIR | int(mode, 8)))
        case ("mkfifo", path):
            well = tree.make(path, GuestFile(mode=stat.S_IFIFO | 0o644))
        case ("ln", "-s", target, path):
            well = tree.make(path, GuestFile(mode=stat.S_IFLNK | 0o777, data=target.encode()))
        case ("rm", "-f" | "-rf", path):
            tree.remove(path)
            well = True
        case _:
            return None
    return Said() if well else _refused(argv)


def _looked(tree: Tree, argv: tuple[str, ...]) -> Said | None:
    """Commands that change nothing."""
    match argv:
        case ("test", "-d", path):
            found = tree.read(path)
            return Said(code=0 if found is not None and stat.S_ISDIR(found.mode) else 1)
        case ("readlink", "-f", path) if tree.read(path) is not None:
            return Said(out=f"{tree.end_of(path)}\n".encode())
        case ("readlink", path) if (found := tree.entry(path)) is not None and stat.S_ISLNK(found.mode):
            return Said(out=found.data + b"\n")
        case ("readlink", *_):
            return Said(code=1)
        case ("cat", path) if (found := tree.read(path)) is not None and not stat.S_ISDIR(found.mode):
            return Said(out=found.data, ends=not stat.S_ISFIFO(found.mode))
        case ("stat", "-c", "%a", path) if (found := tree.entry(path)) is not None:
            return Said(out=f"{stat.S_IMODE(found.mode):o}\n".encode())
        case ("stat", "-c", "%F", path) if (found := tree.entry(path)) is not None:
            return Said(out=f"{_KINDS[stat.S_IFMT(found.mode)]}\n".encode())
        case ("stat", "-L", "-c", "%f %s", path) if (found := tree.read(path)) is not None:
            return Said(out=f"{found.mode:x} {len(found.data)}\n".encode())
        case _ if argv[-1].startswith("-") or len(argv) < 2:
            return None
        case _:
            return _refused(argv)


def _refused(argv: tuple[str, ...]) -> Said:
    return Said(err=f"{argv[0]}: {argv[-1]}: No such file or directory\n", code=1)


def _power_off(state: SimState, machine: Machine) -> None:
    if state.machines.get(machine.action.instance) is machine:
        state.shut_down(machine.action.instance)
