"""Use cases of templates."""

from __future__ import annotations

from collections.abc import Callable

from innkeeper.access.rules import allowed
from innkeeper.control.submit import Asking, Submitter, changed
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Firmware
from innkeeper.model.host import Principal
from innkeeper.model.ids import Draw, ProjectId
from innkeeper.model.plans import Plan, Refusal
from innkeeper.model.template import Template
from innkeeper.model.work import Operation
from innkeeper.plan.names import find_instance, find_template
from innkeeper.plan.template import build, delete_template, import_file, publish
from innkeeper.plan.warm.making import cool, warm
from innkeeper.ports.store import Pictures


class Templates:
    def __init__(self, submitter: Submitter, pictures: Pictures) -> None:
        self._submitter = submitter
        self._pictures = pictures

    def list(self, who: Principal, project: ProjectId) -> tuple[Template, ...] | Refusal:
        """Everybody's and the project's own, complete ones only, by name and version."""
        refusal = allowed(who, "show", project)
        if refusal is not None:
            return refusal
        templates = self._pictures.cluster().templates.values()
        ready = (t for t in templates if t.image is not None and t.project in (None, project))
        return tuple(sorted(ready, key=lambda t: (t.name, t.version)))

    def find(self, who: Principal, project: ProjectId, word: str) -> Template | Refusal:
        return allowed(who, "show", project) or find_template(self._pictures.cluster(), project, word)

    async def build(self, who: Principal, recipe: str, asking: Asking) -> Operation | Refusal:
        refusal = allowed(who, "build-template", asking.project)
        if refusal is not None:
            return refusal
        return await self._submitter.submit(lambda cluster, draw, now: build(cluster, recipe, draw, now), asking)

    async def import_file(
        self, who: Principal, name: str, source: tuple[str, str, Firmware], asking: Asking
    ) -> Operation | Refusal:
        """The daemon opens the file, so only those may name one who may read everything anyway."""
        refusal = allowed(who, "build-template", asking.project)
        if refusal is not None:
            return refusal

        def decide(cluster: Cluster, draw: Draw, now: float) -> Plan | Refusal:
            return import_file(cluster, asking.project, name, source, draw, now)

        return await self._submitter.submit(decide, asking)

    async def publish(self, who: Principal, instance: str, name: str, asking: Asking) -> Operation | Refusal:
        refusal = allowed(who, "publish", asking.project)
        if refusal is not None:
            return refusal

        def decide(cluster: Cluster, draw: Draw, now: float) -> Plan | Refusal:
            found = find_instance(cluster, asking.project, instance)
            return found if isinstance(found, Refusal) else publish(cluster, found, name, draw, now)

        return await self._submitter.submit(decide, asking)

    async def warm(self, who: Principal, word: str, asking: Asking) -> Operation | Refusal:
        """A memory image, from which later launches go on instead of booting."""
        return await self._about_memory(who, word, asking, warm)

    async def cool(self, who: Principal, word: str, asking: Asking) -> Operation | Refusal:
        """The project's memory images of it are deleted."""
        return await self._about_memory(who, word, asking, lambda c, project, t, draw, now: cool(c, project, t))

    async def _about_memory(
        self,
        who: Principal,
        word: str,
        asking: Asking,
        decided: Callable[[Cluster, ProjectId, Template, Draw, float], Plan | Refusal],
    ) -> Operation | Refusal:
        refusal = allowed(who, "launch", asking.project)
        if refusal is not None:
            return refusal

        def decide(cluster: Cluster, draw: Draw, now: float) -> Plan | Refusal:
            found = find_template(cluster, asking.project, word)
            return found if isinstance(found, Refusal) else decided(cluster, asking.project, found, draw, now)

        return await self._submitter.submit(decide, asking)

    async def delete(self, who: Principal, word: str, asking: Asking) -> Operation | Refusal:
        refusal = allowed(who, "delete", asking.project)
        if refusal is not None:
            return refusal

        def decide(cluster: Cluster, draw: Draw, now: float) -> Plan | Refusal:
            found = find_template(cluster, asking.project, word)
            if isinstance(found, Refusal):
                return found
            if found.project is None and (forbidden := allowed(who, "build-template", None)):
                return forbidden
            return changed(found, asking) or delete_template(cluster, found)

        return await self._submitter.submit(decide, asking)
