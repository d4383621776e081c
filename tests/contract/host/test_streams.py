"""Lines into guests: commands, consoles and logs, in every world behind the host's seam."""

from __future__ import annotations

import asyncio

import pytest

from innkeeper.model.actions import ForgetMachine
from innkeeper.ports.host import NoLine
from innkeeper.ports.streams import Console, ExecRequest, Exited, Failed, Session, Stdout, StreamClosed
from tests.contract.host.world import Cast, World


def _command(*argv: str) -> ExecRequest:
    return ExecRequest(argv=argv, env={})


async def _collect(world: World, session: Session) -> tuple[bytes, Exited | Failed]:
    said = b""
    async with asyncio.timeout(world.stage.deadline_s):
        while not isinstance(event := await session.read(), Exited | Failed):
            said += event.data
    return said, event


async def test_a_command_says_something_and_ends(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    for argv, said, code in (
        (("echo", "two", "words"), b"two words\n", 0),
        (("true",), b"", 0),
        (("false",), b"", 1),
    ):
        session = await world.host.exec(cast.instance, _command(*argv))
        assert await _collect(world, session) == (said, Exited(code=code, signal=None))
        assert await session.read() == Exited(code=code, signal=None)  # and says so as often as asked
        await session.close()


async def test_a_command_reads_its_input(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    session = await world.host.exec(cast.instance, _command("cat"))
    await session.write(b"one\n")
    async with asyncio.timeout(world.stage.deadline_s):
        assert await session.read() == Stdout(b"one\n")
    await session.write(b"two\n")
    await session.eof()
    await session.eof()
    assert await _collect(world, session) == (b"two\n", Exited(code=0, signal=None))
    with pytest.raises(StreamClosed):
        await session.write(b"three\n")


async def test_a_command_can_be_signalled(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    session = await world.host.exec(cast.instance, _command("sleep", "600"))
    await session.signal(15)
    assert await _collect(world, session) == (b"", Exited(code=None, signal=15))


async def test_an_unknown_command_fails(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    session = await world.host.exec(cast.instance, _command("no-such-command"))
    _, end = await _collect(world, session)
    assert isinstance(end, Failed)
    assert "no-such-command" in end.reason


async def test_a_closed_session_tells_so(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    session = await world.host.exec(cast.instance, _command("sleep", "600"))
    await session.close()
    await session.close()
    _, end = await _collect(world, session)
    assert isinstance(end, Failed)


async def test_a_session_ends_with_its_machine(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    session = await world.host.exec(cast.instance, _command("sleep", "600"))
    await cast.do(cast.stop())
    _, end = await _collect(world, session)
    assert isinstance(end, Failed)


async def test_there_is_no_line_into_what_does_not_run(world: World) -> None:
    cast = Cast(world)
    await cast.prepare()
    with pytest.raises(NoLine, match="not run"):
        await world.host.exec(cast.instance, _command("true"))
    with pytest.raises(NoLine, match="not run"):
        await world.host.console(cast.instance)
    await cast.do(cast.start())
    with pytest.raises(NoLine):  # QEMU runs, but nothing in the guest answers yet
        await world.host.exec(cast.instance, _command("true"))


async def _heard(world: World, console: Console, least: int = 1) -> bytes:
    said = b""
    async with asyncio.timeout(world.stage.deadline_s):
        while len(said) < least:
            data = await console.read()
            assert data, "the console ended"
            said += data
    return said


async def _rest(world: World, console: Console) -> bytes:
    said = b""
    async with asyncio.timeout(world.stage.deadline_s):
        while data := await console.read():
            said += data
    return said


async def test_a_console_shows_what_was_said_and_goes_on(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    first, second = await world.host.console(cast.instance), await world.host.console(cast.instance)
    assert await _heard(world, first)
    assert await _heard(world, second)
    await first.write(b"\n")
    assert await _heard(world, first)
    assert await _heard(world, second)  # who looks on sees the same
    await second.close()
    await second.close()
    await _rest(world, second)
    await first.write(b"\n")
    assert await _heard(world, first)
    assert await _rest(world, second) == b""  # who looks away hears no more
    await cast.do(cast.stop())
    await _rest(world, first)
    assert await first.read() == b""
    with pytest.raises(StreamClosed):
        await first.write(b"\n")


async def test_the_log_outlives_the_machine(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    live = await world.host.log(cast.instance)
    assert live
    await cast.do(cast.stop())
    assert len(await world.host.log(cast.instance)) >= len(live)
    await world.restart_agent()
    assert len(await world.host.log(cast.instance)) >= len(live)
    await cast.do(ForgetMachine(instance=cast.instance))
    with pytest.raises(NoLine):
        await world.host.log(cast.instance)
