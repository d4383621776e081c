"""`inn operation …`."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from innkeeper.cli.commands import lists
from innkeeper.cli.follow import follow
from innkeeper.cli.grammar.words import HERE, Format, Here, OperationId
from innkeeper.cli.line import CannotGoOn, at
from innkeeper.cli.output import show_one
from innkeeper.cli.units import seconds

_ENDED = ("succeeded", "failed", "cancelled")


def list_(
    *,
    limit: Annotated[
        int, Parameter(help="how many; otherwise 20", metavar="N", validator=Number(gte=1, lte=10_000))
    ] = lists.OPERATIONS_SHOWN,
    form: Format = "table",
    where: Here = HERE,
) -> None:
    lists.operations(where.line, form, limit)


def show(operation: OperationId, /, *, form: Format = "table", where: Here = HERE) -> None:
    one = where.line.get(at("operations", operation))
    show_one(one, lines(one), form)


def lines(one: dict[str, Any]) -> list[tuple[str, object]]:
    told: list[tuple[str, object]] = [
        ("Id", one["id"]),
        ("What", one["title"]),
        ("State", one["state"] + (" (cancelling)" if one["cancel_wanted"] and one["state"] == "running" else "")),
        ("By", one["principal"]),
        ("Took", f"{one['updated_at'] - one['created_at']:.2f} s"),
    ]
    if one["doing"]:
        told.append(("Doing", f"{one['doing']} ({one['progress'] * 100:.0f} %)"))
    if one["error"]:
        told.append(("Error", one["error"]))
    if one["hint"]:
        told.append(("Hint", one["hint"]))
    if one["children"]:
        told.append(("Parts", "\n".join(one["children"])))
    return told + [(f"Step {s['number'] + 1}", f"{s['state']}: {s['words']}") for s in one["plan"]]


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
    timeout_s = min(seconds(timeout, "--timeout"), 3600)
    now = line.get(at("operations", operation, "wait"), timeout_s=timeout_s)
    if now["state"] not in _ENDED:
        hint = f"It goes on; see: inn operation show {now['id']}"
        raise CannotGoOn(f"operation {now['id']} is still {now['state']} after {timeout}", hint)
    follow(line, now)
