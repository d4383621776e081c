"""The host's side of all networks: uplinks, the one table, forwarding, others' firewalls, the DNS relay.

What is to stand there follows from the uplinks that do stand there, found by looking: nothing about other networks has
to be remembered, and after a restart the first network's pass does not forget the rest. A kernel that reported no
change of interfaces, addresses, routes or rules since the last look is not looked at again, for a launch has no time
for it.
"""

from __future__ import annotations

import threading
from ipaddress import IPv4Network

import structlog

from innkeeper.drivers.linuxnet import names, render
from innkeeper.drivers.linuxnet.dnsmasq import Service, user
from innkeeper.drivers.linuxnet.host import ranges
from innkeeper.drivers.linuxnet.host.forwarding import Forwarding
from innkeeper.drivers.linuxnet.host.neighbours import Neighbours
from innkeeper.drivers.linuxnet.host.ranges import Survey
from innkeeper.drivers.linuxnet.inside import Inside
from innkeeper.drivers.linuxnet.kernel import namespaces, requests, switches
from innkeeper.drivers.linuxnet.kernel.nft import Nft, NftProcess, Ruleset
from innkeeper.drivers.linuxnet.kernel.rtnl import Link, Rtnl, Watch
from innkeeper.drivers.linuxnet.render import Uplink
from innkeeper.drivers.linuxnet.settings import NetFailed, NetSettings
from innkeeper.model.ids import NetworkId
from innkeeper.model.network import Network

_log = structlog.get_logger(__name__)


class Outside:
    """Used by several threads; one at a time does something."""

    def __init__(self, settings: NetSettings, nft_process: NftProcess) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._space = namespaces.named(settings.root_netns)
        with self._space.entered():
            self._rtnl, self._watch = Rtnl(), Watch()
        self._nft = Nft(nft_process, self._space)
        self._ruleset = Ruleset(self._nft)
        self._neighbours = Neighbours(self._nft, settings.tag)
        self._relay = Service(settings.state_dir / "relay")
        self._forwarding = Forwarding(settings.state_dir / "opened", self._space.inode)
        self._survey: Survey | None = None
        self._uplinks: dict[NetworkId, tuple[Network, Uplink]] = {}
        self._settled = False

    def close(self) -> None:
        self._rtnl.close()
        self._nft.close()
        self._watch.close()
        self._relay.close()
        self._space.close()

    def survey(self) -> Survey:
        with self._lock:
            return self._look()

    def uplink(self, network: Network, inside: Inside) -> Uplink:
        """A way out for this network stands: both ends joined, in a range that nobody else uses. May be repeated."""
        with self._lock:
            self._look()
            known = self._uplinks.get(network.id)
            if known is not None and known[0] == network:
                return known[1]
            end = self._joined(network, inside)
            uplink = self._addressed(end, network)
            self._uplinks[network.id] = (network, uplink)
            return uplink

    def withdraw(self, network: NetworkId) -> None:
        """No way leads into this network. May be repeated."""
        with self._lock:
            name = names.host_end(self._settings.tag, network)
            self._uplinks.pop(network, None)
            if self._look().link(name) is not None:
                self._rtnl.send([requests.delete_link(name)])
                self._survey, self._settled = None, False

    def settle(self) -> None:
        """Rules, forwarding, others' firewalls and the relay are as the standing uplinks need it. May be repeated."""
        with self._lock:
            survey = self._look()
            uplinks = self._standing(survey)
            # With nothing of ours out there, no foreign hand can have touched it.
            if self._settled and (not uplinks or self._stands()):
                return
            self._settled = False
            with self._space.entered():
                if uplinks:
                    self._serve(survey, uplinks)
                else:
                    self._leave()
            self._settled = True

    # --- looking

    def _stands(self) -> bool:
        return self._ruleset.untouched() and self._relay.stands() and self._forwarding.stands()

    def _look(self) -> Survey:
        if not self._watch.quiet() or self._survey is None:
            self._settled = False
            self._uplinks.clear()
            rtnl = self._rtnl
            self._survey = Survey(links=rtnl.links(), addresses=rtnl.addresses(), routes=rtnl.routes())
        return self._survey

    def _standing(self, survey: Survey) -> list[Uplink]:
        found = []
        for link in survey.links:
            if names.is_host_end(link.name) and link.name.startswith(f"{self._settings.tag}-"):
                for host in survey.ipv4_of(link.index)[:1]:
                    found.append(Uplink(interface=link.name, host=host, network=ranges.guests_end(host)))
        return found

    # --- uplinks

    def _joined(self, network: Network, inside: Inside) -> Link:
        name = names.host_end(self._settings.tag, network.id)
        here, there = self._look().link(name), inside.uplink()
        if here is None or there is None or here.peer != there.index or there.peer != here.index:
            inside.cut_off()
            self._rtnl.send(
                [
                    requests.delete_link(name),
                    requests.add_veth(name, names.UPLINK, inside.space.fd, network.mtu),
                ]
            )
            here = self._rtnl.link(name)
            if here is None:
                raise NetFailed(f"Uplink {name} of network {network.name} disappeared while it was made. Try again.")
        if not here.up or here.mtu != network.mtu or here.alias != network.id:
            change = requests.set_link(here.index, name, IFLA_MTU=network.mtu, IFLA_IFALIAS=str(network.id))
            self._rtnl.send([change])
        return here

    def _addressed(self, end: Link, network: Network) -> Uplink:
        survey, pool = self._look(), self._settings.transit_cidr
        standing = survey.ipv4_of(end.index)
        taken = [*survey.taken(but=end.index), IPv4Network(network.cidr)]
        host = next((each for each in standing if ranges.is_transit(pool, each, taken)), None)
        if host is None:
            host = ranges.choose_transit(pool, names.transit_start(self._settings.tag, network.id), taken)
        if host is None:
            raise NetFailed(
                f"Network {network.name} gets no way out: every /30 of {pool} overlaps a range that this host uses. "
                "Give the daemon another transit range."
            )
        work = [requests.delete_address(end.index, end.name, each) for each in standing if each != host]
        if host not in standing:
            work.append(requests.add_address(end.index, end.name, host))
        self._rtnl.send(work)
        return Uplink(interface=end.name, host=host, network=ranges.guests_end(host))

    # --- what all uplinks share

    def _serve(self, survey: Survey, uplinks: list[Uplink]) -> None:
        tag = self._settings.tag
        outward = {name for name in survey.outward() if not names.is_host_end(name)}
        opened = self._forwarding.answer_for(outward, self._neighbours.guarded(with_ours=True))
        self._neighbours.let_us_pass()
        self._ruleset.converge(render.outside(tag, uplinks, opened))
        for uplink in uplinks:
            switches.ensure(f"ipv6/conf/{uplink.interface}/disable_ipv6", "1")
        self._forwarding.open([*opened, *(uplink.interface for uplink in uplinks)])
        relay = render.relay_service(tag, self._settings.resolv_conf, self._settings.state_dir / "relay", user())
        self._relay.converge(relay, self._space.inode)
        if not ranges.name_servers_in(self._settings.resolv_conf):
            _log.warning("no name server", file=str(self._settings.resolv_conf), effect="guests resolve only own names")

    def _leave(self) -> None:
        """The last network went: nothing of ours stays on the host."""
        self._forwarding.close(self._neighbours.guarded(with_ours=False))
        self._neighbours.forget_us()
        self._relay.erase()
