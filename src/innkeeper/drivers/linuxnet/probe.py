"""Whether this machine can carry networks, found out by doing it once in a namespace that vanishes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from innkeeper.drivers.linuxnet import names, render
from innkeeper.drivers.linuxnet.host import ranges
from innkeeper.drivers.linuxnet.kernel import namespaces, requests, taps
from innkeeper.drivers.linuxnet.kernel.nft import Nft, NftProcess, NftRefused
from innkeeper.drivers.linuxnet.kernel.rtnl import Rtnl, RtnlRefused
from innkeeper.drivers.linuxnet.settings import NetSettings
from innkeeper.model.ids import NetworkId, ProjectId
from innkeeper.model.network import Network, NetworkWanted

_LEGACY_TABLES = Path("/proc/thread-self/net/ip_tables_names")
_SAMPLE = Network(
    id=NetworkId("net-probe"),
    project=ProjectId("p-probe"),
    name="probe",
    cidr="198.51.100.0/24",
    gateway="198.51.100.1",
    domain="probe.internal",
)


def probe(settings: NetSettings) -> tuple[str, ...]:
    """Problems in words, each with what to do; none if networks can be made. Takes milliseconds, leaves nothing."""
    if os.geteuid() != 0:
        return ("Networks need root: start the daemon as root.",)
    problems = [*_programs(), *_name_servers(settings)]
    try:
        with namespaces.nameless():
            _try(settings)
    except (OSError, NftRefused, RtnlRefused) as refused:
        problems.append(f"This machine cannot carry networks: {refused}. {_remedy(refused)}")
    try:
        home = namespaces.named(settings.root_netns)
    except FileNotFoundError:
        return (*problems, f"There is no network namespace {settings.root_netns}, which was to stand for the host.")
    with home.entered():
        problems.extend(_legacy(settings))
    home.close()
    return tuple(problems)


def _programs() -> list[str]:
    if shutil.which("dnsmasq", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        return ["dnsmasq is missing: apt install dnsmasq-base."]
    return []


def _name_servers(settings: NetSettings) -> list[str]:
    if not ranges.name_servers_in(settings.resolv_conf):
        return [f"{settings.resolv_conf} names no name server: guests resolve only each other's names."]
    return []


def _try(settings: NetSettings) -> None:
    """A bridge, a tap on it and both rulesets, as real ones are made."""
    wanted = NetworkWanted(network=_SAMPLE, generation=1, ports=())
    rtnl = Rtnl()
    try:
        rtnl.send([requests.add_bridge(names.BRIDGE, names.bridge_mac(_SAMPLE.id), _SAMPLE.mtu)])
        os.close(taps.attach("probe"))
    finally:
        rtnl.close()
    process, here = NftProcess(), namespaces.Space("/proc/thread-self/ns/net")
    nft = Nft(process, here)
    try:
        nft.run(render.inside(settings.tag, wanted, settings.transit_cidr).text())
        nft.run(render.outside(settings.tag, (), ()).text())
    finally:
        nft.close()
        here.close()
        process.close()


def _remedy(refused: Exception) -> str:
    if "libnftables" in str(refused):
        return "Install it: apt install libnftables1 nftables."
    if taps.DEVICE in str(refused):
        return "Load the module: modprobe tun."
    return "It needs a kernel with bridge, veth, tun and nf_tables (bridge, inet, nat)."


def _legacy(settings: NetSettings) -> list[str]:
    """Rules made by iptables-legacy live where nftables does not see them, and may drop what guests send."""
    try:
        tables = _LEGACY_TABLES.read_text().split()
    except FileNotFoundError:
        return []
    if "filter" not in tables:
        return []
    allow = " and ".join(f"`iptables-legacy -I FORWARD -{side} {settings.tag}-+ -j ACCEPT`" for side in "io")
    return [f"iptables-legacy filters here. If its FORWARD chain drops, guests have no way out: run {allow}."]
