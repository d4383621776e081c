"""Copying memory between files with holes: only pages with something in them are written, and what was is digested.

The digest is of the content alone. However a file's holes lie, equal content has one digest: pages of zeros never
count, and each run of other pages counts with its place. A run ends where a chunk does.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from collections.abc import Iterator

PAGE_BYTES = 4096
CHUNK_BYTES = 1024 * 1024
# So much between two looks whether somebody still waits for it: some tenths of a second.
STEP_BYTES = 64 * 1024 * 1024

_PLACE = struct.Struct("<QQ")
_ZEROS = bytes(PAGE_BYTES)


class TooShort(Exception):
    """The file ended before its size."""


class Copy:
    """One pass over `source`; what is digested is what was written. `target` is empty, of the same size."""

    def __init__(self, source: int, target: int, size_bytes: int) -> None:
        self._source, self._target, self._size_bytes = source, target, size_bytes
        self._at = 0
        self._sha = hashlib.sha256()

    def step(self) -> bool:
        """Copy some more. Whether more is left.

        Raises:
            TooShort: the source is.
        """
        done_bytes = 0
        while done_bytes < STEP_BYTES and (at := self._next()) is not None:
            chunk = os.pread(self._source, min(CHUNK_BYTES, self._size_bytes - at), at)
            if len(chunk) != min(CHUNK_BYTES, self._size_bytes - at):
                raise TooShort
            for begin, end in runs(chunk):
                data = memoryview(chunk)[begin:end]
                self._sha.update(_PLACE.pack(at + begin, end - begin))
                self._sha.update(data)
                _write(self._target, data, at + begin)
            self._at = at + CHUNK_BYTES
            done_bytes += len(chunk)
        return self._next() is not None

    def digest(self) -> str:
        return self._sha.hexdigest()

    def _next(self) -> int | None:
        """Where the next chunk begins that is more than a hole."""
        if self._at >= self._size_bytes:
            return None
        try:
            data = os.lseek(self._source, self._at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise
        at = data - data % CHUNK_BYTES
        return at if at < self._size_bytes else None


def runs(chunk: bytes) -> Iterator[tuple[int, int]]:
    """Where pages lie, one after the other, that are not all zero."""
    begin: int | None = None
    for at in range(0, len(chunk), PAGE_BYTES):
        page = chunk[at : at + PAGE_BYTES]
        if page == _ZEROS[: len(page)]:
            if begin is not None:
                yield begin, at
            begin = None
        elif begin is None:
            begin = at
    if begin is not None:
        yield begin, len(chunk)


def _write(fd: int, data: memoryview, at: int) -> None:
    # Where room ends within it, less is written; the next attempt then says so.
    while data:
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written
