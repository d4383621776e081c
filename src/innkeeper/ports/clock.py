"""The seam to time. Whoever waits or stamps asks a Clock, so that a month can pass in a second of testing."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The time of day may jump, in either direction; what is measured and waited for follows `monotonic`."""

    def now(self) -> float:
        """Seconds of the epoch, for stamps that people and other machines read."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment, never going back: for durations and deadlines."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` have passed on the monotonic clock."""
        ...
