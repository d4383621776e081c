"""A guest that talks without end, and the others that share the loop with it: they get their turns.

Counted is what one guest may have done between two turns of somebody else, never how long that takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from innkeeper.drivers.guestlink import frames
from innkeeper.drivers.guestlink.connection import WINDOW
from innkeeper.drivers.guestlink.fake import FakeGuest
from innkeeper.drivers.guestlink.frames import Decoder, Frame, Kind, encode
from innkeeper.drivers.guestlink.hand import GuestLink
from innkeeper.drivers.guestlink.line import LOOKS_MOST, LinkDown
from innkeeper.drivers.qemu.agent import STALE_MOST, GuestAgent, NoAgent
from innkeeper.ports.streams import Exited
from tests.guest.channel import PATIENCE_S, endless, finish, guest, request

pytestmark = pytest.mark.slow

Run = Callable[[Coroutine[Any, Any, None]], None]

# What came with one look at the clock, and what a timer let through in the same round of the loop.
BETWEEN_TURNS = 2 * LOOKS_MOST + 2


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """The daemon runs on uvloop; what else uses these drivers, on the ordinary loop."""
    chosen: Run = request.param
    return chosen


STALE = b'\xff{"return": -1}\n'


async def greeted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> AsyncIterator[Frame]:
    """Says hello, then yields what else the host says."""
    decoder = Decoder()
    while data := await reader.read(65536):
        for frame in decoder.feed(data):
            if frame.kind == Kind.RESET:
                writer.write(frames.encode_hello(FakeGuest().hello(frames.decode_reset(frame.payload))))
            else:
                yield frame


@contextlib.asynccontextmanager
async def watched(progress: Callable[[], int]) -> AsyncIterator[list[int]]:
    """How far `progress` got between each two turns of a task that always wants one."""
    steps: list[int] = []

    async def turn() -> None:
        last = progress()
        while True:
            await asyncio.sleep(0)
            steps.append(progress() - last)
            last += steps[-1]

    async with asyncio.TaskGroup() as group:
        turning = group.create_task(turn())
        yield steps
        turning.cancel()


@pytest.mark.parametrize(
    "rubbish,words",
    [
        (b"I", "bytes that are no frames"),
        (b"IK", "bytes that are no frames"),
        (b"IKC\0" + bytes(4) + b"\xf0\x7f\0\0", "bytes that are no frames"),
        (encode(Frame(kind=Kind.STDOUT, stream=1)), "what nobody asked for"),
        (frames.encode_hello(FakeGuest().hello(0)), "what nobody asked for"),
    ],
    ids=["letters", "magic", "heads", "empty frames", "greetings"],
)
def test_rubbish_ends_the_line_and_leaves_others_their_turns(
    run: Run, socket_path: str, rubbish: bytes, words: str
) -> None:
    async def scenario() -> None:
        async with guest(socket_path, endless(rubbish)):
            link = await GuestLink.connect(socket_path, PATIENCE_S)
            decoder = link._line.connection.decoder
            async with watched(lambda: decoder.looks) as steps:
                with pytest.raises(LinkDown, match=words):
                    await link.hello(PATIENCE_S)
            assert link.guest_at_fault
            assert max(steps, default=0) <= BETWEEN_TURNS
            await link.close()

    run(scenario())


def test_output_in_single_bytes_is_allowed_and_leaves_others_their_turns(run: Run, socket_path: str) -> None:
    async def scenario() -> None:
        count = 20000
        assert count < WINDOW

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async for frame in greeted(reader, writer):
                if frame.kind == Kind.OPEN:
                    writer.write(encode(Frame(kind=Kind.STDOUT, stream=frame.stream, payload=b"x")) * count)
                    writer.write(frames.encode_exit(frame.stream, Exited(code=0, signal=None)))

        async with guest(socket_path, talk):
            link = await GuestLink.connect(socket_path, PATIENCE_S)
            await link.hello(PATIENCE_S)
            session = await link.open(request("chatter"))
            stream = link._line.connection._streams[session.stream]
            async with watched(lambda: -stream.receivable) as steps:
                result = await finish(session)
            assert (result.out, result.end) == (b"x" * count, Exited(code=0, signal=None))
            # What is read grants anew, which goes backwards.
            assert 0 < max(steps) <= BETWEEN_TURNS
            assert (await finish(await link.open(request("chatter")))).out == b"x" * count
            assert not link.guest_at_fault
            await link.close()
            assert not link.guest_at_fault

    run(scenario())


def test_a_line_that_has_to_wait_for_its_turn_can_be_closed(run: Run, socket_path: str) -> None:
    async def scenario() -> None:
        async with guest(socket_path, endless(encode(Frame(kind=Kind.STDOUT, stream=1)))):
            link = await GuestLink.connect(socket_path, PATIENCE_S)
            async with asyncio.timeout(PATIENCE_S):
                while link._line._looks_left > 0:
                    await asyncio.sleep(0)
                await link.close()
            assert "closed from this side" in str(link.down)

    run(scenario())


def test_a_channel_that_closes_while_the_line_waits_is_noticed(run: Run, socket_path: str) -> None:
    async def scenario() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(encode(Frame(kind=Kind.STDOUT, stream=1)) * 3 * LOOKS_MOST)

        async with guest(socket_path, talk):
            link = await GuestLink.connect(socket_path, PATIENCE_S)
            with pytest.raises(LinkDown, match=r"closed at its other end|broke"):
                await link.hello(PATIENCE_S)
            assert not link.guest_at_fault
            await link.close()

    run(scenario())


# --- the other line that a guest writes to


@pytest.mark.parametrize(
    "rubbish,words",
    [
        (STALE, "questions that nobody asked"),
        (b"\xff" + b"[" * 5000 + b"\n", "where a number was asked for"),
        (b"I", "cannot be asked"),
        (b"\xff", "cannot be asked"),
        (b"\xff\n", "cannot be asked"),
    ],
    ids=["answers", "long answers", "letters", "beginnings", "nothing"],
)
def test_an_agent_that_talks_without_end_is_left_and_others_get_their_turns(
    run: Run, socket_path: str, rubbish: bytes, words: str
) -> None:
    async def scenario() -> None:
        def connect() -> socket.socket:
            line = socket.socket(socket.AF_UNIX)
            line.connect(socket_path)
            line.setblocking(False)
            return line

        async with guest(socket_path, endless(rubbish)):
            async with watched(lambda: 0) as turns:
                with pytest.raises(NoAgent, match=words):
                    await GuestAgent(connect).ping(PATIENCE_S)
            assert rubbish != STALE or len(turns) >= STALE_MOST

    run(scenario())
