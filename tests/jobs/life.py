"""One life after another of the same installation: store and simulated machine stay, our process comes and goes.

`Lives` holds what survives kill -9: the database file and the machine's state. `living()` is one life of our
process: store, agent, submitter, engine. A life ends in order, or by a `Killed` that is raised at a chosen commit
or order.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import itertools
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from innkeeper.control.launching import Launching, LaunchOrder
from innkeeper.control.submit import Asking, Submitter
from innkeeper.jobs.engine import Engine, Patience
from innkeeper.model.cluster import Cluster
from innkeeper.model.host import Principal, Role
from innkeeper.model.ids import Draw, HostId, ProjectId, VolumeId
from innkeeper.model.observed import Inventory, Phase
from innkeeper.model.plans import Plan, Refusal
from innkeeper.model.work import Operation
from innkeeper.plan.repair import repair
from innkeeper.plan.setup import default_project, set_up
from innkeeper.sim.clock import SimClock
from innkeeper.sim.faults import Faults, Killed
from innkeeper.sim.host import SimHost
from innkeeper.sim.state import SimState, sim_facts
from innkeeper.store.database import sqlite
from innkeeper.store.database.migrate import migrate
from innkeeper.store.store import Store, open_store

HOST = HostId("h-000000000001")
Decide = Callable[[Cluster, Draw, float], Plan | Refusal]
ROOT = Principal(name="root", role=Role.ADMINISTRATOR)
QUICK = Patience(pause_first_s=0.2, pause_most_s=2.0, ask_again_s=0.5, away_s=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    store: Store
    host: SimHost
    submitter: Submitter
    launching: Launching
    engine: Engine

    @property
    def cluster(self) -> Cluster:
        return self.store.pictures.cluster()

    @property
    def project(self) -> ProjectId:
        found = default_project(self.cluster)
        assert found is not None
        return found

    async def wish(self, decide: Decide, key: str | None = None) -> Operation | Refusal:
        """Submit, and wait for the end."""
        return await self._ended(await self.submitter.submit(decide, self.asking(key)))

    async def launch(self, order: LaunchOrder, key: str | None = None) -> Operation | Refusal:
        """The whole use case, secrets and parents included; waits for the end."""
        return await self._ended(await self.launching.launch(ROOT, order, self.asking(key)))

    def asking(self, key: str | None = None, asked: str = "") -> Asking:
        project = default_project(self.cluster) or ProjectId("")
        return Asking(principal=ROOT.name, project=project, at=1_767_225_600.0, key=key, asked=asked)

    async def _ended(self, answer: Operation | Refusal) -> Operation | Refusal:
        if isinstance(answer, Refusal):
            return answer
        ended = await self.store.journal.wait_ended(answer.id, 30)
        assert ended is not None
        return ended

    async def repairs(self) -> tuple[Plan, ...]:
        """What repair would do now. States that the host reports are kept first, as the watch does."""
        before = self.cluster
        inventory: Inventory = await self.host.inventory()
        await self.store.pictures.report(inventory.machines)
        return repair(before, inventory, self.cluster)

    async def mend(self) -> None:
        """Repair until there is nothing to repair."""
        for _ in range(5):
            plans = await self.repairs()
            if not plans:
                return
            for plan in plans:
                await self.wish(lambda c, d, n, plan=plan: plan)  # type: ignore[misc]
        raise AssertionError("repair does not come to an end")

    async def settled(self) -> None:
        """Every operation has ended."""
        while True:
            open_ones = [o for o in await self.store.journal.operations(None, 100) if not o.state.ended]
            if not open_ones:
                return
            await self.store.journal.wait_ended(open_ones[0].id, 30)


@functools.cache
def fresh_database() -> Path:
    """Migrated once for all tests of this process."""
    folder = Path(tempfile.mkdtemp(prefix="inn-lives-"))
    atexit.register(shutil.rmtree, folder)
    migrate(sqlite.engine(folder / "inn.db", writing=True), folder / "inn.db")
    return folder / "inn.db"


class Lives:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "inn.db").exists():
            shutil.copy(fresh_database(), folder / "inn.db")
        self._folder = folder
        self.clock = SimClock(speed=400)
        self.state = SimState(HOST, sim_facts(), clock=self.clock, sample_every_s=0)
        self._entropy = itertools.count(1)

    def _draws(self) -> bytes:
        return next(self._entropy).to_bytes(32, "big")

    def secrets(self) -> set[str]:
        """The ids of all that is sealed, as the file has it."""
        with contextlib.closing(sqlite3.connect(f"file:{self._folder / 'inn.db'}?mode=ro", uri=True)) as file:
            return {id for (id,) in file.execute("SELECT id FROM secrets")}

    @contextlib.asynccontextmanager
    async def living(
        self,
        *,
        on_commit: Callable[[int], None] | None = None,
        faults: Faults | None = None,
        lonely: bool = False,
        at_once: int = QUICK.at_once,
    ) -> AsyncIterator[Life]:
        """One life; a `lonely` one has no line to its host. Killed in it ends it as kill -9 does, and is passed on."""
        store = await open_store(self._folder / "inn.db", self._folder / "key", on_commit=on_commit)
        host = SimHost(self.state, faults, redeem=store.secrets.redeem)
        submitter = Submitter(store.works, store.pictures, self.clock, self._draws)
        patience = replace(QUICK, at_once=at_once)
        engine = Engine(store.works, store.pictures, {} if lonely else {HOST: host}, self.clock, patience)
        launching = Launching(submitter, store.pictures, store.secrets, lambda: Draw(self._draws()))
        life = Life(store=store, host=host, submitter=submitter, launching=launching, engine=engine)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(submitter.run()), group.create_task(engine.run())]
                await self._furnish(life)
                yield life
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as several:
            killed, others = several.split(Killed)
            if others is not None or killed is None:
                raise
            raise Killed("this life was ended") from several
        finally:
            await store.close()

    async def _furnish(self, life: Life) -> None:
        """Project, network and host, with the host's facts, in the first life."""
        plan = set_up(life.cluster, [(HOST, "h1")], (), Draw(b"first"))
        if isinstance(plan, Plan):
            await life.wish(lambda c, d, n: plan)
        if life.cluster.hosts[HOST].facts is None:
            from_host = [r async for r in _first(life.host)]
            await life.store.pictures.report(from_host)


