"""The real guest program behind a channel as QEMU would offer it, and small tools to talk to it.

The channel listens on a UNIX socket, serves one client at a time, drops what the guest says to nobody, and does not
tell the program that clients come and go: the worst that a virtio port can do (a paused guest misses changes).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from innkeeper.drivers.guestlink import render
from innkeeper.drivers.guestlink.hand import ExecSession, GuestLink
from innkeeper.ports.streams import ExecRequest, Exited, Failed, Pty, Stderr, Stdout, StreamClosed

SOURCES = Path(__file__).parents[2] / "src" / "innkeeper" / "guest"
PATIENCE_S = 30.0  # how long a test waits for what comes at once on a quiet machine


def build(folder: Path, *, sanitized: bool) -> str:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler: install gcc and libc6-dev")
    output = str(folder / ("innkeeper-guest-sanitized" if sanitized else "innkeeper-guest"))
    argv = (render.sanitized_argv if sanitized else render.compile_argv)(str(SOURCES), output)
    made = subprocess.run([*argv, "-Werror"], capture_output=True, text=True, check=False, timeout=100)
    if sanitized and ("asan" in made.stderr or "ubsan" in made.stderr) and "cannot find" in made.stderr:
        pytest.skip("the compiler has no sanitizer libraries: install libasan and libubsan")
    assert made.returncode == 0, made.stderr
    return output


class Channel:
    """`process` runs on one end of a socket pair; clients of `path` take turns at the other."""

    def __init__(self, path: str, process: asyncio.subprocess.Process) -> None:
        self.path = path
        self.process = process
        self._client: asyncio.StreamWriter | None = None
        self._visitors: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int:
        return self.process.pid

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, program: str | Sequence[str], path: str) -> AsyncIterator[Channel]:
        """At the end the program must have gone by itself, without a complaint. `program` may be led by others."""
        argv = [program] if isinstance(program, str) else program
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *argv, "--fd", str(theirs.fileno()), pass_fds=[theirs.fileno()], stderr=subprocess.PIPE
            )
        channel = cls(path, process)
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(channel._to_client(reader))
                server = await asyncio.start_unix_server(lambda r, w: channel._to_guest(r, w, writer), path)
                yield channel
                server.close()
                pump.cancel()
                visits = tuple(channel._visitors)
                for visitor in channel._visitors.values():
                    visitor.transport.abort()
                if visits:
                    await asyncio.wait(visits)
        finally:
            writer.close()
            async with asyncio.timeout(PATIENCE_S):
                _, complaints = await process.communicate()
        assert (process.returncode, complaints) == (0, b"")

    async def _to_client(self, guest: asyncio.StreamReader) -> None:
        while data := await guest.read(65536):
            if self._client is not None:
                with contextlib.suppress(ConnectionError):
                    self._client.write(data)
                    await self._client.drain()

    async def _to_guest(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, guest: asyncio.StreamWriter
    ) -> None:
        task = cast(asyncio.Task[None], asyncio.current_task())
        self._visitors[task] = writer
        async with self._turn:
            self._client = writer
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    guest.write(data)
                    await guest.drain()
            self._client = None
            writer.close()
        del self._visitors[task]


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def guest(path: str, talk: Talk) -> AsyncIterator[None]:
    """Listens like QEMU; what it says is up to the test."""
    visits: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast(asyncio.Task[None], asyncio.current_task())
        visits[task] = writer
        with contextlib.suppress(ConnectionError):
            await talk(reader, writer)
        writer.close()
        del visits[task]

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()
        left = tuple(visits)
        for writer in visits.values():
            writer.transport.abort()
        if left:
            await asyncio.wait(left)


def endless(rubbish: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(rubbish * (65536 // len(rubbish) + 1))
            await writer.drain()

    return talk


@contextlib.asynccontextmanager
async def linked(path: str) -> AsyncIterator[GuestLink]:
    link = await GuestLink.connect(path, deadline_s=PATIENCE_S)
    try:
        await link.hello(timeout_s=PATIENCE_S)
        yield link
    finally:
        await link.close()


@dataclass(frozen=True, slots=True)
class Result:
    out: bytes
    err: bytes
    end: Exited | Failed

    @property
    def code(self) -> int | None:
        return self.end.code if isinstance(self.end, Exited) else None


def request(*argv: str, user: str | None = None, cwd: str | None = None, pty: Pty | None = None) -> ExecRequest:
    return ExecRequest(argv=argv, env={}, user=user, cwd=cwd, pty=pty)


async def finish(session: ExecSession) -> Result:
    """Reads to the end."""
    out, err = bytearray(), bytearray()
    async with asyncio.timeout(PATIENCE_S):
        while True:
            match await session.read():
                case Stdout(data):
                    out += data
                case Stderr(data):
                    err += data
                case Exited() | Failed() as end:
                    return Result(bytes(out), bytes(err), end)


async def read_until(session: ExecSession, wanted: bytes) -> bytes:
    """Reads standard output until it holds `wanted`."""
    got = b""
    async with asyncio.timeout(PATIENCE_S):
        while wanted not in got:
            event = await session.read()
            assert isinstance(event, Stdout), (event, got)
            got += event.data
    return got


async def run(link: GuestLink, *argv: str, stdin: bytes = b"", user: str | None = None) -> Result:
    session = await link.open(request(*argv, user=user))
    # Both at once: a command that answers while it is spoken to would wait for its reader, and its writer for it.
    async with asyncio.TaskGroup() as group:
        group.create_task(fill(session, stdin))
        return await finish(session)


async def fill(session: ExecSession, data: bytes) -> None:
    try:
        await session.write(data)
    except StreamClosed:
        return  # it ended before it had read everything, which is its right
    await session.eof()


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def resident_kib(pid: int) -> int:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0])


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def until(true: Callable[[], bool]) -> None:
    """Waits for what has no event to wait for: the process table."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.02)
