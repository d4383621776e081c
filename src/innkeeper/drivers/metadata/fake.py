"""Seeds without a file system: what was written stays in memory, and is refused and forgotten as on a host."""

from __future__ import annotations

import os

from innkeeper.drivers.metadata.hand import SeedFailed, iso
from innkeeper.drivers.metadata.render import seed_files
from innkeeper.model.actions import WriteSeed
from innkeeper.model.ids import InstanceId


class FakeSeeds:
    """`room_bytes` is what all seeds together may take."""

    def __init__(self, room_bytes: int = 1 << 30) -> None:
        self.room_bytes = room_bytes
        self._images: dict[InstanceId, bytes] = {}

    async def prepare(self) -> None:
        """Nothing to do: memory needs no folder."""

    async def write(self, seed: WriteSeed, user_data: bytes | None) -> None:
        if "/" in seed.instance or not seed.instance:
            raise SeedFailed(f"{seed.instance!r} is not an id")
        image = iso(seed_files(seed, user_data))
        others = sum(len(i) for k, i in self._images.items() if k != seed.instance)
        if others + len(image) > self.room_bytes:
            raise SeedFailed(f"writing the seed of {seed.instance}: no room left")
        self._images[seed.instance] = image

    async def open(self, instance: InstanceId) -> int:
        if instance not in self._images:
            raise SeedFailed(f"opening the seed of {instance}: no such seed")
        fd = os.memfd_create(instance, os.MFD_CLOEXEC)
        os.pwrite(fd, self._images[instance], 0)
        return fd

    async def delete(self, instance: InstanceId) -> None:
        self._images.pop(instance, None)

    async def list_seeds(self) -> tuple[InstanceId, ...]:
        return tuple(sorted(self._images))
