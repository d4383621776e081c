"""What happens to accepted operations: progress, undoing, cancelling, parents, reports."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import Kind, OperationId, Ref
from innkeeper.model.instance import Wanted
from innkeeper.model.observed import HostState, Phase, TemplateState
from innkeeper.model.plans import Put
from innkeeper.model.template import Image
from innkeeper.model.work import Moment, Operation, OperationState, Record, Stale
from innkeeper.ports.store import Contradiction, StoreFailed
from innkeeper.store.store import Store
from tests.jobs.store.plans import (
    FACTS,
    HOST,
    PROJECT,
    TEMPLATE,
    Machine,
    accepted,
    delete,
    finish,
    furnished,
    launch,
    noted,
    opened,
    plain,
    rename,
    seen,
    set_up,
    submission,
    undo,
)

ONE, TWO, THREE = (Machine(number=n) for n in (1, 2, 3))
IMAGE = Image(digest="sha256:1", virtual_size_bytes=1, stored_bytes=1, firmware=Firmware.DIRECT, kernel_args="quiet")


async def _state(store: Store, id: str) -> Operation:
    operation = await store.journal.operation(id)
    assert operation is not None
    return operation


# --- a life


async def test_progress_is_kept_and_shown(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        (work,) = await store.works.take(1)
        step = noted(work.operation.id, Moment.STEP_DONE, OperationState.RUNNING, 1)
        assert await store.works.record(replace(step, states=(seen(ONE, 5),)))
        now = await _state(store, "op-1")
        assert (now.state, now.done, now.updated_at) == (OperationState.RUNNING, 1, 1001.0)
        assert store.pictures.cluster().phase(ONE.instance) is Phase.RUNNING
        cluster = store.pictures.cluster()
    async with opened(tmp_path) as store:
        assert store.mended == ()
        assert store.pictures.cluster() == cluster
        (again,) = await store.works.take(1)
        assert again.operation == now
        assert again.plan == work.plan
        assert await finish(store, again)
        ended = await _state(store, "op-1")
        assert (ended.state, ended.done) == (OperationState.SUCCEEDED, 4)
        assert not store.pictures.cluster().claims
        assert ONE.instance in store.pictures.cluster().instances
        records = await store.journal.records(OperationId("op-1"))
        assert [record.done for record in records] == [1, 2, 3, 4, 4]
        assert await store.journal.plan_of(OperationId("op-1")) == launch(ONE)


async def test_undoing_retreats_and_abandons(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        empty = store.pictures.cluster()
        await accepted(store, launch(ONE), "op-1")
        (work,) = await store.works.take(1)
        id = work.operation.id
        await store.works.record(noted(id, Moment.STEP_DONE, OperationState.RUNNING, 1))
        await store.works.record(noted(id, Moment.UNDO_BEGUN, OperationState.UNDOING, 1, "no luck"))
        assert store.pictures.cluster().instances[ONE.instance].wanted is Wanted.ABSENT
        assert store.pictures.cluster().generation(ONE.row().ref) == 2
        assert store.pictures.cluster().claims
    async with opened(tmp_path) as store:
        (work,) = await store.works.take(1)
        assert work.operation.state is OperationState.UNDOING
        assert await undo(store, work)
        assert plain(store.pictures.cluster()) == plain(empty)
        ended = await _state(store, "op-1")
        assert (ended.state, ended.error, ended.done) == (OperationState.FAILED, "no luck", 0)
        # Everything is free again.
        await accepted(store, launch(replace(ONE, number=9, slot=1)), "op-2")


async def test_finishing_applies_what_the_plan_says(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        empty = store.pictures.cluster()
        await accepted(store, launch(ONE), "op-1")
        await finish(store, (await store.works.take(1))[0])
        await store.pictures.report([seen(ONE, 7)])
        await accepted(store, delete(ONE.row()), "op-2")
        await finish(store, (await store.works.take(1))[0])
        assert plain(store.pictures.cluster()) == plain(empty)
    async with opened(tmp_path) as store:
        assert store.mended == ()
        assert plain(store.pictures.cluster()) == plain(empty)


async def test_what_has_ended_is_recorded_no_more(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        (work,) = await store.works.take(1)
        assert await finish(store, work)
        revision = store.pictures.cluster().revision
        assert not await finish(store, work)
        assert not await store.works.record(noted(OperationId("op-9"), Moment.ENDED, OperationState.FAILED, 0))
        assert store.pictures.cluster().revision == revision


async def test_a_plan_that_contradicts_other_rows_cannot_be_recorded(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(TWO), "op-1")
        await finish(store, (await store.works.take(1))[0])
        thief = replace(launch(ONE), finish=(Put(noun=replace(ONE.row(), name="web2")),))
        await accepted(store, thief, "op-2")
        (work,) = await store.works.take(1)
        with pytest.raises(Contradiction, match="cannot record ended: instance name web2"):
            await finish(store, work)
        assert (await _state(store, "op-2")).state is OperationState.RUNNING


# --- taking


async def test_an_operation_goes_to_one_worker_only(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store, asyncio.TaskGroup() as group:
        takers = [group.create_task(store.works.take(2)) for _ in range(3)]
        await asyncio.sleep(0)
        plans = [submission(launch(Machine(number=n)), f"op-{n}") for n in range(1, 6)]
        await store.works.submit(plans[:1])
        await store.works.submit(plans[1:])
        taken = [work.operation.id for taker in takers for work in await taker]
        assert sorted(taken) == [f"op-{n}" for n in range(1, 6)]


async def test_the_oldest_are_taken_first_also_after_opening_again(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        for n in (3, 1, 2):
            await accepted(store, launch(Machine(number=n)), f"op-{n}")
    async with opened(tmp_path) as store:
        assert [w.operation.id for w in await store.works.take(2)] == ["op-3", "op-1"]
        assert [w.operation.id for w in await store.works.take(2)] == ["op-2"]


async def test_a_taker_whose_wait_was_cancelled_loses_nothing(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await store.works.take(1)
        await accepted(store, launch(ONE), "op-1")
        assert len(await store.works.take(1)) == 1


async def test_closing_tells_those_who_wait(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        await store.works.take(1)

        async def told(waiting: Awaitable[object]) -> str:
            with pytest.raises(StoreFailed) as failed:
                await waiting
            return str(failed.value)

        async with asyncio.TaskGroup() as group:
            waits = (
                store.works.take(1),
                store.journal.wait_ended(OperationId("op-1"), 60),
                anext(store.journal.events(0)),
            )
            told_them = [group.create_task(told(wait)) for wait in waits[:2]]
            await asyncio.sleep(0)
            await store.close()
            told_them.append(group.create_task(told(waits[2])))
        assert {task.result() for task in told_them} == {"the store is closed: the daemon is stopping"}
        for late in (store.pictures.report([]), store.journal.records(OperationId("op-1"))):
            assert "closed" in await told(late)


# --- cancelling


async def test_cancelling_is_asked_for_and_kept(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        asked = await store.works.cancel(OperationId("op-1"))
        assert asked is not None
        assert asked.cancel_wanted
        assert asked.state is OperationState.PENDING
        assert store.works.cancel_wanted(OperationId("op-1"))
        again = await store.works.cancel(OperationId("op-1"))
        assert again == asked
    async with opened(tmp_path) as store:
        assert store.works.cancel_wanted(OperationId("op-1"))
        (work,) = await store.works.take(1)
        assert work.operation.cancel_wanted
        await undo(store, work, OperationState.CANCELLED)
        ended = await store.works.cancel(OperationId("op-1"))
        assert ended is not None
        assert ended.state is OperationState.CANCELLED


async def test_cancelling_what_is_unknown_or_on_its_way_back(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        assert await store.works.cancel(OperationId("op-")) is None
        await accepted(store, launch(ONE), "op-1")
        await store.works.record(noted(OperationId("op-1"), Moment.UNDO_BEGUN, OperationState.UNDOING, 0, "no luck"))
        asked = await store.works.cancel(OperationId("op-1"))
        assert asked is not None
        assert not asked.cancel_wanted


# --- reports


async def test_older_reports_never_replace_newer_ones(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        await store.pictures.report([seen(ONE, 5), seen(ONE, 4, Phase.CRASHED), seen(TWO, 1)])
        assert dict(store.pictures.cluster().machines) == {ONE.instance: seen(ONE, 5)}
        revision = store.pictures.cluster().revision
        await store.pictures.report([seen(ONE, 5, Phase.CRASHED)])
        assert store.pictures.cluster().revision == revision
        # The same again, only newer: kept, but no news.
        await store.pictures.report([seen(ONE, 9)])
        assert store.pictures.cluster().revision == revision
    async with opened(tmp_path) as store:
        await store.pictures.report([seen(ONE, 8, Phase.CRASHED)])
        assert store.pictures.cluster().machines[ONE.instance] == seen(ONE, 9)


async def test_reports_of_hosts_and_templates_become_part_of_their_rows(tmp_path: Path) -> None:
    async with furnished(tmp_path, facts=None) as store:
        newer, older = replace(FACTS, vcpus=1), replace(FACTS, vcpus=2)
        await store.pictures.report(
            [
                HostState(host=HOST, seq=5, facts=newer),
                HostState(host=HOST, seq=4, facts=older),
                TemplateState(template=TEMPLATE, host=HOST, seq=5, image=IMAGE),
            ]
        )
        cluster = store.pictures.cluster()
        assert (cluster.hosts[HOST].facts, cluster.templates[TEMPLATE].image) == (newer, IMAGE)
        await store.pictures.report([HostState(host=HOST, seq=6, facts=newer)])
        assert store.pictures.cluster().revision == cluster.revision
    async with opened(tmp_path) as store:
        assert store.mended == ()
        assert store.pictures.cluster() == cluster
        await store.pictures.report([HostState(host=HOST, seq=4, facts=older)])
        assert store.pictures.cluster().hosts[HOST].facts == newer
        await accepted(store, launch(ONE), "op-1")


async def test_room_follows_the_host_within_a_batch(tmp_path: Path) -> None:
    """A host that grows, is promised, and shrinks, all in one commit: each was right when it came."""
    async with furnished(tmp_path, facts=replace(FACTS, disk_gib=1)) as store, asyncio.TaskGroup() as group:
        group.create_task(store.pictures.report([HostState(host=HOST, seq=1, facts=FACTS)]))
        launched = group.create_task(store.works.submit([submission(launch(ONE), "op-1")]))
        group.create_task(store.pictures.report([HostState(host=HOST, seq=2, facts=replace(FACTS, disk_gib=1))]))
        refused = group.create_task(store.works.submit([submission(launch(TWO), "op-2")]))
        assert isinstance((await launched)[0], Operation)
        assert isinstance((await refused)[0], Stale)
    async with opened(tmp_path) as store:
        assert store.mended == ()
        assert store.pictures.cluster().hosts[HOST].facts == replace(FACTS, disk_gib=1)


async def test_what_is_dropped_forgets_its_reports(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        (work,) = await store.works.take(1)
        await store.pictures.report([seen(ONE, 3)])
        await undo(store, work)
        await store.pictures.report([seen(ONE, 4)])
        assert not store.pictures.cluster().machines
    async with opened(tmp_path) as store:
        assert store.mended == ()
        assert not store.pictures.cluster().machines


async def test_records_and_reports_that_wait_together_are_one_commit(tmp_path: Path) -> None:
    points: list[int] = []
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        await accepted(store, launch(TWO), "op-2")
    async with opened(tmp_path, on_commit=points.append) as store:
        works = await store.works.take(2)
        del points[:]
        async with asyncio.TaskGroup() as group:
            for work in works:
                for record in _all(work.operation.id):
                    group.create_task(store.works.record(record))
            group.create_task(store.pictures.report([seen(ONE, 1), seen(TWO, 1)]))
        # The first may find the thread idle and go alone; the others waited meanwhile.
        assert len(points) <= 4
        assert [(await _state(store, f"op-{n}")).state for n in (1, 2)] == [OperationState.SUCCEEDED] * 2


def _all(id: OperationId) -> list[Record]:
    steps = [noted(id, Moment.STEP_DONE, OperationState.RUNNING, done) for done in range(1, 5)]
    return [*steps, noted(id, Moment.ENDED, OperationState.SUCCEEDED, 4)]


async def test_a_plan_without_steps(tmp_path: Path) -> None:
    """It runs through a worker like any other."""
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        await finish(store, (await store.works.take(1))[0])
        await accepted(store, rename(ONE.row(), "other"), "op-2")
        cluster = store.pictures.cluster()
        assert cluster.named(Kind.INSTANCE, PROJECT, "other") == ONE.instance
        assert cluster.named(Kind.INSTANCE, PROJECT, "web1") is None
        assert cluster.claims[Ref(Kind.INSTANCE, ONE.instance)] == "op-2"
        await finish(store, (await store.works.take(1))[0])
        assert not store.pictures.cluster().claims


async def test_setting_up_again_changes_nothing_that_stands(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        (answer,) = await store.works.submit([submission(set_up(), "op-1")])
        assert isinstance(answer, Stale)
        assert answer.what == "project default exists by now"
