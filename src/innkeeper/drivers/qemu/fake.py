"""A program that stands in for QEMU where no guest is needed: it takes QEMU's arguments and descriptors and speaks QMP.

The launcher starts it like the real one, so processes, sockets, records and ends are real; only the machine inside is
missing. It is as strict as QEMU where we have been caught: an unknown command is an error, a descriptor that was not
passed ends it with a message, one client at a time per socket, and nothing but the greeting before `qmp_capabilities`.

The guest that it pretends to have opens all its channels at once, writes back what the console is given, and obeys the
power button, unless words in `-append` say otherwise: `deaf` never greets, `stubborn` ignores the power button, `off`
powers itself off once greeted. `odd` is one that has taken QEMU over, so that
what it answers makes no sense: at once, or with `later` from the second client on.

Its state is a list of what its guest sees, which it saves and loads as QEMU does: a list that is not its own ends it.
Memory in a file is opened, and never touched.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OBEYED = (
    *("qmp_capabilities", "stop", "cont", "quit", "system_powerdown", "getfd", "set_link"),
    *("migrate-set-capabilities", "migrate-set-parameters", "migrate", "migrate-incoming"),
)
VERSION = {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": "fake"}


def install(path: Path) -> Path:
    """Write a program to `path` that is this fake. A user who may run it must be able to run our Python."""
    path.write_text(f"#!{sys.executable} -IS\n{Path(__file__).read_text()}")
    path.chmod(0o755)
    return path


class Arguments:
    """Just enough of QEMU's command line."""

    def __init__(self, words: list[str]) -> None:
        self._words = words

    def all(self, name: str) -> list[str]:
        return [value for key, value in zip(self._words, self._words[1:], strict=False) if key == f"-{name}"]

    def listening(self) -> dict[str, int]:
        """Sockets by character device."""
        found = {}
        for text in self.all("chardev"):
            options = dict(part.split("=", 1) for part in text.split(",")[1:])
            found[options["id"]] = int(options["fd"])
        return found

    def fd_sets(self) -> list[dict[str, Any]]:
        given = (dict(part.split("=", 1) for part in text.split(",")) for text in self.all("add-fd"))
        return [{"fdset-id": int(options["set"]), "fds": [{"fd": int(options["fd"])}]} for options in given]

    def waits(self) -> bool:
        return "defer" in self.all("incoming")

    def hardware(self) -> bytes:
        """What a state fits: the board, and devices by their places, whatever they are called here."""
        devices = [text.split(",") for text in self.all("device")]
        seen = [[words[0], *(word for word in words if word.startswith(("addr=", "nr=")))] for words in devices]
        return json.dumps([self.all("machine"), self.all("cpu"), self.all("smp"), self.all("m"), seen]).encode()

    def ports(self) -> list[str]:
        """Ids of the guest's ends of channels."""
        devices = [text.split(",") for text in self.all("device")]
        return [words[1].removeprefix("id=") for words in devices if words[0] == "virtserialport"]

    def _memory_complaint(self) -> str | None:
        for text in self.all("object"):
            options = dict(part.split("=", 1) for part in text.split(",")[1:])
            if "mem-path" not in options:
                continue
            try:
                os.close(os.open(options["mem-path"], os.O_RDWR | os.O_CLOEXEC))
            except OSError as error:
                return f"-object {text}: can't open backing store {options['mem-path']}: {error.strerror}"
        return None

    def complaint(self) -> str | None:
        """What QEMU would say before giving up."""
        if (complaint := self._memory_complaint()) is not None:
            return complaint
        sets = set()
        for text in self.all("add-fd"):
            options = dict(part.split("=", 1) for part in text.split(","))
            try:
                os.fstat(int(options["fd"]))
            except OSError as error:
                return f"-add-fd {text}: Unable to dup file descriptor: {error.strerror}"
            sets.add(f"/dev/fdset/{options['set']}")
        for text in self.all("blockdev"):
            for name in _filenames(json.loads(text)):
                if name not in sets:
                    return f"-blockdev {text}: Could not open '{name}': No such file or directory"
        return None


