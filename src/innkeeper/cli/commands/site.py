"""`inn host …` and `inn network …`."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from innkeeper.cli.commands import lists
from innkeeper.cli.grammar.words import HERE, Format, Here
from innkeeper.cli.line import CannotGoOn, Line, at
from innkeeper.cli.output import show_one
from innkeeper.cli.units import human_mib

Network = Annotated[str, Parameter(name="network", help="the network: its name, or the beginning of its id")]
Host = Annotated[str | None, Parameter(name="host", help="the host; not needed where there is only one")]


def list_hosts(*, form: Format = "table", where: Here = HERE) -> None:
    lists.hosts(where.line, form)


def show_host(name: Host = None, /, *, form: Format = "table", where: Here = HERE) -> None:
    one = _only_host(where.line) if name is None else where.line.get(at("hosts", name))
    lines = [
        ("Name", one["name"]),
        ("Id", one["id"]),
        ("Status", one["status"]),
        ("Accelerator", f"{one['accelerator']}: {one['accelerator_reason']}"),
        ("QEMU", f"{one['qemu_version']}, machine {one['machine_type']}"),
        ("Kernel", one["kernel"]),
        ("CPUs", f"{one['vcpus_promised']} of {one['vcpus']} vCPUs promised"),
        ("Memory", f"{human_mib(one['memory_promised_mib'])} of {human_mib(one['memory_mib'])} promised"),
        ("Disk", f"{one['disk_promised_gib']} of {one['disk_gib']} GiB promised, {one['disk_free_gib']} GiB free now"),
        ("Instances", one["instances"]),
        ("Problems", "\n".join(one["problems"]) or "none"),
    ]
    show_one(one, lines, form)


def _only_host(line: Line) -> dict[str, Any]:
    found = list(line.every(at("hosts")))
    if len(found) != 1:
        raise CannotGoOn(f"there are {len(found)} hosts: say which", "See: inn host list", 2)
    return found[0]


def list_networks(*, form: Format = "table", where: Here = HERE) -> None:
    lists.networks(where.line, form)


def show_network(name: Network, /, *, form: Format = "table", where: Here = HERE) -> None:
    one = where.line.get(at("networks", name))
    lines = [
        ("Name", one["name"]),
        ("Id", one["id"]),
        ("Range", one["cidr"]),
        ("Gateway", f"{one['gateway']}, which answers for DHCP and names too"),
        ("Domain", one["domain"]),
        ("Way out", "through the host (NAT)" if one["nat"] else "none"),
        ("MTU", one["mtu"]),
        ("Cards", one["instances"]),
    ]
    show_one(one, lines, form)
