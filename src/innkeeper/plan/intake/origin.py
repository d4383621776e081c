"""A launch as it was asked for, and what it is to be made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import PREFIXES, Draw, Kind, ProjectId
from innkeeper.model.instance import FirstBoot, Size, Snapshot, Wanted
from innkeeper.model.network import Network
from innkeeper.model.plans import Refusal, Why
from innkeeper.model.template import Image, Template
from innkeeper.plan.names import (
    bad_labels,
    bad_name,
    find_instance,
    find_network,
    find_snapshot,
    find_template,
    taken,
)
from innkeeper.plan.size import NAMED, bad_size, least_disk_gib

_TTL_MOST_S = 100 * 365 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchWish:
    """What was asked for. What is None is the template's default; `name` may hold `{n}` when several are launched.

    `snapshot` is that of an instance, as `web/before`; then there is no `template` to say, and the defaults are the
    snapshot's. `cold` asks for a boot where a memory image stands; without `warms` none is made after it.
    """

    template: str
    name: str | None = None
    snapshot: str | None = None
    size: str | None = None
    vcpus: int | None = None
    memory_mib: int | None = None
    disk_gib: int | None = None
    network: str = "default"
    start: bool = True
    autostart: bool = False
    ephemeral: bool = False
    ttl_s: float | None = None
    cold: bool = False
    warms: bool = True
    first_boot: FirstBoot = FirstBoot()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What an instance is made from."""

    project: ProjectId
    template: Template
    image: Image
    network: Network
    name: str
    size: Size
    snapshot: Snapshot | None
    called: str


def origin_of(cluster: Cluster, project: ProjectId, wish: LaunchWish, draw: Draw) -> Origin | Refusal:
    """All that is wrong with a wish on any host is told here."""
    snapshot = None if wish.snapshot is None else _snapshot(cluster, project, wish.snapshot)
    if isinstance(snapshot, Refusal):
        return snapshot
    template = find_template(cluster, project, wish.template if snapshot is None else snapshot.template)
    if isinstance(template, Refusal):
        return template
    image = template.image
    assert image is not None  # incomplete ones are not found
    network = find_network(cluster, project, wish.network)
    if isinstance(network, Refusal):
        return network
    name = _drawn_name(cluster, project, template, draw) if wish.name is None else wish.name
    size = _size(wish, template, image, snapshot)
    refusal = (
        _wrong(wish)
        or _unheard(wish, template, image)
        or bad_name(name, Kind.INSTANCE)
        or taken(cluster, project, name)
        or bad_size(size, image.virtual_size_bytes)
        or (None if snapshot is None else _too_small(size, snapshot))
    )
    if refusal is not None:
        return refusal
    owner = None if snapshot is None else cluster.instances[snapshot.instance]
    return Origin(
        project=project,
        template=template,
        image=image,
        network=network,
        name=name,
        size=size,
        snapshot=snapshot,
        called=template.full_name if snapshot is None or owner is None else f"{owner.name}/{snapshot.name}",
    )


def _snapshot(cluster: Cluster, project: ProjectId, word: str) -> Snapshot | Refusal:
    """`web/before`, complete, and held by nobody who may be about to delete it."""
    owner, slash, name = word.partition("/")
    instance = find_instance(cluster, project, owner)
    if isinstance(instance, Refusal):
        return instance
    if not slash:
        hint = f"See: inn snapshot list {instance.name}"
        return Refusal(why=Why.INVALID, reason=f"{word} names no snapshot, as {word}/NAME would", hint=hint)
    snapshot = find_snapshot(cluster, instance, name)
    if isinstance(snapshot, Refusal):
        return snapshot
    if snapshot.ref in cluster.claims or snapshot.taken is None or instance.wanted is Wanted.ABSENT:
        hint = "See what is done with it: inn operation list"
        return Refusal(why=Why.BUSY, reason=f"snapshot {word} is being taken, restored or deleted", hint=hint)
    return snapshot


def _too_small(size: Size, snapshot: Snapshot) -> Refusal | None:
    least_gib = snapshot.size.disk_gib
    if size.disk_gib >= least_gib:
        return None
    reason = f"a disk of {size.disk_gib} GiB is smaller than that of snapshot {snapshot.name}"
    return Refusal(why=Why.INVALID, reason=reason, hint=f"Ask for at least {least_gib} GiB")


def _wrong(wish: LaunchWish) -> Refusal | None:
    if wish.snapshot is not None and wish.template:
        reason = f"an instance is made from template {wish.template} or from snapshot {wish.snapshot}, not from both"
        return Refusal(why=Why.INVALID, reason=reason, hint="Leave one of them out")
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


def _size(wish: LaunchWish, template: Template, image: Image, snapshot: Snapshot | None) -> Size:
    """A template's default disk grows with its image: who imports a file does not say how large it is inside."""
    default = NAMED.get(wish.size or "")
    if default is None and snapshot is not None:
        default = snapshot.size
    elif default is None:
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