def _filenames(node: Any) -> list[str]:
    if not isinstance(node, dict):
        return []
    own = [node["filename"]] if "filename" in node else []
    return own + [name for value in node.values() for name in _filenames(value)]


class Declined(Exception):
    """An error as QEMU words it."""


class State:
    """Saving, and being loaded. `tell` is given each event."""

    def __init__(self, arguments: Arguments, tell: Callable[..., None]) -> None:
        self._arguments = arguments
        self._tell = tell
        self._fds: dict[str, int] = {}
        self.received: list[int] = []
        self.status = "inmigrate" if arguments.waits() else ""

    def obey(self, command: str, given: dict[str, Any]) -> None:
        """
        Raises:
            Declined: as QEMU would.
        """
        match command:
            case "getfd" if self.received:
                self._fds[given["fdname"]] = self.received.pop()
            case "getfd":
                raise Declined("No file descriptor supplied via SCM_RIGHTS")
            case "set_link" if not any(f",id={given['name']}," in text for text in self._arguments.all("device")):
                raise Declined(f"Device '{given['name']}' not found")
            case "migrate-incoming" if self.status != "inmigrate":
                raise Declined("'-incoming' was not specified on the command line")
            case _:
                pass

    def afterwards(self, command: str, given: dict[str, Any]) -> None:
        match command:
            case "migrate":
                self._move(given["uri"], self._save)
                self.status = "postmigrate"
            case "migrate-incoming":
                self._move(given["uri"], self._load)
                self.status = ""
            case _:
                pass

    def _move(self, uri: str, work: Callable[[int], None]) -> None:
        self._tell("MIGRATION", status="setup")
        fd = self._fds.pop(uri.removeprefix("fd:"))
        self._tell("MIGRATION", status="active")
        work(fd)
        os.close(fd)
        self._tell("MIGRATION", status="completed")

    def _save(self, fd: int) -> None:
        os.write(fd, self._arguments.hardware())

    def _load(self, fd: int) -> None:
        if os.read(fd, 65536) != self._arguments.hardware():
            self._tell("MIGRATION", status="failed")
            sys.exit("fake-qemu: load of migration failed: Invalid argument")


