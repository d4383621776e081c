"""Memory images: made from what a baking QEMU left in memory, kept as files, given to clones as sealed memory.

    stage    memory lent to a QEMU, which boots a guest in it and at last writes its state
    adopt    QEMU is gone: sealed, written down, and from then on an image, whole and durable, or not at all
    open     held already; or in a running clone; or read from the files and compared: never less than all of it

What is held costs the host its pages once, however many clones share them; `let_go` gives back those that no clone has.
An image is never written again, so what was compared once needs no comparing as long as it is held.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from innkeeper.drivers.memory import sealed
from innkeeper.drivers.memory.faults import MemoryFailed, MemoryFault, in_words
from innkeeper.drivers.memory.files import Files, closing
from innkeeper.drivers.memory.places import ABOUT, MEMORY, STATE, Places, Record, checked
from innkeeper.model.ids import MemoryImageId
from innkeeper.ports.tasks import to_the_end

log = logging.getLogger(__name__)

MIB = 1024 * 1024
# Some 350 KiB for a small machine: memory itself is not in it.
STATE_MOST_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """What is lent to a QEMU. The descriptors stay ours and are closed with the context that gave this."""

    memory: MemoryImageId
    folder: Path
    memory_bytes: int
    ram_fd: int
    state_fd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    digest: str
    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Sealed. The descriptors stay ours: they are open until `let_go`, and who needs one longer takes a copy.

    `digest` is of all of the image; `about` is what its maker told.
    """

    ram_fd: int
    state_fd: int
    memory_mib: int
    digest: str
    about: str


