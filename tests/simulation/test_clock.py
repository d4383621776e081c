"""Virtual time: nothing waits, order is kept, threads are waited for, and a scenario that hangs says so."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from innkeeper.sim import clock
from innkeeper.sim.clock import SimClock, SimLoop, Stuck, simulate


def test_hours_pass_in_no_time_and_in_order() -> None:
    told: list[tuple[float, str]] = []

    async def tell(at: float, what: str, now: SimClock) -> None:
        await now.sleep(at)
        told.append((now.monotonic(), what))

    async def scenario() -> None:
        now = SimClock()
        async with asyncio.TaskGroup() as group:
            for at, what in ((7200.0, "last"), (1.0, "first"), (3600.0, "second")):
                group.create_task(tell(at, what, now))

    simulate(scenario())
    assert told == [(1.0, "first"), (3600.0, "second"), (7200.0, "last")]


def test_deadlines_follow() -> None:
    async def scenario() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(86_400):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert simulate(scenario()) == 86_400


def test_time_stands_still_while_a_thread_works() -> None:
    async def scenario() -> str:
        async with asyncio.timeout(0.01):  # of virtual time, which does not pass
            return await asyncio.to_thread(_slowly)

    assert simulate(scenario()) == "done"


def _slowly() -> str:
    time.sleep(0.05)
    return "done"


def test_time_stands_still_for_a_thread_of_our_own() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        came, busy = asyncio.Event(), threading.Event()

        def work() -> None:
            time.sleep(0.05)
            loop.call_soon_threadsafe(came.set)
            busy.clear()

        busy.set()
        loop.wait_for(busy.is_set)
        thread = threading.Thread(target=work)
        thread.start()
        async with asyncio.timeout(0.01):
            await came.wait()
        thread.join()

    simulate(scenario())


def test_a_scenario_that_nobody_wakes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_STUCK_AFTER_S", 0.05)

    async def scenario() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        simulate(scenario())


def test_the_clock_goes_on_in_the_next_loop_and_may_jump() -> None:
    now = SimClock(start=1000.0)

    async def scenario() -> None:
        await now.sleep(10)

    simulate(scenario())
    assert now.now() == 1010
    simulate(scenario())
    assert now.now() == 1020
    now.jump(-500)
    assert (now.now(), now.monotonic()) == (520, 20)


def test_a_fast_clock_sleeps_less() -> None:
    async def scenario() -> float:
        fast = SimClock(speed=60.0)
        fast.now()
        await fast.sleep(120)
        return asyncio.get_running_loop().time()

    assert simulate(scenario()) == 2
