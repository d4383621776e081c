"""Template orders: building, importing, publishing, deleting. A template appears in the pool whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import assert_never

from innkeeper.agent.faults import CannotObey
from innkeeper.drivers.guestlink.render import compile_argv
from innkeeper.drivers.images.catalogue import RECIPES
from innkeeper.drivers.images.hand import BuildRequest, BuiltImage, build
from innkeeper.drivers.qcow2.convert import Converter
from innkeeper.drivers.qcow2.templates import Templates as Pool
from innkeeper.model.actions import BuildTemplate, DeleteTemplate, ImportTemplate, PublishTemplate, TemplateAction
from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import TemplateId
from innkeeper.model.template import Image

log = logging.getLogger(__name__)
Tell = Callable[[float, str], None]

_COMPILE_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nature:
    """What is known of a template besides its bytes."""

    firmware: Firmware
    kernel_args: str | None = None
    os: str = ""
    agent: bool = False
    cloud_init: bool = False


class Templates:
    """`workshop` holds the compiled guest program, made once for each version of its source."""

    def __init__(self, pool: Pool, converter: Converter, workshop: Path) -> None:
        self._pool = pool
        self._converter = converter
        self._workshop = workshop
        self._importing = asyncio.Lock()
        self._compiling = asyncio.Lock()

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
        program = await self._guest_program()
        unit = files("innkeeper.guest").joinpath("innkeeper-guest.service").read_text()
        request = BuildRequest(recipe=recipe, staging=staging, guest_program=program, guest_unit=unit, size_gib=None)
        built: BuiltImage = await build(request, lambda fraction, words: tell(fraction * 0.95, words))
        return _Nature(
            firmware=Firmware.DIRECT if built.kernel else Firmware.BIOS,
            kernel_args=built.kernel_args,
            os=built.os,
            agent=True,
            cloud_init=RECIPES[recipe].cloud_init,
        )

    async def _publish(self, action: PublishTemplate, staging: Path, tell: Tell) -> _Nature:
        parent = await self._pool.image(action.parent)
        if parent is None:
            raise CannotObey(f"template {action.parent}, on which the disk stands, is not on this host")
        await self._converter.flatten(action.volume, action.parent, staging, _scaled(tell, "flattening the disk"))
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

    async def _guest_program(self) -> Path:
        """The program that goes into guests, compiled from the source that ships with us.

        Raises:
            CannotObey: there is no compiler, or it fails.
        """
        with as_file(files("innkeeper.guest")) as source:
            text = b"".join(p.read_bytes() for p in sorted(source.glob("*.[ch]")))
            program = self._workshop / f"innkeeper-guest-{hashlib.sha256(text).hexdigest()[:16]}"
            async with self._compiling:
                if not program.exists():
                    await asyncio.to_thread(_emptied, self._workshop)
                    await _compile(source, program)
        return program


def _emptied(workshop: Path) -> None:
    """Programs of earlier releases are of no use to anybody."""
    workshop.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in workshop.iterdir():
        path.unlink()


async def _compile(source: Path, program: Path) -> None:
    draft = program.with_suffix(".draft")
    try:
        cc = await asyncio.create_subprocess_exec(
            *compile_argv(str(source), str(draft)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except FileNotFoundError:
        raise CannotObey("there is no C compiler for the guest program", "apt-get install gcc libc6-dev") from None
    try:
        async with asyncio.timeout(_COMPILE_S):
            said, _ = await cc.communicate()
    except TimeoutError:
        raise CannotObey(f"the guest program did not compile in {_COMPILE_S} s", "Is this host overloaded?") from None
    finally:
        if cc.returncode is None:
            cc.kill()
            await cc.wait()
    if cc.returncode != 0:
        words = said.decode(errors="replace")[-400:]
        raise CannotObey(f"the guest program does not compile: {words}", "apt-get install gcc libc6-dev")
    draft.replace(program)


def _scaled(tell: Tell, words: str) -> Callable[[float], None]:
    return lambda fraction: tell(fraction * 0.95, words)
