"""Watching hosts: their reports go into the store, their samples to the monitor, and what they show is acted on.

The only writer of observed state besides an operation's own records. A machine that ended by itself is settled at
once, an ephemeral one deleted; on a timer, at start and after trouble each host's inventory is held against the
picture and repaired.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from innkeeper.control.monitor import Monitor
from innkeeper.control.submit import Asking, Submitter
from innkeeper.model.cluster import Cluster
from innkeeper.model.host import Principal, Role
from innkeeper.model.ids import Draw, HostId, InstanceId, OperationId, ProjectId
from innkeeper.model.observed import Ended, MachineState, Sample, State, StepProgress
from innkeeper.model.plans import Plan, Refusal, Why
from innkeeper.plan.delete import ending, remove
from innkeeper.plan.power import WANTED_UP
from innkeeper.plan.repair import repair, settle
from innkeeper.ports.clock import Clock
from innkeeper.ports.host import HostAway, HostPort
from innkeeper.ports.store import Pictures, StoreFailed
from innkeeper.ports.tasks import steady

log = logging.getLogger(__name__)

OURSELVES = Principal(name="innkeeper", role=Role.ADMINISTRATOR)
# More long steps than run at once on any host.
_PROGRESS_KEPT = 256
# A host that goes down ends QEMUs by signals, and us within seconds. Only a crash that we outlive by this long is one.
PAST_DOUBT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often we look by ourselves."""

    repair_s: float = 60.0
    tidy_s: float = 1.0


class Watch:
    def __init__(
        self, hosts: Mapping[HostId, HostPort], pictures: Pictures, submitter: Submitter, monitor: Monitor, clock: Clock
    ) -> None:
        self._hosts = hosts
        self._pictures = pictures
        self._submitter = submitter
        self._monitor = monitor
        self._clock = clock
        self._progress: dict[tuple[OperationId, int], StepProgress] = {}

    def progress(self, operation: OperationId, step: int) -> StepProgress | None:
        """How far a long step is, as last reported; forgotten by a restart."""
        return self._progress.get((operation, step))

    async def run(self, project: ProjectId, rhythm: Rhythm) -> None:
        """Endlessly, for every host."""
        async with asyncio.TaskGroup() as group:
            for host in self._hosts.values():
                listen, mend = partial(self._listen, host, project), partial(self._mend, host, project, rhythm.repair_s)
                group.create_task(steady(f"listening to {host.id}", listen))
                group.create_task(steady(f"repairing {host.id}", mend))
            group.create_task(steady("tidying", partial(self._tidy, project, rhythm.tidy_s)))

    # --- reports

    async def _listen(self, host: HostPort, project: ProjectId) -> None:
        async for report in host.reports():
            match report:
                case Sample():
                    self._monitor.took(report)
                case StepProgress():
                    self._told(report)
                case _:
                    await self._keep(report, project)

    def _told(self, report: StepProgress) -> None:
        """The newest stand last; those that nobody has told of for longest are forgotten."""
        step = (report.operation, report.step)
        self._progress.pop(step, None)
        self._progress[step] = report
        if len(self._progress) > _PROGRESS_KEPT:
            del self._progress[next(iter(self._progress))]

    async def _keep(self, state: State, project: ProjectId) -> None:
        while True:
            try:
                await self._pictures.report([state])
                break
            except StoreFailed as failed:
                log.error("a report of %s waits for the store: %s", state.host, failed)
                await self._clock.sleep(10)
        if isinstance(state, MachineState) and state.ended is Ended.GUEST:
            await self._settle(state.instance, project)

    async def _settle(self, instance: InstanceId, project: ProjectId) -> None:
        """Of one that shut itself down, or has crashed. After a host's boot repair decides: it starts those with
        autostart.
        """

        def decide(cluster: Cluster, draw: Draw, now: float) -> Plan | Refusal:
            row, seen = cluster.instances.get(instance), cluster.machines.get(instance)
            if row is None or seen is None or row.ref in cluster.claims or row.wanted not in WANTED_UP:
                return _NOTHING
            return settle(row) if seen.ended in (Ended.GUEST, Ended.CRASH) else _NOTHING

        await self._ask(decide, project)

    # --- repair

    async def _mend(self, host: HostPort, project: ProjectId, every_s: float) -> None:
        while True:
            try:
                await self.repair(host, project)
            except StoreFailed as failed:
                log.error("%s cannot be repaired: %s", host.id, failed)
            await self._clock.sleep(every_s)

    async def repair(self, host: HostPort, project: ProjectId) -> None:
        """Look once and submit what mends the difference."""
        before = self._pictures.cluster()
        try:
            inventory = await host.inventory()
        except HostAway as away:
            log.warning("%s cannot be looked at: %s", host.id, away)
            return
        for name in inventory.leftovers:
            log.warning("%s holds %s, half-made by nobody any more; its agent removes it when it starts", host.id, name)
        if self._pictures.cluster().revision == before.revision:
            await self._pictures.report(inventory.machines)
        for plan in repair(before, inventory, self._pictures.cluster()):
            log.info("repair: %s", plan.title)
            await self._ask(_the(plan), project)

    # --- what ends by itself

    async def _tidy(self, project: ProjectId, every_s: float) -> None:
        crashed: dict[InstanceId, float] = {}  # since when this life of ours has known of it
        while True:
            cluster, moment = self._pictures.cluster(), self._clock.monotonic()
            down = (m.instance for m in cluster.machines.values() if m.ended is Ended.CRASH)
            crashed = {instance: crashed.get(instance, moment) for instance in down}
            doubtful = {instance for instance, since in crashed.items() if moment - since < PAST_DOUBT_S}
            for instance in crashed.keys() - doubtful:
                if cluster.instances[instance].wanted in WANTED_UP:
                    await self._settle(instance, project)
            for leaving in ending(cluster, self._clock.now(), doubtful):
                await self._ask(_deleting(leaving.id), project)
            await self._clock.sleep(every_s)

    async def _ask(self, decide: Callable[[Cluster, Draw, float], Plan | Refusal], project: ProjectId) -> None:
        asking = Asking(principal=OURSELVES.name, project=project, at=self._clock.now())
        answer = await self._submitter.submit(decide, asking)
        if isinstance(answer, Refusal) and answer is not _NOTHING:
            log.info("not now: %s", answer)


_NOTHING = Refusal(why=Why.CONFLICT, reason="nothing to do")


def _the(plan: Plan) -> Callable[[Cluster, Draw, float], Plan | Refusal]:
    """A plan that was made already: if the world has moved since, the next look makes a better one."""
    first = [plan]
    return lambda cluster, draw, now: first.pop() if first else _NOTHING


def _deleting(instance: InstanceId) -> Callable[[Cluster, Draw, float], Plan | Refusal]:
    def decide(cluster: Cluster, draw: Draw, now: float) -> Plan | Refusal:
        row = cluster.instances.get(instance)
        if row is None or row.ref in cluster.claims or row not in ending(cluster, now):
            return _NOTHING
        return remove(cluster, row)

    return decide
