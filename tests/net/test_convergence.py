"""A network becomes what is wanted from whatever it is, and nothing of it stays when it goes."""

from __future__ import annotations

import asyncio
import os

import pytest

from innkeeper.drivers.linuxnet import names
from innkeeper.drivers.linuxnet.hand import LinuxNet, NetFailed
from innkeeper.drivers.linuxnet.kernel import namespaces
from tests.net.look import DB, LAN, WEB, everything, inside, ip, numbers, services, standing, works
from tests.net.protocols import dhcp, resolve
from tests.net.world import OUTSIDE, World, ask, echo, network, port, wanted

pytestmark = pytest.mark.net

# --- becoming


async def test_the_second_pass_changes_nothing(world: World) -> None:
    net = world.net()
    await net.converge(wanted(LAN, WEB, DB))
    before, processes = standing(world), services(world)
    made = numbers(world)
    await net.converge(wanted(LAN, WEB, DB))
    fresh = world.net()
    await fresh.converge(wanted(LAN, WEB, DB))
    assert standing(world) == before
    assert services(world) == processes
    assert numbers(world) == made


async def test_ports_come_and_go(world: World) -> None:
    net = world.net()
    await net.converge(wanted(LAN, WEB))
    one = standing(world)
    await net.converge(wanted(LAN, WEB, DB))
    assert standing(world) != one
    guest = await world.guest(net, LAN, DB)
    guest.up("eth0")
    assert dhcp(guest, DB.mac) is not None
    await net.converge(wanted(LAN, WEB))
    assert standing(world) == one
    with pytest.raises(NetFailed, match="has no tap"):
        await net.open_tap(LAN.id, DB.nic)


async def test_a_network_changes_under_its_guests(world: World) -> None:
    net = world.net()
    await net.converge(wanted(LAN, WEB))
    moved = network(cidr="10.9.0.0/20", gateway="10.9.0.2", domain="new.internal", mtu=1400)
    await net.converge(wanted(moved, WEB))
    guest = await world.guest(net, LAN, WEB)
    guest.settle("10.9.0.2", 20)
    assert resolve(guest, "web.new.internal", "10.9.0.2") == list(WEB.addresses)
    with echo(world.outside, OUTSIDE, 7000):
        assert ask(guest, OUTSIDE, 7000) == b"hello"
    assert "10.9.0.1/" not in ip(inside(world), "-o", "addr")
    await net.converge(wanted(network(nat=False), WEB))
    assert "out" not in standing(world)["links"].split()


async def test_a_restarted_daemon_finds_what_stands(world: World) -> None:
    await world.net().converge(wanted(LAN, WEB))
    await world.net().converge(wanted(network(2), port(5)))
    processes = services(world)
    again = world.net()
    assert await again.present() == (LAN.id, network(2).id)
    await again.converge(wanted(LAN, WEB, DB))
    guest = await world.guest(again, network(2), port(5))
    guest.settle()
    with echo(world.outside, OUTSIDE, 7000):
        assert ask(guest, OUTSIDE, 7000) == b"hello"
    assert services(world) == processes


async def test_many_at_once(world: World) -> None:
    net = world.net()
    async with asyncio.TaskGroup() as group:
        for number in range(1, 6):
            group.create_task(net.converge(wanted(network(number), WEB)))
    assert len(await net.present()) == 5
    uplinks = [line for line in ip(world.host.name, "-o", "-4", "addr").splitlines() if world.tag in line]
    assert len({line.split()[3] for line in uplinks}) == 5
    async with asyncio.TaskGroup() as group:
        for number in range(1, 6):
            group.create_task(net.remove(network(number).id))
    assert await net.present() == ()


# --- going


async def test_nothing_remains(world: World) -> None:
    before = everything(world)
    net = world.net()
    await net.converge(wanted(LAN, WEB, DB))
    await net.converge(wanted(network(2), WEB))
    held = await world.guest(net, LAN, WEB)  # a QEMU that still holds its tap hinders nobody
    await net.remove(LAN.id)
    assert await net.present() == (network(2).id,)
    await net.remove(network(2).id)
    await net.remove(network(2).id)
    assert everything(world) == before
    assert await net.present() == ()
    assert held.port == WEB


