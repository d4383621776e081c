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
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from ours import INN, began, boot_time, cpu_s, daemon, ended, folder, have, pid_of, pss_mib, until
from peer import Libvirt
from rows import Row, Timed, show

from innkeeper.cli.line import Line

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
    with folder(asked.data) as data, daemon(data) as line:
        have(line, template)
        rows = [*_own_share(line, 5 if asked.quick else 20), *_tiny(line, 3 if asked.quick else 7)]
        rows += [*_list(data, 5 if asked.quick else 15), *_idle(line, data)]
        if not asked.quick:  # two systems that boot in turn take minutes; the short form shows our own figures
            rows += _cold(line, data, template, runs)
    show(rows, asked.json)


# --- our own share, the command line, the idle daemon


def _own_share(line: Line, runs: int) -> list[Row]:
    """From just before the request is sent until the kernel says QEMU's process began (10 ms resolution)."""
    shares = []
    for number in range(runs):
        name = f"share-{number}"
        before = time.time()
        ended(line, line.post("/v1/instances", {"template": "tiny", "name": name, "memory_mib": 128}))
        shares.append(max(0.0, _process_began(line.get(f"/v1/instances/{name}")["id"]) - before))
        ended(line, line.delete(f"/v1/instances/{name}", force="true"))
    return [Row(name="own share of a launch", unit="s", values=tuple(shares), must=0.05)]


def _process_began(instance: str) -> float:
    return boot_time() + began(pid_of(instance)) / os.sysconf("SC_CLK_TCK")


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
    before = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - before


def _idle(line: Line, data: Path) -> list[Row]:
    """The daemon with its launcher, ten seconds after the last request."""
    pid = int((data / "lock").read_text())
    time.sleep(5)
    before = cpu_s(pid)
    time.sleep(10)
    share = (cpu_s(pid) - before) / 10 * 100
    memory = sum(pss_mib(p) for p in _company(pid))
    return [
        Row(name="idle daemon, memory", unit="MiB", values=(memory,), must=120),
        Row(name="idle daemon, CPU", unit="% of a core", values=(share,), must=1),
    ]


def _company(pid: int) -> list[int]:
    """The daemon, and of our programs what began after it: the launcher, which is nobody's child, and whoever sets
    firewall rules. Machines and what serves networks are not counted, they belong to their owners."""
    found = [pid]
    for one in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (one / "cmdline").read_bytes()
            if began(int(one.name)) > began(pid) and b"python" in words and b"innkeeper" in words:
                found.append(int(one.name))
    return found


# --- cold launch


def _cold(line: Line, data: Path, template: str, runs: int) -> list[Row]:
    image = next(t for t in line.get("/v1/templates")["items"] if t["name"] == template)
    files = data / "pool" / "templates" / image["id"]
    accelerator = line.get("/v1/hosts")["items"][0]["accelerator"]
    ours, theirs = list[Timed](), list[Timed]()
    with Libvirt(files, SIZE, accelerator) as peer:
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
    sent = time.perf_counter()
    line.post("/v1/instances", {"template": template, "name": name, **SIZE, "disk_gib": 8})
    until(lambda: line.get(f"/v1/instances/{name}/wait", **{"for": "agent", "timeout_s": 300}), 300)
    wall = time.perf_counter() - sent
    cpu = cpu_s(pid_of(line.get(f"/v1/instances/{name}")["id"]))
    ended(line, line.delete(f"/v1/instances/{name}", force="true"))
    return Timed(wall_s=wall, cpu_s=cpu)


if __name__ == "__main__":
    main()
