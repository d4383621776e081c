"""Making memory images, dropping them, and which ones are due."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from innkeeper.model.actions import BakeMemory, CreateDisk, DeleteDisk, DeleteMemory
from innkeeper.model.cluster import Cluster
from innkeeper.model.host import Host, HostFacts
from innkeeper.model.ids import Draw, HostId, MemoryImageId, NetworkId, NicId, ProjectId, Ref, VolumeId
from innkeeper.model.instance import Volume, Wanted
from innkeeper.model.plans import Drop, Expect, NoUndo, Plan, Put, Refusal, Step, Verb, Why
from innkeeper.model.template import BAKER_SLOT, Fits, Image, MemoryImage, Template
from innkeeper.plan.disks.layers import needless
from innkeeper.plan.disks.snapshot import removals
from innkeeper.plan.hardware import new_hardware
from innkeeper.plan.network import pick_mac
from innkeeper.plan.size import place
from innkeeper.plan.steps import LAST
from innkeeper.plan.warm.choosing import images


def warm(cluster: Cluster, project: ProjectId, template: Template, draw: Draw, now: float) -> Plan | Refusal:
    """A memory image of a template in its default size. One that fits already is enough."""
    image = template.image
    assert image is not None  # incomplete ones are not found
    host = place(cluster, replace(template.default_size, vcpus=1, disk_gib=1))
    if isinstance(host, Refusal):
        return host
    facts = host.facts
    assert facts is not None  # a host without facts has no room
    refusal = _cannot_be_warm(template, image) or _stands(cluster, project, template, host)
    if refusal is not None:
        return refusal
    return _plan(cluster, _rows(cluster, project, template, (host, facts), (draw, now)), template, image)


def _cannot_be_warm(template: Template, image: Image) -> Refusal | None:
    if image.agent:
        return None
    return Refusal(
        why=Why.CONFLICT,
        reason=f"a clone of {template.full_name} could not be told who it is: the template brings no program of ours",
        hint="Its instances boot; templates that we build can be warm: inn template build debian-12",
    )


def _stands(cluster: Cluster, project: ProjectId, template: Template, host: Host) -> Refusal | None:
    for found in images(cluster, project, template.id, host.id):
        if found.ref in cluster.claims:
            hint = "See how far it is: inn operation list"
            busy = f"a memory image of {template.full_name} is being made or deleted"
            return Refusal(why=Why.BUSY, reason=busy, hint=hint)
        if found.baked is not None and host.facts is not None and found.fits == Fits.of(host.facts):
            again = f"To make it anew: inn template warm {template.full_name} --drop, then warm it again"
            stands = f"{template.full_name} has a memory image already: {found.id}"
            return Refusal(why=Why.CONFLICT, reason=stands, hint=again)
    return None


def _rows(
    cluster: Cluster, project: ProjectId, template: Template, on: tuple[Host, HostFacts], made: tuple[Draw, float]
) -> tuple[MemoryImage, Volume]:
    (host, facts), (draw, now) = on, made
    volume = VolumeId(draw.id("vol"))
    # Connected to nothing, so its network is nowhere.
    card = (NicId(draw.id("nic")), NetworkId(draw.id("net")), pick_mac(cluster, draw))
    assert template.image is not None
    size = template.default_size
    image = MemoryImage(
        id=MemoryImageId(draw.id("mem")),
        project=project,
        template=template.id,
        host=host.id,
        size=size,
        hardware=new_hardware(facts, template.image.firmware, size, volume, card),
        volumes=(volume,),
        fits=Fits.of(facts),
        created_at=now,
    )
    disk = Volume(
        id=volume,
        project=project,
        name=volume,
        host=host.id,
        instance=None,
        template=template.id,
        size_gib=size.disk_gib,
    )
    return image, disk


def _plan(cluster: Cluster, rows: tuple[MemoryImage, Volume], template: Template, image: Image) -> Plan:
    memory, volume = rows
    disk = CreateDisk(volume=volume.id, template=template.id, size_gib=volume.size_gib, uid_slot=BAKER_SLOT)
    bake = BakeMemory(
        memory=memory.id,
        template=template.id,
        hardware=memory.hardware,
        disk_gib=volume.size_gib,
        kernel_args=None if image.kernel_args is None else f"{image.kernel_args} hostname={template.name}",
        cloud_init=image.cloud_init,
    )
    return Plan(
        verb=Verb.WARM,
        title=f"make a memory image of {template.full_name}",
        subjects=(memory.ref, template.ref),
        expects=(
            Expect(ref=template.ref, generation=template.generation),
            Expect(ref=memory.ref, generation=None),
            Expect(ref=volume.ref, generation=None),
        ),
        claims=(memory.ref, volume.ref),
        accept=(Put(noun=memory), Put(noun=volume)),
        steps=(
            _step(memory, volume.ref, disk, DeleteDisk(volume=volume.id)),
            _step(memory, memory.ref, bake, DeleteMemory(memory=memory.id)),
        ),
        abandon=(Drop(ref=memory.ref), Drop(ref=volume.ref)),
    )


def _step(memory: MemoryImage, about: Ref, action: CreateDisk | BakeMemory, undo: DeleteDisk | DeleteMemory) -> Step:
    return Step(host=memory.host, about=about, generation=memory.generation, action=action, undo=undo)


# --- dropping


def cool(cluster: Cluster, project: ProjectId, template: Template) -> Plan | Refusal:
    """Every memory image that the project has of a template."""
    held = cluster.memories_of.get(template.id, ())
    mine = tuple(sorted((cluster.memories[m] for m in held if cluster.memories[m].project == project), key=_by_id))
    if not mine:
        hint = f"Make one: inn template warm {template.full_name}"
        return Refusal(why=Why.NOT_FOUND, reason=f"{template.full_name} has no memory image", hint=hint)
    return replace(drop(cluster, mine), title=f"delete memory images of {template.full_name}")


def drop(cluster: Cluster, memories: tuple[MemoryImage, ...]) -> Plan:
    """Their volumes go with them where no clone stands over them, and later by repair where one does.

    From the acceptance on they are as those that nobody has made, so that no launch is planned over what is about to
    go; repair goes on with an unfinished deletion.
    """
    volumes = needless(cluster, memories)
    hidden = tuple(replace(m, baked=None, generation=m.generation + 1) for m in memories)
    return Plan(
        verb=Verb.DELETE_MEMORY,
        title=f"delete memory image {', '.join(m.id for m in memories)}",
        subjects=tuple(m.ref for m in memories),
        expects=(
            *(Expect(ref=m.ref, generation=m.generation) for m in memories),
            *(Expect(ref=v.ref, generation=v.generation) for v in volumes),
        ),
        claims=(*(m.ref for m in memories), *(v.ref for v in volumes)),
        accept=tuple(Put(noun=m) for m in hidden),
        steps=(*(_removal(m) for m in memories), *removals(volumes)),
        abandon=tuple(Put(noun=replace(m, generation=m.generation + 2)) for m in memories),
        finish=tuple(Drop(ref=ref) for ref in (*(m.ref for m in memories), *(v.ref for v in volumes))),
    )


def _removal(memory: MemoryImage) -> Step:
    gone = DeleteMemory(memory=memory.id)
    return Step(host=memory.host, about=memory.ref, generation=LAST, action=gone, undo=NoUndo.NO_WAY_BACK)


def _by_id(memory: MemoryImage) -> str:
    return memory.id


# --- what is due


def outdated(cluster: Cluster) -> Iterator[MemoryImage]:
    """Images that no launch can go on from any more, because their host is not what it was when they were made."""
    for memory in cluster.memories.values():
        host = cluster.hosts.get(memory.host)
        facts = None if host is None else host.facts
        if memory.baked is not None and facts is not None and memory.fits != Fits.of(facts):
            yield memory


def due(cluster: Cluster) -> Iterator[tuple[ProjectId, Template, HostId]]:
    """Templates of which an instance runs and answers, that may be warm and have no memory image there yet."""
    found: dict[tuple[ProjectId, str, HostId], Template] = {}
    for instance in cluster.instances.values():
        seen, template = cluster.machines.get(instance.id), cluster.templates.get(instance.template)
        if not instance.warms or instance.wanted is not Wanted.RUNNING or instance.ref in cluster.claims:
            continue
        if seen is None or not seen.guest_program or template is None or template.image is None:
            continue
        if template.image.agent and not images(cluster, instance.project, template.id, instance.host):
            found[instance.project, template.id, instance.host] = template
    yield from ((project, template, host) for (project, _, host), template in found.items())
