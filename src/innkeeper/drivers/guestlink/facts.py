"""What a guest answers to STATUS, read without believing it.

Lines of key=value. What is unknown or malformed is left out; of a key given twice the last counts. A guest is asked
every few seconds, so an answer is read no further than an honest one goes.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable

from innkeeper.drivers.guestlink.frames import printable
from innkeeper.ports.streams import CloudInit, GuestNic, GuestStatus

_ANSWER_MAX = 16384  # innkeeper-guest leaves out what does not fit
_LINES_MAX = 1024
_NICS_MAX = 64
_ADDRESSES_MAX = 256
_TEXT_MAX = 256
_NAME_MAX = 15  # of an interface, in every kernel
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def read_facts(payload: bytes) -> GuestStatus:
    said = payload[:_ANSWER_MAX].split(b"\n", _LINES_MAX)[:_LINES_MAX]
    lines = [line.partition("=") for line in map(printable, said)]
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
        known = name in addresses or (len(addresses) < _NICS_MAX and 0 < len(name) <= _NAME_MAX)
        if key == "mac" and known and _MAC.fullmatch(rest):
            macs[name] = rest
            addresses.setdefault(name, [])
        elif key == "address" and known and _is_address(rest) and len(addresses.get(name, ())) < _ADDRESSES_MAX:
            addresses.setdefault(name, []).append(rest)
    return tuple(GuestNic(name=name, mac=macs.get(name), addresses=tuple(found)) for name, found in addresses.items())


def _is_address(text: str) -> bool:
    # ipaddress would take ten times as long, and netmasks and zones besides.
    address, _, prefix = text.partition("/")
    family, longest = (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)
    try:
        socket.inet_pton(family, address)
    except OSError:
        return False
    return bool(re.fullmatch(r"[0-9]{1,3}", prefix)) and int(prefix) <= longest
