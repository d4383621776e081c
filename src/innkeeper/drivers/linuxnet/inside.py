"""One network's namespace: what stands in it, and what has to change.

Each step looks first and changes what differs, so that the first pass, a pass with one more port, and the repair of
what a foreign hand did are the same code. Rules stand before ports do: there is no moment with an unguarded port.
"""

from __future__ import annotations

import errno
from ipaddress import IPv4Interface

from innkeeper.drivers.linuxnet import dnsmasq, names, render
from innkeeper.drivers.linuxnet.dnsmasq import Service
from innkeeper.drivers.linuxnet.kernel import requests, switches, taps
from innkeeper.drivers.linuxnet.kernel.namespaces import Space
from innkeeper.drivers.linuxnet.kernel.nft import Nft, NftProcess, Ruleset
from innkeeper.drivers.linuxnet.kernel.requests import Request
from innkeeper.drivers.linuxnet.kernel.rtnl import BridgePort, Link, Rtnl, RtnlRefused
from innkeeper.drivers.linuxnet.kernel.rules import Rules
from innkeeper.drivers.linuxnet.render import ServiceFiles, Uplink
from innkeeper.drivers.linuxnet.settings import NicCounters
from innkeeper.model.ids import NicId
from innkeeper.model.network import Network, NetworkWanted, Port

# No IPv6 of the namespace's own; routing; and nobody on the bridge learns of the transit by ARP.
_SWITCHES = (
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/arp_ignore", "1"),
)


class Inside:
    """The inside of one network, as long as this process holds it open. Used by one thread at a time."""

    def __init__(self, space: Space, service: Service, nft_process: NftProcess) -> None:
        self.space = space
        self._service = service
        with space.entered():
            self._rtnl = Rtnl()
        self._nft = Nft(nft_process, space)
        self._ruleset = Ruleset(self._nft)

    def close(self) -> None:
        self._rtnl.close()
        self._nft.close()
        self._service.close()
        self.space.close()

    def lay(self, network: Network, rules: Rules) -> None:
        """Switches, rules and the bridge with the gateway's address."""
        with self.space.entered():
            for name, value in _SWITCHES:
                switches.ensure(name, value)
        self._ruleset.converge(rules)
        loopback = self._rtnl.link("lo")
        if loopback is not None and not loopback.up:
            self._rtnl.send([requests.set_up(loopback.index, "lo")])
        bridge = self._bridge(network)
        self._rtnl.send(self._addressed(bridge, render.gateway(network)))

    def uplink(self) -> Link | None:
        """Our end of the way out, whatever stands at the other."""
        return self._rtnl.link(names.UPLINK)

    def cut_off(self) -> None:
        """There is no way out. May be repeated."""
        if self.uplink() is not None:
            self._rtnl.send([requests.delete_link(names.UPLINK)])

    def lead_out(self, network: Network, uplink: Uplink) -> None:
        """The way out is open and everything that is not here goes there."""
        end = self.uplink()
        if end is None:
            raise RtnlRefused("look at the way out", errno.ENODEV)
        if not end.up or end.mtu != network.mtu:
            self._rtnl.send([requests.set_link(end.index, names.UPLINK, IFLA_MTU=network.mtu)])
        self._rtnl.send(self._addressed(end, uplink.network))
        gateway = str(uplink.host.ip)
        defaults = [route for route in self._rtnl.routes() if route.range is None]
        if not any(route.index == end.index and route.gateway == gateway for route in defaults):
            self._rtnl.send([requests.default_route(gateway, end.index)])

    def plug(self, network: Network, ports: tuple[Port, ...]) -> None:
        """One tap for each port on the bridge, and nothing else there."""
        bridge = self._rtnl.link(names.BRIDGE)
        if bridge is None:
            raise RtnlRefused(f"look at bridge {names.BRIDGE}", errno.ENODEV)
        wanted = {render.plug(port).tap: port for port in ports}
        standing = {link.name: link for link in self._rtnl.ports() if link.master == bridge.index}
        work = [self._unplugged(link) for name, link in standing.items() if name not in wanted]
        with self.space.entered():
            there = switches.interfaces()
            for name in sorted(wanted.keys() - there):
                taps.create(name)
        astray = {name for name in there - wanted.keys() - standing.keys() if names.is_tap(name)}
        work += [requests.delete_link(name) for name in sorted(astray)]
        for name, port in sorted(wanted.items()):
            link = standing.get(name)
            if link is None or not link.up or link.mtu != network.mtu:
                work.append(requests.set_port(name, bridge.index, network.mtu, port.nic))
        self._rtnl.send(work)

    def serve(self, wanted: NetworkWanted, files: ServiceFiles) -> None:
        """DHCP and DNS know the ports, and no lease stands in a new one's way."""
        with self.space.entered():
            for mac, address in sorted(self._service.freed_leases(files)):
                dnsmasq.release_lease(wanted.network.gateway, mac, address)
            self._service.converge(files, self.space.inode)

    def open_tap(self, nic: NicId) -> int | None:
        with self.space.entered():
            name = names.tap(nic)
            return taps.attach(name) if name in switches.interfaces() else None

    def counters(self) -> dict[NicId, NicCounters]:
        """What the host's tap sent the guest received."""
        found = {}
        for link in self._rtnl.links(counters=True):
            if names.is_tap(link.name) and link.alias and len(link.counters) == 8:
                in_packets, out_packets, in_bytes, out_bytes, _, _, in_dropped, out_dropped = link.counters
                found[NicId(link.alias)] = NicCounters(
                    received_bytes=out_bytes,
                    sent_bytes=in_bytes,
                    received_packets=out_packets,
                    sent_packets=in_packets,
                    received_dropped=out_dropped,
                    sent_dropped=in_dropped,
                )
        return found

    def clear(self) -> None:
        """Cut off and without service. Taps, bridge and rules end with the namespace, all at once: one by one they take
        seconds. Should a QEMU still hold a tap, they stay with it, still guarded, out of reach."""
        with self.space.entered():
            self._service.stop()
        self.cut_off()

    # --- steps

    def _bridge(self, network: Network) -> Link:
        bridge = self._rtnl.link(names.BRIDGE)
        mac = names.bridge_mac(network.id)
        if bridge is not None and bridge.kind != "bridge":
            self._rtnl.send([requests.delete_link(names.BRIDGE)])
            bridge = None
        if bridge is None:
            self._rtnl.send([requests.add_bridge(names.BRIDGE, mac, network.mtu)])
            bridge = self._rtnl.link(names.BRIDGE)
            if bridge is None:
                raise RtnlRefused(f"look at bridge {names.BRIDGE}, which was just made", errno.ENODEV)
        if not bridge.up or bridge.mtu != network.mtu or bridge.mac != mac:
            change = requests.set_link(bridge.index, names.BRIDGE, IFLA_ADDRESS=mac, IFLA_MTU=network.mtu)
            self._rtnl.send([change])
        return bridge

    def _addressed(self, link: Link, wanted: IPv4Interface) -> list[Request]:
        found = [address.interface for address in self._rtnl.addresses(link.index)]
        standing = [interface for interface in found if isinstance(interface, IPv4Interface)]
        # First away: a wrong one in the same range would take ours with it when it goes.
        work = [requests.delete_address(link.index, link.name, each) for each in standing if each != wanted]
        if wanted not in standing:
            work.append(requests.add_address(link.index, link.name, wanted))
        return work

    def _unplugged(self, link: BridgePort) -> Request:
        if names.is_tap(link.name):
            return requests.delete_link(link.name)
        return requests.free_port(link.index, link.name)
