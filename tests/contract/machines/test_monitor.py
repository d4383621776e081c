"""What can a QEMU that its guest has taken over do to us by what it says? Harm its own machine, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from innkeeper.drivers.qemu.blocks.disks import Disks
from innkeeper.drivers.qemu.qmp import Monitor, NoAnswer, Rejected
from innkeeper.drivers.qemu.seen import Event, Resumed, Stopped
from innkeeper.model.hardware import AGENT_CHANNEL
from tests.contract.machines.hostile import GREETING, Hostile, hostile

pytestmark = pytest.mark.slow

Question = Callable[[Monitor], Awaitable[object]]


async def space(monitor: Monitor) -> object:
    return await Disks(monitor).out_of_space()


async def counters(monitor: Monitor) -> object:
    return await Disks(monitor).counters()


async def tops(monitor: Monitor) -> object:
    return await Disks(monitor).tops()


async def left(monitor: Monitor) -> None:
    await Disks(monitor).drop_unused()


STATUS: Question = Monitor.run
CHANNELS: Question = Monitor.open_ends

STATS = {"rd_bytes": 1, "wr_bytes": 2, "rd_operations": 3, "wr_operations": 4}
ODD: dict[tuple[Question, str], list[Any]] = {
    (STATUS, "query-status"): [{}, [], None, "running", {"status": []}, {"status": 5}],
    (CHANNELS, "query-chardev"): [
        *({}, None, 7, [None], [{"label": "x"}], [{"frontend-open": True}]),
        *([{"label": [], "frontend-open": True}], [{"label": "x", "frontend-open": "yes"}]),
        [{"label": "x", "frontend-open": True}] * 10_000,
    ],
    (space, "query-block"): [{"a": 1}, None, 7, "text", [None], [[]], [{"io-status": []}]],
    (tops, "query-block"): [
        *({"a": 1}, None, 7, "text", [None], [[]], [{"inserted": None}], [{"inserted": {}}]),
        [{"inserted": {"node-name": 5}}],
    ],
    (left, "query-fdsets"): [
        *({"a": 1}, None, 7, "text", [None], [{}], [{"fds": []}], [{"fdset-id": 1, "fds": 5}]),
        *([{"fdset-id": "x", "fds": []}], [{"fdset-id": 1, "fds": [{"opaque": 5}]}], [{"fdset-id": -1, "fds": []}]),
    ],
    (counters, "query-blockstats"): [
        *({"a": 1}, None, 7, "text", [None], [{}], [{"stats": 5}], [{"stats": STATS, "qdev": 5}]),
        *([{"stats": STATS | {"rd_bytes": odd}}] for odd in ("many", None, True, 1.5, -1, 10**30)),
        [{"stats": {k: v for k, v in STATS.items() if k != "wr_operations"}}],
    ],
}
ODD_ANSWERS = [(*asked, told) for asked, answers in ODD.items() for told in answers]

ODD_EVENTS: list[Any] = [
    {"event": []},
    {"event": {}},
    {"event": None},
    {"event": "SHUTDOWN"},
    {"event": "SHUTDOWN", "data": []},
    {"event": "SHUTDOWN", "data": {"guest": "perhaps"}},
    {"event": "RESET", "data": None},
    {"event": "RESET", "data": {}},
    {"event": "BLOCK_IO_ERROR"},
    {"event": "BLOCK_IO_ERROR", "data": {"device": [], "node-name": {}}},
    {"event": "VSERPORT_CHANGE"},
    {"event": "VSERPORT_CHANGE", "data": {"id": [], "open": True}},
    {"event": "VSERPORT_CHANGE", "data": {"id": "port-agent"}},
    {"return": {}, "id": []},
    {"return": {}, "id": "of nobody"},
    {"error": 5, "id": None},
    {},
]

NOT_QMP = [
    b"not json\r\n",
    b'"a text"\r\n',
    b"\xff\xfe\xfd\r\n",
    b"[" * 200_000 + b"\r\n",
    b'{"event": "' + b"x" * (2 << 20) + b'"}\r\n',
    b'{"error": {}}\r\n',
]


class Heard:
    """A monitor connected to a hostile QEMU, and the events that came through."""

    def __init__(self, qemu: Hostile) -> None:
        self.qemu = qemu
        self.events: list[Event] = []
        self.monitor = Monitor("web", {"port-agent": AGENT_CHANNEL}, self.events.append)

    async def connect(self) -> None:
        await self.monitor.connect(self.qemu.line(), 10)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.events) < count:
                await asyncio.sleep(0.01)


@pytest.fixture
async def heard(tmp_path: Path) -> AsyncIterator[Heard]:
    async with hostile(tmp_path / "qmp.sock") as qemu:
        made = Heard(qemu)
        yield made
        await made.monitor.close()


@pytest.mark.parametrize("question, command, told", ODD_ANSWERS)
async def test_an_answer_that_makes_no_sense_is_no_answer(
    heard: Heard, question: Question, command: str, told: Any
) -> None:
    heard.qemu.answers[command] = told
    await heard.connect()
    with pytest.raises(NoAnswer, match=f"QEMU of web .*`{command}`"):
        await question(heard.monitor)
    assert heard.monitor.connected


async def test_an_answer_that_makes_sense_is_one(heard: Heard) -> None:
    heard.qemu.answers = {
        "query-status": {"status": "paused"},
        "query-chardev": [{"label": "a", "frontend-open": True}, {"label": "b", "frontend-open": False}],
        "query-block": [{"device": "", "io-status": "nospace"}, {"device": "", "removable": True}],
        "query-blockstats": [{"qdev": "/machine/peripheral/disk-1/virtio-backend", "stats": STATS}],
    }
    await heard.connect()
    assert await heard.monitor.run() == "paused"
    assert await heard.monitor.open_ends() == {"a"}
    assert await Disks(heard.monitor).out_of_space()
    assert (await Disks(heard.monitor).counters())["disk-1"].written_bytes == 2


@pytest.mark.parametrize(
    "greeting", [{}, [], {"QMP": {}}, {"QMP": {"version": {}, "capabilities": 5}}, "x" * (2 << 20), {"event": []}]
)
async def test_a_greeting_that_makes_no_sense_is_none(heard: Heard, greeting: Any) -> None:
    heard.qemu.greeting = greeting
    with pytest.raises(NoAnswer, match="QEMU of web does not answer"):
        await heard.connect()
    heard.qemu.greeting = GREETING
    await heard.connect()


async def test_events_that_make_no_sense_are_passed_over_and_told_once(
    heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    heard.qemu.answers["query-status"] = {"status": "running"}
    await heard.connect()
    for odd in ODD_EVENTS:
        heard.qemu.say(odd)
    heard.qemu.say({"event": "STOP"})
    await heard.until(1)
    assert heard.events == [Stopped()]
    assert await heard.monitor.run() == "running"
    (record,) = caplog.records
    assert "QEMU of web says what no QEMU would" in record.getMessage()


@pytest.mark.parametrize("data", NOT_QMP, ids=lambda data: str(data[:12]))
async def test_what_is_no_qmp_costs_the_line_and_nothing_else(heard: Heard, data: bytes) -> None:
    await heard.connect()
    heard.qemu.say_raw(data)
    async with asyncio.timeout(60):
        while heard.monitor.connected:
            await asyncio.sleep(0.01)
    with pytest.raises(NoAnswer):
        await heard.monitor.run()
    await heard.monitor.close()
    await heard.monitor.close()


async def test_an_error_is_told_printable_and_short(heard: Heard) -> None:
    heard.qemu.answers["stop"] = {"error": {"class": "GenericError", "desc": "no\x1b[31m\r\n" + "x" * 100_000}}
    await heard.connect()
    with pytest.raises(Rejected, match=r"declined `stop`: no\[31m ?x+$") as caught:
        await heard.monitor.pause()
    assert len(str(caught.value)) < 300


async def test_a_line_that_nobody_reads_is_let_go(heard: Heard) -> None:
    heard.qemu.deaf = True
    await heard.connect()

    async def ask() -> None:
        with pytest.raises(NoAnswer):
            await heard.monitor.pause()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(10_000):
            group.create_task(ask())
        await asyncio.sleep(0.1)
        await heard.monitor.close()


MANY, AT_ONCE = 4000, 100


async def test_a_storm_of_events_leaves_room_for_everything_else(heard: Heard) -> None:
    heard.qemu.answers["query-status"] = {"status": "running"}
    await heard.connect()
    heard.qemu.say_raw(b"".join(json.dumps({"event": ("STOP", "RESUME")[n % 2]}).encode() + b"\n" for n in range(MANY)))
    turns = [0]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        question = group.create_task(heard.monitor.run())
        while len(heard.events) < MANY:
            await asyncio.sleep(0)
            turns.append(len(heard.events))
    assert max(after - before for before, after in pairwise(turns)) <= AT_ONCE
    assert heard.events == [Stopped(), Resumed()] * (MANY // 2)
    assert question.result() == "running"


async def test_a_storm_of_other_messages_does_too(heard: Heard) -> None:
    """Not only events: an answer that nobody asked for takes as long to read."""
    await heard.connect()
    heard.qemu.say_raw(b'{"id":"x"}\n' * 400 + b'{"event":"STOP"}\n')
    turns = 0
    async with asyncio.timeout(60):
        while not heard.events:
            await asyncio.sleep(0)
            turns += 1
    assert turns > 400 // AT_ONCE
