"""What does a program have that the launcher started, and what is known of its end?"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from innkeeper.drivers.confine.hand import Launcher
from innkeeper.drivers.qemu.process import gone, hold, start_time
from innkeeper.ports.launcher import LauncherGone, Namespace, Spawned, SpawnFailed, SpawnRequest, Users
from tests.vm.machines import unable

pytestmark = [pytest.mark.slow, pytest.mark.skipif(unable() is not None, reason=str(unable()))]

UID = Users(0).of_slot(7)
TOLD = (
    "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|SigIgn)' /proc/self/status; umask; pwd; ulimit -c; ulimit -n;"
    "cat /proc/self/oom_score_adj; ls /proc/self/fd | tr '\\n' ' '; grep -c : /proc/net/dev; env | sort"
)


@dataclass
class Place:
    path: Path
    launcher: Launcher
    log: int

    def request(self, script: str, name: str = "one", descriptors: tuple[int, ...] = ()) -> SpawnRequest:
        return SpawnRequest(
            argv=("/bin/sh", "-c", script),
            descriptors=descriptors,
            log=self.log,
            uid=UID,
            gid=UID,
            record=str(self.path / f"{name}.json"),
            exit_file=str(self.path / f"{name}.exit"),
            note={"whose": name},
        )

    async def run(self, script: str, name: str = "one") -> Spawned:
        return await self.launcher.spawn(self.request(script, name))

    async def end(self, name: str = "one") -> dict[str, object]:
        async with asyncio.timeout(20):
            while not (self.path / f"{name}.exit").exists():
                await asyncio.sleep(0.01)
        found: dict[str, object] = json.loads((self.path / f"{name}.exit").read_text())
        return found

    def said(self) -> str:
        return (self.path / "log").read_text()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    launcher = Launcher(tmp_path / "launcher.log")
    log = os.open(tmp_path / "log", os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    yield Place(tmp_path, launcher, log)
    launcher.close()
    os.close(log)


async def until_gone(spawned: Spawned) -> None:
    held = hold(spawned.pid, spawned.start_time)
    if held is not None:
        assert await gone(held, 20)
        os.close(held)


async def test_a_program_has_nothing_but_what_it_was_given(place: Place, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("by descriptor")
    given = os.open(tmp_path / "given", os.O_RDONLY)
    secret = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        await place.launcher.spawn(place.request(TOLD + "; cat <&3", descriptors=(given,)))
        await place.end()
    finally:
        os.close(given)
        os.close(secret)
    lines = place.said().splitlines()
    status = dict(line.split(":\t") for line in lines if ":\t" in line)
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (status["Uid"], status["Gid"]) == ("\t".join([str(UID)] * 4),) * 2
    assert (status["Groups"].strip(), status["NoNewPrivs"]) == ("", "1")
    rest = [line for line in lines if ":\t" not in line]
    # The list of descriptors has one more, for the directory that is listed; the one network device is a loopback.
    assert rest[:6] == ["0077", "/", "0", "4096", "300", "0 1 2 3 4 1"]
    assert rest[6:] == [
        f"INNKEEPER_RECORD={tmp_path}/one.json",
        "LANG=C.UTF-8",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "PWD=/",
        "by descriptor",
    ]


async def test_it_has_the_groups_that_were_asked_for(place: Place) -> None:
    await place.launcher.spawn(replace(place.request("id -G"), groups=(4711, 4712)))
    await place.end()
    assert place.said().split() == [str(UID), "4711", "4712"]


async def test_namespaces_are_its_own_or_shared_as_asked(place: Place) -> None:
    script = "readlink /proc/self/ns/net /proc/self/ns/ipc /proc/self/ns/uts"
    await place.launcher.spawn(replace(place.request(script), namespaces=(Namespace.IPC,)))
    await place.end()
    net, ipc, uts = place.said().split()
    assert (net, uts) == (os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/uts"))
    assert ipc != os.readlink("/proc/self/ns/ipc")


async def test_the_record_stands_before_the_answer_comes(place: Place) -> None:
    spawned = await place.run("exec sleep 60")
    record = json.loads((place.path / "one.json").read_text())
    assert record == {
        "whose": "one",
        "pid": spawned.pid,
        "start_time": spawned.start_time,
        "launcher": place.launcher.pid,
    }
    assert start_time(spawned.pid) == spawned.start_time
    os.kill(spawned.pid, signal.SIGKILL)
    await place.end()


@pytest.mark.parametrize("script,code,number", [("exit 0", 0, None), ("exit 3", 3, None), ("kill -SEGV $$", None, 11)])
async def test_an_end_is_written_down(place: Place, script: str, code: int | None, number: int | None) -> None:
    spawned = await place.run(script)
    end = await place.end()
    assert (end["code"], end["signal"], end["pid"], end["start_time"]) == (
        code,
        number,
        spawned.pid,
        spawned.start_time,
    )


@pytest.mark.parametrize(
    "change,words",
    [
        ({"argv": ("/does/not/exist",)}, "cannot run /does/not/exist: No such file or directory"),
        ({"argv": ("/etc/passwd",)}, "cannot run /etc/passwd: Permission denied"),
        ({"cgroups": ("/does/not/exist",)}, "cannot enter control group /does/not/exist: No such file"),
        ({"record": "/does/not/exist"}, "No such file or directory: '/does/not/exist.new'"),
        ({"exit_file": "/does/not/exist"}, "No such file or directory: '/does/not/exist.new'"),
    ],
)
async def test_what_cannot_run_is_told_exactly(place: Place, change: dict[str, object], words: str) -> None:
    with pytest.raises(SpawnFailed, match=words):
        await place.launcher.spawn(replace(place.request("sleep 60"), **change))  # type: ignore[arg-type]
    children = Path(f"/proc/{place.launcher.pid}/task/{place.launcher.pid}/children")
    assert children.read_text() == ""
    await place.run("exit 7", "next")
    assert (await place.end("next"))["code"] == 7


async def test_failures_leave_no_descriptors_in_the_launcher(place: Place) -> None:
    await place.launcher.start()
    before = len(os.listdir(f"/proc/{place.launcher.pid}/fd"))
    request = place.request("true")
    for wrong in (replace(request, argv=("/no",)), replace(request, record="/n/o"), replace(request, exit_file="/n/o")):
        with pytest.raises(SpawnFailed):
            await place.launcher.spawn(wrong)
    for number in range(5):
        await place.run("true", f"n{number}")
        await place.end(f"n{number}")
    async with asyncio.timeout(10):
        while len(os.listdir(f"/proc/{place.launcher.pid}/fd")) != before:
            await asyncio.sleep(0.01)


async def test_many_at_once_get_each_its_own(place: Place) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(place.run(f"exit {number}", f"n{number}")) for number in range(40)]
    assert len({task.result().pid for task in tasks}) == 40
    for number in range(40):
        assert (await place.end(f"n{number}"))["code"] == number


async def test_a_child_whose_place_was_removed_does_not_trouble_the_others(place: Place) -> None:
    (place.path / "gone").mkdir()
    request = replace(place.request("exec sleep 60"), exit_file=str(place.path / "gone" / "exit"))
    spawned = await place.launcher.spawn(request)
    (place.path / "gone" / "exit.new").unlink()
    (place.path / "gone").rmdir()
    os.kill(spawned.pid, signal.SIGKILL)
    await until_gone(spawned)
    await place.run("exit 5", "next")
    assert (await place.end("next"))["code"] == 5


async def test_a_dead_launcher_is_noticed_and_replaced(place: Place) -> None:
    await place.launcher.start()
    first = place.launcher.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    async with asyncio.TaskGroup() as group:
        lost = group.create_task(fails(place))
        await asyncio.sleep(0.05)
        os.kill(first, signal.SIGKILL)
    assert isinstance(lost.result(), LauncherGone)
    await place.run("exit 0", "next")
    assert place.launcher.pid != first


async def test_a_daemon_that_dies_with_an_answer_unread_takes_nobody_along(place: Place) -> None:
    first = await place.run("exec sleep 60", "first")
    launcher = place.launcher.pid
    assert launcher is not None
    os.kill(launcher, signal.SIGSTOP)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(fails(place, "exec sleep 60"))
        await asyncio.sleep(0.05)
        os.kill(launcher, signal.SIGCONT)
        # As the dead do, we hear nothing any more: no loop runs until the line is closed.
        for _ in range(2000):
            if (place.path / "lost.json").exists():
                break
            time.sleep(0.01)
        time.sleep(0.5)
        place.launcher.close()
    assert isinstance(asked.result(), LauncherGone)
    second = json.loads((place.path / "lost.json").read_text())
    for pid, name in ((first.pid, "first"), (second["pid"], "lost")):
        os.kill(pid, signal.SIGTERM)
        assert (await place.end(name))["signal"] == signal.SIGTERM


async def fails(place: Place, script: str = "exit 0") -> Exception | None:
    try:
        await place.run(script, "lost")
    except LauncherGone as error:
        return error
    return None


async def test_signals_of_our_terminal_do_not_reach_it(place: Place) -> None:
    spawned = await place.run("exec sleep 60")
    assert place.launcher.pid is not None
    for pid in (place.launcher.pid, spawned.pid):
        assert os.getsid(pid) == pid != os.getsid(0)
    os.kill(place.launcher.pid, signal.SIGINT)
    os.kill(place.launcher.pid, signal.SIGHUP)
    os.kill(spawned.pid, signal.SIGTERM)
    assert (await place.end())["signal"] == signal.SIGTERM
