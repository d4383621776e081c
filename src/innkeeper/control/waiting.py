"""Waiting for what an instance comes to: its agent, its address, cloud-init, running, stopped, gone.

No polling: each wait looks at the picture again whenever the feed says that something changed.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum

from innkeeper.access.rules import allowed
from innkeeper.model.cluster import Cluster
from innkeeper.model.host import Principal
from innkeeper.model.ids import InstanceId, ProjectId
from innkeeper.model.instance import Instance
from innkeeper.model.observed import MachineState, Phase
from innkeeper.model.plans import Refusal, Why
from innkeeper.plan.names import find_instance
from innkeeper.plan.power import DOWN, returns
from innkeeper.ports.store import Journal, Pictures


class Until(StrEnum):
    AGENT = "agent"  # the guest agent answers
    IP = "ip"  # the guest has its address
    CLOUD_INIT = "cloud-init"  # cloud-init has finished
    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


_NOT_YET = {
    Until.AGENT: "its agent does not answer",
    Until.IP: "it has no address",
    Until.CLOUD_INIT: "cloud-init has not finished",
    Until.RUNNING: "it does not run",
    Until.STOPPED: "it has not stopped",
    Until.DELETED: "it is still there",
}


class Waiting:
    def __init__(self, pictures: Pictures, journal: Journal) -> None:
        self._pictures = pictures
        self._journal = journal

    async def wait(
        self, who: Principal, project: ProjectId, word: str, until: Until, timeout_s: float
    ) -> Instance | Refusal | None:
        """The instance once it is so; a refusal when it never will be, or when time is up.

        None: it is gone, where that was waited for.
        """
        refusal = allowed(who, "show", project)
        if refusal is not None:
            return refusal
        cluster = self._pictures.cluster()
        found = find_instance(cluster, project, word)
        if isinstance(found, Refusal):
            return None if until is Until.DELETED and found.why is Why.NOT_FOUND else found
        try:
            async with asyncio.timeout(timeout_s):
                return await self._until(found.id, until, cluster.revision)
        except TimeoutError:
            now = self._pictures.cluster()
            hint = f"It is {now.phase(found.id).value}. See: inn logs {found.name}"
            reason = f"{found.name}: {_NOT_YET[until]} after {timeout_s:g} s"
            return Refusal(why=Why.UNAVAILABLE, reason=reason, hint=hint)

    async def _until(self, instance: InstanceId, until: Until, revision: int) -> Instance | Refusal | None:
        answer = _look(self._pictures.cluster(), instance, until)
        if not isinstance(answer, _NotYet):
            return answer
        async for _ in self._journal.events(revision):
            answer = _look(self._pictures.cluster(), instance, until)
            if not isinstance(answer, _NotYet):
                return answer
        raise AssertionError("the feed of events does not end")


class _NotYet:
    pass


def _look(cluster: Cluster, instance: InstanceId, until: Until) -> Instance | Refusal | _NotYet | None:
    row, seen = cluster.instances.get(instance), cluster.machines.get(instance)
    if row is None:
        if until is Until.DELETED:
            return None
        return Refusal(why=Why.NOT_FOUND, reason=f"{instance} was deleted meanwhile")
    up, busy = seen is not None and seen.phase not in DOWN, row.ref in cluster.claims
    if until is Until.DELETED:
        return _NotYet()
    if until is Until.STOPPED:
        return _NotYet() if up or (busy and seen is None) else row
    if seen is not None and _is_so(seen, until):
        return row
    returning = seen is not None and returns(row, seen)
    return _never(cluster, row, until, down=not (up or busy or returning)) or _NotYet()


def _never(cluster: Cluster, row: Instance, until: Until, *, down: bool) -> Refusal | None:
    """Why it will not come to that by waiting; None while it may."""
    seen = cluster.machines.get(row.id)
    if down:
        said = "stopped" if seen is None else f"{seen.phase.value}: {seen.reason}".removesuffix(": ")
        hint = f"Start it: inn start {row.name}; see: inn logs {row.name}"
        return Refusal(why=Why.CONFLICT, reason=f"{row.name} is {said}", hint=hint)
    if seen is not None and seen.phase is Phase.PANICKED:
        hint = f"See: inn logs {row.name}; then: inn restart {row.name} --force"
        return Refusal(why=Why.CONFLICT, reason=f"the kernel of {row.name} has panicked", hint=hint)
    if until in (Until.AGENT, Until.IP):  # it is the agent that tells the address
        return _no_agent(cluster, row)
    if until is not Until.CLOUD_INIT:
        return None
    if seen is not None and seen.cloud_init.startswith("error"):
        hint = f"inn exec {row.name} -- cloud-init status --long"
        return Refusal(why=Why.CONFLICT, reason=f"cloud-init in {row.name}: {seen.cloud_init}", hint=hint)
    template = cluster.templates.get(row.template)
    if template is not None and template.image is not None and template.image.lacks_cloud_init:
        reason = f"{row.name} has no cloud-init: its template {template.full_name} comes without"
        return Refusal(why=Why.CONFLICT, reason=reason, hint=f"Wait for its agent: inn wait {row.name}")
    return None


def _no_agent(cluster: Cluster, row: Instance) -> Refusal | None:
    """Asked while none answers. User-data may be just about to install one, so with that it is waited for."""
    template = cluster.templates.get(row.template)
    if template is None or template.image is None or template.image.agent or row.first_boot.user_data is not None:
        return None
    reason = f"no agent answers in {row.name}, and its template {template.full_name} is not known to bring one"
    hint = f"Use its console: inn console {row.name}; qemu-guest-agent, once installed there, is used when it answers"
    return Refusal(why=Why.CONFLICT, reason=reason, hint=hint)


def _is_so(seen: MachineState, until: Until) -> bool:
    match until:
        case Until.AGENT:
            return seen.agent
        case Until.IP:
            return bool(seen.addresses)
        case Until.CLOUD_INIT:
            return seen.cloud_init.startswith("done")
        case _:
            return seen.phase in (Phase.RUNNING, Phase.STARTING)
