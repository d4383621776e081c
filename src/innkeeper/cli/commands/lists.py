"""The lists: instances, snapshots, templates, networks, hosts, operations.

They start at once, so nothing here reads calls.
"""

from __future__ import annotations

import time
from typing import Any

from innkeeper.cli.line import Line, at
from innkeeper.cli.output import Table, show_many
from innkeeper.cli.times import age, epoch, span
from innkeeper.cli.units import human_bytes, human_mib

OPERATIONS_SHOWN = 20
ENDED = ("succeeded", "failed", "cancelled")

INSTANCES = Table(
    {
        "NAME": lambda i: i["name"],
        "STATUS": lambda i: i["status"],
        "ADDRESS": lambda i: (i["addresses"] or ["-"])[0],
        "TEMPLATE": lambda i: i["template"],
        "CPUS": lambda i: i["size"]["vcpus"],
        "MEMORY": lambda i: human_mib(i["size"]["memory_mib"]),
        "DISK": lambda i: f"{i['size']['disk_gib']} GiB",
        "AGE": lambda i: age(i["created_at"]),
        "ID": lambda i: i["id"],
    },
    spare=("ID", "DISK", "CPUS", "MEMORY", "AGE", "TEMPLATE"),
)
SNAPSHOTS = Table(
    {
        "NAME": lambda s: s["name"],
        "TAKEN": lambda s: f"{age(s['created_at'])} ago",
        "STORED": lambda s: "-" if s["stored_bytes"] is None else human_bytes(s["stored_bytes"]),
        "CONSISTENT": lambda s: {True: "yes", False: "no", None: "-"}[s["consistent"]],
        "PARENT": lambda s: s["parent"] or "-",
        "CURRENT": lambda s: "yes" if s["current"] else "-",
        "ID": lambda s: s["id"],
    },
    spare=("ID", "CONSISTENT", "STORED"),
    cut=("PARENT", "NAME"),
)
TEMPLATES = Table(
    {
        "NAME": lambda t: f"{t['name']}:{t['version']}",
        "OS": lambda t: t["os"] or "-",
        "DISK": lambda t: human_bytes(t["virtual_size_bytes"]),
        "STORED": lambda t: human_bytes(t["stored_bytes"]),
        "BOOT": lambda t: t["firmware"],
        "ORIGIN": lambda t: t["origin"],
        "USED BY": lambda t: t["used_by"],
        "ID": lambda t: t["id"],
    },
    spare=("ID", "BOOT", "ORIGIN", "STORED"),
    cut=("OS",),
)
NETWORKS = Table(
    {
        "NAME": lambda n: n["name"],
        "RANGE": lambda n: n["cidr"],
        "GATEWAY": lambda n: n["gateway"],
        "DOMAIN": lambda n: n["domain"],
        "NAT": lambda n: "yes" if n["nat"] else "no",
        "CARDS": lambda n: n["instances"],
        "ID": lambda n: n["id"],
    },
    spare=("ID", "DOMAIN", "CARDS"),
)
HOSTS = Table(
    {
        "NAME": lambda h: h["name"],
        "STATUS": lambda h: h["status"],
        "INSTANCES": lambda h: h["instances"],
        "CPUS": lambda h: f"{h['vcpus_promised']}/{h['vcpus']}",
        "MEMORY": lambda h: f"{human_mib(h['memory_promised_mib'])}/{human_mib(h['memory_mib'])}",
        "DISK": lambda h: f"{h['disk_promised_gib']}/{h['disk_gib']} GiB",
        "ACCELERATOR": lambda h: h["accelerator"] or "-",
        "QEMU": lambda h: h["qemu_version"] or "-",
        "ID": lambda h: h["id"],
    },
    spare=("ID", "QEMU", "ACCELERATOR"),
)
OPERATIONS = Table(
    {
        "ID": lambda o: o["id"],
        "WHAT": lambda o: o["title"],
        "STATE": lambda o: o["state"],
        "STEPS": lambda o: f"{o['done']}/{o['steps']}",
        "BY": lambda o: o["principal"],
        "AGE": lambda o: age(o["created_at"]),
        "TOOK": lambda o: span(took_s(o)),
        "ERROR": lambda o: o["error"],
    },
    spare=("STEPS", "BY", "TOOK"),
    cut=("ERROR", "WHAT"),
)


def took_s(operation: dict[str, Any]) -> float:
    """So far, of one that goes on."""
    began = epoch(operation["created_at"])
    return (epoch(operation["updated_at"]) if operation["state"] in ENDED else time.time()) - began


def instances(line: Line, form: str, labels: list[str] | None = None, status: str | None = None) -> None:
    items = list(line.every("/v1/instances", limit=10_000, label=labels, status=status))
    none = "No instance is like that" if labels or status else "No instances. Make one: inn launch TEMPLATE NAME"
    show_many(items, INSTANCES, form, none)


def snapshots(line: Line, instance: str, form: str) -> None:
    items = list(line.every(at("instances", instance, "snapshots")))
    show_many(items, SNAPSHOTS, form, f"No snapshots. Take one: inn snapshot create {instance}")


def templates(line: Line, form: str) -> None:
    items = list(line.every("/v1/templates"))
    show_many(items, TEMPLATES, form, "No templates. Make one: inn template build debian-12, or tiny")


def networks(line: Line, form: str) -> None:
    show_many(list(line.every("/v1/networks")), NETWORKS, form, "No networks")


def hosts(line: Line, form: str) -> None:
    show_many(list(line.every("/v1/hosts")), HOSTS, form, "No hosts")


def operations(line: Line, form: str, limit: int = OPERATIONS_SHOWN) -> None:
    items: list[dict[str, Any]] = line.get("/v1/operations", limit=limit)["items"]
    show_many(items, OPERATIONS, form, "No operations yet")
