"""Use cases of snapshots. Making a new instance from one is a launch (launching.py)."""

from __future__ import annotations

from collections.abc import Callable

from innkeeper.access.rules import allowed
from innkeeper.control.submit import Asking, Submitter, changed
from innkeeper.model.cluster import Cluster
from innkeeper.model.host import Principal
from innkeeper.model.ids import Draw, ProjectId
from innkeeper.model.instance import Instance, Snapshot
from innkeeper.model.plans import Plan, Refusal
from innkeeper.model.work import Operation
from innkeeper.plan.disks.snapshot import delete_snapshot, restore, take
from innkeeper.plan.names import find_instance, find_snapshot
from innkeeper.ports.store import Pictures


class Snapshots:
    """`instance` and `word` are names, ids or beginnings of ids."""

    def __init__(self, submitter: Submitter, pictures: Pictures) -> None:
        self._submitter = submitter
        self._pictures = pictures

    def list(self, who: Principal, project: ProjectId, instance: str) -> tuple[Snapshot, ...] | Refusal:
        """An instance's, oldest first; those being taken too."""
        cluster = self._pictures.cluster()
        found = allowed(who, "show", project) or find_instance(cluster, project, instance)
        return found if isinstance(found, Refusal) else cluster.snapshots_by_age(found.id)

    def find(self, who: Principal, project: ProjectId, instance: str, word: str) -> Snapshot | Refusal:
        cluster = self._pictures.cluster()
        found = allowed(who, "show", project) or find_instance(cluster, project, instance)
        return found if isinstance(found, Refusal) else find_snapshot(cluster, found, word)

    async def take(self, who: Principal, instance: str, name: str | None, asking: Asking) -> Operation | Refusal:
        """Without a name it gets the next free number."""
        refusal = allowed(who, "snapshot", asking.project)
        if refusal is not None:
            return refusal

        def decide(cluster: Cluster, draw: Draw, now: float) -> Plan | Refusal:
            found = find_instance(cluster, asking.project, instance)
            return (
                found if isinstance(found, Refusal) else changed(found, asking) or take(cluster, found, name, draw, now)
            )

        return await self._submitter.submit(decide, asking)

    async def restore(
        self, who: Principal, instance: str, word: str, asking: Asking, *, restart: bool
    ) -> Operation | Refusal:
        def on(cluster: Cluster, owner: Instance, snapshot: Snapshot, draw: Draw) -> Plan | Refusal:
            return changed(snapshot, asking) or restore(cluster, owner, snapshot, draw, restart=restart)

        return await self._one(who, "restore", (instance, word), asking, on)

    async def delete(self, who: Principal, instance: str, word: str, asking: Asking) -> Operation | Refusal:
        def on(cluster: Cluster, owner: Instance, snapshot: Snapshot, draw: Draw) -> Plan | Refusal:
            return changed(snapshot, asking) or delete_snapshot(cluster, snapshot)

        return await self._one(who, "delete", (instance, word), asking, on)

    async def _one(
        self,
        who: Principal,
        deed: str,
        words: tuple[str, str],
        asking: Asking,
        decide: Callable[[Cluster, Instance, Snapshot, Draw], Plan | Refusal],
    ) -> Operation | Refusal:
        refusal = allowed(who, deed, asking.project)
        if refusal is not None:
            return refusal

        def on_picture(cluster: Cluster, draw: Draw, now: float) -> Plan | Refusal:
            instance = find_instance(cluster, asking.project, words[0])
            if isinstance(instance, Refusal):
                return instance
            snapshot = find_snapshot(cluster, instance, words[1])
            return snapshot if isinstance(snapshot, Refusal) else decide(cluster, instance, snapshot, draw)

        return await self._submitter.submit(on_picture, asking)
