"""Launch: from a template and a wish to an instance with everything chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace

from immutables import Map

from innkeeper.model.actions import ConvergeNetwork, DeleteDisk, ForgetMachine, StartMachine
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Hardware
from innkeeper.model.host import Host, HostFacts
from innkeeper.model.ids import Draw, InstanceId, Kind, NicId, ProjectId, Ref, VolumeId
from innkeeper.model.instance import Instance, Snapshot, Volume, Wanted
from innkeeper.model.network import Nic
from innkeeper.model.plans import Change, Drop, Expect, Plan, Put, Refusal, Step, Verb, Why
from innkeeper.model.template import MemoryImage
from innkeeper.plan.hardware import new_hardware
from innkeeper.plan.intake.origin import LaunchWish, Origin, origin_of
from innkeeper.plan.names import name_claim
from innkeeper.plan.network import pick_address, pick_mac
from innkeeper.plan.power import start_step
from innkeeper.plan.size import place
from innkeeper.plan.steps import disk_action, seed_action, step
from innkeeper.plan.warm.choosing import Cold, becoming, choose, identity

_UID_SLOTS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where it goes, chosen among what is free."""

    host: Host
    facts: HostFacts
    address: str
    mac: str
    uid_slot: int
    memory: MemoryImage | Cold


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
    chosen = _place(cluster, origin, wish, draw)
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


def _place(cluster: Cluster, origin: Origin, wish: LaunchWish, draw: Draw) -> _Place | Refusal:
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
    return _Place(
        host=host,
        facts=facts,
        address=address,
        mac=pick_mac(cluster, draw),
        uid_slot=slot,
        memory=choose(cluster, origin, host, cold=wish.cold),
    )


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
    memory = chosen.memory if isinstance(chosen.memory, MemoryImage) else None
    volume = Volume(
        id=VolumeId(draw.id("vol")),
        project=project,
        name=f"{name}/root",
        host=chosen.host.id,
        instance=instance,
        template=origin.template.id,
        size_gib=origin.size.disk_gib,
        over=_below(origin, memory),
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
        hardware=_hardware(origin, chosen, volume, nic),
        uid_slot=chosen.uid_slot,
        wanted=Wanted.RUNNING if wish.start else Wanted.STOPPED,
        created_at=now,
        autostart=wish.autostart,
        ephemeral=wish.ephemeral,
        expires_at=None if wish.ttl_s is None else now + wish.ttl_s,
        first_boot=wish.first_boot,
        memory=None if memory is None else memory.id,
        cold=chosen.memory.why if isinstance(chosen.memory, Cold) else "",
        warms=wish.warms,
        labels=wish.labels,
    )
    return _Rows(instance=row, volume=volume, nic=nic)


def _below(origin: Origin, memory: MemoryImage | None) -> VolumeId | None:
    if memory is not None:
        return memory.volumes[0]
    return None if origin.snapshot is None else origin.snapshot.volumes[0]


def _hardware(origin: Origin, chosen: _Place, volume: Volume, nic: Nic) -> Hardware:
    if isinstance(chosen.memory, MemoryImage):
        return becoming(chosen.memory, volume.id, (nic.id, nic.network, nic.mac))
    return new_hardware(chosen.facts, origin.image.firmware, origin.size, volume.id, (nic.id, nic.network, nic.mac))


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
            *_from_memory(cluster, instance),
            *(Expect(ref=ref, generation=None) for ref in refs),
        ),
        claims=(*refs, name_claim(Kind.INSTANCE, instance.project, instance.name)),
        accept=made,
        steps=_steps(cluster.after(made, cluster.revision), origin, rows),
        retreat=(Put(noun=gone),),
        abandon=tuple(Drop(ref=ref) for ref in reversed(refs)),
    )


def _from_memory(cluster: Cluster, instance: Instance) -> tuple[Expect, ...]:
    """An image that is deleted meanwhile takes its volume with it."""
    if instance.memory is None:
        return ()
    memory = cluster.memories[instance.memory]
    return (Expect(ref=memory.ref, generation=memory.generation),)


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
    return (*steps, _starting(cluster, origin, rows))


def _starting(cluster: Cluster, origin: Origin, rows: _Rows) -> Step:
    """Only this first start may go on from memory: a disk that was written to since agrees with it no more."""
    instance = rows.instance
    boots = start_step(cluster, instance, origin.image)
    memory = None if instance.memory is None else cluster.memories[instance.memory]
    if memory is None or not isinstance(boots.action, StartMachine):
        return boots
    seed = seed_action(instance, ((rows.nic, origin.network),))
    return replace(boots, action=replace(boots.action, warm=identity(memory, seed, cloud_init=origin.image.cloud_init)))


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
