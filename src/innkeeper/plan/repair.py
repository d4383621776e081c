"""Repair: the one code path that mends any difference between the store and what a host really holds.

It runs at start, on a timer and after failures. It returns small plans, one per object, and never two that could stand
in each other's way: what others may hold waits for the next look.

    before ────── look (inventory) ────── now
       └─ judged is only what nobody held and nothing changed at either end: the look may fall into the middle of
          a launch that has ended by now, and would find it half-made

Of two reports on a machine the newer counts, be it the inventory's or the picture's.

What repair never does: start a machine that ended by itself, delete a disk whose row stands, make one anew for an
instance that ever ran, or pause and resume (QEMU pauses a machine for reasons of its own, such as a disk that fails,
and going on would only hide them).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from immutables import Map

from innkeeper.model.actions import (
    Action,
    ApplyNetwork,
    ConvergeNetwork,
    DeleteDisk,
    DeleteMemory,
    DeleteTemplate,
    ForgetMachine,
    StopMachine,
)
from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import HostId, InstanceId, Kind, NetworkId, ProjectId, Ref, VolumeId
from innkeeper.model.instance import Instance, Wanted
from innkeeper.model.network import Network, NetworkWanted
from innkeeper.model.observed import Ended, Inventory, MachineState, Phase
from innkeeper.model.plans import Drop, Expect, NoUndo, Plan, Put, Refusal, Step, Verb
from innkeeper.model.template import Template
from innkeeper.plan.delete import remove
from innkeeper.plan.disks.layers import unneeded
from innkeeper.plan.disks.snapshot import collect, complete
from innkeeper.plan.power import DOWN, GRACE_S, returns, start
from innkeeper.plan.steps import LAST, make, step
from innkeeper.plan.warm.making import drop


def repair(before: Cluster, inventory: Inventory, now: Cluster) -> tuple[Plan, ...]:
    """Plans that make the inventory's host agree with the picture `now`; empty when it does.

    `before` is the picture from just before the host was looked at.
    """
    plans = (
        *_strangers(now, inventory),
        *_unfinished(now, inventory.host),
        *_residents(now, inventory),
        *_snapshots(now, inventory.host),
        *_memories(now, inventory),
        *(collect(now, volume) for volume in unneeded(now, inventory.host)),
        *_networks(before, inventory, now),
    )
    return tuple(p for p in plans if all(_stood_still(before, now, ref) for ref in p.claims))


def _stood_still(before: Cluster, now: Cluster, ref: Ref) -> bool:
    free = ref not in before.claims and ref not in now.claims
    return free and before.generation(ref) == now.generation(ref)


# --- things without a row


def _strangers(cluster: Cluster, inventory: Inventory) -> Iterator[Plan]:
    """Disks and networks wait until no such machine runs, templates until no such disk may lie over them."""
    machines = [m for m in inventory.machines if m.instance not in cluster.instances]
    disks = [VolumeId(d) for d in inventory.disks if d not in cluster.volumes]
    yield from _machines(cluster, inventory, machines)
    if any(m.phase not in DOWN for m in machines):
        return
    for disk in disks:
        yield _removal(inventory.host, Ref(Kind.VOLUME, disk), DeleteDisk(volume=disk))
    for network in (NetworkId(n) for n in inventory.networks if n not in cluster.networks):
        absent = ApplyNetwork(wanted=_nothing(network), absent=True)
        yield _removal(inventory.host, Ref(Kind.NETWORK, network), absent)
    for memory in (m for m in inventory.memories if m not in cluster.memories):
        yield _removal(inventory.host, Ref(Kind.MEMORY, memory), DeleteMemory(memory=memory))
    if not disks:
        yield from _templates(cluster, inventory)


def _machines(cluster: Cluster, inventory: Inventory, machines: list[MachineState]) -> Iterator[Plan]:
    for machine in machines:
        stop = StopMachine(instance=machine.instance, grace_s=0)
        forget = ForgetMachine(instance=machine.instance)
        yield _removal(inventory.host, Ref(Kind.INSTANCE, machine.instance), stop, forget)
    known = {*cluster.instances, *(m.instance for m in machines)}
    for seed in (s for s in inventory.seeds if s not in known):
        yield _removal(inventory.host, Ref(Kind.INSTANCE, seed), ForgetMachine(instance=seed))


def _templates(cluster: Cluster, inventory: Inventory) -> Iterator[Plan]:
    """One that still has users is left alone, with or without a row: their disks are layers over it."""
    for template in inventory.templates:
        if template not in cluster.templates and template not in cluster.users_of:
            yield _removal(inventory.host, Ref(Kind.TEMPLATE, template), DeleteTemplate(template=template))


def _nothing(network: NetworkId) -> NetworkWanted:
    gone = Network(id=network, project=ProjectId(""), name="", cidr="0.0.0.0/32", gateway="0.0.0.0", domain="")
    return NetworkWanted(network=gone, generation=LAST, ports=())


def _removal(host: HostId, about: Ref, *actions: Action) -> Plan:
    steps = tuple(Step(host=host, about=about, generation=LAST, action=a, undo=NoUndo.NO_WAY_BACK) for a in actions)
    return Plan(
        verb=Verb.REPAIR,
        title=f"remove {about}, which nothing refers to",
        subjects=(about,),
        expects=(Expect(ref=about, generation=None),),
        claims=(about,),
        steps=steps,
    )


# --- templates that nobody makes any more


def _unfinished(cluster: Cluster, host: HostId) -> Iterator[Plan]:
    """A publish whose instance was deleted by force leaves its template half-made: nobody will complete it."""
    for template in cluster.templates.values():
        if template.image is None:
            yield _dropped(template, host)


def _dropped(template: Template, host: HostId) -> Plan:
    delete = DeleteTemplate(template=template.id)
    generation = template.generation + 1
    order = Step(host=host, about=template.ref, generation=generation, action=delete, undo=NoUndo.NO_WAY_BACK)
    return Plan(
        verb=Verb.REPAIR,
        title=f"remove template {template.full_name}, which was never finished",
        subjects=(template.ref,),
        expects=(Expect(ref=template.ref, generation=template.generation),),
        claims=(template.ref,),
        steps=(order,),
        finish=(Drop(ref=template.ref),),
    )


# --- instances that the host should have


def _residents(cluster: Cluster, inventory: Inventory) -> Iterator[Plan]:
    found = {m.instance: m for m in inventory.machines}
    held: Map[int, InstanceId] = cluster.uid_slots.get(inventory.host, Map())
    for instance in (cluster.instances[i] for i in held.values()):
        plan = _mend(cluster, instance, _newer(found.get(instance.id), cluster.machines.get(instance.id)))
        if plan := plan or _unmade(cluster, instance, inventory):
            yield plan


def _newer(found: MachineState | None, known: MachineState | None) -> MachineState | None:
    """What the host does not hold does not run, whatever was known of it."""
    if found is None:
        return None if known is None or known.phase not in DOWN else known
    return known if known is not None and known.seq > found.seq else found


def _mend(cluster: Cluster, instance: Instance, seen: MachineState | None) -> Plan | None:
    up = seen is not None and seen.phase not in DOWN
    match instance.wanted:
        case Wanted.ABSENT:
            return remove(cluster, instance)
        case Wanted.STOPPED:
            return _stop(instance) if up else None
        case _ if up:
            return None
        case _ if seen is not None and returns(instance, seen):
            return _start(cluster, instance, seen)
        case _ if seen is not None and seen.ended is Ended.CRASH:
            return None  # perhaps its host is going down: see control/watch.py
        case _:
            return settle(instance)


def _start(cluster: Cluster, instance: Instance, seen: MachineState) -> Plan:
    """As it was before its host was started anew; if that cannot be, it shows as stopped."""
    plan = start(replace(cluster, machines=cluster.machines.set(instance.id, seen)), instance)
    return settle(instance) if isinstance(plan, Refusal) else plan


def settle(instance: Instance) -> Plan:
    """A machine that ended without being asked is no longer wanted running: nobody started it again, so nor do we."""
    return Plan(
        verb=Verb.REPAIR,
        title=f"{instance.name} does not run any more",
        subjects=(instance.ref,),
        expects=(Expect(ref=instance.ref, generation=instance.generation),),
        claims=(instance.ref,),
        accept=(Put(noun=replace(instance, wanted=Wanted.STOPPED, generation=instance.generation + 1)),),
    )


def _stop(instance: Instance) -> Plan:
    wanted = replace(instance, generation=instance.generation + 1)
    action = StopMachine(instance=instance.id, grace_s=GRACE_S)
    return Plan(
        verb=Verb.REPAIR,
        title=f"stop {instance.name}, which is not wanted running",
        subjects=(instance.ref,),
        expects=(Expect(ref=instance.ref, generation=instance.generation),),
        claims=(instance.ref,),
        accept=(Put(noun=wanted),),
        steps=(step(wanted, wanted.ref, action, NoUndo.NOTHING),),
    )


def _unmade(cluster: Cluster, instance: Instance, inventory: Inventory) -> Plan | None:
    """Its launch was for all or none, and ended when another of them was taken over: it is stopped and has no disk.

    One that ever ran is left alone: a new disk would only hide that its own was lost.
    """
    missing = [disk for disk in cluster.disks(instance.id) if disk.id not in inventory.disks]
    template = cluster.templates.get(instance.template)
    whole = template is not None and template.image is not None
    if not missing or not whole or instance.wanted is not Wanted.STOPPED or instance.id in cluster.machines:
        return None
    wanted = replace(instance, generation=instance.generation + 1)
    return Plan(
        verb=Verb.REPAIR,
        title=f"make the disk of {instance.name}, whose launch did not come to it",
        subjects=(instance.ref,),
        expects=(Expect(ref=instance.ref, generation=instance.generation),),
        claims=(instance.ref, *(disk.ref for disk in missing)),
        accept=(Put(noun=wanted),),
        steps=make(cluster, wanted),
    )


def _snapshots(cluster: Cluster, host: HostId) -> Iterator[Plan]:
    """Those whose taking stopped half-way, once it is known how their machines are."""
    for snapshot in cluster.snapshots.values():
        instance = cluster.instances.get(snapshot.instance)
        if snapshot.host != host or snapshot.taken is not None or instance is None or instance.wanted is Wanted.ABSENT:
            continue
        seen = cluster.machines.get(instance.id)
        if seen is None or seen.phase is not Phase.UNKNOWN:
            yield complete(cluster, snapshot)


def _memories(cluster: Cluster, inventory: Inventory) -> Iterator[Plan]:
    """Those that nobody finished, or that the host has lost: launches boot until another is made."""
    for memory in cluster.memories.values():
        if memory.host == inventory.host and (memory.baked is None or memory.id not in inventory.memories):
            yield replace(drop(cluster, (memory,)), verb=Verb.REPAIR)


# --- networks that the host should have


def wanted_networks(cluster: Cluster, host: HostId) -> tuple[NetworkId, ...]:
    """Networks that a host must have: those with a port there."""
    instances: tuple[InstanceId, ...] = tuple(i.id for i in cluster.present_on(host))
    return tuple(sorted({nic.network for i in instances for nic in cluster.cards(i)}))


def _networks(before: Cluster, inventory: Inventory, now: Cluster) -> Iterator[Plan]:
    host = inventory.host
    missing = {*wanted_networks(now, host)} & {*wanted_networks(before, host)} - {*inventory.networks}
    for network in (now.networks[n] for n in sorted(missing)):
        action = ConvergeNetwork(network=network.id)
        order = Step(host=host, about=network.ref, generation=network.generation, action=action, undo=NoUndo.NOTHING)
        yield Plan(
            verb=Verb.REPAIR,
            title=f"set up network {network.name}, which its host has lost",
            subjects=(network.ref,),
            expects=(Expect(ref=network.ref, generation=network.generation),),
            claims=(network.ref,),
            steps=(order,),
        )
