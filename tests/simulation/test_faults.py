"""Faults strike where they were told to, and what the host did before and after is as the fault says."""

from __future__ import annotations

import asyncio

import pytest

from innkeeper.model.actions import BuildTemplate, StopMachine
from innkeeper.model.ids import Kind, Ref, TemplateId
from innkeeper.model.observed import MachineState, Phase
from innkeeper.model.work import Accepted, Done, Refused
from innkeeper.ports.host import HostAway
from innkeeper.sim.clock import simulate
from innkeeper.sim.faults import Fault, Faults, Killed
from innkeeper.sim.host import SimHost
from innkeeper.sim.metal.guests import Guest
from tests.simulation.cast import Cast, order, small_state

# Whether the effect stands, and what comes back.
EXPECTED = {
    Fault.REFUSE: (False, Refused),
    Fault.REFUSE_AFTER: (True, Refused),
    Fault.AWAY: (False, HostAway),
    Fault.LOSE_ANSWER: (True, HostAway),
    Fault.KILL_BEFORE: (False, Killed),
    Fault.KILL_UNRECORDED: (True, Killed),
    Fault.KILL_AFTER: (True, Killed),
}


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("fault", Fault)
def test_a_fault_strikes_one_order_and_giving_it_again_mends_it(fault: Fault, step: int) -> None:
    async def scenario() -> None:
        state, cast = small_state(), Cast(1)
        orders = cast.parts()
        host = SimHost(state, Faults(orders={step + 1: fault}))
        for each in orders[:step]:
            assert isinstance(await host.give(each), Done)
        stands, kind = EXPECTED[fault]
        answer: object
        try:
            answer = await host.give(orders[step])
        except (HostAway, Killed) as struck:
            answer = struck
        assert isinstance(answer, kind)
        held = (state.pool.disks, state.seeds, state.networks.applied, state.machines)[step]
        assert bool(held) is stands
        if kind is Killed:
            with pytest.raises(Killed):
                await host.give(orders[step])
            host = SimHost(state)
        pid = state.machines[cast.instance].pid if state.machines else None
        for each in orders[step:]:
            assert isinstance(await host.give(each), Done)
        assert pid in (None, state.machines[cast.instance].pid)

    simulate(scenario())


@pytest.mark.parametrize("fault", [Fault.KILL_UNRECORDED, Fault.KILL_AFTER, Fault.LOSE_ANSWER])
def test_a_fault_strikes_a_stop_that_waited(fault: Fault) -> None:
    async def scenario() -> None:
        state, cast = small_state(), Cast(1)
        host = SimHost(state)
        for each in cast.parts():
            await host.give(each)
        host = SimHost(state, Faults(orders={1: fault}))
        stop = order(StopMachine(instance=cast.instance, grace_s=30), cast.ref, 2)
        with pytest.raises((HostAway, Killed)):
            await host.give(stop)
        assert not state.machines
        again = await SimHost(state).give(stop)
        assert isinstance(again, Done)
        (seen,) = again.states
        assert isinstance(seen, MachineState)
        assert (seen.phase, seen.obeyed) == (Phase.STOPPED, 2)

    simulate(scenario())


def test_everybody_in_a_dead_process_is_dead() -> None:
    async def scenario() -> None:
        state, cast = small_state(), Cast(1)
        state.guest = Guest(ignores_shutdown=True)
        host = SimHost(state)
        for each in cast.parts():
            await host.give(each)
        stop = order(StopMachine(instance=cast.instance, grace_s=1000), cast.ref, 2)

        async def wait() -> None:
            with pytest.raises(Killed):
                await host.give(stop)

        async def read() -> None:
            with pytest.raises(Killed):
                await _read_on(host)

        async with asyncio.TaskGroup() as group:
            group.create_task(wait())
            group.create_task(read())
            await state.clock.sleep(1)
            SimHost(state)  # a second process on the machine means that the first is gone
        await state.clock.sleep(2000)
        assert cast.instance in state.machines  # and so is its deadline

    simulate(scenario())


async def _read_on(host: SimHost) -> None:
    async for _ in host.reports():
        await asyncio.sleep(0)


def test_a_host_that_is_away_comes_back_with_its_reports() -> None:
    async def scenario() -> None:
        state, cast = small_state(), Cast(1)
        host = SimHost(state, Faults(away=((10.0, 100.0),)))
        for each in cast.parts():
            await host.give(each)
        await state.clock.sleep(20)
        for call in (host.give(cast.start()), host.inventory(), host.log(cast.instance)):
            with pytest.raises(HostAway):
                await call
        async for report in host.reports():
            if isinstance(report, MachineState):
                break
        assert state.clock.monotonic() == 100.0

    simulate(scenario())


def test_a_template_is_whole_or_not_there_when_the_process_dies_at_it() -> None:
    async def scenario() -> None:
        state, new = small_state(), TemplateId("t-new")
        before = state.pool.free_bytes
        build = order(BuildTemplate(template=new, recipe="debian-12"), Ref(Kind.TEMPLATE, new))
        host = SimHost(state)
        assert isinstance(await host.give(build), Accepted)
        await state.clock.sleep(30)
        assert state.pool.free_bytes < before
        assert new not in state.pool.templates
        host = SimHost(state)
        assert state.pool.free_bytes == before
        while isinstance(outcome := await host.give(build), Accepted):
            await state.clock.sleep(1)
        assert isinstance(outcome, Done)
        assert state.pool.free_bytes == before - state.pool.templates[new].stored_bytes

    simulate(scenario())
