"""`inn top`: what every instance uses now."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated, Any

from cyclopts import Parameter

from innkeeper.cli.grammar.words import HERE, Format, Here
from innkeeper.cli.line import Line, at
from innkeeper.cli.output import Table, show_many
from innkeeper.cli.units import human_bytes

_EVERY_S = 5
_HOME, _CLEAR_BELOW = "\x1b[H", "\x1b[J"
_FLOWS = ("disk_read", "disk_written", "net_received", "net_sent")
_NOTHING = {"cpus": 0.0, "memory_mib": 0.0, **{f"{flow}_bytes_per_s": 0.0 for flow in _FLOWS}}
_DOWN = ("stopped", "crashed", "launching", "deleting")
_TABLE = Table(
    {
        "NAME": lambda i: i["name"],
        "STATUS": lambda i: i["status"],
        "CPU": lambda i: f"{i['rates']['cpus'] * 100:.1f} %",
        "MEMORY": lambda i: human_bytes(i["rates"]["memory_mib"] * 1024**2),
        "READ/S": lambda i: human_bytes(i["rates"]["disk_read_bytes_per_s"]),
        "WRITTEN/S": lambda i: human_bytes(i["rates"]["disk_written_bytes_per_s"]),
        "IN/S": lambda i: human_bytes(i["rates"]["net_received_bytes_per_s"]),
        "OUT/S": lambda i: human_bytes(i["rates"]["net_sent_bytes_per_s"]),
    },
    spare=("OUT/S", "IN/S", "WRITTEN/S", "READ/S"),
)


def top(
    *,
    once: Annotated[bool, Parameter(help="print once and end")] = False,
    form: Format = "table",
    where: Here = HERE,
) -> None:
    """Busiest first, anew every five seconds. Ctrl-C ends it. Where nobody watches, it prints once."""
    watching = not once and form == "table" and sys.stdout.isatty()
    if watching:
        _watch(where.line)
    else:
        show_many(_busiest(where.line), _TABLE, form, "No instance is running")


def _watch(line: Line) -> None:
    try:
        while True:
            rows = _busiest(line)
            sys.stdout.write(_HOME + _CLEAR_BELOW)
            sys.stdout.write(time.strftime("%H:%M:%S") + f"  {len(rows)} running\n\n")
            show_many(rows[: _room()], _TABLE, "table", "No instance is running")
            sys.stdout.flush()
            time.sleep(_EVERY_S)
    except KeyboardInterrupt:
        return


def _room() -> int:
    """Rows below the time and the headings: what scrolls away cannot be drawn over."""
    return max(1, os.get_terminal_size(sys.stdout.fileno()).lines - 4)


def _busiest(line: Line) -> list[dict[str, Any]]:
    running = [i for i in line.every(at("instances")) if i["status"] not in _DOWN]
    return sorted(({**i, "rates": i["rates"] or _NOTHING} for i in running), key=lambda i: -i["rates"]["cpus"])
