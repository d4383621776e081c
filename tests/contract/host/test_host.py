"""Orders and reports: every promise of ports/host.py, in every world behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from innkeeper.model.actions import (
    Action,
    DeleteDisk,
    DeleteTemplate,
    ForgetMachine,
    PauseMachine,
    ResumeMachine,
)
from innkeeper.model.ids import TemplateId
from innkeeper.model.observed import Ended, MachineState, Phase, Sample
from innkeeper.ports.host import NoLine
from innkeeper.ports.streams import ExecRequest, Failed
from tests.contract.host.world import Cast, World, done, heard, machine, refused

NEW = TemplateId("t-00000000beef")


# --- once and in order


async def test_an_order_given_again_has_no_second_effect(world: World) -> None:
    cast = Cast(world)
    await cast.prepare()
    order = cast.order(cast.start())
    first = machine(await cast.give(order))
    again = machine(await cast.give(order))
    assert first.pid is not None
    assert again.pid == first.pid
    found = await cast.found()
    assert found is not None
    assert found.pid == first.pid


async def test_another_order_finds_the_work_done(world: World) -> None:
    cast = Cast(world)
    state = await cast.launch()
    for action in (cast.disk(), cast.seed(), cast.start()):
        await cast.do(action)
    found = await cast.found()
    assert found is not None
    assert found.pid == state.pid


async def test_an_order_is_known_after_the_agent_was_restarted(world: World) -> None:
    cast = Cast(world)
    await cast.prepare()
    start = cast.order(cast.start())
    before = machine(await cast.give(start))
    stop = cast.order(cast.stop())
    await world.restart_agent()
    assert machine(await cast.give(start)).pid == before.pid
    assert machine(await cast.give(stop)).phase is Phase.STOPPED
    await world.restart_agent()
    # Carried out long ago: saying it again must not start the machine again.
    await cast.give(start)
    found = await cast.found()
    assert found is not None
    assert found.phase is Phase.STOPPED


async def test_what_was_undone_is_not_done_any_more(world: World) -> None:
    """Its undo overtook it on the way: carried out now, it would stay for ever."""
    cast = Cast(world)
    late = cast.order(cast.seed())
    done(await cast.give(replace(late, action=ForgetMachine(instance=cast.instance), undo=True)))
    assert refused(await cast.give(late)).stale
    assert cast.instance not in (await world.host.inventory()).seeds


async def test_an_older_generation_is_stale(world: World) -> None:
    cast = Cast(world)
    state = await cast.launch()
    await cast.give(cast.order(PauseMachine(instance=cast.instance), generation=5))
    old = refused(await cast.give(cast.order(cast.stop(), generation=4)))
    assert old.stale
    await world.restart_agent()
    assert refused(await cast.give(cast.order(cast.stop(), generation=4))).stale
    found = await cast.found()
    assert found is not None
    assert (found.phase, found.pid) == (Phase.PAUSED, state.pid)
    assert machine(await cast.give(cast.order(cast.stop(), generation=5))).obeyed == 5


async def test_an_older_network_is_stale(world: World) -> None:
    cast = Cast(world)
    older, newer = cast.apply(), cast.apply(empty=True)
    await cast.do(newer)
    assert refused(await cast.give(cast.order(older))).stale


async def test_a_step_and_its_undo_are_told_apart(world: World) -> None:
    cast = Cast(world)
    forward = cast.order(cast.disk())
    await cast.give(forward)
    back = replace(forward, undo=True, action=DeleteDisk(volume=cast.volume))
    done(await cast.give(back))
    assert cast.volume not in (await world.host.inventory()).disks


# --- refusals leave nothing


@pytest.mark.parametrize("missing", ["disk", "seed", "network"])
async def test_a_machine_does_not_start_without_its_parts(world: World, missing: str) -> None:
    cast = Cast(world)
    parts: dict[str, Action] = {"disk": cast.disk(), "seed": cast.seed(), "network": cast.apply()}
    for name, action in parts.items():
        if name != missing:
            await cast.do(action)
    refused(await cast.give(cast.order(cast.start())))
    found = await cast.found()
    assert found is None or found.phase is Phase.STOPPED
    await cast.do(parts[missing])
    assert machine(await cast.give(cast.order(cast.start()))).pid is not None


async def test_a_machine_does_not_start_without_its_own_port(world: World) -> None:
    cast, other = Cast(world), Cast(world)
    await cast.do(cast.disk())
    await cast.do(cast.seed())
    await cast.do(other.apply())
    refused(await cast.give(cast.order(cast.start())))


async def test_a_machine_does_not_start_without_its_template(world: World) -> None:
    cast = Cast(world)
    await cast.prepare()
    refused(await cast.give(cast.order(replace(cast.start(), template=NEW))))


async def test_a_disk_is_not_smaller_than_its_template(world: World) -> None:
    cast = Cast(world)
    refused(await cast.give(cast.order(cast.disk(size_gib=0))))
    assert cast.volume not in (await world.host.inventory()).disks


async def test_a_disk_needs_its_template(world: World) -> None:
    cast = Cast(world)
    refused(await cast.give(cast.order(replace(cast.disk(), template=NEW))))
    assert cast.volume not in (await world.host.inventory()).disks


async def test_what_a_machine_uses_is_not_removed(world: World) -> None:
    cast = Cast(world)
    state = await cast.launch()
    for action in (
        DeleteDisk(volume=cast.volume),
        cast.apply(absent=True),
        ForgetMachine(instance=cast.instance),
        DeleteTemplate(template=world.stage.template),
    ):
        refused(await cast.give(cast.order(action)))
    inventory = await world.host.inventory()
    assert cast.volume in inventory.disks
    assert cast.instance in inventory.seeds
    assert world.stage.network.id in inventory.networks
    assert world.stage.template in inventory.templates
    found = await cast.found()
    assert found is not None
    assert (found.phase, found.pid) == (Phase.RUNNING, state.pid)


async def test_a_template_stays_while_a_disk_depends_on_it(world: World) -> None:
    cast = Cast(world)
    await cast.do(cast.disk())
    refused(await cast.give(cast.order(DeleteTemplate(template=world.stage.template))))
    await cast.do(DeleteDisk(volume=cast.volume))
    await cast.do(DeleteTemplate(template=world.stage.template))
    assert world.stage.template not in (await world.host.inventory()).templates


async def test_nothing_is_told_of_a_machine_that_was_never_started(world: World) -> None:
    """It would pass for one that ran: whether a missing disk was lost or never made is told apart by that."""
    cast = Cast(world)
    assert done(await cast.give(cast.order(cast.disk()))).states == ()
    assert done(await cast.give(cast.order(cast.stop()))).states == ()
    assert cast.instance not in {m.instance for m in (await world.host.inventory()).machines}


async def test_a_stopped_machine_is_not_paused_or_resumed(world: World) -> None:
    cast = Cast(world)
    await cast.prepare()
    refused(await cast.give(cast.order(PauseMachine(instance=cast.instance))))
    refused(await cast.give(cast.order(ResumeMachine(instance=cast.instance))))


# --- looking


async def test_the_inventory_shows_all_and_then_nothing(world: World) -> None:
    cast = Cast(world)
    state = await cast.launch()
    full = await world.host.inventory()
    assert full.host == world.host.id
    assert full.boot_id == world.stage.facts.boot_id
    assert [m.pid for m in full.machines] == [state.pid]
    assert list(full.disks) == [cast.volume]
    assert list(full.seeds) == [cast.instance]
    assert list(full.networks) == [world.stage.network.id]
    assert list(full.templates) == [world.stage.template]
    assert not full.leftovers
    for action in (cast.stop(), ForgetMachine(instance=cast.instance), DeleteDisk(volume=cast.volume)):
        await cast.do(action)
        await cast.do(action)  # what is gone is gone, however often one asks
    await cast.do(cast.apply(absent=True))
    empty = await world.host.inventory()
    assert (empty.machines, empty.disks, empty.seeds, empty.networks, empty.leftovers) == ((), (), (), (), ())


async def test_machines_are_found_again_after_a_restart_of_the_agent(world: World) -> None:
    cast = Cast(world)
    state = await cast.launch()
    await world.restart_agent()
    again = await cast.answering()
    assert (again.pid, again.phase) == (state.pid, Phase.RUNNING)
    assert again.seq > state.seq


async def test_reports_never_run_backwards(world: World) -> None:
    cast = Cast(world)
    last = (await cast.launch()).seq
    for _ in range(2):
        for action in (PauseMachine(instance=cast.instance), ResumeMachine(instance=cast.instance)):
            seq = machine(await cast.give(cast.order(action))).seq
            assert seq > last
            last = seq
        await world.restart_agent()
    found = await cast.found()
    assert found is not None
    assert found.seq >= last


async def test_a_slow_reader_gets_the_newest_state_only(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    for _ in range(3):
        await cast.do(PauseMachine(instance=cast.instance))
        await cast.do(ResumeMachine(instance=cast.instance))
    last = machine(await cast.give(cast.order(PauseMachine(instance=cast.instance))))
    async with heard(world, MachineState) as reports:
        await _until(world, lambda: any(r.seq >= last.seq for r in reports))
    assert [r.phase for r in reports if r.instance == cast.instance] == [Phase.PAUSED]


async def test_counters_of_a_running_machine_grow(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    async with heard(world, Sample) as samples:
        await _until(world, lambda: len([s for s in samples if s.instance == cast.instance]) >= 3)
    mine = [s for s in samples if s.instance == cast.instance]
    for before, after in pairwise(mine):
        assert after.at > before.at
        assert after.cpu_s >= before.cpu_s
        assert after.disk_written_bytes >= before.disk_written_bytes
        assert after.memory_mib > 0


# --- starting, pausing, stopping, ending


async def test_a_start_is_seen_from_qemu_to_the_guests_answer(world: World) -> None:
    cast = Cast(world)
    await cast.prepare()
    started = machine(await cast.give(cast.order(cast.start(), generation=3)))
    assert started.phase in (Phase.STARTING, Phase.RUNNING)
    assert started.obeyed == 3
    answering = await cast.answering()
    assert answering.phase is Phase.RUNNING
    assert answering.ended is Ended.NO
    assert answering.pid == started.pid


async def test_pause_and_resume(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    pause, resume = PauseMachine(instance=cast.instance), ResumeMachine(instance=cast.instance)
    for _ in range(2):
        assert machine(await cast.give(cast.order(pause))).phase is Phase.PAUSED
    await world.restart_agent()
    found = await cast.found()
    assert found is not None
    assert found.phase is Phase.PAUSED
    for _ in range(2):
        assert machine(await cast.give(cast.order(resume))).phase is Phase.RUNNING


async def test_a_guest_is_asked_to_shut_down(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    stopped = machine(await cast.give(cast.order(cast.stop(world.stage.deadline_s), generation=2)))
    assert (stopped.phase, stopped.ended, stopped.obeyed) == (Phase.STOPPED, Ended.ASKED, 2)
    assert stopped.pid is None
    assert not stopped.reason  # it went by itself: there is nothing to explain
    started = machine(await cast.give(cast.order(cast.start(), generation=3)))
    assert started.pid is not None
    assert started.ended is Ended.NO


async def test_a_deaf_guest_is_stopped_by_force(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    await world.deafen(cast.instance)
    stopped = machine(await cast.give(cast.order(cast.stop(world.stage.grace_s))))
    assert (stopped.phase, stopped.ended) == (Phase.STOPPED, Ended.ASKED)
    assert stopped.reason


async def test_a_guest_that_panicked_is_seen_as_such(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    under_way = await world.host.exec(cast.instance, ExecRequest(argv=("cat",), env={}))
    await world.panic(cast.instance)
    panicked = await cast.seen(lambda seen: seen.phase is Phase.PANICKED)
    assert panicked.pid is not None
    assert not panicked.agent
    with pytest.raises(NoLine, match="panicked"):
        await world.host.exec(cast.instance, ExecRequest(argv=("true",), env={}))
    async with asyncio.timeout(world.stage.deadline_s):
        end = await under_way.read()
    assert isinstance(end, Failed)
    assert "panicked" in end.reason
    # Nobody waits for somebody who cannot hear.
    stopped = machine(await cast.give(cast.order(cast.stop(world.stage.deadline_s * 10), generation=2)))
    assert (stopped.phase, stopped.ended) == (Phase.STOPPED, Ended.ASKED)


async def test_a_newer_order_interrupts_a_waiting_one(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    await world.deafen(cast.instance)
    patient = cast.order(cast.stop(world.stage.deadline_s * 10), generation=2)
    async with asyncio.timeout(world.stage.deadline_s), asyncio.TaskGroup() as group:
        waiting = group.create_task(world.host.give(patient))
        await asyncio.sleep(0.05)
        assert refused(await world.host.give(cast.order(cast.stop(), generation=1))).stale
        assert not waiting.done()
        forced = machine(await world.host.give(cast.order(cast.stop(), generation=3)))
    assert forced.phase is Phase.STOPPED
    assert refused(waiting.result()).stale


async def test_the_same_order_may_wait_twice(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    await world.deafen(cast.instance)
    order = cast.order(cast.stop(world.stage.grace_s))
    async with asyncio.timeout(world.stage.deadline_s), asyncio.TaskGroup() as group:
        tasks = [group.create_task(world.host.give(order)) for _ in range(2)]
    assert [machine(task.result()).phase for task in tasks] == [Phase.STOPPED] * 2


async def test_a_caller_that_goes_away_interrupts_nothing(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    await world.deafen(cast.instance)
    order = cast.order(cast.stop(world.stage.grace_s))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(world.stage.grace_s / 10):
            await world.host.give(order)
    assert machine(await cast.give(order)).phase is Phase.STOPPED


async def test_a_killed_qemu_is_a_crash_with_its_reason(world: World) -> None:
    cast = Cast(world)
    state = await cast.launch()
    await world.kill_qemu(state)
    crashed = await cast.seen(lambda seen: seen.phase is Phase.CRASHED)
    assert crashed.ended is Ended.CRASH
    assert "9" in crashed.reason
    assert crashed.pid is None
    # The dead machine holds nothing: it can be started again.
    assert machine(await cast.give(cast.order(cast.start()))).pid is not None


async def test_the_guests_own_shutdown_is_seen_as_such(world: World) -> None:
    cast = Cast(world)
    await cast.launch()
    async with asyncio.timeout(world.stage.deadline_s):
        session = await world.host.exec(cast.instance, ExecRequest(argv=("poweroff",), env={}))
        await session.read()
    ended = await cast.seen(lambda seen: seen.phase is Phase.STOPPED)
    assert ended.ended is Ended.GUEST
    assert ended.reason


async def _until(world: World, true: Callable[[], bool]) -> None:
    async with asyncio.timeout(world.stage.deadline_s):
        while not true():
            await asyncio.sleep(0.01)
