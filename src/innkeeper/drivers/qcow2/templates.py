"""The pool's templates: made in a staging folder, adopted whole, never written again.

A template exists from the moment its folder is renamed into place, with all of it on the disk by then. Whatever ends
before that moment leaves a staging folder, which the next start removes.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from innkeeper.drivers.qcow2.artefacts import Artefacts, complete, measure, seal
from innkeeper.drivers.qcow2.faults import DiskFailed, PoolFault
from innkeeper.drivers.qcow2.layers.standing import in_turn, volumes_over
from innkeeper.drivers.qcow2.places import (
    ABOUT,
    INITRD,
    KERNEL,
    Places,
    in_words,
)
from innkeeper.drivers.qcow2.render import DISK, backing_name
from innkeeper.model.codec import NotReadable, decode, encode
from innkeeper.model.ids import TemplateId
from innkeeper.model.template import Image
from innkeeper.ports.folders import sync_folder
from innkeeper.ports.tasks import to_the_end

log = logging.getLogger(__name__)

# A tool of ours that was told to end may have written one file more meanwhile.
_REMOVALS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateFiles:
    """`kernel` and `initrd` are None for a template that boots by firmware."""

    disk: Path
    kernel: Path | None
    initrd: Path | None


class Templates:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._places = Places(root)

    async def prepare(self) -> None:
        """The pool's folders stand."""
        await to_the_end(self._places.make)

    @asynccontextmanager
    async def stage(self, template: TemplateId) -> AsyncIterator[Path]:
        """A fresh folder in the pool to make a template in. Gone afterwards, unless it was adopted."""
        staging = self._places.staging / f"{self._places.template(template).name}.{os.urandom(6).hex()}"
        with in_words(f"staging template {template}", self._root):
            staging.mkdir(mode=0o700)
        try:
            yield staging
        finally:
            await to_the_end(lambda: _remove(staging, self._root))

    async def measure(self, staging: Path, kernel_args: str | None) -> Artefacts:
        """Digest and sizes of a finished staging folder, for its Image."""
        return await measure(staging, kernel_args, self._root)

    async def link_boot_files(self, parent: TemplateId, staging: Path) -> None:
        """Kernel and initial RAM disk into a template made from another: the same files, never written again."""

        def work() -> None:
            with in_words(f"taking over the kernel of template {parent}", self._root):
                for name in (KERNEL, INITRD):
                    if (self._places.template(parent) / name).exists():
                        os.link(self._places.template(parent) / name, staging / name)

        await to_the_end(work)

    async def adopt(self, template: TemplateId, staging: Path, image: Image) -> None:
        """The staged template stands under its id, whole and durable. One that stands with this Image is left alone.

        Raises:
            DiskFailed: an artefact is missing or is no plain file, or another template stands under this id.
            ImageRefused: the disk is no free-standing qcow2.
        """
        await to_the_end(lambda: self._adopt(template, staging, image))

    async def image(self, template: TemplateId) -> Image | None:
        """What was recorded when the template was adopted; None: there is no such template.

        Raises:
            DiskFailed: the record is damaged, or was written by a later release.
        """
        return await to_the_end(lambda: self._image(template))

    async def files(self, template: TemplateId) -> TemplateFiles:
        """
        Raises:
            DiskFailed: there is no such template.
        """
        folder = self._places.template(template)

        def work() -> TemplateFiles:
            if not (folder / ABOUT).exists():
                raise DiskFailed(
                    f"there is no template {template} in the pool {self._root}", "Build or import it again"
                )
            kernel, initrd = folder / KERNEL, folder / INITRD
            return TemplateFiles(
                disk=folder / DISK,
                kernel=kernel if kernel.exists() else None,
                initrd=initrd if initrd.exists() else None,
            )

        return await to_the_end(work)

    async def delete(self, template: TemplateId) -> None:
        """The template is gone, and so is its room.

        Raises:
            DiskFailed: a volume stands over it, and would lose everything.
        """
        await to_the_end(lambda: self._delete(template))

    async def list_templates(self) -> tuple[TemplateId, ...]:
        def work() -> tuple[TemplateId, ...]:
            with in_words("listing templates", self._root):
                return tuple(sorted(TemplateId(p.parent.name) for p in self._places.templates.glob(f"*/{ABOUT}")))

        return await to_the_end(work)

    async def leftovers(self) -> tuple[str, ...]:
        """Names of half-made things; of those under way, too."""
        return tuple(path.name for path in await to_the_end(partial(_half_made, self._places)))

    async def clean_staging(self) -> None:
        """Remove what an earlier life of ours left half-made. Only at start: work under way would lose its folder.

        What cannot be removed is told to the log and stays a leftover: no machine is to wait for it.
        """
        for path in await to_the_end(partial(_half_made, self._places)):
            try:
                await to_the_end(partial(_remove_at_last, path, self._root))
            except PoolFault as fault:
                log.warning("%s; it takes up room until the next start removes it", fault)

    # --- in a thread

    def _adopt(self, template: TemplateId, staging: Path, image: Image) -> None:
        target = self._places.template(template)
        if target.exists():
            if self._image(template) != image:
                raise DiskFailed(
                    f"another template stands as {template} already", "Templates are never changed: use a new id"
                )
            _remove(staging, self._root)
            return
        with in_words(f"adopting template {template}", self._root):
            names = complete(template, staging, image, self._root)
            for name in names:
                seal(staging / name)
            about = staging / ABOUT
            about.write_text(encode(image))
            seal(about)
            staging.chmod(0o755)
            sync_folder(staging)
            staging.rename(target)
            sync_folder(target.parent)

    def _image(self, template: TemplateId) -> Image | None:
        about = self._places.template(template) / ABOUT
        try:
            with in_words(f"reading template {template}", self._root):
                return decode(about.read_bytes(), Image) if about.exists() else None
        except NotReadable as error:
            raise DiskFailed(
                f"the record of template {template}, {about}, {error}", "Build or import it again"
            ) from error

    def _delete(self, template: TemplateId) -> None:
        folder = self._places.template(template)
        # Gone at once by name; what a crash leaves of it is a leftover like any other.
        doomed = self._places.staging / f"{folder.name}.{os.urandom(6).hex()}"
        with in_turn(self._places), in_words(f"deleting template {template}", self._root):
            users = volumes_over(self._places, backing_name(template))
            if users:
                raise DiskFailed(
                    f"template {template} is below volumes {', '.join(users)}, which would lose everything",
                    "Delete their instances and snapshots first",
                )
            if not folder.exists():
                return
            folder.rename(doomed)
            sync_folder(folder.parent)
        _remove(doomed, self._root)


def _half_made(places: Places) -> list[Path]:
    with in_words("looking for leftovers", places.root):
        return sorted(places.staging.iterdir())


def _remove_at_last(path: Path, root: Path) -> None:
    for _ in range(_REMOVALS - 1):
        with suppress(PoolFault):
            return _remove(path, root)
    return _remove(path, root)


def _remove(path: Path, root: Path) -> None:
    with in_words(f"removing {path}", root):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
