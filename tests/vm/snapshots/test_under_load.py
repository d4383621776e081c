"""A guest that writes all the while: what a snapshot holds of it is whole, and nothing that it synced is ever lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from innkeeper.model.observed import Ended
from innkeeper.model.work import Done, Order
from innkeeper.ports.host import HostAway
from innkeeper.ports.streams import ExecRequest, Exited, Failed, Session, Stdout
from tests.contract.host.local import LocalWorld, local_world, unable
from tests.contract.host.test_snapshots import GRACE_S, Layered, taken

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(unable() is not None, reason=str(unable())),
]

# Each file is whole on the disk before its sum is, and its sum before its number is said. They are overwritten in turn.
WRITE = """
while :; do
    n=$((n + 1)); f=/root/load.$((n % 8))
    rm -f $f.sum; sync /root
    head -c $((n * 7919 % 300000)) /dev/urandom >$f; sync $f
    (cd /root && sha256sum ${f#/root/} >$f.sum.new); sync $f.sum.new
    mv $f.sum.new $f.sum; sync /root
    echo $n >/root/last.new; sync /root/last.new; mv /root/last.new /root/last; sync /root
    echo $n
done
"""
CHECK = "cd /root && cat load.*.sum | sha256sum -c >/dev/null && cat last"


@pytest.fixture
async def world() -> AsyncIterator[LocalWorld]:
    async with local_world(Path("/")) as made:
        yield made


async def shell(cast: Layered, script: str) -> Session:
    return await cast.world.host.exec(cast.instance, ExecRequest(argv=("sh", "-c", script), env={}))


async def number(cast: Layered) -> int:
    """The last that is whole in this guest, all its files checked."""
    return int(await said(cast, CHECK))


async def recovered(cast: Layered) -> bool:
    """Whether the guest's file system had to be made whole from its journal when the guest started."""
    return "EXT4-fs (vda): recovery complete" in await said(cast, "dmesg")


async def said(cast: Layered, script: str) -> str:
    session, out = await shell(cast, script), b""
    async with asyncio.timeout(cast.stage.deadline_s):
        while not isinstance(event := await session.read(), Exited | Failed):
            out += event.data
    assert event == Exited(code=0, signal=None), out
    return out.decode()


class Writer:
    """What the guest has said that it wrote. Where one writer ended, the next goes on."""

    def __init__(self, cast: Layered) -> None:
        self.said = 0
        self._cast = cast

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        session = await shell(self._cast, f"n=$(cat /root/last 2>/dev/null || echo 0)\n{WRITE}")
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen(session))
            yield
            listening.cancel()
        await session.close()

    async def _listen(self, session: Session) -> None:
        while not isinstance(event := await session.read(), Exited | Failed):
            if isinstance(event, Stdout):
                self.said = int(event.data.split()[-1])

    async def more(self, count: int) -> int:
        wanted = self.said + count
        async with asyncio.timeout(self._cast.stage.deadline_s):
            while self.said < wanted:
                await asyncio.sleep(0.02)
        return self.said


async def test_snapshots_of_a_guest_that_writes(world: LocalWorld) -> None:
    web = Layered(world)
    pid = (await web.launch()).pid
    writer, written = Writer(web), []
    async with writer.writing():
        for _ in range(5):
            written.append(await writer.more(5))
            assert (await web.snapshot()).consistent
        await writer.more(5)
    found = await web.found()
    assert found is not None
    assert found.pid == pid
    await web.do(web.stop(GRACE_S))
    for depth in (5, 3, 1):
        copy = Layered(world, below=web.below[-depth:])
        await copy.launch()
        assert await number(copy) >= written[depth - 1]
        assert not await recovered(copy)
        await copy.do(copy.stop())
    await web.do(web.apply())  # the network again, with its port
    await web.do(web.start())
    await web.answering()
    assert await number(web) >= writer.said


async def test_power_is_lost_right_after_the_switch(world: LocalWorld) -> None:
    web = Layered(world)
    before = await web.launch()
    writer = Writer(web)
    async with writer.writing():
        await writer.more(5)
        await web.snapshot()
        await writer.more(1)
        await world.kill_qemu(before)
    await web.seen(lambda state: state.ended is Ended.CRASH)
    await web.do(web.start())
    await web.answering()
    assert await recovered(web)
    assert await number(web) >= writer.said


async def test_an_agent_that_dies_at_any_moment_leaves_a_guest_that_writes(world: LocalWorld) -> None:
    web = Layered(world)
    await web.launch()
    writer, action = Writer(web), web.layer()
    await web.do(web.disk())
    order = web.order(action)
    for moment in range(6):
        async with writer.writing():
            await writer.more(2)
        async with asyncio.TaskGroup() as group:
            group.create_task(_give(web, order))
            await asyncio.sleep(0.05 * moment)
            await world.restart_agent()
        await web.answering()
    taken(await web.give(order), action)
    async with writer.writing():
        await writer.more(3)
    assert await number(web) >= writer.said


async def _give(cast: Layered, order: Order) -> None:
    with contextlib.suppress(HostAway):
        await cast.give(order)


async def test_who_stops_it_meanwhile_waits_for_its_end(world: LocalWorld) -> None:
    web = Layered(world)
    await web.launch()
    action = web.layer()
    await web.do(web.disk())
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(web.give(web.order(action)))
        await asyncio.sleep(0.05)
        stopping = group.create_task(web.give(web.order(web.stop(), generation=2)))
    taken(taking.result(), action)
    assert isinstance(stopping.result(), Done)
    assert isinstance(await web.give(web.order(web.start(), generation=3)), Done)
    await web.answering()
