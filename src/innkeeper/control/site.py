"""Use cases of the site: finding a project, looking at hosts and networks."""

from __future__ import annotations

from innkeeper.access.rules import allowed
from innkeeper.model.host import Host, Principal
from innkeeper.model.ids import Kind, ProjectId
from innkeeper.model.network import Network
from innkeeper.model.plans import Refusal, Why
from innkeeper.plan.names import find_host, find_network
from innkeeper.ports.store import Pictures

_OTHER = "Name another: --project, INN_PROJECT"


class Site:
    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures

    def project(self, who: Principal, name: str) -> ProjectId | Refusal:
        """One that may not be seen is refused in the words for one that does not exist."""
        found = self._pictures.cluster().named(Kind.PROJECT, None, name)
        if found is None or allowed(who, "show", ProjectId(found)) is not None:
            return Refusal(why=Why.NOT_FOUND, reason=f"there is no project named {name}", hint=_OTHER)
        return ProjectId(found)

    def hosts(self, who: Principal) -> tuple[Host, ...] | Refusal:
        """For administrators: how much a host has left tells of its other tenants."""
        return allowed(who, "host", None) or tuple(self._pictures.cluster().hosts.values())

    def host(self, who: Principal, word: str) -> Host | Refusal:
        return allowed(who, "host", None) or find_host(self._pictures.cluster(), word)

    def networks(self, who: Principal, project: ProjectId) -> tuple[Network, ...] | Refusal:
        refusal = allowed(who, "show", project)
        if refusal is not None:
            return refusal
        return tuple(n for n in self._pictures.cluster().networks.values() if n.project == project)

    def network(self, who: Principal, project: ProjectId, word: str) -> Network | Refusal:
        return allowed(who, "show", project) or find_network(self._pictures.cluster(), project, word)
