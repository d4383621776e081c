"""How launches hold up in number: 1,000 of them, each its own request, over 32 connections to one daemon.

    bench/scale.py [--quick] [--json FILE] [--launches N]

The host is simulated (`inn demo`), all else is real: the API on its UNIX socket, the planner, the engine, SQLite with
a full sync at every commit. So what is measured is our own share and the disk's. Every connection posts one launch,
waits on the same connection until its operation has ended, then takes the next number: 32 launches are under way at
any moment but the last, and latency and rate are two views of one thing. The client is this one process and shares
the machine with the daemon; its own CPU time is shown, that it may be judged.

Latency is flat when the median of the last hundred launches is that of the first hundred, in the order in which they
were sent. The first hundred are not cold: each connection has been opened and has rehearsed one launch before. Needs
no rights; starts its own daemon on a folder of its own, and leaves nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rows import Row, show

INN = Path(sys.executable).with_name("inn")
CONNECTIONS = 32
HUNDRED = 100
ROOM = ("--vcpus", "4096", "--memory-gib", "4096", "--disk-gib", "65536")
SIZE = {"vcpus": 1, "memory_mib": 64, "disk_gib": 1}
_READY_S = 60.0
_EACH_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """`accepted_s` until the answer to the POST, `ended_s` from the same moment until the operation had ended."""

    accepted_s: float
    ended_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """`launches` in the order in which they were sent."""

    launches: tuple[Launched, ...]
    wall_s: float
    daemon_cpu_s: float
    client_cpu_s: float


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="200 launches, for ./check")
    words.add_argument("--launches", type=int, default=1000)
    words.add_argument("--json", type=Path)
    asked = words.parse_args()
    count = 2 * HUNDRED if asked.quick else asked.launches
    if count < 2 * HUNDRED:
        sys.exit(f"the first hundred is held against the last: give --launches {2 * HUNDRED} or more")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="inn-bench-", dir="/var/tmp") as folder, _daemon(Path(folder)) as daemon:
        run, lists = asyncio.run(_measured(Path(folder) / "data" / "api.sock", daemon, count))
    show(_rows(run, lists), asked.json)
    print(f"load of this machine just before: {load:.2f} on {os.cpu_count()} processors")


@contextlib.contextmanager
def _daemon(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Its log is told when it does not come up or does not stay."""
    data, log = folder / "data", folder / "daemon.log"
    with log.open("wb") as said:
        daemon = subprocess.Popen([INN, "demo", "--data", data, *ROOM], stdout=said, stderr=said)
    try:
        yield daemon
        if daemon.poll() is not None:
            raise RuntimeError(f"the daemon ended by itself, exit code {daemon.returncode}")
    except BaseException:
        sys.stderr.write(log.read_text(errors="replace")[-4000:])
        raise
    finally:
        daemon.terminate()
        daemon.wait(30)


async def _measured(path: Path, daemon: subprocess.Popen[bytes], count: int) -> tuple[Run, tuple[float, ...]]:
    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.timeout(_READY_S):
            await _ready(path, daemon)
            lines = [await stack.enter_async_context(_line(path)) for _ in range(CONNECTIONS)]
            for number, line in enumerate(lines):
                rehearsal = {"template": "tiny", "name": f"r-{number}", "dry_run": True, **SIZE}
                _must(await line.ask("POST", "/v1/instances", rehearsal), 200)
        run = await _launched(lines, daemon.pid, count)
        return run, await _listed(lines[0], count)


async def _ready(path: Path, daemon: subprocess.Popen[bytes]) -> None:
    """The demo opens its socket once its templates are built, but whether tiny is there is asked all the same."""
    while daemon.poll() is None:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            async with _line(path) as line:
                found = _must(await line.ask("GET", "/v1/templates"), 200)
                if any(t["name"] == "tiny" for t in found["items"]):
                    return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"the daemon did not come up, exit code {daemon.returncode}")


