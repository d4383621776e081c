"""What only the real program has: processes, users, directories, and their ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from innkeeper.drivers.guestlink.hand import GuestLink
from innkeeper.ports.streams import CloudInit, ExecRequest, Exited, Failed, Pty
from tests.guest.channel import (
    PATIENCE_S,
    Channel,
    children,
    cpu_ticks,
    descriptors,
    fill,
    finish,
    linked,
    read_until,
    request,
    resident_kib,
    run,
    until,
)

pytestmark = pytest.mark.slow

OK = Exited(code=0, signal=None)
PTY = Pty(rows=31, cols=97)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def alive(pid: int) -> bool:
    """A zombie that nobody reaped is dead: orphans of these tests go to whatever is process 1 here."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_output_and_errors_come_apart(link: GuestLink) -> None:
    result = await run(link, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.out, result.err, result.code) == (b"out\n", b"err\n", 7)


async def test_death_by_signal_is_told_as_such(link: GuestLink) -> None:
    assert (await run(link, "sh", "-c", "kill -9 $$")).end == Exited(code=None, signal=signal.SIGKILL)


async def test_a_signal_reaches_the_whole_group(link: GuestLink) -> None:
    session = await link.open(request("sh", "-c", "sleep 1000 & echo $!; wait"))
    sleeper = int(await read_until(session, b"\n"))
    await session.signal(signal.SIGTERM)
    await until(lambda: not alive(sleeper))
    assert (await finish(session)).end == Exited(code=None, signal=signal.SIGTERM)


async def test_the_environment(link: GuestLink) -> None:
    order = ExecRequest(argv=("env",), env={"FROM": "the host=here", "PATH": "/usr/bin:/bin"}, user="root")
    words = (await finish(await link.open(order))).out.decode().splitlines()
    assert sorted(words) == sorted(
        ["HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash", "FROM=the host=here", "PATH=/usr/bin:/bin"]
    )


async def test_directories(link: GuestLink) -> None:
    there = await finish(await link.open(request("pwd", cwd="/usr/bin")))
    assert there.out == b"/usr/bin\n"
    assert (await run(link, "pwd")).out.decode().strip() == os.path.expanduser("~")
    missing = await finish(await link.open(request("pwd", cwd="/not/there")))
    assert missing.end == Failed("cannot go to directory /not/there: No such file or directory")


@as_root
async def test_becoming_another_user(link: GuestLink) -> None:
    result = await run(link, "sh", "-c", "id -u; id -g; id -G; pwd; echo $HOME $USER", user="nobody")
    lines = result.out.decode().splitlines()
    assert lines[0] == "65534"
    assert "0" not in lines[1:3]
    assert lines[3] == "/"  # its home does not exist
    assert lines[4] == "/nonexistent nobody"
    refused = await run(link, "cat", "/etc/shadow", user="nobody")
    assert (refused.code, b"denied" in refused.err) == (1, True)


async def test_no_such_user(link: GuestLink) -> None:
    assert "no such user: stranger" in str((await run(link, "true", user="stranger")).end)