async def test_what_another_daemon_left_is_removed(world: World) -> None:
    before = everything(world)
    await world.net().converge(wanted(LAN, WEB))
    again = world.net()
    for each in await again.present():
        await again.remove(each)
    assert everything(world) == before


async def test_half_made_names_are_present_and_removed(world: World) -> None:
    before = everything(world)
    (namespaces.NAMED / inside(world)).touch()
    net = world.net()
    assert await net.present() == (LAN.id,)
    await net.remove(LAN.id)
    assert everything(world) == before


# --- ranges


async def test_the_hosts_ranges_are_told(world: World) -> None:
    world.host.address("lo", "10.77.0.1/16")
    world.resolv_conf.write_text("nameserver 10.255.255.53\nnameserver fe80::1%eth0\n")
    used = await world.net().ranges_in_use()
    assert {"192.0.2.0/24", "10.77.0.0/16", "10.255.255.53/32", "fe80::1/128", "198.18.0.0/16"} <= set(used)


async def test_a_transit_range_that_somebody_takes_is_given_up(world: World) -> None:
    net = world.net()
    await net.converge(wanted(LAN, WEB))
    end = names.host_end(world.tag, LAN.id)
    taken = ip(world.host.name, "-o", "-4", "addr", "show", "dev", end).split()[3]
    address = taken.split("/")[0].rsplit(".", 1)
    world.host.address("lo", f"{address[0]}.{int(address[1]) + 1}/29")
    await net.converge(wanted(LAN, WEB))
    assert taken not in ip(world.host.name, "-o", "-4", "addr", "show", "dev", end)
    guest = await world.guest(net, LAN, WEB)
    guest.settle()
    assert works(world, guest)


async def test_when_every_transit_is_taken_it_is_said(world: World) -> None:
    world.host.address("lo", "198.18.0.1/15")
    with pytest.raises(NetFailed, match=r"lan1 gets no way out: every /30 of 198.18.0.0/16 overlaps"):
        await world.net().converge(wanted(LAN, WEB))


# --- refusing

WRONG = {
    "is used 2 times": wanted(LAN, WEB, port(3, "x", WEB.addresses[0])),
    "is no host address of": wanted(LAN, port(3, "x", "10.10.0.1")),
    "is the gateway's": wanted(LAN, port(3, "x", LAN.gateway)),
    "carry IPv4 only": wanted(LAN, port(3, "x", "fd00::3")),
    "is no host name": wanted(LAN, port(3, "x\n10.9.0.1 evil")),
    "is no domain": wanted(network(domain="a b")),
    "is no range for a network": wanted(network(cidr="10.9.0.0/30")),
    "has host bits set": wanted(network(cidr="10.9.0.1/24")),
}


@pytest.mark.parametrize("words", WRONG)
async def test_what_cannot_be_is_refused_and_leaves_nothing(world: World, words: str) -> None:
    before = everything(world)
    with pytest.raises(NetFailed, match=words):
        await world.net().converge(WRONG[words])
    assert everything(world) == before


async def test_a_folder_that_dnsmasq_cannot_reach_is_named(world: World) -> None:
    world.folder.chmod(0o700)
    with pytest.raises(NetFailed, match=rf"cannot pass through {world.folder}: run `chmod o\+x"):
        await world.net().converge(wanted(LAN, WEB))
    world.folder.chmod(0o755)


async def test_a_tap_that_is_held_is_not_given_twice(world: World) -> None:
    net = world.net()
    await net.converge(wanted(LAN, WEB))
    fd = await net.open_tap(LAN.id, WEB.nic)
    with pytest.raises(NetFailed, match="busy"):
        await net.open_tap(LAN.id, WEB.nic)
    os.close(fd)
    os.close(await net.open_tap(LAN.id, WEB.nic))


async def test_the_host_may_be_gone(world: World) -> None:
    settings = world.settings()
    net = LinuxNet(type(settings)(tag=settings.tag, state_dir=settings.state_dir, root_netns="ikno-such"))
    with pytest.raises(NetFailed, match="ikno-such"):
        await net.converge(wanted(LAN, WEB))
    await net.close()
