"""Networks: the range of a new one, addresses for NICs, and what one network should be on one host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network

from immutables import Map

from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import Draw, HostId, NetworkId, NicId, ProjectId
from innkeeper.model.instance import Wanted
from innkeeper.model.network import Network, NetworkWanted, Nic, Port
from innkeeper.model.plans import Refusal, Why

# Where default networks are taken from, the widest first: many a company routes all of 10.0.0.0/8 to itself.
# /20 holds 4,093 instances and leaves 4,096 such networks in 10.0.0.0/8.
_SPACES = tuple(IPv4Network(c) for c in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
_DEFAULT_PREFIX = 20
# Wider routes than any private range lead out into the world; VPNs like to write the default route as two halves.
_WAY_OUT_BELOW = 8
_MACS = 2**24


def default_network(project: ProjectId, in_use: Iterable[str], draw: Draw) -> Network | Refusal:
    """A project's first network. Its range collides with nothing in `in_use`: CIDRs that hosts already route."""
    routed = [IPv4Network(c, strict=False) for c in in_use if ":" not in c]
    avoid = [route for route in routed if route.prefixlen >= _WAY_OUT_BELOW]
    cidr = next((c for c in _ranges(draw) if not any(c.overlaps(a) for a in avoid)), None)
    if cidr is None:
        spaces = ", ".join(map(str, _SPACES))
        return Refusal(
            why=Why.NO_ROOM,
            reason=f"every private range ({spaces}) is in use on this host, so the network default has no addresses",
            hint="Remove a route or an address that covers one of them, then start again",
        )
    return Network(
        id=NetworkId(draw.id("net")),
        project=project,
        name="default",
        cidr=str(cidr),
        gateway=str(cidr.network_address + 1),
        domain="inn.internal",
    )


def _ranges(draw: Draw) -> Iterator[IPv4Network]:
    """All that a default network may have, each space from a random place on."""
    size = 2 ** (32 - _DEFAULT_PREFIX)
    for space in _SPACES:
        count = space.num_addresses // size
        start = draw.number("range", count)
        for i in range(count):
            yield IPv4Network((int(space.network_address) + (start + i) % count * size, _DEFAULT_PREFIX))


def pick_address(cluster: Cluster, network: Network, draw: Draw) -> str | Refusal:
    """A free address, at a random place, so that an address that was given back is not soon another's."""
    cidr = IPv4Network(network.cidr)
    held: Map[str, NicId] = cluster.addresses.get(network.id, Map())
    count = cidr.num_addresses - 2  # without the network's own and broadcast
    start = draw.number("address", max(1, count))
    for i in range(count):
        address = str(cidr[1 + (start + i) % count])
        if address != network.gateway and address not in held:
            return address
    return Refusal(
        why=Why.NO_ROOM,
        reason=f"network {network.name} ({network.cidr}) has no address left: all {max(0, count - 1)} are given out",
        hint="Delete instances that are not needed: inn list",
    )


def pick_mac(cluster: Cluster, draw: Draw) -> str:
    """Locally administered, in the range that QEMU guests use by custom (52:54:00). One of 16 million is soon free."""
    start = draw.number("mac", _MACS)
    macs = (_mac((start + i) % _MACS) for i in range(len(cluster.macs) + 1))
    return next(mac for mac in macs if mac not in cluster.macs)


def _mac(number: int) -> str:
    return "52:54:00:" + ":".join(f"{number >> shift & 0xFF:02x}" for shift in (16, 8, 0))


def network_wanted(cluster: Cluster, host: HostId, network: NetworkId) -> NetworkWanted | None:
    """All of a network on a host, as of this picture; None where the network is gone.

    Instances on their way out have no port any more. The picture's revision is the generation.
    """
    row = cluster.networks.get(network)
    if row is None:
        return None
    ports = (_port(cluster, cluster.nics[n], host) for n in cluster.nics_on.get(network, ()))
    return NetworkWanted(
        network=row,
        generation=cluster.revision,
        ports=tuple(sorted((p for p in ports if p is not None), key=lambda p: p.nic)),
    )


def _port(cluster: Cluster, nic: Nic, host: HostId) -> Port | None:
    instance = cluster.instances.get(nic.instance)
    if instance is None or instance.host != host or instance.wanted is Wanted.ABSENT:
        return None
    return Port(
        nic=nic.id,
        instance=instance.id,
        hostname=instance.name,
        mac=nic.mac,
        addresses=nic.addresses,
        uid_slot=instance.uid_slot,
    )
