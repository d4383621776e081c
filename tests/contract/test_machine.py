"""Do QEMU and the program that stands in for it agree, as far as our driver can tell?"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from innkeeper.drivers.qemu import fake
from innkeeper.drivers.qemu.hand import adopt, kill, stop, strays, why_ended
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.probe.version import probe_qemu
from innkeeper.drivers.qemu.process import start_time
from innkeeper.drivers.qemu.qmp import NoAnswer
from innkeeper.drivers.qemu.seen import Seen
from innkeeper.drivers.qemu.start import StartFailed, start
from innkeeper.model.observed import Ended, Phase
from tests.vm.machines import QEMU, UID, Bench, bench, unable

pytestmark = [pytest.mark.slow, pytest.mark.skipif(unable() is not None, reason=str(unable()))]


@pytest.fixture(params=["fake", pytest.param("qemu", marks=pytest.mark.vm)])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "qemu" and not QEMU.exists():
        pytest.skip(f"{QEMU} is not installed")
    binary = QEMU if request.param == "qemu" else fake.install(tmp_path / "fake-qemu")
    # The fake runs as root without its powers, since our Python may lie where nobody else can read.
    async with bench(tmp_path, binary, UID if request.param == "qemu" else 0) as made:
        yield made


async def seen_with(machine: Machine, phase: Phase) -> Seen:
    async with asyncio.timeout(30):
        async for seen in machine.changes():
            if seen.phase is phase:
                return seen
    raise AssertionError(f"it ended without having been {phase}")


async def test_it_says_its_version(world: Bench) -> None:
    facts = await probe_qemu(world.binary)
    assert facts.version >= (7, 2, 0)
    assert facts.machine_type.startswith("pc-q35-")


async def test_start_pause_resume_quit(world: Bench) -> None:
    machine = await world.start()
    assert why_ended(world.directory) is None
    await machine.monitor.pause()
    await seen_with(machine, Phase.PAUSED)
    await machine.monitor.pause()
    await machine.monitor.resume()
    await machine.monitor.resume()
    assert (await anext(machine.changes())).phase is not Phase.PAUSED
    await machine.monitor.quit()
    end = await machine.ended()
    assert (end.ended, end.at is not None) == (Ended.ASKED, True)
    with pytest.raises(NoAnswer):
        await machine.monitor.run()


async def test_stop_by_force_is_not_a_crash(world: Bench) -> None:
    machine = await world.start()
    end = await stop(machine, 0, "stopped by somebody")
    assert (end.ended, end.reason) == (Ended.ASKED, "stopped by somebody")
    assert machine.seen.phase is Phase.STOPPED
    assert why_ended(world.directory) == end
    assert await stop(machine, 10) == end


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
async def test_a_crash_is_told_with_its_signal(world: Bench, number: signal.Signals) -> None:
    machine = await world.start()
    os.kill(machine.record.pid, number)
    end = await machine.ended()
    assert end.ended is Ended.CRASH
    assert f"signal {number.value}" in end.reason
    assert machine.seen.phase is Phase.CRASHED


async def test_it_can_be_started_again_where_it_ended(world: Bench) -> None:
    first = await world.start()
    await kill(first)
    second = await world.start()
    assert second.record.pid != first.record.pid
    assert why_ended(world.directory) is None
    assert second.directory.asked() is None


async def test_adoption_finds_the_same_process_and_state(world: Bench) -> None:
    machine = await world.start()
    await machine.monitor.pause()
    await machine.close()
    again = await adopt(world.directory, "web")
    assert again is not None
    world.holding(again)
    assert again.record == machine.record
    assert again.seen.phase is Phase.PAUSED
    await again.monitor.resume()
    await stop(again, 0)
    assert await adopt(world.directory, "web") is None


async def test_adoption_without_a_record_goes_by_the_mark(world: Bench) -> None:
    machine = await world.start()
    await machine.close()
    machine.directory.record_file.unlink()
    assert [stray.pid for stray in strays(world.place, ())] == [machine.record.pid]
    assert strays(world.place, {machine.record.pid}) == []
    again = await adopt(world.directory, "web")
    assert again is not None
    world.holding(again)
    assert (again.record.pid, again.record.start_time) == (machine.record.pid, machine.record.start_time)


async def test_a_number_given_to_another_process_is_not_our_machine(world: Bench) -> None:
    machine = await world.start()
    await kill(machine)
    record = machine.directory.record_file
    record.write_text(record.read_text().replace(f'"pid": {machine.record.pid}', f'"pid": {os.getpid()}'))
    assert await adopt(world.directory, "web") is None
    assert why_ended(world.directory) is not None


async def test_an_earlier_uptime_of_the_host_is_told(world: Bench) -> None:
    machine = await world.start()
    await kill(machine)
    machine.directory.asked_file.unlink()
    record = machine.directory.record_file
    record.write_text(record.read_text().replace(machine.record.boot_id, "0" * 36))
    assert await adopt(world.directory, "web") is None
    end = why_ended(world.directory)
    assert end is not None
    assert end.ended is Ended.HOST_BOOT


async def test_one_that_hangs_is_found_and_told_and_can_be_killed(world: Bench) -> None:
    machine = await world.start()
    await machine.close()
    os.kill(machine.record.pid, signal.SIGSTOP)
    again = await adopt(world.directory, "web", timeout_s=0.5)
    assert again is not None
    world.holding(again)
    assert again.seen.phase is Phase.UNKNOWN
    assert str(machine.record.pid) in again.seen.unreachable
    with pytest.raises(NoAnswer):
        await again.monitor.pause()
    end = await stop(again, 0.1)
    assert end.ended is Ended.ASKED


async def test_one_that_hung_is_reached_again(world: Bench) -> None:
    machine = await world.start()
    await machine.close()
    os.kill(machine.record.pid, signal.SIGSTOP)
    again = await adopt(world.directory, "web", timeout_s=0.5)
    assert again is not None
    world.holding(again)
    os.kill(machine.record.pid, signal.SIGCONT)
    await again.attach(30)
    assert again.seen.unreachable == ""
    await again.monitor.pause()


async def test_a_second_daemon_is_told_that_the_line_is_taken(world: Bench) -> None:
    await world.start()
    second = await adopt(world.directory, "web", timeout_s=0.5)
    assert second is not None
    assert "cannot be asked" in second.seen.unreachable
    await second.close()


async def test_what_cannot_be_started_leaves_nothing_running(world: Bench, tmp_path: Path) -> None:
    spec = world.spec()
    (tmp_path / "below.qcow2").unlink()
    with pytest.raises(StartFailed, match=r"web could not be started: .*below\.qcow2"):
        await start(spec, world.directory, world.launcher)
    assert strays(world.place, ()) == []
    assert why_ended(world.directory) is None


async def test_a_machine_outlives_its_launcher(world: Bench) -> None:
    machine = await world.start()
    assert world.launcher.pid is not None
    os.kill(world.launcher.pid, signal.SIGKILL)
    while start_time(world.launcher.pid) is not None:
        await asyncio.sleep(0.01)
    await machine.monitor.pause()
    os.kill(machine.record.pid, signal.SIGSEGV)
    end = await machine.ended()
    assert end.ended is Ended.CRASH
    assert "nobody was there to see how" in end.reason
    again = await world.start()
    assert again.seen.phase is not Phase.UNKNOWN


async def test_a_launcher_that_was_let_go_still_tells_how_its_child_ended(world: Bench) -> None:
    machine = await world.start()
    world.launcher.close()
    os.kill(machine.record.pid, signal.SIGSEGV)
    end = await machine.ended()
    assert "SIGSEGV" in end.reason


async def test_a_launcher_ends_with_its_last_child(world: Bench) -> None:
    machine = await world.start()
    pid = machine.record.launcher
    world.launcher.close()
    await asyncio.sleep(0.1)
    assert start_time(pid) is not None
    await kill(machine)
    async with asyncio.timeout(10):
        while start_time(pid) is not None:
            await asyncio.sleep(0.01)
