"""Reports on their way out.

A slow reader gets the newest state of each object, and loses samples rather than memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

from innkeeper.agent.kept.keeping import keep
from innkeeper.model.ids import InstanceId
from innkeeper.model.observed import (
    HostState,
    MachineState,
    MemoryState,
    Report,
    Sample,
    SnapshotState,
    StepProgress,
    TemplateState,
)

log = logging.getLogger(__name__)

# Far more than the reports that one life of an agent sends.
_LIFE = 10**9
# Progress that nobody fetched. Losing the oldest of it does not matter.
_PROGRESS_MOST = 1000


class Outbox:
    def __init__(self, seq_file: Path) -> None:
        """Sequence numbers go on above all that an earlier life gave."""
        self._seq = _next_life(seq_file)
        self._waiting: dict[object, Report] = {}
        self._progress: dict[object, Report] = {}
        self._news = asyncio.Event()

    def seq(self) -> int:
        """The next number, greater than all before, also across restarts and jumps of the clock."""
        self._seq += 1
        return self._seq

    def put(self, report: Report) -> None:
        waiting = self._progress if isinstance(report, StepProgress) else self._waiting
        waiting.pop(_about(report), None)
        waiting[_about(report)] = report
        if len(self._progress) > _PROGRESS_MOST:
            del self._progress[next(iter(self._progress))]
        self._news.set()

    def forget(self, instance: InstanceId) -> None:
        """Nothing more is said about an instance that is gone."""
        self._waiting.pop(("machine", instance), None)
        self._waiting.pop(("sample", instance), None)

    async def reports(self) -> AsyncIterator[Report]:
        while True:
            await self._news.wait()
            while waiting := self._waiting or self._progress:
                yield waiting.pop(next(iter(waiting)))
            self._news.clear()


def _about(report: Report) -> object:
    match report:
        case MachineState():
            return ("machine", report.instance)
        case TemplateState():
            return ("template", report.template)
        case SnapshotState():
            return ("snapshot", report.snapshot)
        case MemoryState():
            return ("memory", report.memory)
        case HostState():
            return "host"
        case StepProgress():
            return ("step", report.operation, report.step)
        case Sample():
            return ("sample", report.instance)


def _next_life(seq_file: Path) -> int:
    """Above the last life's numbers by what that life wrote down; where that is lost, by the clock."""
    by_clock = int(time.time()) * _LIFE
    try:
        begin = max(int(seq_file.read_text()) + _LIFE, by_clock)
    except (FileNotFoundError, ValueError):
        begin = by_clock
    try:
        keep(seq_file, str(begin))
    except OSError as error:
        log.error("the numbers of reports cannot be kept (%s); if the clock goes back, reports get lost", error)
    return begin
