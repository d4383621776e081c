"""The picture follows changes: however it was reached, its indexes are those of one made from its rows."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from innkeeper.model.cluster import Cluster, Usage, name_key
from innkeeper.model.hardware import Firmware, Hardware
from innkeeper.model.host import Host, HostFacts, Project
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
from innkeeper.model.instance import Instance, Size, Snapshot, Taken, Volume, Wanted
from innkeeper.model.network import Network, Nic
from innkeeper.model.observed import HostState, MachineState, MemoryState, Phase, SnapshotState, TemplateState
from innkeeper.model.plans import Change, Drop, Noun, Put
from innkeeper.model.template import Baked, Fits, Image, MemoryImage, Origin, Template

FEW = st.integers(1, 3)
PROJECT = ProjectId("p-1")
FACTS = HostFacts(
    vcpus=4,
    memory_mib=4096,
    disk_gib=40,
    accelerator="tcg",
    accelerator_reason="none",
    qemu_version="7.2",
    machine_type="pc-q35-7.2",
    cpu_model="max",
    kernel="6.1",
    boot_id="b-1",
)
IMAGE = Image(digest="sha256:1", virtual_size_bytes=1, stored_bytes=1, firmware=Firmware.BIOS)


def _instance(id: int, name: int, host: int, slot: int, vcpus: int, wanted: Wanted) -> Instance:
    return Instance(
        id=InstanceId(f"i-{id}"),
        project=PROJECT,
        name=f"n{name}",
        host=HostId(f"h-{host}"),
        template=TemplateId(f"t-{slot}"),
        size=Size(vcpus=vcpus, memory_mib=vcpus * 100, disk_gib=vcpus),
        hardware=Hardware(machine="q", cpu_model="max", firmware=Firmware.BIOS, vcpus=1, memory_mib=1, devices=()),
        uid_slot=slot,
        wanted=wanted,
        created_at=1.0,
    )


def _volume(id: int, name: int, instance: int | None, over: int | None) -> Volume:
    return Volume(
        id=VolumeId(f"vol-{id}"),
        project=PROJECT,
        name=f"v{name}",
        host=HostId("h-1"),
        instance=None if instance is None else InstanceId(f"i-{instance}"),
        template=None,
        size_gib=1,
        over=None if over is None else VolumeId(f"vol-{over}"),
    )


def _snapshot(id: int, name: int, instance: int, volumes: frozenset[int]) -> Snapshot:
    return Snapshot(
        id=SnapshotId(f"snap-{id}"),
        project=PROJECT,
        instance=InstanceId(f"i-{instance}"),
        name=f"s{name}",
        host=HostId("h-1"),
        template=TemplateId("t-1"),
        size=Size(vcpus=1, memory_mib=1, disk_gib=1),
        volumes=tuple(VolumeId(f"vol-{v}") for v in sorted(volumes)),
        created_at=1.0,
    )


def _memory(id: int, volume: int) -> MemoryImage:
    return MemoryImage(
        id=MemoryImageId(f"mem-{id}"),
        project=PROJECT,
        template=TemplateId("t-1"),
        host=HostId("h-1"),
        size=Size(vcpus=1, memory_mib=100, disk_gib=1),
        hardware=Hardware(machine="q", cpu_model="max", firmware=Firmware.BIOS, vcpus=1, memory_mib=100, devices=()),
        volumes=(VolumeId(f"vol-{volume}"),),
        fits=Fits.of(FACTS),
        created_at=1.0,
    )


def _nic(id: int, name: int, instance: int, network: int, addresses: frozenset[int]) -> Nic:
    return Nic(
        id=NicId(f"nic-{id}"),
        project=PROJECT,
        name=f"c{name}",
        instance=InstanceId(f"i-{instance}"),
        network=NetworkId(f"net-{network}"),
        mac=f"52:54:00:00:00:0{name}",
        addresses=tuple(f"10.0.0.{a}" for a in sorted(addresses)),
    )


def _template(id: int, name: int, version: int) -> Template:
    return Template(
        id=TemplateId(f"t-{id}"),
        project=None,
        name=f"n{name}",
        version=version,
        origin=Origin.BUILT,
        created_at=1.0,
        default_size=Size(vcpus=1, memory_mib=1, disk_gib=1),
    )


def _network(id: int, name: int) -> Network:
    return Network(
        id=NetworkId(f"net-{id}"), project=PROJECT, name=f"n{name}", cidr="10.0.0.0/8", gateway="10.0.0.1", domain="x"
    )


NOUNS: st.SearchStrategy[Noun] = st.one_of(
    st.builds(_instance, FEW, FEW, FEW, FEW, FEW, st.sampled_from(Wanted)),
    st.builds(_volume, FEW, FEW, st.none() | FEW, st.none() | FEW),
    st.builds(_snapshot, FEW, FEW, FEW, st.frozensets(FEW)),
    st.builds(_memory, FEW, FEW),
    st.builds(_nic, FEW, FEW, FEW, FEW, st.frozensets(FEW)),
    st.builds(_template, FEW, FEW, FEW),
    st.builds(_network, FEW, FEW),
    st.builds(lambda id, name: Host(id=HostId(f"h-{id}"), name=f"n{name}"), FEW, FEW),
    st.builds(lambda id, name: Project(id=ProjectId(f"p-{id}"), name=f"n{name}"), FEW, FEW),
)
CHANGES: st.SearchStrategy[Change] = NOUNS.map(lambda noun: Put(noun=noun)) | NOUNS.map(lambda noun: Drop(ref=noun.ref))


def _rows(cluster: Cluster) -> list[Noun]:
    tables = (
        cluster.projects,
        cluster.hosts,
        cluster.templates,
        cluster.networks,
        cluster.instances,
        cluster.volumes,
        cluster.nics,
        cluster.snapshots,
        cluster.memories,
    )
    return [noun for table in tables for noun in table.values()]


def _held(noun: Noun) -> set[object]:
    """What only one may hold, said here once more and differently."""
    held: set[object] = {name_key(noun)}
    if isinstance(noun, Instance):
        held.add((noun.host, noun.uid_slot))
    if isinstance(noun, Nic):
        held |= {noun.mac, *((noun.network, address) for address in noun.addresses)}
    if isinstance(noun, Snapshot | MemoryImage):
        held |= {("kept", volume) for volume in noun.volumes}
    return held


def _without_quarrels(changes: list[Change]) -> list[Change]:
    """Without those that would leave two objects with one name, address or slot: planners and store see to that."""
    kept: list[Change] = []
    rows: dict[Ref, Noun] = {}
    for change in changes:
        if isinstance(change, Drop):
            rows.pop(change.ref, None)
            kept.append(change)
        elif not any(_held(change.noun) & _held(other) for ref, other in rows.items() if ref != change.noun.ref):
            rows[change.noun.ref] = change.noun
            kept.append(change)
    return kept


@settings(max_examples=150, deadline=None)
@given(st.lists(CHANGES, max_size=40), st.lists(FEW, max_size=10))
def test_following_changes_equals_building_anew(changes: list[Change], cuts: list[int]) -> None:
    changes = _without_quarrels(changes)
    followed, left = Cluster(), list(changes)
    for cut in cuts:
        followed = followed.after(left[:cut], 7)
        del left[:cut]
    followed = followed.after(left, 7)
    assert followed == Cluster().after((Put(noun=noun) for noun in _rows(followed)), 7)


@settings(max_examples=100, deadline=None)
@given(st.lists(NOUNS.map(lambda noun: Put(noun=noun)), max_size=12), st.data())
def test_names_may_be_handed_round_in_any_order(puts: list[Put], data: st.DataObject) -> None:
    """Within one plan two objects may swap what they hold: what counts is the end."""
    rows = _rows(Cluster().after(_without_quarrels(list(puts)), 1))
    cluster = Cluster().after((Put(noun=noun) for noun in rows), 1)
    instances = [noun for noun in rows if isinstance(noun, Instance)]
    names = data.draw(st.permutations([noun.name for noun in instances]))
    nics = [noun for noun in rows if isinstance(noun, Nic) and noun.network == "net-1"]
    held = data.draw(st.permutations([(noun.mac, noun.addresses) for noun in nics]))
    changed: list[Change] = [Put(noun=replace(noun, name=name)) for noun, name in zip(instances, names, strict=True)]
    changed += [
        Put(noun=replace(noun, mac=mac, addresses=addresses)) for noun, (mac, addresses) in zip(nics, held, strict=True)
    ]
    after = cluster.after(data.draw(st.permutations(changed)), 2)
    assert after == Cluster().after((Put(noun=noun) for noun in _rows(after)), 2)


@given(st.lists(CHANGES, max_size=20))
def test_dropping_everything_leaves_nothing(changes: list[Change]) -> None:
    cluster = Cluster().after(_without_quarrels(changes), 3)
    assert cluster.after((Drop(ref=noun.ref) for noun in _rows(cluster)), 0) == Cluster()


@given(st.lists(CHANGES, max_size=20))
def test_what_is_looked_up_is_what_stands(changes: list[Change]) -> None:
    cluster = Cluster().after(_without_quarrels(changes), 3)
    for noun in _rows(cluster):
        assert cluster.get(noun.ref) == noun
        assert cluster.generation(noun.ref) == noun.generation
        kind, project, name = name_key(noun)
        assert cluster.named(kind, ProjectId(project) if project else None, name) == noun.ref.id
    for instance in cluster.instances.values():
        cards = [nic for nic in cluster.nics.values() if nic.instance == instance.id]
        assert list(cluster.cards(instance.id)) == sorted(cards, key=lambda nic: nic.id)
        disks = [volume for volume in cluster.volumes.values() if volume.instance == instance.id]
        assert list(cluster.disks(instance.id)) == sorted(disks, key=lambda volume: volume.id)
        present = [i for i in cluster.instances.values() if i.host == instance.host and i.wanted is not Wanted.ABSENT]
        assert list(cluster.present_on(instance.host)) == sorted(present, key=lambda i: i.id)
    for host, used in cluster.usage.items():
        there = [i.size for i in cluster.instances.values() if i.host == host]
        kept = [m for m in cluster.memories.values() if m.host == host]
        assert used == Usage(
            vcpus=sum(size.vcpus for size in there),
            memory_mib=sum(size.memory_mib for size in there) + sum(m.size.memory_mib for m in kept),
            disk_gib=sum(size.disk_gib for size in there),
            instances=len(there),
        )
    assert cluster.get(Ref(Kind.INSTANCE, "i-none")) is None
    assert cluster.generation(Ref(Kind.INSTANCE, "i-none")) is None


@given(st.lists(st.tuples(FEW, st.integers(1, 4), st.sampled_from(Phase)), max_size=12))
def test_of_reports_the_newest_counts(reports: list[tuple[int, int, Phase]]) -> None:
    cluster = Cluster().after([Put(noun=_instance(n, n, 1, n, 1, Wanted.RUNNING)) for n in (1, 2)], 1)
    newest: dict[int, MachineState] = {}
    for id, seq, phase in reports:
        state = MachineState(instance=InstanceId(f"i-{id}"), host=HostId("h-1"), seq=seq, phase=phase, since=1.0)
        cluster = cluster.seen(state)
        if id < 3 and (id not in newest or newest[id].seq < seq):
            newest[id] = state
    assert dict(cluster.machines) == {state.instance: state for state in newest.values()}
    for id in (1, 2, 3):
        known = newest.get(id)
        assert cluster.phase(InstanceId(f"i-{id}")) is (Phase.UNKNOWN if known is None else known.phase)
    assert not cluster.after([Drop(ref=Ref(Kind.INSTANCE, f"i-{id}")) for id in (1, 2)], 2).machines


def test_reports_of_hosts_and_templates_become_part_of_their_rows() -> None:
    facts = HostState(host=HostId("h-1"), seq=1, facts=FACTS)
    image = TemplateState(template=TemplateId("t-1"), host=HostId("h-1"), seq=1, image=IMAGE)
    empty = Cluster()
    assert empty.seen(facts) is empty
    assert empty.seen(image) is empty
    cluster = empty.after([Put(noun=Host(id=HostId("h-1"), name="h")), Put(noun=_template(1, 1, 1))], 1)
    cluster = cluster.seen(facts).seen(image)
    assert cluster.hosts[HostId("h-1")].facts == FACTS
    assert cluster.templates[TemplateId("t-1")].image == IMAGE
    assert cluster.seen(image) is cluster


def test_a_report_of_a_snapshot_becomes_part_of_its_row_once() -> None:
    taken = Taken(stored_bytes=196_624, consistent=True)
    told = SnapshotState(snapshot=SnapshotId("snap-1"), host=HostId("h-1"), seq=1, taken=taken)
    empty = Cluster()
    assert empty.seen(told) is empty
    cluster = empty.after([Put(noun=_snapshot(1, 1, 1, frozenset({1})))], 1).seen(told)
    assert cluster.snapshots[SnapshotId("snap-1")].taken == taken
    assert cluster.seen(replace(told, seq=2, taken=replace(taken, consistent=False))) is cluster


def test_a_report_of_a_memory_image_becomes_part_of_its_row() -> None:
    baked = Baked(digest="b" * 64, stored_bytes=1)
    told = MemoryState(memory=MemoryImageId("mem-1"), host=HostId("h-1"), seq=1, baked=baked)
    empty = Cluster()
    assert empty.seen(told) is empty
    cluster = empty.after([Put(noun=_memory(1, 1))], 1).seen(told)
    assert cluster.memories[MemoryImageId("mem-1")].baked == baked
    assert cluster.seen(told) is cluster


def test_claims_are_taken_and_released() -> None:
    one, two = Ref(Kind.INSTANCE, "i-1"), Ref(Kind.VOLUME, "vol-1")
    cluster = Cluster().claimed([one, two], OperationId("op-1"))
    assert dict(cluster.claims) == {one: "op-1", two: "op-1"}
    assert dict(cluster.claimed([two], OperationId("op-2")).claims) == {one: "op-1", two: "op-2"}
    assert dict(cluster.claimed([one, Ref(Kind.NIC, "nic-1")], None).claims) == {two: "op-1"}
    assert dict(cluster.claims) == {one: "op-1", two: "op-1"}
