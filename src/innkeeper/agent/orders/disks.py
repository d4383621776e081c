"""Disk orders: layers over templates and over other disks, and seeds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import assert_never

from innkeeper.agent.faults import CannotObey
from innkeeper.drivers.metadata.hand import Seeds
from innkeeper.drivers.qcow2.hand import Volumes
from innkeeper.drivers.qcow2.templates import Templates
from innkeeper.model.actions import CreateDisk, DeleteDisk, WriteSeed
from innkeeper.model.ids import InstanceId, SecretRef, TemplateId
from innkeeper.ports.launcher import Users

# The write that found no room needs more than what it left: QEMU merges up to 32 requests of a guest into one, and
# whole clusters are made for it before any is written.
ROOM_TO_GO_ON_BYTES = 16 << 20

Redeem = Callable[[SecretRef], Awaitable[bytes]]


class Disks:
    def __init__(self, volumes: Volumes, templates: Templates, seeds: Seeds, users: Users, redeem: Redeem) -> None:
        self._volumes = volumes
        self._templates = templates
        self._seeds = seeds
        self._users = users
        self._redeem = redeem

    async def carry_out(self, action: CreateDisk | DeleteDisk | WriteSeed) -> None:
        match action:
            case CreateDisk():
                owner = self._users.of_slot(action.uid_slot)
                await self._volumes.create_overlay(action.volume, action.template, action.size_gib, owner, action.over)
            case DeleteDisk():
                await self._volumes.delete(action.volume)
            case WriteSeed():
                await self._seeds.write(action, await self._user_data(action))
            case _:
                assert_never(action)

    async def see_room(self, instance: InstanceId) -> None:
        """
        Raises:
            CannotObey: the pool is as full as when it stopped this instance.
        """
        if await self._volumes.free_bytes() < ROOM_TO_GO_ON_BYTES:
            raise CannotObey(
                f"the pool is still full, so {instance} would stop again at once",
                "Delete instances or templates that nobody needs, or give the pool more room; then resume again",
            )

    async def forget_seed(self, instance: InstanceId) -> None:
        await self._seeds.delete(instance)

    async def volumes(self) -> tuple[str, ...]:
        return await self._volumes.list_volumes()

    async def seeds(self) -> tuple[InstanceId, ...]:
        return await self._seeds.list_seeds()

    async def templates(self) -> tuple[TemplateId, ...]:
        return await self._templates.list_templates()

    async def leftovers(self) -> tuple[str, ...]:
        """Names of half-made things, those under way included."""
        return await self._templates.leftovers()

    async def _user_data(self, action: WriteSeed) -> bytes | None:
        if action.user_data is None:
            return None
        try:
            return await self._redeem(action.user_data)
        except KeyError:
            raise CannotObey(
                f"the user-data of {action.hostname} is gone", "Launch it again with its user-data"
            ) from None
