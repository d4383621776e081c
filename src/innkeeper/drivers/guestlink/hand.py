"""The client of one guest's channel: say hello, ask how the guest is, run commands in it.

The channel is QEMU's listening UNIX socket. It serves one client at a time: a second one connects, but nothing
answers it until the first has left.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Self

from innkeeper.drivers.guestlink.connection import Connection, Phase
from innkeeper.drivers.guestlink.facts import read_facts
from innkeeper.drivers.guestlink.frames import Hello, Kind, Unsendable, encode_size, encode_u32
from innkeeper.drivers.guestlink.identity import Identity, encode_identity, require_all_done, require_identity
from innkeeper.drivers.guestlink.line import Line, LinkDown
from innkeeper.drivers.guestlink.unread import Unread
from innkeeper.ports.streams import ExecRequest, Exited, Failed, GuestStatus, SessionEvent, Stderr, Stdout, StreamClosed

_INSIST_AFTER_S = 0.5
_CLOSED = Failed("the session was closed from this side")


class ExecSession:
    """A command in a guest; fulfils `ports.streams.Session`."""

    def __init__(self, line: Line, stream: int) -> None:
        self.stream = stream
        self._line = line
        self._output = Unread()
        self._end: Exited | Failed | None = None
        self._news = asyncio.Event()
        self._grant = asyncio.Event()
        self._writing = asyncio.Lock()

    async def read(self) -> SessionEvent:
        while not self._output:
            if self._end is not None:
                return self._end
            self._news.clear()
            await self._news.wait()
        output = self._output.take()
        self._line.send(self._line.connection.consumed(self.stream, len(output.data)))
        return output

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        async with self._writing:
            while rest:
                await self._line.unclogged()
                if self._end is not None:
                    raise StreamClosed(f"the command takes no input any more: {_told(self._end)}")
                sent, frame = self._line.connection.stdin(self.stream, rest)
                self._line.send(frame)
                rest = rest[sent:]
                if not sent:
                    self._grant.clear()
                    await self._grant.wait()

    async def eof(self) -> None:
        async with self._writing:
            self._send(self._line.connection.eof(self.stream))

    async def resize(self, rows: int, cols: int) -> None:
        self._send(encode_size(self.stream, rows, cols))

    async def signal(self, number: int) -> None:
        self._send(encode_u32(Kind.SIGNAL, self.stream, number))

    async def close(self) -> None:
        if self._line.listeners.get(self.stream) is self:
            del self._line.listeners[self.stream]
            self._line.send(self._line.connection.close(self.stream))
        self._output.clear()
        self.ended(_CLOSED)

    def came(self, output: Stdout | Stderr) -> None:
        self._output.put(output)
        self._news.set()

    def granted(self) -> None:
        self._grant.set()

    def ended(self, end: Exited | Failed) -> None:
        self._end = self._end or end
        self._news.set()
        self._grant.set()

    def _send(self, frame: bytes) -> None:
        if self._end is None:
            self._line.send(frame)


def _told(end: Exited | Failed) -> str:
    match end:
        case Failed(reason):
            return reason
        case Exited(code=None):
            return f"it was killed by signal {end.signal}"
        case Exited():
            return f"it exited with {end.code}"


class GuestLink:
    """Sessions may be opened and used by many tasks at once."""

    def __init__(self, line: Line) -> None:
        self._line = line

    @classmethod
    async def connect(cls, path: str, deadline_s: float) -> Self:
        """Connects within `deadline_s` seconds and sends our reset, which waits in the socket until the guest is up.

        Raises:
            LinkDown: nobody listens there.
        """
        line = Line(Connection(secrets.randbelow((1 << 64) - 1) + 1))
        try:
            async with asyncio.timeout(deadline_s):
                await asyncio.get_running_loop().create_unix_connection(lambda: line, path)
        except (OSError, TimeoutError) as error:
            raise LinkDown(f"cannot reach the guest's channel at {path}: {error!r}; is its QEMU running?") from error
        line.send(line.connection.reset())
        return cls(line)

    @property
    def down(self) -> str | None:
        """Why this link is of no more use: connect a new one. None while it is."""
        return self._line.down

    @property
    def guest_at_fault(self) -> bool:
        """It is down because of what the guest sent: a new one will hardly fare better."""
        return self._line.guest_at_fault

    async def hello(self, timeout_s: float) -> Hello:
        """Waits until the guest's program has answered: the first one, and later any that took its place.

        Raises:
            LinkDown: none did in time (the link stays usable, ask again), or the link is down.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._greeting()
        except TimeoutError:
            raise LinkDown(
                f"nothing answered in the guest within {timeout_s:g} s: it may still boot, have no innkeeper-guest, "
                "or another client holds its channel; look at its console"
            ) from None

    async def status(self, timeout_s: float = 5.0) -> GuestStatus:
        """What the guest says of itself.

        Raises:
            LinkDown: it says nothing in time, or the link is down.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._greeting()
                return read_facts(await self._answer(Kind.STATUS, Kind.FACTS))
        except TimeoutError:
            raise LinkDown(f"the guest said nothing of itself within {timeout_s:g} s; is it paused?") from None

    async def prepare(self, timeout_s: float) -> None:
        """The guest forgets who it is, in memory and on its disk, which then holds all that it wrote. May be repeated.

        Raises:
            IdentityFailed: it cannot, or not everything.
            LinkDown: it does not say in time that it has, or the link is down.
        """
        require_all_done("forget who it is", await self._identity(Kind.PREPARE, b"", timeout_s))

    async def introduce(self, identity: Identity, timeout_s: float) -> None:
        """The guest is this from now on. May be repeated. What its image does besides goes on in it when this returns.

        Raises:
            IdentityFailed: it cannot, or not everything.
            LinkDown: it does not say in time that it is, or the link is down; it may be half of it by now.
            Unsendable: the identity has no form on the wire.
        """
        payload = encode_identity(identity)
        require_all_done("take on all of its identity", await self._identity(Kind.IDENTITY, payload, timeout_s))

    async def open(self, request: ExecRequest, timeout_s: float = 10.0) -> ExecSession:
        """Start a command. One that cannot start, or cannot even be asked for, is a session that tells Failed.

        Raises:
            LinkDown: no order can be given in time, or the link is down.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._line.unclogged()
                await self._greeting()
        except TimeoutError:
            raise LinkDown(f"the guest took no order within {timeout_s:g} s; is it paused, or still booting?") from None
        try:
            stream, frame = self._line.connection.open(request)
        except Unsendable as refused:
            unsent = ExecSession(self._line, 0)
            unsent.ended(Failed(str(refused)))
            return unsent
        session = self._line.listeners[stream] = ExecSession(self._line, stream)
        self._line.send(frame)
        return session

    def give_up(self, why: str) -> None:
        """Sessions tell Failed with this reason. May be repeated."""
        self._line.give_up(why)

    async def close(self) -> None:
        """Give the line up. The guest hangs up every session, and ours tell Failed. May be repeated."""
        self.give_up("the line to the guest was closed from this side")
        await self._line.over.wait()

    async def _greeting(self) -> Hello:
        line = self._line
        insist = asyncio.get_running_loop().call_later(_INSIST_AFTER_S, self._insist)
        try:
            while line.down is None and line.connection.phase is not Phase.READY:
                line.changed.clear()
                await line.changed.wait()
        finally:
            insist.cancel()
        if line.down is not None or line.connection.hello is None:
            raise LinkDown(line.down or "the guest's program did not say what it is")
        return line.connection.hello

    def _insist(self) -> None:
        if self._line.connection.phase is Phase.WAITING:
            self._line.send(self._line.connection.insist())

    async def _identity(self, question: Kind, payload: bytes, timeout_s: float) -> bytes:
        answer = Kind.PREPARED if question is Kind.PREPARE else Kind.IDENTIFIED
        try:
            async with asyncio.timeout(timeout_s):
                require_identity(await self._greeting())
                return await self._answer(question, answer, payload)
        except TimeoutError:
            raise LinkDown(
                f"the guest did not answer {question.name} within {timeout_s:g} s, so it may be anybody; "
                "do not connect it to a network"
            ) from None

    async def _answer(self, question: Kind, kind: Kind, payload: bytes = b"") -> bytes:
        number, frame = self._line.connection.ask(question, payload)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._line.questions[number, kind] = answer
        try:
            self._line.send(frame)
            return await answer
        finally:
            del self._line.questions[number, kind]
