"""What guests of a network get: an address, names, each other, and a way out."""

from __future__ import annotations

import socket

import pytest

from tests.net.protocols import dhcp, name_server, resolve
from tests.net.world import OUTSIDE, World, ask, connects, echo, network, port, wanted

pytestmark = pytest.mark.net


async def test_dhcp_gives_the_planned_address_and_all_a_guest_needs(world: World) -> None:
    net, lan, web = world.net(), network(mtu=1400), port(1, "web")
    await net.converge(wanted(lan, web))
    guest = await world.guest(net, lan, web)
    guest.up("eth0")
    given = dhcp(guest, web.mac)
    assert given is not None
    assert socket.inet_ntoa(given[0]) == web.addresses[0]
    assert socket.inet_ntoa(given[1]) == "255.255.255.0"
    assert socket.inet_ntoa(given[3]) == socket.inet_ntoa(given[6]) == lan.gateway
    assert (given[12], given[15], int.from_bytes(given[26], "big")) == (b"web", b"lab.internal", 1400)


async def test_guests_find_each_other_by_name_and_reach_each_other(world: World) -> None:
    net, lan, web, db = world.net(), network(), port(1, "web"), port(2, "db")
    await net.converge(wanted(lan, web, db))
    one, two = await world.guest(net, lan, web), await world.guest(net, lan, db)
    one.settle()
    two.settle()
    assert resolve(one, "db", lan.gateway) == list(db.addresses)
    assert resolve(two, "web.lab.internal", lan.gateway) == list(web.addresses)
    assert resolve(one, "nobody.lab.internal", lan.gateway) == []
    with echo(two, "0.0.0.0", 7000) as asked:
        assert ask(one, db.addresses[0], 7000) == b"hello"
    assert asked == [web.addresses[0]]


async def test_a_guest_reaches_the_outside_under_the_hosts_address(world: World) -> None:
    net, lan, web = world.net(), network(), port(1)
    await net.converge(wanted(lan, web))
    guest = await world.guest(net, lan, web)
    guest.settle()
    with echo(world.outside, OUTSIDE, 7000) as asked:
        assert ask(guest, OUTSIDE, 7000) == b"hello"
    assert asked == ["192.0.2.1"]
    with echo(world.outside, OUTSIDE, 7001, socket.SOCK_STREAM):
        assert connects(guest, OUTSIDE, 7001, 5)


async def test_names_of_the_outside_are_asked_of_the_hosts_resolver(world: World) -> None:
    net, lan, web = world.net(), network(), port(1)
    with name_server(world.outside, OUTSIDE, "203.0.113.80") as questions:
        await net.converge(wanted(lan, web))
        guest = await world.guest(net, lan, web)
        guest.settle()
        assert resolve(guest, "www.example.org", lan.gateway) == ["203.0.113.80"]
    assert questions


async def test_a_second_network_resolves_as_the_first_does(world: World) -> None:
    net, first, second, web = world.net(), network(1), network(2, nat=True), port(1)
    with name_server(world.outside, OUTSIDE, "203.0.113.80"):
        await net.converge(wanted(first))
        await net.converge(wanted(second, web))
        guest = await world.guest(net, second, web)
        guest.settle()
        assert resolve(guest, "www.example.org", second.gateway) == ["203.0.113.80"]


async def test_a_resolver_on_loopback_serves_guests_too(world: World) -> None:
    world.resolv_conf.write_text("nameserver 127.0.0.53\noptions edns0 trust-ad\n")
    net, lan, web = world.net(), network(), port(1)
    with name_server(world.host, "127.0.0.53", "203.0.113.81"):
        await net.converge(wanted(lan, web))
        guest = await world.guest(net, lan, web)
        guest.settle()
        assert resolve(guest, "www.example.org", lan.gateway) == ["203.0.113.81"]


async def test_a_name_server_of_the_hosts_own_is_in_nobodys_way(world: World) -> None:
    world.resolv_conf.write_text("nameserver 127.0.0.1\n")
    net, lan, web = world.net(), network(), port(1)
    with echo(world.host, "0.0.0.0", 53, socket.SOCK_STREAM), name_server(world.host, "0.0.0.0", "203.0.113.83"):
        await net.converge(wanted(lan, web))
        guest = await world.guest(net, lan, web)
        guest.settle()
        assert resolve(guest, "www.example.org", lan.gateway) == ["203.0.113.83"]
        assert resolve(guest, "www.example.org", "192.0.2.1", 1) is None


async def test_a_host_without_a_resolver_still_has_networks(world: World) -> None:
    world.resolv_conf.unlink()
    net, lan, web, db = world.net(), network(), port(1), port(2, "db")
    await net.converge(wanted(lan, web, db))
    guest = await world.guest(net, lan, web)
    guest.settle()
    assert resolve(guest, "db", lan.gateway) == list(db.addresses)
    assert resolve(guest, "www.example.org", lan.gateway, 1) is None
    assert "198.18.0.0/16" in await net.ranges_in_use()


async def test_the_hosts_resolver_may_change(world: World) -> None:
    net, lan, web = world.net(), network(), port(1)
    await net.converge(wanted(lan, web))
    guest = await world.guest(net, lan, web)
    guest.settle()
    with name_server(world.host, "127.0.0.54", "203.0.113.82"):
        world.resolv_conf.write_text("nameserver 127.0.0.54\n")
        assert resolve(guest, "later.example.org", lan.gateway) == ["203.0.113.82"]


async def test_an_address_goes_to_the_next_card_at_once(world: World) -> None:
    net, lan, old, new = world.net(), network(), port(1, "old"), port(2, "new", "10.9.0.10")
    assert old.addresses == new.addresses
    await net.converge(wanted(lan, old))
    before = await world.guest(net, lan, old)
    before.up("eth0")
    assert dhcp(before, old.mac) is not None
    await net.converge(wanted(lan))
    await net.converge(wanted(lan, new))
    after = await world.guest(net, lan, new)
    after.up("eth0")
    given = dhcp(after, new.mac)
    assert given is not None
    assert socket.inet_ntoa(given[0]) == new.addresses[0]
    after.settle()
    assert resolve(after, "old", lan.gateway) == []


async def test_a_network_without_nat_has_no_way_out(world: World) -> None:
    net, lan, web, db = world.net(), network(nat=False), port(1), port(2, "db")
    await net.converge(wanted(lan, web, db))
    guest = await world.guest(net, lan, web)
    guest.up("eth0")
    given = dhcp(guest, web.mac)
    assert given is not None
    assert 3 not in given
    guest.settle()
    assert resolve(guest, "db", lan.gateway) == list(db.addresses)
    with echo(world.outside, OUTSIDE, 7000) as asked:
        assert ask(guest, OUTSIDE, 7000, wait_s=1) is None
    assert not asked


async def test_counters_are_the_guests(world: World) -> None:
    net, lan, web = world.net(), network(), port(1)
    await net.converge(wanted(lan, web))
    guest = await world.guest(net, lan, web)
    guest.settle()
    with echo(world.outside, OUTSIDE, 7000):
        assert ask(guest, OUTSIDE, 7000, b"x" * 1000) is not None
        for _ in range(3):
            ask(guest, OUTSIDE, 7000, b"x")
    counted = (await net.counters(lan.id))[web.nic]
    assert counted.sent_bytes > 1000
    assert counted.received_bytes > 1000
    assert counted.sent_packets >= 4
