"""A pool in memory, for tests of those who use one. It keeps the same promises and refuses for the same reasons.

Nothing is converted and nothing can be booted: a disk is its size and what stands below it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from innkeeper.drivers.qcow2.faults import DiskFailed, ImageRefused, PoolFull
from innkeeper.drivers.qcow2.render import GIB, SIZE_GIB_MAX
from innkeeper.model.ids import TemplateId, VolumeId
from innkeeper.model.template import Image

_EMPTY_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Disk:
    template: TemplateId
    size_gib: int
    owner_uid: int


@dataclass(slots=True)
class FakePool:
    """What both fakes share. `room_bytes` is what is free at first."""

    room_bytes: int = 100 * GIB
    templates: dict[TemplateId, Image] = field(default_factory=dict)
    volumes: dict[VolumeId, _Disk] = field(default_factory=dict)
    staged: set[Path] = field(default_factory=set)

    def free_bytes(self) -> int:
        stored = sum(image.stored_bytes for image in self.templates.values())
        return self.room_bytes - stored - _EMPTY_BYTES * len(self.volumes)


class FakeVolumes:
    def __init__(self, pool: FakePool) -> None:
        self._pool = pool

    async def prepare(self) -> None:
        """Nothing to do: memory needs no folders."""

    async def create_overlay(self, volume: VolumeId, template: TemplateId, size_gib: int, owner_uid: int) -> None:
        image = self._pool.templates.get(template)
        if image is None:
            raise DiskFailed(f"the disk of template {template} is missing from the pool")
        if not 0 < size_gib <= SIZE_GIB_MAX:
            raise DiskFailed(f"volume {volume} cannot have {size_gib} GiB: 1 to {SIZE_GIB_MAX} GiB are possible")
        if size_gib * GIB < image.virtual_size_bytes:
            raise DiskFailed(f"volume {volume} would have {size_gib} GiB, less than template {template}")
        wanted = _Disk(template, size_gib, owner_uid)
        if self._pool.volumes.get(volume, wanted) != wanted:
            raise DiskFailed(f"volume {volume} stands already, and is another one")
        if volume not in self._pool.volumes and self._pool.free_bytes() < _EMPTY_BYTES:
            raise PoolFull(f"creating volume {volume}: no room left in the pool")
        self._pool.volumes[volume] = wanted

    async def delete(self, volume: VolumeId) -> None:
        self._pool.volumes.pop(volume, None)

    async def list_volumes(self) -> tuple[VolumeId, ...]:
        return tuple(sorted(self._pool.volumes))

    async def check_volume(self, volume: VolumeId, template: TemplateId) -> None:
        disk = self._pool.volumes.get(volume)
        if disk is None:
            raise DiskFailed(f"volume {volume} is missing from the pool")
        if disk.template != template:
            raise ImageRefused(f"the disk says that it stands over {disk.template}, not over {template}")

    async def free_bytes(self) -> int:
        return self._pool.free_bytes()


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
        users = sorted(v for v, disk in self._pool.volumes.items() if disk.template == template)
        if users:
            raise DiskFailed(f"template {template} is below volumes {', '.join(users)}, which would lose everything")
        self._pool.templates.pop(template, None)

    async def list_templates(self) -> tuple[TemplateId, ...]:
        return tuple(sorted(self._pool.templates))

    async def leftovers(self) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in self._pool.staged))

    async def clean_staging(self) -> None:
        self._pool.staged.clear()
