"""Words that many commands share: which daemon, which output, which instance. Help and completion read them here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import CoercionError, Group, Parameter, Token
from cyclopts.completion import CompletionContext

from innkeeper.cli.line import CannotGoOn, Line, at

_COMPLETING_S = 2.0

COMMON = Group("Common options", sort_key=9)


def whole(_: object, tokens: Sequence[Token]) -> int:
    """A number of digits alone; what reads numbers otherwise would round `1.5`."""
    word = tokens[0].value
    if not re.fullmatch(r"-?[0-9]{1,30}", word):
        raise CoercionError(token=tokens[0], target_type=int)
    return int(word)


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which daemon and which project a command speaks of."""

    project: Annotated[str, Parameter(help="the project; otherwise INN_PROJECT, or default", metavar="NAME")] = ""
    socket: Annotated[
        str, Parameter(help="the daemon's socket; otherwise INN_SOCKET, or api.sock in INN_DATA", metavar="PATH")
    ] = ""

    @property
    def line(self) -> Line:
        return Line(self.socket, self.project)


Here = Annotated[Where, Parameter(name="*", group=COMMON)]
HERE = Where()


def _names(context: CompletionContext, places: Sequence[str], word: str) -> list[str]:
    """What could be meant, for completion: names as the daemon knows them, nothing when there is none."""
    socket, project = context.get("socket"), context.get("project")
    line = Line((socket and socket.raw) or "", (project and project.raw) or "", _COMPLETING_S)
    try:
        return [str(item[word]) for item in line.every(at(*places))]
    except CannotGoOn:
        return []


def instance_names(context: CompletionContext) -> list[str]:
    return _names(context, ("instances",), "name")


def template_names(context: CompletionContext) -> list[str]:
    return sorted(set(_names(context, ("templates",), "name")))


def snapshot_names(context: CompletionContext) -> list[str]:
    """Those of the instance that was named before."""
    owner = context.get("instance")
    return _names(context, ("instances", (owner and owner.raw) or "", "snapshots"), "name")


def origin_names(context: CompletionContext) -> list[str]:
    owner, slash, _ = context.incomplete.partition("/")
    if not slash:
        return template_names(context)
    return [f"{owner}/{name}" for name in _names(context, ("instances", owner, "snapshots"), "name")]


def operation_ids(context: CompletionContext) -> list[str]:
    return _names(context, ("operations",), "id")[:20]


Instance = Annotated[
    str, Parameter(name="instance", completer=instance_names, help="the instance: its name, or the beginning of its id")
]
InstanceNames = Annotated[
    str, Parameter(name="instance", completer=instance_names, help="the instances: names, or beginnings of ids")
]
Template = Annotated[
    str,
    Parameter(
        name="template", completer=template_names, help="the template: its name (newest version), name:version, or id"
    ),
]
Origin = Annotated[
    str,
    Parameter(
        name="template",
        completer=origin_names,
        help="the template: its name (newest version), name:version, or id; or a snapshot: INSTANCE/SNAPSHOT",
    ),
]
Snapshot = Annotated[
    str, Parameter(name="snapshot", completer=snapshot_names, help="the snapshot: its name, or the beginning of its id")
]
SnapshotNames = Annotated[
    str, Parameter(name="snapshot", completer=snapshot_names, help="the snapshots: names, or beginnings of ids")
]
OperationId = Annotated[str, Parameter(completer=operation_ids, help="the operation: its id, or its beginning")]
Format = Annotated[
    Literal["table", "json", "yaml", "csv"],
    Parameter(name=["--format", "-f"], help="table for people; json, yaml or csv for programs", group=COMMON),
]
Timeout = Annotated[str, Parameter(help="give up after so long, such as 90s or 10m", metavar="TIME")]


def named(names: Sequence[str]) -> Sequence[str]:
    """Commands on several instances want at least one."""
    if not names:
        raise CannotGoOn("no instance was named", "See: inn list", 2)
    return names
