"""A guest that changes all the time: what is told of it stays little, comes to its end, and delays nobody's answer.

Its monitor is a stub which says what QEMU says when a guest opens and closes a channel, panics, and boots anew; its
agent one that goes as soon as it was heard. Counted is what is told for the time that it took, never that time.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from innkeeper.agent.kept.outbox import Outbox
from innkeeper.agent.watching import guests
from innkeeper.agent.watching.pacing import BURST, EVERY_S, LINES_BURST, LINES_EVERY_S, Pacing, Remarks
from innkeeper.agent.watching.roster import Roster
from innkeeper.drivers.qemu.agent import SENTINEL
from innkeeper.drivers.qemu.directory import CHANNELS, MachineDirectory, Record, boot_id
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.render import channel_port
from innkeeper.drivers.qemu.seen import End
from innkeeper.model.hardware import AGENT_CHANNEL
from innkeeper.model.ids import HostId, InstanceId
from innkeeper.model.observed import Ended, MachineState, Phase
from tests.contract.machines.hostile import Hostile, hostile
from tests.guest.channel import guest
from tests.guest.test_distrust import Clock

ID = InstanceId("i-0123456789ab")
PATIENCE_S = 60.0


# --- how often


@pytest.mark.parametrize("every_s", [0.5, 1.0, 600.0])
def test_a_burst_goes_at_once_and_then_one_at_a_time(every_s: float) -> None:
    clock = Clock()
    pacing = Pacing(clock, 3, every_s)
    for _ in range(3):
        assert pacing.left_s == 0
        pacing.went()
    for _ in range(5):
        assert pacing.left_s == every_s
        clock.now_s += every_s
        assert pacing.left_s == 0
        pacing.went()


def test_a_burst_is_saved_up_again_and_no_more_than_that() -> None:
    clock = Clock()
    pacing = Pacing(clock, 3, 1.0)
    for waited_s, saved in ((0.0, 3), (2.0, 2), (1000.0, 3)):
        clock.now_s += waited_s
        went = 0
        while pacing.left_s == 0:
            pacing.went()
            went += 1
        assert went == saved


def test_a_line_is_said_once_a_boot_and_few_lines_however_many_boots() -> None:
    clock = Clock()
    remarks = Remarks(clock)
    assert remarks.is_due("silence", "it says nothing")
    assert not remarks.is_due("silence", "it says nothing")
    assert remarks.is_due("rubbish", "it says nothing")
    assert remarks.is_due("silence", "it declines")
    remarks.forget()
    assert remarks.is_due("silence", "it declines")
    said = 0
    for number in range(1000):
        remarks.forget()
        said += remarks.is_due("silence", f"it declines for the {number}th time")
    assert said == LINES_BURST - 4
    clock.now_s += LINES_EVERY_S
    assert remarks.is_due("silence", "it declines")


# --- as the daemon has it


class World:
    """A machine (this process) whose monitor and agent are stubs, watched by an agent's roster."""

    def __init__(self, qemu: Hostile, roster: Roster, outbox: Outbox) -> None:
        self.qemu = qemu
        self.roster = roster
        self.told: list[MachineState] = []
        self._outbox = outbox

    async def listen(self) -> None:
        async for report in self._outbox.reports():
            assert isinstance(report, MachineState)
            self.told.append(report)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.01)

    async def settle(self) -> None:
        """What was told at once has been heard by then."""
        for _ in range(3):
            await asyncio.sleep(0)

    async def storm(self, events: list[object], seconds: float) -> int:
        """These, again and again; how many."""
        count, end = 0, time.monotonic() + seconds
        for event in itertools.cycle(events):
            self.qemu.say(event)
            count += 1
            # Apart, or they would be seen as one.
            await asyncio.sleep(0.002)
            if count % len(events) == 0 and time.monotonic() > end:
                break
        return count

    def state(self) -> MachineState:
        state = self.roster.state(ID)
        assert state is not None
        return state


class Over(Exception):
    """Ends the agent's tasks."""


@asynccontextmanager
async def watched(place: Path) -> AsyncIterator[World]:
    async with hostile(place / "qmp.sock") as qemu:
        qemu.answers = {"query-status": {"status": "running"}, "query-chardev": []}
        record = Record(pid=os.getpid(), start_time=0, launcher=0, boot_id=boot_id(), started_at=time.time())
        machine = Machine("web", MachineDirectory(place), record, os.pidfd_open(os.getpid()))
        await machine.attach(PATIENCE_S, qemu.line())
        assert not machine.seen.unreachable
        outbox = Outbox(place / "seq")
        try:
            async with asyncio.TaskGroup() as group:
                roster = Roster(HostId("h-0123456789ab"), outbox, group)
                world = World(qemu, roster, outbox)
                group.create_task(world.listen())
                roster.hold(ID, machine, 1)
                try:
                    yield world
                finally:
                    await roster.close()
                raise Over
        except* Over:
            pass  # all tasks have ended


@pytest.fixture
async def world(socket_path: str) -> AsyncIterator[World]:
    async with watched(Path(socket_path).parent) as made:
        yield made


def port(*, open: bool) -> object:
    return {"event": "VSERPORT_CHANGE", "data": {"id": channel_port(AGENT_CHANNEL), "open": open}}


PANIC: object = {"event": "GUEST_PANICKED", "data": {"action": "run"}}
RESET: object = {"event": "RESET", "data": {"guest": True, "reason": "guest-reset"}}
STORM = [PANIC, RESET]


def allowed(seconds: float) -> int:
    return BURST + int(seconds / EVERY_S) + 2


