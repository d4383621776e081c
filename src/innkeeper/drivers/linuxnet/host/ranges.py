"""Address ranges of the host: which are taken, which free one joins a network to the host. Pure, but for one file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, ip_address, ip_network
from pathlib import Path

from innkeeper.drivers.linuxnet.kernel.rtnl import Address, Link, Route

_TRANSIT_PREFIX = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The host's interfaces, addresses and main routes at one moment."""

    links: Sequence[Link]
    addresses: Sequence[Address]
    routes: Sequence[Route]

    def link(self, name: str) -> Link | None:
        return next((link for link in self.links if link.name == name), None)

    def ipv4_of(self, index: int) -> list[IPv4Interface]:
        mine = (address.interface for address in self.addresses if address.index == index)
        return [interface for interface in mine if isinstance(interface, IPv4Interface)]

    def taken(self, but: int = 0) -> list[IPv4Network]:
        """IPv4 ranges that lead somewhere, other than through interface number `but`."""
        found = [address.interface.network for address in self.addresses if address.index != but]
        found += [route.range for route in self.routes if route.index != but and route.range is not None]
        return sorted({each for each in found if isinstance(each, IPv4Network)})

    def outward(self) -> set[str]:
        """Interfaces that are up and lead somewhere: answers to guests may come in through any of them."""
        used = {route.index for route in self.routes if route.unicast}
        return {link.name for link in self.links if link.index in used and link.up and link.name != "lo"}


def in_use(survey: Survey) -> tuple[str, ...]:
    """Every range of either family that the host knows of, single addresses included."""
    addresses = (address.interface.network for address in survey.addresses)
    routes = (route.range for route in survey.routes if route.range is not None)
    return tuple(sorted({str(each) for each in (*addresses, *routes)}))


def choose_transit(cidr: str, start: int, taken: Iterable[IPv4Network]) -> IPv4Interface | None:
    """The host's end of a free /30, searched from `start` on; None if there is none."""
    pool = IPv4Network(cidr)
    near = [other for other in taken if other.overlaps(pool)]
    count = 1 << (_TRANSIT_PREFIX - pool.prefixlen)
    for step in range(count):
        base = int(pool.network_address) + (start + step) % count * 4
        candidate = IPv4Network((base, _TRANSIT_PREFIX))
        if not any(candidate.overlaps(other) for other in near):
            return IPv4Interface((base + 1, _TRANSIT_PREFIX))
    return None


def is_transit(cidr: str, interface: IPv4Interface, taken: Iterable[IPv4Network]) -> bool:
    """Whether this may stay the host's end of a transit: of our form, and nobody else leads there."""
    network = interface.network
    return (
        network.prefixlen == _TRANSIT_PREFIX
        and network.subnet_of(IPv4Network(cidr))
        and int(interface.ip) == int(network.network_address) + 1
        and not any(network.overlaps(other) for other in taken)
    )


def guests_end(host_end: IPv4Interface) -> IPv4Interface:
    return IPv4Interface((int(host_end.ip) + 1, _TRANSIT_PREFIX))


def name_servers(resolv_conf: str) -> tuple[str, ...]:
    """Addresses behind `nameserver` in resolv.conf, without their zone."""
    found = []
    for words in (line.split() for line in resolv_conf.splitlines()):
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                found.append(str(ip_address(words[1].partition("%")[0])))
            except ValueError:
                continue  # not an address: the resolver library skips such a line, too
    return tuple(found)


def name_servers_in(resolv_conf: Path) -> tuple[str, ...]:
    """None if there is no such file, as the resolver library sees it, too."""
    try:
        return name_servers(resolv_conf.read_text())
    except OSError:
        return ()


def host_range(address: str) -> str:
    return str(ip_network(address))
