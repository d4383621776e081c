"""Files that are handed to QEMU over its monitor arrive there, on the daemon's event loop and on the ordinary one."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from innkeeper.drivers.qemu.qmp import Monitor
from innkeeper.drivers.qemu.said import count

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    chosen: Run = request.param
    return chosen


def answering(line: socket.socket, got: list[bytes]) -> None:
    """A QEMU that takes files: what is in each that comes, and an answer to every command."""
    line.sendall(json.dumps(GREETING).encode() + b"\r\n")
    held = ""
    while True:
        data, files, *_ = socket.recv_fds(line, 65536, 4)
        if not data:
            return
        for file in files:
            got.append(os.pread(file, 100, 0))
            os.close(file)
        held = (held + data.decode()).lstrip()
        while held:
            command, end = json.JSONDecoder().raw_decode(held)
            held = held[end:].lstrip()
            answer = {"return": {"fdset-id": 7, "fd": 1}, "id": command.get("id")}
            line.sendall(json.dumps(answer).encode() + b"\r\n")


def test_a_file_arrives_with_the_command_that_wants_it(run: Run, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    got: list[bytes] = []
    qemu = threading.Thread(target=answering, args=(theirs, got), daemon=True)
    qemu.start()

    async def hand_over() -> None:
        monitor = Monitor("m", {}, lambda event: None)
        await monitor.connect(ours, 10.0)
        for words in (b"first", b"second"):
            path = tmp_path / "file"
            path.write_bytes(words)
            fd = os.open(path, os.O_RDONLY)
            try:
                assert await monitor.hand_over(fd, "add-fd", lambda said: count(said, "fdset-id"), {}) == 7
            finally:
                os.close(fd)
        await monitor.close()

    run(hand_over())
    qemu.join(10)
    theirs.close()
    ours.close()  # where a loop has not come to it yet
    assert got == [b"first", b"second"]
