"""What every guest keeps, the real program and the fake: the promises of ports.streams.Session."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from innkeeper.drivers.guestlink.connection import WINDOW
from innkeeper.drivers.guestlink.frames import Feature
from innkeeper.drivers.guestlink.hand import ExecSession, GuestLink
from innkeeper.drivers.guestlink.line import LinkDown
from innkeeper.ports.streams import CloudInit, Exited, Failed, Session, Stdout, StreamClosed
from tests.guest.channel import PATIENCE_S, Result, fill, finish, linked, read_until, request, run

pytestmark = pytest.mark.slow

OK = Exited(code=0, signal=None)


async def test_a_command_answers(any_link: GuestLink) -> None:
    assert await run(any_link, "echo", "good", "morning") == Result(b"good morning\n", b"", OK)


async def test_exit_codes(any_link: GuestLink) -> None:
    assert (await run(any_link, "true")).code == 0
    assert (await run(any_link, "false")).code == 1


async def test_input_goes_in_and_ends(any_link: GuestLink) -> None:
    assert await run(any_link, "cat", stdin=b"\x00\xffIK" * 100) == Result(b"\x00\xffIK" * 100, b"", OK)


async def test_a_signal_ends_a_command(any_link: GuestLink) -> None:
    session = await any_link.open(request("cat"))
    await session.write(b"up")
    await read_until(session, b"up")
    await session.signal(signal.SIGTERM)
    assert (await finish(session)).end == Exited(code=None, signal=signal.SIGTERM)


async def test_a_missing_command_fails_with_its_name(any_link: GuestLink) -> None:
    end = (await run(any_link, "no-such-thing")).end
    assert end == Failed("no such command: no-such-thing")


async def test_the_end_is_told_again(any_link: GuestLink) -> None:
    session = await any_link.open(request("true"))
    assert [(await finish(session)).end for _ in range(3)] == [OK] * 3


async def test_input_after_the_end_is_refused(any_link: GuestLink) -> None:
    session = await any_link.open(request("true"))
    await finish(session)
    with pytest.raises(StreamClosed, match="exited with 0"):
        await session.write(b"late")
    await session.eof()
    await session.signal(signal.SIGTERM)
    await session.resize(1, 1)
    await session.close()


async def test_much_data_both_ways_beside_a_stream_that_nobody_reads(any_link: GuestLink) -> None:
    data = os.urandom(1 << 20) * 10
    stuck = await any_link.open(request("cat"))
    async with asyncio.TaskGroup() as group:
        # More than its windows and pipes hold: this write cannot end while nobody reads.
        stuffing = group.create_task(fill(stuck, data))
        moving = await any_link.open(request("cat"))
        group.create_task(fill(moving, data))
        moved = await finish(moving)
        assert (moved.end, moved.out == data) == (OK, True)
        assert not stuffing.done()
        # Nothing was lost to the one that had to wait.
        late = await finish(stuck)
        assert (late.end, late.out == data) == (OK, True)


async def test_what_an_unread_stream_may_cost_is_its_window(any_link: GuestLink) -> None:
    session = await any_link.open(request("cat"))
    async with asyncio.TaskGroup() as group:
        group.create_task(fill(session, bytes(4 * WINDOW)))
        first = await session.read()
        # Other traffic shows that all that could come has come.
        for _ in range(20):
            await run(any_link, "true")
        held = 0
        while session._output:
            event = await session.read()
            assert isinstance(event, Stdout)
            held += len(event.data)
            if held > WINDOW:
                break
        assert isinstance(first, Stdout)
        assert held <= WINDOW
        await finish(session)


async def test_many_sessions_at_once(any_link: GuestLink) -> None:
    async def one(number: int) -> None:
        data = str(number).encode() * 5000
        assert await run(any_link, "cat", stdin=data) == Result(data, b"", OK)

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(one(number))


async def test_too_many_sessions_are_told_so(any_link: GuestLink) -> None:
    most = (await any_link.hello(1)).sessions_max
    held = [await any_link.open(request("cat")) for _ in range(most)]
    assert "as many sessions as it can" in str((await run(any_link, "true")).end)
    await held[0].eof()
    assert (await finish(held[0])).end == OK
    assert (await run(any_link, "true")).end == OK


async def test_a_cancelled_read_loses_nothing(any_link: GuestLink) -> None:
    session = await any_link.open(request("cat"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await session.read()
    await session.write(b"kept")
    await session.eof()
    assert (await finish(session)).out == b"kept"


async def test_a_cancelled_write_leaves_the_session_usable(any_link: GuestLink) -> None:
    session = await any_link.open(request("cat"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await session.write(b"x" * (16 << 20))
    await session.eof()
    result = await finish(session)
    assert result.end == OK
    assert set(result.out) == {ord("x")}


async def test_a_closed_session_tells_failed_and_the_link_lives(any_link: GuestLink) -> None:
    session = await any_link.open(request("cat"))
    await session.close()
    await session.close()
    assert "closed from this side" in str(await session.read())
    with pytest.raises(StreamClosed):
        await session.write(b"late")
    assert (await run(any_link, "true")).end == OK


async def test_closing_the_link_fails_every_session(any_link: GuestLink) -> None:
    sessions = [await any_link.open(request("cat")) for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(sessions[0].read())
        await asyncio.sleep(0)
        await any_link.close()
        assert "closed from this side" in str(await waiting)
    for session in sessions:
        assert isinstance(await session.read(), Failed)
    assert any_link.down is not None
    with pytest.raises(LinkDown, match="closed from this side"):
        await any_link.open(request("true"))
    with pytest.raises(LinkDown, match="closed from this side"):
        await any_link.status()
    with pytest.raises(LinkDown, match="closed from this side"):
        await any_link.hello(1)


async def test_the_next_client_is_served_when_the_first_left(any_path: str) -> None:
    async with linked(any_path) as first:
        await first.open(request("cat"))
        second = await GuestLink.connect(any_path, PATIENCE_S)
        with pytest.raises(LinkDown, match=r"within 0\.1 s"):
            await second.hello(0.1)
        with pytest.raises(LinkDown, match=r"took no order within 0\.1 s"):
            await second.open(request("true"), timeout_s=0.1)
    assert (await second.hello(PATIENCE_S)).features & Feature.EXEC
    assert (await run(second, "echo", "mine")).out == b"mine\n"
    await second.close()


async def test_status(any_link: GuestLink) -> None:
    status = await any_link.status()
    assert status.hostname
    assert status.uptime_s is not None
    assert status.cloud_init in set(CloudInit)


async def test_what_cannot_be_sent_fails_with_the_reason(any_link: GuestLink) -> None:
    assert "at most" in str((await run(any_link, "echo", "x" * 40000)).end)
    assert "zero byte" in str((await run(any_link, "echo", "a\0b")).end)
    assert "empty name" in str((await run(any_link, "")).end)


async def test_nobody_listens(socket_path: str) -> None:
    with pytest.raises(LinkDown, match="cannot reach the guest's channel"):
        await GuestLink.connect(socket_path, 5)


def test_the_hand_fulfils_the_port(any_link: GuestLink) -> None:
    def seen_by_the_house(session: Session) -> Session:
        return session

    assert seen_by_the_house(ExecSession(any_link._line, 0)) is not None
