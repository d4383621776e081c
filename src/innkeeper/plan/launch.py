"""Launch: from a template and a wish to an instance with everything chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from immutables import Map

from innkeeper.model.actions import ConvergeNetwork, DeleteDisk, ForgetMachine, StopMachine
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Channels, Disk, Hardware, NetworkCard, RandomSource, RootPort, SeedDisk
from innkeeper.model.host import Host, HostFacts
from innkeeper.model.ids import PREFIXES, Draw, InstanceId, Kind, NicId, ProjectId, VolumeId
from innkeeper.model.instance import FirstBoot, Instance, Size, Volume, Wanted
from innkeeper.model.network import Network, Nic
from innkeeper.model.plans import Change, Drop, Expect, Plan, Put, Refusal, Step, Verb, Why
from innkeeper.model.template import Image, Template
from innkeeper.plan.names import bad_labels, bad_name, find_network, find_template, name_claim, taken
from innkeeper.plan.network import pick_address, pick_mac
from innkeeper.plan.size import NAMED, bad_size, least_disk_gib, place
from innkeeper.plan.steps import disk_action, seed_action, start_action, step

_UID_SLOTS = 60_000
_TTL_MOST_S = 100 * 365 * 86_400.0
# Places on the root bus. Sockets for later devices come last, so that adding more of them moves nothing.
_SLOT_CHANNELS, _SLOT_RANDOM, _SLOT_ROOT, _SLOT_SEED, _SLOT_NIC, _SLOT_SOCKETS = 1, 2, 3, 4, 5, 16
_SOCKETS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchWish:
    """What was asked for. What is None is the template's default; `name` may hold `{n}` when several are launched."""

    template: str
    name: str | None = None
    size: str | None = None
    vcpus: int | None = None
    memory_mib: int | None = None
    disk_gib: int | None = None
    network: str = "default"
    start: bool = True
    autostart: bool = False
    ephemeral: bool = False
    ttl_s: float | None = None
    first_boot: FirstBoot = FirstBoot()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """What an instance is made from."""

    project: ProjectId
    template: Template
    image: Image
    network: Network
    name: str
    size: Size


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
    origin = _origin(cluster, project, wish, draw)
    if isinstance(origin, Refusal):
        return origin
    chosen = _place(cluster, origin, draw)
    if isinstance(chosen, Refusal):
        return chosen
    return _plan(origin, _rows(origin, chosen, wish, draw, now))


def launch_together(
    cluster: Cluster, project: ProjectId, wishes: tuple[LaunchWish, ...], draw: Draw, now: float
) -> Plan | Refusal:
    """All or none: one plan, so that the failure of one undoes all."""
    plans: list[Plan] = []
    for number, wish in enumerate(wishes):
        one = launch(cluster, project, wish, draw.branch(number), now)
        if isinstance(one, Refusal):
            return replace(one, reason=f"number {number + 1} of {len(wishes)}: {one.reason}; none was launched")
        plans.append(one)
        cluster = cluster.after(one.accept, cluster.revision)
    return Plan(
        verb=Verb.LAUNCH,
        title=f"launch {len(plans)} instances, all or none",
        subjects=tuple(r for p in plans for r in p.subjects),
        expects=tuple(dict.fromkeys(e for p in plans for e in p.expects)),
        claims=tuple(r for p in plans for r in p.claims),
        accept=tuple(c for p in plans for c in p.accept),
        steps=tuple(s for p in plans for s in p.steps),
        retreat=tuple(c for p in plans for c in p.retreat),
        abandon=tuple(c for p in plans for c in p.abandon),
    )


# --- what it is made from


def _origin(cluster: Cluster, project: ProjectId, wish: LaunchWish, draw: Draw) -> _Origin | Refusal:
    template = find_template(cluster, project, wish.template)
    if isinstance(template, Refusal):
        return template
    image = template.image
    assert image is not None  # incomplete ones are not found
    network = find_network(cluster, project, wish.network)
    if isinstance(network, Refusal):
        return network
    name = _drawn_name(cluster, project, template, draw) if wish.name is None else wish.name
    size = _size(wish, template, image)
    refusal = (
        _wrong(wish)
        or _unheard(wish, template, image)
        or bad_name(name, Kind.INSTANCE)
        or taken(cluster, project, name)
        or bad_size(size, image.virtual_size_bytes)
    )
    if refusal is not None:
        return refusal
    return _Origin(project=project, template=template, image=image, network=network, name=name, size=size)


