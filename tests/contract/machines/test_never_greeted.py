"""A QEMU that ends before it has greeted is told by how it ended, and by its last words where it had some."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.drivers.qemu.hand import strays, why_ended
from innkeeper.drivers.qemu.start import StartFailed, start
from tests.vm.machines import Bench, bench, unable

pytestmark = pytest.mark.skipif(unable() is not None, reason=str(unable()))

LATER = "sleep 0.5; "  # when we hold it already, and wait for its greeting
SAYS = "echo out of luck >&2; "


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path, uid=0) as made:
        yield made


async def why_not(world: Bench, script: str) -> str:
    """Why a machine did not start whose QEMU does only this."""
    program = world.place / "qemu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(StartFailed) as failed:
        await start(replace(world.spec(), binary=str(program)), world.directory, world.launcher)
    assert strays(world.place, ()) == []
    assert why_ended(world.directory) is None
    return str(failed.value)


@pytest.mark.parametrize("when", ["", LATER])
async def test_one_that_is_killed(world: Bench, when: str) -> None:
    why = await why_not(world, f"{when}kill -KILL $$")
    assert why.startswith("web could not be started: QEMU was killed by signal 9")
    assert "runs" not in why
    assert "log" not in why


@pytest.mark.parametrize("when", ["", LATER])
async def test_one_that_is_killed_after_some_words(world: Bench, when: str) -> None:
    why = await why_not(world, f"{when}{SAYS}kill -KILL $$")
    assert "killed by signal 9" in why
    assert why.endswith("its log ends with: out of luck")


@pytest.mark.parametrize("when", ["", LATER])
async def test_one_that_gives_up(world: Bench, when: str) -> None:
    why = await why_not(world, f"{when}{SAYS}exit 1")
    assert why == "web could not be started: QEMU ended with code 1; its log ends with: out of luck"
