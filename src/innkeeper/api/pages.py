"""Cursors on lists: a page ends with the key of its last item, so that what comes and goes meanwhile shifts nothing."""

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query

from innkeeper.api.problems import Problem, invalid

T = TypeVar("T")
Key = tuple[str | int, ...]
MOST = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What was asked for: `after` is the key of the last item of the page before."""

    after: Key | None
    limit: int

    def of(self, items: Iterable[T], key: Callable[[T], Key]) -> tuple[list[T], str | None]:
        """The items of this page in the order of their keys, and the cursor of the next one."""
        try:
            rest = sorted((i for i in items if self.after is None or key(i) > self.after), key=key)
        except TypeError as error:  # words held against numbers
            raise _none_of_ours() from error
        shown = rest[: self.limit]
        return shown, cursor(key(shown[-1])) if len(rest) > len(shown) else None


def cursor(key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


async def page(
    cursor: Annotated[str | None, Query(max_length=1000, description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 1000,
) -> Page:
    return Page(after=None if cursor is None else _key(cursor), limit=limit)


def _key(text: str) -> Key:
    try:
        key: Any = json.loads(base64.urlsafe_b64decode(text.encode()))
    except (binascii.Error, ValueError):
        key = None
    if not isinstance(key, list) or not key or not all(isinstance(part, str | int) for part in key):
        raise _none_of_ours()
    return tuple(key)


def _none_of_ours() -> Problem:
    return invalid("the cursor is none of this list's", "Give `next` of the page before as it is, or none at all")


Paged = Annotated[Page, Depends(page)]
