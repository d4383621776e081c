"""Counters become rates, rates become five-minute rows, and rows are kept for two weeks."""

from __future__ import annotations

import asyncio
from pathlib import Path

from innkeeper.control.monitor import KEEP_S, SPAN_S, Monitor
from innkeeper.model.ids import InstanceId
from innkeeper.model.observed import Sample
from innkeeper.sim.clock import START, SimClock
from innkeeper.store.store import open_store

WEB = InstanceId("i-web")
STEP_S = 10


def a_sample(at: float, cpu_s: float, *, memory_mib: float = 100.0, bytes_: int = 0) -> Sample:
    return Sample(
        instance=WEB,
        at=at,
        cpu_s=cpu_s,
        memory_mib=memory_mib,
        disk_read_bytes=bytes_,
        disk_written_bytes=2 * bytes_,
        net_received_bytes=3 * bytes_,
        net_sent_bytes=4 * bytes_,
    )


def feed(monitor: Monitor, first: float, loads: list[float]) -> None:
    """A sample each ten seconds after `first`, between which so many threads were busy and 1,000 bytes/s were read."""
    monitor.took(a_sample(first, 0.0))
    busy = 0.0
    for number, load in enumerate(loads, 1):
        busy += load * STEP_S
        monitor.took(a_sample(first + number * STEP_S, busy, memory_mib=100 + number, bytes_=number * STEP_S * 1000))


async def test_a_span_is_told_by_its_average_and_its_maximum(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "inn.db", tmp_path / "key")
    monitor = Monitor(store.history, SimClock())
    # The span's last ten seconds are busy, and what comes after it must not count.
    feed(monitor, START, [0.5] * 29 + [2.0] + [4.0] * 5)
    await monitor.keep(int(START) + SPAN_S)
    (row,) = await monitor.kept(WEB, 0)
    assert (row.at, row.cpu_max) == (START + SPAN_S, 2.0)
    assert abs(row.cpu_avg - (29 * 0.5 + 2.0) / 30) < 1e-9
    assert (row.memory_avg_mib, row.memory_max_mib) == (115.5, 130)
    assert [round(r) for r in (row.disk_read_avg, row.disk_written_max, row.net_received_avg, row.net_sent_max)] == [
        *(1000, 2000, 3000, 4000)
    ]
    await store.close()


async def test_rows_are_kept_for_two_weeks_and_no_longer(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "inn.db", tmp_path / "key")
    monitor = Monitor(store.history, SimClock())
    days = [int(START) + day * 24 * 3600 for day in range(1, 17)]
    for at in days:
        feed(monitor, at - SPAN_S, [1.0] * 30)
        await monitor.keep(at)
    kept = [row.at for row in await monitor.kept(WEB, 0)]
    assert kept == [at for at in days if at >= days[-1] - KEEP_S]
    assert len(kept) == 15
    await store.close()


async def test_a_counter_that_began_anew_makes_no_rate() -> None:
    async def never(*_: object) -> None:
        raise AssertionError("nothing is kept here")

    clock = SimClock()
    monitor = Monitor(never, clock)  # type: ignore[arg-type]
    for at, cpu_s in ((0, 100.0), (10, 110.0), (20, 1.0), (30, 2.0)):
        monitor.took(a_sample(START + at, cpu_s))
    assert [(r.at - START, round(r.cpu, 3)) for r in monitor.ring(WEB)] == [(10, 1.0), (30, 0.1)]


async def test_by_itself_it_keeps_what_ends_with_each_span(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "inn.db", tmp_path / "key")
    clock = SimClock(speed=3000)
    monitor = Monitor(store.history, clock)
    feed(monitor, START, [1.0] * 60)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(monitor.run())
        while len(await monitor.kept(WEB, 0)) < 2:
            await asyncio.sleep(0.01)
        running.cancel()
    assert {row.at for row in await monitor.kept(WEB, 0)} == {START + SPAN_S, START + 2 * SPAN_S}
    await store.close()
