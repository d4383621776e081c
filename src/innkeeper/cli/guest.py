"""A place in an instance, for a file that goes there or comes from there, over ordinary commands.

The guest needs no shell, only stat, readlink, mkdir, dd, chmod, mv, rm and cat, as busybox and every distribution have
them. A file grows in a folder beside its place that only root may enter, under a name that nobody can foresee, and is
moved to its place when it is whole: a broken line leaves the old file or the new one, never half of it, and nobody
reads it, or puts a link in its way, before it has its mode.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from posixpath import basename, dirname, join

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from innkeeper.cli.channel import OURS, Taker, connected, ended, tell, until_answering
from innkeeper.cli.line import CannotGoOn, Line, at, first_of, new_key, printable, say

_LINKS_MOST = 40
_ANSWER_S = 60.0
_TIDY_S = 10.0
_WORDS_MOST_BYTES = 64 * 1024
_WHY_ABOVE = "The instance's own words are above"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """`mode` says its kind as well, as in `st_mode`. What is no regular file has no size."""

    mode: int
    size_bytes: int

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


class Guest:
    """A place in an instance that answers.

    Raises:
        CannotGoOn: the words name no place, or nothing in the instance answers.
    """

    def __init__(self, line: Line, place: str) -> None:
        self._line = line
        self._place = place
        self._name, colon, path = place.partition(":")
        if not colon or not self._name or not path:
            raise CannotGoOn(f"{place!r} names no file in an instance", "For example: web:/etc/hosts", 2)
        self._path = path if path.startswith("/") else f"./{path}"  # which no command takes for an option
        until_answering(line, self._name, sys.stderr.write)

    @property
    def file_name(self) -> str:
        return basename(self._path)

    async def file(self) -> Seen:
        """What is to be read.

        Raises:
            CannotGoOn: it is not there, or is a folder.
        """
        seen, words = await self._look(self._path)
        if seen is None:
            raise CannotGoOn(f"{self._place} cannot be read", f"The instance says: {words.strip() or 'nothing'}")
        if seen.is_folder:
            hint = f"Only single files are pulled; a folder: inn exec {self._name} -- tar c {self._path} | tar x"
            raise CannotGoOn(f"{self._place} is a folder", hint)
        return seen

    async def get(self, take: Callable[[bytes], object]) -> None:
        async def taken(stream: int, data: bytes) -> None:
            if stream == 1:
                take(data)
            else:
                await _complaint(stream, data)

        if await self._run(("cat", self._path), None, taken) != 0:
            raise CannotGoOn(f"{self._place} was not copied", _WHY_ABOVE)

    async def put(self, name: str, mode: int, chunks: AsyncIterator[bytes]) -> None:
        """`name` is the file's in a folder; "" if it has none."""
        path, seen = await self._target(name)
        if seen is None or seen.is_file:
            well = await self._put_whole(await self._end_of(path, seen is not None), f"{mode:o}", chunks)
        else:
            well = await self._pour(path, chunks)
        if not well:
            raise CannotGoOn(f"nothing was written to {self._name}:{path}", _WHY_ABOVE)

    async def _target(self, name: str) -> tuple[str, Seen | None]:
        seen, _ = await self._look(self._path)
        if not self._path.endswith("/") and (seen is None or not seen.is_folder):
            return self._path, seen
        if not name:
            hint = f"Name the file: {self._name}:{self._path.rstrip('/')}/NAME"
            raise CannotGoOn(f"{self._place} is a folder, and what we are given has no name", hint, 2)
        path = f"{self._path.rstrip('/')}/{name}"
        seen, _ = await self._look(path)
        if seen is not None and seen.is_folder:
            raise CannotGoOn(f"{self._name}:{path} is a folder", "Remove it there, or choose another name")
        return path, seen

    async def _put_whole(self, path: str, mode: str, chunks: AsyncIterator[bytes]) -> bool:
        folder = join(dirname(path), f".inn-part.{new_key()[:12]}")
        part = f"{folder}/{basename(path)}"
        try:
            return (
                await self._well("mkdir", "-m", "700", folder)
                and await self._pour(part, chunks)
                and await self._well("chmod", mode, part)
                and await self._well("mv", "-f", part, path)
            )
        finally:  # also when Ctrl-C came
            await self._remove(folder)

    async def _pour(self, path: str, chunks: AsyncIterator[bytes]) -> bool:
        return await self._run(("dd", f"of={path}", "bs=64k", "status=none"), chunks, _complaint) == 0

    async def _remove(self, folder: str) -> None:
        """A guest that does not answer any more holds nobody up."""
        try:
            code, words = await self._ask("rm", "-rf", folder, within_s=_TIDY_S)
        except CannotGoOn as problem:
            code, words = OURS, problem.reason
        if code != 0:
            hint = f"If it is there: inn exec {self._name} -- rm -rf {folder}"
            say(CannotGoOn(f"{self._name}:{folder} was not removed: {words.strip()}", hint))

    async def _look(self, path: str) -> tuple[Seen | None, str]:
        """What is there, its link followed; or the instance's words why nothing is."""
        code, words = await self._ask("stat", "-L", "-c", "%f %s", path)
        if code != 0:
            return None, words
        found = re.fullmatch(r"([0-9a-f]{1,8}) ([0-9]{1,19})\n", words)
        if found is None:
            raise CannotGoOn(f"{self._name}: its stat says {words[:80]!r}", "It should say a mode and a size", OURS)
        return Seen(mode=int(found[1], 16), size_bytes=int(found[2])), ""

    async def _end_of(self, path: str, is_there: bool) -> str:
        """Where it leads. To what is not there we go by ourselves: busybox takes links to it from where it stands."""
        if is_there:
            code, words = await self._ask("readlink", "-f", path)
            return words.removesuffix("\n") if code == 0 else path
        for _ in range(_LINKS_MOST):
            code, words = await self._ask("readlink", path)
            if code != 0:
                break
            path = join(dirname(path), words.removesuffix("\n"))
        return path

    async def _well(self, *argv: str) -> bool:
        code, words = await self._ask(*argv)
        if code != 0:
            await _complaint(2, words.encode())
        return code == 0

    async def _ask(self, *argv: str, within_s: float = _ANSWER_S) -> tuple[int, str]:
        """Its exit code, and what it said, as far as any answer of ours goes."""
        said = bytearray()

        async def heard(_: int, data: bytes) -> None:
            said.extend(data[: _WORDS_MOST_BYTES - len(said)])

        try:
            async with asyncio.timeout(within_s):
                return await self._run(argv, None, heard), os.fsdecode(bytes(said))
        except TimeoutError as late:
            hint = f"How is it? See: inn show {self._name}"
            raise CannotGoOn(f"{self._name} did not answer within {within_s:g} s", hint, OURS) from late

    async def _run(self, argv: tuple[str, ...], chunks: AsyncIterator[bytes] | None, take: Taker) -> int:
        where = at("instances", self._name, "exec")
        try:
            async with connected(self._line, where) as socket, asyncio.TaskGroup() as group:
                await tell(socket, {"argv": list(argv)})
                feeding = group.create_task(_feed(socket, chunks))
                code = await ended(socket, take)
                feeding.cancel()
        except ExceptionGroup as failed:
            raise first_of(failed) from failed
        return code


async def _complaint(_: int, data: bytes) -> None:
    """The words of a command of ours in the guest; they must not steer the reader's terminal."""
    for line in data.decode(errors="replace").splitlines():
        sys.stderr.write(f"{printable(line)}\n")


async def _feed(socket: ClientConnection, chunks: AsyncIterator[bytes] | None) -> None:
    if chunks is not None:
        with contextlib.suppress(ConnectionClosed):  # the command has ended early; its words tell why
            async for data in chunks:
                await socket.send(data)
    await tell(socket, {"eof": True})
