"""Output: a table for people; JSON, YAML and CSV for programs, holding all that the API gave."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Columns = Mapping[str, Callable[[Any], object]]


def show_many(rows: Sequence[Row], columns: Columns, form: str, empty: str) -> None:
    """`columns` maps a heading to what stands below it; `empty` is said to people when there is nothing."""
    if form != "table":
        dump(list(rows), form)
    elif rows:
        _table(rows, columns)
    else:
        sys.stderr.write(f"{empty}\n")


def show_one(row: Row, lines: Iterable[tuple[str, object]], form: str) -> None:
    """`lines` are label and value, for people."""
    if form != "table":
        dump(row, form)
        return
    told = list(lines)
    width = max(len(label) for label, _ in told) + 2
    for label, value in told:
        for number, part in enumerate(str(value).split("\n")):
            head = f"{label}:" if number == 0 else ""
            sys.stdout.write(f"{head:{width}}{printable(part)}".rstrip(" ") + "\n")


def dump(value: Any, form: str) -> None:
    match form:
        case "yaml":
            sys.stdout.write(_yaml(value))
        case "csv":
            _csv(value if isinstance(value, list) else [value])
        case _:
            json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
            sys.stdout.write("\n")


def printable(text: str) -> str:
    """What somebody wrote, such as a label, must not steer the reader's terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _yaml(value: object) -> str:
    """Loaded by name, as commands are: a table must start fast."""
    return str(importlib.import_module("yaml").safe_dump(value, sort_keys=False, allow_unicode=True))


def _csv(rows: Sequence[Row]) -> None:
    """Parts of parts get a column each (`size.vcpus`); lists stand in one, as JSON."""
    flat = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    writer = importlib.import_module("csv").writer(sys.stdout, lineterminator="\n")
    if names:
        writer.writerow(names)
    writer.writerows([row.get(name, "") for name in names] for row in flat)


def _flat(row: Row, before: str = "") -> dict[str, object]:
    cells: dict[str, object] = {}
    for key, value in row.items():
        if isinstance(value, dict) and value:
            cells |= _flat(value, f"{before}{key}.")
        elif isinstance(value, list | dict):
            cells[before + key] = json.dumps(value, ensure_ascii=False)
        else:
            cells[before + key] = {True: "true", False: "false"}[value] if isinstance(value, bool) else value
    return cells


def _table(rows: Sequence[Row], columns: Columns) -> None:
    """Plain columns: readable, and cut by `awk` and `grep` as well."""
    cells = [list(columns), *([printable(str(cell(r))) for cell in columns.values()] for r in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    sys.stdout.write("\n".join(lines) + "\n")