class Memories:
    """The memory images below one folder. Belongs to one event loop, and to one daemon."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._places = Places(root)
        self._files = Files(root)
        self._held: dict[MemoryImageId, Opened] = {}
        self._turns: defaultdict[MemoryImageId, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def prepare(self) -> None:
        """The folders stand."""
        await to_the_end(self._places.make)

    # --- making

    @asynccontextmanager
    async def stage(self, memory: MemoryImageId, memory_mib: int, owner_uid: int) -> AsyncIterator[Staging]:
        """Memory of this size that `owner_uid` alone may open, and an empty file for the state. Gone afterwards, unless
        it was adopted.
        """
        folder = self._places.staging / f"{checked(memory)}.{os.urandom(6).hex()}"
        with ExitStack() as opened:
            with in_words(f"staging memory image {memory}", self._root):
                ram_fd = closing(opened, sealed.new(sealed.memory_name(memory), memory_mib * MIB))
                state_fd = closing(opened, sealed.new(sealed.state_name(memory), 0))
                os.fchown(ram_fd, owner_uid, owner_uid)
                folder.mkdir(mode=0o700)
            try:
                yield Staging(
                    memory=memory, folder=folder, memory_bytes=memory_mib * MIB, ram_fd=ram_fd, state_fd=state_fd
                )
            finally:
                await self._files.remove(folder)

    async def adopt(self, staging: Staging, about: str) -> Adopted:
        """The staged memory and state stand as an image, whole and durable, and it is held. Its QEMU is gone before.

        Raises:
            MemoryFailed: somebody could still write to it, no state was saved, or an image stands under this id.
            NoRoom: there is no room for its files.
        """
        memory = staging.memory
        async with self._turns[memory]:
            state_bytes = await to_the_end(partial(self._seal, staging))
            write = partial(self._files.write, staging.folder)
            memory_digest = await write(MEMORY, staging.ram_fd, staging.memory_bytes)
            state_digest = await write(STATE, staging.state_fd, state_bytes)
            record = Record(
                memory=memory,
                memory_bytes=staging.memory_bytes,
                state_bytes=state_bytes,
                memory_digest=memory_digest,
                state_digest=state_digest,
                about=about,
            )
            stored_bytes = await self._files.settle(staging.folder, record)
            self._held[memory] = _opened(record, os.dup(staging.ram_fd), os.dup(staging.state_fd))
            return Adopted(digest=record.digest, stored_bytes=stored_bytes)

    # --- using

    async def open(self, memory: MemoryImageId, pids: Collection[int] = ()) -> Opened:
        """The image, held from now on. `pids` are processes of ours that may have its memory: it is shared with them.

        Several who ask at once have it read once.

        Raises:
            DamagedImage: it is not what was written.
            MemoryFailed: there is none, or it cannot be read.
        """
        async with self._turns[memory]:
            if memory not in self._held:
                self._held[memory] = await self._load(memory, pids)
            return self._held[memory]

    async def image(self, memory: MemoryImageId) -> Adopted | None:
        """What was told when it was adopted; None: there is no such image. Its files are not compared."""
        if memory not in await self.list_images():
            return None
        record = await self._files.record(memory)
        return Adopted(digest=record.digest, stored_bytes=await self._files.stored_bytes(memory))

    async def let_go(self, memory: MemoryImageId) -> None:
        """Hold it no longer. Its files stay, and so do the pages that clones have. May be repeated."""
        async with self._turns[memory]:
            self._drop(memory)

    async def delete(self, memory: MemoryImageId) -> None:
        """The image is gone, and so is its room. Clones that run keep their pages. May be repeated."""
        async with self._turns[memory]:
            self._drop(memory)
            await self._files.delete(memory)

    async def list_images(self) -> tuple[MemoryImageId, ...]:
        def work() -> tuple[MemoryImageId, ...]:
            with in_words("listing memory images", self._root):
                return tuple(sorted(MemoryImageId(p.parent.name) for p in self._places.images.glob(f"*/{ABOUT}")))

        return await to_the_end(work)

    async def leftovers(self) -> tuple[str, ...]:
        """Names of half-made things; of those under way, too."""
        return tuple(path.name for path in await _half_made(self._places))

    async def clean_staging(self) -> None:
        """Remove what an earlier life of ours left half-made. Only at start: work under way would lose its folder.

        What cannot be removed is told to the log and stays a leftover.
        """
        for path in await _half_made(self._places):
            try:
                await self._files.remove(path)
            except MemoryFault as fault:
                log.warning("%s; it takes up room until the next start removes it", fault)

    def close(self) -> None:
        """Hold nothing any more. May be repeated."""
        for memory in list(self._held):
            self._drop(memory)

    # --- within

    async def _load(self, memory: MemoryImageId, pids: Collection[int]) -> Opened:
        record = await self._files.record(memory)
        with ExitStack() as opened:

            def find() -> int | None:
                found = sealed.find(memory, record.memory_bytes, pids)
                return closing(opened, found) if found is not None else None

            ram_fd = await to_the_end(find)
            if ram_fd is None:
                ram_fd = closing(opened, await self._files.read_memory(memory, record))
                sealed.open_to_all(ram_fd)
            state_fd = await self._files.read_state(memory, record)
            opened.pop_all()
        return _opened(record, ram_fd, state_fd)

    def _drop(self, memory: MemoryImageId) -> None:
        held = self._held.pop(memory, None)
        if held is not None:
            os.close(held.ram_fd)
            os.close(held.state_fd)

    def _seal(self, staging: Staging) -> int:
        """What was lent is ours again and changes no more. The state's size."""
        if self._places.image(staging.memory).exists():
            hint = "Memory images are never changed: use a new id"
            raise MemoryFailed(f"a memory image stands as {staging.memory} already", hint)
        with in_words(f"sealing memory image {staging.memory}", self._root):
            for fd, what in ((staging.ram_fd, "memory"), (staging.state_fd, "state")):
                sealed.seal(fd, f"the {what} of {staging.memory}")
            sealed.open_to_all(staging.ram_fd)
            memory_bytes, state_bytes = os.fstat(staging.ram_fd).st_size, os.fstat(staging.state_fd).st_size
        if memory_bytes != staging.memory_bytes:
            raise MemoryFailed(f"the memory of {staging.memory} has another size than it was made with")
        if not 0 < state_bytes <= STATE_MOST_BYTES:
            raise MemoryFailed(f"the state of {staging.memory} has {state_bytes} bytes: it was not saved by QEMU")
        return state_bytes


def _opened(record: Record, ram_fd: int, state_fd: int) -> Opened:
    return Opened(
        ram_fd=ram_fd,
        state_fd=state_fd,
        memory_mib=record.memory_bytes // MIB,
        digest=record.digest,
        about=record.about,
    )


async def _half_made(places: Places) -> list[Path]:
    def work() -> list[Path]:
        with in_words("looking for leftovers", places.root):
            return sorted(places.staging.iterdir())

    return await to_the_end(work)
