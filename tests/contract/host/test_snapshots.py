"""Snapshots of disks: of machines that run and of such that are off, in every world behind the host's seam."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from innkeeper.model.actions import (
    Chain,
    CreateDisk,
    DeleteDisk,
    PauseMachine,
    PublishTemplate,
    StartMachine,
    TakeSnapshot,
)
from innkeeper.model.hardware import Disk
from innkeeper.model.ids import SnapshotId, TemplateId, VolumeId
from innkeeper.model.instance import Taken
from innkeeper.model.observed import Ended, MachineState, Phase, SnapshotState
from innkeeper.model.work import Outcome
from innkeeper.ports.streams import ExecRequest, Exited, Failed, Stdout
from tests.contract.host.world import Cast, World, done, machine, refused

GRACE_S = 60.0


class Layered(Cast):
    """An instance whose disk stands over others. Its place and serial stay."""

    def __init__(self, world: World, below: tuple[VolumeId, ...] = ()) -> None:
        super().__init__(world)
        self.below = below
        self._serial = self.volume
        self._volumes = 0

    @property
    def chain(self) -> Chain:
        return Chain(volume=self.volume, below=self.below)

    def disk(self, size_gib: int = 1) -> CreateDisk:
        return replace(super().disk(size_gib), over=self.below[0] if self.below else None)

    def start(self) -> StartMachine:
        plain = super().start()
        disk = Disk(slot=3, volume=self.volume, serial=self._serial)
        devices = tuple(disk if isinstance(d, Disk) else d for d in plain.hardware.devices)
        return replace(plain, hardware=replace(plain.hardware, devices=devices), chains=(self.chain,))

    def layer(self) -> TakeSnapshot:
        """The instance is to stand over what it stands on now. Its new disk is still to be made."""
        self._volumes += 1
        frozen = self.volume
        self.below = (frozen, *self.below)
        self.volume = VolumeId(f"{self._serial}-{self._volumes}")
        snapshot = SnapshotId(f"snap-{self._serial.partition('-')[2]}-{self._volumes}")
        return TakeSnapshot(instance=self.instance, snapshot=snapshot, volumes=(frozen,), chains=(self.chain,))

    async def snapshot(self) -> Taken:
        action = self.layer()
        await self.do(self.disk())
        return taken(await self.give(self.order(action)), action)

    # --- in the guest

    async def write(self, path: str, text: str) -> None:
        session = await self.world.host.exec(self.instance, _command("dd", f"of={path}", "conv=fsync"))
        await session.write(text.encode())
        await session.eof()
        async with asyncio.timeout(self.stage.deadline_s):
            while not isinstance(event := await session.read(), Exited | Failed):
                pass
        assert event == Exited(code=0, signal=None)

    async def read(self, path: str) -> str | None:
        session = await self.world.host.exec(self.instance, _command("cat", path))
        said = b""
        async with asyncio.timeout(self.stage.deadline_s):
            while not isinstance(event := await session.read(), Exited | Failed):
                said += event.data if isinstance(event, Stdout) else b""
        return said.decode() if event == Exited(code=0, signal=None) else None


def _command(*argv: str) -> ExecRequest:
    return ExecRequest(argv=argv, env={})


def taken(outcome: Outcome, action: TakeSnapshot) -> Taken:
    found, told = done(outcome).states if len(done(outcome).states) == 2 else (None, *done(outcome).states)
    assert found is None or isinstance(found, MachineState)
    assert isinstance(told, SnapshotState)
    assert told.snapshot == action.snapshot
    return told.taken


async def test_what_is_written_later_is_not_in_it(world: World) -> None:
    web = Layered(world)
    await web.launch()
    before = await web.found()
    await web.write("/root/early", "one")
    told = await web.snapshot()
    assert told.consistent
    assert told.stored_bytes > 0
    await web.write("/root/late", "two")
    await web.write("/root/early", "changed")
    after = await web.found()
    assert before is not None
    assert after is not None
    assert (after.pid, after.phase) == (before.pid, Phase.RUNNING)

    copy = Layered(world, below=web.below)
    await copy.launch()
    assert await copy.read("/root/early") == "one"
    assert await copy.read("/root/late") is None
    await copy.write("/root/mine", "three")
    assert await web.read("/root/early") == "changed"
    assert await web.read("/root/mine") is None


async def test_it_goes_on_over_the_same_layers_after_a_stop(world: World) -> None:
    web = Layered(world)
    await web.launch()
    for number in range(3):
        await web.write(f"/root/{number}", str(number))
        await web.snapshot()
    await web.write("/root/3", "3")
    await web.do(web.stop(GRACE_S))
    await web.do(web.start())
    await web.answering()
    assert [await web.read(f"/root/{number}") for number in range(4)] == ["0", "1", "2", "3"]
    await web.snapshot()
    middle = Layered(world, below=web.below[2:])
    await middle.launch()
    assert [await middle.read(f"/root/{number}") for number in range(4)] == ["0", "1", None, None]


async def test_what_was_told_of_it_is_told_again(world: World) -> None:
    web = Layered(world)
    await web.launch()
    action = web.layer()
    await web.do(web.disk())
    order = web.order(action)
    told = taken(await web.give(order), action)
    await web.write("/root/late", "more")
    assert taken(await web.give(order), action) == told
    assert taken(await web.give(web.order(action)), action) == told
    await world.restart_agent()
    assert taken(await web.give(order), action) == told
    await web.do(web.stop())
    assert taken(await web.give(web.order(action)), action) == told


async def test_an_agent_that_is_killed_meanwhile_loses_nothing(world: World) -> None:
    web = Layered(world)
    await web.launch()
    await web.write("/root/early", "one")
    action = web.layer()
    await web.do(web.disk())
    order = web.order(action)
    for _ in range(3):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await web.world.host.give(order)
        await world.restart_agent()
    taken(await web.give(order), action)
    await web.answering()
    await web.write("/root/late", "two")
    await web.do(web.stop(GRACE_S))
    await web.do(web.start())
    await web.answering()
    assert (await web.read("/root/early"), await web.read("/root/late")) == ("one", "two")


async def test_of_a_machine_that_was_shut_down(world: World) -> None:
    web = Layered(world)
    await web.launch()
    await web.write("/root/early", "one")
    await web.do(web.stop(GRACE_S))
    told = await web.snapshot()
    assert told.consistent
    assert machine(await web.give(web.order(web.start()))).pid is not None
    await web.answering()
    assert await web.read("/root/early") == "one"


async def test_of_a_machine_that_never_ran(world: World) -> None:
    web = Layered(world)
    await web.prepare()
    assert (await web.snapshot()).consistent
    await web.do(web.start())
    await web.answering()


async def test_of_a_machine_that_crashed(world: World) -> None:
    web = Layered(world)
    await world.kill_qemu(await web.launch())
    await web.seen(lambda state: state.ended is Ended.CRASH)
    assert not (await web.snapshot()).consistent


async def test_of_a_machine_whose_plug_was_pulled(world: World) -> None:
    web = Layered(world)
    await web.launch()
    await web.do(web.stop())
    assert not (await web.snapshot()).consistent


async def test_of_a_paused_machine(world: World) -> None:
    web = Layered(world)
    await web.launch()
    await web.do(PauseMachine(instance=web.instance))
    assert not (await web.snapshot()).consistent
    found = await web.found()
    assert found is not None
    assert found.phase is Phase.PAUSED


async def test_one_that_was_never_completed_is_completed_late(world: World) -> None:
    """The machine still writes to what two snapshots wanted frozen; the later order finds it so."""
    web = Layered(world)
    await web.launch()
    first = web.layer()
    await web.do(web.disk())
    second = web.layer()
    await web.do(web.disk())
    taken(await web.give(web.order(second)), second)
    await web.write("/root/late", "two")
    late = replace(first, chains=(web.chain,))
    taken(await web.give(web.order(late)), late)
    copy = Layered(world, below=second.chains[0].below)
    await copy.launch()
    assert await copy.read("/root/late") is None


async def test_a_volume_below_others_cannot_be_deleted(world: World) -> None:
    web = Layered(world)
    await web.launch()
    await web.snapshot()
    await web.do(web.stop())
    copy = Layered(world, below=web.below)
    await copy.do(copy.disk())
    (frozen,) = web.below
    why = refused(await web.give(web.order(DeleteDisk(volume=frozen))))
    assert "below" in why.reason
    await web.do(DeleteDisk(volume=web.volume))
    refused(await web.give(web.order(DeleteDisk(volume=frozen))))
    await web.do(DeleteDisk(volume=copy.volume))
    await web.do(DeleteDisk(volume=frozen))
    inventory = await world.host.inventory()
    assert (inventory.disks, inventory.leftovers) == ((), ())


async def test_nobody_writes_to_a_frozen_volume(world: World) -> None:
    web = Layered(world)
    await web.prepare()
    start = web.start()
    await web.snapshot()
    refused(await web.give(web.order(start)))
    await web.do(web.start())


async def test_a_chain_that_is_not_as_stated_is_refused(world: World) -> None:
    web = Layered(world)
    await web.prepare()
    await web.snapshot()
    await web.snapshot()
    right = web.below
    for wrong in ((), right[:1], right[1:], right[::-1], (*right, VolumeId("vol-000000000bad"))):
        web.below = wrong
        refused(await web.give(web.order(web.start())))
    web.below = right
    await web.do(web.start())


@pytest.mark.parametrize("up", [True, False])
async def test_without_its_new_disk_nothing_is_taken(world: World, up: bool) -> None:
    web = Layered(world)
    await (web.launch() if up else web.prepare())
    start, frozen = web.start(), web.volume
    refused(await web.give(web.order(web.layer())))
    inventory = await world.host.inventory()
    assert (inventory.disks, inventory.leftovers) == ((frozen,), ())
    await web.do(web.stop())
    await web.do(start)
    await web.answering()


async def test_a_template_from_a_disk_with_layers(world: World) -> None:
    web = Layered(world)
    await web.launch()
    await web.write("/root/early", "one")
    await web.snapshot()
    await web.write("/root/late", "two")
    await web.do(web.stop(GRACE_S))
    new = TemplateId("t-00000000beef")
    publish = PublishTemplate(
        template=new, instance=web.instance, volume=web.volume, parent=world.stage.template, below=web.below
    )
    done(await web.settled(web.order(publish)))
    copy = Layered(world)
    await copy.do(replace(copy.disk(), template=new))
    await copy.do(copy.seed())
    await copy.do(copy.apply())
    await copy.do(replace(copy.start(), template=new))
    await copy.answering()
