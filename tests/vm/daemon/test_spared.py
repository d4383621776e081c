"""When memory runs out the kernel ends a machine, or what a network needs, before the daemon that can tell of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.installation.house import House
from tests.vm.installation.traces import assert_tidy, machine_record

SPARED, GUESTS = -900, 300


def _score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def _children(pid: int) -> dict[int, str]:
    """And theirs, each with its command."""
    found = dict[int, str]()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found |= {child: command, **_children(child)}
    return found


def test_the_daemon_is_spared_and_nothing_that_it_starts_is(house: House) -> None:
    daemon = house.daemon.pid
    one = house.launch("web")
    assert _score(machine_record(house.place, one["id"])["pid"]) == GUESTS
    house.until("web", "agent")
    spared = {pid: command for pid, command in _children(daemon).items() if _score(pid) < 0}
    assert spared == {}
    house.remove("web")
    assert_tidy(house)
    if _score(daemon) != SPARED:
        assert "this daemon is not spared when memory runs out" in house.said()
        pytest.skip("this machine does not let root lower a process's score, so nothing could inherit it")
