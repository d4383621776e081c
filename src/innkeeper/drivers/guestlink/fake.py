"""A guest without a machine: the same frames on a listening socket, with commands written in Python.

It keeps the promises of the real program (credit in both directions, output before the exit, one client at a time, a
RESET ends all) and runs under the same contract tests. It has no users, directories or terminals: a command sees what
was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import cast

from innkeeper.drivers.guestlink.frames import (
    PAYLOAD_MAX,
    PROTOCOL_VERSION,
    Decoder,
    Feature,
    Frame,
    Hello,
    Kind,
    WireError,
    decode_open,
    decode_reset,
    decode_size,
    decode_u32,
    encode,
    encode_exit,
    encode_failed,
    encode_hello,
    encode_u32,
)
from innkeeper.drivers.guestlink.identity import entries
from innkeeper.ports.streams import ExecRequest, Exited

STDIN_WINDOW = 131072
SESSIONS_MAX = 64
_ENOENT, _EAGAIN, _EPROTO = 2, 11, 71
_OWN_FACTS = ("hostname=", "boot_id=", "mac=", "address=")


class FakeProcess:
    """What a fake command is given. It ends by returning its exit code, or by being cancelled."""

    def __init__(self, stream: int, request: ExecRequest, window: int, send: Callable[[bytes], None]) -> None:
        self.stream = stream
        self.request = request
        self.size = (request.pty.rows, request.pty.cols) if request.pty else (0, 0)
        self.killed_by = 0
        self._credit = window
        self._send = send
        self._input = bytearray()
        self._taken = 0
        self._ended = False
        self._news = asyncio.Event()

    async def read(self) -> bytes:
        """What came in; empty at the end of input."""
        while not self._input and not self._ended:
            await self._wait()
        data = bytes(self._input)
        self._input.clear()
        self._taken += len(data)
        if self._taken >= STDIN_WINDOW // 4:
            self._send(encode_u32(Kind.GRANT, self.stream, self._taken))
            self._taken = 0
        return data

    async def write(self, data: bytes, kind: Kind = Kind.STDOUT) -> None:
        rest = memoryview(data)
        while rest:
            length = min(len(rest), self._credit, PAYLOAD_MAX)
            if not length:
                await self._wait()
                continue
            self._credit -= length
            self._send(encode(Frame(kind=kind, stream=self.stream, payload=bytes(rest[:length]))))
            rest = rest[length:]

    async def write_error(self, data: bytes) -> None:
        await self.write(data, Kind.STDERR)

    def hear(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.STDIN:
                if len(self._input) + self._taken + len(frame.payload) > STDIN_WINDOW or self._ended:
                    raise WireError("the host sent more input than was granted")
                self._input += frame.payload
            case Kind.STDIN_EOF:
                self._ended = True
            case Kind.CREDIT:
                self._credit += decode_u32(frame.payload)
            case Kind.WINCH:
                self.size = decode_size(frame.payload)
            case _:
                return
        self._news.set()

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()


Command = Callable[[FakeProcess], Awaitable[int]]


async def echo(process: FakeProcess) -> int:
    await process.write(" ".join(process.request.argv[1:]).encode() + b"\n")
    return 0


async def cat(process: FakeProcess) -> int:
    while data := await process.read():
        await process.write(data)
    return 0


async def sleep(process: FakeProcess) -> int:
    await asyncio.sleep(float(process.request.argv[1]))
    return 0


async def true(process: FakeProcess) -> int:
    return 0


async def false(process: FakeProcess) -> int:
    return 1


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {"echo": echo, "cat": cat, "sleep": sleep, "true": true, "false": false}
)


class _Visit:
    """One client, from its first byte to its last."""

    def __init__(self, guest: FakeGuest, send: Callable[[bytes], None], group: asyncio.TaskGroup) -> None:
        self._guest = guest
        self._send = send
        self._group = group
        self._attached = False
        self._running: dict[int, tuple[FakeProcess, asyncio.Task[None]]] = {}

    def hear(self, frame: Frame) -> None:
        if frame.kind == Kind.RESET:
            self.hang_up()
            self._attached = True
            self._send(encode_hello(self._guest.hello(decode_reset(frame.payload))))
        elif not self._attached:
            return
        elif frame.kind == Kind.STATUS:
            self._send(encode(Frame(kind=Kind.FACTS, stream=frame.stream, payload=self._guest.facts)))
        elif frame.kind == Kind.PREPARE:
            self._send(encode(Frame(kind=Kind.PREPARED, stream=frame.stream, payload=self._guest.prepare())))
        elif frame.kind == Kind.IDENTITY:
            faults = self._guest.identify(frame.payload)
            self._send(encode(Frame(kind=Kind.IDENTIFIED, stream=frame.stream, payload=faults)))
        elif frame.kind == Kind.OPEN:
            self._open(frame)
        elif frame.stream in self._running:
            self._tell(frame)

    def hang_up(self) -> None:
        for stream in tuple(self._running):
            self._running.pop(stream)[1].cancel()

    def _tell(self, frame: Frame) -> None:
        process, task = self._running[frame.stream]
        if frame.kind == Kind.CLOSE:
            del self._running[frame.stream]
            task.cancel()
        elif frame.kind == Kind.SIGNAL:
            process.killed_by = decode_u32(frame.payload)
            task.cancel()
        else:
            try:
                process.hear(frame)
            except WireError as breach:
                self._fail(frame.stream, _EPROTO, str(breach))

    def _open(self, frame: Frame) -> None:
        try:
            request, window = decode_open(frame)
        except WireError as breach:
            self._fail(frame.stream, _EPROTO, str(breach))
            return
        name = request.argv[0] if request.argv else "cat"
        command = self._guest.commands.get(name.rpartition("/")[2])
        if len(self._running) >= SESSIONS_MAX:
            self._fail(frame.stream, _EAGAIN, "this guest already runs as many sessions as it can; end some first")
        elif command is None:
            self._fail(frame.stream, _ENOENT, f"no such command: {name}")
        else:
            process = FakeProcess(frame.stream, request, window, self._send)
            self._running[frame.stream] = process, self._group.create_task(self._run(process, command))

    def _fail(self, stream: int, errno: int, reason: str) -> None:
        if stream in self._running:
            self._running.pop(stream)[1].cancel()
        self._send(encode_failed(stream, errno, reason))

    async def _run(self, process: FakeProcess, command: Command) -> None:
        exited = Exited(code=None, signal=signal.SIGKILL)
        try:
            exited = Exited(code=await command(process), signal=None)
        except asyncio.CancelledError:
            if not process.killed_by:
                raise
            exited = Exited(code=None, signal=process.killed_by)
        finally:
            # Closed and hung up sessions are already gone from the table, and say nothing more.
            if self._running.pop(process.stream, None):
                self._send(encode_exit(process.stream, exited))


class FakeGuest:
    """`commands` by name, beside the few it always has; `facts` as the program in a guest would write them.

    `macs` are the addresses that its cards were born with. `identity` is what it was told last, None once it was
    prepared; its facts follow.
    """

    def __init__(
        self,
        commands: Mapping[str, Command] = MappingProxyType({}),
        facts: bytes = b"",
        macs: tuple[str, ...] = (),
    ) -> None:
        self.commands = {**COMMANDS, **commands}
        self.facts = facts or b"hostname=fake\nuptime_s=1.00\ncloud_init=none\n"
        self.identity: tuple[tuple[str, str], ...] | None = None
        self._cards = {mac: mac for mac in macs}  # by the address that each bears now
        self._one_client = asyncio.Lock()
        self._visitors: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def hello(self, nonce: int) -> Hello:
        return Hello(
            nonce=nonce,
            protocol=PROTOCOL_VERSION,
            sessions_max=SESSIONS_MAX,
            features=Feature.EXEC | Feature.PTY | Feature.STATUS | Feature.IDENTITY,
            stdin_window=STDIN_WINDOW,
            version="fake",
        )

    def prepare(self) -> bytes:
        self.identity = None
        return b""

    def identify(self, payload: bytes) -> bytes:
        """What it could not do, a line each, as the program in a guest says it."""
        try:
            self.identity = entries(payload)
        except WireError as cut:
            return f"{cut}\n".encode()
        one = dict(self.identity)
        lines = [line for line in self.facts.decode().splitlines() if not line.startswith(_OWN_FACTS)]
        lines += [f"{key}={one[key]}" for key in ("hostname", "boot_id") if key in one]
        faults, born, device = [], "", ""
        for key, value in self.identity:
            if key == "card":
                born, device = value, ""
            elif key == "name":
                device = value
            elif key == "mac" and not {born, value} & set(self._cards):
                faults.append(f"no network card has the address {born}")
                born = ""
            elif key == "mac":
                self._cards.pop(born, None)
                self._cards[value] = device
                lines.append(f"mac={device} {value}")
            elif key == "address" and born:
                lines.append(f"address={device} {value}")
        self.facts = "".join(f"{line}\n" for line in lines).encode()
        return "".join(f"{fault}\n" for fault in faults).encode()

    @contextlib.asynccontextmanager
    async def listening(self, path: str) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._serve, path)
        try:
            yield
        finally:
            server.close()
            visits = tuple(self._visitors)
            for writer in self._visitors.values():
                writer.transport.abort()
            if visits:
                await asyncio.wait(visits)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast(asyncio.Task[None], asyncio.current_task())
        self._visitors[task] = writer
        try:
            async with self._one_client, asyncio.TaskGroup() as group:
                await self._converse(reader, writer, group)
        finally:
            del self._visitors[task]
            writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, group: asyncio.TaskGroup
    ) -> None:
        decoder = Decoder()
        visit = _Visit(self, writer.write, group)
        try:
            while data := await reader.read(65536):
                for frame in decoder.feed(data):
                    visit.hear(frame)
                await writer.drain()
        except ConnectionError:
            writer.transport.abort()  # the client left in the middle of something, as clients do
        finally:
            visit.hang_up()
