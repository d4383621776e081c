"""A pool in memory, for tests of those who use one. It keeps the same promises and refuses for the same reasons.

Nothing is converted and nothing can be booted: a disk is its size and what stands below it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from innkeeper.drivers.qcow2.faults import DiskFailed, ImageRefused, PoolFull
from innkeeper.drivers.qcow2.render import GIB, SIZE_GIB_MAX
from innkeeper.model.actions import Chain
from innkeeper.model.ids import SnapshotId, TemplateId, VolumeId
from innkeeper.model.instance import Taken
from innkeeper.model.template import Image

_EMPTY_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Disk:
    template: TemplateId
    size_gib: int
    owner_uid: int
    over: VolumeId | None = None


@dataclass(slots=True)
class FakePool:
    """What the fakes share. `room_bytes` is what is free at first."""

    room_bytes: int = 100 * GIB
    templates: dict[TemplateId, Image] = field(default_factory=dict)
    volumes: dict[VolumeId, _Disk] = field(default_factory=dict)
    frozen: dict[VolumeId, tuple[SnapshotId, Taken]] = field(default_factory=dict)
    staged: set[Path] = field(default_factory=set)

    def free_bytes(self) -> int:
        stored = sum(image.stored_bytes for image in self.templates.values())
        return self.room_bytes - stored - _EMPTY_BYTES * len(self.volumes)


class FakeVolumes:
    def __init__(self, pool: FakePool) -> None:
        self._pool = pool

    async def prepare(self) -> None:
        """Nothing to do: memory needs no folders."""

    async def create_overlay(
        self, volume: VolumeId, template: TemplateId, size_gib: int, owner_uid: int, over: VolumeId | None = None
    ) -> None:
        below_bytes = self._bytes_below(template, over)
        if not 0 < size_gib <= SIZE_GIB_MAX:
            raise DiskFailed(f"volume {volume} cannot have {size_gib} GiB: 1 to {SIZE_GIB_MAX} GiB are possible")
        if size_gib * GIB < below_bytes:
            raise DiskFailed(f"volume {volume} would have {size_gib} GiB, less than what is below it")
        wanted = _Disk(template, size_gib, owner_uid, over)
        if self._pool.volumes.get(volume, wanted) != wanted:
            raise DiskFailed(f"volume {volume} stands already, and is another one")
        if volume not in self._pool.volumes and self._pool.free_bytes() < _EMPTY_BYTES:
            raise PoolFull(f"creating volume {volume}: no room left in the pool")
        self._pool.volumes[volume] = wanted

    def _bytes_below(self, template: TemplateId, over: VolumeId | None) -> int:
        if over is not None:
            if over not in self._pool.volumes:
                raise DiskFailed(f"volume {over} is missing from the pool")
            return self._pool.volumes[over].size_gib * GIB
        if template not in self._pool.templates:
            raise DiskFailed(f"the disk of template {template} is missing from the pool")
        return self._pool.templates[template].virtual_size_bytes

    async def delete(self, volume: VolumeId) -> None:
        above = sorted(v for v, disk in self._pool.volumes.items() if disk.over == volume)
        if above:
            raise DiskFailed(f"volume {volume} is below volumes {', '.join(above)}, which would lose everything")
        self._pool.volumes.pop(volume, None)
        self._pool.frozen.pop(volume, None)

    async def list_volumes(self) -> tuple[VolumeId, ...]:
        return tuple(sorted(self._pool.volumes))

    async def check_chain(self, chain: Chain, template: TemplateId) -> None:
        if chain.volume in self._pool.frozen:
            raise DiskFailed(f"volume {chain.volume} is frozen in a snapshot, and is never written again")
        for volume, below in zip((chain.volume, *chain.below), (*chain.below, None), strict=True):
            disk = self._pool.volumes.get(volume)
            if disk is None:
                raise DiskFailed(f"volume {volume} is missing from the pool")
            if disk.over != below or (below is None and disk.template != template):
                stands = disk.over or disk.template
                raise ImageRefused(f"volume {volume}: the disk says that it stands over {stands}")

    async def free_bytes(self) -> int:
        return self._pool.free_bytes()


class FakeFrozen:
    def __init__(self, pool: FakePool) -> None:
        self._pool = pool

    async def make_room(self, volumes: Sequence[VolumeId], chains: Sequence[Chain]) -> None:
        self._see(volumes)
        for chain in chains:
            for volume, below in pairwise((chain.volume, *chain.below)):
                self._see([volume, below])
                if self._pool.volumes[volume].over != below:
                    raise ImageRefused(f"volume {volume} does not stand over {below}")

    def _see(self, volumes: Sequence[VolumeId]) -> None:
        missing = [v for v in volumes if v not in self._pool.volumes]
        if missing:
            raise DiskFailed(f"volume {missing[0]} is missing from the pool")

    async def give_up(self, volumes: Sequence[VolumeId]) -> None:
        """Nothing to do: notes take no room here."""

    async def freeze(self, volumes: Sequence[VolumeId], snapshot: SnapshotId, *, consistent: bool) -> Taken:
        self._see(volumes)
        taken = Taken(stored_bytes=await self.stored_bytes(volumes), consistent=consistent)
        self._pool.frozen |= dict.fromkeys(volumes, (snapshot, taken))
        return taken

    async def taken(self, volumes: Sequence[VolumeId], snapshot: SnapshotId) -> Taken | None:
        notes = {self._pool.frozen.get(v) for v in volumes}
        found = notes.pop() if len(notes) == 1 else None
        return found[1] if found is not None and found[0] == snapshot else None

    async def stored_bytes(self, volumes: Sequence[VolumeId]) -> int:
        return _EMPTY_BYTES * len(volumes)


class FakeTemplates:
    def __init__(self, pool: FakePool) -> None:
        self._pool = pool

    async def prepare(self) -> None:
        """Nothing to do: memory needs no folders."""

    @asynccontextmanager
    async def stage(self, template: TemplateId) -> AsyncIterator[Path]:
        staging = Path("staging") / f"{template}.{len(self._pool.staged)}"
        self._pool.staged.add(staging)
        try:
            yield staging
        finally:
            self._pool.staged.discard(staging)

    async def adopt(self, template: TemplateId, staging: Path, image: Image) -> None:
        if self._pool.templates.get(template, image) != image:
            raise DiskFailed(f"another template stands as {template} already")
        if template not in self._pool.templates and staging not in self._pool.staged:
            raise DiskFailed(f"adopting template {template}: nothing is staged at {staging}")
        self._pool.staged.discard(staging)
        self._pool.templates[template] = image

    async def image(self, template: TemplateId) -> Image | None:
        return self._pool.templates.get(template)

    async def delete(self, template: TemplateId) -> None:
        users = sorted(v for v, disk in self._pool.volumes.items() if disk.template == template and disk.over is None)
        if users:
            raise DiskFailed(f"template {template} is below volumes {', '.join(users)}, which would lose everything")
        self._pool.templates.pop(template, None)

    async def list_templates(self) -> tuple[TemplateId, ...]:
        return tuple(sorted(self._pool.templates))

    async def leftovers(self) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in self._pool.staged))

    async def clean_staging(self) -> None:
        self._pool.staged.clear()
