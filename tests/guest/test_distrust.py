"""A guest whose channel carried rubbish is left alone for longer and longer, until it boots anew."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.agent.watching.distrust import FORGIVEN_AFTER_S, PAUSE_FIRST_S, PAUSE_MOST_S, Distrust
from innkeeper.agent.watching.guests import Guest
from innkeeper.drivers.guestlink.fake import FakeGuest, FakeProcess
from innkeeper.drivers.qemu.directory import MachineDirectory, Record, boot_id
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.seen import Seen
from innkeeper.model.hardware import GUEST_CHANNEL
from innkeeper.ports.host import NoLine
from tests.guest.channel import endless, finish, guest, request


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_pauses_grow_up_to_a_limit() -> None:
    clock = Clock()
    distrust = Distrust(clock)
    assert distrust.left_s == 0
    pauses = []
    for _ in range(10):
        distrust.fell_out("it sent rubbish")
        pauses.append(distrust.left_s)
        clock.now_s += distrust.left_s
        assert distrust.left_s == 0
    assert pauses[:3] == [PAUSE_FIRST_S, 2 * PAUSE_FIRST_S, 4 * PAUSE_FIRST_S]
    assert pauses == sorted(pauses)
    assert pauses[-1] == PAUSE_MOST_S


def test_it_is_said_why_and_for_how_long() -> None:
    distrust = Distrust(Clock())
    distrust.fell_out("it sent rubbish")
    assert distrust.words == "it sent rubbish; it is listened to again in 2 s, or when it boots anew"


@pytest.mark.parametrize("forgotten", [True, False])
def test_another_boot_or_a_long_time_begins_anew(forgotten: bool) -> None:
    clock = Clock()
    distrust = Distrust(clock)
    for _ in range(5):
        distrust.fell_out("it sent rubbish")
    if forgotten:
        distrust.forget()
        assert distrust.left_s == 0
    else:
        clock.now_s += distrust.left_s + FORGIVEN_AFTER_S + 1
    distrust.fell_out("again")
    assert distrust.left_s == PAUSE_FIRST_S


# --- as the daemon has it


@pytest.fixture
async def machine(socket_path: str) -> AsyncIterator[Machine]:
    """A process that runs (this one), whose guest has opened its channel."""
    record = Record(pid=os.getpid(), start_time=0, launcher=0, boot_id=boot_id(), started_at=0.0)
    directory = MachineDirectory(Path(socket_path).parent)
    made = Machine("web", directory, record, os.pidfd_open(os.getpid()))
    made.seen = Seen(open_channels=frozenset({GUEST_CHANNEL}))
    yield made
    await made.close()


def line_of(machine: Machine) -> str:
    return str(machine.directory.path / "guest.sock")


class Rubbish:
    def __init__(self) -> None:
        self.visits = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        await endless(b"rubbish")(reader, writer)


async def test_who_sends_rubbish_gets_no_line_until_its_pause_is_over(machine: Machine) -> None:
    clock, rubbish = Clock(), Rubbish()
    watched = Guest(machine, lambda: None, clock)
    async with guest(line_of(machine), rubbish):
        for visit in range(1, 5):
            with pytest.raises(NoLine, match="bytes that are no frames; look which program"):
                await watched.status()
            for _ in range(20):
                with pytest.raises(NoLine, match=r"no frames.* it is listened to again in [0-9]+ s"):
                    await watched.status()
                with pytest.raises(NoLine, match="listened to again"):
                    await watched.exec(request("true"))
            assert rubbish.visits == visit
            clock.now_s += PAUSE_FIRST_S * 2 ** (visit - 1)
        await watched.close()


async def test_another_boot_is_believed_again(machine: Machine) -> None:
    watched = Guest(machine, lambda: None, Clock())
    watched.saw(machine.seen)
    async with guest(line_of(machine), Rubbish()):
        with pytest.raises(NoLine, match="no frames"):
            await watched.status()
        # A program that closes and opens its channel proves nothing.
        for channels in (frozenset[str](), machine.seen.open_channels):
            watched.saw(replace(machine.seen, open_channels=channels))
        with pytest.raises(NoLine, match="listened to again"):
            await watched.status()
    os.unlink(line_of(machine))
    async with FakeGuest().listening(line_of(machine)):
        watched.saw(replace(machine.seen, resets=1))
        assert (await watched.status()).hostname == "fake"
        await watched.close()


async def test_who_goes_bad_later_gets_no_new_line_at_once_either(machine: Machine) -> None:
    async def rave(process: FakeProcess) -> int:
        process._send(b"no frame at all")
        return 0

    clock = Clock()
    watched = Guest(machine, lambda: None, clock)
    async with FakeGuest({"rave": rave}).listening(line_of(machine)):
        end = (await finish(await watched.exec(request("rave")))).end
        assert "bytes that are no frame" in str(end)
        with pytest.raises(NoLine, match=r"no frame; it is listened to again in 2 s"):
            await watched.status()
        clock.now_s += PAUSE_FIRST_S
        assert (await watched.status()).hostname == "fake"
        await watched.close()
