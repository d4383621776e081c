"""The pool's volumes on this host's file system.

Every call may be repeated. What is made appears under its name whole or not at all, and is durable when the call
returns. Nothing here starts a process: this is the launch path. Templates are in templates.py, conversions in
convert.py.
"""

from __future__ import annotations

import os
from pathlib import Path

from innkeeper.drivers.qcow2 import header as qcow2
from innkeeper.drivers.qcow2.faults import DiskFailed, ImageRefused
from innkeeper.drivers.qcow2.inspect import check_overlay
from innkeeper.drivers.qcow2.places import (
    Places,
    free_bytes,
    in_use,
    in_words,
    open_regular,
    write_sparse,
)
from innkeeper.drivers.qcow2.render import GIB, SIZE_GIB_MAX, backing_name, overlay
from innkeeper.model.ids import TemplateId, VolumeId, is_id
from innkeeper.ports.folders import sync_folder
from innkeeper.ports.tasks import to_the_end

FIRST_CLUSTER = 1 << qcow2.CLUSTER_BITS


class Volumes:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._places = Places(root)

    async def prepare(self) -> None:
        """The pool's folders stand."""
        await to_the_end(self._places.make)

    async def create_overlay(self, volume: VolumeId, template: TemplateId, size_gib: int, owner_uid: int) -> None:
        """An empty disk over the template's, of this size, owned by this user. One that stands as asked is left alone.

        Raises:
            DiskFailed: no such template; a size below the template's; or another disk stands under this id.
            PoolFull: no room for even an empty disk.
        """
        await to_the_end(lambda: self._create(volume, template, size_gib, owner_uid))

    async def delete(self, volume: VolumeId) -> None:
        """The disk is gone, and so is its room.

        Raises:
            DiskFailed: a QEMU has it open.
        """
        await to_the_end(lambda: self._delete(volume))

    async def list_volumes(self) -> tuple[VolumeId, ...]:
        def work() -> tuple[VolumeId, ...]:
            with in_words("listing volumes", self._root):
                names = (p.name for p in self._places.volumes.iterdir())
                ids = (n.removesuffix(".qcow2") for n in names if n.endswith(".qcow2"))
                return tuple(sorted(VolumeId(i) for i in ids if is_id(i)))

        return await to_the_end(work)

    async def check_volume(self, volume: VolumeId, template: TemplateId) -> None:
        """The volume's header is as we wrote it, and the template that it names is there.

        The template is said by the caller. The volume's own header is compared, never asked: a QEMU that was taken
        over may have written the name of another tenant's template there.

        Raises:
            DiskFailed: the volume or the template is missing.
            ImageRefused: the header is not what we wrote.
        """
        await to_the_end(lambda: self._check(volume, template))

    async def free_bytes(self) -> int:
        """What may still be written into the pool by who is not root."""
        return await to_the_end(lambda: free_bytes(self._root))

    # --- in a thread

    def _create(self, volume: VolumeId, template: TemplateId, size_gib: int, owner_uid: int) -> None:
        target = self._places.volume(volume)
        size_bytes = self._checked_size(volume, template, size_gib)
        with in_words(f"creating volume {volume}", self._root):
            if not target.exists():
                draft = self._places.staging / f"{volume}.{os.urandom(6).hex()}"
                try:
                    write_sparse(draft, overlay(size_bytes, backing_name(template)), owner_uid)
                    # A link, not a rename: it never replaces a disk that somebody else made meanwhile.
                    os.link(draft, target)
                    sync_folder(target.parent)
                    return
                except FileExistsError:
                    pass  # made meanwhile: judged below like any other that stands
                finally:
                    draft.unlink(missing_ok=True)
        self._confirm(volume, template, size_bytes, owner_uid)

    def _checked_size(self, volume: VolumeId, template: TemplateId, size_gib: int) -> int:
        if not 0 < size_gib <= SIZE_GIB_MAX:
            raise DiskFailed(f"volume {volume} cannot have {size_gib} GiB: 1 to {SIZE_GIB_MAX} GiB are possible")
        fd = open_regular(self._places.disk(template), os.O_RDONLY, f"the disk of template {template}", self._root)
        try:
            with in_words(f"reading template {template}", self._root):
                below_bytes = qcow2.parse(os.pread(fd, FIRST_CLUSTER, 0)).size_bytes
        except qcow2.NotReadable as error:
            raise DiskFailed(
                f"the disk of template {template} {error}", "Build or import the template again"
            ) from error
        finally:
            os.close(fd)
        if size_gib * GIB < below_bytes:
            needed_gib = -(-below_bytes // GIB)
            raise DiskFailed(
                f"volume {volume} would have {size_gib} GiB, less than the {needed_gib} GiB of template {template}",
                f"Ask for a disk of {needed_gib} GiB or more",
            )
        return size_gib * GIB

    def _confirm(self, volume: VolumeId, template: TemplateId, size_bytes: int, owner_uid: int) -> None:
        """The disk that stands is the one asked for."""
        fd = open_regular(self._places.volume(volume), os.O_RDONLY, f"volume {volume}", self._root)
        try:
            with in_words(f"reading volume {volume}", self._root):
                head = os.pread(fd, FIRST_CLUSTER, 0)
                owner = os.fstat(fd).st_uid
            stands = check_overlay(head, backing_name(template)).size_bytes
        except ImageRefused as error:
            raise DiskFailed(f"volume {volume} stands already: {error.reason}", error.hint) from error
        finally:
            os.close(fd)
        if (stands, owner) != (size_bytes, owner_uid):
            raise DiskFailed(
                f"volume {volume} stands already, with {stands // GIB} GiB for user {owner}"
                f" instead of {size_bytes // GIB} GiB for user {owner_uid}",
                "Delete it first, if nobody needs it",
            )

    def _delete(self, volume: VolumeId) -> None:
        path = self._places.volume(volume)
        if not path.exists():
            return
        fd = open_regular(path, os.O_RDWR, f"volume {volume}", self._root)
        try:
            if in_use(fd):
                raise DiskFailed(f"volume {volume} is in use by a running QEMU", "Stop its instance first")
            with in_words(f"deleting volume {volume}", self._root):
                path.unlink(missing_ok=True)
                sync_folder(path.parent)
        finally:
            os.close(fd)

    def _check(self, volume: VolumeId, template: TemplateId) -> None:
        disk = open_regular(self._places.volume(volume), os.O_RDONLY, f"volume {volume}", self._root)
        try:
            with in_words(f"reading volume {volume}", self._root):
                head = os.pread(disk, FIRST_CLUSTER, 0)
        finally:
            os.close(disk)
        check_overlay(head, backing_name(template))
        what = f"the disk of template {template}, below volume {volume},"
        os.close(open_regular(self._places.disk(template), os.O_RDONLY, what, self._root))
