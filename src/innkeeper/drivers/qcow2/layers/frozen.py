"""Volumes that were frozen for a snapshot or a memory image: ours, readable for those who stand over them, and never
written again.

    volumes/<volume id>.freezing   room for the note, taken before there is no way back
    volumes/<volume id>.frozen     for what it is kept, and what was told of that; lives as long as the volume

What this cannot do: a QEMU that ran when the snapshot was taken keeps the descriptor with which it wrote, until it
ends. One that its guest has taken over can spoil the snapshots taken in its lifetime, of its own disks and no others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from innkeeper.drivers.qcow2.artefacts import seal
from innkeeper.drivers.qcow2.faults import DiskFailed, ImageRefused
from innkeeper.drivers.qcow2.inspect import check_overlay
from innkeeper.drivers.qcow2.places import Places, in_words, is_written, open_regular
from innkeeper.drivers.qcow2.render import CLUSTER, volume_name
from innkeeper.model.actions import Chain
from innkeeper.model.codec import NotReadable, decode, encode
from innkeeper.model.ids import VolumeId
from innkeeper.model.instance import Taken
from innkeeper.ports.folders import sync_folder
from innkeeper.ports.tasks import to_the_end

_NOTE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    keeper: str  # the id of a snapshot, or of a memory image
    taken: Taken


class Frozen:
    """The frozen volumes of a pool. Every call may be repeated."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._places = Places(root)

    async def make_room(self, volumes: Sequence[VolumeId], chains: Sequence[Chain]) -> None:
        """What `freeze` will write of these volumes finds room, also in a pool that is full by then.

        And the chains, which will stand over them, are made as stated.

        Raises:
            PoolFull: there is none now.
            DiskFailed, ImageRefused: a volume is missing, or stands over another.
        """
        await to_the_end(lambda: self._make_room(volumes, chains))

    async def give_up(self, volumes: Sequence[VolumeId]) -> None:
        """The room is given back that `make_room` took, and `freeze` has not used."""

        def work() -> None:
            for volume in volumes:
                self._places.freezing(volume).unlink(missing_ok=True)

        await to_the_end(work)

    async def freeze(self, volumes: Sequence[VolumeId], keeper: str, *, consistent: bool) -> Taken:
        """They are sealed, on the disk with all that they hold, and what is told of their keeper is kept with them.

        Raises:
            DiskFailed: a QEMU still writes to one; or the host cannot. Then none is sealed.
        """
        return await to_the_end(lambda: self._freeze(volumes, keeper, consistent))

    async def taken(self, volumes: Sequence[VolumeId], keeper: str) -> Taken | None:
        """What was told of this; None if not all of its volumes are frozen.

        Raises:
            DiskFailed: what was kept is damaged, or was written by a later release.
        """
        return await to_the_end(lambda: self._taken(volumes, keeper))

    async def stored_bytes(self, volumes: Sequence[VolumeId]) -> int:
        return await to_the_end(lambda: self._stored_bytes(volumes))

    # --- in a thread

    def _make_room(self, volumes: Sequence[VolumeId], chains: Sequence[Chain]) -> None:
        for chain in chains:
            for volume, below in pairwise((chain.volume, *chain.below)):
                self._see_over(volume, below)
        with in_words("making room for a snapshot", self._root):
            for volume in volumes:
                os.close(open_regular(self._places.volume(volume), os.O_RDONLY, f"volume {volume}", self._root))
                _write(self._places.freezing(volume), b"")
            sync_folder(self._places.volumes)

    def _see_over(self, volume: VolumeId, below: VolumeId) -> None:
        fd = open_regular(self._places.volume(volume), os.O_RDONLY, f"volume {volume}", self._root)
        try:
            with in_words(f"reading volume {volume}", self._root):
                head = os.pread(fd, CLUSTER, 0)
            check_overlay(head, volume_name(below))
        except ImageRefused as refused:
            raise ImageRefused(f"volume {volume}: {refused.reason}", refused.hint) from refused
        finally:
            os.close(fd)

    def _freeze(self, volumes: Sequence[VolumeId], keeper: str, consistent: bool) -> Taken:
        before: dict[VolumeId, os.stat_result] = {}
        try:
            for volume in volumes:
                path = self._places.volume(volume)
                before[volume] = self._see_at_rest(volume)
                with in_words(f"freezing volume {volume}", self._root):
                    seal(path)
            taken = Taken(stored_bytes=self._stored_bytes(volumes), consistent=consistent)
            note = encode(Note(keeper=keeper, taken=taken)).encode()
            with in_words("noting what was frozen", self._root):
                for volume in volumes:
                    _write(self._places.freezing(volume), note)
                    self._places.freezing(volume).rename(self._places.frozen(volume))
                sync_folder(self._places.volumes)
        except BaseException:
            with contextlib.suppress(OSError):
                self._take_back(before)
            raise
        return taken

    def _see_at_rest(self, volume: VolumeId) -> os.stat_result:
        fd = open_regular(self._places.volume(volume), os.O_RDONLY, f"volume {volume}", self._root)
        try:
            if is_written(fd):
                raise DiskFailed(
                    f"volume {volume} is still written to by a running QEMU, so it cannot be frozen",
                    "Stop its instance, then take the snapshot again",
                )
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _take_back(self, before: dict[VolumeId, os.stat_result]) -> None:
        for volume, found in before.items():
            path = self._places.volume(volume)
            self._places.frozen(volume).unlink(missing_ok=True)
            os.chown(path, found.st_uid, found.st_gid, follow_symlinks=False)
            path.chmod(found.st_mode & 0o777)

    def _taken(self, volumes: Sequence[VolumeId], keeper: str) -> Taken | None:
        notes = {self._note(volume) for volume in volumes}
        found = notes.pop() if len(notes) == 1 else None
        return found.taken if found is not None and found.keeper == keeper else None

    def _note(self, volume: VolumeId) -> Note | None:
        path = self._places.frozen(volume)
        try:
            with in_words(f"reading {path}", self._root):
                return decode(path.read_bytes(), Note) if path.exists() else None
        except NotReadable as error:
            raise DiskFailed(
                f"what was noted of frozen volume {volume}, {path}, {error}", "Delete the snapshot, and take another"
            ) from error

    def _stored_bytes(self, volumes: Sequence[VolumeId]) -> int:
        with in_words("measuring a snapshot", self._root):
            return sum(self._places.volume(v).stat().st_blocks * 512 for v in volumes)


def forget(places: Places, volume: VolumeId) -> None:
    """Nothing is noted any more of a volume that is gone."""
    for note in (places.frozen(volume), places.freezing(volume)):
        note.unlink(missing_ok=True)


def tidy(places: Places) -> None:
    """At start: notes without a volume, and room for notes that nobody wrote, are what crashes left."""
    for path in places.volumes.glob("*.freezing"):
        path.unlink(missing_ok=True)
    for path in places.volumes.glob("*.frozen"):
        if not path.with_suffix(".qcow2").exists():
            path.unlink(missing_ok=True)


def _write(path: Path, note: bytes) -> None:
    """With blanks behind it, as long as every note: what takes the place of another needs no more room."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(note.ljust(_NOTE_BYTES))
        os.fsync(fd)
    finally:
        os.close(fd)
