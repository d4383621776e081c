"""Launch: from a template and a wish to an instance with everything chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace

from immutables import Map

from innkeeper.model.actions import ConvergeNetwork, DeleteDisk, ForgetMachine
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Channels, Disk, Hardware, NetworkCard, RandomSource, RootPort, SeedDisk
from innkeeper.model.host import Host, HostFacts
from innkeeper.model.ids import Draw, InstanceId, Kind, NicId, ProjectId, Ref, VolumeId
from innkeeper.model.instance import Instance, Snapshot, Volume, Wanted
from innkeeper.model.network import Nic
from innkeeper.model.plans import Change, Drop, Expect, Plan, Put, Refusal, Step, Verb, Why
from innkeeper.plan.intake.origin import LaunchWish, Origin, origin_of
from innkeeper.plan.names import name_claim
from innkeeper.plan.network import pick_address, pick_mac
from innkeeper.plan.power import start_step
from innkeeper.plan.size import place
from innkeeper.plan.steps import disk_action, seed_action, step

_UID_SLOTS = 60_000
# Places on the root bus. Sockets for later devices come last, so that adding more of them moves nothing.
_SLOT_CHANNELS, _SLOT_RANDOM, _SLOT_ROOT, _SLOT_SEED, _SLOT_NIC, _SLOT_SOCKETS = 1, 2, 3, 4, 5, 16
_SOCKETS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where it goes, chosen among what is free."""

    host: Host
    facts: HostFacts
    address: str
    mac: str
    uid_slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    instance: Instance
    volume: Volume
    nic: Nic


def launch(cluster: Cluster, project: ProjectId, wish: LaunchWish, draw: Draw, now: float) -> Plan | Refusal:
    """One instance. The plan's order: disk, seed, network, machine; its undo is the same backwards."""
    origin = origin_of(cluster, project, wish, draw)
    if isinstance(origin, Refusal):
        return origin
    chosen = _place(cluster, origin, draw)
    if isinstance(chosen, Refusal):
        return chosen
    rows = _rows(origin, chosen, wish, draw, now)
    plan = _plan(cluster, origin, rows)
    return plan if origin.snapshot is None else _standing_over(cluster, plan, origin.snapshot)


def launch_together(
    cluster: Cluster, project: ProjectId, wishes: tuple[LaunchWish, ...], draw: Draw, now: float
) -> Plan | Refusal:
    """All or none: one plan, so that the failure of one undoes all."""
    plans: list[Plan] = []
    expects: dict[Ref, Expect] = {}
    for number, wish in enumerate(wishes):
        one = launch(cluster, project, wish, draw.branch(number), now)
        if isinstance(one, Refusal):
            return replace(one, reason=f"number {number + 1} of {len(wishes)}: {one.reason}; none was launched")
        plans.append(one)
        for expect in one.expects:
            expects.setdefault(expect.ref, expect)  # what the first saw: later ones see what those before them change
        cluster = cluster.after(one.accept, cluster.revision)
    return Plan(
        verb=Verb.LAUNCH,
        title=f"launch {len(plans)} instances, all or none",
        subjects=tuple(r for p in plans for r in p.subjects),
        expects=tuple(expects.values()),
        claims=tuple(r for p in plans for r in p.claims),
        accept=tuple(c for p in plans for c in p.accept),
        steps=tuple(s for p in plans for s in p.steps),
        retreat=tuple(c for p in plans for c in p.retreat),
        abandon=tuple(c for p in plans for c in p.abandon),
    )


# --- where it goes


def _place(cluster: Cluster, origin: Origin, draw: Draw) -> _Place | Refusal:
    host = place(cluster, origin.size, None if origin.snapshot is None else origin.snapshot.host)
    if isinstance(host, Refusal):
        return host
    facts = host.facts
    assert facts is not None  # a host without facts has no room
    address = pick_address(cluster, origin.network, draw)
    if isinstance(address, Refusal):
        return address
    slot = _uid_slot(cluster, host, draw)
    if isinstance(slot, Refusal):
        return slot
    return _Place(host=host, facts=facts, address=address, mac=pick_mac(cluster, draw), uid_slot=slot)


def _uid_slot(cluster: Cluster, host: Host, draw: Draw) -> int | Refusal:
    """At a random place, so that a user's number is not soon another instance's."""
    held: Map[int, InstanceId] = cluster.uid_slots.get(host.id, Map())
    start = draw.number("uid", _UID_SLOTS)
    for i in range(_UID_SLOTS):
        if (slot := (start + i) % _UID_SLOTS) not in held:
            return slot
    return Refusal(
        why=Why.NO_ROOM,
        reason=f"{host.name} has no user left for another instance: all {_UID_SLOTS} are given out",
        hint="Delete instances that are not needed: inn list",
    )


# --- the rows