class Fake:
    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._state = State(arguments, self._event)
        self._manner = " ".join(arguments.all("append")).split()
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[str, socket.socket] = {}
        self._clients: dict[str, socket.socket] = {}
        self._running = self._opened = not arguments.waits()
        self._negotiated = False
        self._partial = ""
        self._served = 0

    def run(self) -> None:
        for name, fd in self._arguments.listening().items():
            self._listeners[name] = socket.socket(fileno=fd)
            self._selector.register(self._listeners[name], selectors.EVENT_READ, name)
        while True:
            for key, _ in self._selector.select():
                line = key.fileobj
                assert isinstance(line, socket.socket)
                if key.data in self._clients and line is self._clients[key.data]:
                    self._hear(key.data, line)
                elif key.data not in self._clients:
                    self._accept(key.data, line)

    def _accept(self, name: str, listener: socket.socket) -> None:
        client, _ = listener.accept()
        self._clients[name] = client
        self._selector.unregister(listener)
        self._selector.register(client, selectors.EVENT_READ, name)
        if name == "qmp" and "deaf" not in self._manner:
            self._negotiated = False
            self._served += 1
            self._tell({"QMP": {"version": VERSION, "capabilities": []}})

    def _hear(self, name: str, client: socket.socket) -> None:
        try:
            data, received, *_ = socket.recv_fds(client, 65536, 8)
            self._state.received += received
        except ConnectionResetError:
            data = b""  # it left without reading our last words
        if not data:
            self._selector.unregister(client)
            client.close()
            del self._clients[name]
            self._selector.register(self._listeners[name], selectors.EVENT_READ, name)
        elif name == "console":
            client.sendall(data)
        elif name == "qmp":
            self._partial += data.decode()
            for message in self._messages():
                self._obey(message)

    def _messages(self) -> Iterator[dict[str, Any]]:
        """What has come whole. Clients need not end a message with a line."""
        while True:
            self._partial = self._partial.lstrip()
            try:
                message, end = json.JSONDecoder().raw_decode(self._partial)
            except ValueError:
                return
            self._partial = self._partial[end:]
            yield message

    def _obey(self, message: dict[str, Any]) -> None:
        command, id_, given = message["execute"], message.get("id"), message.get("arguments", {})
        if not self._negotiated and command != "qmp_capabilities":
            self._tell({"error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation"}, "id": id_})
            return
        answer = answer_to(command, self)
        if answer is None:
            words = f"The command {command} has not been found"
            self._tell({"error": {"class": "CommandNotFound", "desc": words}, "id": id_})
            return
        try:
            self._state.obey(command, given)
        except Declined as declined:
            self._tell({"error": {"class": "GenericError", "desc": str(declined)}, "id": id_})
            return
        self._tell({"return": {} if self._odd() else answer, "id": id_})
        self._afterwards(command)
        self._state.afterwards(command, given)

    def _odd(self) -> bool:
        return "odd" in self._manner and (self._served > 1 or "later" not in self._manner)

    def _afterwards(self, command: str) -> None:
        match command:
            case "qmp_capabilities":
                self._negotiated = True
                if "off" in self._manner:
                    self._end(guest=True, reason="guest-shutdown")
            case "stop" if self._running:
                self._running = False
                self._event("STOP")
            case "cont" if not self._running:
                self._running = True
                self._event("RESUME")
                self._open_channels()
            case "system_powerdown" if self._running and "stubborn" not in self._manner:
                self._event("POWERDOWN")
                self._end(guest=True, reason="guest-shutdown")
            case "quit":
                self._end(guest=False, reason="host-qmp-quit")
            case _:
                pass

    def _open_channels(self) -> None:
        """A guest that was loaded has them open as before, which QEMU tells once it goes on."""
        for port in [] if self._opened else self._arguments.ports():
            self._event("VSERPORT_CHANGE", id=port, open=True)
        self._opened = True

    @property
    def status(self) -> str:
        return self._state.status or ("running" if self._running else "paused")

    def channels(self) -> list[dict[str, Any]]:
        labels = self._arguments.listening()
        return [
            {"label": label, "filename": "unix", "frontend-open": self._opened and label != "qmp"} for label in labels
        ]

    def fd_sets(self) -> list[dict[str, Any]]:
        return self._arguments.fd_sets()

    def _end(self, *, guest: bool, reason: str) -> None:
        self._event("SHUTDOWN", guest=guest, reason=reason)
        sys.exit(0)

    def _event(self, name: str, **data: object) -> None:
        seconds = time.time()
        self._tell({"event": name, "data": data, "timestamp": {"seconds": int(seconds), "microseconds": 0}})

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._clients["qmp"].sendall(json.dumps(message).encode() + b"\r\n")
        except (KeyError, BrokenPipeError):
            pass  # nobody listens, as with QEMU


def answer_to(command: str, fake: Fake | None) -> Any:
    """What QEMU returns; None for a command that it does not have."""
    answers: dict[str, Any] = {
        "query-version": VERSION,
        "query-machines": [{"name": "pc-q35-7.2", "alias": "q35"}, {"name": "none"}],
        "query-command-line-options": [{"option": "sandbox", "parameters": []}],
        "query-blockstats": [],
    } | {name: {} for name in OBEYED}
    if fake is not None:
        answers["query-status"] = {"status": fake.status, "running": fake.status == "running", "singlestep": False}
        answers["query-chardev"] = fake.channels()
        answers["query-fdsets"] = fake.fd_sets()
    return answers.get(command)


def tell_version() -> None:
    """Answer the questions on standard input, as `-qmp stdio` does."""
    for line in sys.stdin:
        message = json.loads(line)
        reply = {"return": answer_to(message["execute"], None), "id": message.get("id")}
        sys.stdout.write(json.dumps(reply) + "\n")


def main() -> None:
    arguments = Arguments(sys.argv[1:])
    if "stdio" in arguments.all("qmp"):
        tell_version()
        return
    complaint = arguments.complaint()
    if complaint is not None:
        sys.exit(f"fake-qemu: {complaint}")
    Fake(arguments).run()


if __name__ == "__main__":
    main()
