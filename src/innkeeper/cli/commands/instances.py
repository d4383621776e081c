"""`inn list`, `inn show`, `inn logs`, `inn wait`: looking at instances."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from innkeeper.cli.commands import lists
from innkeeper.cli.grammar.words import HERE, Format, Here, Instance, InstanceNames, Timeout, named
from innkeeper.cli.line import Line, at
from innkeeper.cli.output import Table, dump, show_many, show_one
from innkeeper.cli.times import clock, when
from innkeeper.cli.units import human_bytes, human_size, seconds
from innkeeper.cli.waiting import until

_DAY_S = 24 * 3600
_RECENT = 12

Until = Literal["agent", "ip", "cloud-init", "running", "stopped", "deleted"]


def list_(
    *,
    label: Annotated[
        list[str] | None,
        Parameter(help="only those with this label, KEY=VALUE; repeat it for several", metavar="LABEL"),
    ] = None,
    status: Annotated[str | None, Parameter(help="only those that are so, such as running", metavar="STATUS")] = None,
    form: Format = "table",
    where: Here = HERE,
) -> None:
    lists.instances(where.line, form, label, status)


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


def wait(
    *names: InstanceNames,
    for_: Annotated[Until, Parameter(name="--for", help="what to wait for; otherwise agent")] = "agent",
    timeout: Timeout = "10m",
    where: Here = HERE,
) -> None:
    """One after the other; the time is for each."""
    timeout_s = seconds(timeout, "--timeout")
    for name in named(names):
        until(where.line, name, for_, timeout_s)


def lines(one: dict[str, Any]) -> list[tuple[str, object]]:
    rates = one["rates"]
    told: list[tuple[str, object]] = [
        ("Name", one["name"]),
        ("Id", one["id"]),
        ("Status", one["status"] + (f" since {when(one['since'])}" if one["since"] else "")),
        *([("Reason", one["reason"])] if one["reason"] else []),
        ("Wanted", one["wanted"]),
        ("Began", _began(one)),
        ("Guest", _guest(one)),
        ("Template", one["template"]),
        ("Size", human_size(one["size"])),
        ("Host", one["host"]),
        *(("Card", _card(n)) for n in one["nics"]),
        *(("Disk", f"{v['size_gib']} GiB ({v['name']}, {v['id']})") for v in one["volumes"]),
        *([("Snapshots", _snapshots(one))] if one["snapshots"] or one["over"] else []),
        ("Created", when(one["created_at"])),
    ]
    told += _wishes(one)
    if one["operation"]:
        told.append(("Operation", f"{one['operation']} holds it: inn operation show {one['operation']}"))
    if rates:
        cpu, memory = f"{rates['cpus'] * 100:.0f} % of a CPU", human_bytes(rates["memory_mib"] * 1024**2)
        told.append(("Load", f"{cpu}, {memory} of the host's memory"))
    return told


def outlook(one: dict[str, Any]) -> list[tuple[str, object]]:
    """Of an instance that is only planned: what would be there."""
    cards = [("Card", _card(nic)) for nic in one["nics"]]
    return [("Size", human_size(one["size"])), ("Host", one["host"]), *cards, *_wishes(one)]


def _card(nic: dict[str, Any]) -> str:
    return f"{', '.join(nic['addresses'])} on {nic['network']} ({nic['mac']})"


def _snapshots(one: dict[str, Any]) -> str:
    own = str(one["snapshots"] or "none of its own")
    return own if one["over"] is None else f"{own}; it stands on {one['over']}"


def _wishes(one: dict[str, Any]) -> list[tuple[str, object]]:
    told = list[tuple[str, object]]()
    if one["expires_at"]:
        told.append(("Expires", when(one["expires_at"])))
    if flags := [f for f in ("autostart", "ephemeral") if one[f]]:
        told.append(("Flags", ", ".join(flags)))
    if one["labels"]:
        told.append(("Labels", ", ".join(f"{k}={v}" for k, v in one["labels"].items())))
    return told


def _began(one: dict[str, Any]) -> str:
    """How it was started last."""
    if one["warm"]:
        return "went on from a memory image"
    return f"booted, {one['cold']}" if one["cold"] else "booted"


def _guest(one: dict[str, Any]) -> str:
    agent = "answers" if one["agent"] else "does not answer"
    return f"agent {agent}" + (f", cloud-init {one['cloud_init']}" if one["cloud_init"] not in ("", "none") else "")


def _show_metrics(line: Line, name: str, form: str) -> None:
    since = datetime.fromtimestamp(time.time() - _DAY_S, UTC).isoformat(timespec="seconds")
    found = line.get(at("instances", name, "metrics"), since=since)
    if form in ("json", "yaml"):
        dump(found, form)
        return
    recent = [{**r, "span_s": 10} for r in found["recent"][-_RECENT:]]
    spans = [{**_average(k), "span_s": 300} for k in found["kept"]]
    columns = {
        "TIME": lambda r: clock(r["at"]),
        "SPAN": lambda r: "10 s" if r["span_s"] < 60 else "5 min",
        "CPU": lambda r: f"{r['cpus'] * 100:.1f} %",
        "MEMORY": lambda r: human_bytes(r["memory_mib"] * 1024**2),
        "READ/S": lambda r: human_bytes(r["disk_read_bytes_per_s"]),
        "WRITTEN/S": lambda r: human_bytes(r["disk_written_bytes_per_s"]),
        "IN/S": lambda r: human_bytes(r["net_received_bytes_per_s"]),
        "OUT/S": lambda r: human_bytes(r["net_sent_bytes_per_s"]),
    }
    nothing = f"Nothing measured of {name} yet; samples are taken every 10 s"
    show_many(spans + recent, Table(columns, spare=("SPAN",)), form, nothing)


def _average(row: dict[str, Any]) -> dict[str, Any]:
    """Under the names that recent ones have."""
    return {name.replace("_avg", ""): value for name, value in row.items() if "_max" not in name}