def _wrong(wish: LaunchWish) -> Refusal | None:
    if wish.ttl_s is not None and not 0 < wish.ttl_s <= _TTL_MOST_S:
        wrong = "is for ever: leave it out" if wish.ttl_s > _TTL_MOST_S else "is over at once"
        reason = f"a time to live of {wish.ttl_s:g} s {wrong}"
        return Refusal(why=Why.INVALID, reason=reason, hint="For example: --ttl 1h")
    if (refusal := bad_labels(wish.labels)) is not None:
        return refusal
    if wish.size is not None and wish.size not in NAMED:
        hint = f"Known sizes: {', '.join(NAMED)}"
        return Refusal(why=Why.INVALID, reason=f"there is no size named {wish.size}", hint=hint)
    return None


def _unheard(wish: LaunchWish, template: Template, image: Image) -> Refusal | None:
    """What is said to a guest that has nobody to hear it."""
    user_data = ["user-data"] if wish.first_boot.user_data is not None else []
    said = " and ".join(user_data + (["SSH keys"] if wish.first_boot.ssh_keys else []))
    if not said or not image.lacks_cloud_init:
        return None
    reason = f"template {template.full_name} has no cloud-init, so its guests would ignore {said}"
    hint = "Launch a template with cloud-init, such as debian-12, or leave that out and use: inn shell, inn push"
    return Refusal(why=Why.INVALID, reason=reason, hint=hint)


def _size(wish: LaunchWish, template: Template, image: Image) -> Size:
    """A template's default disk grows with its image: who imports a file does not say how large it is inside."""
    default = NAMED.get(wish.size or "")
    if default is None:
        least_gib = least_disk_gib(image.virtual_size_bytes)
        default = replace(template.default_size, disk_gib=max(template.default_size.disk_gib, least_gib))
    return Size(
        vcpus=default.vcpus if wish.vcpus is None else wish.vcpus,
        memory_mib=default.memory_mib if wish.memory_mib is None else wish.memory_mib,
        disk_gib=default.disk_gib if wish.disk_gib is None else wish.disk_gib,
    )


def _drawn_name(cluster: Cluster, project: ProjectId, template: Template, draw: Draw) -> str:
    """A free one for who gave none. Four digits are easy to say; among hundreds they soon meet, then eight follow."""
    stem = template.name.replace(".", "-")[:54]
    if stem == PREFIXES[Kind.INSTANCE]:
        stem = Kind.INSTANCE.value  # digits after the prefix would read as an id
    drawn = (f"{stem}-{draw.number(f'name {n}', 16**digits):0{digits}x}" for digits in (4, 8) for n in range(8))
    names = list(drawn)
    return next((n for n in names if taken(cluster, project, n) is None), names[-1])


# --- where it goes


def _place(cluster: Cluster, origin: _Origin, draw: Draw) -> _Place | Refusal:
    host = place(cluster, origin.size)
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


def _rows(origin: _Origin, chosen: _Place, wish: LaunchWish, draw: Draw, now: float) -> _Rows:
    instance, project, name = InstanceId(draw.id("i")), origin.project, origin.name
    volume = Volume(
        id=VolumeId(draw.id("vol")),
        project=project,
        name=f"{name}/root",
        host=chosen.host.id,
        instance=instance,
        template=origin.template.id,
        size_gib=origin.size.disk_gib,
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


def _hardware(origin: _Origin, facts: HostFacts, volume: Volume, nic: Nic) -> Hardware:
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


def _plan(origin: _Origin, rows: _Rows) -> Plan:
    """Its name is claimed too: a rename under way may have to go back to the one that it leaves."""
    instance, volume, nic = rows.instance, rows.volume, rows.nic
    gone = replace(instance, wanted=Wanted.ABSENT, generation=instance.generation + 1)
    made: tuple[Change, ...] = (Put(noun=instance), Put(noun=volume), Put(noun=nic))
    refs = (instance.ref, volume.ref, nic.ref)
    return Plan(
        verb=Verb.LAUNCH,
        title=f"launch {instance.name} from {origin.template.full_name}",
        subjects=(instance.ref,),
        expects=(
            Expect(ref=origin.template.ref, generation=origin.template.generation),
            Expect(ref=origin.network.ref, generation=origin.network.generation),
            *(Expect(ref=ref, generation=None) for ref in refs),
        ),
        claims=(*refs, name_claim(Kind.INSTANCE, instance.project, instance.name)),
        accept=made,
        steps=_steps(origin, rows),
        retreat=(Put(noun=gone),),
        abandon=tuple(Drop(ref=ref) for ref in reversed(refs)),
    )


def _steps(origin: _Origin, rows: _Rows) -> tuple[Step, ...]:
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
    start = start_action(instance, origin.image)
    return (*steps, step(instance, instance.ref, start, StopMachine(instance=instance.id, grace_s=0)))
