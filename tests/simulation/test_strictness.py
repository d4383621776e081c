"""The simulated host refuses what a kernel, a file system or QEMU would refuse, and leaves nothing when it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from innkeeper.model.actions import (
    Action,
    ConvergeNetwork,
    DeleteDisk,
    DeleteTemplate,
    ImportTemplate,
    PublishTemplate,
    ResumeMachine,
    StartMachine,
    StopMachine,
)
from innkeeper.model.hardware import Disk, Firmware
from innkeeper.model.ids import HostId, Kind, Ref, SecretId, SecretRef, TemplateId, VolumeId
from innkeeper.model.observed import Ended, Phase
from innkeeper.model.work import Accepted, Done, Order, Outcome, Refused
from innkeeper.sim.clock import simulate
from innkeeper.sim.host import SimHost
from innkeeper.sim.metal.guests import Guest
from innkeeper.sim.metal.pool import GIB, ImageFile, debian_image
from innkeeper.sim.state import SimState
from tests.simulation.cast import HOST, NETWORK, TINY, Cast, network, order, small_state

NEW = TemplateId("t-new")


async def give(host: SimHost, *orders: Order) -> Outcome:
    """All of them; the last one's answer. The others must be carried out."""
    for each in orders[:-1]:
        assert isinstance(await host.give(each), Done), each
    return await host.give(orders[-1])


async def settle(host: SimHost, state: SimState, each: Order) -> Outcome:
    while isinstance(outcome := await host.give(each), Accepted):
        await state.clock.sleep(1)
    return outcome


def about_template(action: Action) -> Order:
    return order(action, Ref(Kind.TEMPLATE, NEW))


def test_memory_is_never_given_twice() -> None:
    async def scenario() -> None:
        state = small_state()
        host = SimHost(state)
        first, second = Cast(1, memory_mib=6000), Cast(2, memory_mib=3000)
        assert isinstance(await give(host, *first.parts()), Done)
        outcome = await give(host, second.disk(), second.seed(), network(2, first, second), second.start())
        assert isinstance(outcome, Refused)
        assert "3000 MiB" in outcome.reason
        assert "2192 MiB are free" in outcome.reason
        assert list(state.machines) == [first.instance]
        stop = order(StopMachine(instance=first.instance, grace_s=0), first.ref)
        assert isinstance(await give(host, stop, second.start()), Done)

    simulate(scenario())


def _hardware(change: Callable[[StartMachine], StartMachine]) -> Callable[[StartMachine], StartMachine]:
    return change


WRONG_HARDWARE: dict[str, Callable[[StartMachine], StartMachine]] = {
    "a machine type of a newer QEMU": lambda a: replace(a, hardware=replace(a.hardware, machine="pc-q35-9.9")),
    "an unknown machine type": lambda a: replace(a, hardware=replace(a.hardware, machine="pc-z99-1.0")),
    "no vcpus": lambda a: replace(a, hardware=replace(a.hardware, vcpus=0)),
    "too many vcpus": lambda a: replace(a, hardware=replace(a.hardware, vcpus=289)),
    "no memory": lambda a: replace(a, hardware=replace(a.hardware, memory_mib=0)),
    "one slot twice": lambda a: replace(
        a, hardware=replace(a.hardware, devices=(*a.hardware.devices, Disk(slot=3, volume=VolumeId("vol-x"))))
    ),
    "one disk twice": lambda a: replace(
        a, hardware=replace(a.hardware, devices=(*a.hardware.devices, Disk(slot=9, volume=VolumeId("vol-1"))))
    ),
    "no kernel": lambda a: replace(a, kernel_args=None),
    "another's user": lambda a: replace(a, uid_slot=a.uid_slot + 1),
}


@pytest.mark.parametrize("wrong", WRONG_HARDWARE)
def test_impossible_hardware_does_not_start(wrong: str) -> None:
    async def scenario() -> None:
        state, cast = small_state(), Cast(1)
        host = SimHost(state)
        await give(host, *cast.parts()[:-1])
        action = WRONG_HARDWARE[wrong](cast.start_action())
        assert isinstance(await host.give(order(action, cast.ref)), Refused)
        assert not state.machines
        assert state.memory_used_mib == 0
        assert isinstance(await host.give(cast.start()), Done)

    simulate(scenario())


def test_a_disk_serves_one_machine() -> None:
    async def scenario() -> None:
        state, cast = small_state(), Cast(1)
        host = SimHost(state)
        await give(host, *cast.parts())
        thief = replace(cast.start_action(), instance=Cast(2).instance)
        thief = replace(thief, hardware=replace(thief.hardware, devices=thief.hardware.disks()))
        outcome = await host.give(order(thief, Cast(2).ref))
        assert isinstance(outcome, Refused)
        assert cast.instance in outcome.reason

    simulate(scenario())


