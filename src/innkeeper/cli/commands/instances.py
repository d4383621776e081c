"""`inn list`, `inn show`, `inn logs`, `inn wait`: looking at instances."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from innkeeper.cli.commands import lists
from innkeeper.cli.grammar.words import HERE, Format, Here, Instance, InstanceNames, Timeout, named
from innkeeper.cli.line import Line, at
from innkeeper.cli.output import Columns, dump, show_many, show_one
from innkeeper.cli.units import human_age, human_bytes, human_size, seconds

_DAY_S = 24 * 3600
_RECENT = 12

Until = Literal["agent", "ip", "cloud-init", "running", "stopped", "deleted"]


def list_(*, form: Format = "table", where: Here = HERE) -> None:
    lists.instances(where.line, form)


def show(
    name: Instance,
    /,
    *,
    metrics: Annotated[bool, Parameter(help="what it used: the last two minutes, and a day in spans of 5 min")] = False,
    form: Format = "table",
    where: Here = HERE,
) -> None:
    if metrics:
        _show_metrics(where.line, name, form)
        return
    one = where.line.get(at("instances", name))
    show_one(one, lines(one), form)


def logs(name: Instance, /, *, where: Here = HERE) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(where.line.text(at("instances", name, "log")))


def wait(
    *names: InstanceNames,
    for_: Annotated[Until, Parameter(name="--for", help="what to wait for; otherwise agent")] = "agent",
    timeout: Timeout = "10m",
    where: Here = HERE,
) -> None:
    """One after the other; the time is for each."""
    timeout_s = min(seconds(timeout, "--timeout"), 3600)
    for name in named(names):
        where.line.get(at("instances", name, "wait"), **{"for": for_, "timeout_s": timeout_s})


def lines(one: dict[str, Any]) -> list[tuple[str, object]]:
    rates = one["rates"]
    told: list[tuple[str, object]] = [
        ("Name", one["name"]),
        ("Id", one["id"]),
        ("Status", one["status"] + (f" since {_when(one['since'])}" if one["since"] else "")),
        *([("Reason", one["reason"])] if one["reason"] else []),
        ("Wanted", one["wanted"]),
        ("Guest", _guest(one)),
        ("Template", one["template"]),
        ("Size", human_size(one["size"])),
        ("Host", one["host"]),
        *((f"Card {n['mac']}", f"{', '.join(n['addresses'])} on {n['network']}") for n in one["nics"]),
        *((f"Disk {v['name']}", f"{v['size_gib']} GiB ({v['id']})") for v in one["volumes"]),
        ("Created", _when(one["created_at"])),
    ]
    if one["expires_at"]:
        told.append(("Expires", _when(one["expires_at"])))
    if flags := [f for f in ("autostart", "ephemeral") if one[f]]:
        told.append(("Flags", ", ".join(flags)))
    if one["labels"]:
        told.append(("Labels", ", ".join(f"{k}={v}" for k, v in one["labels"].items())))
    if one["operation"]:
        told.append(("Operation", f"{one['operation']} holds it: inn operation show {one['operation']}"))
    if rates:
        cpu, memory = f"{rates['cpu'] * 100:.0f} % of a CPU", human_bytes(rates["memory_mib"] * 1024**2)
        told.append(("Load", f"{cpu}, {memory} of the host's memory"))
    return told


def _guest(one: dict[str, Any]) -> str:
    agent = "answers" if one["agent"] else "does not answer"
    return f"agent {agent}" + (f", cloud-init {one['cloud_init']}" if one["cloud_init"] else "")


def _when(at: float) -> str:
    now = time.time()
    told = f"{human_age(now - at)} ago" if at <= now else f"in {human_age(at - now)}"
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))} ({told})"


def _show_metrics(line: Line, name: str, form: str) -> None:
    found = line.get(at("instances", name, "metrics"), since=int(time.time()) - _DAY_S)
    if form in ("json", "yaml"):
        dump(found, form)
        return
    recent = [{**r, "span": "10 s"} for r in found["recent"][-_RECENT:]]
    spans = [{**_average(k), "at": k["at"], "span": "5 min"} for k in found["kept"]]
    columns: Columns = {
        "TIME": lambda r: time.strftime("%H:%M:%S", time.localtime(r["at"])),
        "SPAN": lambda r: r["span"],
        "CPU": lambda r: f"{r['cpu'] * 100:.1f} %",
        "MEMORY": lambda r: human_bytes(r["memory_mib"] * 1024**2),
        "READ/S": lambda r: human_bytes(r["disk_read"]),
        "WRITTEN/S": lambda r: human_bytes(r["disk_written"]),
        "IN/S": lambda r: human_bytes(r["net_received"]),
        "OUT/S": lambda r: human_bytes(r["net_sent"]),
    }
    show_many(spans + recent, columns, form, f"Nothing measured of {name} yet; samples are taken every 10 s")


def _average(row: dict[str, Any]) -> dict[str, Any]:
    names = ("cpu", "disk_read", "disk_written", "net_received", "net_sent")
    return {**{n: row[f"{n}_avg"] for n in names}, "memory_mib": row["memory_avg_mib"]}
