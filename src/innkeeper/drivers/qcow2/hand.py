"""The pool's volumes on this host's file system.

Every call may be repeated. What is made appears under its name whole or not at all, and is durable when the call
returns. Nothing here starts a process: this is the launch path. Templates are in templates.py, conversions in
convert.py, what snapshots freeze in layers/frozen.py.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from innkeeper.drivers.qcow2 import header as qcow2
from innkeeper.drivers.qcow2.faults import DiskFailed, ImageRefused
from innkeeper.drivers.qcow2.inspect import check_overlay
from innkeeper.drivers.qcow2.layers.chains import check_chain
from innkeeper.drivers.qcow2.layers.frozen import forget, tidy
from innkeeper.drivers.qcow2.layers.standing import in_turn, volumes_over
from innkeeper.drivers.qcow2.places import (
    Places,
    free_bytes,
    in_use,
    in_words,
    open_regular,
    write_sparse,
)
from innkeeper.drivers.qcow2.render import GIB, SIZE_GIB_MAX, backing_name, overlay, volume_name
from innkeeper.model.actions import Chain
from innkeeper.model.ids import TemplateId, VolumeId, is_id
from innkeeper.ports.folders import sync_folder
from innkeeper.ports.tasks import to_the_end

FIRST_CLUSTER = 1 << qcow2.CLUSTER_BITS


@dataclass(frozen=True, slots=True, kw_only=True)
class _NewDisk:
    """What is asked for, and how what is below it is called in the header and in words."""

    volume: VolumeId
    template: TemplateId
    size_gib: int
    over: VolumeId | None = None

    @property
    def backing(self) -> str:
        return backing_name(self.template) if self.over is None else volume_name(self.over)

    @property
    def below_words(self) -> str:
        return f"the disk of template {self.template}" if self.over is None else f"volume {self.over}"


class Volumes:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._places = Places(root)

    async def prepare(self) -> None:
        """The pool's folders stand. Only at start: what is just being frozen would lose its note."""

        def work() -> None:
            self._places.make()
            with in_words("tidying the pool", self._root):
                tidy(self._places)

        await to_the_end(work)

    async def create_overlay(
        self, volume: VolumeId, template: TemplateId, size_gib: int, owner_uid: int, over: VolumeId | None = None
    ) -> None:
        """An empty disk over the volume `over`, or else over the template's, of this size, owned by this user.

        One that stands as asked is left alone.

        Raises:
            DiskFailed: nothing to stand over; a size below that one's; or another disk stands under this id.
            PoolFull: no room for even an empty disk.
        """
        disk = _NewDisk(volume=volume, template=template, size_gib=size_gib, over=over)
        await to_the_end(lambda: self._create(disk, owner_uid))

    async def delete(self, volume: VolumeId) -> None:
        """The disk is gone, and so is its room.

        Raises:
            DiskFailed: a QEMU has it open, or another disk stands over it and would lose everything.
        """
        await to_the_end(lambda: self._delete(volume))

    async def list_volumes(self) -> tuple[VolumeId, ...]:
        def work() -> tuple[VolumeId, ...]:
            with in_words("listing volumes", self._root):
                names = (p.name for p in self._places.volumes.iterdir())
                ids = (n.removesuffix(".qcow2") for n in names if n.endswith(".qcow2"))
                return tuple(sorted(VolumeId(i) for i in ids if is_id(i)))

        return await to_the_end(work)

    async def check_chain(self, chain: Chain, template: TemplateId) -> None:
        """The headers of the volume and of all below it are as we wrote them, and the template below is there.

        Raises:
            DiskFailed: a volume or the template is missing; or the topmost is frozen.
            ImageRefused: a header is not what we wrote.
        """
        await to_the_end(lambda: self._check(chain, template))

    async def free_bytes(self) -> int:
        """What may still be written into the pool by who is not root."""
        return await to_the_end(lambda: free_bytes(self._root))

    # --- in a thread

    def _create(self, disk: _NewDisk, owner_uid: int) -> None:
        volume, target = disk.volume, self._places.volume(disk.volume)
        size_bytes = self._checked_size(disk)
        with in_words(f"creating volume {volume}", self._root):
            if not target.exists():
                draft = self._places.staging / f"{volume}.{os.urandom(6).hex()}"
                try:
                    write_sparse(draft, overlay(size_bytes, disk.backing), owner_uid)
                    with in_turn(self._places):
                        os.close(self._open_below(disk))  # nobody has removed it meanwhile
                        # A link, not a rename: it never replaces a disk that somebody else made meanwhile.
                        os.link(draft, target)
                    sync_folder(target.parent)
                    return
                except FileExistsError:
                    pass  # made meanwhile: judged below like any other that stands
                finally:
                    draft.unlink(missing_ok=True)
        self._confirm(disk, size_bytes, owner_uid)

    def _open_below(self, disk: _NewDisk) -> int:
        path = self._places.disk(disk.template) if disk.over is None else self._places.volume(disk.over)
        return open_regular(path, os.O_RDONLY, disk.below_words, self._root)

    def _checked_size(self, disk: _NewDisk) -> int:
        volume, size_gib = disk.volume, disk.size_gib
        if not 0 < size_gib <= SIZE_GIB_MAX:
            raise DiskFailed(f"volume {volume} cannot have {size_gib} GiB: 1 to {SIZE_GIB_MAX} GiB are possible")
        fd = self._open_below(disk)
        try:
            with in_words(f"reading {disk.below_words}", self._root):
                below_bytes = qcow2.parse(os.pread(fd, FIRST_CLUSTER, 0)).size_bytes
        except qcow2.NotReadable as error:
            hint = "Build or import the template again" if disk.over is None else "It was damaged: use another snapshot"
            raise DiskFailed(f"{disk.below_words} {error}", hint) from error
        finally:
            os.close(fd)
        if size_gib * GIB < below_bytes:
            needed_gib = -(-below_bytes // GIB)
            raise DiskFailed(
                f"volume {volume} would have {size_gib} GiB, less than the {needed_gib} GiB of {disk.below_words}",
                f"Ask for a disk of {needed_gib} GiB or more",
            )
        return size_gib * GIB

    def _confirm(self, disk: _NewDisk, size_bytes: int, owner_uid: int) -> None:
        """The disk that stands is the one asked for."""
        volume = disk.volume
        fd = open_regular(self._places.volume(volume), os.O_RDONLY, f"volume {volume}", self._root)
        try:
            with in_words(f"reading volume {volume}", self._root):
                head = os.pread(fd, FIRST_CLUSTER, 0)
                owner = os.fstat(fd).st_uid
            stands = check_overlay(head, disk.backing).size_bytes
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
        with in_words(f"deleting volume {volume}", self._root), in_turn(self._places):
            if path.exists():
                self._see_unused(volume, path)
                path.unlink(missing_ok=True)
            # After the volume: what a crash leaves between the two tells of nothing any more.
            forget(self._places, volume)
            sync_folder(path.parent)

    def _see_unused(self, volume: VolumeId, path: Path) -> None:
        fd = open_regular(path, os.O_RDONLY, f"volume {volume}", self._root)
        try:
            if in_use(fd):
                raise DiskFailed(f"volume {volume} is in use by a running QEMU", "Stop its instance first")
        finally:
            os.close(fd)
        above = volumes_over(self._places, volume_name(volume))
        if above:
            raise DiskFailed(
                f"volume {volume} is below volumes {', '.join(above)}, which would lose everything",
                "Delete those first",
            )

    def _check(self, chain: Chain, template: TemplateId) -> None:
        if self._places.frozen(chain.volume).exists():
            raise DiskFailed(
                f"volume {chain.volume} is frozen in a snapshot, and is never written again",
                "Restore the snapshot, which puts a new volume over it",
            )
        with ExitStack() as opened:
            fds = []
            for volume in (chain.volume, *chain.below):
                fds.append(open_regular(self._places.volume(volume), os.O_RDONLY, f"volume {volume}", self._root))
                opened.callback(os.close, fds[-1])
            check_chain(chain, template, fds, self._root)
        what = f"the disk of template {template}, below volume {chain.volume},"
        os.close(open_regular(self._places.disk(template), os.O_RDONLY, what, self._root))
