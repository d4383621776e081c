"""How long a warm launch takes, and what a clone costs: beside libvirt's cold start, and beside our own.

    bench/warm.py [--quick] [--json FILE] [--runs N]

Clocked from the request: until the API says that the guest's agent answers, and until the launch has ended, when the
clone has its own identity and its network is linked. The peer is `virsh start` as in bench/launch.py. Memory is the
proportional set size of QEMU, of ten idle clones and of one machine that booted. Needs root; starts its own daemon on
a folder of its own, and leaves nothing running.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ours import daemon, ended, folder, have, pid_of, pss_mib
from peer import Libvirt
from rows import Row, show

from innkeeper.cli.line import Line

SETTLES_S = 10.0


@dataclass(frozen=True)
class Clocked:
    answers_s: float
    identity_s: float


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="few runs, template tiny, for ./check")
    words.add_argument("--runs", type=int, default=7)
    words.add_argument("--json", type=Path)
    words.add_argument("--data", type=Path, help="data directory to keep, with its templates, for the next time")
    asked = words.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench/warm.py starts machines and must run as root")
    template, runs = ("tiny", 3) if asked.quick else ("debian-12", asked.runs)
    with folder(asked.data) as data, daemon(data) as line:
        have(line, template)
        _warm(line, template)
        times = [_launch(line, template, f"warm-{number}") for number in range(runs + 1)][1:]
        peer = () if asked.quick else _peer(line, data, template, 3)
        rows = [*_one(template, times, peer), *_twenty(line, template, 5 if asked.quick else 20)]
        rows += _memory(line, template, 3 if asked.quick else 10)
    show(rows, asked.json)


def _warm(line: Line, template: str) -> None:
    if not line.get(f"/v1/templates/{template}")["memory_images"]:
        print(f"making a memory image of {template} …", flush=True)
        ended(line, line.post(f"/v1/templates/{template}/warm", {}))


def _launch(line: Line, template: str, name: str) -> Clocked:
    began = time.perf_counter()
    operation = line.post("/v1/instances", {"template": template, "name": name})
    row = line.get(f"/v1/instances/{name}/wait", **{"for": "agent", "timeout_s": 60})
    answers = time.perf_counter() - began
    ended(line, operation)
    identity = time.perf_counter() - began
    row = line.get(f"/v1/instances/{name}")
    if not row["warm"]:
        raise RuntimeError(f"{name} booted: {row['cold']}")
    ended(line, line.delete(f"/v1/instances/{name}", force="true"))
    return Clocked(answers_s=answers, identity_s=identity)


def _peer(line: Line, data: Path, template: str, runs: int) -> tuple[float, ...]:
    image = line.get(f"/v1/templates/{template}")
    accelerator = line.get("/v1/hosts")["items"][0]["accelerator"]
    size = {"vcpus": image["default_size"]["vcpus"], "memory_mib": image["default_size"]["memory_mib"]}
    with Libvirt(data / "pool" / "templates" / image["id"], size, accelerator) as peer:
        return tuple([peer.cold_start().wall_s for _ in range(runs + 1)][1:])


def _one(template: str, times: list[Clocked], peer: tuple[float, ...]) -> list[Row]:
    answers, identity = tuple(t.answers_s for t in times), tuple(t.identity_s for t in times)
    ratio = 1 / 80 if peer else None
    return [
        Row(
            name=f"warm launch of {template} until the agent answers",
            unit="s",
            values=answers,
            must=0.28,
            peer=peer,
            must_ratio=ratio,
        ),
        Row(name="the same, until own identity and network", unit="s", values=identity, must=0.6),
    ]


def _twenty(line: Line, template: str, count: int) -> list[Row]:
    began = time.perf_counter()
    operation = line.post("/v1/instances", {"template": template, "name": "many-{n}", "count": count})
    ended(line, operation)
    took = time.perf_counter() - began
    for number in range(count):
        ended(line, line.delete(f"/v1/instances/many-{number + 1}", force="true"))
    return [Row(name=f"{count} with one call, all with identity", unit="s", values=(took,), must=8.0)]


def _memory(line: Line, template: str, count: int) -> list[Row]:
    names = [f"idle-{number}" for number in range(count)]
    for name in names:
        ended(line, line.post("/v1/instances", {"template": template, "name": name}))
    ended(line, line.post("/v1/instances", {"template": template, "name": "booted", "cold": True}))
    line.get("/v1/instances/booted/wait", **{"for": "agent", "timeout_s": 300})
    time.sleep(SETTLES_S)
    ids = {name: line.get(f"/v1/instances/{name}")["id"] for name in (*names, "booted")}
    held = {name: pss_mib(pid_of(one)) for name, one in ids.items()}
    for name in ids:
        ended(line, line.delete(f"/v1/instances/{name}", force="true"))
    clones = tuple(held[name] for name in names)
    return [
        Row(
            name=f"memory of an idle clone among {count} (PSS), beside one that booted",
            unit="MiB",
            values=clones,
            must=60,
            peer=(held["booted"],),
            must_ratio=0.45,
        )
    ]


if __name__ == "__main__":
    main()
