"""Volumes over volumes: what a machine's disks stand on, and which frozen ones nobody needs any more.

A frozen volume is needed while a snapshot or a memory image keeps it, or another volume stands over it. What loses its
last need goes together with that need, from the top down: a host deletes nothing that something stands over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from innkeeper.model.actions import Chain
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Disk, Hardware
from innkeeper.model.ids import HostId, VolumeId
from innkeeper.model.instance import Instance, Snapshot, Volume
from innkeeper.model.template import MemoryImage


def chains(cluster: Cluster, instance: Instance) -> tuple[Chain, ...]:
    """Of the disks that stand over more than their template."""
    found = (Chain(volume=d.volume, below=cluster.below(d.volume)) for d in instance.hardware.disks())
    return tuple(chain for chain in found if chain.below)


def on_volumes(hardware: Hardware, volumes: dict[VolumeId, VolumeId]) -> Hardware:
    """The same hardware with other volumes in its places, which the guest sees under the serials that it knows."""
    devices = tuple(
        replace(d, volume=volumes[d.volume], serial=d.label) if isinstance(d, Disk) else d for d in hardware.devices
    )
    return replace(hardware, devices=devices)


def unneeded(cluster: Cluster, host: HostId) -> tuple[Volume, ...]:
    """Frozen volumes that nothing keeps and nothing stands over. One that has a name of its own is somebody's."""
    return tuple(
        v
        for v in cluster.volumes.values()
        if v.instance is None
        and v.host == host
        and v.name == v.id
        and v.id not in cluster.kept_by
        and v.id not in cluster.above
    )


def needless(
    cluster: Cluster, keepers: Iterable[Snapshot | MemoryImage], volumes: Iterable[VolumeId] = ()
) -> tuple[Volume, ...]:
    """Frozen volumes that are not needed any more once these keepers and volumes are gone, from the top down."""
    kept = {keeper.id: keeper.volumes for keeper in keepers}
    dropped, gone = set(kept), set(volumes)
    waiting = [over for volume in sorted(gone) if (over := cluster.volumes[volume].over) is not None]
    waiting += [volume for keeper in sorted(kept) for volume in kept[keeper]]
    found: list[Volume] = []
    while waiting:
        volume = cluster.volumes[waiting.pop()]
        keeper = cluster.kept_by.get(volume.id)
        needed = volume.instance is not None or (keeper is not None and keeper not in dropped)
        if volume.id in gone or needed or not gone.issuperset(cluster.above.get(volume.id, ())):
            continue  # where it is above that is still to go, it comes again by that way
        gone.add(volume.id)
        found.append(volume)
        if volume.over is not None:
            waiting.append(volume.over)
    return tuple(found)
