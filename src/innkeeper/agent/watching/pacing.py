"""How often anything is told of one guest: a few times at once, then seldom. Pure.

A guest can change how it is seen as often as it likes, by opening and closing a channel, panicking or booting anew; and
each change that is told costs everybody a commit, and each line in our log an older one. What is worth a line, too,
follows from what a guest says.
"""

from __future__ import annotations

from collections.abc import Callable

# One boot of an honest guest, from its first sign of life to the end of cloud-init, is told as it happens.
BURST, EVERY_S = 8, 1.0
LINES_BURST, LINES_EVERY_S = 5, 600.0


class Pacing:
    """Up to `burst` times at once, and once every `every_s` in the long run."""

    def __init__(self, clock: Callable[[], float], burst: int = BURST, every_s: float = EVERY_S) -> None:
        self._clock = clock
        self._every_s = every_s
        self._ahead_s = (burst - 1) * every_s
        # When the whole burst is saved up again.
        self._rested_at = clock()

    @property
    def left_s(self) -> float:
        """For how long it is not yet time; 0 when it is."""
        return max(0.0, self._rested_at - self._ahead_s - self._clock())

    def went(self) -> None:
        """It happened once more."""
        self._rested_at = max(self._rested_at, self._clock()) + self._every_s


class Remarks:
    """Which lines about a guest go into our log: none twice in one boot, and few however it behaves."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._pacing = Pacing(clock, LINES_BURST, LINES_EVERY_S)
        self._last: dict[str, str] = {}

    def is_due(self, about: str, words: str) -> bool:
        """Whether this is to be said; who is told so says it."""
        if self._last.get(about) == words or self._pacing.left_s > 0:
            return False
        self._last[about] = words
        self._pacing.went()
        return True

    def forget(self) -> None:
        """It boots anew, and what was said of an earlier boot may be said of this one."""
        self._last.clear()
