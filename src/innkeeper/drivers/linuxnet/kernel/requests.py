"""Words to rtnetlink: values to messages, encoded by pyroute2. Pure; `rtnl.py` sends them.

Each request says in words what it does, for the operator who reads why it was refused, and which refusals mean "already
so".
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import Any

from innkeeper.drivers.linuxnet.kernel.messages import ifaddrmsg, ifinfmsg, rtmsg

_NEWLINK, _DELLINK, _SETLINK = 16, 17, 19
_NEWADDR, _DELADDR = 20, 21
_NEWROUTE = 24
_REQUEST, _ACK = 0x1, 0x4
_REPLACE, _EXCLUSIVE, _CREATE = 0x100, 0x200, 0x400
_UP = 1
_AF_INET = 2
_MAIN_TABLE = 254
_STATIC, _UNIVERSE, _UNICAST = 4, 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`settled` holds the error numbers that mean: nothing was left to do."""

    words: str
    message: bytes
    settled: frozenset[int] = frozenset()


def add_bridge(name: str, mac: str, mtu: int) -> Request:
    """No spanning tree and no multicast snooping: all its ports are guests, and nothing behind it is a bridge."""
    data = {"attrs": [("IFLA_BR_STP_STATE", 0), ("IFLA_BR_FORWARD_DELAY", 0), ("IFLA_BR_MCAST_SNOOPING", 0)]}
    attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_ADDRESS", mac),
        ("IFLA_MTU", mtu),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", data)]}),
    ]
    return _link(f"make bridge {name}", _NEWLINK, _CREATE | _EXCLUSIVE, attributes)


def add_veth(name: str, peer: str, peer_namespace_fd: int, mtu: int) -> Request:
    """Both ends at once, the peer already in its namespace: there is no moment with one end astray."""
    other = {"attrs": [("IFLA_IFNAME", peer), ("IFLA_MTU", mtu), ("IFLA_NET_NS_FD", peer_namespace_fd)]}
    data = {"attrs": [("VETH_INFO_PEER", other)]}
    attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_MTU", mtu),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}),
    ]
    return _link(f"make uplink {name} with {peer}", _NEWLINK, _CREATE | _EXCLUSIVE, attributes)


def set_up(index: int, name: str) -> Request:
    return _link(f"set {name} up", _NEWLINK, 0, [], index=index, up=True)


def set_link(index: int, name: str, **attributes: object) -> Request:
    """Attributes by rtnetlink's names: IFLA_MTU, IFLA_ADDRESS, IFLA_IFALIAS, IFLA_MASTER. The link is up afterwards."""
    words = ", ".join(key.removeprefix("IFLA_").lower() for key in attributes)
    return _link(f"set {words} of {name}", _NEWLINK, 0, list(attributes.items()), index=index, up=True)


def set_port(name: str, bridge_index: int, mtu: int, alias: str) -> Request:
    """A tap becomes an open port of the bridge. By name: it was made a moment ago, and nobody looked up its number."""
    attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_MTU", mtu),
        ("IFLA_IFALIAS", alias),
        ("IFLA_MASTER", bridge_index),
    ]
    return _link(f"make {name} a port of the bridge", _NEWLINK, 0, attributes, up=True)


def free_port(index: int, name: str) -> Request:
    gone = frozenset({errno.ENODEV})
    return _link(f"take {name} off the bridge", _NEWLINK, 0, [("IFLA_MASTER", 0)], index=index, settled=gone)


def delete_link(name: str) -> Request:
    gone = frozenset({errno.ENODEV})
    return _link(f"delete {name}", _DELLINK, 0, [("IFLA_IFNAME", name)], settled=gone)


def add_address(index: int, name: str, address: IPv4Interface) -> Request:
    there = frozenset({errno.EEXIST})
    return _address(f"give {name} {address}", _NEWADDR, _CREATE | _EXCLUSIVE, index, address, there)


def delete_address(index: int, name: str, address: IPv4Interface) -> Request:
    gone = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV})
    return _address(f"take {address} from {name}", _DELADDR, 0, index, address, gone)


def default_route(gateway: str, index: int) -> Request:
    """In place of any other default route of the namespace."""
    message = rtmsg()
    message["family"] = _AF_INET
    message["table"], message["proto"] = _MAIN_TABLE, _STATIC
    message["scope"], message["type"] = _UNIVERSE, _UNICAST
    message["attrs"] = [("RTA_GATEWAY", gateway), ("RTA_OIF", index)]
    words = f"lead the way out through {gateway}"
    return Request(words=words, message=_encoded(message, _NEWROUTE, _CREATE | _REPLACE))


def _link(
    words: str,
    kind: int,
    flags: int,
    attributes: list[tuple[str, object]],
    index: int = 0,
    **more: Any,
) -> Request:
    message = ifinfmsg()
    message["index"] = index
    if more.pop("up", False):
        message["flags"], message["change"] = _UP, _UP
    message["attrs"] = attributes
    return Request(words=words, message=_encoded(message, kind, flags), **more)


def _address(words: str, kind: int, flags: int, index: int, address: IPv4Interface, settled: frozenset[int]) -> Request:
    message = ifaddrmsg()
    message["family"], message["index"], message["prefixlen"] = _AF_INET, index, address.network.prefixlen
    message["attrs"] = [
        ("IFA_LOCAL", str(address.ip)),
        ("IFA_ADDRESS", str(address.ip)),
        ("IFA_BROADCAST", str(address.network.broadcast_address)),
    ]
    return Request(words=words, message=_encoded(message, kind, flags), settled=settled)


def _encoded(message: Any, kind: int, flags: int) -> bytes:
    message["header"]["type"] = kind
    message["header"]["flags"] = _REQUEST | _ACK | flags
    message["header"]["sequence_number"] = 0
    message.encode()
    return bytes(message.data)
