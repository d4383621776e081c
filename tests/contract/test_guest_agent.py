"""What does the agent's client make of an agent that answers late, wrongly, endlessly or not at all?"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from innkeeper.drivers.qemu.agent import GuestAgent, NoAgent

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Guest:
    """A socket that behaves as the test says, in place of QEMU's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.talk: Talk = honest({})
        self.agent = GuestAgent(self._connect)
        self.most_at_once = 0
        self._at_once = 0

    def _connect(self) -> socket.socket:
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(str(self.path))
        except OSError:
            line.close()
            raise
        return line

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self.talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, as it may
        finally:
            self._at_once -= 1
            writer.close()


def honest(answers: dict[str, Any], before: bytes = b"") -> Talk:
    """An agent as QEMU's: answers what it knows. `before` is what an earlier conversation left in the line."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(before)
        while line := await reader.readline():
            question = json.loads(line.lstrip(b"\xff"))
            if question["execute"] == "guest-sync-delimited":
                writer.write(b"\xff" + json.dumps({"return": question["arguments"]["id"]}).encode() + b"\n")
            elif question["execute"] in answers:
                writer.write(json.dumps(answers[question["execute"]]).encode() + b"\n")

    return talk


@pytest.fixture
async def guest(tmp_path: Path) -> AsyncIterator[Guest]:
    made = Guest(tmp_path / "agent.sock")
    server = await asyncio.start_unix_server(made.serve, made.path)
    yield made
    server.close()


PONG: dict[str, Any] = {"guest-ping": {"return": {}}}


async def test_an_answer_left_by_an_earlier_asker_is_not_taken_for_ours(guest: Guest) -> None:
    guest.talk = honest(PONG, before=b'{"error": {"desc": "old"}}\n\xff{"return": 1}\n{"return": "half')
    await guest.agent.ping(5)


async def test_questions_go_one_at_a_time(guest: Guest) -> None:
    guest.talk = honest(PONG)
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(guest.agent.ping(5))
    assert guest.most_at_once == 1


async def test_an_error_is_told_printable_and_short(guest: Guest) -> None:
    guest.talk = honest({"guest-ping": {"error": {"class": "GenericError", "desc": "no\x1b[31m" + "x" * 5000}}})
    with pytest.raises(NoAgent, match=r"declined `guest-ping`: no\[31mx+$") as caught:
        await guest.agent.ping(5)
    assert len(str(caught.value)) < 300


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()


async def _flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def _nested(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\xff" + b"[" * 100_000 + b"\n")
    await reader.read()


async def _wrong_number(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for number in range(1000):
        writer.write(b'\xff{"return": %d}\n' % -number)
    await reader.read()


async def _not_json(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\xff\xfe\xfd{not json}\n")
    await reader.read()


async def _not_an_object(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b'\xff["return"]\n')
    await reader.read()


@pytest.mark.parametrize("talk", [_silent, _hang_up, _flood, _nested, _wrong_number, _not_json, _not_an_object])
async def test_nothing_but_an_answer_is_an_answer(guest: Guest, talk: Talk) -> None:
    guest.talk = talk
    with pytest.raises(NoAgent):
        await guest.agent.ping(0.5)
    guest.talk = honest(PONG)
    await guest.agent.ping(5)


async def test_one_that_answers_what_it_was_not_asked_is_not_heard_out(guest: Guest) -> None:
    """Reading on to the deadline would leave no time for anybody else."""
    guest.talk = _wrong_number
    with pytest.raises(NoAgent, match="nobody asked"):
        await guest.agent.ping(30)


async def test_no_socket_is_no_agent(tmp_path: Path) -> None:
    with pytest.raises(NoAgent):
        await Guest(tmp_path / "nothing.sock").agent.ping(1)


async def test_shutdown_needs_no_answer(guest: Guest) -> None:
    asked: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sync = json.loads((await reader.readline()).lstrip(b"\xff"))
        writer.write(b"\xff" + json.dumps({"return": sync["arguments"]["id"]}).encode() + b"\n")
        asked.append((await reader.readline()).decode())

    guest.talk = talk
    await guest.agent.shut_down(5)
    async with asyncio.timeout(5):
        while not asked:
            await asyncio.sleep(0.01)
    assert json.loads(asked[0]) == {"execute": "guest-shutdown", "arguments": {"mode": "powerdown"}}
