"""The daemon as a process on a data directory of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from innkeeper.main.place import Place

INN = (sys.executable, "-m", "innkeeper.cli")
SOURCE = Path(sys.modules["innkeeper.main.place"].__file__ or "").parents[2]
START_S = 120.0  # a second, on a quiet machine


class Process:
    """The daemon of one installation, which may die and be started again."""

    def __init__(self, data: Path) -> None:
        self.place = Place(data)
        self.log = data.with_name(f"{data.name}.log")
        self._daemon: subprocess.Popen[bytes] | None = None

    @property
    def daemon(self) -> subprocess.Popen[bytes]:
        assert self._daemon is not None
        return self._daemon

    def begin(self, *options: str, **env: str) -> subprocess.Popen[bytes]:
        """The process, without waiting for its first answer."""
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [*INN, "serve", "--data", str(self.place.data), "--no-warm", *options],
                env=self.environment() | env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self._daemon

    def start(self, **env: str) -> None:
        self.begin(**env)
        self.until_it_answers()

    def until_it_answers(self) -> None:
        until = time.monotonic() + START_S
        while not self._listens():
            assert self.daemon.poll() is None, f"the daemon ended:\n{self.said()}"
            assert time.monotonic() < until, f"the daemon does not answer:\n{self.said()}"
            time.sleep(0.05)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as line:
            try:
                line.connect(str(self.place.socket))
            except OSError:
                return False
            return True

    def kill(self) -> None:
        """As `kill -9` does. One that has ended, or never began, is no error."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait(START_S)

    def end(self) -> None:
        """As its service manager does."""
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.terminate()
            assert self._daemon.wait(START_S) == 0, self.said()

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("INN_")}
        return kept | {"PYTHONPATH": str(SOURCE), "INN_DATA": str(self.place.data), "PYTHONWARNINGS": "default"}
