"""What a guest answers to STATUS, read without believing it.

Lines of key=value. What is unknown or malformed is left out; of a key given twice the last counts.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from innkeeper.drivers.guestlink.frames import printable
from innkeeper.ports.streams import CloudInit, GuestNic, GuestStatus

_NICS_MAX = 64
_ADDRESSES_MAX = 256
_TEXT_MAX = 256
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def read_facts(payload: bytes) -> GuestStatus:
    lines = [line.partition("=") for line in map(printable, payload.split(b"\n"))]
    one = {key: value[:_TEXT_MAX] for key, _, value in lines}
    return GuestStatus(
        boot_id=one.get("boot_id") or None,
        hostname=one.get("hostname") or None,
        kernel=one.get("kernel") or None,
        uptime_s=_decimal(one.get("uptime_s")),
        load=_load(one.get("load", "")),
        memory_total_kib=_whole(one.get("memory_total_kib")),
        memory_available_kib=_whole(one.get("memory_available_kib")),
        root_total_bytes=_whole(one.get("root_total_bytes")),
        root_used_bytes=_whole(one.get("root_used_bytes")),
        nics=_nics((key, value) for key, _, value in lines),
        cloud_init=_cloud_init(one.get("cloud_init")),
        cloud_init_error=one.get("cloud_init_error") or None,
    )


# Only plain digits: int and float also read underlines, infinities and other scripts' digits.
def _whole(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None


def _decimal(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,9})?", text) else None


def _load(text: str) -> tuple[float, float, float] | None:
    numbers = [number for number in map(_decimal, text.split()) if number is not None]
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


def _cloud_init(text: str | None) -> CloudInit:
    return {known.value: known for known in CloudInit}.get(text or "", CloudInit.NONE)


def _nics(lines: Iterable[tuple[str, str]]) -> tuple[GuestNic, ...]:
    macs: dict[str, str] = {}
    addresses: dict[str, list[str]] = {}
    for key, value in lines:
        name, _, rest = value.partition(" ")
        known = name in addresses or len(addresses) < _NICS_MAX
        if key == "mac" and known and _MAC.fullmatch(rest):
            macs[name] = rest
            addresses.setdefault(name, [])
        elif key == "address" and known and _is_address(rest) and len(addresses.get(name, ())) < _ADDRESSES_MAX:
            addresses.setdefault(name, []).append(rest)
    return tuple(GuestNic(name=name, mac=macs.get(name), addresses=tuple(found)) for name, found in addresses.items())


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return "/" in text
