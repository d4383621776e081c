"""`inn template …`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from innkeeper.cli.commands import lists
from innkeeper.cli.follow import each, follow, post, remove
from innkeeper.cli.grammar.words import HERE, Format, Here, Instance, Template
from innkeeper.cli.line import CannotGoOn, Line, at
from innkeeper.cli.output import show_one
from innkeeper.cli.units import human_bytes, human_size

NewName = Annotated[str, Parameter(help="the template's name; the next version of it is made", metavar="NAME")]


def list_(*, form: Format = "table", where: Here = HERE) -> None:
    lists.templates(where.line, form)


def show(name: Template, /, *, form: Format = "table", where: Here = HERE) -> None:
    one = where.line.get(at("templates", name))
    show_one(one, lines(one), form)


def lines(one: dict[str, Any]) -> list[tuple[str, object]]:
    brings = [word for word, has in (("agent", one["agent"]), ("cloud-init", one["cloud_init"])) if has]
    return [
        ("Name", f"{one['name']}:{one['version']}"),
        ("Id", one["id"]),
        ("System", one["os"] or "unknown"),
        ("Boots by", one["firmware"]),
        ("Digest", f"sha256:{one['digest']}"),
        ("Disk", f"{human_bytes(one['virtual_size_bytes'])}, stored in {human_bytes(one['stored_bytes'])}"),
        ("Default", human_size(one["default_size"])),
        ("Brings", ", ".join(brings) or "nothing of ours"),
        ("Origin", one["origin"]),
        ("Used by", "1 instance" if one["used_by"] == 1 else f"{one['used_by']} instances"),
        *(("Memory", _memory(image)) for image in one["memory_images"]),
    ]


def _memory(image: dict[str, Any]) -> str:
    stored = "" if image["stored_bytes"] is None else f", stored in {human_bytes(image['stored_bytes'])}"
    clones = "1 clone" if image["clones"] == 1 else f"{image['clones']} clones"
    return f"{image['id']} on {image['host']}, {image['status']}: {human_size(image['size'])}{stored}, {clones}"


def warm(
    name: Template,
    /,
    *,
    drop: Annotated[bool, Parameter(help="delete its memory images; launches boot from then on")] = False,
    where: Here = HERE,
) -> None:
    line = where.line
    if drop:
        follow(line, remove(line, at("templates", name, "memory")))
        return
    follow(line, post(line, at("templates", name, "warm"), {}))
    one = line.get(at("templates", name))
    for image in one["memory_images"]:
        sys.stdout.write(f"Memory image {_memory(image)}\n")


def build(recipe: Annotated[str, Parameter(help="what to build: debian-12 or tiny")], /, *, where: Here = HERE) -> None:
    line = where.line
    _made(line, post(line, at("templates", "build"), {"recipe": recipe}))


def import_(
    file: Annotated[Path, Parameter(help="a disk image on the daemon's machine")],
    /,
    *,
    name: NewName,
    image_format: Annotated[Literal["qcow2", "raw"], Parameter(help="what the file is; never guessed")],
    firmware: Annotated[Literal["bios", "uefi"], Parameter(help="what boots it; otherwise bios")] = "bios",
    where: Here = HERE,
) -> None:
    path = file.expanduser().absolute()
    if not path.is_file():
        wrong = "is no file" if path.exists() else "is not there"
        raise CannotGoOn(f"{path} {wrong}", "Give the path of a disk image on the daemon's machine", 2)
    line, body = where.line, {"name": name, "path": str(path), "format": image_format, "firmware": firmware}
    _made(line, post(line, at("templates", "import"), body))


def publish(instance: Instance, /, *, name: NewName, where: Here = HERE) -> None:
    line = where.line
    _made(line, post(line, at("templates", "publish"), {"instance": instance, "name": name}))


def delete(*names: Template, where: Here = HERE) -> None:
    if not names:
        raise CannotGoOn("no template was named", "See: inn template list", 2)
    line = where.line
    each(names, lambda name: remove(line, at("templates", name)), line)


def _made(line: Line, operation: dict[str, Any]) -> None:
    """Follow what makes a template, and say which it has become."""
    made, *_ = follow(line, operation)["subjects"]  # of a publication its instance follows
    one = line.get(at("templates", made))
    sys.stdout.write(f"Template {one['name']}:{one['version']} is ready ({human_bytes(one['stored_bytes'])})\n")
