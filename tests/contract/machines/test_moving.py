"""Do QEMU and the program that stands in for it agree about saving a machine's state and loading it?"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from innkeeper.drivers.qemu import fake
from innkeeper.drivers.qemu.hand import stop
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.memory.loading import LoadFailed, go, link, load
from innkeeper.drivers.qemu.memory.saving import save
from innkeeper.drivers.qemu.qmp import Rejected
from innkeeper.drivers.qemu.render import MemoryFacts
from innkeeper.drivers.qemu.seen import Run
from innkeeper.drivers.qemu.start import StartFailed, start
from innkeeper.model.ids import NicId
from innkeeper.model.observed import Phase
from tests.vm.machines import HARDWARE, QEMU, UID, Bench, bench, unable

TIMEOUT_S = 20.0

pytestmark = [pytest.mark.slow, pytest.mark.skipif(unable() is not None, reason=str(unable()))]


@pytest.fixture(params=["fake", pytest.param("qemu", marks=pytest.mark.vm)])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "qemu" and not QEMU.exists():
        pytest.skip(f"{QEMU} is not installed")
    binary = QEMU if request.param == "qemu" else fake.install(tmp_path / "fake-qemu")
    # The fake runs as root without its powers, since our Python may lie where nobody else can read.
    async with bench(tmp_path, binary, UID if request.param == "qemu" else 0) as made:
        yield made


@dataclass(frozen=True, slots=True)
class Lent:
    ram: int
    state: int

    def seal(self) -> None:
        fcntl.fcntl(self.ram, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


@pytest.fixture
def lent() -> Iterator[Lent]:
    made = Lent(os.memfd_create("ram", os.MFD_ALLOW_SEALING), os.memfd_create("state"))
    os.ftruncate(made.ram, HARDWARE.memory_mib << 20)
    os.fchmod(made.ram, 0o666)
    yield made
    os.close(made.ram)
    os.close(made.state)


async def begun(world: Bench, ram: int, *, incoming: bool, memory_mib: int = HARDWARE.memory_mib) -> Machine:
    spec = replace(
        world.spec(),
        hardware=replace(HARDWARE, memory_mib=memory_mib),
        memory=MemoryFacts(fd=ram, shared=not incoming),
        incoming=incoming,
    )
    return world.holding(await start(spec, world.directory, world.launcher))


async def saved(world: Bench, lent: Lent) -> None:
    machine = await begun(world, lent.ram, incoming=False)
    await save(machine, lent.state, TIMEOUT_S)
    assert machine.seen.run is Run.PAUSED
    await stop(machine, 0)
    lent.seal()


async def test_what_was_saved_goes_on(world: Bench, lent: Lent) -> None:
    await saved(world, lent)
    assert os.fstat(lent.state).st_size > 0
    for _ in range(2):
        machine = await begun(world, lent.ram, incoming=True)
        assert (machine.seen.run, machine.seen.phase) == (Run.LOADING, Phase.STARTING)
        await load(machine, lent.state, TIMEOUT_S)
        assert (machine.seen.run, machine.seen.open_channels) == (Run.LOADING, frozenset())
        await go(machine)
        assert await machine.monitor.run() is Run.RUNNING
        with pytest.raises(Rejected):
            await link(machine, NicId("nic-none"), up=True)
        await stop(machine, 0)


async def test_a_state_of_other_hardware_ends_it(world: Bench, lent: Lent) -> None:
    await saved(world, lent)
    other = os.memfd_create("other", os.MFD_ALLOW_SEALING)
    os.ftruncate(other, 2 * HARDWARE.memory_mib << 20)
    os.fchmod(other, 0o666)
    fcntl.fcntl(other, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    try:
        machine = await begun(world, other, incoming=True, memory_mib=2 * HARDWARE.memory_mib)
    finally:
        os.close(other)
    with pytest.raises(LoadFailed, match="load of migration failed"):
        await load(machine, lent.state, TIMEOUT_S)
    await machine.ended()


async def test_one_that_runs_is_not_loaded(world: Bench, lent: Lent) -> None:
    machine = await begun(world, lent.ram, incoming=False)
    with pytest.raises(LoadFailed, match="does not wait"):
        await load(machine, lent.state, TIMEOUT_S)
    assert await machine.monitor.run() is Run.RUNNING


async def test_one_that_waits_is_told_to_end_without_asking_its_guest(world: Bench, lent: Lent) -> None:
    lent.seal()
    machine = await begun(world, lent.ram, incoming=True)
    await stop(machine, 3600)
    assert machine.seen.phase is Phase.STOPPED


async def test_unsealed_memory_is_not_copied(world: Bench, lent: Lent) -> None:
    with pytest.raises(StartFailed, match="sealed"):
        await begun(world, lent.ram, incoming=True)
