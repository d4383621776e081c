"""What a QEMU, or a guest's agent, says, picked apart. Pure.

A guest that has taken its QEMU over says what it likes: every field is asked for with its type, and no text of theirs
reaches people or the store unless it is short and printable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

WORDS_MOST = 200
ENTRIES_MOST = 256
# What a list of as many adds up to still is a number for a database.
COUNT_MOST = 2**53

T = TypeVar("T", bool, int, str)


class Odd(Exception):
    """Not what QEMU would say. The text names what came in its place."""


def optional(said: object, name: str, kind: type[T]) -> T | None:
    """
    Raises:
        Odd: it is something else.
    """
    if not isinstance(said, Mapping):
        raise Odd("something other than an object")
    value = said.get(name)
    # Python counts true and false among its numbers; JSON does not.
    if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise Odd(f"`{name}` that is not of type {kind.__name__}")
    return value


def field(said: object, name: str, kind: type[T]) -> T:
    """
    Raises:
        Odd: it is missing, or is something else.
    """
    value = optional(said, name, kind)
    if value is None:
        raise Odd(f"nothing as `{name}`")
    return value


def count(said: object, name: str) -> int:
    """
    Raises:
        Odd: it is missing, or is no number that counts anything.
    """
    value = field(said, name, int)
    if not 0 <= value < COUNT_MOST:
        raise Odd(f"`{name}` that counts nothing")
    return value


def part(said: object, name: str) -> Mapping[str, object]:
    """
    Raises:
        Odd: it is missing, or is no object.
    """
    found = said.get(name) if isinstance(said, Mapping) else None
    if not isinstance(found, Mapping):
        raise Odd(f"nothing as `{name}`")
    return found


def entries(said: object) -> list[object]:
    """
    Raises:
        Odd: it is no list, or an endless one.
    """
    if not isinstance(said, list) or len(said) > ENTRIES_MOST:
        raise Odd("something other than a list")
    return said


def plain(text: object, most: int = WORDS_MOST) -> str:
    """A text of theirs on one line, printable and short; nothing if it is no text."""
    if not isinstance(text, str):
        return ""
    # Cut first: a text may have a million characters.
    return "".join(c for c in " ".join(text[: 4 * most].split()) if c.isprintable())[:most]
