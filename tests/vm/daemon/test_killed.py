"""The daemon is killed at any moment. Started again, it ends where an undisturbed one would have, leaving nothing."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from tests.vm.installation.house import House
from tests.vm.installation.traces import assert_tidy, traces

Do = Callable[[House], dict[str, object]]


def _launch(house: House) -> dict[str, object]:
    return dict(house.post("/instances", template="tiny", name="cat"))


def _stop(house: House) -> dict[str, object]:
    return dict(house.post("/instances/cat/stop", grace_s=60))


def _start(house: House) -> dict[str, object]:
    return dict(house.post("/instances/cat/start"))


def _delete(house: House) -> dict[str, object]:
    return dict(house.delete("/instances/cat", force="true"))


def _killed_during(house: House, act: Do, after_s: float) -> None:
    """The order is accepted, the daemon killed, started again; the order is carried out to its end."""
    operation = act(house)
    time.sleep(after_s)
    house.kill()
    house.start()
    house.do(operation)


# Our share of each takes a tenth of a second; a graceful stop waits for its guest.
@pytest.mark.parametrize("seed", range(3))
def test_lives_of_an_instance_with_a_mortal_daemon(house: House, seed: int) -> None:
    moments = random.Random(seed)
    _killed_during(house, _launch, moments.uniform(0, 0.25))
    house.until("cat", "agent")
    assert_tidy(house)
    _killed_during(house, _stop, moments.uniform(0, 1.5))
    assert house.show("cat")["status"] == "stopped"
    assert_tidy(house)
    _killed_during(house, _start, moments.uniform(0, 0.25))
    house.until("cat", "agent")
    assert_tidy(house)
    _killed_during(house, _delete, moments.uniform(0, 0.25))
    assert house.instances() == []
    assert_tidy(house)


def test_killed_again_and_again_during_many_launches(house: House) -> None:
    parent = house.post("/instances", template="tiny", name="many{n}", count=3)
    moments = random.Random(7)
    for _ in range(3):
        time.sleep(moments.uniform(0, 0.3))
        house.kill()
        house.start()
    ended = house.ended(parent)
    names = [row["name"] for row in house.instances()]
    for name in names:
        house.until(name, "agent")
    # They were accepted together, so they come to be together, however often the daemon dies on the way.
    assert sorted(names) == ["many1", "many2", "many3"]
    assert len(ended["children"]) == 3
    assert ended["state"] == "succeeded", ended
    assert_tidy(house)
    house.remove(*names)
    assert_tidy(house)


def test_machines_run_on_and_are_found_again(house: House) -> None:
    house.launch("runs")
    pid, uptime = house.pid("runs"), float(house.said_in("runs", "cut", "-d ", "-f1", "/proc/uptime"))
    house.kill()
    assert traces(house.place).processes != ()
    house.start()
    house.until("runs", "agent")
    assert house.pid("runs") == pid
    assert float(house.said_in("runs", "cut", "-d ", "-f1", "/proc/uptime")) > uptime
    assert b"login:" in house.inn("logs", "runs").stdout
    house.end()
    house.start()
    house.until("runs", "agent")
    assert house.pid("runs") == pid
    house.remove("runs")
    assert_tidy(house)


def test_what_ends_while_nobody_looks_is_explained_later(house: House) -> None:
    """The launcher outlives the daemon and writes down how its children ended."""
    house.launch("leaves")
    house.launch("dies")
    pid = house.pid("dies")
    house.inn("exec", "leaves", "--", "sh", "-c", "(sleep 1; poweroff) >/dev/null 2>&1 &")
    house.kill()
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 120
    while traces(house.place).processes and time.monotonic() < until:
        time.sleep(0.2)
    house.start()
    left, died = house.seen("leaves", "stopped"), house.seen("dies", "crashed")
    assert left["reason"] == "the guest shut itself down"
    assert "signal 9" in died["reason"]
    assert {left["wanted"], house.show("dies")["wanted"]} <= {"stopped", "running"}
    house.remove("leaves", "dies")
    assert_tidy(house)