def test_an_existing_disk_is_not_made_into_another() -> None:
    async def scenario() -> None:
        host, cast = SimHost(small_state()), Cast(1)
        await give(host, cast.disk(10), cast.disk(10))
        assert isinstance(await host.give(cast.disk(11)), Refused)

    simulate(scenario())


def test_a_full_pool_takes_no_disk() -> None:
    async def scenario() -> None:
        state, cast = small_state(), Cast(1)
        host = SimHost(state)
        free = state.pool.free_bytes
        assert state.pool.occupy(free - 1000)
        assert isinstance(await host.give(cast.disk()), Refused)
        assert cast.volume not in state.pool.disks
        assert state.pool.free_bytes == 1000
        assert state.pool.occupy(1000 - free)
        assert isinstance(await host.give(cast.disk()), Done)

    simulate(scenario())


def test_a_guest_that_finds_no_room_is_paused_until_there_is_some() -> None:
    async def scenario() -> None:
        state, first, second = small_state(), Cast(1), Cast(2)
        host = SimHost(state)
        await give(host, *first.parts(), second.disk())
        await state.clock.sleep(5)
        assert state.write(first.instance, first.volume, 2 * GIB)
        assert not state.write(first.instance, first.volume, 30 * GIB)
        assert state.known[first.instance].phase is Phase.NO_SPACE
        state.pool.write(second.volume, state.pool.free_bytes)
        resume = ResumeMachine(instance=first.instance)
        assert isinstance(await host.give(order(resume, first.ref)), Refused)
        assert isinstance(await give(host, order(DeleteDisk(volume=second.volume), second.ref)), Done)
        assert isinstance(await host.give(order(resume, first.ref)), Done)
        assert state.known[first.instance].phase is Phase.RUNNING

    simulate(scenario())


def test_room_is_given_back() -> None:
    async def scenario() -> None:
        state, cast = small_state(), Cast(1)
        host = SimHost(state)
        before = state.pool.free_bytes
        await give(host, cast.disk())
        state.pool.write(cast.volume, GIB)
        assert state.pool.free_bytes < before - GIB
        await host.give(order(DeleteDisk(volume=cast.volume), Ref(Kind.VOLUME, cast.volume)))
        assert state.pool.free_bytes == before
        await host.give(order(DeleteTemplate(template=TINY), Ref(Kind.TEMPLATE, TINY)))
        assert state.pool.free_bytes == state.pool.size_bytes

    simulate(scenario())


def test_an_order_for_another_host_is_refused() -> None:
    async def scenario() -> None:
        host, cast = SimHost(small_state()), Cast(1)
        assert isinstance(await host.give(replace(cast.disk(), host=HostId("h2"))), Refused)

    simulate(scenario())


def test_a_network_is_given_whole() -> None:
    async def scenario() -> None:
        host, cast = SimHost(small_state()), Cast(1)
        about = Ref(Kind.NETWORK, NETWORK.id)
        assert isinstance(await host.give(order(ConvergeNetwork(network=NETWORK.id), about)), Refused)
        assert isinstance(await host.give(network(1, cast, cast)), Refused)
        assert isinstance(await host.give(network(1, cast)), Done)

    simulate(scenario())


def test_user_data_is_fetched_and_missing_user_data_is_told() -> None:
    secrets = {SecretId("s-1"): b"#cloud-config\n"}

    async def redeem(ref: SecretRef) -> bytes:
        return secrets[ref.id]

    async def scenario() -> None:
        state, cast = small_state(), Cast(1)
        wish = cast.seed(SecretRef(SecretId("s-1")))
        assert isinstance(await SimHost(state).give(wish), Refused)  # no line to fetch it over
        host = SimHost(state, redeem=redeem)
        assert isinstance(await host.give(cast.seed(SecretRef(SecretId("s-2")))), Refused)
        assert not state.seeds
        assert isinstance(await host.give(wish), Done)
        assert state.seeds[cast.instance].user_data == b"#cloud-config\n"

    simulate(scenario())


def test_a_machine_whose_qemu_dies_at_once_was_never_there() -> None:
    async def scenario() -> None:
        state, cast = small_state(), Cast(1)
        host = SimHost(state)
        state.script(cast.name, Guest(dies_at_start="could not set up host forwarding rule"))
        outcome = await give(host, *cast.parts())
        assert isinstance(outcome, Refused)
        assert "forwarding rule" in outcome.reason
        assert not state.machines
        assert b"forwarding rule" in await host.log(cast.instance)

    simulate(scenario())


# --- templates


