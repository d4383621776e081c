"""Amounts as people write them: sizes, durations, ages."""

from __future__ import annotations

import re
from collections.abc import Mapping

from innkeeper.cli.line import CannotGoOn

_FACTORS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 1024,
    "mi": 1024**2,
    "gi": 1024**3,
    "ti": 1024**4,
}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"  # more digits than that are a slip of the hand


def size_bytes(text: str, option: str) -> int:
    """`1GiB`, `512M`, `1.5G`. Single letters and `…B` are decimal, `…i` and `…iB` binary, as in IEC 80000-13."""
    found = re.fullmatch(rf"\s*(-?{_NUMBER})\s*([a-zA-Z]{{0,3}})\s*", text)
    factor = _FACTORS.get(found[2].lower().removesuffix("b")) if found else None
    if found is None or factor is None:
        raise CannotGoOn(f"{option}: {text!r} is no size", "For example: 512MiB, 1GiB, 10GiB", 2)
    return int(float(found[1]) * factor)


def memory_mib(text: str | None) -> int | None:
    """A bare number counts as MiB."""
    if text is None:
        return None
    return int(text) if _bare(text) else size_bytes(text, "--memory") // 1024**2


def disk_gib(text: str | None) -> int | None:
    """A bare number counts as GiB; a part of one counts as a whole."""
    if text is None:
        return None
    return int(text) if _bare(text) else -(-size_bytes(text, "--disk") // 1024**3)


def _bare(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,15}", text) is not None


def seconds(text: str, option: str) -> float:
    """`90`, `90s`, `15m`, `1h`, `1h30m`, `2d`."""
    parts = re.findall(rf"({_NUMBER})([smhdw]?)", text)
    if not parts or "".join(a + b for a, b in parts) != text:
        raise CannotGoOn(f"{option}: {text!r} is no time", "For example: 90s, 15m, 1h30m, 2d", 2)
    return float(sum(float(number) * _SECONDS[unit or "s"] for number, unit in parts))


def human_bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def human_mib(mib: float) -> str:
    """Whole numbers where they are whole: `512 MiB`, `4 GiB`, `1.5 GiB`."""
    unit, number = ("GiB", mib / 1024) if mib >= 1024 else ("MiB", mib)
    return f"{number:.0f} {unit}" if number == int(number) else f"{number:.1f} {unit}"


def human_age(age_s: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if age_s >= length:
            return f"{age_s // length:.0f}{unit}"
    return f"{max(0, age_s):.0f}s"


def human_size(size: Mapping[str, int]) -> str:
    vcpus = "1 vCPU" if size["vcpus"] == 1 else f"{size['vcpus']} vCPUs"
    return f"{vcpus}, {human_mib(size['memory_mib'])} of memory, {size['disk_gib']} GiB of disk"
