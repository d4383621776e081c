"""Warming by itself: after a template's first launch a memory image is made of it, and outdated ones are made anew.

In the background, one at a time, and never a second time soon where it failed: launches boot meanwhile, as they would.
"""

from __future__ import annotations

import logging

from innkeeper.control.submit import Asking, Decide, Submitter
from innkeeper.model.cluster import Cluster
from innkeeper.model.host import Principal, Role
from innkeeper.model.ids import Draw, HostId, MemoryImageId, ProjectId, TemplateId
from innkeeper.model.plans import Plan, Refusal, Why
from innkeeper.plan.warm.making import drop, due, outdated, warm
from innkeeper.ports.clock import Clock
from innkeeper.ports.store import Pictures

log = logging.getLogger(__name__)

OURSELVES = Principal(name="innkeeper", role=Role.ADMINISTRATOR)
LOOK_EVERY_S = 2.0
# One that failed took minutes, and will mostly fail again; by hand it can be tried at once.
TRY_AGAIN_S = 3600.0
_NOTHING = Refusal(why=Why.CONFLICT, reason="nothing to do")


class Warming:
    def __init__(self, submitter: Submitter, pictures: Pictures, clock: Clock) -> None:
        self._submitter = submitter
        self._pictures = pictures
        self._clock = clock
        self._tried: dict[tuple[ProjectId, TemplateId, HostId], float] = {}

    async def run(self) -> None:
        """Endlessly."""
        looked_at = -1
        while True:
            cluster = self._pictures.cluster()
            if cluster.revision != looked_at:
                looked_at = cluster.revision
                await self._look(cluster)
            await self._clock.sleep(LOOK_EVERY_S)

    async def _look(self, cluster: Cluster) -> None:
        for memory in tuple(outdated(cluster)):
            await self._ask(_dropping(memory.id), memory.project)
        now = self._clock.monotonic()
        for project, template, host in due(cluster):
            tried = self._tried.get((project, template.id, host))
            if tried is None or now - tried > TRY_AGAIN_S:
                self._tried[project, template.id, host] = now
                await self._ask(_warming(project, template.id), project)
                return  # the next one once this one is made

    async def _ask(self, decide: Decide, project: ProjectId) -> None:
        asking = Asking(principal=OURSELVES.name, project=project, at=self._clock.now())
        answer = await self._submitter.submit(decide, asking)
        if isinstance(answer, Refusal) and answer is not _NOTHING:
            log.info("no memory image is made now: %s", answer)


def _warming(project: ProjectId, template: TemplateId) -> Decide:
    def decide(cluster: Cluster, draw: Draw, now: float) -> Plan | Refusal:
        found = cluster.templates.get(template)
        if found is None or found.image is None or found.ref in cluster.claims:
            return _NOTHING
        return warm(cluster, project, found, draw, now)

    return decide


def _dropping(memory: MemoryImageId) -> Decide:
    def decide(cluster: Cluster, draw: Draw, now: float) -> Plan | Refusal:
        found = cluster.memories.get(memory)
        if found is None or found.ref in cluster.claims:
            return _NOTHING
        return drop(cluster, (found,))

    return decide
