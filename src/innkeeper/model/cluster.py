"""One immutable picture of everything at one revision, which planners look at and nobody changes.

A successor shares all but what changed with its predecessor (hash array mapped tries), so that a launch never
re-reads the world. Indexes are kept with each change: names, usage per host, addresses per network, what belongs to
what.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, assert_never

from immutables import Map

from innkeeper.model.host import Host, Project
from innkeeper.model.ids import (
    HostId,
    InstanceId,
    Kind,
    MemoryImageId,
    NetworkId,
    NicId,
    OperationId,
    ProjectId,
    Ref,
    SnapshotId,
    TemplateId,
    VolumeId,
)
from innkeeper.model.instance import Instance, Size, Snapshot, Volume, Wanted
from innkeeper.model.network import Network, Nic
from innkeeper.model.observed import HostState, MachineState, MemoryState, Phase, SnapshotState, State, TemplateState
from innkeeper.model.plans import Change, Drop, Noun, Put
from innkeeper.model.template import MemoryImage, Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a host has promised."""

    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    instances: int = 0

    def plus(self, size: Size, sign: int, instances: int = 1) -> Usage:
        return Usage(
            vcpus=self.vcpus + sign * size.vcpus,
            memory_mib=self.memory_mib + sign * size.memory_mib,
            disk_gib=self.disk_gib + sign * size.disk_gib,
            instances=self.instances + sign * instances,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """`names` maps (kind, project or "", name) to an id; `addresses` and `macs` map to the NIC that holds them.

    `kept_by` maps a frozen volume to the snapshot or memory image that it belongs to, `above` to the volumes that
    stand over it.
    """

    revision: int = 0
    projects: Map[ProjectId, Project] = Map()
    hosts: Map[HostId, Host] = Map()
    templates: Map[TemplateId, Template] = Map()
    networks: Map[NetworkId, Network] = Map()
    instances: Map[InstanceId, Instance] = Map()
    volumes: Map[VolumeId, Volume] = Map()
    nics: Map[NicId, Nic] = Map()
    snapshots: Map[SnapshotId, Snapshot] = Map()
    memories: Map[MemoryImageId, MemoryImage] = Map()
    machines: Map[InstanceId, MachineState] = Map()
    claims: Map[Ref, OperationId] = Map()
    names: Map[tuple[Kind, str, str], str] = Map()
    usage: Map[HostId, Usage] = Map()
    addresses: Map[NetworkId, Map[str, NicId]] = Map()
    macs: Map[str, NicId] = Map()
    uid_slots: Map[HostId, Map[int, InstanceId]] = Map()
    nics_of: Map[InstanceId, tuple[NicId, ...]] = Map()
    volumes_of: Map[InstanceId, tuple[VolumeId, ...]] = Map()
    nics_on: Map[NetworkId, Map[NicId, None]] = Map()
    users_of: Map[TemplateId, Map[str, None]] = Map()
    snapshots_of: Map[InstanceId, Map[SnapshotId, None]] = Map()
    memories_of: Map[TemplateId, Map[MemoryImageId, None]] = Map()
    kept_by: Map[VolumeId, SnapshotId | MemoryImageId] = Map()
    above: Map[VolumeId, Map[VolumeId, None]] = Map()

    # --- looking

    def get(self, ref: Ref) -> Noun | None:
        found: Noun | None = getattr(self, _TABLES[ref.kind]).get(ref.id)
        return found

    def generation(self, ref: Ref) -> int | None:
        noun = self.get(ref)
        return None if noun is None else noun.generation

    def named(self, kind: Kind, project: ProjectId | None, name: str) -> str | None:
        """The id of the object with this name, or None."""
        return self.names.get((kind, project or "", name))

    def phase(self, instance: InstanceId) -> Phase:
        state = self.machines.get(instance)
        return Phase.UNKNOWN if state is None else state.phase

    def cards(self, instance: InstanceId) -> tuple[Nic, ...]:
        return tuple(self.nics[n] for n in self.nics_of.get(instance, ()))

    def disks(self, instance: InstanceId) -> tuple[Volume, ...]:
        return tuple(self.volumes[v] for v in self.volumes_of.get(instance, ()))

    def snapshots_by_age(self, instance: InstanceId) -> tuple[Snapshot, ...]:
        """An instance's snapshots, oldest first."""
        held: Map[SnapshotId, None] = self.snapshots_of.get(instance, Map())
        return tuple(sorted((self.snapshots[s] for s in held), key=lambda s: (s.created_at, s.id)))

    def below(self, volume: VolumeId) -> tuple[VolumeId, ...]:
        """The frozen volumes under one, from the top down."""
        found: list[VolumeId] = []
        standing = self.volumes[volume].over
        while standing is not None:
            found.append(standing)
            standing = self.volumes[standing].over
        return tuple(found)

    def present_on(self, host: HostId) -> tuple[Instance, ...]:
        """Instances placed on a host that are not on their way out, by id."""
        held = self.uid_slots.get(host, Map())
        found = (self.instances[i] for i in held.values())
        return tuple(sorted((i for i in found if i.wanted is not Wanted.ABSENT), key=lambda i: i.id))

    # --- following

    def after(self, changes: Iterable[Change], revision: int) -> Cluster:
        """The next picture. A `Put` of a row that stands replaces it, indexes included."""
        cluster = self
        for change in changes:
            ref = change.ref if isinstance(change, Drop) else change.noun.ref
            old = cluster.get(ref)
            if old is not None:
                cluster = _without(cluster, old)
            if isinstance(change, Put):
                cluster = _with(cluster, change.noun)
            elif isinstance(old, Instance) and old.id in cluster.machines:
                cluster = replace(cluster, machines=cluster.machines.delete(old.id))
        return replace(cluster, revision=revision)

    def claimed(self, refs: Iterable[Ref], operation: OperationId | None) -> Cluster:
        """Claims taken by an operation, or released with None."""
        claims = self.claims.mutate()
        for ref in refs:
            if operation is None:
                claims.pop(ref, None)
            else:
                claims[ref] = operation
        return replace(self, claims=claims.finish())

    def seen(self, state: State) -> Cluster:
        """The picture with a newer report; an older one changes nothing."""
        match state:
            case MachineState():
                known = self.machines.get(state.instance)
                if state.instance not in self.instances or (known is not None and known.seq >= state.seq):
                    return self
                return replace(self, machines=self.machines.set(state.instance, state))
            case TemplateState() | SnapshotState() | MemoryState():
                return _completed(self, state)
            case HostState():
                host = self.hosts.get(state.host)
                if host is None:
                    return self
                return replace(self, hosts=self.hosts.set(host.id, replace(host, facts=state.facts)))
            case _:
                assert_never(state)


def _completed(cluster: Cluster, state: TemplateState | SnapshotState | MemoryState) -> Cluster:
    """What is made on a host is told once it is whole."""
    match state:
        case TemplateState():
            template = cluster.templates.get(state.template)
            if template is None or template.image == state.image:
                return cluster
            whole = replace(template, image=state.image)
            return replace(cluster, templates=cluster.templates.set(template.id, whole))
        case SnapshotState():
            snapshot = cluster.snapshots.get(state.snapshot)
            if snapshot is None or snapshot.taken is not None:
                return cluster
            taken = replace(snapshot, taken=state.taken)
            return replace(cluster, snapshots=cluster.snapshots.set(snapshot.id, taken))
        case MemoryState():
            memory = cluster.memories.get(state.memory)
            if memory is None or memory.baked == state.baked:
                return cluster
            baked = replace(memory, baked=state.baked)
            return replace(cluster, memories=cluster.memories.set(memory.id, baked))
        case _:
            assert_never(state)


_TABLES: dict[Kind, str] = {
    Kind.PROJECT: "projects",
    Kind.HOST: "hosts",
    Kind.TEMPLATE: "templates",
    Kind.NETWORK: "networks",
    Kind.INSTANCE: "instances",
    Kind.VOLUME: "volumes",
    Kind.NIC: "nics",
    Kind.SNAPSHOT: "snapshots",
    Kind.MEMORY: "memories",
}


def name_key(noun: Noun) -> tuple[Kind, str, str]:
    """Under which name an object is unique. Templates of one name differ by version.

    Volumes, NICs and snapshots live under an instance.
    """
    project = getattr(noun, "project", None) or ""
    name = noun.full_name if isinstance(noun, Template | Snapshot) else noun.name
    return (noun.ref.kind, project, name)


def _nested_set(outer: Map[Any, Map[Any, Any]], key: Any, inner_key: Any, value: Any) -> Map[Any, Map[Any, Any]]:
    return outer.set(key, outer.get(key, Map()).set(inner_key, value))


def _nested_drop(outer: Map[Any, Map[Any, Any]], key: Any, inner_key: Any, value: Any) -> Map[Any, Map[Any, Any]]:
    inner = _drop(outer.get(key, Map()), inner_key, value)
    if inner:
        return outer.set(key, inner)
    return outer.delete(key) if key in outer else outer


def _drop(held: Map[Any, Any], key: Any, value: Any) -> Map[Any, Any]:
    """Without this entry, unless it is another's by now: two objects may swap what they hold within one plan."""
    return held.delete(key) if key in held and held[key] == value else held


def _held_by(memory: MemoryImage) -> Size:
    """A memory image stays in its host's memory. Its disks are as those of snapshots: not promised to anybody."""
    return Size(vcpus=0, memory_mib=memory.size.memory_mib, disk_gib=0)


def _using(cluster: Cluster, host: HostId, size: Size, sign: int, instances: int = 1) -> Map[HostId, Usage]:
    used = cluster.usage.get(host, Usage()).plus(size, sign, instances)
    if used != Usage():
        return cluster.usage.set(host, used)
    return cluster.usage.delete(host) if host in cluster.usage else cluster.usage


def _kept_no_more(cluster: Cluster, keeper: Snapshot | MemoryImage) -> Map[VolumeId, SnapshotId | MemoryImageId]:
    kept = cluster.kept_by
    for volume in keeper.volumes:
        kept = _drop(kept, volume, keeper.id)
    return kept


def _with(cluster: Cluster, noun: Noun) -> Cluster:
    table = _TABLES[noun.ref.kind]
    changed: dict[str, Any] = {
        table: getattr(cluster, table).set(noun.ref.id, noun),
        "names": cluster.names.set(name_key(noun), noun.ref.id),
    }
    match noun:
        case Instance():
            changed["usage"] = _using(cluster, noun.host, noun.size, 1)
            changed["uid_slots"] = _nested_set(cluster.uid_slots, noun.host, noun.uid_slot, noun.id)
            changed["users_of"] = _nested_set(cluster.users_of, noun.template, noun.id, None)
        case Volume():
            if noun.instance is not None:
                mine = cluster.volumes_of.get(noun.instance, ())
                changed["volumes_of"] = cluster.volumes_of.set(noun.instance, tuple(sorted({*mine, noun.id})))
            if noun.over is not None:
                changed["above"] = _nested_set(cluster.above, noun.over, noun.id, None)
        case Snapshot():
            changed["snapshots_of"] = _nested_set(cluster.snapshots_of, noun.instance, noun.id, None)
            changed["kept_by"] = cluster.kept_by.update(dict.fromkeys(noun.volumes, noun.id))
        case MemoryImage():
            changed["usage"] = _using(cluster, noun.host, _held_by(noun), 1, instances=0)
            changed["memories_of"] = _nested_set(cluster.memories_of, noun.template, noun.id, None)
            changed["kept_by"] = cluster.kept_by.update(dict.fromkeys(noun.volumes, noun.id))
        case Nic():
            mine_nics = cluster.nics_of.get(noun.instance, ())
            changed["nics_of"] = cluster.nics_of.set(noun.instance, tuple(sorted({*mine_nics, noun.id})))
            changed["nics_on"] = _nested_set(cluster.nics_on, noun.network, noun.id, None)
            changed["macs"] = cluster.macs.set(noun.mac, noun.id)
            changed["addresses"] = cluster.addresses
            for address in noun.addresses:
                changed["addresses"] = _nested_set(changed["addresses"], noun.network, address, noun.id)
        case _:
            pass
    return replace(cluster, **changed)


def _without(cluster: Cluster, noun: Noun) -> Cluster:
    table = _TABLES[noun.ref.kind]
    changed: dict[str, Any] = {
        table: getattr(cluster, table).delete(noun.ref.id),
        "names": _drop(cluster.names, name_key(noun), noun.ref.id),
    }
    match noun:
        case Instance():
            changed["usage"] = _using(cluster, noun.host, noun.size, -1)
            changed["uid_slots"] = _nested_drop(cluster.uid_slots, noun.host, noun.uid_slot, noun.id)
            changed["users_of"] = _nested_drop(cluster.users_of, noun.template, noun.id, None)
        case Volume():
            if noun.instance is not None:
                left = tuple(v for v in cluster.volumes_of.get(noun.instance, ()) if v != noun.id)
                of_volumes = cluster.volumes_of
                changed["volumes_of"] = (
                    of_volumes.set(noun.instance, left) if left else of_volumes.delete(noun.instance)
                )
            if noun.over is not None:
                changed["above"] = _nested_drop(cluster.above, noun.over, noun.id, None)
        case Snapshot():
            changed["snapshots_of"] = _nested_drop(cluster.snapshots_of, noun.instance, noun.id, None)
            changed["kept_by"] = _kept_no_more(cluster, noun)
        case MemoryImage():
            changed["usage"] = _using(cluster, noun.host, _held_by(noun), -1, instances=0)
            changed["memories_of"] = _nested_drop(cluster.memories_of, noun.template, noun.id, None)
            changed["kept_by"] = _kept_no_more(cluster, noun)
        case Nic():
            left_nics = tuple(n for n in cluster.nics_of.get(noun.instance, ()) if n != noun.id)
            of = cluster.nics_of
            changed["nics_of"] = of.set(noun.instance, left_nics) if left_nics else of.delete(noun.instance)
            changed["nics_on"] = _nested_drop(cluster.nics_on, noun.network, noun.id, None)
            changed["macs"] = _drop(cluster.macs, noun.mac, noun.id)
            changed["addresses"] = cluster.addresses
            for address in noun.addresses:
                changed["addresses"] = _nested_drop(changed["addresses"], noun.network, address, noun.id)
        case _:
            pass
    return replace(cluster, **changed)
