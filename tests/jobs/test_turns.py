"""Turns that an operation takes: cancelled, taken over, killed while undoing, and faults of ours on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from immutables import Map

from innkeeper.control.submit import Asking
from innkeeper.jobs.execute import OncePerPicture, order_for
from innkeeper.model.actions import ConvergeNetwork
from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import Draw, InstanceId, Kind, NetworkId, OperationId, ProjectId, Ref
from innkeeper.model.instance import Instance
from innkeeper.model.network import Network
from innkeeper.model.plans import NoUndo, Plan, Put, Refusal, Step, Verb
from innkeeper.model.work import Operation, OperationState, Order, Outcome, Record
from innkeeper.plan import power
from innkeeper.plan.delete import delete
from innkeeper.ports.store import StoreFailed
from innkeeper.sim.faults import Fault, Faults, Killed
from tests.jobs.life import HOST, QUICK, Decide, Life, Lives, footprint
from tests.jobs.wishes import building, launching, running, to_web, two_together


async def _begun(life: Life, decide: Decide) -> Operation:
    """Submitted, not waited for."""
    asking = Asking(principal="root", project=life.project, at=0.0)
    operation = await life.submitter.submit(decide, asking)
    assert isinstance(operation, Operation)
    return operation


async def _ended(life: Life, operation: Operation) -> Operation:
    ended = await life.store.journal.wait_ended(operation.id, 30)
    assert ended is not None
    return ended


async def test_a_long_step_is_cancelled_in_the_middle(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        lives.state.recipes["tiny"] = replace(lives.state.recipes["tiny"], build_s=2000)
        operation = await _begun(life, building)
        await asyncio.sleep(0.02)
        await life.store.works.cancel(operation.id)
        assert (await _ended(life, operation)).state is OperationState.CANCELLED
        assert footprint(lives, life.cluster)["templates"] == {}


async def test_cancelling_takes_effect_at_the_next_step(tmp_path: Path) -> None:
    """Here the first: nobody takes it before it is cancelled, nor in that life."""
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await running(life, lives)
        before = footprint(lives, life.cluster)
    async with lives.living(at_once=0) as life:
        operation = await _begun(life, launching("db"))
        await life.store.works.cancel(operation.id)
    async with lives.living() as life:
        ended = await _ended(life, operation)
        assert (ended.state, ended.error) == (OperationState.CANCELLED, "cancelled")
        assert footprint(lives, life.cluster) == before


async def test_a_guest_that_is_asked_to_leave_is_cancelled_in_the_middle(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await running(life, lives)
        _deaf(lives)
        restart = to_web(lambda c, i: power.restart(c, i, force=False, grace_s=40))
        operation = await _begun(life, restart)
        await asyncio.sleep(0.02)
        await life.store.works.cancel(operation.id)
        ended = await _ended(life, operation)
        assert (ended.state, ended.error) == (OperationState.CANCELLED, "cancelled")
        await life.mend()
        footprint(lives, life.cluster)


async def test_force_takes_over_a_stop_that_waits(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await running(life, lives)
        _deaf(lives)
        patient = await _begun(life, to_web(lambda c, i: power.stop(c, i, force=False, grace_s=4000)))
        await asyncio.sleep(0.02)
        forced = await life.wish(to_web(lambda c, i: power.stop(c, i, force=True)))
        assert isinstance(forced, Operation)
        assert forced.state is OperationState.SUCCEEDED
        overtaken = await _ended(life, patient)
        assert overtaken.state is OperationState.CANCELLED
        assert forced.id in overtaken.error
        assert footprint(lives, life.cluster)


@pytest.mark.parametrize("away", [False, True], ids=["deaf guests", "host away"])
async def test_however_many_wait_force_is_not_kept_waiting(tmp_path: Path, away: bool) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await running(life, lives)
        await life.wish(launching("db"))
        await life.wish(launching("idle", start=False))
        _deaf(lives)
    now = lives.clock.monotonic()
    faults = Faults(away=((now, now + 20),)) if away else None
    async with lives.living(at_once=2, faults=faults) as life:
        patient = [
            await _begun(life, _to(name, lambda c, i: power.stop(c, i, force=False, grace_s=4000)))
            for name in ("web", "db")
        ]
        await asyncio.sleep(0.02)
        others = (_to("web", lambda c, i: delete(c, i, force=True)), _to("idle", power.start))
        for decide in others:
            ended = await life.wish(decide)
            assert isinstance(ended, Operation)
            assert ended.state is OperationState.SUCCEEDED
        assert (await _ended(life, patient[0])).state is OperationState.CANCELLED
        waits = await life.store.journal.operation(patient[1].id)
        assert waits is not None
        assert not waits.state.ended
        await life.wish(_to("db", lambda c, i: power.stop(c, i, force=True)))
        assert footprint(lives, life.cluster)


def _to(name: str, decide: Callable[[Cluster, Instance], Plan | Refusal]) -> Decide:
    return lambda c, d, n: decide(c, next(i for i in c.instances.values() if i.name == name))


async def test_stopping_a_launch_by_force_leaves_a_whole_instance(tmp_path: Path) -> None:
    """Seed 2 of the random lives: the stop took over a launch that had made nothing yet, and no start ever worked."""
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await life.wish(building)
        async with asyncio.TaskGroup() as group:
            group.create_task(life.wish(launching("web")))
            group.create_task(life.wish(to_web(lambda c, i: power.stop(c, i, force=True))))
        await life.settled()
        started = await life.wish(to_web(power.start))
        assert isinstance(started, Operation)
        assert started.state is OperationState.SUCCEEDED, started
        assert footprint(lives, life.cluster)


def _starting(instance: InstanceId) -> Decide:
    return lambda c, d, n: power.start(c, c.instances[instance])


@pytest.mark.parametrize("verb", ["stop", "delete"])
async def test_taking_one_of_all_or_none_over_leaves_the_others_whole(tmp_path: Path, verb: str) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await life.wish(building)
        take = to_web(lambda c, i: power.stop(c, i, force=True) if verb == "stop" else delete(c, i, force=True))
        async with asyncio.TaskGroup() as group:
            group.create_task(life.wish(two_together))
            group.create_task(life.wish(take))
        await life.settled()
        await life.mend()
        footprint(lives, life.cluster)
        left = {i.name: i for i in life.cluster.instances.values()}
        assert left.keys() == ({"web", "db"} if verb == "stop" else {"db"})
        for one in left.values():
            started = await life.wish(_starting(one.id))
            assert isinstance(started, Operation)
            assert started.state is OperationState.SUCCEEDED, started


async def test_killed_while_undoing_it_goes_on_undoing(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await life.wish(building)
        before = footprint(lives, life.cluster)
    for number in (5, 6, 7):
        faults = Faults(orders={4: Fault.REFUSE, number: Fault.KILL_AFTER})
        with pytest.raises(Killed):
            await _launch_in_a_life(lives, faults)
        async with lives.living() as life:
            await life.settled()
            newest = (await life.store.journal.operations(None, 1))[0]
            assert newest.state is OperationState.FAILED
            assert footprint(lives, life.cluster) == before


async def _launch_in_a_life(lives: Lives, faults: Faults) -> None:
    async with lives.living(faults=faults) as life:
        await life.wish(launching("web"))


async def test_a_refused_undo_is_told_and_repaired(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await life.wish(building)
    async with lives.living(faults=Faults(orders={4: Fault.REFUSE, 7: Fault.REFUSE})) as life:
        ended = await life.wish(launching("web"))
        assert isinstance(ended, Operation)
        assert "could not be undone" in ended.error
        await life.mend()
        assert footprint(lives, life.cluster)["instances"] == {}


async def test_a_fault_of_ours_is_told_as_one_and_stops_nobody_else(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await life.wish(building)
        give, struck = life.host.give, list[Order]()

        async def faulty(order: Order) -> Outcome:
            if not struck:
                struck.append(order)
                raise ZeroDivisionError("nobody thought of this")
            return await give(order)

        life.host.give = faulty  # type: ignore[method-assign]
        ended = await life.wish(launching("web"))
        assert isinstance(ended, Operation)
        assert ended.state is OperationState.FAILED
        assert "a fault in Innkeeper itself" in ended.error
        again = await life.wish(launching("web"))
        assert isinstance(again, Operation)
        assert again.state is OperationState.SUCCEEDED


async def test_a_plan_that_cannot_be_submitted_is_told_and_stops_nobody_else(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await life.wish(building)
        sane = launching("web")

        def senseless(c: Cluster, d: Draw, n: float) -> Plan | Refusal:
            plan = sane(c, d, n)
            assert isinstance(plan, Plan)
            return replace(plan, accept=("no change",))  # type: ignore[arg-type]

        async with asyncio.timeout(30):
            with pytest.raises(AttributeError):
                await life.wish(senseless)
        again = await life.wish(sane)
        assert isinstance(again, Operation)
        assert again.state is OperationState.SUCCEEDED


@pytest.mark.parametrize("wish", ["launch", "delete"])
async def test_a_fault_in_the_engine_ends_the_one_operation_it_struck(tmp_path: Path, wish: str) -> None:
    """Orders are made outside of what a host answers: a fault there neither stops the engine nor returns at start."""
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await running(life, lives)
        pictures = life.engine._pictures
        life.engine._pictures = None  # type: ignore[assignment]
        struck = launching("db") if wish == "launch" else to_web(lambda c, i: delete(c, i, force=True))
        ended = await life.wish(struck)
        assert isinstance(ended, Operation)
        assert (ended.state, ended.error) == (OperationState.FAILED, "a fault in Innkeeper itself")
        life.engine._pictures = pictures
        await life.mend()
        left = {i.name for i in life.cluster.instances.values()}
        assert left == ({"web"} if wish == "launch" else set())


@pytest.mark.parametrize("moment", ["finish", "abandon"])
async def test_a_plan_that_contradicts_itself_ends_and_claims_nothing_for_ever(tmp_path: Path, moment: str) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await running(life, lives)
        sane = launching("db")

        def contradicting(c: Cluster, d: Draw, n: float) -> Plan | Refusal:
            plan = sane(c, d, n)
            assert isinstance(plan, Plan)
            twin = next(i for i in c.instances.values() if i.name == "web")
            changes = (Put(noun=replace(twin, id=InstanceId("i-thief"))),)
            plan = replace(plan, finish=changes)
            return plan if moment == "finish" else replace(plan, abandon=changes)

        ended = await life.wish(contradicting)
        assert isinstance(ended, Operation)
        assert (ended.state, ended.error) == (OperationState.FAILED, "a fault in Innkeeper itself")
        for decide in (to_web(power.pause), to_web(lambda c, i: delete(c, i, force=True))):
            after = await life.wish(decide)
            assert isinstance(after, Operation)
            assert after.state is OperationState.SUCCEEDED
        await life.mend()
        assert {i.name for i in life.cluster.instances.values()} == (set() if moment == "finish" else {"db"})


async def test_a_fault_that_the_store_cannot_take_down_is_met_again_at_the_next_start(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await life.wish(building)

        async def full(happened: Record) -> bool:
            raise StoreFailed("no room on the disk")

        object.__setattr__(life.store.works, "record", full)
        life.engine._pictures = None  # type: ignore[assignment]
        operation = await _begun(life, launching("web"))
        await asyncio.sleep(0.05)
        found = await life.store.journal.operation(operation.id)
        assert found is not None
        assert not found.state.ended
    async with lives.living() as life:
        assert (await _ended(life, operation)).state is OperationState.SUCCEEDED


async def test_a_store_without_room_is_waited_for(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await life.wish(building)
        record, full = life.store.works.record, [True, True]

        async def unsteady(happened: Record) -> bool:
            if full:
                full.pop()
                raise StoreFailed("no room on the disk")
            return await record(happened)

        object.__setattr__(life.store.works, "record", unsteady)
        ended = await life.wish(launching("web"))
        assert isinstance(ended, Operation)
        assert ended.state is OperationState.SUCCEEDED
        assert not full


async def test_a_host_without_a_line_is_away(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await life.wish(building)
    async with lives.living(lonely=True) as life:
        ended = await life.wish(launching("web"))
        assert isinstance(ended, Operation)
        assert ended.state is OperationState.FAILED
        assert "no line" in ended.error


async def test_past_the_point_of_no_return_it_fails_where_it_stands_and_repair_goes_on(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await running(life, lives)
    refusing = Faults(orders=dict.fromkeys(range(2, 2 + QUICK.tries), Fault.REFUSE))
    async with lives.living(faults=refusing) as life:
        ended = await life.wish(to_web(lambda c, i: delete(c, i, force=True)))
        assert isinstance(ended, Operation)
        assert (ended.state, ended.done) == (OperationState.FAILED, 1)
        await life.mend()
        assert footprint(lives, life.cluster)["instances"] == {}


def test_a_network_that_is_gone_needs_no_order() -> None:
    about = Ref(Kind.NETWORK, "net-1")
    action = ConvergeNetwork(network=NetworkId("net-1"))
    step = Step(host=HOST, about=about, generation=1, action=action, undo=NoUndo.NOTHING)
    operation = Operation(
        id=OperationId("op-1"),
        project=ProjectId("p-1"),
        verb=Verb.START,
        title="",
        subjects=(),
        principal="root",
        state=OperationState.PENDING,
        created_at=0,
        updated_at=0,
        steps=1,
    )
    assert order_for(Cluster(), operation, 0, step) is None


def test_a_network_is_projected_once_for_each_picture() -> None:
    net, host = NetworkId("net-1"), HOST
    row = Network(id=net, project=ProjectId("p-1"), name="n", cidr="10.0.0.0/24", gateway="10.0.0.1", domain="d")
    before = Cluster(revision=7, networks=Map({net: row}))
    gone = replace(before, revision=8, networks=Map())
    project = OncePerPicture()
    first = project(before, host, net)
    assert first is not None
    assert first.generation == 7
    assert project(before, host, net) is first
    assert project(gone, host, net) is None
    assert project(replace(before, revision=9), host, net) == replace(first, generation=9)


def _deaf(lives: Lives) -> None:
    for machine in lives.state.machines.values():
        machine.guest = replace(machine.guest, ignores_shutdown=True)
