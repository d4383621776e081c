"""`./run --remove`: the machine is as it was, and nobody's instance goes with the daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from innkeeper.cli.line import CannotGoOn, Line
from innkeeper.main.boot import UNITS, unit_name
from innkeeper.main.place import Place
from innkeeper.main.remove import remove
from tests.vm.installation.house import House
from tests.vm.installation.traces import traces


def _removed(house: House) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, "-m", "innkeeper.main.quickstart", "--remove", "--data", str(house.place.data))
    return subprocess.run(words, env=house.environment(), capture_output=True, text=True, timeout=120)


def _in_the_kernel(tag: str) -> str:
    """Lines about anything that bears an installation's mark."""
    commands = (("ip", "netns", "list"), ("ip", "-o", "link"), ("nft", "list", "tables"))
    said = [subprocess.run(c, check=True, capture_output=True, text=True).stdout for c in commands]
    return "\n".join(line for line in "".join(said).splitlines() if tag in line)


@pytest.mark.parametrize("alive", [True, False], ids=["daemon", "no-daemon"])
def test_it_refuses_while_there_are_instances_and_then_leaves_nothing(fresh: House, alive: bool) -> None:
    fresh.start()
    fresh.launch("web")
    if not alive:
        fresh.kill()
    refused = _removed(fresh)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "web" in refused.stderr
    assert _in_the_kernel(fresh.place.tag)
    assert len(traces(fresh.place).processes) == 1
    if not alive:
        fresh.start()
    fresh.remove("web")
    if not alive:
        fresh.kill()
    for _ in range(2):  # once more changes nothing
        done = _removed(fresh)
        assert done.returncode == 0, done.stderr
        assert str(fresh.place.data) in done.stdout
    assert fresh.daemon.poll() is not None
    assert _in_the_kernel(fresh.place.tag) == ""
    assert not fresh.place.volatile.exists()
    assert traces(fresh.place).processes == ()
    assert (fresh.place.data / "innkeeper.db").exists()


@contextmanager
def _unit(place: Place) -> Iterator[Any]:
    """One as it lies there for the next boot; systemd is told nothing."""
    path = UNITS / unit_name(place)
    UNITS.mkdir(parents=True, exist_ok=True)
    path.write_text("[Service]\nExecStart=/bin/true\n")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def test_instances_keep_the_unit_too(fresh: House) -> None:
    fresh.start()
    fresh.launch("web")
    fresh.kill()
    with _unit(fresh.place) as unit:
        assert _removed(fresh).returncode == 2
        assert unit.exists()
        fresh.start()
        fresh.remove("web")
        assert _removed(fresh).returncode == 0
        assert not unit.exists()
    assert fresh.daemon.wait(60) == 0


def test_a_daemon_that_hangs_is_no_daemon_that_is_gone(fresh: House) -> None:
    fresh.start()
    os.kill(fresh.daemon.pid, signal.SIGSTOP)
    try:
        with _unit(fresh.place) as unit:
            with pytest.raises(CannotGoOn, match="does not answer in time"):
                remove(Line(str(fresh.place.socket), patience_s=1), fresh.place)
            assert unit.exists()
    finally:
        os.kill(fresh.daemon.pid, signal.SIGCONT)
    assert fresh.instances() == []
    assert fresh.daemon.poll() is None
    assert fresh.place.volatile.is_dir()


def test_whoever_holds_the_lock_without_listening_is_left_alone(fresh: House) -> None:
    """We hold it here, so that a signal would strike this very test."""
    fresh.start()
    fresh.end()
    held = fresh.place.lock()
    try:
        with _unit(fresh.place) as unit:
            refused = _removed(fresh)
            assert unit.exists()
    finally:
        os.close(held)
    assert refused.returncode == 1
    assert f"pid {os.getpid()}" in refused.stderr
    assert "nothing was done" in refused.stderr
    assert fresh.place.volatile.is_dir()


@pytest.mark.parametrize("content", ["", "1\n"], ids=["empty", "another-pid"])
def test_the_lock_file_need_not_tell_who_the_daemon_is(fresh: House, content: str) -> None:
    fresh.start()
    (fresh.place.data / "lock").write_text(content)
    done = _removed(fresh)
    assert done.returncode == 0, done.stderr
    assert fresh.daemon.wait(60) == 0


class _Overtaken(Line):
    """Somebody launches just after we were told that there are no instances."""

    house: House

    def every(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        told = list(super().every(path, **query))
        assert told == []
        self.house.launch("late")
        return iter(told)


def test_an_instance_that_comes_at_the_last_moment_is_kept(fresh: House) -> None:
    fresh.start()
    line = _Overtaken(str(fresh.place.socket))
    line.house = fresh
    with _unit(fresh.place) as unit:
        with pytest.raises(CannotGoOn, match=r"the daemon has ended.*late") as refused:
            remove(line, fresh.place)
        assert unit.exists()
        assert unit.name in refused.value.hint
    assert fresh.daemon.wait(60) == 0
    assert len(traces(fresh.place).processes) == 1
    assert _in_the_kernel(fresh.place.tag)
    fresh.start()
    assert fresh.said_in("late", "echo", "here") == "here"
    fresh.remove("late")
    assert _removed(fresh).returncode == 0
    assert fresh.daemon.wait(60) == 0
