"""The fake and the real one agree about everything that their users rely on."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from innkeeper.drivers.linuxnet.fake import FakeNet
from innkeeper.drivers.linuxnet.hand import LinuxNet, NetFailed
from innkeeper.drivers.linuxnet.probe import probe
from innkeeper.drivers.linuxnet.settings import NetSettings
from innkeeper.model.ids import NetworkId, NicId
from tests.net.world import World, network, new_world, port, wanted

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
