"""How things of ours are called in the kernel and on disk. Every name is derived, so that nothing has to be remembered.

A network's namespace carries the tag and the whole id (`ik3fa9-net-0123456789ab`) and can be read back. Interface names
have room for fifteen characters: those beside others on the host carry the tag and a hash; those inside a namespace
need no tag.
"""

from __future__ import annotations

import hashlib
import re

from innkeeper.drivers.linuxnet.settings import TAG
from innkeeper.model.ids import NetworkId, NicId

BRIDGE = "guests"
UPLINK = "out"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NAMESPACE = re.compile(rf"(?P<tag>{TAG.pattern})-(?P<network>{_ID.pattern})")
_HOST_END = re.compile(rf"{TAG.pattern}-[0-9a-f]{{8}}")
_TAP = re.compile(r"t[0-9a-f]{12}")


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def is_id(text: str) -> bool:
    """Ids become parts of file names: nothing else may."""
    return _ID.fullmatch(text) is not None


def namespace(tag: str, network: NetworkId) -> str:
    return f"{tag}-{network}"


def network_of(tag: str, namespace_name: str) -> NetworkId | None:
    """The network whose namespace this is, if it is one of this installation."""
    found = _NAMESPACE.fullmatch(namespace_name)
    return NetworkId(found["network"]) if found and found["tag"] == tag else None


def host_end(tag: str, network: NetworkId) -> str:
    """The host's end of a network's uplink."""
    return f"{tag}-{_digest(network, 4)}"


def is_host_end(interface: str) -> bool:
    """Of this or any other installation."""
    return _HOST_END.fullmatch(interface) is not None


def is_table(name: str) -> bool:
    """An nftables table of this or any other installation."""
    return TAG.fullmatch(name) is not None


def tap(nic: NicId) -> str:
    return f"t{_digest(nic, 6)}"


def is_tap(interface: str) -> bool:
    return _TAP.fullmatch(interface) is not None


def bridge_mac(network: NetworkId) -> str:
    """The gateway's. The same on every host, so that a guest that moved goes on without asking for it again."""
    tail = _digest(network, 5)
    return ":".join(("06", *(tail[i : i + 2] for i in range(0, 10, 2))))


def transit_start(tag: str, network: NetworkId) -> int:
    """Where the search for a free transit range begins: installations begin apart, so they seldom meet."""
    return int(_digest(f"{tag}/{network}", 4), 16)
