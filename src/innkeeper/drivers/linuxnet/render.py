"""A network's wanted state in the words of nftables and dnsmasq. Pure; golden files show all of it.

        guest --tap--+                              the host's own namespace
        guest --tap--+- bridge `guests` .1          |
                     |     |  routed, masqueraded   |
                     |   `out` 198.18.x.2 ----------+- ik3fa9-xxxxxxxx 198.18.x.1 -- masqueraded -- outside
                     |                              |
        a namespace per network: dnsmasq, guard     |  relay: dnsmasq that asks what /etc/resolv.conf says

Three layers of rules, each of which holds alone:
- `guard` (bridge) sees every frame as it leaves a guest: only ARP and IPv4, only with the card's own MAC and addresses.
  IPv6 is dropped whole until neighbour discovery is guarded too, and router advertisements with it.
- `inet` inside the namespace: what guests may ask of the gateway (DHCP, DNS, ping), and that they may go out but nobody
  in. Link-local ranges are unreachable, or a guest could ask the metadata service of the cloud that the host itself
  runs in.
- `inet` on the host: networks do not meet each other, reach nothing of the host but its DNS relay, and get answers
  only.

Security groups take the place of `guests to guests` in the forward chain; floating addresses join `postrouting`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, ip_address
from pathlib import Path

from innkeeper.drivers.linuxnet import names
from innkeeper.drivers.linuxnet.kernel.rules import Rules
from innkeeper.model.network import Network, NetworkWanted, Port

LEASE = "1h"
# Not 53: a name server of the host's own that listens on all addresses has that, and guests shall not reach it.
RELAY_PORT = 15353


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """The way between a network and the host: a /30 with an address at each end."""

    interface: str
    host: IPv4Interface
    network: IPv4Interface


def gateway(network: Network) -> IPv4Interface:
    return IPv4Interface(f"{network.gateway}/{IPv4Network(network.cidr).prefixlen}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plug:
    """What all texts below say of a port. Made once for each: a network of 500 is rendered at every launch in it."""

    tap: str
    mac: str
    addresses: tuple[IPv4Address | IPv6Address, ...]
    ipv4: tuple[str, ...]
    hosts_line: str
    mac_member: str
    owner_members: tuple[str, ...]


@lru_cache(maxsize=1 << 16)
def plug(port: Port) -> Plug:
    tap, mac = names.tap(port.nic), port.mac.lower()
    addresses = tuple(map(ip_address, port.addresses))
    ipv4 = tuple(str(address) for address in addresses if isinstance(address, IPv4Address))
    return Plug(
        tap=tap,
        mac=mac,
        addresses=addresses,
        ipv4=ipv4,
        hosts_line=f"{mac},{ipv4[0]},{port.hostname},{LEASE}\n" if ipv4 else "",
        mac_member=f'"{tap}" . {mac}',
        owner_members=tuple(f'"{tap}" . {mac} . {address}' for address in ipv4),
    )


# --- nftables


def inside(tag: str, wanted: NetworkWanted, transit_cidr: str) -> Rules:
    """All rules of a network's namespace; nobody else has any there, so whatever is found is replaced."""
    plugs = [plug(port) for port in wanted.ports]
    macs = frozenset(each.mac_member for each in plugs)
    owners = frozenset(member for each in plugs for member in each.owner_members)
    network = wanted.network
    return Rules(
        base="flush ruleset\n" + _guard(tag) + _routing(tag, network, transit_cidr),
        elements={f"bridge {tag} macs": macs, f"bridge {tag} owners": owners},
    )


