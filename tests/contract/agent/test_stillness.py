"""Is a guest's file system held for a snapshot ever held for longer, and does anybody wait for a guest that hangs?"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from innkeeper.agent.watching import stillness
from innkeeper.agent.watching.stillness import Moment, Stillness
from innkeeper.drivers.qemu.directory import MachineDirectory, Record
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.seen import Run, Seen
from innkeeper.model.hardware import AGENT_CHANNEL

FREEZE, THAW = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"
DECLINED = {"error": {"class": "GenericError", "desc": "not here"}}


class Guest:
    """An agent that holds and lets go of `disks` file systems, and answers some questions as the test says."""

    def __init__(self, directory: MachineDirectory, disks: int = 2) -> None:
        self.odd: dict[str, Any] = {}
        self.silent: set[str] = set()
        self.held = 0
        self.lines = 0
        self._disks = disks
        held = os.pidfd_open(os.getpid())
        record = Record(pid=os.getpid(), start_time=1, launcher=1, boot_id="", started_at=0.0)
        self.machine = Machine("web", directory, record, held)
        self.machine.seen = Seen(run=Run.RUNNING, open_channels=frozenset({AGENT_CHANNEL}), answered=True)

    @property
    def noted(self) -> bool:
        return self.machine.directory.still_file.exists()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines += 1
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                question = json.loads(line.lstrip(b"\xff"))
                answer = self._answer(question["execute"], question.get("arguments", {}))
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()

    def _answer(self, command: str, arguments: dict[str, Any]) -> bytes | None:
        if command in self.silent:
            return None
        if command == "guest-sync-delimited":
            return b"\xff" + json.dumps({"return": arguments["id"]}).encode() + b"\n"
        if command in self.odd:
            return json.dumps(self.odd[command]).encode() + b"\n"
        before, self.held = self.held, self._disks if command == FREEZE else 0
        return json.dumps({"return": self.held if command == FREEZE else before}).encode() + b"\n"


@pytest.fixture
async def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Guest]:
    monkeypatch.setattr(stillness, "HOLD_S", 0.3)
    monkeypatch.setattr(stillness, "LET_GO_S", 0.3)
    monkeypatch.setattr(stillness, "_PAUSE_FIRST_S", 0.05)
    directory = MachineDirectory(tmp_path)
    made = Guest(directory)
    line = socket.socket(socket.AF_UNIX)
    line.bind(str(tmp_path / "agent.sock"))
    server = await asyncio.start_unix_server(made.serve, sock=line)
    yield made
    await made.machine.close()
    server.close()


async def held(guest: Guest, still: Stillness | None = None, *, ask: bool = True) -> tuple[int, bool]:
    """How many file systems stood still within, and what the moment says of it."""
    moment = Moment()
    async with (still or Stillness(guest.machine)).held(moment, ask=ask):
        within = guest.held
    return within, moment.consistent


async def let_go(guest: Guest, still: Stillness) -> None:
    """By itself."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(still.run())
        await until_let_go(guest)
        running.cancel()


async def until_let_go(guest: Guest) -> None:
    async with asyncio.timeout(20):
        while guest.noted:
            await asyncio.sleep(0.01)


async def test_it_stands_still_for_the_moment_only(guest: Guest) -> None:
    assert await held(guest) == (2, True)
    assert (guest.held, guest.noted) == (0, False)
    assert guest.lines == 1  # an agent is slow to hear a new asker, and the guest's writers would wait


@pytest.mark.parametrize(
    "seen",
    [
        Seen(run=Run.PAUSED, open_channels=frozenset({AGENT_CHANNEL})),
        Seen(run=Run.IO_ERROR, open_channels=frozenset({AGENT_CHANNEL})),
        Seen(open_channels=frozenset({AGENT_CHANNEL}), panicked=True),
        Seen(open_channels=frozenset({AGENT_CHANNEL}), unreachable="it hangs"),
        Seen(open_channels=frozenset()),
    ],
)
async def test_one_that_cannot_answer_is_not_asked(guest: Guest, seen: Seen) -> None:
    guest.machine.seen = seen
    assert await held(guest) == (0, False)
    assert (guest.lines, guest.noted) == (0, False)


async def test_one_that_has_not_answered_before_is_not_asked(guest: Guest) -> None:
    assert await held(guest, ask=False) == (0, False)
    assert guest.lines == 0


async def test_one_that_declines_is_taken_as_it_is(guest: Guest) -> None:
    guest.odd = {FREEZE: DECLINED, THAW: DECLINED}
    assert await held(guest) == (0, False)
    assert not guest.noted


@pytest.mark.parametrize("answer", ["many", -3, True, None, {}, [2], 2.5])
async def test_nonsense_is_not_believed_and_it_is_let_go(guest: Guest, answer: Any) -> None:
    guest.odd = {FREEZE: {"return": answer}}
    assert await held(guest) == (0, False)
    assert (guest.held, guest.noted) == (0, False)


async def test_one_that_let_go_by_itself_did_not_stand_still(guest: Guest) -> None:
    moment = Moment()
    async with Stillness(guest.machine).held(moment, ask=True):
        guest.held = 0
    assert not moment.consistent


async def fail_within(guest: Guest, moment: Moment) -> None:
    async with Stillness(guest.machine).held(moment, ask=True):
        assert guest.held == 2
        raise OSError("full")


async def test_what_fails_meanwhile_holds_nothing_any_longer(guest: Guest) -> None:
    moment = Moment()
    with pytest.raises(OSError, match="full"):
        await fail_within(guest, moment)
    assert (guest.held, guest.noted, moment.consistent) == (0, False, False)


async def sleep_within(guest: Guest) -> None:
    async with Stillness(guest.machine).held(Moment(), ask=True):
        assert guest.held == 2
        await asyncio.sleep(60)


async def test_who_is_interrupted_lets_go_first(guest: Guest) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sleep_within(guest), 0.2)
    assert (guest.held, guest.noted) == (0, False)


@pytest.mark.parametrize("command", [FREEZE, THAW, "guest-sync-delimited"])
async def test_nobody_waits_for_one_that_hangs_and_it_is_let_go_later(guest: Guest, command: str) -> None:
    guest.silent = {command, THAW}
    still = Stillness(guest.machine)
    async with asyncio.timeout(20):
        _, consistent = await held(guest, still)
    assert (consistent, guest.noted) == (False, True)
    guest.silent, guest.held = set(), 2  # it came to it at last
    await let_go(guest, still)
    assert guest.held == 0
    assert await held(guest, still) == (2, True)


async def test_what_an_earlier_life_held_is_let_go(guest: Guest) -> None:
    guest.machine.directory.mark(guest.machine.directory.still_file)
    guest.held = 2
    await let_go(guest, Stillness(guest.machine))
    assert guest.held == 0


async def test_without_a_note_nothing_is_held(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: nobody after us would know."""
    monkeypatch.setattr(guest.machine.directory, "still_file", Path("/dev/full/still.json"))
    assert await held(guest) == (0, False)
    assert guest.lines == 0


async def test_one_whose_channel_closed_meanwhile_is_let_go_once_it_is_open(guest: Guest) -> None:
    still, path = Stillness(guest.machine), guest.machine.directory.path
    async with still.held(Moment(), ask=True):
        guest.silent = {THAW, "guest-sync-delimited"}
    (path / "agent.sock").rename(path / "away.sock")
    guest.silent = set()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(still.run())
        await asyncio.sleep(0.2)
        assert guest.held == 2
        (path / "away.sock").rename(path / "agent.sock")
        await until_let_go(guest)
        running.cancel()
    assert guest.held == 0
