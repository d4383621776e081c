"""The worlds behind the host's seam. Each contract test runs in all of them.

To add one: write an async context manager that yields a `World`, and enter it into WORLDS with its marks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from innkeeper.model.ids import HostId, InstanceId, NetworkId, ProjectId, TemplateId
from innkeeper.model.network import Network
from innkeeper.model.observed import MachineState
from innkeeper.sim import machines
from innkeeper.sim.host import SimHost
from innkeeper.sim.metal.guests import Guest
from innkeeper.sim.metal.pool import Recipe, tiny_image
from innkeeper.sim.state import SimState
from tests.contract.host.local import local_world, unable
from tests.contract.host.world import Stage, World

NETWORK = Network(
    id=NetworkId("net-0123456789ab"),
    project=ProjectId("p-0123456789ab"),
    name="default",
    cidr="10.213.7.0/24",
    gateway="10.213.7.1",
    domain="inn.internal",
)


@dataclass
class SimWorld:
    """Guests that need hundredths of a second for what real ones need seconds for."""

    state: SimState
    host: SimHost
    stage: Stage

    async def restart_agent(self) -> None:
        self.host.end()
        self.host = SimHost(self.state)

    async def kill_qemu(self, machine: MachineState) -> None:
        self.state.crash(machine.instance, 9)

    async def deafen(self, instance: InstanceId) -> None:
        running = self.state.running(instance)
        running.guest = replace(running.guest, ignores_shutdown=True)

    async def panic(self, instance: InstanceId) -> None:
        machines.panic(self.state, instance)


@asynccontextmanager
async def sim_world(_: Path) -> AsyncIterator[World]:
    state = SimState(HostId("h-0123456789ab"), sample_every_s=0.05)
    state.guest = Guest(boot_s=0.02, shutdown_s=0.02, cloud_init_s=0.02)
    state.recipes["tiny"] = Recipe(image=tiny_image(), build_s=0.3)
    template = TemplateId("t-0123456789ab")
    state.add_template(template)
    stage = Stage(
        facts=state.facts,
        template=template,
        image=state.pool.templates[template],
        network=NETWORK,
        recipe="tiny",
        deadline_s=10.0,
        grace_s=0.2,
    )
    world = SimWorld(state=state, host=SimHost(state), stage=stage)
    yield world
    world.host.end()


WORLDS: dict[str, tuple[Callable[[Path], AbstractAsyncContextManager[World]], tuple[pytest.MarkDecorator, ...]]] = {
    "sim": (sim_world, ()),
    "local": (
        local_world,
        (
            pytest.mark.vm,
            pytest.mark.timeout(600),  # a busy machine; each step has a deadline of its own
            pytest.mark.skipif(unable() is not None, reason=str(unable())),
        ),
    ),
}


@pytest.fixture(params=[pytest.param(name, marks=marks) for name, (_, marks) in WORLDS.items()])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    make, _ = WORLDS[request.param]
    async with make(tmp_path) as made:
        yield made
