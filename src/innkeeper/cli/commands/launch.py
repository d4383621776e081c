"""`inn launch`."""

from __future__ import annotations

import base64
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from innkeeper.cli.commands.instances import outlook
from innkeeper.cli.follow import Operation, children, fail_with, outcome, post
from innkeeper.cli.grammar.words import HERE, Format, Here, Origin, whole
from innkeeper.cli.line import CannotGoOn, Line, at, printable
from innkeeper.cli.output import dump
from innkeeper.cli.units import disk_gib, memory_mib, seconds
from innkeeper.cli.waiting import until

_STDIN = Path("-")
_FILE_MOST_MIB = 1  # what a daemon takes of user-data; no file of keys has as much
_ONE_BY_ONE = 20  # more instances than that are fetched as a list

Instance = dict[str, Any]
Flat = Parameter(name="*")


@dataclass(frozen=True, kw_only=True)
class SizeWish:
    size: Annotated[str | None, Parameter(help="a named size: nano, small, medium, large", metavar="NAME")] = None
    cpus: Annotated[int | None, Parameter(help="virtual CPUs", metavar="N", converter=whole)] = None
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
    user_data: Annotated[
        Path | None,
        Parameter(
            help="a file for cloud-init, passed on as it is; - for the input", metavar="FILE", allow_leading_hyphen=True
        ),
    ] = None
    ssh_key: Annotated[
        list[Path] | None,
        Parameter(help="a file with public SSH keys; repeat it for several", metavar="FILE", allow_leading_hyphen=True),
    ] = None
    network: Annotated[str, Parameter(help="the network to connect to; otherwise default", metavar="NAME")] = "default"
    label: Annotated[list[str] | None, Parameter(help="KEY=VALUE; repeat it for several", metavar="LABEL")] = None

    def body(self) -> dict[str, Any]:
        if [self.user_data, *(self.ssh_key or [])].count(_STDIN) > 1:
            raise CannotGoOn("- was given twice, and there is one standard input", "Give the other as a file", 2)
        keys = [line for path in self.ssh_key or [] for line in _keys(path)]
        return {**_user_data(self.user_data), "ssh_keys": keys, "network": self.network, "labels": self._labels()}

    def _labels(self) -> dict[str, str]:
        labels = dict[str, str]()
        for pair in self.label or []:
            key, given, value = pair.partition("=")
            if not given or not key:
                raise CannotGoOn(f"--label {pair!r} has no key and value", "For example: --label team=blue", 2)
            if labels.setdefault(key, value) != value:
                raise CannotGoOn(f"--label {key} is given twice, with {labels[key]} and {value}", "Give it once", 2)
        return labels


@dataclass(frozen=True, kw_only=True)
class LifeWish:
    no_start: Annotated[bool, Parameter(help="make it, and leave it stopped")] = False
    autostart: Annotated[bool, Parameter(help="start it again when its host has booted")] = False
    cold: Annotated[bool, Parameter(help="boot it, even where a memory image stands")] = False
    no_warm: Annotated[bool, Parameter(help="make no memory image of the template after it")] = False
    ephemeral: Annotated[bool, Parameter(help="delete it once it stops")] = False
    ttl: Annotated[str | None, Parameter(help="delete it after so long, such as 1h or 7d", metavar="TIME")] = None

    def body(self) -> dict[str, Any]:
        ttl_s = None if self.ttl is None else seconds(self.ttl, "--ttl")
        return {
            "start": not self.no_start,
            "autostart": self.autostart,
            "cold": self.cold,
            "warms": not self.no_warm,
            "ephemeral": self.ephemeral,
            "ttl_s": ttl_s,
        }


@dataclass(frozen=True, kw_only=True)
class HowMany:
    count: Annotated[
        int, Parameter(help="how many; {n} in the name becomes 1, 2, 3 …", metavar="N", converter=whole)
    ] = 1
    all_or_none: Annotated[bool, Parameter(help="when one fails, undo all")] = False
    dry_run: Annotated[bool, Parameter(help="print the plan, do nothing")] = False
    wait: Annotated[bool, Parameter(help="wait until the guest answers")] = False


@dataclass(frozen=True, kw_only=True)
class Wish:
    """All that can be wished of a launch, besides what it is made from and its name."""

    size: Annotated[SizeWish, Flat] = SizeWish()
    guest: Annotated[GuestWish, Flat] = GuestWish()
    life: Annotated[LifeWish, Flat] = LifeWish()
    many: Annotated[HowMany, Flat] = HowMany()


