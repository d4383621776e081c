"""Our own daemon on a folder of its own, and what is asked of it and read of its processes: shared by the benches."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from innkeeper.cli.line import CannotGoOn, Line
from innkeeper.main.place import Place
from innkeeper.main.remove import without_networks

INN = Path(sys.executable).with_name("inn")


@contextlib.contextmanager
def folder(wanted: Path | None) -> Iterator[Path]:
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted.absolute()
        return
    made = Path(tempfile.mkdtemp(prefix="inn-bench-", dir="/var/tmp"))
    try:
        made.chmod(0o755)
        yield made
    finally:
        shutil.rmtree(made)


@contextlib.contextmanager
def daemon(data: Path) -> Iterator[Line]:
    """Our daemon on this folder; ended, with all its instances, afterwards. Memory images are made only by wish."""
    line = Line(str(data / "api.sock"))
    with (data / "daemon.log").open("ab") as log:
        process = subprocess.Popen([INN, "serve", "--data", str(data), "--no-warm"], stdout=log, stderr=log)
    try:
        until(lambda: all(h["status"] == "ready" for h in line.get("/v1/hosts")["items"]), 60)
        yield line
        for instance in line.get("/v1/instances")["items"]:
            ended(line, line.delete(f"/v1/instances/{instance['name']}", force="true"))
    finally:
        process.terminate()
        process.wait(20)
        asyncio.run(without_networks(Place(data)))


def until(holds: object, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(CannotGoOn):
            if holds():  # type: ignore[operator]
                return
        time.sleep(0.1)
    raise TimeoutError("the daemon is not ready; see its log")


def ended(line: Line, operation: dict[str, str]) -> None:
    now = line.get(f"/v1/operations/{operation['id']}/wait", timeout_s=3600)
    if now["state"] != "succeeded":
        raise RuntimeError(f"{now['title']}: {now['error']}")


def have(line: Line, template: str) -> None:
    for wanted in {template, "tiny"}:
        if not any(t["name"] == wanted for t in line.get("/v1/templates")["items"]):
            print(f"building template {wanted} …", flush=True)
            ended(line, line.post("/v1/templates/build", {"recipe": wanted}))


# --- processes


def pid_of(instance: str) -> int:
    """Of its QEMU."""
    for found in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"/machines/{instance}/".encode() in (found / "environ").read_bytes():
                return int(found.name)
    raise RuntimeError(f"no process of {instance} is found")


def boot_time() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def began(pid: int) -> int:
    """In ticks since boot."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0