async def test_why_a_command_does_not_start(link: GuestLink, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/not/there\n")
    assert "cannot run" in str((await run(link, str(script))).end)
    script.chmod(0o755)
    assert "interpreter or loader is missing" in str((await run(link, str(script))).end)
    assert "Permission denied" in str((await run(link, "/etc")).end)


async def test_a_terminal_and_its_size(link: GuestLink, channel: Channel) -> None:
    session = await link.open(request("sh", "-c", "stty size; tty; read line; stty size; echo $TERM", pty=PTY))
    assert b"31 97\r\n/dev/pts/" in await read_until(session, b"/pts/")
    await session.resize(44, 133)
    await session.write(b"\n")
    result = await finish(session)
    assert re.search(rb"44 133\r\nxterm-256color\r\n$", result.out)
    assert (result.err, result.end) == (b"", OK)


async def test_keys_of_a_terminal_reach_the_command_in_front(link: GuestLink) -> None:
    session = await link.open(request("sh", "-c", "trap 'echo caught' INT; echo ready; read line; echo over", pty=PTY))
    await read_until(session, b"ready")
    await session.write(b"\x03")
    await read_until(session, b"caught")
    await session.eof()
    assert (await finish(session)).end == OK


async def test_a_resize_is_told_to_the_command(link: GuestLink) -> None:
    script = "trap 'stty size' WINCH; echo ready; while ! read -t 0.1 line; do :; done"
    session = await link.open(request("bash", "-c", script, pty=PTY))
    await read_until(session, b"ready")
    await session.resize(20, 30)
    assert b"20 30" in await read_until(session, b"20 30")
    await session.write(b"\n")
    assert (await finish(session)).end == OK


async def test_a_login_shell(link: GuestLink) -> None:
    session = await link.open(request(user="root"))
    await session.write(b"echo $0; shopt -q login_shell && echo login; exit 3\n")
    await session.eof()
    result = await finish(session)
    assert (result.out, result.code) == (b"-bash\nlogin\n", 3)


async def test_output_just_before_the_end_is_not_lost(link: GuestLink) -> None:
    for _ in range(20):
        result = await run(link, "head", "-c", "300000", "/dev/zero")
        assert (len(result.out), result.end) == (300000, OK)


async def test_output_that_is_read_late_is_not_lost(link: GuestLink) -> None:
    session = await link.open(request("head", "-c", "320000", "/dev/zero"))
    await asyncio.sleep(1)  # longer than the grace that its relatives have
    result = await finish(session)
    assert (len(result.out), result.end) == (320000, OK)


async def test_a_relative_that_holds_the_output_does_not_hold_the_end(link: GuestLink) -> None:
    result = await run(link, "sh", "-c", "sleep 1000 & echo $!")
    assert result.end == OK
    sleeper = int(result.out)
    assert alive(sleeper)  # as after ssh: what was put into the background goes on
    os.kill(sleeper, signal.SIGKILL)


async def test_a_relative_that_talks_for_ever_does_not_hold_the_end(link: GuestLink) -> None:
    result = await run(link, "sh", "-c", "trap '' PIPE; yes & echo $!")
    assert result.end == OK
    assert result.out.startswith(b"y") or result.out.split()[0].isdigit()


async def test_a_relative_may_speak_shortly_after(link: GuestLink) -> None:
    assert (await run(link, "sh", "-c", "(sleep 0.05; echo late) & echo early")).out == b"early\nlate\n"


async def test_a_command_that_closed_its_input_does_not_hold_the_writer(link: GuestLink) -> None:
    session = await link.open(request("sh", "-c", "exec <&-; echo shut; sleep 0.5"))
    await read_until(session, b"shut")
    await session.write(bytes(1 << 20))
    assert (await finish(session)).end == OK


async def test_a_writer_is_freed_by_the_end(link: GuestLink) -> None:
    session = await link.open(request("sleep", "0.1"))
    async with asyncio.timeout(PATIENCE_S):
        await fill(session, bytes(8 << 20))
    assert (await finish(session)).end == OK


async def test_close_hangs_up_and_then_kills(link: GuestLink, channel: Channel) -> None:
    obedient = await link.open(request("sh", "-c", "trap 'exit 0' HUP; echo $$; while :; do sleep 0.1; done"))
    stubborn = await link.open(request("sh", "-c", "trap '' HUP TERM; echo $$; while :; do sleep 0.1; done"))
    pids = [int(await read_until(session, b"\n")) for session in (obedient, stubborn)]
    await obedient.close()
    await stubborn.close()
    await until(lambda: not any(map(alive, pids)))
    await until(lambda: not children(channel.pid))


async def test_a_new_host_ends_the_sessions_of_the_old(channel: Channel) -> None:
    async with linked(channel.path) as old:
        session = await old.open(request("sh", "-c", "sleep 1000 & echo $!; wait"))
        sleeper = int(await read_until(session, b"\n"))
    assert alive(sleeper)  # nothing tells the program that a host left
    async with linked(channel.path) as new:
        await until(lambda: not alive(sleeper))
        assert (await run(new, "echo", "new")).out == b"new\n"


async def test_nothing_is_left_over_after_many_commands(link: GuestLink, channel: Channel) -> None:
    await run(link, "true")
    before = descriptors(channel.pid)
    for _ in range(20):
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                terminal = PTY if number % 5 == 0 else None
                words = ("no-such-thing",) if number % 7 == 3 else ("true",)
                group.create_task(finish(await link.open(request(*words, pty=terminal))))
    await until(lambda: not children(channel.pid))
    assert descriptors(channel.pid) == before


async def test_a_command_inherits_only_its_own_descriptors(link: GuestLink) -> None:
    held = await link.open(request("cat"))
    # The fourth is the listing's own.
    assert (await run(link, "ls", "/proc/self/fd")).out.split() == [b"0", b"1", b"2", b"3"]
    await held.close()


async def test_a_command_gets_ordinary_signals(link: GuestLink) -> None:
    words = (await run(link, "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")).out.split()
    # 32 and 33 belong to the C library, which lets nobody change them: they are as who runs these tests left them.
    library = 1 << 31 | 1 << 32
    assert [int(mask, 16) & ~library for mask in words[1::2]] == [0, 0]


async def test_waiting_costs_nothing(link: GuestLink, channel: Channel) -> None:
    """Ended pipes, unread output and a closed input are the conditions that make a careless loop spin."""
    stuck = await link.open(request("sh", "-c", "exec <&-; head -c 400000 /dev/zero; exec >&- 2>&-; sleep 1000"))
    silent = await link.open(request("sh", "-c", "exec >&- 2>&- <&-; sleep 1000"))
    await stuck.write(b"unread")
    await asyncio.sleep(0.3)
    before = cpu_ticks(channel.pid)
    await asyncio.sleep(1.0)
    assert cpu_ticks(channel.pid) - before <= 5  # a loop that spins would have used a hundred
    await stuck.close()
    await silent.close()


async def test_memory_stays_small(plain: str, socket_path: str) -> None:
    async with Channel.running(plain, socket_path) as channel, linked(socket_path) as link:
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(run(link, "cat", stdin=bytes(1 << 20)))
        assert resident_kib(channel.pid) <= 1536 + 8 * 128  # eight windows of input were in use


async def test_an_idle_program_is_small(plain: str, socket_path: str) -> None:
    async with Channel.running(plain, socket_path) as channel, linked(socket_path) as link:
        await run(link, "true")
        await link.status()
        assert resident_kib(channel.pid) <= 1536


async def test_status_is_this_machine(link: GuestLink) -> None:
    status = await link.status()
    assert status.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert status.hostname == os.uname().nodename
    assert status.kernel == os.uname().release
    assert status.memory_total_kib is not None
    assert status.memory_available_kib is not None
    assert 0 < status.memory_available_kib < status.memory_total_kib
    assert status.root_total_bytes is not None
    assert status.root_used_bytes is not None
    assert 0 < status.root_used_bytes < status.root_total_bytes
    assert status.load is not None
    assert "lo" not in {nic.name for nic in status.nics}
    if not Path("/run/cloud-init").exists() and not Path("/var/lib/cloud").exists():
        assert status.cloud_init is CloudInit.NONE
