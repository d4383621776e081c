"""Whatever somebody does to a network, the next pass mends it, by the same code."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from innkeeper.drivers.linuxnet import names
from innkeeper.drivers.linuxnet.kernel import namespaces, switches
from tests.net.look import DB, LAN, WEB, inside, ip, nft, services, standing, works
from tests.net.world import World, network, wanted

pytestmark = pytest.mark.net

FOREIGN: dict[str, Callable[[World], object]] = {
    "deletes the bridge": lambda w: ip(inside(w), "link", "del", "guests"),
    "sets the bridge down": lambda w: ip(inside(w), "link", "set", "guests", "down"),
    "readdresses the gateway": lambda w: (
        ip(inside(w), "addr", "flush", "dev", "guests"),
        ip(inside(w), "addr", "add", "10.9.0.77/24", "dev", "guests"),
    ),
    "deletes the uplink inside": lambda w: ip(inside(w), "link", "del", "out"),
    "deletes the uplink outside": lambda w: ip(w.host.name, "link", "del", names.host_end(w.tag, LAN.id)),
    "sets the uplink down": lambda w: ip(w.host.name, "link", "set", names.host_end(w.tag, LAN.id), "down"),
    "readdresses the uplink": lambda w: ip(w.host.name, "addr", "flush", "dev", names.host_end(w.tag, LAN.id)),
    "deletes the way out": lambda w: ip(inside(w), "route", "del", "default"),
    "takes a tap off the bridge": lambda w: ip(inside(w), "link", "set", names.tap(WEB.nic), "nomaster"),
    "sets a tap down": lambda w: ip(inside(w), "link", "set", names.tap(WEB.nic), "down"),
    "adds a port": lambda w: (
        ip(inside(w), "link", "add", "evil", "type", "veth", "peer", "evil2"),
        ip(inside(w), "link", "set", "evil", "master", "guests"),
    ),
    "flushes the rules inside": lambda w: nft(inside(w), "flush ruleset"),
    "drops everything inside": lambda w: nft(
        inside(w), "table inet x { chain y { type filter hook forward priority 0; policy drop; }\n}"
    ),
    "flushes the host's rules": lambda w: nft(w.host.name, "flush ruleset"),
    "stops forwarding inside": lambda w: namespaces_switch(inside(w), "ipv4/ip_forward", "0"),
    "stops forwarding outside": lambda w: namespaces_switch(w.host.name, "ipv4/conf/wan/forwarding", "0"),
    "kills all services": lambda w: kill_services(w),
    "deletes pid files": lambda w: delete_all(w, "pid"),
    "deletes all files": lambda w: subprocess.run(["rm", "-rf", str(w.folder / w.tag)], check=True, timeout=10),
    "edits the names": lambda w: edit_names(w),
    "takes the name away": lambda w: subprocess.run(["ip", "netns", "del", inside(w)], check=True, timeout=10),
}


def delete_all(world: World, name: str) -> None:
    for path in (world.folder / world.tag).rglob(name):
        path.unlink()


def edit_names(world: World) -> None:
    for path in (world.folder / world.tag).rglob("names"):
        path.write_text("10.9.0.99 web.lab.internal\n")
    delete_all(world, "told")


def kill_services(world: World) -> None:
    for pid in services(world):
        end(pid)


def end(pid: int) -> None:
    handle = os.pidfd_open(pid)
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    assert select.select([handle], [], [], 5)[0]
    os.close(handle)


def namespaces_switch(name: str, switch: str, value: str) -> None:
    space = namespaces.named(name)
    with space.entered():
        switches.ensure(switch, value)
    space.close()


@pytest.mark.parametrize("restarted", [False, True], ids=["same daemon", "new daemon"])
@pytest.mark.parametrize("hand", FOREIGN)
async def test_what_a_foreign_hand_did_is_mended(world: World, hand: str, restarted: bool) -> None:
    net = world.net()
    await net.converge(wanted(LAN, WEB))
    await net.converge(wanted(LAN, WEB))
    guest = await world.guest(net, LAN, WEB)
    guest.settle()
    before = standing(world)
    FOREIGN[hand](world)
    mending = world.net() if restarted else net
    await mending.converge(wanted(LAN, WEB))
    after = standing(world)
    if hand == "adds a port":
        after["links"] = after["links"].replace("evil\nevil2\n", "")
    assert after == before
    assert works(world, guest)


async def test_a_tap_that_was_deleted_is_made_again(world: World) -> None:
    net = world.net()
    await net.converge(wanted(LAN, WEB))
    before = standing(world)
    ip(inside(world), "link", "del", names.tap(WEB.nic))
    await net.converge(wanted(LAN, WEB))
    assert standing(world) == before
    guest = await world.guest(net, LAN, WEB)
    guest.settle()
    assert works(world, guest)


async def test_a_daemon_with_thousands_of_descriptors(world: World) -> None:
    """libnftables would end a process that has more than 1024."""
    many = [os.open("/dev/null", os.O_RDONLY) for _ in range(1500)]
    try:
        net = world.net()
        await net.converge(wanted(LAN, WEB))
        await net.converge(wanted(LAN, WEB, DB))
        await net.converge(wanted(network(2), WEB))
        guest = await world.guest(net, LAN, WEB)
        guest.settle()
        assert works(world, guest)
    finally:
        for fd in many:
            os.close(fd)


async def test_the_process_with_libnftables_may_die(world: World) -> None:
    net = world.net()
    await net.converge(wanted(LAN, WEB))
    before = standing(world)
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    ours = [int(pid) for each in children for pid in each.read_text().split()]
    killed = [pid for pid in ours if b"nft_process" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert killed
    for pid in killed:
        end(pid)
    nft(inside(world), "flush ruleset")
    await net.converge(wanted(LAN, WEB))
    assert standing(world) == before
