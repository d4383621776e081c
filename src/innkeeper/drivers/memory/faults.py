"""What memory images say when they cannot: three kinds, each with a reason and, where there is one, what to do next."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class MemoryFault(Exception):
    """`reason` says what happened to what; `hint` says what to do next."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason, hint)
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.reason}. {self.hint}" if self.hint else self.reason


class NoRoom(MemoryFault):
    """The file system of the images has no room left, or the quota on it is used up."""


class DamagedImage(MemoryFault):
    """An image is not what was written: it is never used, not even in part."""


class MemoryFailed(MemoryFault):
    """An image, or what was to become one, is not there or not as it must be, or the kernel declined."""


def damaged(path: Path, what: str) -> DamagedImage:
    hint = "Machines boot cold without it: delete this memory image and have a new one made; look after this disk"
    return DamagedImage(f"{path} is damaged: {what}", hint)


@contextmanager
def in_words(doing: str, root: Path) -> Iterator[None]:
    """What the kernel refuses, said so that an operator can act on it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoom(
                f"{doing}: no room left in {root}",
                "Delete instances, templates or memory images that nobody needs, or give it more room",
            ) from error
        where = f" ({error.filename})" if error.filename else ""
        raise MemoryFailed(f"{doing}: {error.strerror}{where}") from error
