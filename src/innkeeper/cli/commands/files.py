"""`inn push` and `inn pull`: one file into or out of an instance. This is our side of it; cli/guest.py is the other.

A file that is replaced is replaced whole, and a link is followed to what it leads to. A device, a pipe and whatever
/proc shows, such as /dev/stdout, is nothing to be replaced: it is written into.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

from cyclopts import Parameter, Token

from innkeeper.cli import terminal
from innkeeper.cli.grammar.words import HERE, Here
from innkeeper.cli.guest import Guest
from innkeeper.cli.line import CannotGoOn, new_key

_CHUNK = 32 * 1024
_LINKS_MOST = 40
_STREAM = Path("-")
_MODE_UNKNOWN = 0o644


def _local(_: object, tokens: Sequence[Token]) -> Path:
    """`-` is our input or output; `./-` would be a file."""
    word = tokens[0].value
    if word.startswith("-") and word != "-":
        raise CannotGoOn(f"there is no option {word}", f"A file of that name is ./{word}", 2)
    place = Path(word).expanduser()
    if word.endswith("/") and not place.is_dir():
        raise CannotGoOn(f"{word} is no folder", "Make it first, or leave out the slash", 2)
    return place.absolute() if place == _STREAM and word != "-" else place


There = Annotated[str, Parameter(name="instance:path", help="the place in the instance, such as web:/etc/hosts")]
Source = Annotated[
    Path, Parameter(help="the file here; - is standard input", converter=_local, allow_leading_hyphen=True)
]
Target = Annotated[
    Path,
    Parameter(
        name="file",
        help="the file here, or a folder; - is standard output",
        converter=_local,
        allow_leading_hyphen=True,
    ),
]


def push(file: Source, target: There, /, *, where: Here = HERE) -> None:
    """A path that is a folder takes the file under its own name. The mode goes with it, the owner does not."""
    with terminal.unwound(), _opened(file) as source:
        guest = Guest(where.line, target)
        with _shown(f"push {file.name}", source.size_bytes, source.stream) as count:
            asyncio.run(guest.put(source.name, source.mode, _counted(source.chunks, count)))


def pull(source: There, target: Target = Path("."), /, *, where: Here = HERE) -> None:
    """Without a place here the file comes into this folder, under its own name."""
    with terminal.unwound():
        asyncio.run(_pulled(Guest(where.line, source), target))


async def _pulled(guest: Guest, target: Path) -> None:
    seen = await guest.file()
    with (
        _written(target, guest.file_name, seen.mode & 0o777) as out,
        _shown(f"pull {guest.file_name}", seen.size_bytes or None, out) as count,
    ):

        def take(data: bytes) -> None:
            rest = memoryview(data)
            with terminal.blocking():
                while rest:
                    rest = rest[out.write(rest) :]
            count(len(data))

        await guest.get(take)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """What is to be pushed. What has no name or size has "" and None."""

    name: str
    mode: int
    size_bytes: int | None
    stream: BinaryIO
    chunks: AsyncIterator[bytes]


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[_Opened]:
    if file == _STREAM:
        stdin = sys.stdin.buffer
        yield _Opened(name="", mode=_MODE_UNKNOWN, size_bytes=None, stream=stdin, chunks=terminal.typed())
        return
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            hint = f"To push what it gives: inn push - INSTANCE:PATH < {file}"
            raise CannotGoOn(f"{file} is no regular file", hint, 2)
        stream = file.open("rb")
    except OSError as error:
        hint = "Only single files are pushed; a folder: tar c FOLDER | inn exec INSTANCE -- tar x -C PATH"
        raise CannotGoOn(f"{file} cannot be read: {error.strerror}", hint, 2) from error
    with stream:
        size = os.fstat(stream.fileno()).st_size
        mode = stat.S_IMODE(mode)
        yield _Opened(name=file.name, mode=mode, size_bytes=size, stream=stream, chunks=_chunks(stream, file))


async def _chunks(stream: BinaryIO, file: Path) -> AsyncIterator[bytes]:
    try:
        while data := stream.read(_CHUNK):
            yield data
    except OSError as error:
        raise CannotGoOn(f"{file} cannot be read: {error.strerror}", "Nothing was pushed") from error


async def _counted(chunks: AsyncIterator[bytes], count: Callable[[int], object]) -> AsyncIterator[bytes]:
    async for data in chunks:
        yield data
        count(len(data))


@contextlib.contextmanager
def _shown(title: str, size_bytes: int | None, ours: BinaryIO) -> Iterator[Callable[[int], object]]:
    """Progress for a person, unless the bytes themselves pass through the person's terminal."""
    if not sys.stderr.isatty() or ours.isatty():
        yield lambda _: None
        return
    copied = importlib.import_module("innkeeper.cli.progress").Copied(title, size_bytes)
    try:
        yield copied.add
    finally:
        copied.end()


@contextlib.contextmanager
def _written(target: Path, name: str, mode: int) -> Iterator[BinaryIO]:
    """What is written here is at the target when the block ends well; otherwise there is what was there.

    Raises:
        CannotGoOn: it cannot be written.
    """
    if target == _STREAM:
        with _pouring(sys.stdout.fileno()) as out:
            yield out
        return
    try:
        place = _end_of(target / name if target.is_dir() else target)
        before = place.stat() if os.path.lexists(place) else None
        into = place.is_relative_to("/proc") or (before is not None and not stat.S_ISREG(before.st_mode))
        with _pouring(place) if into else _replacing(place, before, mode) as out:
            yield out
    except BrokenPipeError:
        raise
    except OSError as error:
        hint = "Choose another place: inn pull INSTANCE:PATH FILE"
        raise CannotGoOn(f"{target} cannot be written: {error.strerror}", hint) from error


def _end_of(place: Path) -> Path:
    """Where links lead. Not out of /proc: what its links lead to is opened through them, and only so."""
    for _ in range(_LINKS_MOST):
        place = Path(os.path.realpath(place.parent), place.name)
        if place.is_relative_to("/proc") or not place.is_symlink():
            break
        place = place.parent / place.readlink()
    return place


@contextlib.contextmanager
def _pouring(place: Path | int) -> Iterator[BinaryIO]:
    """Without a buffer: it would have to be emptied in the end, also into what nobody reads any more."""
    with contextlib.ExitStack() as stack:
        with terminal.blocking():
            out = stack.enter_context(open(place, "wb", buffering=0, closefd=not isinstance(place, int)))
        yield out


def _umask() -> int:
    """The mode is the instance's word; what nobody here may have, it cannot give."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def _replacing(place: Path, before: os.stat_result | None, mode: int) -> Iterator[BinaryIO]:
    """Ours alone until it is whole; then with mode and owner of what it replaces."""
    part = place.with_name(f".inn-part.{new_key()[:12]}")
    try:
        with open(part, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
            yield out
            if before is not None:
                with contextlib.suppress(PermissionError):  # not everybody may give files away
                    os.fchown(out.fileno(), before.st_uid, before.st_gid)
            os.fchmod(out.fileno(), mode & ~_umask() if before is None else before.st_mode & 0o777)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)
