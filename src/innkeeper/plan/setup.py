"""Set-up: the rows that must stand before anything can be launched, and the host's own."""

from __future__ import annotations

from collections.abc import Iterable

from innkeeper.model.cluster import Cluster
from innkeeper.model.host import Host, Project
from innkeeper.model.ids import Draw, HostId, Kind, ProjectId
from innkeeper.model.plans import Change, Expect, Plan, Put, Refusal, Verb
from innkeeper.plan.network import default_network

DEFAULT_PROJECT = "default"


def default_project(cluster: Cluster) -> ProjectId | None:
    found = cluster.named(Kind.PROJECT, None, DEFAULT_PROJECT)
    return None if found is None else ProjectId(found)


def set_up(
    cluster: Cluster, hosts: Iterable[tuple[HostId, str]], ranges_in_use: Iterable[str], draw: Draw
) -> Plan | Refusal | None:
    """Project `default` with its network, and a row for each host; None when all of it stands."""
    changes: list[Change] = []
    project = default_project(cluster)
    if project is None:
        row = Project(id=ProjectId(draw.id("p")), name=DEFAULT_PROJECT)
        project = row.id
        changes.append(Put(noun=row))
    if cluster.named(Kind.NETWORK, project, "default") is None:
        network = default_network(project, ranges_in_use, draw)
        if isinstance(network, Refusal):
            return network
        changes.append(Put(noun=network))
    changes += [Put(noun=Host(id=host, name=name)) for host, name in hosts if host not in cluster.hosts]
    if not changes:
        return None
    refs = tuple(c.noun.ref for c in changes if isinstance(c, Put))
    return Plan(
        verb=Verb.SET_UP,
        title="set up " + ", ".join(sorted({r.kind.value for r in refs})),
        subjects=refs,
        expects=tuple(Expect(ref=r, generation=None) for r in refs),
        claims=refs,
        accept=tuple(changes),
    )
