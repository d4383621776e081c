"""Which memory image a launch goes on from, or why it boots; and what a clone of one is told and given."""

from __future__ import annotations

from dataclasses import dataclass, replace

from immutables import Map

from innkeeper.model.actions import Warm, WarmCard, WriteSeed
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Hardware, NetworkCard
from innkeeper.model.host import Host
from innkeeper.model.ids import HostId, MemoryImageId, ProjectId, TemplateId, VolumeId
from innkeeper.model.instance import Size
from innkeeper.model.template import Fits, MemoryImage
from innkeeper.plan.disks.layers import on_volumes
from innkeeper.plan.hardware import Card
from innkeeper.plan.intake.origin import Origin
from innkeeper.plan.steps import machine_id


@dataclass(frozen=True, slots=True)
class Cold:
    """A machine boots; `why` goes after `booted: `."""

    why: str


def choose(cluster: Cluster, origin: Origin, host: Host, *, cold: bool) -> MemoryImage | Cold:
    """The image that fits; of several the newest."""
    if cold:
        return Cold("as it was asked for")
    if origin.snapshot is not None:
        return Cold("it was made from a snapshot, which has no memory")
    here = images(cluster, origin.project, origin.template.id, host.id)
    ready = [m for m in here if m.baked is not None and m.ref not in cluster.claims]
    if not ready:
        being = "is being made" if here else "has been made"
        return Cold(f"{'a' if here else 'no'} memory image of {origin.template.full_name} {being}")
    objections = [(_objection(m, host, origin.size), m) for m in ready]
    for objection, image in objections:
        if not objection:
            return image
    return Cold(objections[0][0])


def images(cluster: Cluster, project: ProjectId, template: TemplateId, host: HostId) -> tuple[MemoryImage, ...]:
    """A project's memory images of a template on a host, being made or ready, newest first."""
    held: Map[MemoryImageId, None] = cluster.memories_of.get(template, Map())
    found = (cluster.memories[m] for m in held)
    mine = (m for m in found if m.host == host and m.project == project)
    return tuple(sorted(mine, key=lambda m: (-m.created_at, m.id)))


def _objection(image: MemoryImage, host: Host, size: Size) -> str:
    if host.facts is None:
        return f"{host.name} has not reported yet"
    if differs := image.fits.differs_in(Fits.of(host.facts)):
        return f"the memory image was made with {differs}"
    named = (
        ("vCPUs", image.size.vcpus, size.vcpus),
        ("MiB of memory", image.size.memory_mib, size.memory_mib),
        ("GiB of disk", image.size.disk_gib, size.disk_gib),
    )
    other = [f"{has} {unit}, not {wants}" for unit, has, wants in named if has != wants]
    return f"the memory image has {', '.join(other)}" if other else ""


def becoming(image: MemoryImage, volume: VolumeId, card: Card) -> Hardware:
    """The machine of the image with a disk and a card of its own in their places."""
    hardware = on_volumes(image.hardware, {image.volumes[0]: volume})
    nic, network, mac = card
    devices = tuple(
        replace(d, nic=nic, network=network, mac=mac) if isinstance(d, NetworkCard) else d for d in hardware.devices
    )
    return replace(hardware, devices=devices)


def identity(image: MemoryImage, seed: WriteSeed, *, cloud_init: bool) -> Warm:
    """What the guest is told, which is what its seed says too."""
    baked = (card.mac for card in image.hardware.cards())
    return Warm(
        memory=image.id,
        hostname=seed.hostname,
        domain=seed.domain,
        machine_id=machine_id(seed.instance),
        cards=tuple(WarmCard(baked_mac=mac, becomes=card) for mac, card in zip(baked, seed.cards, strict=True)),
        configure=cloud_init and (seed.user_data is not None or bool(seed.ssh_keys)),
    )
