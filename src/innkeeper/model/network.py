"""Networks and network cards, and the whole wanted state of one network on one host.

A network lives in a network namespace of its own on each host: bridge, DHCP and DNS service, taps, and a way out. A
host is never told to add or remove one port; it is told what the whole network should be, with a generation, and
converges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from innkeeper.model.ids import InstanceId, Kind, NetworkId, NicId, ProjectId, Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """`cidr` and `gateway` are of one IPv4 network; `nat` gives guests a way out through the host's own address."""

    id: NetworkId
    project: ProjectId
    name: str
    cidr: str
    gateway: str
    domain: str
    nat: bool = True
    mtu: int = 1500
    generation: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> Ref:
        return Ref(Kind.NETWORK, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    id: NicId
    project: ProjectId
    name: str
    instance: InstanceId
    network: NetworkId
    mac: str
    addresses: tuple[str, ...]
    generation: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> Ref:
        return Ref(Kind.NIC, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One wanted tap: whose it is, under which name it is found, what it may send from."""

    nic: NicId
    instance: InstanceId
    hostname: str
    mac: str
    addresses: tuple[str, ...]
    uid_slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkWanted:
    """All of one network on one host. `generation` grows with every change; a host refuses an older one than it has."""

    network: Network
    generation: int
    ports: tuple[Port, ...]
