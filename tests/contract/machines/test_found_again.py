"""What one machine does, or what lies in the folder of machines, harms no other machine and no other folder."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.agent.faults import CannotObey
from innkeeper.agent.watching.machines import Machines
from innkeeper.agent.watching.roster import Roster
from innkeeper.drivers.qemu import fake
from innkeeper.drivers.qemu.process import start_time
from innkeeper.drivers.qemu.start import DiskFiles, start
from innkeeper.model.ids import InstanceId
from innkeeper.model.observed import Ended, Phase
from innkeeper.ports.launcher import Users
from tests.contract.machines.processes import processes, write_record
from tests.vm.machines import VOLUME, Bench, agent, bench, unable, write_qcow2

pytestmark = [pytest.mark.slow, pytest.mark.skipif(unable() is not None, reason=str(unable()))]

ONE, TWO, THREE = (InstanceId(f"i-00000000000{number}") for number in (1, 2, 3))
BAD_IDS = ["..", ".", "", "/", "../machines", f"{ONE}/..", "I-1", "a" * 64, "x\n"]
MIB = 1024 * 1024

Order = Callable[[Machines, InstanceId], Awaitable[object]]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Bench]:
    # The fake runs as root without its powers, since our Python may lie where nobody else can read.
    async with bench(tmp_path, fake.install(tmp_path / "fake-qemu"), 0) as made:
        (tmp_path / "kept").write_text("all that there is")
        yield made


def folder(world: Bench, instance: str) -> Path:
    return world.place / "machines" / instance


async def _start(world: Bench, instance: InstanceId, arguments: str = "") -> int:
    """A machine with a disk of its own; nobody holds it."""
    spec = world.spec(arguments=arguments)
    disk = DiskFiles(top=write_qcow2(world.place / f"{instance}.q", 64 * MIB), below=spec.disks[VOLUME].below)
    folder(world, instance).mkdir(parents=True, mode=0o700)
    spec = replace(spec, instance=instance, name=instance, disks={VOLUME: disk})
    machine = await start(spec, folder(world, instance), world.launcher)
    await machine.close()
    return machine.record.pid


def phases(roster: Roster) -> dict[str, Phase]:
    return {state.instance: state.phase for state in roster.states()}


async def test_a_mark_cannot_lead_out_of_the_folder_of_machines(world: Bench) -> None:
    """As a QEMU that its guest has taken over may write it, with the record that goes with it."""
    await _start(world, ONE)
    mark = f"{world.place}/machines/../machine.json"
    with processes() as others:
        pid = others.run(mark, Users(0).of_slot(6))
        write_record(world.place, pid, "..")
        for _ in range(2):
            async with agent(world) as (machines, roster):
                await machines.find_again()
                assert phases(roster) == {ONE: Phase.RUNNING}
                for order in (machines.stop(InstanceId(".."), 0, 1), machines.forget(InstanceId(".."))):
                    with pytest.raises(CannotObey):
                        await order
        assert start_time(pid) is not None
    assert (world.place / "kept").exists()


@pytest.mark.parametrize("instance", BAD_IDS)
async def test_no_order_is_obeyed_for_what_is_no_id(world: Bench, instance: str) -> None:
    bad = InstanceId(instance)
    spec = replace(world.spec(), instance=bad)
    orders: list[Order] = [
        lambda machines, bad: machines.already_up(bad, 1),
        lambda machines, bad: machines.start(spec, 1),
        lambda machines, bad: machines.stop(bad, 0, 1),
        lambda machines, bad: machines.forget(bad),
    ]
    async with agent(world) as (machines, roster):
        before = sorted(world.place.rglob("*"))
        for order in orders:
            with pytest.raises(CannotObey, match="not an id"):
                await order(machines, bad)
        assert sorted(world.place.rglob("*")) == before
        assert roster.states() == ()


async def test_what_is_no_machines_folder_is_not_told_of(world: Bench) -> None:
    root = world.place / "machines"
    async with agent(world) as (machines, roster):
        for name in ("lost+found", "i-1.bak", "Backup"):
            (root / name).mkdir()
        (root / "i-2").write_text("a file")
        await machines.find_again()
        assert roster.states() == ()


async def test_removing_a_link_removes_nothing_behind_it(world: Bench) -> None:
    elsewhere = world.place / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("all that there is")
    async with agent(world) as (machines, roster):
        folder(world, ONE).symlink_to(elsewhere)
        folder(world, TWO).mkdir()
        (folder(world, TWO) / "link").symlink_to(elsewhere)
        await machines.find_again()
        for instance in (ONE, TWO):
            await machines.forget(instance)
        assert roster.states() == ()
        assert list((world.place / "machines").iterdir()) == []
    assert (elsewhere / "kept").exists()


async def test_one_that_answers_nonsense_does_not_keep_us_from_the_others(world: Bench) -> None:
    pids = {
        ONE: await _start(world, ONE),
        TWO: await _start(world, TWO, "odd later"),
        THREE: await _start(world, THREE),
    }
    async with agent(world) as (machines, roster):
        await machines.find_again()
        assert phases(roster) == {ONE: Phase.RUNNING, TWO: Phase.UNKNOWN, THREE: Phase.RUNNING}
        assert {state.instance: state.pid for state in roster.states()} == pids
        odd = roster.state(TWO)
        assert odd is not None
        assert "`query-status`" in odd.reason
        await machines.stop(TWO, 0.1, 8)
        assert phases(roster)[TWO] is Phase.STOPPED


async def test_a_start_that_is_answered_with_nonsense_fails_and_leaves_nothing(world: Bench) -> None:
    (world.place / "machines").mkdir()
    async with agent(world) as (machines, roster):
        with pytest.raises(Exception, match="`query-status`"):
            await machines.start(replace(world.spec(arguments="odd"), instance=ONE), 1)
        assert roster.states() == ()
        await machines.look()
        assert roster.states() == ()


async def test_a_machine_that_cannot_be_looked_at_is_unknown_and_the_others_are_not(world: Bench) -> None:
    """Its record is something that nobody thought of; the process is there."""
    pids = [await _start(world, instance) for instance in (ONE, TWO, THREE)]
    record = folder(world, TWO) / "machine.json"
    kept = record.read_text()
    record.unlink()
    record.mkdir()
    async with agent(world) as (machines, roster):
        await machines.find_again()
        assert phases(roster) == {ONE: Phase.RUNNING, TWO: Phase.UNKNOWN, THREE: Phase.RUNNING}
        lost = roster.state(TWO)
        assert lost is not None
        assert str(record) in lost.reason
        assert start_time(pids[1]) is not None
        with pytest.raises(OSError, match="directory"):
            await machines.forget(TWO)
        # Put right again, it is found by the next look.
        record.rmdir()
        record.write_text(kept)
        await machines.look()
        assert phases(roster)[TWO] is Phase.RUNNING
        assert roster.find(TWO) is not None


async def test_one_that_was_unknown_and_has_ended_is_told_to_have_ended(world: Bench) -> None:
    pid = await _start(world, ONE)
    record = folder(world, ONE) / "machine.json"
    kept = record.read_text()
    record.unlink()
    record.mkdir()
    async with agent(world) as (machines, roster):
        await machines.find_again()
        assert phases(roster) == {ONE: Phase.UNKNOWN}
        os.kill(pid, 9)
        while start_time(pid) is not None:
            await asyncio.sleep(0.01)
        await machines.look()
        assert phases(roster) == {ONE: Phase.UNKNOWN}  # its record still cannot be read
        record.rmdir()
        record.write_text(kept)
        await machines.look()
        state = roster.state(ONE)
        assert state is not None
        assert (state.phase, state.ended) == (Phase.CRASHED, Ended.CRASH)


async def test_one_that_hides_its_mark_is_found_by_its_record(world: Bench) -> None:
    folder(world, ONE).mkdir(parents=True)
    with processes() as others:
        pid = others.run("", Users(0).of_slot(6))
        write_record(folder(world, ONE), pid, ONE)
        async with agent(world) as (machines, roster):
            await machines.find_again()
            state = roster.state(ONE)
            assert state is not None
            assert (state.phase, state.pid) == (Phase.UNKNOWN, pid)


async def test_one_that_claims_to_be_another_machine_is_ended(world: Bench) -> None:
    pid = await _start(world, ONE)
    with processes() as others:
        liar = others.run(f"{folder(world, ONE)}/machine.json", Users(0).of_slot(6))
        async with agent(world) as (machines, roster):
            await machines.find_again()
            assert {i: machine.record.pid for i, machine in roster.up().items()} == {ONE: pid}
            async with asyncio.timeout(30):
                while start_time(liar) is not None:
                    await asyncio.sleep(0.01)


async def test_a_copy_of_a_folder_tells_of_no_second_machine(world: Bench) -> None:
    pid = await _start(world, ONE)
    shutil.copytree(folder(world, ONE), folder(world, TWO), ignore=shutil.ignore_patterns("*.sock"))
    async with agent(world) as (machines, roster):
        await machines.find_again()
        assert {i: machine.record.pid for i, machine in roster.up().items()} == {ONE: pid}
        assert phases(roster) == {ONE: Phase.RUNNING, TWO: Phase.STOPPED}
