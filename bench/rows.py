"""Rows of a bench: medians, ratios, what was promised; as a table, and as JSON for whoever compares runs."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

GROSSLY = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`must` bounds the median (`must_ratio` the ratio of medians) from above; with `at_least` from below."""

    name: str
    unit: str
    values: tuple[float, ...]
    peer: tuple[float, ...] = ()
    must: float | None = None
    must_ratio: float | None = None
    aim: float | None = None
    at_least: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def peer_median(self) -> float | None:
        return statistics.median(self.peer) if self.peer else None

    @property
    def ratio(self) -> float | None:
        return self.median / statistics.median(self.peer) if self.peer else None

    @property
    def kept(self) -> bool | None:
        """Whether the promise is kept; None where nothing was promised."""
        bound = self.must if self.must is not None else self.must_ratio
        found = self.median if self.must is not None else self.ratio
        if bound is None or found is None:
            return None
        return found >= bound if self.at_least else found <= bound

    @property
    def broken(self) -> bool:
        """Beyond what a busy machine explains."""
        found = self.median if self.must is not None else self.ratio
        bound = self.must if self.must is not None else self.must_ratio
        if bound is None or found is None:
            return False
        return found * GROSSLY < bound if self.at_least else found > bound * GROSSLY


def show(rows: list[Row], file: Path | None) -> None:
    """A table for people; with a file also JSON rows. A promise that is not kept is said; what is thrice beyond it is
    no noise, and ends the bench with an error."""
    width = max(len(r.name) for r in rows)
    print(f"{'':{width}}  {'median':>10}  {'min':>10}  {'max':>10}  {'peer':>10}  {'ratio':>6}  {'must':>8}  runs")
    for row in rows:
        peer = f"{row.peer_median:10.3f}" if row.peer_median is not None else f"{'-':>10}"
        ratio = f"{row.ratio:6.3f}" if row.ratio is not None else f"{'-':>6}"
        sign = "≥" if row.at_least else "≤"
        bound = row.must if row.must is not None else row.must_ratio
        must = f"{sign} {bound:g}" + ("x" if row.must is None else "") if bound is not None else "-"
        verdict = {True: "", False: "  NOT KEPT", None: ""}[row.kept]
        spread = f"{min(row.values):10.3f}  {max(row.values):10.3f}"
        print(
            f"{row.name:{width}}  {row.median:10.3f}  {spread}  {peer}  {ratio}  {must:>8}  "
            f"{len(row.values)} {row.unit}{verdict}"
        )
    if file is not None:
        file.write_text(json.dumps([_plain(row) for row in rows], indent=2) + "\n")
    if broken := [row.name for row in rows if row.broken]:
        sys.exit(f"grossly broken: {', '.join(broken)}")


def _plain(row: Row) -> dict[str, object]:
    return {
        "name": row.name,
        "value": row.median,
        "unit": row.unit,
        "peer": row.peer_median,
        "ratio": row.ratio,
        "must": row.must if row.must is not None else row.must_ratio,
        "aim": row.aim,
        "runs": len(row.values),
    }
