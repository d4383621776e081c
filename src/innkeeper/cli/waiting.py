"""Waiting for an instance to be so far; a person who looks on sees that something goes on."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

from innkeeper.cli.line import Line, at

ANSWER_S = 600.0  # how long a guest may take to answer, where nobody says otherwise


def until(line: Line, name: str, state: str = "agent", timeout_s: float = ANSWER_S) -> dict[str, Any] | None:
    """The instance once it is so; None once it is deleted."""
    with going_on(f"waiting for {name}: {state}"):
        found: dict[str, Any] | None = line.get(at("instances", name, "wait"), **{"for": state, "timeout_s": timeout_s})
    return found


@contextlib.contextmanager
def going_on(words: str) -> Iterator[None]:
    """Shown while the block runs, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield
        return
    with importlib.import_module("innkeeper.cli.progress").turning(words):
        yield
