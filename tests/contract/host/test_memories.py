"""Memory images: made, gone on from, missing, dropped, in every world behind the host's seam."""

from __future__ import annotations

from dataclasses import replace

from innkeeper.model.actions import (
    BakeMemory,
    Chain,
    CreateDisk,
    DeleteDisk,
    DeleteMemory,
    StartMachine,
    Warm,
    WarmCard,
)
from innkeeper.model.hardware import Disk, NetworkCard
from innkeeper.model.ids import MemoryImageId, NetworkId, NicId, VolumeId
from innkeeper.model.observed import MemoryState
from innkeeper.model.template import BAKER_SLOT
from tests.contract.host.world import Cast, World, done, refused

BAKED_MAC = "52:54:00:ff:00:01"


class Oven(Cast):
    """A machine to bake, by the rows of nobody."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.memory = MemoryImageId(self.instance.replace("i-", "mem-"))

    def bake(self) -> BakeMemory:
        plain = self.start()
        card = NetworkCard(slot=5, nic=NicId("nic-baked"), network=NetworkId("net-nowhere"), mac=BAKED_MAC)
        devices = tuple(card if isinstance(d, NetworkCard) else d for d in plain.hardware.devices)
        return BakeMemory(
            memory=self.memory,
            template=self.stage.template,
            hardware=replace(plain.hardware, devices=devices),
            disk_gib=1,
            kernel_args=self.stage.image.kernel_args,
            cloud_init=False,
        )

    def disk(self, size_gib: int = 1) -> CreateDisk:
        return replace(super().disk(size_gib), uid_slot=BAKER_SLOT)

    async def baked(self) -> MemoryState:
        await self.do(self.disk())
        (told,) = done(await self.settled(self.order(self.bake()))).states
        assert isinstance(told, MemoryState)
        return told


class Clone(Cast):
    def __init__(self, world: World, oven: Oven) -> None:
        super().__init__(world)
        self._oven = oven

    def disk(self, size_gib: int = 1) -> CreateDisk:
        return replace(super().disk(size_gib), over=self._oven.volume)

    def start(self) -> StartMachine:
        plain = super().start()
        disk = Disk(slot=3, volume=self.volume, serial=self._oven.volume)
        devices = tuple(disk if isinstance(d, Disk) else d for d in plain.hardware.devices)
        (card,) = self.seed().cards
        warm = Warm(
            memory=self._oven.memory,
            hostname=self.name,
            domain="inn.internal",
            machine_id=f"{self.number:032x}",
            cards=(WarmCard(baked_mac=BAKED_MAC, becomes=card),),
            configure=False,
        )
        chain = Chain(volume=self.volume, below=(VolumeId(self._oven.volume),))
        return replace(plain, hardware=replace(plain.hardware, devices=devices), chains=(chain,), warm=warm)


async def test_clones_go_on_from_what_was_baked(world: World) -> None:
    oven = Oven(world)
    told = await oven.baked()
    assert told.memory == oven.memory
    assert told.baked.stored_bytes > 0
    assert (await world.host.inventory()).memories == (oven.memory,)
    clones = [Clone(world, oven) for _ in range(2)]
    for clone in clones:
        state = await clone.launch()
        assert state.warm
        assert state.cold == ""
    for clone in clones:
        await clone.do(clone.stop())


async def test_the_same_order_finds_it_made(world: World) -> None:
    oven = Oven(world)
    await oven.do(oven.disk())
    order = oven.order(oven.bake())
    first = done(await oven.settled(order))
    (one,), (two,) = first.states, done(await oven.settled(order)).states
    assert isinstance(one, MemoryState)
    assert isinstance(two, MemoryState)
    assert one.baked == two.baked
    await world.restart_agent()
    (three,) = done(await oven.settled(oven.order(oven.bake()))).states
    assert isinstance(three, MemoryState)
    assert three.baked.digest == one.baked.digest


async def test_later_starts_boot_from_what_it_wrote(world: World) -> None:
    oven = Oven(world)
    await oven.baked()
    clone = Clone(world, oven)
    await clone.launch()
    await clone.do(clone.stop())
    await clone.do(replace(clone.start(), warm=None))
    state = await clone.answering()
    assert not state.warm
    assert state.cold == ""
    await clone.do(clone.stop())
    # Even if it is asked to: its disk agrees with the memory no more.
    await clone.do(clone.start())
    state = await clone.answering()
    assert not state.warm
    assert state.cold
    await clone.do(clone.stop())


async def test_without_the_image_it_boots(world: World) -> None:
    oven = Oven(world)
    await oven.baked()
    await oven.do(DeleteMemory(memory=oven.memory))
    assert (await world.host.inventory()).memories == ()
    clone = Clone(world, oven)
    state = await clone.launch()
    assert not state.warm
    assert oven.memory in state.cold


async def test_what_clones_stand_over_stays(world: World) -> None:
    oven = Oven(world)
    await oven.baked()
    clone = Clone(world, oven)
    await clone.do(clone.disk())
    refused(await oven.give(oven.order(DeleteDisk(volume=oven.volume))))
    await clone.do(DeleteDisk(volume=clone.volume))
    await oven.do(DeleteDisk(volume=oven.volume))


async def test_nobody_bakes_a_template_that_is_not_there(world: World) -> None:
    oven = Oven(world)
    refused(await oven.settled(oven.order(replace(oven.bake(), template=type(oven.stage.template)("t-none")))))
