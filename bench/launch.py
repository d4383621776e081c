"""How long a launch takes: ours beside libvirt's, our own share of it, and what the daemon costs while it idles.

    bench/launch.py [--quick] [--json FILE] [--runs N]

The peer is `virsh start` of the same disk image, domain type qemu or kvm as ours, with the distribution's own
kernel and initial RAM disk, clocked until `virsh qemu-agent-command` first answers a guest-ping (asked every 50
ms). Ours is clocked from the request until the API says that the agent answers. Both alternate in one run. Needs
root, libvirt-daemon-system and libvirt-clients; starts its own daemon on a folder of its own, and leaves nothing
running.
"""

from __future__ import annotations

import argparse
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

from peer import Libvirt
from rows import Row, Timed, show

from innkeeper.cli.line import CannotGoOn, Line
from innkeeper.main.place import Place
from innkeeper.main.remove import without_networks

INN = Path(sys.executable).with_name("inn")
SIZE = {"vcpus": 1, "memory_mib": 512}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="few runs, template tiny, for ./check")
    words.add_argument("--runs", type=int, default=5)
    words.add_argument("--json", type=Path)
    words.add_argument("--data", type=Path, help="data directory to keep, with its templates, for the next time")
    asked = words.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench/launch.py starts machines and must run as root")
    runs, template = (2, "tiny") if asked.quick else (asked.runs, "debian-12")
    with _folder(asked.data) as data, _daemon(data) as line:
        _have(line, template)
        rows = [*_own_share(line, 5 if asked.quick else 20), *_tiny(line, 3 if asked.quick else 7)]
        rows += [*_list(data, 5 if asked.quick else 15), *_idle(line, data)]
        if not asked.quick:  # two systems that boot in turn take minutes; the short form shows our own figures
            rows += _cold(line, data, template, runs)
    show(rows, asked.json)


@contextlib.contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted.absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="inn-bench-", dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _daemon(data: Path) -> Iterator[Line]:
    """Our daemon on this folder; ended, with all its instances, afterwards."""
    line = Line(str(data / "api.sock"))
    with (data / "daemon.log").open("ab") as log:
        daemon = subprocess.Popen([INN, "serve", "--data", str(data)], stdout=log, stderr=log)
    try:
        _until(lambda: all(h["status"] == "ready" for h in line.get("/v1/hosts")["items"]), 60)
        yield line
        for instance in line.get("/v1/instances")["items"]:
            _ended(line, line.delete(f"/v1/instances/{instance['name']}", force="true"))
    finally:
        daemon.terminate()
        daemon.wait(20)
        asyncio.run(without_networks(Place(data)))


