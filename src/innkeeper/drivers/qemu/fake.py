"""A program that stands in for QEMU where no guest is needed: it takes QEMU's arguments and descriptors and speaks QMP.

The launcher starts it like the real one, so processes, sockets, records and ends are real; only the machine inside is
missing. It is as strict as QEMU where we have been caught: an unknown command is an error, a descriptor that was not
passed ends it with a message, one client at a time per socket, and nothing but the greeting before `qmp_capabilities`.

The guest that it pretends to have opens all its channels at once, writes back what the console is given, and obeys the
power button, unless words in `-append` say otherwise: `deaf` never greets, `stubborn` ignores the power button, `off`
powers itself off once greeted. `odd` is one that has taken QEMU over, so that
what it answers makes no sense: at once, or with `later` from the second client on.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

    def complaint(self) -> str | None:
        """What QEMU would say before giving up."""
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


class Fake:
    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._manner = " ".join(arguments.all("append")).split()
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[str, socket.socket] = {}
        self._clients: dict[str, socket.socket] = {}
        self._running = True
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
            data = client.recv(65536)
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
        command, id_ = message["execute"], message.get("id")
        if not self._negotiated and command != "qmp_capabilities":
            self._tell({"error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation"}, "id": id_})
            return
        answer = answer_to(command, self)
        if answer is None:
            words = f"The command {command} has not been found"
            self._tell({"error": {"class": "CommandNotFound", "desc": words}, "id": id_})
            return
        self._tell({"return": {} if self._odd() else answer, "id": id_})
        self._afterwards(command)

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
            case "system_powerdown" if self._running and "stubborn" not in self._manner:
                self._event("POWERDOWN")
                self._end(guest=True, reason="guest-shutdown")
            case "quit":
                self._end(guest=False, reason="host-qmp-quit")
            case _:
                pass

    @property
    def status(self) -> str:
        return "running" if self._running else "paused"

    def channels(self) -> list[dict[str, Any]]:
        labels = self._arguments.listening()
        return [{"label": label, "filename": "unix", "frontend-open": label != "qmp"} for label in labels]

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
    } | {name: {} for name in ("qmp_capabilities", "stop", "cont", "quit", "system_powerdown")}
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
