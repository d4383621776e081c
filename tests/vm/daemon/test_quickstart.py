"""`./run`, once everything is installed: from an empty data directory to a machine's first words, and over again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from innkeeper.main.daemon import end
from tests.vm.installation.house import WORK_S, House, installation
from tests.vm.installation.traces import assert_tidy

RUN_S = 600.0
_SOON = "sleep 1"  # when whoever said so has heard that it was begun
Run = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def stood(tiny: Path) -> Iterator[tuple[House, Run]]:
    """What the first run has said, and left. `tiny` is built anew; that there is one tells that it can be."""
    with installation("run") as made:
        try:
            yield made, _run(made)
        finally:
            os.close(end(made.place))


@pytest.fixture
def house(stood: tuple[House, Run]) -> House:
    return stood[0]


def _run(house: House) -> Run:
    words = ("--template", "tiny", "--data", str(house.place.data))
    return subprocess.run(
        (sys.executable, "-m", "innkeeper.main.quickstart", *words),
        # It leaves a process running, which is what it is for, and Python would warn of that.
        env=house.environment() | {"PYTHONWARNINGS": "ignore::ResourceWarning"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )


def _well(run: Run) -> None:
    assert run.returncode == 0, run
    assert run.stderr == ""
    said = run.stdout.splitlines()
    (asked,) = (number for number, line in enumerate(said) if line.endswith("exec hello -- uname -a"))
    assert said[asked + 1].startswith("Linux hello "), said
    assert any("inn shell hello" in line for line in said[asked + 2 :])


def _in_words(run: Run, *words: str) -> None:
    assert run.returncode not in (0, 2), run
    assert "Traceback" not in run.stdout + run.stderr
    assert run.stderr.startswith("inn: ")
    assert all(word in run.stderr for word in words), run.stderr
    assert "Go on with" not in run.stdout


def _done(house: House) -> list[Any]:
    return [o["id"] for o in house.get("/operations", limit=100)["items"]]


def _hello(house: House) -> dict[str, Any]:
    (hello,) = house.instances()
    return hello


def _speaks(house: House) -> bool:
    try:
        house.inn("exec", "hello", "--", "true", timeout_s=20)
    except subprocess.TimeoutExpired:
        return False
    return True


def _until_remembered(house: House) -> None:
    """The daemon keeps the memory of a booted tiny by itself, some time after the first launch."""
    until = time.monotonic() + WORK_S
    while not house.get("/templates")["items"][0]["memory_images"]:
        assert time.monotonic() < until
        time.sleep(0.2)
    house.quiet()


def test_a_fresh_data_directory_becomes_a_machine_that_speaks(stood: tuple[House, Run]) -> None:
    house, first = stood
    _well(first)
    for what in ("Starting the daemon", "Building template tiny", "Launching hello from tiny"):
        assert what in first.stdout
    assert [t["name"] for t in house.get("/templates")["items"]] == ["tiny"]
    assert _hello(house)["status"] == "running"
    _until_remembered(house)
    assert_tidy(house)


def test_again_it_only_asks(house: House) -> None:
    before, lock, operations = _hello(house), (house.place.data / "lock").read_text(), _done(house)
    again = _run(house)
    _well(again)
    assert "The daemon runs already." in again.stdout
    assert "Template tiny stands already." in again.stdout
    after = _hello(house)
    assert (after["id"], after["generation"]) == (before["id"], before["generation"])
    assert _done(house) == operations
    assert (house.place.data / "lock").read_text() == lock


@pytest.mark.parametrize("verb, undone", [("pause", "Resuming"), ("stop", "Starting")])
def test_what_is_down_is_taken_up_again(house: House, verb: str, undone: str) -> None:
    before = _hello(house)["id"]
    house.power("hello", verb)
    again = _run(house)
    _well(again)
    assert f"{undone} hello …" in again.stdout
    assert (_hello(house)["id"], _hello(house)["status"]) == (before, "running")


def test_one_that_hangs_is_told_of(house: House) -> None:
    pid = house.pid("hello")
    os.kill(pid, signal.SIGSTOP)
    try:
        house.seen("hello", "unknown")
        _in_words(_run(house), "hello is unknown: ", "cannot be asked", "restart hello --force")
    finally:
        os.kill(pid, signal.SIGCONT)
    house.seen("hello", "running")
    house.until("hello", "agent")
    _well(_run(house))


def test_one_that_falls_silent_is_not_waited_for_endlessly(house: House) -> None:
    """Its kernel answers, so it is running; what carries commands out does not."""
    house.said_in("hello", "sh", "-c", f"({_SOON}; kill -STOP $(pidof innkeeper-guest)) >/dev/null 2>&1 &")
    until = time.monotonic() + WORK_S
    while _speaks(house):
        assert time.monotonic() < until
    _in_words(_run(house), "hello", "restart hello --force")
    house.power("hello", "restart", force=True)
    house.until("hello", "agent")
    _well(_run(house))


def test_one_that_has_panicked_is_told_of(house: House) -> None:
    house.said_in("hello", "sh", "-c", "until [ -d /sys/module/pvpanic ]; do sleep 0.2; done")
    house.said_in("hello", "sh", "-c", f"({_SOON}; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &")
    house.seen("hello", "panicked")
    _in_words(_run(house), "hello is panicked", "logs hello", "restart hello --force")
    house.power("hello", "restart", force=True)
    house.until("hello", "agent")
    _well(_run(house))
