"""Monitoring: counters of every instance in a ring in memory, and five-minute averages and maxima kept for two weeks.

A host's samples are counters that only grow while QEMU lives; here they become rates between neighbours. A counter
that fell (QEMU began anew) makes no rate. Memory is a level, not a rate.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from innkeeper.model.observed import Sample
from innkeeper.ports.clock import Clock
from innkeeper.ports.store import History, MetricRow, StoreFailed

log = logging.getLogger(__name__)

SPAN_S = 300
KEEP_S = 14 * 24 * 3600
_RING = 360  # an hour of 10 s samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What an instance did between two samples.

    CPU in seconds per second (1.0 is one busy thread), bytes per second, MiB.
    """

    at: float
    cpu: float
    memory_mib: float
    disk_read: float
    disk_written: float
    net_received: float
    net_sent: float


def rates(before: Sample, after: Sample) -> Rates | None:
    """None where the counters do not follow from one another."""
    span = after.at - before.at
    if span <= 0 or after.cpu_s < before.cpu_s or after.disk_written_bytes < before.disk_written_bytes:
        return None
    return Rates(
        at=after.at,
        cpu=(after.cpu_s - before.cpu_s) / span,
        memory_mib=after.memory_mib,
        disk_read=max(0, after.disk_read_bytes - before.disk_read_bytes) / span,
        disk_written=max(0, after.disk_written_bytes - before.disk_written_bytes) / span,
        net_received=max(0, after.net_received_bytes - before.net_received_bytes) / span,
        net_sent=max(0, after.net_sent_bytes - before.net_sent_bytes) / span,
    )


def summary(instance: str, at: int, ring: Iterable[Rates]) -> MetricRow | None:
    """Average and maximum of the rates in the span that ends at `at`; None without any."""
    held = [r for r in ring if at - SPAN_S < r.at <= at]
    if not held:
        return None

    def both(values: list[float]) -> tuple[float, float]:
        return sum(values) / len(values), max(values)

    cpu, memory = both([r.cpu for r in held]), both([r.memory_mib for r in held])
    read, written = both([r.disk_read for r in held]), both([r.disk_written for r in held])
    received, sent = both([r.net_received for r in held]), both([r.net_sent for r in held])
    return MetricRow(
        instance=instance,
        at=at,
        cpu_avg=cpu[0],
        cpu_max=cpu[1],
        memory_avg_mib=memory[0],
        memory_max_mib=memory[1],
        disk_read_avg=read[0],
        disk_read_max=read[1],
        disk_written_avg=written[0],
        disk_written_max=written[1],
        net_received_avg=received[0],
        net_received_max=received[1],
        net_sent_avg=sent[0],
        net_sent_max=sent[1],
    )


class Monitor:
    def __init__(self, history: History, clock: Clock) -> None:
        self._history = history
        self._clock = clock
        self._last: dict[str, Sample] = {}
        self._rings: dict[str, deque[Rates]] = {}

    def took(self, sample: Sample) -> None:
        before = self._last.get(sample.instance)
        self._last[sample.instance] = sample
        between = rates(before, sample) if before is not None else None
        if between is not None:
            self._rings.setdefault(sample.instance, deque(maxlen=_RING)).append(between)

    def sample(self, instance: str) -> Sample | None:
        """The newest counters."""
        return self._last.get(instance)

    def now(self, instance: str) -> Rates | None:
        """The newest rates; None when there are none, or when they are older than a minute."""
        ring = self._rings.get(instance)
        if not ring or self._clock.now() - ring[-1].at > 60:
            return None
        return ring[-1]

    def ring(self, instance: str) -> tuple[Rates, ...]:
        return tuple(self._rings.get(instance, ()))

    async def kept(self, instance: str, since: int) -> tuple[MetricRow, ...]:
        return await self._history.metrics(instance, since)

    async def run(self) -> None:
        """Keeps what ends with each span, endlessly. A jump of the clock costs at most one span."""
        while True:
            now = self._clock.now()
            await self._clock.sleep(SPAN_S - now % SPAN_S)
            await self.keep(int(self._clock.now()) // SPAN_S * SPAN_S)

    async def keep(self, at: int) -> None:
        """Write the span that ends at `at`, and forget instances that are silent since."""
        rows = [r for i, ring in self._rings.items() if (r := summary(i, at, ring)) is not None]
        try:
            await self._history.keep(rows, at - KEEP_S)
        except StoreFailed as failed:  # a full disk costs a span of the history, not the daemon
            log.error("five minutes of metrics are lost: %s", failed)
        silent = [i for i, s in self._last.items() if s.at < at - SPAN_S]
        for instance in silent:
            self._last.pop(instance, None)
            self._rings.pop(instance, None)
