"""`inn launch`."""

from __future__ import annotations

import base64
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from innkeeper.cli.follow import children, follow, post
from innkeeper.cli.grammar.words import HERE, Format, Here, Template
from innkeeper.cli.line import CannotGoOn, Line, at
from innkeeper.cli.output import dump
from innkeeper.cli.units import disk_gib, memory_mib, seconds

_ONE_BY_ONE = 20  # more instances than that are fetched as a list
_ANSWER_S = 600

Flat = Parameter(name="*")


@dataclass(frozen=True, kw_only=True)
class SizeWish:
    size: Annotated[str | None, Parameter(help="a named size: nano, small, medium, large", metavar="NAME")] = None
    cpus: Annotated[int | None, Parameter(help="virtual CPUs", metavar="N")] = None
    memory: Annotated[str | None, Parameter(help="such as 512MiB or 1GiB; a bare number is MiB", metavar="SIZE")] = None
    disk: Annotated[str | None, Parameter(help="such as 10GiB; a bare number is GiB", metavar="SIZE")] = None

    def body(self) -> dict[str, Any]:
        return {
            "size": self.size,
            "vcpus": self.cpus,
            "memory_mib": memory_mib(self.memory),
            "disk_gib": disk_gib(self.disk),
        }


@dataclass(frozen=True, kw_only=True)
class GuestWish:
    user_data: Annotated[Path | None, Parameter(help="a file for cloud-init, passed on as it is", metavar="FILE")] = (
        None
    )
    ssh_key: Annotated[
        list[Path] | None, Parameter(help="a file with public SSH keys; repeat it for several", metavar="FILE")
    ] = None
    network: Annotated[str, Parameter(help="the network to connect to; otherwise default", metavar="NAME")] = "default"
    label: Annotated[list[str] | None, Parameter(help="KEY=VALUE; repeat it for several", metavar="LABEL")] = None

    def body(self) -> dict[str, Any]:
        keys = [line for path in self.ssh_key or [] for line in _keys(path)]
        return {**_user_data(self.user_data), "ssh_keys": keys, "network": self.network, "labels": self._labels()}

    def _labels(self) -> dict[str, str]:
        labels = dict[str, str]()
        for pair in self.label or []:
            key, given, value = pair.partition("=")
            if not given or not key:
                raise CannotGoOn(f"--label {pair!r} has no key and value", "For example: --label team=blue", 2)
            labels[key] = value
        return labels


@dataclass(frozen=True, kw_only=True)
class LifeWish:
    no_start: Annotated[bool, Parameter(help="make it, and leave it stopped")] = False
    autostart: Annotated[bool, Parameter(help="start it again when its host has booted")] = False
    ephemeral: Annotated[bool, Parameter(help="delete it once it stops")] = False
    ttl: Annotated[str | None, Parameter(help="delete it after so long, such as 1h or 7d", metavar="TIME")] = None

    def body(self) -> dict[str, Any]:
        ttl_s = None if self.ttl is None else seconds(self.ttl, "--ttl")
        return {
            "start": not self.no_start,
            "autostart": self.autostart,
            "ephemeral": self.ephemeral,
            "ttl_s": ttl_s,
        }


@dataclass(frozen=True, kw_only=True)
class HowMany:
    count: Annotated[int, Parameter(help="how many; {n} in the name becomes 1, 2, 3 …", metavar="N")] = 1
    all_or_none: Annotated[bool, Parameter(help="when one fails, undo all")] = False
    dry_run: Annotated[bool, Parameter(help="print the plan, do nothing")] = False
    wait: Annotated[bool, Parameter(help="wait until the guest answers")] = False


@dataclass(frozen=True, kw_only=True)
class Wish:
    """All that can be wished of a launch, besides template and name."""

    size: Annotated[SizeWish, Flat] = SizeWish()
    guest: Annotated[GuestWish, Flat] = GuestWish()
    life: Annotated[LifeWish, Flat] = LifeWish()
    many: Annotated[HowMany, Flat] = HowMany()


def launch(
    template: Template,
    /,
    name: Annotated[str | None, Parameter(group="Arguments", help="its name; otherwise one is made up")] = None,
    *,
    wish: Annotated[Wish, Flat] = Wish(),
    form: Format = "table",
    where: Here = HERE,
) -> None:
    """Returns once QEMU runs; the guest may still be booting."""
    line, many = where.line, wish.many
    body = {"template": template, "name": name, **wish.size.body(), **wish.guest.body(), **wish.life.body()}
    body |= {"count": many.count, "all_or_none": many.all_or_none, "dry_run": many.dry_run}
    answer = post(line, at("instances"), body)
    if many.dry_run:
        _show_plans(answer["items"], form)
        return
    instances = _launched(line, follow(line, answer))
    if many.wait and not wish.life.no_start:
        instances = [line.get(at("instances", i["id"], "wait"), timeout_s=_ANSWER_S) for i in instances]
    if form == "table":
        _tell(instances)
    else:
        dump(instances if many.count > 1 else instances[0], form)


def _launched(line: Line, operation: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that are still there: ephemeral ones may have come and gone."""
    parts = children(line, operation) if operation["children"] else [operation]
    ids = [subject for part in parts for subject in part["subjects"]]
    if len(ids) <= _ONE_BY_ONE:
        return [line.get(at("instances", one)) for one in ids]
    every = {i["id"]: i for i in line.every(at("instances"))}
    return [every[one] for one in ids if one in every]


def _tell(instances: list[dict[str, Any]]) -> None:
    for one in instances:
        address = f" at {one['addresses'][0]}" if one["addresses"] else ""
        sys.stdout.write(f"{one['name']} is {one['status']}{address}\n")
    if len(instances) == 1 and instances[0]["status"] != "stopped" and sys.stdout.isatty():
        name = instances[0]["name"]
        sys.stderr.write(f"Go on with: inn shell {name}    inn exec {name} -- uname -a    inn delete {name} --force\n")


def _show_plans(plans: list[dict[str, Any]], form: str) -> None:
    if form != "table":
        dump(plans, form)
        return
    for plan in plans:
        sys.stdout.write(f"{plan['title']}\n")
        for step in plan["steps"]:
            sys.stdout.write(f"  {step['number'] + 1}. {step['words']}\n     undo: {step['undo']}\n")
        for note in plan["notes"]:
            sys.stdout.write(f"  {note}\n")


def _read(path: Path, what: str) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise CannotGoOn(f"the {what} file {path} cannot be read: {error.strerror}", "Check the path", 2) from error


def _user_data(path: Path | None) -> dict[str, str]:
    """Text as text; anything else, such as gzip, as base64."""
    if path is None:
        return {}
    data = _read(path, "user-data")
    try:
        return {"user_data": data.decode()}
    except UnicodeDecodeError:
        return {"user_data_base64": base64.b64encode(data).decode()}


def _keys(path: Path) -> list[str]:
    """A .pub file, or an authorized_keys file with several.

    Raises:
        CannotGoOn: it holds no public keys. A private one does not even leave this machine.
    """
    text = _read(path, "SSH key").decode(errors="replace")
    if "PRIVATE KEY" in text or text.startswith("PuTTY-User-Key-File"):
        raise CannotGoOn(f"{path} is a PRIVATE key, which nobody else may have", f"Give the public one: {path}.pub", 2)
    keys = [key for key in map(str.strip, text.splitlines()) if key and not key.startswith("#")]
    if not keys:
        raise CannotGoOn(f"the SSH key file {path} holds no key", "Give the file that ends in .pub", 2)
    return keys
