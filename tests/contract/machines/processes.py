"""Processes that say of themselves what a test has them say, each as the user that the test wants."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from innkeeper.drivers.qemu.directory import Record, boot_id, machine_uuid
from innkeeper.drivers.qemu.process import start_time
from innkeeper.model.ids import InstanceId
from innkeeper.ports.launcher import MARK


@dataclass
class Processes:
    begun: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, mark: str, uid: int, before: Mapping[str, str] | None = None) -> int:
        """The pid of one with this mark in its environment, after `before`."""
        environment = {**(before or {}), MARK: mark}
        started = subprocess.Popen(["/bin/sleep", "600"], env=environment, user=uid, group=uid, extra_groups=[])
        self.begun.append(started)
        return started.pid


@contextmanager
def processes() -> Iterator[Processes]:
    made = Processes()
    try:
        yield made
    finally:
        for each in made.begun:
            each.kill()
            each.wait()


_listening: list[set[str]] = []


@contextmanager
def files_opened() -> Iterator[set[str]]:
    """Names of files that this process opens meanwhile, in any thread."""
    if not _listening:
        sys.addaudithook(_hear)  # for ever: there is no way to take one away
    opened: set[str] = set()
    _listening[:] = [opened]
    try:
        yield opened
    finally:
        _listening[:] = [set()]


def _hear(event: str, words: tuple[object, ...]) -> None:
    if event == "open":
        _listening[0].add(str(words[0]))


def write_record(folder: Path, pid: int, instance: str) -> None:
    """As the launcher does, for a process that is the machine of this instance."""
    started = start_time(pid)
    assert started is not None
    uuid = machine_uuid(InstanceId(instance))
    record = Record(pid=pid, start_time=started, launcher=0, boot_id=boot_id(), started_at=1.0, uuid=uuid)
    (folder / "machine.json").write_text(json.dumps(asdict(record)))
