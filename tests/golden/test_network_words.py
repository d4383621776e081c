"""Which rules and which files a network becomes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from innkeeper.drivers.linuxnet import render
from innkeeper.drivers.linuxnet.host import foreign, ranges
from innkeeper.drivers.linuxnet.render import Uplink, User
from innkeeper.model.ids import InstanceId, NetworkId, NicId, ProjectId
from innkeeper.model.network import Network, NetworkWanted, Port
from tests.golden.compare import same_as_golden

TAG = "ik3fa9"
USER = User(name="dnsmasq", group="nogroup", gid=65534)
FOLDER = Path("/run/innkeeper/ik3fa9/networks/net-3f09c2d41b7a")
NETWORK = Network(
    id=NetworkId("net-3f09c2d41b7a"),
    project=ProjectId("p-000000000001"),
    name="default",
    cidr="10.20.0.0/22",
    gateway="10.20.0.1",
    domain="inn.internal",
)
WEB = Port(
    nic=NicId("nic-00000000000a"),
    instance=InstanceId("i-00000000000a"),
    hostname="web",
    mac="52:54:00:AA:00:01",
    addresses=("10.20.0.10",),
    uid_slot=1,
)
DB = replace(
    WEB, nic=NicId("nic-00000000000b"), hostname="db", mac="52:54:00:aa:00:02", addresses=("10.20.1.11", "10.20.1.12")
)
WANTED = NetworkWanted(network=NETWORK, generation=3, ports=(DB, WEB))
UPLINK = Uplink(
    interface="ik3fa9-0badcafe", host=IPv4Interface("198.18.4.1/30"), network=IPv4Interface("198.18.4.2/30")
)


def test_rules_of_a_network() -> None:
    same_as_golden("network/inside.nft", render.inside(TAG, WANTED, "198.18.0.0/16").text())


def test_rules_of_a_network_without_a_way_out() -> None:
    closed = replace(WANTED, network=replace(NETWORK, nat=False), ports=())
    same_as_golden("network/inside-closed.nft", render.inside(TAG, closed, "198.18.0.0/16").text())


def test_rules_of_the_host() -> None:
    same_as_golden("network/outside.nft", render.outside(TAG, [UPLINK], ["eth0"]).text())


def test_one_more_port_is_a_small_difference() -> None:
    before = render.inside(TAG, replace(WANTED, ports=(WEB,)), "198.18.0.0/16")
    after = render.inside(TAG, WANTED, "198.18.0.0/16")
    same_as_golden("network/one-more.nft", after.since(before))
    same_as_golden("network/one-less.nft", before.since(after))


def test_files_of_dnsmasq() -> None:
    files = render.guest_service(WANTED, "198.18.4.1", FOLDER, USER)
    for name, text in {"dnsmasq.conf": files.config, **files.live}.items():
        same_as_golden(f"network/{name}", text)
    assert render.leases(files.live["hosts"]) == {
        ("52:54:00:aa:00:01", "10.20.0.10"),
        ("52:54:00:aa:00:02", "10.20.1.11"),
    }


def test_files_of_dnsmasq_without_a_way_out() -> None:
    closed = replace(WANTED, network=replace(NETWORK, nat=False))
    same_as_golden("network/dnsmasq-closed.conf", render.guest_service(closed, None, FOLDER, USER).config)


def test_files_of_the_relay() -> None:
    folder = FOLDER.parents[1] / "relay"
    same_as_golden("network/relay.conf", render.relay_service(TAG, Path("/etc/resolv.conf"), folder, USER).config)


@pytest.mark.parametrize(
    "cidr, zones",
    [
        ("10.0.0.0/8", ["10"]),
        ("10.20.0.0/15", ["20.10", "21.10"]),
        ("10.20.0.0/16", ["20.10"]),
        ("10.20.2.0/23", ["2.20.10", "3.20.10"]),
        ("10.20.2.128/25", ["2.20.10"]),
    ],
)
def test_reverse_questions_stay_in_the_network(cidr: str, zones: list[str]) -> None:
    config = render.guest_service(replace(WANTED, network=replace(NETWORK, cidr=cidr)), None, FOLDER, USER).config
    assert [line for line in config.splitlines() if "arpa" in line] == [
        f"local=/{zone}.in-addr.arpa/" for zone in zones
    ]


# --- others' firewalls, as nft lists them


def listed(*rules: dict[str, object]) -> list[dict[str, object]]:
    place = {"family": "ip", "table": "filter", "chain": "FORWARD"}
    return [{"rule": {**place, "handle": number, **rule}} for number, rule in enumerate(rules, 5)]


FORWARD = foreign.Chain(family="ip", table="filter", name="FORWARD", hook="forward", policy="drop")
OURS = {"comment": "innkeeper ik3fa9", "expr": [{"accept": None}]}
XT = {"expr": [{"xt": {"type": "target", "name": "REJECT"}}]}


def test_what_is_said_to_a_chain_that_drops() -> None:
    said = foreign.correction(TAG, FORWARD, [], wanted=True)
    same_as_golden("network/foreign.nft", said)


@pytest.mark.parametrize(
    "rules, wanted, said",
    [
        ([OURS, OURS], True, ""),
        ([], False, ""),
        ([OURS], False, "delete rule ip filter FORWARD handle 5\n"),
        ([XT, OURS, OURS, OURS], False, "".join(f"delete rule ip filter FORWARD handle {n}\n" for n in (6, 7, 8))),
    ],
)
def test_corrections(rules: list[dict[str, object]], wanted: bool, said: str) -> None:
    assert foreign.correction(TAG, FORWARD, listed(*rules), wanted) == said


@pytest.mark.parametrize(
    "rules, stops",
    [
        ([], False),
        ([{"expr": [{"match": {}}, {"counter": {}}, {"accept": None}]}], False),
        ([OURS], False),
        ([XT], True),
        ([{"expr": [{"jump": {"target": "elsewhere"}}]}], True),
        ([{"expr": [{"reject": None}]}], True),
    ],
)
def test_which_chains_may_stop_guests(rules: list[dict[str, object]], stops: bool) -> None:
    assert foreign.stops(TAG, replace(FORWARD, policy="accept"), listed(*rules)) is stops
    assert foreign.stops(TAG, FORWARD, listed(*rules))


def test_our_own_and_other_installations_chains_are_not_foreign() -> None:
    def chain(**changes: str) -> dict[str, dict[str, str]]:
        return {"chain": {"family": "inet", "table": "filter", "name": "forward", "hook": "forward"} | changes}

    chains = [chain(), chain(table=TAG), chain(table="ikzzzz"), chain(hook="output"), chain(family="bridge")]
    assert len(foreign.base_chains(chains)) == 1


# --- ranges


def test_name_servers_are_read_as_the_resolver_library_reads_them() -> None:
    text = "# nameserver 1.1.1.1\nnameserver 10.255.255.53\nsearch x\n nameserver fe80::1%eth0 \nnameserver nonsense\n"
    assert ranges.name_servers(text) == ("10.255.255.53", "fe80::1")


def test_a_free_transit_is_found_and_a_full_range_is_said() -> None:
    pool = "198.18.0.0/29"
    first, second = IPv4Interface("198.18.0.1/30"), IPv4Interface("198.18.0.5/30")
    assert ranges.choose_transit(pool, 0, []) == first
    assert ranges.choose_transit(pool, 7, []) == second
    assert ranges.choose_transit(pool, 0, [first.network]) == second
    assert ranges.choose_transit(pool, 0, [IPv4Interface("198.18.0.0/15").network]) is None
    assert ranges.is_transit(pool, first, [second.network])
    assert not ranges.is_transit(pool, first, [first.network])
    assert not ranges.is_transit(pool, IPv4Interface("198.18.0.2/30"), [])
