"""Does what guests do, and what is done to QEMU, reach us as what it is?"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.drivers.qemu.hand import adopt, stop
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.seen import Seen
from innkeeper.drivers.qemu.serial import LOG_PART_BYTES, View, older, said_lately
from innkeeper.drivers.qemu.start import StartFailed, UefiFiles, start
from innkeeper.model.hardware import Firmware
from innkeeper.model.observed import Ended
from tests.vm.guests import PANIC, POWER_OFF, REBOOT, SLEEP, TOUCH_MEMORY, say, say_for_ever, wait_for_key_then
from tests.vm.machines import QEMU, Bench, bench, unable

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(unable() is not None, reason=str(unable())),
    pytest.mark.skipif(not QEMU.exists(), reason=f"{QEMU} is not installed"),
]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


async def seen_when(machine: Machine, what: str) -> Seen:
    async with asyncio.timeout(60):
        async for seen in machine.changes():
            if getattr(seen, what):
                return seen
    raise AssertionError(f"it ended without {what}")


async def test_a_guest_that_powers_itself_off(world: Bench) -> None:
    machine = await world.start(wait_for_key_then(say(b"good bye\r\n") + POWER_OFF))
    await view_of(machine).write(b"x")  # not before we look: one that ends as it starts was never started
    end = await machine.ended()
    assert (end.ended, end.reason) == (Ended.GUEST, "the guest shut itself down")
    assert said_lately(machine.directory.console_file) == b"good bye\r\n"


async def test_a_guest_that_powers_itself_off_while_nobody_looks(world: Bench) -> None:
    machine = await world.start(wait_for_key_then(POWER_OFF))
    await machine.close()
    line = machine.directory.connect("console")
    line.send(b"x")
    async with asyncio.timeout(60):
        while machine.directory.exit() is None:
            await asyncio.sleep(0.02)
    line.close()
    assert await adopt(world.directory, "web") is None
    again = machine.directory.exit()
    assert again is not None
    assert again.code == 0


async def test_a_panic_is_seen_and_the_guest_goes_on(world: Bench) -> None:
    machine = await world.start(wait_for_key_then(PANIC + say(b"still here")))
    view = view_of(machine)
    await view.write(b"x")  # QEMU tells it once, to who is there
    seen = await seen_when(machine, "panicked")
    assert seen.trouble == "the guest panicked"
    async with asyncio.timeout(30):
        heard = b""
        while b"still here" not in heard:
            heard += await view.read()
    assert seen.end is None


def view_of(machine: Machine) -> View:
    assert machine.console is not None
    return machine.console.view()


async def test_a_reboot_is_counted_and_is_no_end(world: Bench) -> None:
    machine = await world.start(REBOOT)
    async with asyncio.timeout(60):
        async for seen in machine.changes():
            assert seen.end is None
            if seen.resets >= 2:
                break


async def test_the_power_button_of_a_deaf_guest_and_then_force(world: Bench) -> None:
    machine = await world.start(SLEEP)
    end = await stop(machine, 0.4, "stopped by somebody")
    assert (end.ended, end.reason) == (Ended.ASKED, "stopped by somebody")


async def test_typing_reaches_the_guest_and_several_may_look(world: Bench) -> None:
    machine = await world.start(wait_for_key_then(say(b"thank you")))
    first, second = view_of(machine), view_of(machine)
    await first.write(b"x")
    for view in (first, second):
        heard = b""
        async with asyncio.timeout(30):
            while b"thank you" not in heard:
                heard += await view.read()
    await second.close()
    assert await second.read() == b""


async def test_a_flood_on_the_console_is_bounded_and_hurts_nobody(world: Bench) -> None:
    machine = await world.start(say_for_ever(ord("x")))
    log = machine.directory.console_file
    view = view_of(machine)
    async with asyncio.timeout(90):
        while not older(log).exists():
            await asyncio.sleep(0.1)
        await machine.monitor.pause()
    assert log.stat().st_size + older(log).stat().st_size <= 2 * LOG_PART_BYTES
    # Nobody read the view meanwhile; it kept a bounded part and says that it lost some.
    assert len(await view.read()) < LOG_PART_BYTES


async def test_a_console_that_nobody_reads_does_not_stop_the_guest(world: Bench) -> None:
    machine = await world.start(wait_for_key_then(say(b"y" * 3000) + POWER_OFF))
    await machine.close()
    line = machine.directory.connect("console")
    line.send(b"x")
    line.close()
    async with asyncio.timeout(60):
        while machine.directory.exit() is None:
            await asyncio.sleep(0.02)


async def test_bad_arguments_are_told_in_qemus_words(world: Bench) -> None:
    spec = world.spec()
    spec = replace(spec, hardware=replace(spec.hardware, cpu_model="nonsense"))
    with pytest.raises(StartFailed, match="unable to find CPU model 'nonsense'"):
        await start(spec, world.directory, world.launcher)


async def test_a_file_that_qemu_may_not_read_is_told_before(world: Bench) -> None:
    spec = world.spec()
    (world.place / "kernel").chmod(0o600)
    with pytest.raises(StartFailed, match="chmod o\\+r"):
        await start(spec, world.directory, world.launcher)


async def test_two_machines_cannot_have_one_disk(world: Bench) -> None:
    await world.start()
    other = world.place / "other"
    other.mkdir()
    with pytest.raises(StartFailed, match=r"[Ll]ock"):
        await start(world.spec(), other, world.launcher)


async def test_a_damaged_disk_is_told(world: Bench) -> None:
    spec = world.spec()
    (world.place / "top.qcow2").write_bytes(b"not an image" * 100)
    with pytest.raises(StartFailed, match="qcow2"):
        await start(spec, world.directory, world.launcher)


async def test_disks_go_round_the_page_cache_where_that_is_possible(world: Bench) -> None:
    machine = await world.start()
    assert direct(machine, "below.qcow2") is False
    try:
        os.close(os.open(world.place / "top.qcow2", os.O_RDWR | os.O_DIRECT))
    except OSError:
        pytest.skip("the file system of the temporary directory has no O_DIRECT")
    assert direct(machine, "top.qcow2") is True


async def test_a_file_system_without_o_direct_just_works(world: Bench, tmp_path: Path) -> None:
    spec = world.spec()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", without_o_direct)
        machine = world.holding(await start(spec, world.directory, world.launcher))
    assert direct(machine, "top.qcow2") is False


_open = os.open


def without_o_direct(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """As the kernel answers for such a file system. (None may be at hand to mount.)"""
    if flags & os.O_DIRECT:
        raise OSError(22, "Invalid argument")
    return _open(path, flags, mode, dir_fd=dir_fd)


def direct(machine: Machine, name: str) -> bool:
    held = Path(f"/proc/{machine.record.pid}/fd")
    numbers = [entry.name for entry in held.iterdir() if os.readlink(entry).endswith(name)]
    assert numbers
    told = [Path(f"/proc/{machine.record.pid}/fdinfo/{number}").read_text() for number in numbers]
    return all(int(text.split("flags:\t")[1].split()[0], 8) & os.O_DIRECT for text in told)


async def test_a_long_directory_is_no_hindrance(world: Bench) -> None:
    deep = world.place / ("x" * 120)
    deep.mkdir()
    machine = world.holding(await start(world.spec(), deep, world.launcher))
    assert len(str(deep / "qmp.sock")) > 107
    await machine.monitor.pause()
    await machine.close()
    again = await adopt(deep, "web")
    assert again is not None
    world.holding(again)
    assert again.seen.unreachable == ""


async def test_uefi_keeps_its_variables_for_the_machine(world: Bench) -> None:
    code, empty = Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
    if not code.exists() or not empty.exists():
        pytest.skip("the package ovmf is not installed")
    spec = world.spec()
    hardware = replace(spec.hardware, firmware=Firmware.UEFI, memory_mib=128)
    spec = replace(spec, hardware=hardware, boot=UefiFiles(code=code, variables=empty))
    machine = world.holding(await start(spec, world.directory, world.launcher))
    variables = world.directory / "uefi-variables.fd"
    async with asyncio.timeout(100):
        while variables.read_bytes() == empty.read_bytes():
            await asyncio.sleep(0.2)  # the firmware writes what it found into its own copy
    await stop(machine, 0)
    kept = variables.read_bytes()
    world.holding(await start(spec, world.directory, world.launcher))
    assert variables.read_bytes()[: len(kept) // 2] != empty.read_bytes()[: len(kept) // 2]


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A control group in which 48 MiB is all there is."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root, f"innkeeper-test-{os.getpid()}")
        try:
            group.mkdir()
        except OSError:
            continue  # that version of control groups is not here, or not ours to change
        if (group / limit).exists():
            (group / limit).write_text(str(48 << 20))
            yield group
            group.rmdir()
            return
        group.rmdir()
    pytest.skip("control groups for memory cannot be made here")


async def test_a_machine_that_the_kernel_killed_for_memory_says_so(world: Bench, small_memory: Path) -> None:
    machine = await world.start(wait_for_key_then(TOUCH_MEMORY))
    (small_memory / "cgroup.procs").write_text(str(machine.record.pid))
    await view_of(machine).write(b"x")
    end = await machine.ended()
    assert (end.ended, "OOM killer" in end.reason) == (Ended.CRASH, True), end.reason


DAEMON = """
    import asyncio, os, sys
    from pathlib import Path
    from tests.vm.machines import bench

    async def main():
        async with bench(Path(sys.argv[1])) as world:
            machine = await world.start()
            print(machine.record.pid, machine.record.launcher, flush=True)
            os.kill(os.getpid(), 9)

    asyncio.run(main())
"""


async def test_another_daemon_takes_over_from_one_that_was_killed(tmp_path: Path) -> None:
    program = [sys.executable, "-c", textwrap.dedent(DAEMON), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": "src:."}
    done = subprocess.run(program, env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    pid, launcher = map(int, done.stdout.split())
    async with bench(tmp_path) as world:
        machine = await adopt(world.directory, "web")
        assert machine is not None
        world.holding(machine)
        assert (machine.record.pid, machine.record.launcher) == (pid, launcher)
        assert machine.seen.unreachable == ""
        os.kill(pid, signal.SIGSEGV)
        end = await machine.ended()
        # The launcher of the daemon that is gone was still there to see it.
        assert "SIGSEGV" in end.reason
