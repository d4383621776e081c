"""What is wrong with a wanted state, before anything is done about it. Pure.

Names and addresses end up in files that other programs parse; whatever is not of the expected form goes no further,
though the planner has chosen it: a host does not trust the line over which it is told.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network

from innkeeper.drivers.linuxnet import names
from innkeeper.drivers.linuxnet.render import plug
from innkeeper.model.network import Network, NetworkWanted, Port

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(_LABEL)
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


def faults(wanted: NetworkWanted) -> list[str]:
    try:
        return [*_of_network(wanted.network), *_of_ports(wanted.network, wanted.ports)]
    except ValueError as error:
        return [str(error)]


def _of_network(network: Network) -> Iterator[str]:
    cidr = IPv4Network(network.cidr)
    gateway = IPv4Address(network.gateway)
    if not names.is_id(network.id):
        yield f"{network.id!r} is no id"
    if cidr.prefixlen > 29 or cidr.prefixlen < 8:
        yield f"{cidr} is no range for a network: it takes a prefix from /8 to /29"
    if gateway not in cidr or gateway in (cidr.network_address, cidr.broadcast_address):
        yield f"gateway {gateway} is no host address of {cidr}"
    if not _DOMAIN.fullmatch(network.domain):
        yield f"{network.domain!r} is no domain"
    if not 576 <= network.mtu <= 9216:
        yield f"MTU {network.mtu} is outside of 576 to 9216"


def _of_ports(network: Network, ports: tuple[Port, ...]) -> Iterator[str]:
    words = [word for port in ports for word in (plug(port).tap, plug(port).mac, *port.addresses)]
    if len(set(words)) < len(words):
        yield from (f"{word} is used {count} times" for word, count in Counter(words).items() if count > 1)
    for port in ports:
        yield from _of_port(port, network.cidr, network.gateway)


@lru_cache(maxsize=1 << 16)
def _of_port(port: Port, cidr: str, gateway: str) -> tuple[str, ...]:
    """Kept, for a network of 500 is looked through at every launch in it."""
    return tuple(_wrong(port, IPv4Network(cidr), IPv4Address(gateway)))


def _wrong(port: Port, cidr: IPv4Network, gateway: IPv4Address) -> Iterator[str]:
    if not _MAC.fullmatch(port.mac) or int(port.mac[:2], 16) & 1:
        yield f"{port.nic}: {port.mac!r} is no MAC of a card"
    if not _HOSTNAME.fullmatch(port.hostname):
        yield f"{port.nic}: {port.hostname!r} is no host name"
    for address in plug(port).addresses:
        if not isinstance(address, IPv4Address):
            yield f"{port.nic}: {address}: this host's networks carry IPv4 only"
        elif address not in cidr or address in (cidr.network_address, cidr.broadcast_address):
            yield f"{port.nic}: {address} is no host address of {cidr}"
        elif address == gateway:
            yield f"{port.nic}: {address} is the gateway's"
