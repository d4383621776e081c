"""Output: a table for people; JSON, YAML and CSV for programs, holding all that the API gave.

A table fits the terminal that it is printed on: columns that can be spared are left out, then long cells are cut. Where
there is no terminal, it is whole, for `grep` and `awk`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from innkeeper.cli.line import printable

Row = Mapping[str, Any]
_IN_ONE = ("labels", "rates")
_LEAST = 12  # characters that a cell keeps when it is cut


class Table(NamedTuple):
    """`columns` maps a heading to what stands below it. Where they do not fit, those of `spare` go, the first of them
    first; then cells of `cut` are shortened."""

    columns: Mapping[str, Callable[[Any], object]]
    spare: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()


def show_many(rows: Sequence[Row], table: Table, form: str, empty: str) -> None:
    """`empty` is said to people when there is nothing."""
    if form != "table":
        dump(list(rows), form)
    elif rows:
        _print(rows, table)
    else:
        sys.stderr.write(f"{empty}\n")


def show_one(row: Row, lines: Iterable[tuple[str, object]], form: str) -> None:
    """`lines` are label and value, for people."""
    if form != "table":
        dump(row, form)
        return
    told = list(lines)
    left, width = max(len(label) for label, _ in told) + 2, _width()
    for label, value in told:
        for number, part in enumerate(str(value).split("\n")):
            head = f"{label}:" if number == 0 else ""
            sys.stdout.write(_beside(head, printable(part), left, width))


def dump(value: Any, form: str) -> None:
    match form:
        case "yaml":
            sys.stdout.write(_yaml(value))
        case "csv":
            _csv(value if isinstance(value, list) else [value])
        case _:
            json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
            sys.stdout.write("\n")


def _yaml(value: object) -> str:
    """Loaded by name, as commands are: a table must start fast."""
    return str(importlib.import_module("yaml").safe_dump(value, sort_keys=False, allow_unicode=True))


def _csv(rows: Sequence[Row]) -> None:
    """Parts of parts get a column each (`size.vcpus`); lists, and what not every row has, stand in one, as JSON: the
    columns are the same whatever is in them."""
    flat = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    writer = importlib.import_module("csv").writer(sys.stdout, lineterminator="\n")
    if names:
        writer.writerow(names)
    writer.writerows([row.get(name, "") for name in names] for row in flat)


def _flat(row: Row, before: str = "") -> dict[str, object]:
    cells: dict[str, object] = {}
    for key, value in row.items():
        if isinstance(value, dict) and value and key not in _IN_ONE:
            cells |= _flat(value, f"{before}{key}.")
        elif isinstance(value, list | dict):
            cells[before + key] = json.dumps(value, ensure_ascii=False)
        else:
            cells[before + key] = {True: "true", False: "false"}[value] if isinstance(value, bool) else value
    return cells


def _print(rows: Sequence[Row], table: Table) -> None:
    """Plain columns: readable, and cut by `awk` and `grep` as well."""
    cells = {head: [head, *(printable(str(cell(r))) for r in rows)] for head, cell in table.columns.items()}
    width = _width()
    if width is not None:
        _fit(cells, table, width)
    padded = [[cell.ljust(_widest(column)) for cell in column] for column in cells.values()]
    sys.stdout.write("\n".join("  ".join(row).rstrip() for row in zip(*padded, strict=True)) + "\n")


def _fit(cells: dict[str, list[str]], table: Table, width: int) -> None:
    """Columns go, or are cut, until a line is no longer than the terminal is wide, as far as that can be."""
    for head in table.spare:
        if _over(cells, width) > 0:
            del cells[head]
    for head in table.cut:
        if head in cells and (over := _over(cells, width)) > 0:
            most = max(_LEAST, len(head), _widest(cells[head]) - over)
            cells[head] = [cell if len(cell) <= most else f"{cell[: most - 1]}…" for cell in cells[head]]


def _over(cells: Mapping[str, Sequence[str]], width: int) -> int:
    return sum(map(_widest, cells.values())) + 2 * (len(cells) - 1) - width


def _widest(column: Sequence[str]) -> int:
    return max(map(len, column))


def _beside(head: str, text: str, left: int, width: int | None) -> str:
    """Text right of its label; on a terminal it is wrapped there, and what has too long a word stands below."""
    if width is None or left + len(text) <= width:
        return f"{head:{left}}{text}".rstrip(" ") + "\n"
    if max(map(len, text.split())) > width - left:
        return f"{head}\n  {text}\n"
    lines = textwrap.wrap(text, width - left, break_long_words=False, break_on_hyphens=False)
    return "".join(f"{head if n == 0 else '':{left}}{line}\n" for n, line in enumerate(lines))


def _width() -> int | None:
    """Of the terminal that is written to; None where there is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):
        return None
