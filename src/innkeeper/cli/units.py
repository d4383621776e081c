"""Amounts as people write them: sizes, durations, ages."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction

from innkeeper.cli.line import CannotGoOn

_FACTORS: dict[str, int] = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
} | {f"{letter}{rest}": 1024**power for power, letter in enumerate("kmgt", 1) for rest in ("", "i", "ib")}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MIB, _GIB = 1024**2, 1024**3
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"  # more digits than that are a slip of the hand


def size_bytes(text: str, option: str) -> Fraction:
    """`1GiB`, `1.5G`, `512MB`, not rounded. Letters alone are binary, as QEMU, Multipass and Proxmox VE read them, and
    `…i`, `…iB` are; `…B` is decimal, as in IEC 80000-13.
    """
    found = re.fullmatch(rf"\s*(-?{_NUMBER})\s*([a-zA-Z]{{0,3}})\s*", text)
    factor = _FACTORS.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise CannotGoOn(f"{option}: {text!r} is no size", "For example: 512MiB, 1GiB, 10GiB", 2)
    return Fraction(found[1]) * factor


def memory_mib(text: str | None) -> int | None:
    """A bare number counts as MiB."""
    return None if text is None else _whole(text, "--memory", _MIB, "MiB")


def disk_gib(text: str | None) -> int | None:
    """A bare number counts as GiB."""
    return None if text is None else _whole(text, "--disk", _GIB, "GiB")


def _whole(text: str, option: str, unit_bytes: int, unit: str) -> int:
    """Decimal amounts are rounded up: whoever asks for 10GB gets no less. Others are whole, or a slip of the hand."""
    bare = re.fullmatch(rf"-?{_NUMBER}", text)
    amount = Fraction(text) if bare else size_bytes(text, option) / unit_bytes
    decimal = re.search(r"[kmgt]b\s*$", text.lower())
    if amount.denominator == 1 or decimal:
        return math.ceil(amount)
    reason = f"{option}: {text!r} is {float(amount):.6g} {unit}, and only whole {unit} are given"
    raise CannotGoOn(reason, f"Say {max(1, math.ceil(amount))}{unit}", 2)


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
