"""What planners plan, a strict host carries out: launch, stop, start, rename, delete, step by step and back again."""

from __future__ import annotations

import pytest

from innkeeper.jobs.execute import order_for, undo_for
from innkeeper.model.cluster import Cluster
from innkeeper.model.host import Host, Project
from innkeeper.model.ids import Draw, InstanceId, OperationId, ProjectId
from innkeeper.model.instance import Instance, Size
from innkeeper.model.observed import Inventory
from innkeeper.model.plans import Plan, Put
from innkeeper.model.template import Origin, Template
from innkeeper.model.work import Done, Operation, OperationState
from innkeeper.plan.delete import delete
from innkeeper.plan.intake.origin import LaunchWish
from innkeeper.plan.launch import launch
from innkeeper.plan.power import pause, rename, resume, start, stop
from innkeeper.sim.clock import simulate
from innkeeper.sim.host import SimHost
from innkeeper.sim.metal.pool import tiny_image
from innkeeper.sim.state import SimState
from tests.simulation.cast import HOST, NETWORK, TINY, small_state

PROJECT = ProjectId("p-1")


class Site:
    """A host and the picture of it, without store and engine."""

    def __init__(self) -> None:
        self.state: SimState = small_state()
        self.host = SimHost(self.state)
        template = Template(
            id=TINY,
            project=None,
            name="tiny",
            version=1,
            origin=Origin.BUILT,
            created_at=0,
            default_size=Size(vcpus=1, memory_mib=256, disk_gib=1),
            image=tiny_image(),
        )
        rows = (
            Project(id=PROJECT, name="default"),
            NETWORK,
            template,
            Host(id=HOST, name="h1", facts=self.state.facts),
        )
        self.cluster = Cluster().after((Put(noun=row) for row in rows), 1)
        self._operations = 0

    async def carry_out(self, plan: object, until: int | None = None) -> tuple[Plan, Operation]:
        """All steps of a plan, or the first few."""
        assert isinstance(plan, Plan), plan
        self._operations += 1
        operation = Operation(
            id=OperationId(f"op-{self._operations}"),
            project=PROJECT,
            verb=plan.verb,
            title=plan.title,
            subjects=plan.subjects,
            principal="test",
            state=OperationState.RUNNING,
            created_at=0,
            updated_at=0,
            steps=len(plan.steps),
        )
        self.cluster = self.cluster.after(plan.accept, self.cluster.revision + 1)
        for number, step in enumerate(plan.steps[:until]):
            order = order_for(self.cluster, operation, number, step)
            assert order is not None
            outcome = await self.host.give(order)
            assert isinstance(outcome, Done), (step, outcome)
            for state in outcome.states:
                self.cluster = self.cluster.seen(state)
        if until is None:
            self.cluster = self.cluster.after(plan.finish, self.cluster.revision + 1)
        return plan, operation

    async def undo(self, plan: Plan, operation: Operation, done: int) -> None:
        self.cluster = self.cluster.after(plan.retreat, self.cluster.revision + 1)
        for number in reversed(range(done)):
            order = undo_for(self.cluster, operation, number, plan.steps[number])
            if order is not None:
                outcome = await self.host.give(order)
                assert isinstance(outcome, Done), (order, outcome)
        self.cluster = self.cluster.after(plan.abandon, self.cluster.revision + 1)

    def launching(self, name: str) -> object:
        return launch(self.cluster, PROJECT, LaunchWish(template="tiny", name=name), Draw(name.encode()), 0.0)

    def row(self, instance: InstanceId) -> Instance:
        return self.cluster.instances[instance]


def _holds_nothing(inventory: Inventory) -> bool:
    return not (inventory.machines or inventory.disks or inventory.seeds or inventory.leftovers)


def test_the_life_of_an_instance() -> None:
    async def scenario() -> None:
        site = Site()
        plan, _ = await site.carry_out(site.launching("web"))
        web = InstanceId(plan.subjects[0].id)
        await site.carry_out(site.launching("db"))
        await site.carry_out(pause(site.cluster, site.row(web)))
        await site.carry_out(resume(site.cluster, site.row(web)))
        await site.carry_out(rename(site.cluster, site.row(web), "www"))
        await site.carry_out(stop(site.cluster, site.row(web), force=False))
        await site.carry_out(start(site.cluster, site.row(web)))
        for instance in tuple(site.cluster.instances.values()):
            await site.carry_out(delete(site.cluster, instance, force=True))
        assert _holds_nothing(await site.host.inventory())
        assert not site.cluster.instances
        assert site.state.memory_used_mib == 0

    simulate(scenario())


@pytest.mark.parametrize("done", range(5))
def test_a_launch_is_undone_from_anywhere(done: int) -> None:
    async def scenario() -> None:
        site = Site()
        free = site.state.pool.free_bytes
        plan, operation = await site.carry_out(site.launching("web"), until=done)
        assert len(plan.steps) == 4
        await site.undo(plan, operation, done)
        assert _holds_nothing(await site.host.inventory())
        assert site.state.pool.free_bytes == free
        for rows in (site.cluster.instances, site.cluster.volumes, site.cluster.nics):
            assert len(rows) == 0

    simulate(scenario())