def launch(
    origin: Origin,
    /,
    name: Annotated[str | None, Parameter(group="Arguments", help="its name; otherwise one is made up")] = None,
    *,
    wish: Annotated[Wish, Flat] = Wish(),
    form: Format = "table",
    where: Here = HERE,
) -> None:
    """Returns once QEMU runs; the guest may still be booting."""
    line, many = where.line, wish.many
    made_from = "snapshot" if "/" in origin else "template"
    body = {made_from: origin, "name": name, **wish.size.body(), **wish.guest.body(), **wish.life.body()}
    body |= {"count": many.count, "all_or_none": many.all_or_none, "dry_run": many.dry_run}
    answer = post(line, at("instances"), body)
    if many.dry_run:
        _show_plans(answer["items"], form)
        return
    ended, failure = outcome(line, answer)
    problems = [] if failure is None else [_whether_some_remain(failure, ended, many)]
    instances = _launched(line, ended)
    if many.wait and not wish.life.no_start and not ended["cancel_wanted"]:
        try:
            instances, silent = _answering(line, instances)
        except KeyboardInterrupt:
            names = " ".join(i["name"] for i in instances)
            hint = f"Wait again: inn wait {names}; or be rid of it: inn delete {names} --force"
            raise CannotGoOn(f"launched, and not waited for any more: {names}", hint, 130) from None
        problems += silent
    if form == "table":
        _tell(instances, go_on=not problems)
    elif many.count > 1 or instances:
        dump(instances if many.count > 1 else instances[0], form)
    fail_with(problems)


def _whether_some_remain(failure: CannotGoOn, ended: Operation, many: HowMany) -> CannotGoOn:
    """Of all or none; of others those that were made are told, as if none had failed."""
    if many.count == 1 or not many.all_or_none or ended["done"] > 0:
        return failure
    return CannotGoOn(failure.reason, f"All was undone, none of the {many.count} remains. {failure.hint}", failure.code)


def _answering(line: Line, instances: Sequence[Instance]) -> tuple[list[Instance], list[CannotGoOn]]:
    """Each once its guest answers; one whose guest does not is still told, and why."""
    told, problems = list[Instance](), list[CannotGoOn]()
    for one in instances:
        try:
            found = until(line, one["name"])
        except CannotGoOn as problem:
            if problem.code == 3:  # nobody is there to ask for the others
                raise
            problems.append(problem)
            found = one
        told += [] if found is None else [found]
    return told, problems


def _launched(line: Line, operation: Operation) -> list[Instance]:
    """Those that were made and are still there: ephemeral ones may have come and gone."""
    parts = children(line, operation) if operation["children"] else [operation]
    ids = [subject for part in parts if part["state"] == "succeeded" for subject in part["subjects"]]
    if len(ids) <= _ONE_BY_ONE:
        return [line.get(at("instances", one)) for one in ids]
    every = {i["id"]: i for i in line.every(at("instances"))}
    return [every[one] for one in ids if one in every]


def _tell(instances: Sequence[Instance], *, go_on: bool) -> None:
    for one in instances:
        address = f" at {one['addresses'][0]}" if one["addresses"] else ""
        sys.stdout.write(f"{one['name']} is {one['status']}{address}\n")
    if go_on and len(instances) == 1 and instances[0]["status"] != "stopped" and sys.stdout.isatty():
        name = instances[0]["name"]
        sys.stderr.write(f"Go on with: inn shell {name}    inn exec {name} -- uname -a    inn delete {name} --force\n")


def _show_plans(plans: list[dict[str, Any]], form: str) -> None:
    if form != "table":
        dump(plans, form)
        return
    for plan in plans:
        sys.stdout.write(f"{plan['title']}\n")
        for label, value in (line for one in plan["instances"] for line in outlook(one)):
            sys.stdout.write(f"  {f'{label}:':9}{printable(str(value))}\n")
        for step in plan["steps"]:
            sys.stdout.write(f"  {step['number'] + 1}. {step['words']}\n     undo: {step['undo']}\n")
        for note in plan["notes"]:
            sys.stdout.write(f"  {note}\n")
    sys.stdout.write("Nothing was done. When it is launched, ids and addresses may be others.\n")


def _read(path: Path, what: str) -> bytes:
    """A file, or `-` for the input; never more than makes sense, and nothing that may have no end."""
    most = _FILE_MOST_MIB << 20
    try:
        data = sys.stdin.buffer.read(most + 1) if path == _STDIN else _content(path.expanduser(), what, most + 1)
    except OSError as error:
        raise CannotGoOn(f"the {what} file {path} cannot be read: {error.strerror}", "Check the path", 2) from error
    if len(data) > most:
        raise CannotGoOn(f"the {what} file {path} has more than {_FILE_MOST_MIB} MiB", "Is it the right one?", 2)
    return data


def _content(path: Path, what: str, most: int) -> bytes:
    """Of regular files alone: a pipe may never speak, and a device never end."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode):
            return file.read(most)
    raise CannotGoOn(f"the {what} file {path} is no regular file", "Give one, or - and pipe it in", 2)


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
