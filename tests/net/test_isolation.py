"""What must not pass: guests' lies, strangers, other networks and installations, others' packets through our host."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable

import pytest

from innkeeper.drivers.linuxnet import names
from innkeeper.drivers.linuxnet.kernel import requests, switches
from tests.net.look import nft
from tests.net.protocols import BROADCAST, arp, ethernet, router_advertisement, udp
from tests.net.world import HOST, OUTSIDE, WAIT_S, Guest, Node, World, ask, echo, network, port, wanted

pytestmark = pytest.mark.net

ME, NEIGHBOUR, STRANGER = port(1, "web"), port(2, "db"), port(3, "none")
MAC, IP = ME.mac, ME.addresses[0]
THEIR_IP = NEIGHBOUR.addresses[0]

LIES: dict[str, bytes] = {
    "another's hardware address": arp(STRANGER.mac, IP, THEIR_IP),
    "the gateway's address by ARP": arp(MAC, "10.9.0.1", THEIR_IP, operation=2),
    "a neighbour's address by ARP": arp(MAC, THEIR_IP, THEIR_IP),
    "another's hardware address inside ARP": arp(MAC, IP, THEIR_IP, sender=STRANGER.mac),
    "another's source address": udp(MAC, BROADCAST, (STRANGER.addresses[0], "255.255.255.255"), (9, 9)),
    "a source address from outside": udp(MAC, BROADCAST, ("8.8.8.8", "255.255.255.255"), (9, 9)),
    "a multicast with another's address": udp(MAC, "01:00:5e:00:00:fb", (THEIR_IP, "224.0.0.251"), (5353, 5353)),
    "a DHCP server's offer": udp(MAC, BROADCAST, (IP, "255.255.255.255"), (67, 68)),
    "a router advertisement": router_advertisement(MAC),
    "a VLAN tag": ethernet(MAC, BROADCAST, 0x8100, b"\x00\x05\x08\x00" + bytes(46)),
    "a spanning tree": ethernet(MAC, "01:80:c2:00:00:00", 0x0026, b"\x42\x42\x03" + bytes(43)),
    "a login to a wired network": ethernet(MAC, BROADCAST, 0x888E, bytes(46)),
}


async def arrives(sender: Guest, receiver: Guest, frame: bytes) -> bool:
    """Whether the receiver is given this frame. What comes after it tells that it is not merely late."""
    receiver.seen.clear()
    sender.inject(frame)
    honest = udp(MAC, BROADCAST, (IP, "10.9.0.255"), (9, 9), b"after")
    sender.inject(honest)
    async with asyncio.timeout(WAIT_S):
        while honest not in receiver.seen:
            await asyncio.sleep(0.01)
    return frame in receiver.seen


async def pair(world: World) -> tuple[Guest, Guest, Callable[[], object]]:
    net, lan = world.net(), network()

    async def converge() -> None:
        await net.converge(wanted(lan, ME, NEIGHBOUR))

    await converge()
    return await world.guest(net, lan, ME), await world.guest(net, lan, NEIGHBOUR), converge


async def test_guests_cannot_lie(world: World) -> None:
    one, two, _ = await pair(world)
    passed = [name for name, frame in LIES.items() if await arrives(one, two, frame)]
    assert passed == []


async def test_it_is_the_guard_that_stops_them(world: World) -> None:
    """Without it all of them pass, so the test above could fail; the next pass puts it back."""
    one, two, converge = await pair(world)
    nft(names.namespace(world.tag, network().id), f"delete table bridge {world.tag}\n")
    stopped = [name for name, frame in LIES.items() if not await arrives(one, two, frame)]
    assert stopped == []
    await converge()  # type: ignore[misc]
    passed = [name for name, frame in LIES.items() if await arrives(one, two, frame)]
    assert passed == []


async def test_nobody_outside_reaches_a_guest_uninvited(world: World) -> None:
    net, lan = world.net(), network()
    await net.converge(wanted(lan, ME, NEIGHBOUR))
    one, two = await world.guest(net, lan, ME), await world.guest(net, lan, NEIGHBOUR)
    one.settle()
    two.settle()
    uplink = await transit_of(world, world.tag)
    world.outside.default_route(HOST, "wan")
    route_through(world.host, "10.9.0.0/24", uplink)
    with echo(one, "0.0.0.0", 7000) as asked:
        assert ask(two, IP, 7000) == b"hello"
        assert ask(world.outside, IP, 7000, wait_s=1) is None
        assert ask(world.outside, uplink, 7000, wait_s=1) is None
        assert ask(world.host, IP, 7000, wait_s=1) is None
    assert set(asked) == {THEIR_IP}


async def test_a_guest_reaches_nothing_of_the_host(world: World) -> None:
    net, lan = world.net(), network()
    await net.converge(wanted(lan, ME))
    one = await world.guest(net, lan, ME)
    one.settle()
    uplink = await transit_of(world, world.tag)
    hosts_end = uplink.rsplit(".", 1)[0] + f".{int(uplink.rsplit('.', 1)[1]) - 1}"
    with echo(world.host, "0.0.0.0", 7000) as asked:
        assert ask(one, HOST, 7000, wait_s=1) is None
        assert ask(one, hosts_end, 7000, wait_s=1) is None
        assert ask(world.outside, HOST, 7000) == b"hello"
    assert asked == [OUTSIDE]


async def test_link_local_ranges_are_out_of_reach(world: World) -> None:
    """The host may itself be a guest of a cloud, whose metadata service would give its secrets to whoever asks."""
    net, lan = world.net(), network()
    await net.converge(wanted(lan, ME))
    one = await world.guest(net, lan, ME)
    one.settle()
    world.outside.address("lo", "169.254.169.254/32")
    with echo(world.outside, "169.254.169.254", 80) as asked:
        assert ask(world.host, "169.254.169.254", 80) == b"hello"
        assert ask(one, "169.254.169.254", 80, wait_s=1) is None
    assert asked == [HOST]


async def test_networks_of_the_same_range_do_not_cross(world: World) -> None:
    net, red, blue = world.net(), network(1), network(2)
    await net.converge(wanted(red, ME))
    await net.converge(wanted(blue, ME, NEIGHBOUR))
    in_red, in_blue = await world.guest(net, red, ME), await world.guest(net, blue, ME)
    peer = await world.guest(net, blue, NEIGHBOUR)
    for guest in (in_red, in_blue, peer):
        guest.settle()
    with echo(peer, "0.0.0.0", 7000) as asked:
        assert ask(in_blue, THEIR_IP, 7000) == b"hello"
        assert ask(in_red, THEIR_IP, 7000, wait_s=1) is None
    assert len(asked) == 1
    with echo(world.outside, OUTSIDE, 7000) as asked:
        assert ask(in_red, OUTSIDE, 7000) == ask(in_blue, OUTSIDE, 7000) == b"hello"


async def test_installations_do_not_meet_and_do_not_need_each_other(world: World) -> None:
    first, second = world.net(), world.net(world.tag[:5] + ("z" if world.tag[5] != "z" else "y"))
    here = network(1)
    there = network(1, cidr="10.8.0.0/24", gateway="10.8.0.1")
    other = port(2, "db", "10.8.0.10")
    await first.converge(wanted(here, ME))
    await second.converge(wanted(there, other))
    one, two = await world.guest(first, here, ME), await world.guest(second, there, other)
    one.settle()
    two.settle("10.8.0.1")
    uplink = await transit_of(world, second._settings.tag)
    # Even if the host knew the way.
    route_through(world.host, "10.8.0.0/24", uplink)
    with echo(two, "0.0.0.0", 7000) as asked:
        assert ask(one, "10.8.0.10", 7000, wait_s=1) is None
        assert ask(one, uplink, 7000, wait_s=1) is None
    assert asked == []
    await first.remove(here.id)
    await second.converge(wanted(there, other))
    with echo(world.outside, OUTSIDE, 7000):
        assert ask(two, OUTSIDE, 7000) == b"hello"
    assert await second.present() == (there.id,)


async def test_the_host_does_not_become_a_router_for_others(world: World) -> None:
    inner = Node(f"{world.tag}inner")
    try:
        world.host.rtnl.send([requests.add_veth("lan", "lan", inner.space.fd, 1500)])
        world.host.address("lan", "172.30.0.1/24")
        inner.address("lan", "172.30.0.2/24")
        inner.default_route("172.30.0.1", "lan")
        world.outside.default_route(HOST, "wan")
        net, lan = world.net(), network()
        with echo(inner, "0.0.0.0", 7000) as asked:
            await net.converge(wanted(lan, ME))
            assert world.host.switch("ipv4/conf/wan/forwarding") == "1"
            assert ask(world.outside, "172.30.0.2", 7000, wait_s=1) is None
            world.host.nft("flush ruleset")
            await net.converge(wanted(lan, ME))
            assert ask(world.outside, "172.30.0.2", 7000, wait_s=1) is None
            assert asked == []
            # An administrator who wants a router has one, and our guests go on.
            world.host.run(lambda: switches.ensure("ipv4/ip_forward", "1"))
            await net.converge(wanted(lan, ME))
            assert ask(world.outside, "172.30.0.2", 7000) == b"hello"
        await net.remove(lan.id)
        assert world.host.switch("ipv4/conf/wan/forwarding") == "1"
    finally:
        inner.close()


async def transit_of(world: World, tag: str) -> str:
    """The guests' end of the only uplink of an installation."""
    for link in world.host.rtnl.links():
        if link.name.startswith(f"{tag}-"):
            for address in world.host.rtnl.addresses(link.index):
                return str(address.interface.ip + 1)
    raise AssertionError(f"no uplink of {tag}")


def route_through(node: Node, target: str, gateway: str) -> None:
    subprocess.run(["ip", "-n", node.name, "route", "add", target, "via", gateway], check=True, timeout=10)