def _guard(tag: str) -> str:
    return f"""\
table bridge {tag} {{
	set macs {{ type ifname . ether_addr; }}
	set owners {{ type ifname . ether_addr . ipv4_addr; }}
	chain guard {{
		type filter hook prerouting priority -300; policy drop;
		iifname . ether saddr != @macs drop
		ether type vmap {{ arp : goto from_arp, ip : goto from_ip }}
	}}
	chain from_arp {{
		arp htype != 1 drop
		iifname . arp saddr ether . arp saddr ip @owners accept
		iifname . arp saddr ether @macs arp saddr ip 0.0.0.0 arp operation request accept
		drop
	}}
	chain from_ip {{
		udp sport 67 drop
		iifname . ether saddr . ip saddr @owners accept
		ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept
		drop
	}}
}}
"""


def _routing(tag: str, network: Network, transit_cidr: str) -> str:
    out = f"""\
		iifname "{names.BRIDGE}" oifname "{names.UPLINK}" ip saddr {IPv4Network(network.cidr)} accept
"""
    return f"""\
table inet {tag} {{
	chain input {{
		type filter hook input priority filter; policy drop;
		ct state vmap {{ established : accept, related : accept, invalid : drop }}
		iifname "lo" accept
		iifname "{names.BRIDGE}" udp sport 68 udp dport 67 accept
		iifname "{names.BRIDGE}" ip daddr {network.gateway} meta l4proto {{ tcp, udp }} th dport 53 accept
		iifname "{names.BRIDGE}" ip daddr {network.gateway} icmp type echo-request accept
	}}
	chain forward {{
		type filter hook forward priority filter; policy drop;
		iifname "{names.BRIDGE}" oifname "{names.BRIDGE}" accept
		ct state vmap {{ established : accept, related : accept, invalid : drop }}
		ip daddr {{ 127.0.0.0/8, 169.254.0.0/16, {IPv4Network(transit_cidr)} }} drop
{out if network.nat else ""}\
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat;
		oifname "{names.UPLINK}" masquerade
	}}
}}
"""


def outside(tag: str, uplinks: Iterable[Uplink], opened: Iterable[str]) -> Rules:
    """Our one table in the host's namespace. `opened` are interfaces that forward only because we made them.

    A drop here is final; an accept is not, for other tables may still drop (see `foreign.py`).
    """
    base = f"""\
table inet {tag}
delete table inet {tag}
table inet {tag} {{
	set ways {{ type ifname . ipv4_addr; }}
	set resolvers {{ type ifname . ipv4_addr . ipv4_addr; }}
	set transits {{ type ipv4_addr; }}
	set opened {{ type ifname; }}
	chain input {{
		type filter hook input priority filter - 10; policy accept;
		iifname != "{tag}-*" accept
		ct state established,related accept
		iifname . ip saddr . ip daddr @resolvers meta l4proto {{ tcp, udp }} th dport {RELAY_PORT} accept
		reject with icmpx type admin-prohibited
	}}
	chain forward {{
		type filter hook forward priority filter - 10; policy accept;
		iifname "{tag}-*" oifname "ik*" drop
		iifname "{tag}-*" meta nfproto ipv6 drop
		iifname "{tag}-*" iifname . ip saddr != @ways drop
		oifname "{tag}-*" ct state != {{ established, related }} drop
		iifname @opened oifname != "ik*" drop
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat;
		ip saddr @transits oifname != "ik*" masquerade
	}}
}}
"""
    known = tuple(uplinks)
    elements = {
        f"inet {tag} ways": frozenset(f'"{u.interface}" . {u.network.ip}' for u in known),
        f"inet {tag} resolvers": frozenset(f'"{u.interface}" . {u.network.ip} . {u.host.ip}' for u in known),
        f"inet {tag} transits": frozenset(str(u.network.ip) for u in known),
        f"inet {tag} opened": frozenset(f'"{name}"' for name in opened),
    }
    return Rules(base=base, elements=elements)


