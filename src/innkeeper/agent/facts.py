"""What this machine is and offers, read from it."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from innkeeper.model.host import HostFacts

_GIB = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found out once, at start."""

    accelerator: str
    accelerator_reason: str
    qemu_version: str
    machine_type: str
    problems: tuple[str, ...] = ()


def look(found: Found, pool: Path) -> HostFacts:
    """The rest, which changes: free room above all."""
    disk = shutil.disk_usage(pool)
    return HostFacts(
        vcpus=len(os.sched_getaffinity(0)),
        memory_mib=_memory_mib(),
        disk_gib=disk.total // _GIB,
        disk_free_gib=disk.free // _GIB,
        accelerator=found.accelerator,
        accelerator_reason=found.accelerator_reason,
        qemu_version=found.qemu_version,
        machine_type=found.machine_type,
        cpu_model="max",
        kernel=platform.release(),
        boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        problems=(*found.problems, *_tight(pool, disk.free)),
    )


def _tight(pool: Path, free_bytes: int) -> tuple[str, ...]:
    if free_bytes >= _GIB:
        return ()
    return (
        f"the pool {pool} has less than 1 GiB free, and guests that write are paused once it is full: "
        "delete instances or templates that nobody needs, or give it more room",
    )


def _memory_mib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    raise OSError("/proc/meminfo has no MemTotal")
