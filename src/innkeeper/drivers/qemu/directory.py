"""One machine's directory on its host: sockets, logs and the few facts that must outlive the daemon.

    qmp.sock  console.sock  agent.sock  guest.sock   listening sockets, made here and held by QEMU
    user.json      as which user QEMU is to run; written before it is started
    machine.json   which process it is; written by the launcher before anybody hears of the process
    asked.json     that we asked for the end, written before asking
    exit.json      how QEMU ended, written by the launcher
    left.json      that the guest shut itself down, told by QEMU
    began.json     how it was started, and whether its guest still bears another's name
    still.json     that the guest may hold its file systems still: written before it is asked to
    qemu.log  console.log  console.log.1   bounded

QEMU can write none of it: it has its descriptors, and no right to the directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from innkeeper.model.hardware import AGENT_CHANNEL, GUEST_CHANNEL
from innkeeper.model.ids import InstanceId

RECORD = "machine.json"
QMP = "qmp"
CONSOLE = "console"
CHANNELS = {AGENT_CHANNEL: "agent", GUEST_CHANNEL: "guest"}
# QEMU removes the path of a listening socket when it ends. It must not find one under this number.
DIRECTORY_FD_FROM = 600
BACKLOG = 4
# Instances keep their hardware uuid wherever they run, so it follows from the id alone.
UUIDS = uuid.UUID("6a1f4d52-51f5-4c0e-9d1b-0b4b2c6f7a11")


class LineBusy(OSError):
    """Somebody else holds this line, and others wait for it already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Which process a machine is. `boot_id` and `start_time` make the pid unambiguous for ever.

    `uuid` is the machine's own, by which a folder that was renamed or copied is told from it.
    """

    pid: int
    start_time: int
    launcher: int
    boot_id: str
    started_at: float
    uuid: str = ""
    argv_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How the launcher saw QEMU end. One of code and signal is None."""

    pid: int
    start_time: int
    code: int | None
    signal: int | None
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """`warm`: it went on from a memory image; otherwise `cold` says why not, where it was to. `nameless`: its guest was
    not told yet who it is, so that nobody may meet it.
    """

    warm: bool = False
    cold: str = ""
    nameless: bool = False


T = TypeVar("T", Record, Exit, Began)


def machine_uuid(instance: InstanceId) -> str:
    return str(uuid.uuid5(UUIDS, instance))


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class MachineDirectory:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.user_file = path / "user.json"
        self.record_file = path / RECORD
        self.exit_file = path / "exit.json"
        self.asked_file = path / "asked.json"
        self.left_file = path / "left.json"
        self.still_file = path / "still.json"
        self.began_file = path / "began.json"
        self.log_file = path / "qemu.log"
        self.console_file = path / "console.log"

    # --- sockets

    def listen(self, name: str) -> socket.socket:
        """A listening socket at `<name>.sock`, in place of an earlier run's."""
        (self.path / f"{name}.sock").unlink(missing_ok=True)
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with self.short_path() as short:
                line.bind(f"{short}/{name}.sock")
            (self.path / f"{name}.sock").chmod(0o600)
            line.listen(BACKLOG)
        except BaseException:
            line.close()
            raise
        return line

    def connect(self, name: str) -> socket.socket:
        """A line to `<name>.sock`, also while QEMU is not there yet to accept it.

        Raises:
            LineBusy: as many as may wait are waiting already.
            OSError: nobody listens.
        """
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.setblocking(False)
        try:
            with self.short_path() as short:
                line.connect(f"{short}/{name}.sock")
        except BlockingIOError:
            line.close()
            raise LineBusy(f"{self.path / name}.sock is in use by somebody else: end that first") from None
        except BaseException:
            line.close()
            raise
        return line

    @contextmanager
    def short_path(self) -> Iterator[str]:
        """A name of the directory for sockets, whose whole path may have 107 bytes."""
        low = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            high = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, DIRECTORY_FD_FROM)
        finally:
            os.close(low)
        try:
            yield f"/proc/self/fd/{high}"
        finally:
            os.close(high)

    # --- what outlives us

    def clear(self) -> None:
        """Remove what an earlier run left, but for its console log, which goes on."""
        marks = (self.asked_file, self.left_file, self.still_file, self.began_file)
        for file in (self.record_file, self.exit_file, *marks, self.log_file):
            file.unlink(missing_ok=True)
            file.with_name(f"{file.name}.new").unlink(missing_ok=True)

    def note_user(self, uid: int) -> None:
        """Write down as whom the next QEMU will run, so that nobody else is ever taken for it."""
        _put(self.user_file, {"uid": uid})

    def user(self) -> int | None:
        """As whom the last QEMU was to run; None if none was ever started here."""
        uid = _read(self.user_file).get("uid")
        return uid if isinstance(uid, int) else None

    def note(self, argv: tuple[str, ...], uuid: str) -> Mapping[str, object]:
        """What the launcher is to write into the record beside the process."""
        digest = hashlib.sha256("\0".join(argv).encode()).hexdigest()
        return {"boot_id": boot_id(), "started_at": time.time(), "uuid": uuid, "argv_digest": digest}

    def record(self) -> Record | None:
        """None also for one that a crash of the host left damaged: its process is gone with that host's uptime."""
        return _as(Record, _read(self.record_file))

    def exit(self) -> Exit | None:
        return _as(Exit, _read(self.exit_file))

    def ask(self, words: str) -> None:
        """Write down that the end is wanted, so that it is never taken for a crash. The first words stay."""
        if not self.asked_file.exists():
            _put(self.asked_file, {"words": words, "at": time.time()})

    def asked(self) -> str | None:
        words = _read(self.asked_file).get("words")
        return words if isinstance(words, str) else None

    def mark(self, file: Path) -> None:
        """Write down one of the facts that are there or not."""
        _put(file, {"at": time.time()})

    def log_tail(self, lines: int = 3, between: str = " / ") -> str:
        """The last of QEMU's own messages, printable, and on one line unless another word is put between them."""
        try:
            with self.log_file.open("rb") as log:
                log.seek(max(0, self.log_file.stat().st_size - 200 * lines - 4096))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        kept = [line for line in text.splitlines() if line.strip()][-lines:]
        return between.join("".join(c if c.isprintable() else "?" for c in line) for line in kept)


def note_began(directory: MachineDirectory, began: Began) -> None:
    _put(directory.began_file, asdict(began))


def read_began(directory: MachineDirectory) -> Began:
    return _as(Began, _read(directory.began_file)) or Began()


def _put(file: Path, content: Mapping[str, object]) -> None:
    staged = file.with_name(f"{file.name}.new")
    staged.write_text(json.dumps(content))
    staged.rename(file)


def _as(kind: type[T], found: dict[str, Any]) -> T | None:
    """What an older or a newer daemon wrote beside it is passed over; None if a part is missing."""
    known = {each.name for each in fields(kind)}
    try:
        return kind(**{name: value for name, value in found.items() if name in known})
    except TypeError:
        return None


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