async def _launched(lines: list[Line], daemon: int, count: int) -> Run:
    numbers = iter(range(count))
    launches = dict[int, Launched]()

    async def one_after_the_other(line: Line) -> None:
        for number in numbers:
            launches[number] = await _launch(line, number)

    cpu, mine, began = _cpu_s(daemon), time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for line in lines:
            group.create_task(one_after_the_other(line))
    return Run(
        wall_s=time.perf_counter() - began,
        client_cpu_s=time.process_time() - mine,
        daemon_cpu_s=_cpu_s(daemon) - cpu,
        launches=tuple(launches[number] for number in range(count)),
    )


async def _launch(line: Line, number: int) -> Launched:
    body = {"template": "tiny", "name": f"n-{number}", **SIZE}
    began = time.perf_counter()
    answer = await line.ask("POST", "/v1/instances", body, key=f"bench-{number}")
    accepted = time.perf_counter() - began
    operation = _must(answer, 202)["id"]
    answer = await line.ask("GET", f"/v1/operations/{operation}/wait?timeout_s={_EACH_S:g}")
    ended = time.perf_counter() - began
    found = _must(answer, 200)
    if found["state"] != "succeeded":
        raise RuntimeError(f"{found['title']} is {found['state']} after {ended:.1f} s: {found['error']}")
    return Launched(accepted_s=accepted, ended_s=ended)


async def _listed(line: Line, count: int) -> tuple[float, ...]:
    times = []
    for _ in range(8):  # the first is not counted
        began = time.perf_counter()
        answer = await line.ask("GET", f"/v1/instances?limit={count}")
        times.append(time.perf_counter() - began)
        running = [i for i in _must(answer, 200)["items"] if i["wanted"] == "running"]
        if len(running) != count:
            raise RuntimeError(f"{count} instances were launched, and {len(running)} are listed")
    return tuple(times[1:])


def _rows(run: Run, lists: tuple[float, ...]) -> list[Row]:
    count = len(run.launches)
    ended = [launch.ended_s for launch in run.launches]
    p99 = statistics.quantiles(ended, n=100, method="inclusive")[98]
    first, last = tuple(ended[:HUNDRED]), tuple(ended[-HUNDRED:])
    over = f"over {CONNECTIONS} connections"
    return [
        Row(name=f"launches {over}", unit="per s", values=(count / run.wall_s,), must=100, at_least=True),
        Row(name=f"launch {over}, p99 until ended", unit="s", values=(p99,), must=1),
        Row(name=f"launch {over}, until ended", unit="s", values=tuple(ended)),
        Row(name=f"launch {over}, until accepted", unit="s", values=tuple(n.accepted_s for n in run.launches)),
        Row(name="last hundred beside the first, until ended", unit="s", values=last, peer=first, must_ratio=1.5),
        Row(name=f"list of {count} instances", unit="s", values=lists, must=0.3),
        Row(name="daemon's CPU time for a launch", unit="ms", values=(run.daemon_cpu_s / count * 1000,)),
        Row(name="client's CPU time for a launch", unit="ms", values=(run.client_cpu_s / count * 1000,)),
    ]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- a connection that stays open


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    body: bytes


class Line:
    """One request at a time. It reads what our daemon writes, answers with a length, and costs next to no CPU."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, method: str, target: str, body: dict[str, Any] | None = None, *, key: str = "") -> Answer:
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {target} HTTP/1.1\r\nHost: innkeeper\r\nContent-Length: {len(content)}\r\n"
        head += "Content-Type: application/json\r\n" if content else ""
        head += f"Idempotency-Key: {key}\r\n" if key else ""
        self._writer.write(head.encode() + b"\r\n" + content)
        async with asyncio.timeout(2 * _EACH_S):
            said = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            length = int(said.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
            return Answer(status=int(said.split(b" ", 2)[1]), body=await self._reader.readexactly(length))


@contextlib.asynccontextmanager
async def _line(path: Path) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


def _must(answer: Answer, status: int) -> Any:
    if answer.status != status:
        raise RuntimeError(f"the daemon answered {answer.status}: {answer.body.decode(errors='replace')[:500]}")
    return json.loads(answer.body)


if __name__ == "__main__":
    main()
