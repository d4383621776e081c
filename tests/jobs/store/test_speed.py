"""How many launches a second the store carries, and whether the last are as fast as the first.

It prints, and judges nothing absolute: a busy machine must not fail a test.

Each launch is what a real one is: a plan with three rows, three claims and three reservations, waited for by its
client; and six records by its worker, one of them with a report. Nothing else runs in the process; what a daemon does
beside that, the bench measures.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import pytest

from innkeeper.model.host import HostFacts
from innkeeper.model.work import Moment, Operation, OperationState, Work
from innkeeper.store.store import Store
from tests.jobs.store.plans import FACTS, Machine, furnished, launch, noted, opened, seen, submission

WIDTH = 32
ROOMY: HostFacts = replace(FACTS, vcpus=1 << 12)


@dataclass
class Figures:
    """Seconds from a client's request to the end of its operation, in the order in which they ended."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    commits: int = 0

    def table(self) -> str:
        count, part = len(self.latencies), max(1, len(self.latencies) // 10)
        ordered = sorted(self.latencies)
        rows = {
            "launches/s": count / self.seconds,
            "commits per launch": self.commits / count,
            "CPU ms per launch": 1e3 * self.cpu_seconds / count,
            "median ms": 1e3 * median(ordered),
            "p99 ms": 1e3 * ordered[int(0.99 * (count - 1))],
            "median ms, first tenth": 1e3 * median(self.latencies[:part]),
            "median ms, last tenth": 1e3 * median(self.latencies[-part:]),
        }
        return "\n".join(f"{name:<24}{value:>10.2f}" for name, value in rows.items())


async def _client(store: Store, number: int, figures: Figures) -> None:
    begun = time.perf_counter()
    machine = Machine(number=number)
    (answer,) = await store.works.submit([submission(launch(machine), f"op-{number:012x}", key=f"key-{number}")])
    assert isinstance(answer, Operation), answer
    ended = await store.journal.wait_ended(answer.id, 60)
    assert ended is not None
    assert ended.state is OperationState.SUCCEEDED
    figures.latencies.append(time.perf_counter() - begun)


async def _worker(store: Store, work: Work) -> None:
    id, steps = work.operation.id, len(work.plan.steps)
    number = int(id.removeprefix("op-"), 16)
    for done in range(1, steps + 1):
        record = noted(id, Moment.STEP_DONE, OperationState.RUNNING, done)
        states = (seen(Machine(number=number), 1),) if done == steps else ()
        assert await store.works.record(replace(record, states=states))
    await store.pictures.report([seen(Machine(number=number), 2)])
    assert await store.works.record(noted(id, Moment.ENDED, OperationState.SUCCEEDED, steps))


async def _engine(store: Store, count: int) -> None:
    async with asyncio.TaskGroup() as group:
        taken = 0
        while taken < count:
            works = await store.works.take(WIDTH)
            taken += len(works)
            for work in works:
                group.create_task(_worker(store, work))


async def _measure(folder: Path, count: int) -> Figures:
    figures = Figures()
    room = asyncio.Semaphore(WIDTH)
    points: list[int] = []

    async def one(store: Store, number: int) -> None:
        async with room:
            await _client(store, number, figures)

    async with furnished(folder, facts=ROOMY):
        pass
    async with opened(folder, on_commit=points.append) as store:
        begun, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            group.create_task(_engine(store, count))
            for number in range(1, count + 1):
                group.create_task(one(store, number))
        figures.seconds, figures.cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
        figures.commits = len(points) // 2
        assert len(store.pictures.cluster().instances) == count
        assert not store.pictures.cluster().claims
    return figures


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
async def test_launches_are_committed_in_groups(tmp_path: Path, count: int) -> None:
    figures = await _measure(tmp_path, count)
    print(f"\n{count} launches, {WIDTH} at a time, full sync:\n{figures.table()}")  # noqa: T201  the figures are the point
    # Seven commits each, one by one, would be the end of the promise; that is a matter of counting, not of time.
    assert figures.commits < 2 * count
    async with opened(tmp_path) as store:
        assert store.mended == ()
        assert len(store.pictures.cluster().instances) == count