# --- dnsmasq


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Whom dnsmasq becomes. The group is said, too: its own default, `dip`, may not read our files."""

    name: str
    group: str
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFiles:
    """`config` is read once, at the start; `live` (name to text) again whenever the process is told to."""

    config: str
    live: dict[str, str]

    def config_name(self) -> str:
        """Carries the content's hash: a process that runs with this name runs with this content."""
        return f"dnsmasq-{hashlib.blake2b(self.config.encode(), digest_size=8).hexdigest()}.conf"

    def live_hash(self) -> str:
        text = "".join(f"{name}\0{text}\0" for name, text in sorted(self.live.items()))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def guest_service(wanted: NetworkWanted, resolver: str | None, folder: Path, user: User) -> ServiceFiles:
    """DHCP and DNS of one network. Addresses are planned, so leases need no file: after a restart it knows them all."""
    network = wanted.network
    cidr = IPv4Network(network.cidr)
    config = f"""\
# Written by Innkeeper for network {network.id}. Changes are overwritten.
port=53
interface={names.BRIDGE}
except-interface=lo
bind-interfaces
user={user.name}
group={user.group}
pid-file={folder}/pid
no-hosts
no-resolv
{f"server={resolver}#{RELAY_PORT}" if resolver else "# No way out: only this network's own names are known."}
domain={network.domain}
local=/{network.domain}/
{_reverse_zones(cidr)}\
domain-needed
addn-hosts={folder}/names
dhcp-hostsfile={folder}/hosts
dhcp-range={cidr.network_address},static,{cidr.netmask},{LEASE}
dhcp-lease-max={max(cidr.num_addresses, 16)}
dhcp-authoritative
dhcp-ignore=tag:!known
dhcp-ignore-names
leasefile-ro
no-ping
quiet-dhcp
dhcp-option=option:router{f",{network.gateway}" if network.nat else ""}
dhcp-option=option:dns-server,{network.gateway}
dhcp-option=option:domain-search,{network.domain}
dhcp-option=option:mtu,{network.mtu}
"""
    return ServiceFiles(config=config, live={"hosts": hosts(wanted), "names": addresses_by_name(wanted)})


def relay_service(tag: str, resolv_conf: Path, folder: Path, user: User) -> ServiceFiles:
    """The host's end of name resolution: it asks what the host itself asks, also 127.0.0.53, VPNs' and IPv6 resolvers.

    One for all networks of an installation. It follows resolv.conf by itself, and takes up uplinks as they come.
    """
    config = f"""\
# Written by Innkeeper: resolver of installation {tag} for its networks. Changes are overwritten.
port={RELAY_PORT}
interface={tag}-*
except-interface=lo
bind-dynamic
user={user.name}
group={user.group}
pid-file={folder}/pid
no-hosts
resolv-file={resolv_conf}
cache-size=2000
"""
    return ServiceFiles(config=config, live={})


def hosts(wanted: NetworkWanted) -> str:
    return "".join(plug(port).hosts_line for port in _in_order(wanted))


def leases(hosts_file: str) -> set[tuple[str, str]]:
    """MAC and address of every line of a `hosts` file as written above, in whatever state it was left."""
    split = (line.split(",") for line in hosts_file.splitlines())
    return {(fields[0], fields[1]) for fields in split if len(fields) == 4}


def addresses_by_name(wanted: NetworkWanted) -> str:
    domain = wanted.network.domain
    lines = [
        f"{address} {port.hostname}.{domain} {port.hostname}\n"
        for port in _in_order(wanted)
        for address in plug(port).ipv4
    ]
    return "".join(lines)


def _in_order(wanted: NetworkWanted) -> list[Port]:
    return sorted(wanted.ports, key=lambda port: port.nic)


def _reverse_zones(cidr: IPv4Network) -> str:
    """Zones end at whole octets; questions about our own addresses never leave the network."""
    octets = min(size for size in (8, 16, 24) if size >= min(cidr.prefixlen, 24))
    covered = cidr.subnets(new_prefix=octets) if cidr.prefixlen <= octets else iter((cidr.supernet(new_prefix=octets),))
    lines = []
    for zone in covered:
        parts = str(zone.network_address).split(".")[: octets // 8]
        lines.append(f"local=/{'.'.join(reversed(parts))}.in-addr.arpa/\n")
    return "".join(lines)
