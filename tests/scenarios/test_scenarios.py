"""How the whole system behaves, told as conversations: one file each, beside this one.

`> ` is said, the rest is answered; lines with `# ` say what a conversation is about. REWRITE_GOLDEN=1 writes the
answers anew: the difference is a change of behaviour, and is reviewed as one.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

import pytest

from innkeeper.sim.clock import simulate
from tests.scenarios.commands import say
from tests.scenarios.world import World

SCENARIOS = sorted(Path(__file__).parent.glob("*.txt"))


async def told(folder: Path, script: list[str]) -> str:
    """The conversation that follows from what is said; in the end rows and machine agree."""
    async with contextlib.AsyncExitStack() as lives:
        world = World(folder, lives)
        await world.begin()
        await say(world, "build tiny")
        world.transcript.lines.clear()
        for line in script:
            if line.startswith("> "):
                await say(world, line.removeprefix("> "))
            elif line.startswith("# ") or not line:
                world.line(line)
        assert await world.differences() == []
        return world.text()


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_scenario(path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = simulate(told(tmp_path, path.read_text().splitlines()))
    if os.environ.get("REWRITE_GOLDEN") == "1":
        path.write_text(text)
    assert text == path.read_text()
    # Loops go on after a fault of ours, as they must; but here it is one all the same.
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 10