@pytest.mark.slow
async def test_a_guest_that_panics_and_resets_is_told_of_seldom_and_to_its_end(world: World) -> None:
    begun = time.monotonic()
    count = await world.storm(STORM, 2.0)
    # What comes last: a panic, in the same breath as all the rest.
    world.qemu.say(PANIC)
    await world.until(
        lambda: bool(world.told) and world.told[-1].phase is Phase.PANICKED and world.told[-1] == world.state()
    )
    took_s = time.monotonic() - begun
    assert count > 10 * allowed(took_s), "no storm at all"
    # The first is of its start, which was ordered.
    assert len(world.told) - 1 <= allowed(took_s)
    assert [state.seq for state in world.told] == sorted({state.seq for state in world.told})


async def test_a_few_changes_are_told_as_they_come(world: World) -> None:
    for count in range(1, 4):
        world.qemu.say(PANIC)
        await world.until(lambda: world.state().phase is Phase.PANICKED)
        world.qemu.say(RESET)
        await world.until(lambda: world.state().phase is Phase.STARTING)
        await world.settle()
        phases = [state.phase for state in world.told]
        assert phases == [Phase.STARTING, *[Phase.PANICKED, Phase.STARTING] * count]


@pytest.mark.slow
async def test_no_storm_holds_back_what_was_ordered_nor_an_end(world: World) -> None:
    await world.storm(STORM, 1.0)
    for generation in range(2, 30):
        # What rides with an order's answer is the newest, and is told at once.
        world.roster.update(ID, generation)
        await world.settle()
        assert world.told[-1].obeyed == generation == world.state().obeyed
        assert world.told[-1].seq <= world.state().seq
        world.qemu.say(RESET)
        world.qemu.say(PANIC)
    # Also where it obeyed as much before, and what changed was seen first.
    for phase in (Phase.PAUSED, Phase.PANICKED):
        world.qemu.say({"event": "STOP" if phase is Phase.PAUSED else "RESUME"})
        await world.until(lambda phase=phase: world.state().phase is phase)  # type: ignore[misc]
        world.roster.update(ID, generation)
        await world.settle()
        assert world.told[-1] == world.state()
    found = world.roster.find(ID)
    assert found is not None
    world.roster.let_go(ID, found, End(ended=Ended.GUEST, reason="it went"))
    await world.settle()
    end = world.told[-1]
    assert (end.phase, end.ended) == (Phase.STOPPED, Ended.GUEST)
    # And nothing older comes after it.
    await asyncio.sleep(1.5 * EVERY_S)
    assert world.told[-1] is end


@pytest.mark.slow
async def test_what_is_gone_is_told_of_no_more(world: World) -> None:
    await world.storm(STORM, 1.0)
    found = world.roster.find(ID)
    assert found is not None
    world.roster.let_go(ID, found, End(ended=Ended.ASKED, reason=""))
    world.roster.forget(ID)
    before = len(world.told)
    await asyncio.sleep(1.5 * EVERY_S)
    assert len(world.told) == before
    assert world.roster.state(ID) is None


# --- an agent that comes and goes, each time as soon as it was heard


class Restless:
    """Answers one conversation, or declines it in words of its own, and then closes its port and opens it anew."""

    def __init__(self, *, answers: bool) -> None:
        self.visits = 0
        self.qemu: Hostile | None = None
        self.settled = False
        self._answers = answers

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        if self._answers:
            question = json.loads((await reader.readline()).lstrip(SENTINEL))
            writer.write(SENTINEL + json.dumps({"return": question["arguments"]["id"]}).encode() + b"\n")
            await reader.readline()
            writer.write(b'{"return": {}}\n')
        else:
            writer.write(SENTINEL + json.dumps({"error": {"desc": f"no {self.visits}"}}).encode() + b"\n")
        await asyncio.sleep(0.005)
        if self.qemu is not None and not self.settled:
            self.qemu.say(port(open=False))
            await asyncio.sleep(0.005)
            self.qemu.say(port(open=True))


@asynccontextmanager
async def restless(place: Path, agent: Restless) -> AsyncIterator[World]:
    async with guest(str(place / f"{CHANNELS[AGENT_CHANNEL]}.sock"), agent), watched(place) as world:
        agent.qemu = world.qemu
        world.qemu.say(port(open=True))
        yield world


@pytest.mark.slow
async def test_an_agent_that_comes_and_goes_is_asked_and_told_of_seldom(socket_path: str) -> None:
    agent = Restless(answers=True)
    async with restless(Path(socket_path).parent, agent) as world:
        begun = time.monotonic()
        await asyncio.sleep(3.0)
        agent.settled = True
        await world.until(lambda: world.told[-1].agent and world.told[-1] == world.state())
        took_s = time.monotonic() - begun
        assert BURST // 2 <= agent.visits <= allowed(took_s)
        assert BURST // 2 <= len(world.told) - 1 <= allowed(took_s)


@pytest.mark.slow
async def test_an_agent_that_declines_each_time_fills_no_log(
    socket_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    agent = Restless(answers=False)
    async with restless(Path(socket_path).parent, agent) as world:
        begun = time.monotonic()
        await world.until(lambda: agent.visits > LINES_BURST + 2)
        assert agent.visits <= allowed(time.monotonic() - begun)
        assert not world.told[-1].agent
    lines = [record.getMessage() for record in caplog.records if record.name == guests.__name__]
    assert lines == [f"web: the guest agent declined `guest-sync-delimited`: no {n}" for n in range(1, LINES_BURST + 1)]
