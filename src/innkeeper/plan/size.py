"""Sizes: what may be asked for, and whether a host has room for it."""

from __future__ import annotations

from innkeeper.model.cluster import Cluster, Usage
from innkeeper.model.host import Host, HostFacts
from innkeeper.model.ids import HostId
from innkeeper.model.instance import Size
from innkeeper.model.plans import Refusal, Why

GIB = 1024**3

NAMED: dict[str, Size] = {
    "nano": Size(vcpus=1, memory_mib=256, disk_gib=4),
    "small": Size(vcpus=1, memory_mib=1024, disk_gib=10),
    "medium": Size(vcpus=2, memory_mib=4096, disk_gib=20),
    "large": Size(vcpus=4, memory_mib=8192, disk_gib=40),
}

# QEMU's own limits and what a guest needs to boot at all.
VCPUS_MAX = 255
MEMORY_MIN_MIB = 64
DISK_MAX_GIB = 64 * 1024


def least_disk_gib(image_bytes: int) -> int:
    """The smallest disk that an image fits on."""
    return max(1, -(-image_bytes // GIB))


def bad_size(size: Size, image_bytes: int) -> Refusal | None:
    """Whether a size makes sense for an image, on any host."""
    least_gib = least_disk_gib(image_bytes)
    if not 1 <= size.vcpus <= VCPUS_MAX:
        return _invalid(f"{size.vcpus} vCPUs cannot be given", f"Ask for 1 to {VCPUS_MAX}")
    if size.memory_mib < MEMORY_MIN_MIB:
        return _invalid(f"{size.memory_mib} MiB of memory are too little", f"Ask for at least {MEMORY_MIN_MIB} MiB")
    if size.disk_gib < least_gib:
        return _invalid(
            f"a disk of {size.disk_gib} GiB is smaller than the template's image", f"Ask for at least {least_gib} GiB"
        )
    if size.disk_gib > DISK_MAX_GIB:
        return _invalid(f"a disk of {size.disk_gib} GiB cannot be made", f"Ask for at most {DISK_MAX_GIB} GiB")
    return None


def _invalid(reason: str, hint: str) -> Refusal:
    return Refusal(why=Why.INVALID, reason=reason, hint=hint)


def capacity(host: Host) -> Usage:
    """What a host may promise: threads times overcommit, memory less what the host keeps, the pool's size."""
    facts = host.facts
    if facts is None:
        return Usage()
    return Usage(
        vcpus=int(facts.vcpus * host.cpu_overcommit),
        memory_mib=max(0, facts.memory_mib - host.memory_reserved_mib),
        disk_gib=facts.disk_gib,
    )


def free(cluster: Cluster, host: Host) -> Usage:
    """What a host has left to promise."""
    total, used = capacity(host), cluster.usage.get(host.id, Usage())
    return Usage(
        vcpus=total.vcpus - used.vcpus,
        memory_mib=total.memory_mib - used.memory_mib,
        disk_gib=total.disk_gib - used.disk_gib,
        instances=used.instances,
    )


def _missing(host: Host, facts: HostFacts, left: Usage, size: Size) -> str | None:
    """What a host lacks for a size, in words; None when it fits. A host that has shrunk has promised more than it has.

    One instance never gets more vCPUs than the host has threads: they would only wait for one another.
    """
    if size.vcpus > facts.vcpus:
        return f"{host.name} has {facts.vcpus} CPU threads, {size.vcpus} vCPUs were asked for"
    for unit, what, has, asked in (
        ("vCPUs", "", left.vcpus, size.vcpus),
        ("MiB", " of memory", left.memory_mib, size.memory_mib),
        ("GiB", " of disk", left.disk_gib, size.disk_gib),
    ):
        if asked > has:
            wish = "1 vCPU was" if (asked, unit) == (1, "vCPUs") else f"{asked} {unit} were"
            return f"{host.name} has {max(0, has)} {unit}{what} free, {wish} asked for"
    return None


def place(cluster: Cluster, size: Size, only: HostId | None = None) -> Host | Refusal:
    """The host with most memory left among those with room; `only` where there is no choice."""
    best: tuple[int, HostId] | None = None
    lacking: list[str] = []
    for host in cluster.hosts.values():
        if host.facts is None or only not in (None, host.id):
            continue
        left = free(cluster, host)
        missing = _missing(host, host.facts, left, size)
        if missing is not None:
            lacking.append(missing)
        elif best is None or (left.memory_mib, host.id) > best:
            best = (left.memory_mib, host.id)
    if best is not None:
        return cluster.hosts[best[1]]
    if not lacking:
        return Refusal(why=Why.UNAVAILABLE, reason="no host has reported yet", hint="See: inn host list")
    others = len(lacking) - 3
    more = f" (and {others} more {'host' if others == 1 else 'hosts'})" if others > 0 else ""
    hint = "Ask for less, or delete instances that are not needed: inn list"
    return Refusal(why=Why.NO_ROOM, reason="; ".join(sorted(lacking)[:3]) + more, hint=hint)
