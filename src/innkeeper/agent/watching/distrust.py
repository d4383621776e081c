"""When a guest is listened to again whose channel carried rubbish: later each time, until it boots anew.

Each new line to such a guest costs everybody a little time before it is given up. So who goes on gets a line ever more
seldom, also when somebody asks for one: a guest's owner cannot make the house listen.
"""

from __future__ import annotations

from collections.abc import Callable

PAUSE_FIRST_S, PAUSE_MOST_S = 2.0, 300.0
# One mishap a day is no habit.
FORGIVEN_AFTER_S = 3600.0


class Distrust:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pause_s = 0.0
        self._until = clock()
        self._why = ""

    @property
    def left_s(self) -> float:
        """For how long the guest is not listened to; 0 when it is."""
        return max(0.0, self._until - self._clock())

    @property
    def words(self) -> str:
        return f"{self._why}; it is listened to again in {self.left_s:.0f} s, or when it boots anew"

    def fell_out(self, why: str) -> None:
        """Its line had to be given up."""
        if self._clock() - self._until > FORGIVEN_AFTER_S:
            self._pause_s = 0.0
        self._pause_s = min(max(PAUSE_FIRST_S, 2 * self._pause_s), PAUSE_MOST_S)
        self._until = self._clock() + self._pause_s
        self._why = why

    def forget(self) -> None:
        self._pause_s = 0.0
        self._until = self._clock()
