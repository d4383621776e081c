"""Work in a thread has ended when its caller goes on, however often the caller was told to leave."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from innkeeper.ports.tasks import to_the_end, unbroken


async def until(event: threading.Event) -> None:
    assert await asyncio.get_running_loop().run_in_executor(None, event.wait, 30)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancellation_waits_for_the_thread(fails: bool) -> None:
    begun, enough, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        enough.wait(30)
        ended.set()
        if fails:
            raise OSError("nobody is interested any more")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(to_the_end(work))
        await until(begun)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done()
        enough.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()


async def test_what_the_thread_says_and_what_goes_wrong_in_it_arrive() -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="of our own") as threads:
        assert (await to_the_end(lambda: threading.current_thread().name, threads)).startswith("of our own")
    with pytest.raises(ZeroDivisionError):
        await to_the_end(lambda: 1 // 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_what_was_made_while_it_was_cancelled_is_taken_back(fails: bool) -> None:
    begun, enough, taken_back = asyncio.Event(), asyncio.Event(), list[str]()

    async def make() -> str:
        begun.set()
        await enough.wait()
        if fails:
            raise OSError("nobody is interested any more")
        return "a process"

    async def take_back(made: str) -> None:
        taken_back.append(made)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(unbroken(make(), take_back))
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        enough.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert taken_back == ([] if fails else ["a process"])


async def test_what_was_made_in_peace_is_kept() -> None:
    async def make() -> int:
        return 7

    async def take_back(made: int) -> None:
        raise AssertionError("nobody cancelled")

    assert await unbroken(make(), take_back) == 7
