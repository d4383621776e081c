"""Template orders: building, importing, publishing, deleting. A template appears in the pool whole or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import assert_never

from innkeeper.agent.faults import CannotObey
from innkeeper.drivers.guestlink.compile import GuestProgram
from innkeeper.drivers.images.catalogue import RECIPES
from innkeeper.drivers.images.hand import BuildRequest, build
from innkeeper.drivers.qcow2.convert import Converter
from innkeeper.drivers.qcow2.templates import Templates as Pool
from innkeeper.model.actions import (
    BuildTemplate,
    Chain,
    DeleteTemplate,
    ImportTemplate,
    PublishTemplate,
    TemplateAction,
)
from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import TemplateId
from innkeeper.model.template import Image

log = logging.getLogger(__name__)
Tell = Callable[[float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nature:
    """What is known of a template besides its bytes."""

    firmware: Firmware
    kernel_args: str | None = None
    os: str = ""
    agent: bool = False
    cloud_init: bool = False


class Templates:
    """`workshop` is for the guest program."""

    def __init__(self, pool: Pool, converter: Converter, workshop: Path) -> None:
        self._pool = pool
        self._converter = converter
        self._guest_program = GuestProgram(workshop)
        self._importing = asyncio.Lock()

    async def carry_out(self, action: TemplateAction, tell: Tell) -> None:
        """One that stands already is left alone, so that an order may be given again."""
        if isinstance(action, DeleteTemplate):
            await self._pool.delete(action.template)
            return
        if await self._pool.image(action.template) is not None:
            return
        async with self._pool.stage(action.template) as staging:
            nature = await self._make(action, staging, tell)
            tell(0.95, "measuring")
            await self._adopt(action.template, staging, nature)

    async def image(self, template: TemplateId) -> Image | None:
        return await self._pool.image(template)

    async def _make(
        self, action: BuildTemplate | ImportTemplate | PublishTemplate, staging: Path, tell: Tell
    ) -> _Nature:
        match action:
            case BuildTemplate():
                return await self._build(action.recipe, staging, tell)
            case ImportTemplate():
                # One at a time: they run as one user, and an image that takes its tool over must not meet another.
                async with self._importing:
                    said = _scaled(tell, "converting")
                    await self._converter.convert_import(Path(action.path), action.format, staging, said)
                return _Nature(firmware=action.firmware)
            case PublishTemplate():
                return await self._publish(action, staging, tell)
            case _:
                assert_never(action)

    async def _build(self, recipe: str, staging: Path, tell: Tell) -> _Nature:
        program = await self._guest_program.compiled()
        unit = files("innkeeper.guest").joinpath("innkeeper-guest.service").read_text()
        request = BuildRequest(recipe=recipe, staging=staging, guest_program=program, guest_unit=unit)
        await build(request, lambda fraction, words: tell(fraction * 0.95, words))
        made = RECIPES[recipe]
        return _Nature(
            firmware=Firmware.DIRECT,
            kernel_args=made.kernel_args,
            os=made.os,
            agent=True,
            cloud_init=made.cloud_init,
        )

    async def _publish(self, action: PublishTemplate, staging: Path, tell: Tell) -> _Nature:
        parent = await self._pool.image(action.parent)
        if parent is None:
            raise CannotObey(f"template {action.parent}, on which the disk stands, is not on this host")
        chain = Chain(volume=action.volume, below=action.below)
        await self._converter.flatten(chain, action.parent, staging, _scaled(tell, "flattening the disk"))
        await self._pool.link_boot_files(action.parent, staging)
        return _Nature(
            firmware=parent.firmware,
            kernel_args=parent.kernel_args,
            os=parent.os,
            agent=parent.agent,
            cloud_init=parent.cloud_init,
        )

    async def _adopt(self, template: TemplateId, staging: Path, nature: _Nature) -> None:
        measured = await self._pool.measure(staging, nature.kernel_args)
        image = Image(
            digest=measured.digest,
            virtual_size_bytes=measured.virtual_size_bytes,
            stored_bytes=measured.stored_bytes,
            firmware=nature.firmware,
            kernel_args=nature.kernel_args,
            os=nature.os,
            agent=nature.agent,
            cloud_init=nature.cloud_init,
        )
        await self._pool.adopt(template, staging, image)


def _scaled(tell: Tell, words: str) -> Callable[[float], None]:
    return lambda fraction: tell(fraction * 0.95, words)
