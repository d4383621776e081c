"""Virtual time: an event loop that leaps over the waiting, and a clock that follows the loop it runs in.

In `SimLoop` nothing waits. When every task waits for time to pass, the loop moves its own time on to the next timer
at once; `asyncio.sleep`, `asyncio.timeout` and all deadlines of the code under test follow, unchanged and in the
same order as in a real run. Only work in threads takes real time: while some is under way (`asyncio.to_thread`,
`run_in_executor`), time stands still, so that no deadline strikes because a disk was slow.

    simulate(scenario())            # an hour of scenario in milliseconds, the same each time

In an ordinary loop `SimClock` shows ordinary time, or a multiple of it for demonstrations.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START = 1_767_225_600.0  # 2026-01-01: scenarios begin on a round date
_STUCK_AFTER_S = 20.0
_LOOK_AGAIN_S = 0.1


class Stuck(RuntimeError):
    """Every task waits, and nothing is left that could wake one."""


class _LeapingSelector(selectors.DefaultSelector):
    """Where an event loop would sleep, this adds the time to `passed_s` instead."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 0.0
        self.threads_at_work = 0
        self.outsiders: list[Callable[[], bool]] = []

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        # Asked before looking: whoever says that it is idle has called the loop already if it had anything to say.
        busy = self.threads_at_work > 0 or any(outsider() for outsider in self.outsiders)
        if ready := super().select(0):
            return ready
        if busy:
            return super().select(_LOOK_AGAIN_S)
        if timeout is not None:
            self.passed_s += timeout
            return []
        # No timer at all: only a thread or a process that the loop does not know of can still call.
        if ready := super().select(_STUCK_AFTER_S):
            return ready
        raise Stuck("every task of the simulation waits, and no timer runs: look for an await that nobody answers")


class SimLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._leaping = _LeapingSelector()
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.passed_s

    def wait_for(self, outsider: Callable[[], bool]) -> None:
        """Time stands still while this says that it is busy: for threads that the loop does not know of."""
        self._leaping.outsiders.append(outsider)

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._leaping.threads_at_work += 1
        future.add_done_callback(self._thread_returned)
        return future

    def _thread_returned(self, _: asyncio.Future[Any]) -> None:
        self._leaping.threads_at_work -= 1


def simulate(scenario: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(scenario)


class SimClock:
    """Time as the running loop counts it, `speed` times faster; goes on where it stood when another loop is run.

    Between loops time stands still.
    """

    def __init__(self, start: float = START, speed: float = 1.0) -> None:
        self._offset = start
        self._speed = speed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._zero = 0.0
        self._before = 0.0
        self._latest = 0.0

    def now(self) -> float:
        return self._offset + self.monotonic()

    def monotonic(self) -> float:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._latest
        if loop is not self._loop:
            self._loop, self._zero, self._before = loop, loop.time(), self._latest
        self._latest = self._before + (loop.time() - self._zero) * self._speed
        return self._latest

    async def sleep(self, seconds: float) -> None:
        self.monotonic()  # a loop's time counts from when the clock first sees it
        await asyncio.sleep(seconds / self._speed)
        self.monotonic()

    def later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back after so long, as events of machines do. For use in a running loop."""
        self.monotonic()
        return asyncio.get_running_loop().call_later(seconds / self._speed, call)

    def jump(self, seconds: float) -> None:
        """The time of day is set forward or back; nothing that waits notices."""
        self._offset += seconds
