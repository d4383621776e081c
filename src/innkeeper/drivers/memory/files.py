"""The files of memory images: written from memory, and read back into sealed memory, compared on the way."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from innkeeper.drivers.memory import sealed
from innkeeper.drivers.memory.faults import MemoryFailed, damaged, in_words
from innkeeper.drivers.memory.pages import Copy, TooShort
from innkeeper.drivers.memory.places import ABOUT, MEMORY, STATE, Places, Record, read_record, write_record
from innkeeper.model.ids import MemoryImageId
from innkeeper.ports.folders import sync_folder
from innkeeper.ports.tasks import to_the_end


class Files:
    """One image by one caller at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._places = Places(root)

    async def write(self, folder: Path, name: str, source: int, size_bytes: int) -> str:
        """The digest of what now lies durably in this file of the staging folder.

        Raises:
            NoRoom: there is none left for it.
        """
        with ExitStack() as opened, in_words(f"saving {folder / name}", self._root):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            target = closing(opened, os.open(folder / name, flags, 0o444))
            os.ftruncate(target, size_bytes)
            copy = Copy(source, target, size_bytes)
            while await to_the_end(copy.step):
                pass
            await to_the_end(partial(os.fsync, target))
            return copy.digest()

    async def settle(self, folder: Path, record: Record) -> int:
        """The staged files are an image from now on, durably. How much room they take."""

        def work() -> int:
            with in_words(f"saving memory image {record.memory}", self._root):
                write_record(folder / ABOUT, record)
                (folder / ABOUT).chmod(0o444)
                stored_bytes = _stored_bytes(folder)
                sync_folder(folder)
                folder.rename(self._places.image(MemoryImageId(record.memory)))
                sync_folder(self._places.images)
            return stored_bytes

        return await to_the_end(work)

    async def stored_bytes(self, memory: MemoryImageId) -> int:
        """How much room an image takes."""
        folder = self._places.image(memory)

        def work() -> int:
            with in_words(f"measuring memory image {memory}", self._root):
                return _stored_bytes(folder)

        return await to_the_end(work)

    async def record(self, memory: MemoryImageId) -> Record:
        """
        Raises:
            DamagedImage: it is not what was written.
            MemoryFailed: there is no such image.
        """
        path = self._places.image(memory) / ABOUT

        def work() -> Record:
            with in_words(f"reading memory image {memory}", self._root):
                return read_record(path)

        if not path.exists():
            raise MemoryFailed(f"there is no memory image {memory} in {self._root}", "Have it made again")
        record = await to_the_end(work)
        if record.memory != memory:
            raise damaged(path, f"it belongs to {record.memory}")
        return record

    async def read_memory(self, memory: MemoryImageId, record: Record) -> int:
        """A descriptor of sealed memory, which is what was compared.

        Raises:
            DamagedImage: the file is not what was written.
        """
        target = sealed.new(sealed.memory_name(memory), record.memory_bytes)
        return await self._read(self._places.image(memory) / MEMORY, target, record.memory_bytes, record.memory_digest)

    async def read_state(self, memory: MemoryImageId, record: Record) -> int:
        """As `read_memory`."""
        target = sealed.new(sealed.state_name(memory), record.state_bytes)
        return await self._read(self._places.image(memory) / STATE, target, record.state_bytes, record.state_digest)

    async def delete(self, memory: MemoryImageId) -> None:
        """May be repeated."""
        folder = self._places.image(memory)
        # Gone at once by name; what a crash leaves of it is a leftover like any other.
        doomed = self._places.staging / f"{folder.name}.{os.urandom(6).hex()}"

        def work() -> None:
            with in_words(f"deleting memory image {memory}", self._root):
                if folder.exists():
                    folder.rename(doomed)
                    sync_folder(folder.parent)

        await to_the_end(work)
        await self.remove(doomed)

    async def remove(self, folder: Path) -> None:
        """Of half-made ones. May be repeated."""

        def work() -> None:
            with in_words(f"removing {folder}", self._root):
                if folder.exists():
                    shutil.rmtree(folder)

        await to_the_end(work)

    async def _read(self, path: Path, target: int, size_bytes: int, digest: str) -> int:
        with ExitStack() as failing, ExitStack() as opened, in_words(f"reading {path}", self._root):
            closing(failing, target)
            copy = Copy(closing(opened, _open_file(path, size_bytes)), target, size_bytes)
            try:
                while await to_the_end(copy.step):
                    pass
            except TooShort as error:
                raise damaged(path, "it became shorter while it was read") from error
            if copy.digest() != digest:
                raise damaged(path, "its content is not what was written")
            sealed.seal(target, str(path))
            failing.pop_all()
        return target


def closing(opened: ExitStack, fd: int) -> int:
    """The descriptor, which is closed with the stack."""
    opened.callback(os.close, fd)
    return fd


def _open_file(path: Path, size_bytes: int) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise damaged(path, "it is missing") from error
    found_bytes = os.fstat(fd).st_size
    if found_bytes != size_bytes:
        os.close(fd)
        raise damaged(path, f"it has {found_bytes} bytes instead of {size_bytes}")
    return fd


def _stored_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())
