"""How much a simulated guest does: daily curves, the same in each run, different for each instance.

A rate is a mean with a daily and an hourly wave on it, so its integral is known in closed form: counters are
computed for any moment without having been counted up to it, only grow, and cost nothing while nobody looks.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

_DAY = 2 * math.pi / 86_400
_HOUR = 2 * math.pi / 3_600
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    cpu_s: float = 0.0
    disk_read_bytes: float = 0.0
    disk_written_bytes: float = 0.0
    net_received_bytes: float = 0.0
    net_sent_bytes: float = 0.0

    def plus(self, other: Counters) -> Counters:
        return Counters(
            cpu_s=self.cpu_s + other.cpu_s,
            disk_read_bytes=self.disk_read_bytes + other.disk_read_bytes,
            disk_written_bytes=self.disk_written_bytes + other.disk_written_bytes,
            net_received_bytes=self.net_received_bytes + other.net_received_bytes,
            net_sent_bytes=self.net_sent_bytes + other.net_sent_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Means per second, and where in the day the peak is."""

    cpu: float
    memory_share: float
    disk_read: float
    disk_written: float
    net_received: float
    net_sent: float
    peak: float

    def between(self, begin: float, end: float) -> Counters:
        """What is done between two moments."""
        work = _wave_area(end, self.peak) - _wave_area(begin, self.peak)
        return Counters(
            cpu_s=self.cpu * work,
            disk_read_bytes=self.disk_read * work,
            disk_written_bytes=self.disk_written * work,
            net_received_bytes=self.net_received * work,
            net_sent_bytes=self.net_sent * work,
        )

    def memory_mib(self, at: float, memory_mib: int) -> float:
        """Memory follows the day, not the hour."""
        return memory_mib * self.memory_share * (0.85 + 0.15 * math.sin(_DAY * at + self.peak))


def _wave_area(at: float, peak: float) -> float:
    """The integral of 1 + 0.7 sin(day) + 0.2 sin(hour), which is never negative."""
    return at - 0.7 / _DAY * math.cos(_DAY * at + peak) - 0.2 / _HOUR * math.cos(_HOUR * at + peak)


def load_of(instance: str, vcpus: int, scale: float = 1.0) -> Load:
    """The load that belongs to an instance's id. Most guests do little and a few do much, as in real fleets."""
    parts = [byte / 255 for byte in hashlib.blake2b(instance.encode(), digest_size=8).digest()]
    return Load(
        cpu=vcpus * min(0.5, (0.01 + 0.4 * parts[0] ** 3) * scale),
        memory_share=0.2 + 0.6 * parts[1],
        disk_read=4 * _MIB * parts[2] ** 4 * scale,
        disk_written=2 * _MIB * parts[3] ** 4 * scale,
        net_received=8 * _MIB * parts[4] ** 4 * scale,
        net_sent=8 * _MIB * parts[5] ** 4 * scale,
        peak=2 * math.pi * parts[6],
    )
