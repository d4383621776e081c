"""Use cases of streams: commands, shells and consoles of instances. They are not durable and leave no operation."""

from __future__ import annotations

from collections.abc import Mapping

from innkeeper.access.rules import allowed
from innkeeper.model.host import Principal
from innkeeper.model.ids import HostId, ProjectId
from innkeeper.model.instance import Instance
from innkeeper.model.plans import Refusal, Why
from innkeeper.plan.names import find_instance
from innkeeper.ports.host import HostAway, NoLine, StreamPort
from innkeeper.ports.store import Pictures
from innkeeper.ports.streams import Console, ExecRequest, GuestStatus, Session


class Lines:
    def __init__(self, pictures: Pictures, hosts: Mapping[HostId, StreamPort]) -> None:
        self._pictures = pictures
        self._hosts = hosts

    async def exec(self, who: Principal, project: ProjectId, word: str, request: ExecRequest) -> Session | Refusal:
        found = self._line(who, project, word)
        if isinstance(found, Refusal):
            return found
        instance, host = found
        try:
            return await host.exec(instance.id, request)
        except (NoLine, HostAway) as reason:
            return _no_line(instance, reason)

    async def console(self, who: Principal, project: ProjectId, word: str) -> Console | Refusal:
        found = self._line(who, project, word)
        if isinstance(found, Refusal):
            return found
        instance, host = found
        try:
            return await host.console(instance.id)
        except (NoLine, HostAway) as reason:
            return _no_line(instance, reason)

    async def log(self, who: Principal, project: ProjectId, word: str) -> bytes | Refusal:
        """Also of an instance that is down."""
        found = self._line(who, project, word)
        if isinstance(found, Refusal):
            return found
        instance, host = found
        try:
            return await host.log(instance.id)
        except (NoLine, HostAway) as reason:
            return _no_line(instance, reason)

    async def guest(self, who: Principal, project: ProjectId, word: str) -> GuestStatus | Refusal:
        """What the guest says of itself now."""
        found = self._line(who, project, word)
        if isinstance(found, Refusal):
            return found
        instance, host = found
        try:
            return await host.guest(instance.id)
        except (NoLine, HostAway) as reason:
            return _no_line(instance, reason)

    def _line(self, who: Principal, project: ProjectId, word: str) -> tuple[Instance, StreamPort] | Refusal:
        refusal = allowed(who, "exec", project)
        if refusal is not None:
            return refusal
        cluster = self._pictures.cluster()
        instance = find_instance(cluster, project, word)
        if isinstance(instance, Refusal):
            return instance
        host = self._hosts.get(instance.host)
        if host is None:
            reason = f"there is no line to host {cluster.hosts[instance.host].name}"
            return Refusal(why=Why.UNAVAILABLE, reason=reason, hint="See: inn host list")
        return instance, host


def _no_line(instance: Instance, reason: NoLine | HostAway) -> Refusal:
    if isinstance(reason, HostAway):
        return Refusal(why=Why.UNAVAILABLE, reason=f"{instance.name}: {reason}", hint="See: inn host list")
    return Refusal(why=Why.CONFLICT, reason=f"{instance.name}: {reason}", hint=f"See: inn show {instance.name}")
