"""Ranges, addresses, and what a network should be on a host."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map

from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import NetworkId, NicId
from innkeeper.model.instance import Wanted
from innkeeper.model.network import Network
from innkeeper.model.plans import Why
from innkeeper.plan.network import default_network, network_wanted, pick_address, pick_mac
from tests.plan.clusters import (
    H1,
    H2,
    MINE,
    NET,
    a_cluster,
    a_host,
    a_network,
    draw,
    facts,
    launched,
    refused,
    standing,
    with_rows,
)

PRIVATE = [IPv4Network(c) for c in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
ROUTES = st.builds(
    lambda base, prefix: str(IPv4Network((base, prefix), strict=False)), st.integers(0, 2**32 - 1), st.integers(8, 32)
)


def made(*in_use: str, seed: object = 0) -> Network:
    network = default_network(MINE, in_use, draw(seed))
    assert isinstance(network, Network), network
    return network


@settings(deadline=None)
@given(in_use=st.lists(ROUTES, max_size=8), seed=st.integers())
def test_a_default_network_keeps_away_from_what_is_in_use(in_use: list[str], seed: int) -> None:
    answer = default_network(MINE, in_use, draw(seed))
    if isinstance(answer, Network):
        cidr = IPv4Network(answer.cidr)
        assert cidr.prefixlen == 20
        assert any(cidr.subnet_of(p) for p in PRIVATE)
        assert not any(cidr.overlaps(IPv4Network(c)) for c in in_use)
        assert answer.gateway == str(cidr[1])
        assert (answer.name, answer.project) == ("default", MINE)
    else:
        assert all(any(IPv4Network(c).overlaps(p) for c in in_use) for p in PRIVATE)


def test_networks_of_several_installations_differ() -> None:
    assert len({made(seed=n).cidr for n in range(20)}) > 15


@pytest.mark.parametrize(
    "in_use, space",
    [
        ((), "10.0.0.0/8"),
        (("0.0.0.0/0", "::/0", "fd00::/8"), "10.0.0.0/8"),
        (("0.0.0.0/1", "128.0.0.0/1"), "10.0.0.0/8"),  # how a VPN takes the default route
        (("10.0.0.0/8",), "172.16.0.0/12"),
        (("10.0.0.1/8",), "172.16.0.0/12"),  # an address with its prefix
        (("10.0.0.0/9", "10.128.0.0/9", "172.16.0.0/12"), "192.168.0.0/16"),
    ],
)
def test_which_space(in_use: tuple[str, ...], space: str) -> None:
    assert IPv4Network(made(*in_use).cidr).subnet_of(IPv4Network(space))


def test_the_last_free_range_is_found() -> None:
    free = IPv4Network("10.77.48.0/20")
    in_use = [str(c) for c in PRIVATE[0].address_exclude(free)] + ["172.16.0.0/12", "192.168.0.0/16"]
    assert made(*in_use).cidr == str(free)


def test_everything_in_use_is_refused() -> None:
    refusal = refused(default_network(MINE, [str(p) for p in PRIVATE], draw()))
    assert refusal.why is Why.NO_ROOM
    assert "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16" in refusal.reason
    assert refusal.hint


# --- addresses and MACs


@given(seed=st.integers(), gateway=st.integers(1, 14))
def test_an_address_is_of_the_network_and_nobodys(seed: int, gateway: int) -> None:
    cidr = IPv4Network("10.3.0.0/28")
    network = a_network(str(cidr), str(cidr[gateway]))
    held: Map[str, NicId] = Map((str(cidr[n]), NicId("nic")) for n in range(2, 12) if n != gateway)
    cluster = replace(a_cluster(network), addresses=Map({NET: held}))
    address = pick_address(cluster, network, draw(seed))
    assert address in {str(cidr[n]) for n in (1, 12, 13, 14) if n != gateway}


@pytest.mark.parametrize("cidr", ["10.3.0.4/32", "10.3.0.4/31"])
def test_a_range_without_room_for_anybody(cidr: str) -> None:
    refusal = refused(pick_address(a_cluster(), a_network(cidr, "10.3.0.4"), draw()))
    assert "all 0 are given out" in refusal.reason


@given(seed=st.integers())
def test_macs_are_local_and_free(seed: int) -> None:
    first = pick_mac(Cluster(), draw(seed))
    second = pick_mac(replace(Cluster(), macs=Map({first: NicId("nic")})), draw(seed))
    assert first != second
    for mac in (first, second):
        assert mac.startswith("52:54:00:")
        assert len(bytes.fromhex(mac.replace(":", ""))) == 6


# --- what a host should have of it


def test_ports_are_of_this_host_and_sorted() -> None:
    cluster = a_cluster(None, a_host(), a_host(H2, "h2", facts(memory_mib=16_200)))
    for number in range(6):
        cluster, _ = launched(cluster, f"web-{number}")
    here, there = network_wanted(cluster, H1, NET), network_wanted(cluster, H2, NET)
    assert here is not None
    assert there is not None
    nics = [p.nic for p in here.ports]
    assert nics == sorted(nics)
    assert len(here.ports) + len(there.ports) == 6
    assert min(len(here.ports), len(there.ports)) > 0
    for port in here.ports:
        row, nic = cluster.instances[port.instance], cluster.nics[port.nic]
        assert row.host == H1
        assert (port.hostname, port.uid_slot) == (row.name, row.uid_slot)
        assert (port.mac, port.addresses) == (nic.mac, nic.addresses)


@pytest.mark.parametrize("wanted", Wanted)
def test_only_what_is_on_its_way_out_has_no_port(wanted: Wanted) -> None:
    cluster, _ = standing(wanted=wanted)
    projected = network_wanted(cluster, H1, NET)
    assert projected is not None
    assert len(projected.ports) == (0 if wanted is Wanted.ABSENT else 1)


def test_generation_is_the_pictures_revision() -> None:
    cluster, web = standing()
    later = with_rows(cluster, replace(web, name="www"))
    one, other = network_wanted(cluster, H1, NET), network_wanted(later, H1, NET)
    assert one is not None
    assert other is not None
    assert (one.generation, other.generation) == (cluster.revision, later.revision)
    assert one.generation < other.generation


def test_of_a_network_or_instance_that_is_gone_nothing_is_wanted() -> None:
    cluster, web = standing()
    assert network_wanted(cluster, H1, NetworkId("net-gone")) is None
    orphaned = replace(cluster, instances=cluster.instances.delete(web.id))
    projected = network_wanted(orphaned, H1, NET)
    assert projected is not None
    assert projected.ports == ()
