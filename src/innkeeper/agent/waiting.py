"""Waiting for work that must not be left half-done, and work that must not take the agent with it when it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

log = logging.getLogger(__name__)


async def until_ended(task: asyncio.Task[Any]) -> None:
    """Return once a task has ended, however it ended.

    Cancelled, it still waits for that end and only then passes the cancellation on: whoever comes next finds nothing
    under way.
    """
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


async def contained(what: str, work: Awaitable[None]) -> None:
    """For a task of its own whose failure is to be heard of, and is nobody else's."""
    try:
        await work
    except Exception:
        log.exception("%s failed in a way nobody thought of", what)
