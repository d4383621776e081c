"""`inn snapshot …` and `inn rewind`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from cyclopts import Parameter

from innkeeper.cli.commands import lists
from innkeeper.cli.commands.launch import launch
from innkeeper.cli.follow import fail_with, follow, post
from innkeeper.cli.grammar.words import HERE, Format, Here, Instance, Snapshot, SnapshotNames
from innkeeper.cli.line import CannotGoOn, Line, at
from innkeeper.cli.output import show_one
from innkeeper.cli.times import when
from innkeeper.cli.units import human_bytes, human_size

_HOW = {True: "consistent", False: "as after a loss of power", None: "not complete yet"}


def create(
    instance: Instance,
    name: Annotated[
        str | None, Parameter(group="Arguments", help="its name; otherwise snap0, snap1, the first that is free")
    ] = None,
    /,
    *,
    where: Here = HERE,
) -> None:
    line = where.line
    owner, made = follow(line, post(line, _at(instance), {"name": name}))["subjects"]
    one = line.get(_at(owner, made))
    stored = "" if one["stored_bytes"] is None else f"{human_bytes(one['stored_bytes'])}, "
    sys.stdout.write(f"Snapshot {one['instance']}/{one['name']} is taken ({stored}{_HOW[one['consistent']]})\n")


def list_(instance: Instance, /, *, form: Format = "table", where: Here = HERE) -> None:
    lists.snapshots(where.line, instance, form)


def show(instance: Instance, snapshot: Snapshot, /, *, form: Format = "table", where: Here = HERE) -> None:
    one = where.line.get(_at(instance, snapshot))
    show_one(one, lines(one), form)


def lines(one: dict[str, Any]) -> list[tuple[str, object]]:
    told: list[tuple[str, object]] = [
        ("Name", one["name"]),
        ("Id", one["id"]),
        ("Instance", one["instance"] + (", which stands on it" if one["current"] else "")),
        ("Status", one["status"]),
        ("Taken", when(one["created_at"])),
        ("Disks", _HOW[one["consistent"]]),
        ("Parent", one["parent"] or "none"),
        ("Size", human_size(one["size"])),
        ("Template", one["template"]),
        ("Host", one["host"]),
    ]
    if one["stored_bytes"] is not None:
        told.insert(7, ("Stored", f"{human_bytes(one['stored_bytes'])} of its own"))
    if one["operation"]:
        told.append(("Operation", f"{one['operation']} holds it: inn operation show {one['operation']}"))
    return told


def restore(
    instance: Instance,
    snapshot: Snapshot,
    /,
    *,
    restart: Annotated[bool, Parameter(help="also as it runs: it is ended at once, and started anew")] = False,
    as_: Annotated[
        str | None, Parameter(name="--as", help="make another instance of this name instead", metavar="NAME")
    ] = None,
    where: Here = HERE,
) -> None:
    path = _at(instance, snapshot)
    if as_ is None:
        _restore(where.line, path, restart=restart)
    elif restart:
        hint = f"--restart takes {instance} itself back, --as leaves it alone and makes another one"
        raise CannotGoOn("--restart and --as exclude each other", hint, 2)
    else:
        launch(f"{instance}/{snapshot}", as_, where=where)


def rewind(instance: Instance, snapshot: Snapshot, /, *, where: Here = HERE) -> None:
    _restore(where.line, _at(instance, snapshot), restart=True)


def delete(instance: Instance, /, *snapshots: SnapshotNames, where: Here = HERE) -> None:
    """One after the other: they may lie over each other, and a host deletes nothing that something stands over."""
    if not snapshots:
        raise CannotGoOn("no snapshot was named", f"See: inn snapshot list {instance}", 2)
    line, problems = where.line, list[CannotGoOn]()
    for snapshot in dict.fromkeys(snapshots):
        try:
            follow(line, line.delete(_at(instance, snapshot)))
        except CannotGoOn as problem:
            problems.append(problem)
            if problem.code != 1:  # a word that is no name, nobody there, or Ctrl-C
                break
    fail_with(problems)


def _restore(line: Line, path: str, *, restart: bool) -> None:
    follow(line, post(line, f"{path}/restore", {"restart": restart}))


def _at(instance: str, *snapshot: str) -> str:
    return at("instances", instance, "snapshots", *snapshot)
