"""Processes that say of themselves what a test has them say, each as the user that the test wants."""

from __future__ import annotations

import json
import subprocess
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


def write_record(folder: Path, pid: int, instance: str) -> None:
    """As the launcher does, for a process that is the machine of this instance."""
    started = start_time(pid)
    assert started is not None
    uuid = machine_uuid(InstanceId(instance))
    record = Record(pid=pid, start_time=started, launcher=0, boot_id=boot_id(), started_at=1.0, uuid=uuid)
    (folder / "machine.json").write_text(json.dumps(asdict(record)))
