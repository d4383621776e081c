"""Seed disks on this host's file system: one small ISO 9660 image for each instance.

    ROOT/<instance id>.iso    0400: user-data may hold secrets. QEMU gets a descriptor that only reads.

A seed appears whole or not at all, and is durable when the call returns: cloud-init looks for it on every boot. A call
that is cancelled has ended too when it returns, so that none replaces what a later one wrote.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pycdlib import PyCdlib

from innkeeper.drivers.metadata.render import VOLUME_NAME, seed_files
from innkeeper.model.actions import WriteSeed
from innkeeper.model.ids import InstanceId, is_id
from innkeeper.ports.folders import sync_folder
from innkeeper.ports.tasks import to_the_end

T = TypeVar("T")

_SUFFIX = ".iso"
_DRAFT = ".draft-"


class SeedFailed(Exception):
    """A seed could not be written, read or removed; the text says why and what to do."""


class Seeds:
    def __init__(self, root: Path) -> None:
        self._root = root

    async def prepare(self) -> None:
        """The folder stands, closed to others, without what an earlier life of ours left half-made."""

        def work() -> None:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._root.chmod(0o700)
            for draft in self._root.glob(f"{_DRAFT}*"):
                draft.unlink()

        await _in_thread("preparing the folder of seeds", work)

    async def write(self, seed: WriteSeed, user_data: bytes | None) -> None:
        """The instance's seed says this. A machine that runs keeps the earlier one until its next start.

        Raises:
            SeedFailed: above all, no room.
        """
        target = self._path(seed.instance)
        await _in_thread(
            f"writing the seed of {seed.instance}", lambda: _replace(target, iso(seed_files(seed, user_data)))
        )

    async def open(self, instance: InstanceId) -> int:
        """A descriptor that only reads; the caller closes it.

        Raises:
            SeedFailed: there is none.
        """
        path = self._path(instance)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        return await _in_thread(f"opening the seed of {instance}", lambda: os.open(path, flags))

    async def delete(self, instance: InstanceId) -> None:
        path = self._path(instance)

        def work() -> None:
            path.unlink(missing_ok=True)
            sync_folder(self._root)

        await _in_thread(f"removing the seed of {instance}", work)

    async def list_seeds(self) -> tuple[InstanceId, ...]:
        def work() -> tuple[InstanceId, ...]:
            ids = (p.stem for p in self._root.glob(f"*{_SUFFIX}"))
            return tuple(sorted(InstanceId(i) for i in ids if is_id(i)))

        return await _in_thread("listing seeds", work)

    def _path(self, instance: InstanceId) -> Path:
        if not is_id(instance):
            raise SeedFailed(f"{instance!r} is not an id")
        return self._root / f"{instance}{_SUFFIX}"


def iso(files: Mapping[str, bytes]) -> bytes:
    """An ISO 9660 image with these files in its root, under their true names by Rock Ridge."""
    image = PyCdlib()
    image.new(interchange_level=1, vol_ident=VOLUME_NAME, rock_ridge="1.09")
    for number, (name, content) in enumerate(files.items()):
        image.add_fp(io.BytesIO(content), len(content), f"/FILE{number}.;1", rr_name=name)
    written = io.BytesIO()
    image.write_fp(written)
    image.close()
    return written.getvalue()


async def _in_thread(doing: str, work: Callable[[], T]) -> T:
    try:
        return await to_the_end(work)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "Delete instances or templates that nobody needs, or give the file system more room"
            raise SeedFailed(f"{doing}: no room left. {hint}") from error
        raise SeedFailed(f"{doing}: {error.strerror} ({error.filename})") from error


def _replace(target: Path, content: bytes) -> None:
    draft = target.with_name(f"{_DRAFT}{target.stem}.{os.urandom(6).hex()}")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        draft.rename(target)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(target.parent)
