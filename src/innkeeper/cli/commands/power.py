"""`inn start`, `stop`, `restart`, `pause`, `resume`, `delete` for one or several instances, and `inn rename`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from innkeeper.cli.follow import each, follow, patch, post, remove
from innkeeper.cli.grammar.words import HERE, Here, Instance, InstanceNames, named
from innkeeper.cli.line import Line, at
from innkeeper.cli.units import seconds
from innkeeper.cli.waiting import until

Force = Annotated[bool, Parameter(help="at once, and over the head of any operation that holds it")]
Grace = Annotated[str, Parameter(help="how long the guest may take before it is forced, such as 30s", metavar="TIME")]
Wait = Annotated[bool, Parameter(help="wait until the guest answers")]


def start(*names: InstanceNames, wait: Wait = False, where: Here = HERE) -> None:
    _all("start", names, where.line)
    _answered(where.line, names if wait else ())


def stop(*names: InstanceNames, force: Force = False, grace: Grace = "60s", where: Here = HERE) -> None:
    _all("stop", names, where.line, {"force": force, "grace_s": seconds(grace, "--grace")})


def restart(
    *names: InstanceNames, force: Force = False, grace: Grace = "60s", wait: Wait = False, where: Here = HERE
) -> None:
    _all("restart", names, where.line, {"force": force, "grace_s": seconds(grace, "--grace")})
    _answered(where.line, names if wait else ())


def pause(*names: InstanceNames, where: Here = HERE) -> None:
    _all("pause", names, where.line)


def resume(*names: InstanceNames, where: Here = HERE) -> None:
    _all("resume", names, where.line)


def delete(*names: InstanceNames, force: Force = False, where: Here = HERE) -> None:
    line = where.line
    each(named(names), lambda name: remove(line, at("instances", name), force=str(force).lower()), line)


def rename(
    name: Instance,
    new_name: Annotated[str, Parameter(name="new-name", help="what it is called from now on")],
    /,
    *,
    where: Here = HERE,
) -> None:
    line = where.line
    follow(line, patch(line, at("instances", name), {"name": new_name}))


def _all(deed: str, names: Sequence[str], line: Line, body: dict[str, Any] | None = None) -> None:
    each(named(names), lambda name: post(line, at("instances", name, deed), body), line)


def _answered(line: Line, names: Sequence[str]) -> None:
    for name in dict.fromkeys(names):
        until(line, name)
