"""What goes wrong with a simulated host, decided beforehand: the same faults break the same run at the same place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Killed(BaseException):
    """Our process is dead at this instruction. Not an Exception: nothing may catch it and go on."""


class Fault(StrEnum):
    """What becomes of one order."""

    REFUSE = "refuse"  # refused, without effect
    REFUSE_AFTER = "refuse-after"  # refused although the effect stands: a broken host, which only repair mends
    AWAY = "away"  # no answer, no effect
    LOSE_ANSWER = "lose-answer"  # no answer, although it was carried out
    KILL_BEFORE = "kill-before"  # our process dies before the effect
    KILL_UNRECORDED = "kill-unrecorded"  # …after the effect, before the host noted that it obeyed
    KILL_AFTER = "kill-after"  # …after both, before the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """`orders` says what happens to the n-th call of `give` in one life of the host's agent, counted from 1.

    `away` are spans of monotonic time, from and until, in which nobody answers; machines run on.
    """

    orders: Mapping[int, Fault] = field(default_factory=dict)
    away: tuple[tuple[float, float], ...] = ()

    def back_in(self, monotonic: float) -> float:
        """For how long yet nobody answers; 0 while the host is there."""
        return max((end - monotonic for begin, end in self.away if begin <= monotonic < end), default=0.0)