async def _first(host: SimHost) -> AsyncIterator[Any]:
    async for report in host.reports():
        yield report
        return


def footprint(lives: Lives, cluster: Cluster) -> dict[str, object]:
    """All that must be equal in the end, however the way there was; and the machine holds exactly what the rows say.

    Ids are not part of it: a wish that nobody had accepted yet is planned again, with other ids.
    """
    state = lives.state
    up = {i for i, m in cluster.machines.items() if m.phase not in (Phase.UNKNOWN, Phase.STOPPED, Phase.CRASHED)}
    assert set(state.machines) == up
    assert set(state.pool.disks) == set(cluster.volumes)
    assert {v: disk.made.over for v, disk in state.pool.disks.items()} == {
        v.id: v.over for v in cluster.volumes.values()
    }
    for instance, machine in state.machines.items():
        # What a guest writes goes where its rows say, or it would be lost with the next start.
        assert machine.action.hardware.disks() == cluster.instances[instance].hardware.disks()
    assert set(state.seeds) == set(cluster.instances)
    assert set(state.pool.templates) == set(cluster.templates)
    assert set(state.pool.memories) == set(cluster.memories)
    assert all(state.pool.disks[v].taken for m in cluster.memories.values() for v in m.volumes)
    assert not state.pool.staging
    assert not cluster.claims
    assert {p.nic for w in state.networks.applied.values() for p in w.ports} == set(cluster.nics)
    assert lives.secrets() == {i.first_boot.user_data.id for i in cluster.instances.values() if i.first_boot.user_data}
    return {
        "instances": {i.name: (i.wanted, i.size, i.id in up) for i in cluster.instances.values()},
        "volumes": sorted("frozen" if v.name == v.id else v.name for v in cluster.volumes.values()),
        "snapshots": sorted(
            (cluster.instances[s.instance].name, s.name, s.taken is not None) for s in cluster.snapshots.values()
        ),
        "notes": {i.name: _note(lives, i.hardware.disks()[0].volume) for i in cluster.instances.values()},
        "nics": sorted(n.name for n in cluster.nics.values()),
        "memories": sorted(m.baked is not None for m in cluster.memories.values()),
        "templates": {t.full_name: t.image is not None for t in cluster.templates.values()},
    }


def _note(lives: Lives, volume: VolumeId) -> bytes | None:
    """What a guest reads, or would read if it were started."""
    disks = lives.state.pool.disks
    disk = disks[volume]
    while not disk.begun and disk.made.over is not None:
        disk = disks[disk.made.over]
    found = disk.files.get("/root/note")
    return None if found is None else found.data
