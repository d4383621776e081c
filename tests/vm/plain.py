"""Plain QEMU for tests of images: an argument list, the guest agent's socket and QMP's, nothing of our own between.

So that a fault of an image is not looked for in our QEMU driver, nor the other way round.
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

QEMU = "qemu-system-x86_64"
PATIENCE_S = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a test wants of its machine. `append` follows the image's own kernel arguments."""

    image: Path
    disk: Path
    memory_mib: int = 128
    initrd: str = "initrd.img"
    append: str = ""
    network: str = "user,restrict=on"
    seed: Path | None = None
    mac: str = "52:54:00:12:34:56"


def overlay(image: Path, path: Path, size: str | None = None) -> Path:
    """A disk of the test's own on an image."""
    base = ["-b", str(image / "disk.qcow2"), "-F", "qcow2"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *base, str(path), *([size] if size else [])], check=True)
    return path


class Line:
    """A socket of QEMU's on which each side says JSON, a line each."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._lines = self._socket.makefile("rb")

    def hear(self) -> dict[str, Any]:
        line = self._lines.readline()
        assert line, "QEMU closed the line"
        said: dict[str, Any] = json.loads(line)
        return said

    def say(self, command: str, **arguments: Any) -> None:
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")

    def ask(self, command: str, **arguments: Any) -> Any:
        self.say(command, **arguments)
        while "return" not in (answer := self.hear()):
            assert "error" not in answer, answer
        return answer["return"]

    def close(self) -> None:
        self._lines.close()


class Machine:
    def __init__(self, process: subprocess.Popen[bytes], place: Path, agent: Line, qmp: Line) -> None:
        self._process = process
        self._place = place
        self.agent = agent
        self.qmp = qmp

    @property
    def console(self) -> str:
        return (self._place / "console").read_text(errors="replace")

    def run(self, script: str) -> str:
        """A shell script in the guest: what it printed. It must succeed."""
        shell = {"path": "/bin/sh", "arg": ["-c", script], "capture-output": True}
        started = self.agent.ask("guest-exec", **shell)
        while not (status := self.agent.ask("guest-exec-status", pid=started["pid"]))["exited"]:
            time.sleep(0.05)
        said, complained = (base64.b64decode(status.get(f"{name}-data", "")).decode() for name in ("out", "err"))
        assert status.get("exitcode") == 0, f"{script}: {status.get('exitcode')} {said} {complained}"
        return said

    def wait_for(self, script: str, patience_s: int = PATIENCE_S) -> None:
        """Until a shell script in the guest succeeds."""
        self.run(
            f"tries=0; until {script}; do sleep 1; tries=$((tries + 1)); [ $tries -lt {patience_s} ] || exit; done"
        )

    def wait_for_console(self, words: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while words not in self.console:
            assert time.monotonic() < deadline, f"{words!r} is not in: {self.console[-2000:]}"
            assert self._process.poll() is None or words in self.console, self.console[-2000:]
            time.sleep(0.1)

    def shut_down(self) -> None:
        """By the guest agent, which does not answer to this."""
        self.agent.say("guest-shutdown", mode="powerdown")
        self.wait_until_off()

    def press_power_button(self) -> None:
        self.qmp.ask("system_powerdown")
        self.wait_until_off()

    def wait_until_off(self) -> None:
        assert self._process.wait(PATIENCE_S) == 0


@contextmanager
def booted(setup: Setup, place: Path) -> Iterator[Machine]:
    """A machine whose agent has answered; `place` is an empty directory for its sockets and its console."""
    with started(setup, place) as machine:
        try:
            machine.agent.ask("guest-ping")
        except TimeoutError:
            pytest.fail(f"no answer within {PATIENCE_S} s; the console says: {machine.console[-3000:]}")
        yield machine


@contextmanager
def started(setup: Setup, place: Path) -> Iterator[Machine]:
    place.mkdir()
    process = subprocess.Popen(_argv(setup, place))
    try:
        with _line(process, place / "agent") as agent, _line(process, place / "qmp") as qmp:
            qmp.hear()
            qmp.ask("qmp_capabilities")
            yield Machine(process, place, agent, qmp)
    finally:
        process.kill()
        process.wait()


@contextmanager
def _line(process: subprocess.Popen[bytes], path: Path) -> Iterator[Line]:
    deadline = time.monotonic() + 30
    with socket.socket(socket.AF_UNIX) as connected:
        while connected.connect_ex(str(path)):
            assert process.poll() is None, f"QEMU ended with {process.returncode}"
            assert time.monotonic() < deadline, f"QEMU does not listen on {path}"
            time.sleep(0.02)
        connected.settimeout(PATIENCE_S)
        line = Line(connected)
        try:
            yield line
        finally:
            line.close()


def _argv(setup: Setup, place: Path) -> list[str]:
    arguments = f"{(setup.image / 'kernel_args').read_text().strip()} {setup.append}".strip()
    seed = [
        *("-drive", f"if=none,id=seed,file={setup.seed},format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=seed"),
    ]
    return [
        *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-M", "q35,usb=off,sata=off,smbus=off,vmport=off", "-accel", "tcg,tb-size=128", "-cpu", "max"),
        *("-m", str(setup.memory_mib), "-smp", "1"),
        *("-kernel", str(setup.image / "vmlinuz"), "-initrd", str(setup.image / setup.initrd), "-append", arguments),
        *("-drive", f"if=none,id=root,file={setup.disk},format=qcow2", "-device", "virtio-blk-pci,drive=root"),
        *(seed if setup.seed else []),
        *("-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,path={place / 'agent'},server=on,wait=off"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
        *("-chardev", f"socket,id=guest,path={place / 'guest'},server=on,wait=off"),
        *("-device", "virtserialport,chardev=guest,name=org.innkeeper.guest.0"),
        *("-netdev", f"{setup.network},id=net"),
        *("-device", f"virtio-net-pci,netdev=net,mac={setup.mac},romfile="),
        *("-device", "virtio-rng-pci", "-serial", f"file:{place / 'console'}"),
        *("-qmp", f"unix:{place / 'qmp'},server=on,wait=off"),
    ]
