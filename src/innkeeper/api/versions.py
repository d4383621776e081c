"""Versions of what is shown: `ETag` on every object, `If-None-Match` for readers, `If-Match` for writers.

A tag is `"GENERATION-DIGEST"`. The digest is of every byte shown, so a reader who has it has this very answer. The
generation changes when somebody changes what an object should be: only that is held against `If-Match`, since a
machine that started to answer meanwhile is no reason to refuse its renaming.
"""

from __future__ import annotations

import hashlib
import re

from innkeeper.api.problems import Problem
from innkeeper.model.plans import Refusal, Why

_TAG = re.compile(r'(W/)?"([^"]*)"')
_DIGITS_MOST = 18


def tag_of(body: bytes, generation: int) -> str:
    return f'"{generation}-{hashlib.blake2b(body, digest_size=8).hexdigest()}"'


def known(if_none_match: str | None, tag: str) -> bool:
    """Compared weakly: a proxy may have marked ours as weak."""
    has = if_none_match or ""
    return has.strip() == "*" or any(f'"{found}"' == tag for _, found in _TAG.findall(has))


def expected(if_match: str | None) -> tuple[int, ...] | None:
    """The generations that a writer would change; None: whatever it is.

    Raises:
        Problem: the header holds no tag of ours, so it cannot fit anything.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    words = [word.partition("-")[0] for weak, word in _TAG.findall(if_match) if not weak]
    found = tuple(int(word) for word in words if word.isascii() and word.isdigit() and len(word) <= _DIGITS_MOST)
    if not found:
        reason = f"If-Match: {if_match[:100]} is no tag of ours"
        raise Problem(Refusal(why=Why.CHANGED, reason=reason, hint="Send the ETag of an answer as it is"))
    return found
