"""Tools die with who began them, also when that is killed and can end nothing any more."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from innkeeper.drivers.images.render import apart

DAEMON = """
import asyncio, sys
from innkeeper.ports.tools import begin

async def main():
    await begin(500, sys.argv[1:])
    await asyncio.sleep(1000)

asyncio.run(main())
"""
BEGUN = "begun"  # a file that the tool makes in its folder when it is under way


def living(folder: Path) -> list[int]:
    """Processes that work in this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
        except OSError:
            continue  # ended, or of the kernel
    return found


def left_by_a_killed_one(folder: Path, tool: Sequence[str]) -> list[int]:
    """What still works in the folder some time after who began this tool there was killed. It is ended then."""
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, *tool], cwd=folder)
    try:
        until = time.monotonic() + 60
        while not (folder / BEGUN).exists():
            assert time.monotonic() < until, "the tool does not begin"
            time.sleep(0.05)
        assert len(living(folder)) > 1
        daemon.kill()
        daemon.wait()
        until = time.monotonic() + 10
        while (left := living(folder)) and time.monotonic() < until:
            time.sleep(0.05)
        return left
    finally:
        daemon.kill()
        daemon.wait()
        for pid in living(folder):
            os.kill(pid, 9)


def test_a_tool_dies_with_who_began_it(tmp_path: Path) -> None:
    assert left_by_a_killed_one(tmp_path, ["sh", "-c", f"touch {BEGUN}; exec sleep 1000"]) == []


def test_one_in_namespaces_takes_all_its_children_with_it(tmp_path: Path) -> None:
    """As what builds an image: a package's script may have put anything into the background."""
    tried = subprocess.run(apart(["true"]), capture_output=True, text=True, timeout=60)
    if tried.returncode:
        pytest.skip(f"no namespaces for us here: {tried.stderr.strip()}")
    script = f"setsid sleep 1000 & (sleep 1000 & touch {BEGUN}; wait)"
    assert left_by_a_killed_one(tmp_path, apart(["sh", "-c", script])) == []
