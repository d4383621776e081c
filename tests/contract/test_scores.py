"""Tools do not inherit what spares the daemon when memory runs out: the kernel ends them before guests."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.drivers.guestlink.compile import GuestProgram
from innkeeper.drivers.images import tool
from innkeeper.drivers.qcow2.confined import Run, run
from innkeeper.ports import scores

MINE = Path("/proc/self/oom_score_adj")
SPARED = "300"  # to be spared more than this takes rights that not every machine for tests gives


@pytest.fixture(autouse=True)
def _another_score() -> Iterator[None]:
    """Ours is neither what tools are to have nor what everybody has."""
    before = MINE.read_text()
    try:
        MINE.write_text(SPARED)
    except OSError as error:
        pytest.skip(f"/proc does not let a process change its score here: {error}")
    yield
    MINE.write_text(before)


async def test_what_builds_an_image_ends_first() -> None:
    said: list[str] = []
    await tool.run(["cat", str(MINE)], {"PATH": "/usr/bin:/bin"}, said.append)
    assert said == ["500"]


async def test_what_reads_a_strangers_image_ends_first(tmp_path: Path) -> None:
    argv = ("/bin/sh", "-c", f"cat {MINE} >score")
    await run(Run(doing="trying", argv=argv, folder=tmp_path, pool=tmp_path, deadline_s=60), lambda _: None)
    assert (tmp_path / "score").read_text() == "500\n"


async def test_the_compiler_ends_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that writes down its score, in place of the program."""
    cc = tmp_path / "cc"
    cc.write_text(f'#!/bin/sh\nuntil [ "$1" = -o ]; do shift; done\ncat {MINE} >"$2"\n')
    cc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program = await GuestProgram(tmp_path / "workshop").compiled()
    assert program.read_text() == "500\n"


async def test_who_would_end_sooner_anyway_stays_so() -> None:
    """Lowering takes rights that we may not have; a tool that then did not start would help nobody."""
    MINE.write_text("700")
    assert scores.scored(500, ["cat"]) == ("cat",)
    said: list[str] = []
    await tool.run(["cat", str(MINE)], {"PATH": "/usr/bin:/bin"}, said.append)
    assert said == ["700"]


async def test_without_choom_tools_run_as_they_are_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scores.choom.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda *_args, **_more: None)
    try:
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                said: list[str] = []
                await tool.run(["cat", str(MINE)], {"PATH": "/usr/bin:/bin"}, said.append)
                assert said == [SPARED]
        assert ["choom is missing" in message for message in caplog.messages] == [True]
    finally:
        scores.choom.cache_clear()