def _until(holds: object, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(CannotGoOn):
            if holds():  # type: ignore[operator]
                return
        time.sleep(0.1)
    raise TimeoutError("the daemon is not ready; see its log")


def _ended(line: Line, operation: dict[str, str]) -> None:
    ended = line.get(f"/v1/operations/{operation['id']}/wait", timeout_s=3600)
    if ended["state"] != "succeeded":
        raise RuntimeError(f"{ended['title']}: {ended['error']}")


def _have(line: Line, template: str) -> None:
    for wanted in {template, "tiny"}:
        if not any(t["name"] == wanted for t in line.get("/v1/templates")["items"]):
            print(f"building template {wanted} …", flush=True)
            _ended(line, line.post("/v1/templates/build", {"recipe": wanted}))


# --- our own share, the command line, the idle daemon


def _own_share(line: Line, runs: int) -> list[Row]:
    """From just before the request is sent until the kernel says QEMU's process began (10 ms resolution)."""
    shares = []
    for number in range(runs):
        name = f"share-{number}"
        began = time.time()
        _ended(line, line.post("/v1/instances", {"template": "tiny", "name": name, "memory_mib": 128}))
        shares.append(max(0.0, _process_began(line.get(f"/v1/instances/{name}")["id"]) - began))
        _ended(line, line.delete(f"/v1/instances/{name}", force="true"))
    return [Row(name="own share of a launch", unit="s", values=tuple(shares), must=0.05)]


def _process_began(instance: str) -> float:
    ticks, boot = os.sysconf("SC_CLK_TCK"), _boot_time()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"/machines/{instance}/".encode() in (folder / "environ").read_bytes():
                return boot + _began(int(folder.name)) / ticks
    raise RuntimeError(f"no process of {instance} is found")


def _boot_time() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _tiny(line: Line, runs: int) -> list[Row]:
    """Promised for emulation; with KVM it is far quicker."""
    times = [_launch(line, "tiny", f"quick-{number}") for number in range(runs)]
    title = "launch of tiny until the agent answers"
    return [
        Row(name=title, unit="s", values=tuple(t.wall_s for t in times), must=3.5),
        Row(name=f"{title}, QEMU's CPU time", unit="s", values=tuple(t.cpu_s for t in times)),
    ]


def _list(data: Path, runs: int) -> list[Row]:
    command = [str(INN), "list", "--socket", str(data / "api.sock")]
    times = [_clocked(command) for _ in range(runs + 1)][1:]
    return [Row(name="inn list, whole process", unit="s", values=tuple(times), must=0.25)]


def _clocked(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def _idle(line: Line, data: Path) -> list[Row]:
    """The daemon with its launcher, ten seconds after the last request."""
    pid = int((data / "lock").read_text())
    time.sleep(5)
    before = _cpu_s(pid)
    time.sleep(10)
    share = (_cpu_s(pid) - before) / 10 * 100
    memory = sum(_pss_mib(p) for p in _company(pid))
    return [
        Row(name="idle daemon, memory", unit="MiB", values=(memory,), must=120),
        Row(name="idle daemon, CPU", unit="% of a core", values=(share,), must=1),
    ]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _company(pid: int) -> list[int]:
    """The daemon, and of our programs what began after it: the launcher, which is nobody's child, and whoever sets
    firewall rules. Machines and what serves networks are not counted, they belong to their owners."""
    found = [pid]
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes()
            if _began(int(folder.name)) > _began(pid) and b"python" in words and b"innkeeper" in words:
                found.append(int(folder.name))
    return found


def _began(pid: int) -> int:
    """In ticks since boot."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


# --- cold launch


def _cold(line: Line, data: Path, template: str, runs: int) -> list[Row]:
    image = next(t for t in line.get("/v1/templates")["items"] if t["name"] == template)
    folder = data / "pool" / "templates" / image["id"]
    accelerator = line.get("/v1/hosts")["items"][0]["accelerator"]
    ours, theirs = list[Timed](), list[Timed]()
    with Libvirt(folder, SIZE, accelerator) as peer:
        for number in range(runs + 1):  # the first of each warms the page cache and is not counted
            theirs.append(peer.cold_start())
            ours.append(_launch(line, template, f"cold-{number}"))
    mine, other = [t.wall_s for t in ours[1:]], [t.wall_s for t in theirs[1:]]
    cpu, other_cpu = [t.cpu_s for t in ours[1:]], [t.cpu_s for t in theirs[1:]]
    title = f"cold launch of {template} until the agent answers"
    must = 0.85 if template == "debian-12" else None
    return [
        Row(name=title, unit="s", values=tuple(mine), peer=tuple(other), must_ratio=must),
        Row(name=f"{title}, QEMU's CPU time", unit="s", values=tuple(cpu), peer=tuple(other_cpu)),
    ]


def _launch(line: Line, template: str, name: str) -> Timed:
    began = time.perf_counter()
    line.post("/v1/instances", {"template": template, "name": name, **SIZE, "disk_gib": 8})
    _until(lambda: line.get(f"/v1/instances/{name}/wait", **{"for": "agent", "timeout_s": 300}), 300)
    wall = time.perf_counter() - began
    cpu = _cpu_of(line.get(f"/v1/instances/{name}")["id"])
    _ended(line, line.delete(f"/v1/instances/{name}", force="true"))
    return Timed(wall_s=wall, cpu_s=cpu)


def _cpu_of(instance: str) -> float:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"/machines/{instance}/".encode() in (folder / "environ").read_bytes():
                return _cpu_s(int(folder.name))
    raise RuntimeError(f"no process of {instance} is found")


if __name__ == "__main__":
    main()
