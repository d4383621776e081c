"""The lists: instances, templates, networks, hosts, operations. They start at once, so nothing here reads calls."""

from __future__ import annotations

import time
from typing import Any

from innkeeper.cli.line import Line
from innkeeper.cli.output import Columns, show_many
from innkeeper.cli.units import human_age, human_bytes, human_mib

OPERATIONS_SHOWN = 20

INSTANCES: Columns = {
    "NAME": lambda i: i["name"],
    "STATUS": lambda i: i["status"],
    "ADDRESS": lambda i: (i["addresses"] or ["-"])[0],
    "TEMPLATE": lambda i: i["template"],
    "CPUS": lambda i: i["size"]["vcpus"],
    "MEMORY": lambda i: human_mib(i["size"]["memory_mib"]),
    "DISK": lambda i: f"{i['size']['disk_gib']} GiB",
    "AGE": lambda i: human_age(time.time() - i["created_at"]),
    "ID": lambda i: i["id"],
}
TEMPLATES: Columns = {
    "NAME": lambda t: f"{t['name']}:{t['version']}",
    "OS": lambda t: t["os"] or "-",
    "DISK": lambda t: human_bytes(t["virtual_size_bytes"]),
    "STORED": lambda t: human_bytes(t["stored_bytes"]),
    "BOOT": lambda t: t["firmware"],
    "ORIGIN": lambda t: t["origin"],
    "USED BY": lambda t: t["used_by"],
    "ID": lambda t: t["id"],
}
NETWORKS: Columns = {
    "NAME": lambda n: n["name"],
    "RANGE": lambda n: n["cidr"],
    "GATEWAY": lambda n: n["gateway"],
    "DOMAIN": lambda n: n["domain"],
    "NAT": lambda n: "yes" if n["nat"] else "no",
    "CARDS": lambda n: n["instances"],
    "ID": lambda n: n["id"],
}
HOSTS: Columns = {
    "NAME": lambda h: h["name"],
    "STATUS": lambda h: h["status"],
    "INSTANCES": lambda h: h["instances"],
    "CPUS": lambda h: f"{h['vcpus_promised']}/{h['vcpus']}",
    "MEMORY": lambda h: f"{human_mib(h['memory_promised_mib'])}/{human_mib(h['memory_mib'])}",
    "DISK": lambda h: f"{h['disk_promised_gib']}/{h['disk_gib']} GiB",
    "ACCELERATOR": lambda h: h["accelerator"] or "-",
    "QEMU": lambda h: h["qemu_version"] or "-",
    "ID": lambda h: h["id"],
}
OPERATIONS: Columns = {
    "ID": lambda o: o["id"],
    "WHAT": lambda o: o["title"],
    "STATE": lambda o: o["state"],
    "STEPS": lambda o: f"{o['done']}/{o['steps']}",
    "BY": lambda o: o["principal"],
    "AGE": lambda o: human_age(time.time() - o["created_at"]),
    "TOOK": lambda o: f"{o['updated_at'] - o['created_at']:.1f}s",
    "ERROR": lambda o: o["error"],
}


def instances(line: Line, form: str) -> None:
    items = list(line.every("/v1/instances", limit=10_000))
    show_many(items, INSTANCES, form, "No instances. Make one: inn launch TEMPLATE NAME")


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
