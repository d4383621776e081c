"""`inn operation …`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from innkeeper.cli.commands import lists
from innkeeper.cli.follow import children, follow
from innkeeper.cli.grammar.words import HERE, Format, Here, OperationId, whole
from innkeeper.cli.line import CannotGoOn, at
from innkeeper.cli.output import show_one
from innkeeper.cli.times import span, when
from innkeeper.cli.units import seconds
from innkeeper.cli.waiting import going_on


def list_(
    *,
    limit: Annotated[
        int, Parameter(help="how many; otherwise 20", metavar="N", converter=whole, validator=Number(gte=1, lte=10_000))
    ] = lists.OPERATIONS_SHOWN,
    form: Format = "table",
    where: Here = HERE,
) -> None:
    lists.operations(where.line, form, limit)


def show(operation: OperationId, /, *, form: Format = "table", where: Here = HERE) -> None:
    line = where.line
    one = line.get(at("operations", operation))
    parts = children(line, one) if one["children"] and form == "table" else []
    show_one(one, lines(one, parts), form)


def lines(one: dict[str, Any], parts: Sequence[dict[str, Any]] = ()) -> list[tuple[str, object]]:
    told: list[tuple[str, object]] = [
        ("Id", one["id"]),
        ("What", one["title"]),
        ("State", one["state"] + (" (cancelling)" if one["cancel_wanted"] and one["state"] == "running" else "")),
        ("By", one["principal"]),
        ("Began", when(one["created_at"])),
        ("Took", span(lists.took_s(one))),
    ]
    if one["doing"]:
        told.append(("Doing", f"{one['doing']} ({one['progress'] * 100:.0f} %)"))
    if one["error"]:
        told.append(("Error", one["error"]))
    if one["hint"]:
        told.append(("Hint", one["hint"]))
    if parts:
        told.append(("Parts", "\n".join(f"{part['id']}  {part['state']:9}  {part['title']}" for part in parts)))
    return told + [(f"Step {s['number'] + 1}", f"{s['state']:8} {s['words']}") for s in one["plan"]]


def cancel(operation: OperationId, /, *, where: Here = HERE) -> None:
    """Returns at once; see inn operation wait."""
    where.line.post(at("operations", operation, "cancel"))


def wait(
    operation: OperationId,
    /,
    *,
    timeout: Annotated[str | None, Parameter(help="give up after so long, such as 90s or 10m", metavar="TIME")] = None,
    where: Here = HERE,
) -> None:
    line = where.line
    if timeout is None:
        follow(line, line.get(at("operations", operation)))
        return
    timeout_s = seconds(timeout, "--timeout")
    with going_on(f"waiting for operation {operation}"):
        now = line.get(at("operations", operation, "wait"), timeout_s=timeout_s)
    if now["state"] not in lists.ENDED:
        hint = f"It goes on; see: inn operation show {now['id']}"
        raise CannotGoOn(f"{now['title']}: still {now['state']} after {span(timeout_s)}", hint)
    follow(line, now)