def _rows(origin: Origin, chosen: _Place, wish: LaunchWish, draw: Draw, now: float) -> _Rows:
    instance, project, name = InstanceId(draw.id("i")), origin.project, origin.name
    volume = Volume(
        id=VolumeId(draw.id("vol")),
        project=project,
        name=f"{name}/root",
        host=chosen.host.id,
        instance=instance,
        template=origin.template.id,
        size_gib=origin.size.disk_gib,
        over=None if origin.snapshot is None else origin.snapshot.volumes[0],
    )
    nic = Nic(
        id=NicId(draw.id("nic")),
        project=project,
        name=f"{name}/eth0",
        instance=instance,
        network=origin.network.id,
        mac=chosen.mac,
        addresses=(chosen.address,),
    )
    row = Instance(
        id=instance,
        project=project,
        name=name,
        host=chosen.host.id,
        template=origin.template.id,
        size=origin.size,
        hardware=_hardware(origin, chosen.facts, volume, nic),
        uid_slot=chosen.uid_slot,
        wanted=Wanted.RUNNING if wish.start else Wanted.STOPPED,
        created_at=now,
        autostart=wish.autostart,
        ephemeral=wish.ephemeral,
        expires_at=None if wish.ttl_s is None else now + wish.ttl_s,
        first_boot=wish.first_boot,
        labels=wish.labels,
    )
    return _Rows(instance=row, volume=volume, nic=nic)


def _hardware(origin: Origin, facts: HostFacts, volume: Volume, nic: Nic) -> Hardware:
    sockets = tuple(RootPort(slot=_SLOT_SOCKETS + i, chassis=i + 1) for i in range(_SOCKETS))
    return Hardware(
        machine=facts.machine_type,
        cpu_model=facts.cpu_model,
        firmware=origin.image.firmware,
        vcpus=origin.size.vcpus,
        memory_mib=origin.size.memory_mib,
        devices=(
            Channels(slot=_SLOT_CHANNELS),
            RandomSource(slot=_SLOT_RANDOM),
            Disk(slot=_SLOT_ROOT, volume=volume.id),
            SeedDisk(slot=_SLOT_SEED),
            NetworkCard(slot=_SLOT_NIC, nic=nic.id, network=nic.network, mac=nic.mac),
            *sockets,
        ),
    )


# --- the plan


def _plan(cluster: Cluster, origin: Origin, rows: _Rows) -> Plan:
    """Its name is claimed too: a rename under way may have to go back to the one that it leaves."""
    instance, volume, nic = rows.instance, rows.volume, rows.nic
    gone = replace(instance, wanted=Wanted.ABSENT, generation=instance.generation + 1)
    made: tuple[Change, ...] = (Put(noun=instance), Put(noun=volume), Put(noun=nic))
    refs = (instance.ref, volume.ref, nic.ref)
    return Plan(
        verb=Verb.LAUNCH,
        title=f"launch {instance.name} from {origin.called}",
        subjects=(instance.ref,),
        expects=(
            Expect(ref=origin.template.ref, generation=origin.template.generation),
            Expect(ref=origin.network.ref, generation=origin.network.generation),
            *(Expect(ref=ref, generation=None) for ref in refs),
        ),
        claims=(*refs, name_claim(Kind.INSTANCE, instance.project, instance.name)),
        accept=made,
        steps=_steps(cluster.after(made, cluster.revision), origin, rows),
        retreat=(Put(noun=gone),),
        abandon=tuple(Drop(ref=ref) for ref in reversed(refs)),
    )


def _steps(cluster: Cluster, origin: Origin, rows: _Rows) -> tuple[Step, ...]:
    instance, volume, network = rows.instance, rows.volume, origin.network
    disk = disk_action(instance, volume)
    seed = seed_action(instance, ((rows.nic, network),))
    converge = ConvergeNetwork(network=network.id)
    steps = (
        step(instance, volume.ref, disk, DeleteDisk(volume=volume.id)),
        step(instance, instance.ref, seed, ForgetMachine(instance=instance.id)),
        step(instance, network.ref, converge, converge),
    )
    if instance.wanted is Wanted.STOPPED:
        return steps
    return (*steps, start_step(cluster, instance, origin.image))


def _standing_over(cluster: Cluster, plan: Plan, snapshot: Snapshot) -> Plan:
    """The frozen volumes get a new generation, so that a deletion that was planned before knows nothing of this one and
    is refused as stale.
    """
    kept = [cluster.volumes[v] for v in snapshot.volumes]
    raised = (replace(v, generation=v.generation + 1) for v in kept)
    seen = ((snapshot.ref, snapshot.generation), *((v.ref, v.generation) for v in kept))
    return replace(
        plan,
        expects=(*plan.expects, *(Expect(ref=ref, generation=generation) for ref, generation in seen)),
        accept=(*plan.accept, *(Put(noun=v) for v in raised)),
    )
