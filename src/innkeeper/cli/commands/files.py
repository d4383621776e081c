"""`inn push` and `inn pull`: one file into or out of an instance, over ordinary commands.

The guest needs no shell, only test, dd, chmod, mv and cat, as busybox and every distribution have them. A file is
written under a temporary name and moved into place, on both sides, so that a broken line leaves the old file or the
new one, never half of it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO

from cyclopts import Parameter
from websockets.exceptions import ConnectionClosed

from innkeeper.cli import terminal
from innkeeper.cli.channel import connected, ended, run, tell, until_answering
from innkeeper.cli.grammar.words import HERE, Here
from innkeeper.cli.line import CannotGoOn, Line, at

_CHUNK = 32 * 1024
_PART = ".inn-part"

There = Annotated[str, Parameter(help="the place in the instance: NAME:PATH", metavar="NAME:PATH")]


def push(file: Annotated[Path, Parameter(help="the file here")], target: There, /, *, where: Here = HERE) -> None:
    """A path that is a folder takes the file under its own name. The mode goes with it, the owner does not."""
    try:
        source = file.expanduser().open("rb")
        mode = os.fstat(source.fileno()).st_mode & 0o7777
    except OSError as error:
        raise CannotGoOn(f"{file} cannot be read: {error.strerror}", "Only single files are pushed", 2) from error
    with source:
        guest = _Guest(where.line, target)
        path = guest.path
        if path.endswith("/") or guest.run("test", "-d", path) == 0:
            path = f"{path.rstrip('/')}/{file.name}"
        guest.put(source, path, f"{mode:o}")


def pull(
    source: There,
    target: Annotated[Path, Parameter(help="the file here, or a folder")] = Path("."),
    /,
    *,
    where: Here = HERE,
) -> None:
    """Without a place here the file comes into this folder, under its own name."""
    guest = _Guest(where.line, source)
    place = target.expanduser()
    if place.is_dir():
        place /= PurePosixPath(guest.path).name
    part = place.with_name(place.name + _PART)
    try:
        with part.open("wb") as out:
            guest.get(out)
        part.replace(place)
    except OSError as error:
        raise CannotGoOn(f"{place} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


class _Guest:
    """A place in an instance that answers.

    Raises:
        CannotGoOn: the words name no place, or nothing in the instance answers.
    """

    def __init__(self, line: Line, place: str) -> None:
        self._line = line
        self._name, colon, self.path = place.partition(":")
        if not colon or not self._name or not self.path:
            raise CannotGoOn(f"{place!r} names no file in an instance", "For example: web:/etc/hosts", 2)
        until_answering(line, self._name, sys.stderr.write)

    def run(self, *argv: str) -> int:
        return run(self._run(argv, None, terminal.write))

    def put(self, source: BinaryIO, path: str, mode: str) -> None:
        part, well = path + _PART, False
        try:
            well = (
                run(self._run(("dd", f"of={part}", "bs=64k", "status=none"), source, terminal.write)) == 0
                and self.run("chmod", mode, part) == 0
                and self.run("mv", "-f", part, path) == 0
            )
        finally:  # also when Ctrl-C came
            if not well:
                self.run("rm", "-f", part)
        if not well:
            raise CannotGoOn(f"nothing was written to {self._name}:{path}", "The instance's own words are above")

    def get(self, out: BinaryIO) -> None:
        async def take(stream: int, data: bytes) -> None:
            if stream == 1:
                out.write(data)
            else:
                await terminal.write(stream, data)

        if run(self._run(("cat", self.path), None, take)) != 0:
            raise CannotGoOn(f"{self._name}:{self.path} was not copied", "The instance's own words are above")

    async def _run(self, argv: tuple[str, ...], source: BinaryIO | None, take: Any) -> int:
        async with connected(self._line, at("instances", self._name, "exec")) as socket:
            await tell(socket, {"argv": list(argv)})
            with contextlib.suppress(ConnectionClosed):  # the command has ended early; its words tell why
                while source is not None and (data := source.read(_CHUNK)):
                    await socket.send(data)
            await tell(socket, {"eof": True})
            return await ended(socket, take)
