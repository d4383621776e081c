"""Use cases of instances: may they, what is now, submit."""

from __future__ import annotations

from collections.abc import Callable

from innkeeper.access.rules import allowed
from innkeeper.control.submit import Asking, Submitter, changed
from innkeeper.model.cluster import Cluster
from innkeeper.model.host import Principal
from innkeeper.model.ids import Draw, ProjectId
from innkeeper.model.instance import Instance
from innkeeper.model.plans import Plan, Refusal
from innkeeper.model.work import Operation
from innkeeper.plan.delete import delete
from innkeeper.plan.names import find_instance
from innkeeper.plan.power import GRACE_S, pause, rename, restart, resume, start, stop
from innkeeper.ports.store import Pictures


class Instances:
    """Every method answers with an accepted operation or a refusal; none waits for the work itself."""

    def __init__(self, submitter: Submitter, pictures: Pictures) -> None:
        self._submitter = submitter
        self._pictures = pictures

    # --- looking

    def find(self, who: Principal, project: ProjectId, word: str) -> Instance | Refusal:
        return allowed(who, "show", project) or find_instance(self._pictures.cluster(), project, word)

    def all(self, who: Principal, project: ProjectId) -> tuple[Instance, ...] | Refusal:
        """Those being launched or deleted too."""
        refusal = allowed(who, "show", project)
        if refusal is not None:
            return refusal
        return tuple(i for i in self._pictures.cluster().instances.values() if i.project == project)

    # --- standing instances

    async def start(self, who: Principal, word: str, asking: Asking) -> Operation | Refusal:
        return await self._one(who, "start", word, asking, start)

    async def stop(
        self, who: Principal, word: str, asking: Asking, *, force: bool, grace_s: float = GRACE_S
    ) -> Operation | Refusal:
        return await self._one(who, "stop", word, asking, lambda c, i: stop(c, i, force=force, grace_s=grace_s))

    async def restart(
        self, who: Principal, word: str, asking: Asking, *, force: bool, grace_s: float = GRACE_S
    ) -> Operation | Refusal:
        return await self._one(who, "restart", word, asking, lambda c, i: restart(c, i, force=force, grace_s=grace_s))

    async def pause(self, who: Principal, word: str, asking: Asking) -> Operation | Refusal:
        return await self._one(who, "pause", word, asking, pause)

    async def resume(self, who: Principal, word: str, asking: Asking) -> Operation | Refusal:
        return await self._one(who, "resume", word, asking, resume)

    async def rename(self, who: Principal, word: str, name: str, asking: Asking) -> Operation | Refusal:
        return await self._one(who, "rename", word, asking, lambda c, i: rename(c, i, name))

    async def delete(self, who: Principal, word: str, asking: Asking, *, force: bool) -> Operation | Refusal:
        return await self._one(who, "delete", word, asking, lambda c, i: delete(c, i, force=force))

    async def _one(
        self,
        who: Principal,
        deed: str,
        word: str,
        asking: Asking,
        decide: Callable[[Cluster, Instance], Plan | Refusal],
    ) -> Operation | Refusal:
        refusal = allowed(who, deed, asking.project)
        if refusal is not None:
            return refusal

        def on_picture(cluster: Cluster, draw: Draw, now: float) -> Plan | Refusal:
            instance = find_instance(cluster, asking.project, word)
            return instance if isinstance(instance, Refusal) else changed(instance, asking) or decide(cluster, instance)

        return await self._submitter.submit(on_picture, asking)
