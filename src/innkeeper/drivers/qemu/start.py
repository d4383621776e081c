"""Starting a machine.

Open all files and taps; make the listening sockets, and connect to them already; render; have the launcher start QEMU
with the descriptors; wait for QEMU's greeting. The connections wait in the sockets until QEMU takes them, so there is
nothing to poll for and no first word of the console is missed; and a QEMU that gives up at once hangs up on them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from innkeeper.drivers.qemu import process
from innkeeper.drivers.qemu.blocks.disks import opens_direct
from innkeeper.drivers.qemu.blocks.nodes import DiskFacts, Layer
from innkeeper.drivers.qemu.directory import CHANNELS, CONSOLE, QMP, MachineDirectory, Record, machine_uuid
from innkeeper.drivers.qemu.machine import Machine, end_facts, exit_is_written
from innkeeper.drivers.qemu.render import (
    Accelerator,
    CardFacts,
    DirectBoot,
    MemoryFacts,
    RunFacts,
    UefiBoot,
    render_argv,
)
from innkeeper.drivers.qemu.seen import explain
from innkeeper.drivers.qemu.serial import ConsoleLine
from innkeeper.model.hardware import Channels, Hardware
from innkeeper.model.ids import InstanceId, NicId, VolumeId
from innkeeper.ports.launcher import FIRST_DESCRIPTOR, LauncherPort, Spawned, SpawnFailed, SpawnRequest

GREETING_TIMEOUT_S = 30.0
KILL_TIMEOUT_S = 10.0
LAST_WORDS_S = 0.5


class StartFailed(Exception):
    """The machine does not run, and nothing of the attempt remains but its log; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFile:
    """A read-only file below a disk. `name` is that of a volume or template, and unique in its machine."""

    name: str
    file: Path
    format: str = "qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFiles:
    """A disk: its writable qcow2, and the read-only files below it from top to bottom."""

    top: Path
    below: tuple[LayerFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFiles:
    """Both must be readable by everybody, though their directories need not be."""

    kernel: Path
    initrd: Path | None
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UefiFiles:
    """The firmware, and the empty variable store that each machine gets a copy of."""

    code: Path
    variables: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """As whom and within what QEMU runs. `groups` holds the group of /dev/kvm where KVM is used."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSpec:
    """Everything about one start. `taps` and `memory` are open descriptors, which stay the caller's.

    `incoming`: it is started to be loaded (`memory/loading.py`).
    """

    instance: InstanceId
    name: str
    hardware: Hardware
    binary: str
    accelerator: Accelerator
    confinement: Confinement
    disks: Mapping[VolumeId, DiskFiles]
    taps: Mapping[NicId, CardFacts] = field(default_factory=dict)
    seed: Path | None = None
    boot: KernelFiles | UefiFiles | None = None
    memory: MemoryFacts | None = None
    incoming: bool = False


async def start(spec: StartSpec, path: Path, launcher: LauncherPort, timeout_s: float = GREETING_TIMEOUT_S) -> Machine:
    """Run a machine that does not run, in its existing directory. QEMU has greeted when this returns.

    Raises:
        StartFailed: it does not run.
        LauncherGone: nobody knows whether it runs. As after being cancelled, `adopt` finds out.
    """
    directory = MachineDirectory(path)
    with ExitStack() as ours:
        try:
            # QEMU alone may hold the listening sockets while we wait: only then does its end hang up on us.
            with ExitStack() as theirs:
                directory.clear()
                directory.note_user(spec.confinement.uid)
                given = _Given(theirs)
                argv = render_argv(spec.hardware, _facts(spec, directory, given))
                console = ours.enter_context(directory.connect(CONSOLE))
                line = ours.enter_context(directory.connect(QMP))
                spawned = await launcher.spawn(_request(spec, directory, argv, given))
        except (OSError, ValueError, SpawnFailed) as error:
            raise StartFailed(f"{spec.name} could not be started: {error}") from error
        machine = await _hold(spec.name, directory, spawned)
        ours.pop_all()
    return await _greeted(machine, console, line, timeout_s)


async def _hold(name: str, directory: MachineDirectory, spawned: Spawned) -> Machine:
    record = directory.record()
    held = process.hold(spawned.pid, spawned.start_time)
    if held is None or record is None:
        why = await _how_it_ended(directory, record)
        directory.record_file.unlink(missing_ok=True)
        raise StartFailed(f"{name} could not be started: {why}")
    return Machine(name, directory, record, held)


async def _how_it_ended(directory: MachineDirectory, record: Record | None) -> str:
    """Of a QEMU that is gone: what the kernel said of its end, and its own last words."""
    if record is None:
        return directory.log_tail() or "QEMU ended without a word"
    await exit_is_written(directory, record)
    reason, words = explain(end_facts(directory, record)).reason, directory.log_tail()
    return reason if words in reason else f"{reason}; its log ends with: {words}"


async def _greeted(machine: Machine, console: socket.socket, line: socket.socket, timeout_s: float) -> Machine:
    try:
        machine.console = await ConsoleLine.over(console, machine.directory.console_file)
        await machine.attach(timeout_s, line)
        if not machine.seen.unreachable:
            return machine
        # It hung up because it is about to end, or it hangs: what was never reported must not run on.
        if await machine.gone_within(LAST_WORDS_S):
            why = await _how_it_ended(machine.directory, machine.record)
        else:
            machine.pull_plug()
            await machine.gone_within(KILL_TIMEOUT_S)
            why = machine.directory.log_tail() or machine.seen.unreachable
        machine.directory.record_file.unlink(missing_ok=True)
        raise StartFailed(f"{machine.name} could not be started: {why}")
    except BaseException:
        machine.pull_plug()
        await machine.close()
        raise


class _Given:
    """What is passed to QEMU, numbered as QEMU will see it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.descriptors: list[int] = []

    def open(self, file: Path, flags: int) -> int:
        """Open afresh: machines that share a description would share each other's locks."""
        fd = os.open(file, flags | os.O_CLOEXEC, 0o600)
        self._stack.callback(os.close, fd)
        return fd

    def pass_on(self, fd: int) -> int:
        self.descriptors.append(fd)
        return FIRST_DESCRIPTOR + len(self.descriptors) - 1

    def pass_file(self, file: Path, flags: int) -> int:
        return self.pass_on(self.open(file, flags))

    def pass_listening(self, directory: MachineDirectory, name: str) -> int:
        line = directory.listen(name)
        self._stack.callback(line.close)
        return self.pass_on(line.fileno())


def _facts(spec: StartSpec, directory: MachineDirectory, given: _Given) -> RunFacts:
    """Open all that QEMU is given."""
    names = [name for device in spec.hardware.devices if isinstance(device, Channels) for name in device.names]
    return RunFacts(
        binary=spec.binary,
        accelerator=spec.accelerator,
        name=spec.name,
        uuid=machine_uuid(spec.instance),
        qmp=given.pass_listening(directory, QMP),
        console=given.pass_listening(directory, CONSOLE),
        channels={name: given.pass_listening(directory, CHANNELS[name]) for name in names},
        disks={disk.volume: _disk(spec.disks[disk.volume], given) for disk in spec.hardware.disks()},
        cards={card.nic: _card(spec.taps[card.nic], given) for card in spec.hardware.cards()},
        seed=Layer(fd=given.pass_file(spec.seed, os.O_RDONLY), format="raw") if spec.seed is not None else None,
        boot=_boot(spec.boot, directory, given),
        memory=_memory(spec.memory, given) if spec.memory is not None else None,
        incoming=spec.incoming,
    )


def _disk(files: DiskFiles, given: _Given) -> DiskFacts:
    direct = opens_direct(files.top)
    top = Layer(fd=given.pass_file(files.top, os.O_RDWR), format="qcow2")
    below = [Layer(fd=given.pass_file(b.file, os.O_RDONLY), format=b.format, name=b.name) for b in files.below]
    return DiskFacts(top=top, below=tuple(below), direct=direct)


def _card(tap: CardFacts, given: _Given) -> CardFacts:
    return CardFacts(tap=given.pass_on(tap.tap))


def _memory(memory: MemoryFacts, given: _Given) -> MemoryFacts:
    # QEMU opens it for writing in any case. What keeps it from writing what all others read is the seal alone.
    if not memory.shared and not fcntl.fcntl(memory.fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE:
        raise ValueError("memory that a machine has copies of must be sealed against writing")
    return MemoryFacts(fd=given.pass_on(memory.fd), shared=memory.shared)


def _boot(
    files: KernelFiles | UefiFiles | None, directory: MachineDirectory, given: _Given
) -> DirectBoot | UefiBoot | None:
    if files is None:
        return None
    if isinstance(files, UefiFiles):
        variables = directory.path / "uefi-variables.fd"
        if not variables.exists():
            staged = variables.with_suffix(".new")
            shutil.copyfile(files.variables, staged)
            staged.rename(variables)
        code = given.pass_file(files.code, os.O_RDONLY)
        return UefiBoot(code=code, variables=given.pass_file(variables, os.O_RDWR))
    kernel = _readable(files.kernel, given)
    initrd = _readable(files.initrd, given) if files.initrd is not None else None
    return DirectBoot(kernel=kernel, initrd=initrd, arguments=files.arguments)


def _readable(file: Path, given: _Given) -> str:
    """A name under which a QEMU that cannot reach the file's directory can still open the file."""
    if not file.stat().st_mode & stat.S_IROTH:
        raise ValueError(f"{file} cannot be read by a confined QEMU: make it readable for all (chmod o+r)")
    return f"/proc/self/fd/{given.pass_file(file, os.O_RDONLY)}"


def _request(spec: StartSpec, directory: MachineDirectory, argv: tuple[str, ...], given: _Given) -> SpawnRequest:
    confinement = spec.confinement
    log = given.open(directory.log_file, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    return SpawnRequest(
        argv=argv,
        descriptors=tuple(given.descriptors),
        log=log,
        uid=confinement.uid,
        gid=confinement.gid,
        groups=confinement.groups,
        record=str(directory.record_file),
        exit_file=str(directory.exit_file),
        note=directory.note(argv, machine_uuid(spec.instance)),
    )
