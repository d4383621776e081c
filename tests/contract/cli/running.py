"""Running `inn`: in this process, which is quick; as a process of its own; and in a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from innkeeper.cli.app import call, told

PATIENCE_S = 20
INN = (sys.executable, "-m", "innkeeper.cli")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    code: int
    out: str
    err: str


class Inn:
    """`inn("list")` in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *words: str) -> Ran:
        self._capture.readouterr()
        code: object = 0
        try:
            told(lambda: call(list(words)))
        except SystemExit as left:
            code = left.code or 0
        assert isinstance(code, int)
        said = self._capture.readouterr()
        return Ran(code=code, out=said.out, err=said.err)

    def well(self, *words: str) -> str:
        """What it says when nothing goes wrong."""
        ran = self(*words)
        assert ran.code == 0, ran
        return ran.out


def environment(socket: Path) -> dict[str, str]:
    return {
        **os.environ,
        "INN_SOCKET": str(socket),
        "COLUMNS": "100",
        "LINES": "50",
        "TERM": "xterm",
        "PYTHONUNBUFFERED": "1",
    }


@contextlib.contextmanager
def started(socket: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process whose input and outputs are pipes; gone when the block ends."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [*INN, *words], env=environment(socket), stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def ran(socket: Path, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*INN, *words], env=environment(socket), input=given, capture_output=True, timeout=PATIENCE_S, check=False
    )


class Terminal:
    """A process in a terminal of its own, as a person would sit before it."""

    def __init__(self, command: Sequence[str], env: dict[str, str], rows: int = 24, cols: int = 100) -> None:
        self.seen = b""
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            os.execve(command[0], list(command), env)
        self.resize(rows, cols)

    def resize(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, data: bytes) -> None:
        os.write(self._master, data)

    def until(self, words: bytes) -> bytes:
        """What was seen up to and with these words; what comes after stays to be seen."""
        deadline = time.monotonic() + PATIENCE_S
        while words not in self.seen:
            assert self._read(deadline), f"{words!r} never came: {self.seen!r}"
        before, _, self.seen = self.seen.partition(words)
        return before + words

    def rest(self) -> tuple[bytes, int]:
        """What else was seen, and the exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline):
            assert time.monotonic() < deadline, self.seen
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        os.close(self._master)
        return self.seen, os.waitstatus_to_exitcode(status)

    def settings(self) -> list[object]:
        return list(termios.tcgetattr(self._master))

    def close(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self._master)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"nothing more came: {self.seen!r}"
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is gone
            return False
        self.seen += data
        return bool(data)


@contextlib.contextmanager
def in_terminal(command: Sequence[str], env: dict[str, str], rows: int = 24, cols: int = 100) -> Iterator[Terminal]:
    made = Terminal(command, {k: v for k, v in env.items() if k != "COLUMNS"}, rows, cols)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def terminal(socket: Path, *words: str, rows: int = 24, cols: int = 100) -> Iterator[Terminal]:
    with in_terminal([*INN, *words], environment(socket), rows, cols) as made:
        yield made
