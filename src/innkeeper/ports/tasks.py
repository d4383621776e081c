"""Keeping loops alive. A fault of ours in one loop is logged as one, and neither ends the others nor goes unseen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

PAUSE_FIRST_S = 1.0
PAUSE_MOST_S = 60.0


async def steady(what: str, loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop; where it fails in a way nobody thought of, log that and run it again after a growing pause.

    It ends when the loop ends by itself, or is cancelled.
    """
    pause_s = PAUSE_FIRST_S
    while True:
        try:
            await loop()
            return
        except Exception:
            log.exception("%s failed in a way nobody thought of; it goes on in %g s", what, pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, PAUSE_MOST_S)