@pytest.mark.parametrize(
    "path, fmt, firmware",
    [
        ("/missing", "raw", Firmware.BIOS),
        ("/disk.qcow2", "raw", Firmware.BIOS),
        ("/backed.qcow2", "qcow2", Firmware.BIOS),
        ("/disk.qcow2", "qcow2", Firmware.DIRECT),
    ],
)
def test_a_doubtful_file_is_not_imported(path: str, fmt: str, firmware: Firmware) -> None:
    async def scenario() -> None:
        state = small_state()
        state.files["/disk.qcow2"] = ImageFile(format="qcow2", virtual_size_bytes=GIB, stored_bytes=GIB // 4)
        state.files["/backed.qcow2"] = replace(state.files["/disk.qcow2"], flaw="it has a backing file")
        host = SimHost(state)
        doubtful = about_template(ImportTemplate(template=NEW, path=path, format=fmt, firmware=firmware))
        assert isinstance(await host.give(doubtful), Refused)
        sound = ImportTemplate(template=NEW, path="/disk.qcow2", format="qcow2", firmware=Firmware.BIOS)
        assert isinstance(await settle(host, state, about_template(sound)), Done)
        assert state.pool.templates[NEW].virtual_size_bytes == GIB

    simulate(scenario())


def test_a_pool_that_fills_up_ends_a_template_and_gives_back_its_room() -> None:
    async def scenario() -> None:
        state = small_state()
        state.files["/big"] = ImageFile(format="raw", virtual_size_bytes=40 * GIB, stored_bytes=30 * GIB)
        host, before = SimHost(state), state.pool.free_bytes
        action = ImportTemplate(template=NEW, path="/big", format="raw", firmware=Firmware.BIOS)
        wish = about_template(action)
        assert isinstance(await host.give(wish), Accepted)
        await state.clock.sleep(5)
        assert state.pool.free_bytes < before
        outcome = await settle(host, state, wish)
        assert isinstance(outcome, Refused)
        assert "full" in outcome.reason
        assert state.pool.free_bytes == before
        assert NEW not in state.pool.templates

    simulate(scenario())


def test_only_a_disk_at_rest_is_published_and_it_stays_at_rest() -> None:
    async def scenario() -> None:
        state, cast = small_state(), Cast(1)
        host = SimHost(state)
        await give(host, *cast.parts())
        action = PublishTemplate(template=NEW, instance=cast.instance, volume=cast.volume, parent=TINY)
        assert isinstance(await host.give(about_template(action)), Refused)
        await host.give(order(StopMachine(instance=cast.instance, grace_s=0), cast.ref))
        state.pool.write(cast.volume, GIB)
        wish = about_template(action)
        assert isinstance(await host.give(wish), Accepted)
        assert isinstance(await host.give(cast.start()), Refused)
        delete = order(DeleteDisk(volume=cast.volume), Ref(Kind.VOLUME, cast.volume))
        assert isinstance(await host.give(delete), Refused)
        assert isinstance(await settle(host, state, wish), Done)
        assert state.pool.templates[NEW].virtual_size_bytes == 10 * GIB
        assert isinstance(await host.give(cast.start()), Done)

    simulate(scenario())


# --- the machine itself


def test_a_reboot_takes_machines_and_networks_and_leaves_disks() -> None:
    async def scenario() -> None:
        state, cast = small_state(), Cast(1)
        before = SimHost(state)
        await give(before, *cast.parts())
        boot = (await before.inventory()).boot_id
        state.reboot()
        host = SimHost(state)
        inventory = await host.inventory()
        assert inventory.boot_id != boot
        assert [(m.phase, m.ended) for m in inventory.machines] == [(Phase.STOPPED, Ended.HOST_BOOT)]
        assert not inventory.networks
        assert (inventory.disks, inventory.seeds) == ((cast.volume,), (cast.instance,))
        assert state.memory_used_mib == 0
        assert isinstance(await host.give(cast.start()), Refused)  # its network is gone
        assert isinstance(await give(host, network(2, cast), cast.start()), Done)

    simulate(scenario())


def test_a_guest_goes_on_while_nobody_looks() -> None:
    async def scenario() -> None:
        state, cast = small_state(), Cast(1)
        state.guest = Guest(boot_s=3, crash_after_s=3600, crash_signal=6)
        host = SimHost(state)
        await give(host, *cast.parts())
        host.end()
        await state.clock.sleep(60)
        again = SimHost(state)
        (seen,) = (await again.inventory()).machines
        assert (seen.phase, seen.agent) == (Phase.RUNNING, True)
        again.end()
        await state.clock.sleep(3600)
        (seen,) = (await SimHost(state).inventory()).machines
        assert (seen.phase, seen.ended, seen.reason) == (Phase.CRASHED, Ended.CRASH, "QEMU was killed by signal 6")

    simulate(scenario())


def test_cloud_init_is_told_of_templates_that_have_it() -> None:
    async def scenario() -> None:
        state, cast = small_state(), Cast(1)
        state.pool.templates[TINY] = debian_image()
        state.guest = Guest(boot_s=1, cloud_init_s=10)
        host = SimHost(state)
        await give(host, *cast.parts())
        await state.clock.sleep(2)
        await host.inventory()
        assert state.known[cast.instance].cloud_init == "running"
        await state.clock.sleep(10)
        await host.inventory()
        assert state.known[cast.instance].cloud_init == "done"

    simulate(scenario())


def test_the_host_is_the_one_it_says() -> None:
    assert SimHost(small_state()).id == HOST
