"""Bad luck of machines: QEMU killed, hanging, out of memory; guests that leave by themselves."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.installation.house import House
from tests.vm.installation.traces import assert_tidy

_MEMORY = Path("/sys/fs/cgroup/memory")  # version 1, as this test writes it


def test_a_killed_qemu_is_a_crash_and_can_be_started_again(house: House) -> None:
    house.launch("crash")
    os.kill(house.pid("crash"), signal.SIGKILL)
    shown = house.seen("crash", "crashed")
    assert "signal 9" in shown["reason"]
    assert shown["agent"] is False
    settled = time.monotonic() + 60
    while house.show("crash")["wanted"] != "stopped" and time.monotonic() < settled:
        time.sleep(0.1)
    assert_tidy(house)
    assert b"login:" in house.inn("logs", "crash").stdout
    assert b"crashed" in house.inn("list").stdout
    house.power("crash", "start")
    assert house.until("crash", "agent")["reason"] == ""
    house.remove("crash")
    assert_tidy(house)


def test_a_guest_that_leaves_is_stopped_with_its_reason(house: House) -> None:
    house.launch("leaves")
    house.inn("exec", "leaves", "--", "poweroff")
    shown = house.seen("leaves", "stopped")
    assert shown["reason"] == "the guest shut itself down"
    house.remove("leaves")
    assert_tidy(house)


def test_an_ephemeral_one_that_leaves_is_deleted(house: House) -> None:
    house.launch("mayfly", ephemeral=True)
    house.inn("exec", "mayfly", "--", "poweroff")
    assert house.until("mayfly", "deleted") is None
    assert_tidy(house)


def test_an_ephemeral_one_that_is_killed_is_deleted(house: House) -> None:
    house.launch("mayfly", ephemeral=True)
    os.kill(house.pid("mayfly"), signal.SIGKILL)
    assert house.until("mayfly", "deleted") is None
    assert_tidy(house)


def test_a_qemu_that_hangs_is_stopped_by_force(house: House) -> None:
    house.launch("hangs")
    os.kill(house.pid("hangs"), signal.SIGSTOP)
    house.kill()
    house.start()
    shown = house.show("hangs")
    assert "cannot be asked" in shown["reason"], shown
    house.power("hangs", "stop", force=True)
    assert house.show("hangs")["status"] == "stopped"
    house.remove("hangs")
    assert_tidy(house)


def test_a_qemu_that_hangs_is_seen_to_hang(house: House) -> None:
    """Also by a daemon that has long been speaking with it."""
    house.launch("stands")
    house.until("stands", "agent")
    os.kill(house.pid("stands"), signal.SIGSTOP)
    assert "cannot be asked" in house.seen("stands", "unknown")["reason"]
    os.kill(house.pid("stands"), signal.SIGCONT)
    assert house.seen("stands", "running")["reason"] == ""
    house.remove("stands")
    assert_tidy(house)


def test_a_qemu_that_hung_for_a_while_is_itself_again(house: House) -> None:
    """Found again while it hung, it is asked again by and by."""
    house.launch("dozes")
    pid = house.pid("dozes")
    os.kill(pid, signal.SIGSTOP)
    house.kill()
    house.start()
    assert "cannot be asked" in house.show("dozes")["reason"]
    os.kill(pid, signal.SIGCONT)
    house.seen("dozes", "running")
    house.until("dozes", "agent")
    assert house.show("dozes")["reason"] == ""
    assert house.said_in("dozes", "echo", "here") == "here"
    house.remove("dozes")
    assert_tidy(house)


@contextlib.contextmanager
def _tight(pid: int) -> Iterator[None]:
    """A group in which memory runs out as soon as its process wants more."""
    group = _MEMORY / f"innkeeper-test-{pid}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "memory.limit_in_bytes").write_text(str(8 * 1024 * 1024))
        yield
    finally:
        until = time.monotonic() + 20
        while (group / "cgroup.procs").read_text() and time.monotonic() < until:
            time.sleep(0.1)
        for left in (group / "cgroup.procs").read_text().split():
            (_MEMORY / "cgroup.procs").write_text(left)
        group.rmdir()


@pytest.mark.skipif(not (_MEMORY / "memory.oom_control").exists(), reason="no memory control groups of version 1 here")
def test_the_oom_killer_is_named(house: House) -> None:
    # Much more than a boot touches: huge pages may have given the guest most of a small memory before it was asked for.
    house.launch("greedy", memory_mib=1024)
    with _tight(house.pid("greedy")):
        house.inn("exec", "greedy", "--", "sh", "-c", "head -c 400000000 /dev/zero > /dev/shm/greed")
        shown = house.seen("greedy", "crashed")
    assert "memory ran out" in shown["reason"]
    house.remove("greedy")
    assert_tidy(house)


def test_a_launcher_that_died_is_replaced(house: House) -> None:
    """Machines of the dead one run on; how they end can be seen, though not why."""
    house.launch("orphan")
    os.kill(_launcher(house.pid("orphan")), signal.SIGKILL)
    house.launch("later")
    assert house.said_in("orphan", "echo", "here") == "here"
    house.power("orphan", "stop", grace_s=60)
    assert house.show("orphan")["status"] == "stopped"
    house.remove("orphan", "later")
    assert_tidy(house)


def _launcher(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
