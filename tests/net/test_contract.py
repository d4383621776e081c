"""The fake and the real one agree about everything that their users rely on."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from innkeeper.drivers.linuxnet.fake import FakeNet
from innkeeper.drivers.linuxnet.hand import LinuxNet, NetFailed
from innkeeper.drivers.linuxnet.kernel import namespaces, taps
from innkeeper.drivers.linuxnet.probe import probe
from innkeeper.drivers.linuxnet.settings import NetSettings
from innkeeper.model.ids import NetworkId, NicId
from tests.net.world import World, network, new_world, port, wanted

# Of <linux/if_tun.h>: what a tap is, and in which namespace.
TUNGETIFF, TUNGETDEVNETNS, IFF_VNET_HDR = 0x800454D2, 0x54E3, 0x4000

LAN, WEB, DB = network(), port(1), port(2)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.net)])
async def net(request: pytest.FixtureRequest) -> AsyncIterator[FakeNet | LinuxNet]:
    if request.param == "fake":
        yield FakeNet()
    else:
        async with new_world() as world:
            yield world.net()


async def test_what_is_wanted_stands(net: FakeNet | LinuxNet) -> None:
    assert await net.present() == ()
    await net.converge(wanted(LAN, WEB, DB))
    await net.converge(wanted(LAN, WEB, DB))
    assert await net.present() == (LAN.id,)
    assert (await net.counters(LAN.id)).keys() == {WEB.nic, DB.nic}
    fd = await net.open_tap(LAN.id, WEB.nic)
    os.close(fd)
    await net.converge(wanted(LAN, DB))
    assert (await net.counters(LAN.id)).keys() == {DB.nic}
    await net.remove(LAN.id)
    await net.remove(LAN.id)
    assert await net.present() == ()
    assert await net.counters(LAN.id) == {}


async def test_what_is_not_there_has_no_tap(net: FakeNet | LinuxNet) -> None:
    with pytest.raises(NetFailed, match="no tap"):
        await net.open_tap(LAN.id, WEB.nic)
    await net.converge(wanted(LAN, WEB))
    with pytest.raises(NetFailed, match="no tap"):
        await net.open_tap(LAN.id, NicId("nic-other"))


async def test_nonsense_is_refused(net: FakeNet | LinuxNet) -> None:
    with pytest.raises(NetFailed, match="used 2 times"):
        await net.converge(wanted(LAN, WEB, WEB))
    with pytest.raises(NetFailed, match="no id"):
        await net.remove(NetworkId("../../etc"))
    with pytest.raises(NetFailed, match="no id"):
        await net.converge(wanted(network(id=NetworkId("../x"))))
    assert await net.present() == ()


async def test_ranges_are_networks(net: FakeNet | LinuxNet) -> None:
    assert "192.0.2.0/24" in await net.ranges_in_use()


@pytest.mark.net
async def test_this_machine_is_fit_and_what_is_missing_is_named(world: World) -> None:
    settings = world.settings()
    assert probe(settings) == ()
    world.resolv_conf.write_text("# nothing\n")
    assert "names no name server" in probe(settings)[0]
    nowhere = NetSettings(tag=world.tag, state_dir=world.folder, root_netns="ikno-such", resolv_conf=world.folder / "x")
    told = probe(nowhere)
    assert len(told) == 2
    assert "no network namespace ikno-such" in told[1]


def test_a_tag_is_short_and_ours() -> None:
    with pytest.raises(ValueError, match="no tag"):
        NetSettings(tag="innkeeper", state_dir=Path("/run/innkeeper"))


async def test_a_loose_tap_is_its_holder_s_alone(net: FakeNet | LinuxNet) -> None:
    first, second = await net.open_loose_tap(), await net.open_loose_tap()
    assert first != second
    os.close(first)
    os.close(second)
    assert await net.present() == ()


@pytest.mark.net
async def test_a_loose_tap_leads_nowhere_and_goes_with_its_holder() -> None:
    async with new_world() as world:
        fd = await world.net().open_loose_tap()
        opened = fcntl.ioctl(fd, TUNGETDEVNETNS)
        around = namespaces.Space(f"/proc/self/fd/{opened}")
        os.close(opened)
        try:
            assert around.inode not in {world.host.space.inode, os.stat("/proc/self/ns/net").st_ino}
            with around.entered():
                # Alone but for the loopback that every namespace has.
                assert {name for _, name in socket.if_nameindex()} == {"lo", taps.LOOSE}
            assert struct.unpack("16sH22x", fcntl.ioctl(fd, TUNGETIFF, bytes(40)))[1] & IFF_VNET_HDR
            os.close(fd)
            with around.entered():
                assert {name for _, name in socket.if_nameindex()} == {"lo"}
        finally:
            around.close()
