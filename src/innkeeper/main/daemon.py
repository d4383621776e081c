"""The daemon of an installation, seen from outside: whether it stands, how it is started apart from us, and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from innkeeper.cli.line import CannotGoOn, Line
from innkeeper.main.place import CannotServe, Place

_UP_S = 60.0
_ENDING_S = 60.0
_LOOK_S = 0.1
_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid


def stands(line: Line) -> bool:
    """False: nobody listens. That alone; one that hangs, or refuses us, is there.

    Raises:
        CannotGoOn: somebody is there, and does not answer as a daemon does.
    """
    try:
        line.get("/v1")
    except CannotGoOn as silence:
        if isinstance(silence.__cause__, FileNotFoundError | ConnectionRefusedError):
            return False
        raise
    return True


def start(line: Line, data: Path) -> None:
    """Apart from us, until this machine is switched off. Returns once it answers, and its host is ready.

    Raises:
        CannotGoOn: it has ended, or does not answer; with the last words of its log.
        OSError: the data directory or the log cannot be written.
    """
    data.mkdir(parents=True, exist_ok=True, mode=0o711)
    log_path = data / "daemon.log"
    print(f"Starting the daemon (log: {log_path}) …", flush=True)
    with log_path.open("ab") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "innkeeper.cli", "serve", "--data", str(data), "--log-file", str(log_path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    if not answers(line, lambda: daemon.poll() is not None):
        what = "does not answer" if daemon.poll() is None else "ended at once"
        tail = log_path.read_text(errors="replace").strip().splitlines()[-3:]
        raise CannotGoOn(f"the daemon {what}: " + " | ".join(tail), f"Its log: {log_path}")


def answers(line: Line, ended: Callable[[], bool]) -> bool:
    """Whether it does within a minute."""
    deadline = time.monotonic() + _UP_S
    while time.monotonic() < deadline and not ended():
        with contextlib.suppress(CannotGoOn):
            if all(host["status"] == "ready" for host in line.get("/v1/hosts")["items"]):
                return True
        time.sleep(_LOOK_S)
    return False


def end(place: Place) -> int:
    """It is told to end, as its service manager would; the lock is ours then.

    Raises:
        CannotGoOn: it does not end.
    """
    pid = _listener(place.socket)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _ENDING_S
    while True:
        try:
            return place.lock()
        except CannotServe as held:
            if time.monotonic() > deadline:
                raise CannotGoOn(
                    f"told to end, the daemon has not: {held}", "Look at its log; then try again"
                ) from held
        time.sleep(_LOOK_S)


def _listener(path: Path) -> int | None:
    """The process at the other end, of which the kernel knows best: what a file says of it may be old, or nothing."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_ENDING_S)
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None  # it ended just now
        pid, _, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(pid) if pid > 0 else None
