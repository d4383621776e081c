"""An agent finds its machines again: all at once, those that hang among them, and those that nobody wrote down."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.drivers.qemu.hand import ADOPTION_TIMEOUT_S
from innkeeper.drivers.qemu.process import start_time
from innkeeper.drivers.qemu.start import DiskFiles, start
from innkeeper.model.ids import InstanceId
from innkeeper.model.observed import Ended, Phase
from tests.vm.guests import SLEEP
from tests.vm.machines import QEMU, VOLUME, Bench, agent, bench, unable, write_qcow2

MANY, HANGING = 24, 16
MIB = 1024 * 1024

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(unable() is not None, reason=str(unable())),
    pytest.mark.skipif(not QEMU.exists(), reason=f"{QEMU} is not installed"),
]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


async def _start(world: Bench, instance: str) -> int:
    """A machine with a disk of its own; nobody holds it."""
    spec = replace(world.spec(SLEEP), instance=InstanceId(instance), name=instance)
    below = spec.disks[VOLUME].below
    spec = replace(
        spec, disks={VOLUME: DiskFiles(top=write_qcow2(world.place / f"{instance}.q", 64 * MIB), below=below)}
    )
    path = world.place / "machines" / instance
    path.mkdir(parents=True, mode=0o700)
    machine = await start(spec, path, world.launcher)
    await machine.close()
    return machine.record.pid


async def _heed(work: Awaitable[object]) -> None:
    await work


async def test_many_are_found_again_together(world: Bench) -> None:
    pids = {f"i-{number:012x}": await _start(world, f"i-{number:012x}") for number in range(MANY)}
    hanging = list(pids)[:HANGING]
    for instance in hanging:
        os.kill(pids[instance], signal.SIGSTOP)
    async with agent(world) as (machines, roster):
        began = asyncio.get_running_loop().time()
        await machines.find_again()
        took_s = asyncio.get_running_loop().time() - began
        states = {state.instance: state for state in roster.states()}
        assert {instance: state.pid for instance, state in states.items()} == pids
        assert {state.obeyed for state in states.values()} == {7}
        phases = [states[InstanceId(instance)].phase for instance in pids]
        assert phases == [Phase.UNKNOWN] * HANGING + [Phase.STARTING] * (MANY - HANGING)
    # One after the other they would take this long at least.
    assert took_s < HANGING * ADOPTION_TIMEOUT_S


async def test_one_that_nobody_wrote_down_is_found_and_stopped(world: Bench) -> None:
    """As when the launcher died between starting QEMU and writing its record."""
    instance = InstanceId("i-0123456789ab")
    pid = await _start(world, instance)
    record = world.place / "machines" / instance / "machine.json"
    record.unlink()
    async with agent(world) as (machines, roster):
        await machines.find_again()
        state = roster.state(instance)
        assert state is not None
        assert state.pid == pid
        await machines.stop(instance, 0, 8)
        stopped = roster.state(instance)
        assert stopped is not None
        assert (stopped.phase, stopped.ended, stopped.obeyed) == (Phase.STOPPED, Ended.ASKED, 8)
        await machines.forget(instance)
        assert roster.states() == ()
    assert not record.parent.exists()


async def test_one_that_appears_later_is_found_by_the_next_look(world: Bench) -> None:
    """As when a launcher starts what a dead daemon had asked for, after its successor has looked."""
    async with agent(world) as (machines, roster):
        await machines.find_again()
        pid = await _start(world, "i-0123456789ab")
        async with asyncio.TaskGroup() as group:
            for work in (machines.look(), machines.look(), machines.already_up(InstanceId("i-0123456789ab"), 9)):
                group.create_task(_heed(work))
        (state,) = roster.states()
        assert (state.pid, state.obeyed) == (pid, 9)


async def test_a_second_process_for_one_machine_is_ended(world: Bench) -> None:
    """The record names one; the other has no right to run."""
    instance = "i-0123456789ab"
    first = await _start(world, instance)
    folder = world.place / "machines" / instance
    record = json.loads((folder / "machine.json").read_text())
    aside = folder.rename(folder.with_name("aside"))
    (world.place / f"{instance}.q").unlink()
    second = await _start(world, instance)
    assert record["pid"] == first
    async with agent(world) as (machines, roster):
        await machines.find_again()
        assert {state.pid for state in roster.states() if state.instance == instance} == {second}
        async with asyncio.timeout(30):
            while start_time(first) is not None:
                await asyncio.sleep(0.05)
    assert aside.exists()


async def test_a_folder_of_a_start_that_never_came_so_far_is_told_of(world: Bench) -> None:
    """So that repair removes it when nothing refers to it."""
    (world.place / "machines" / "i-0123456789ab").mkdir(parents=True)
    async with agent(world) as (machines, roster):
        await machines.find_again()
        (state,) = roster.states()
        assert (state.phase, state.ended, state.reason) == (Phase.STOPPED, Ended.NO, "")
