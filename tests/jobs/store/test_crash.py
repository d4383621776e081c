"""The process dies before or after each single commit: what is found afterwards is whole, and leads to the same end."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import OperationId
from innkeeper.model.instance import Wanted
from innkeeper.model.plans import Plan
from innkeeper.model.work import Moment, Operation, OperationState, Stale, Work
from innkeeper.ports.store import StoreFailed
from innkeeper.store.store import Store
from tests.jobs.store.plans import (
    Machine,
    accepted,
    delete,
    finish,
    furnished,
    launch,
    noted,
    opened,
    plain,
    seen,
    set_up,
    several,
    submission,
    undo,
)

pytestmark = pytest.mark.slow

ONE, TWO, THREE = (Machine(number=n) for n in (1, 2, 3))


class Killed(BaseException):
    """What no `except Exception` survives."""


class Gallows:
    """Kills at the given crash point, counted from the store's opening."""

    def __init__(self, point: int | None) -> None:
        self._point = point
        self.seen = 0

    def __call__(self, number: int) -> None:
        self.seen = number
        if number == self._point:
            raise Killed(number)


# --- a story that can be told again from wherever it was interrupted


async def _story(store: Store) -> None:
    """Set up, launch two, the second of which fails, launch a third and delete it by force half-way."""
    await _wish(store, set_up(), "op-0")
    await _work(store)
    await _wish(store, launch(ONE), "op-1")
    await _wish(store, launch(TWO), "op-2")
    await _work(store)
    await _wish(store, launch(THREE), "op-3")
    await _wish(store, delete(THREE.row(), force=True), "op-4")
    await _work(store)


async def _wish(store: Store, plan: Plan, id: str) -> Operation:
    """A client's: whoever got no answer asks again with the same key."""
    (answer,) = await store.works.submit([submission(plan, id, key=id)])
    assert isinstance(answer, Operation), answer
    return answer


async def _work(store: Store) -> None:
    """A worker's, until nothing is left."""
    while store.writer._standing.operations:
        for work in await store.works.take(10):
            await _carry_out(store, work)


async def _carry_out(store: Store, work: Work) -> None:
    if work.operation.id != "op-2":
        await store.pictures.report([seen(ONE, 1)])
        await finish(store, work)
        return
    if work.operation.state is OperationState.PENDING:
        await store.works.record(noted(work.operation.id, Moment.STEP_DONE, OperationState.RUNNING, 1))
        begun = noted(work.operation.id, Moment.UNDO_BEGUN, OperationState.UNDOING, 1, "no luck")
        await store.works.record(begun)
    await undo(store, work)


async def _told(folder: Path, point: int | None) -> tuple[Cluster, dict[OperationId, OperationState], int]:
    """The story's end, if the store dies once on the way."""
    gallows = Gallows(point)
    try:
        async with opened(folder, on_commit=gallows) as store:
            await _story(store)
    except Killed:
        async with opened(folder) as store:
            assert store.mended == ()
            await _story(store)
    async with opened(folder) as store:
        assert store.mended == ()
        operations = await store.journal.operations(None, 100)
        states = {operation.id: operation.state for operation in operations}
        return plain(store.pictures.cluster()), states, gallows.seen


# Each takes every fourth crash point; the fast run is content with one of the four.
_QUARTERS = [1, *(pytest.param(first, marks=pytest.mark.slow) for first in (2, 3, 4))]


@pytest.mark.parametrize("first", _QUARTERS)
async def test_dying_at_each_commit_ends_where_an_undisturbed_run_ends(tmp_path: Path, first: int) -> None:
    cluster, states, points = await _told(tmp_path, None)
    assert set(cluster.instances) == {ONE.instance}
    assert states[OperationId("op-2")] is OperationState.FAILED
    assert states[OperationId("op-3")] is OperationState.CANCELLED
    assert points >= 30
    for point in range(first, points + 1, 4):
        folder = tmp_path / str(point)
        folder.mkdir()
        there, then, _ = await _told(folder, point)
        assert there == cluster, f"killed at crash point {point}"
        # The delete may come before or after the launch it takes over has ended.
        raced = OperationId("op-3")
        assert then.pop(raced).ended
        assert then == {id: state for id, state in states.items() if id != raced}, f"killed at crash point {point}"


async def test_before_a_commit_nothing_happened_and_after_it_everything(tmp_path: Path) -> None:
    async with furnished(tmp_path):
        pass
    for point, stands in ((1, False), (2, True)):
        async with opened(tmp_path, on_commit=Gallows(point)) as store:
            before = store.pictures.cluster()
            with pytest.raises(Killed):
                await accepted(store, launch(ONE), "op-1")
            assert store.pictures.cluster() == before, "nothing is published by a dead store"
        async with opened(tmp_path) as store:
            assert (ONE.instance in store.pictures.cluster().instances) is stands
            assert len(store.pictures.cluster().claims) == (3 if stands else 0)
            assert (await store.journal.operation("op-1") is not None) is stands


async def test_a_dead_store_answers_everybody_with_its_death(tmp_path: Path) -> None:
    async with furnished(tmp_path):
        pass

    async def told(waiting: Awaitable[object]) -> object:
        try:
            return await waiting
        except Killed as death:
            return death

    async with opened(tmp_path, on_commit=Gallows(1)) as store:
        async with asyncio.TaskGroup() as group:
            attempts = [accepted(store, launch(Machine(number=n)), f"op-{n}") for n in (1, 2)]
            tasks = [group.create_task(told(attempt)) for attempt in (*attempts, store.works.take(1))]
        assert [type(task.result()) for task in tasks] == [Killed] * 3
        for late in (store.works.take(1), store.pictures.report([]), anext(store.journal.events(0))):
            with pytest.raises(Killed):
                await late


async def test_parts_survive_all_with_their_parent_or_not_at_all(tmp_path: Path) -> None:
    async with furnished(tmp_path):
        pass
    both = submission(several(ONE, TWO, refused=("no room",)), "op-p", key="k")
    for point, stands in ((1, False), (2, True)):
        async with opened(tmp_path, on_commit=Gallows(point)) as store:
            with pytest.raises(Killed):
                await store.works.submit([both])
        async with opened(tmp_path) as store:
            assert store.mended == ()
            found = await store.works.earlier("root", "k")
            assert (found is not None) is stands
            if found is not None:
                assert (found.id, found.state, found.done, found.steps) == ("op-p", OperationState.RUNNING, 1, 3)
                assert [work.operation.id for work in await store.works.take(9)] == ["op-1", "op-2"]
            assert len(await store.journal.children(OperationId("op-p"))) == (2 if stands else 0)
            assert set(store.pictures.cluster().instances) == ({ONE.instance, TWO.instance} if stands else set())


# --- callers who go away, and many of them


async def test_a_caller_who_goes_away_undoes_nothing(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        async with asyncio.TaskGroup() as group:
            gone = group.create_task(accepted(store, launch(ONE), "op-1"))
            await asyncio.sleep(0)
            gone.cancel()
            group.create_task(accepted(store, launch(TWO), "op-2"))
        assert gone.cancelled()
        assert set(store.pictures.cluster().instances) == {ONE.instance, TWO.instance}


async def test_a_crowd_is_served_in_several_batches(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        async with asyncio.TaskGroup() as group:
            for seq in range(1, 1201):
                group.create_task(store.pictures.report([seen(ONE, seq)]))
        assert store.pictures.cluster().machines[ONE.instance].seq == 1200


# --- a disk that refuses


@contextmanager
def _no_room() -> Iterator[None]:
    """The kernel refuses every byte that this process wants to write to a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_without_room_nothing_is_written_and_work_goes_on_when_there_is(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        (work,) = await store.works.take(1)
        before = store.pictures.cluster()
        failed: list[StoreFailed] = []
        with _no_room():
            for attempt in (
                accepted(store, launch(TWO), "op-2"),
                finish(store, work),
                store.pictures.report([seen(ONE, 1)]),
            ):
                with pytest.raises(StoreFailed) as failure:
                    await attempt
                failed.append(failure.value)
        for failure_text in map(str, failed):
            assert str(tmp_path / "innkeeper.db") in failure_text
            assert "no space is left" in failure_text or "the disk refused" in failure_text
        assert store.pictures.cluster() == before
        assert await store.journal.operation("op-2") is None

        await accepted(store, launch(TWO), "op-2")
        assert await finish(store, work)
        cluster = store.pictures.cluster()
        assert cluster.instances[TWO.instance].wanted is Wanted.RUNNING
    async with opened(tmp_path) as store:
        assert store.mended == ()
        assert store.pictures.cluster() == cluster


async def test_a_commit_that_was_kept_though_the_disk_refused_it_ends_the_store(tmp_path: Path) -> None:
    """What another connection wrote meanwhile stands for a commit that was kept though an error was reported."""
    async with furnished(tmp_path) as store:
        async with opened(tmp_path) as other:
            await accepted(other, launch(ONE), "op-1")
        async with asyncio.TaskGroup() as group:
            dying = group.create_task(store.death())
            with _no_room(), pytest.raises(StoreFailed):
                await accepted(store, launch(TWO), "op-2")
            assert not dying.done(), "a disk without room is no death"
            with pytest.raises(StoreFailed, match="This daemon ends: one that is started anew"):
                await accepted(store, launch(TWO), "op-2")
        assert "it stands at revision" in str(dying.result())
    async with opened(tmp_path) as store:
        assert store.mended == ()
        assert set(store.pictures.cluster().instances) == {ONE.instance}


# --- a database that does not agree with memory


async def test_rows_that_the_database_refuses_concern_only_their_caller(tmp_path: Path) -> None:
    """Another program has written, which the lock on the data directory should have prevented."""
    async with furnished(tmp_path) as store:
        async with opened(tmp_path) as other:
            await accepted(other, launch(ONE), "op-1")
            await finish(other, (await other.works.take(1))[0])
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_attempt(store, machine)) for machine in (ONE, TWO, THREE)]
        outcomes = [task.result() for task in tasks]
        assert all(isinstance(outcome, StoreFailed) for outcome in outcomes), outcomes


async def _attempt(store: Store, machine: Machine) -> Operation | Stale | StoreFailed:
    try:
        return (await store.works.submit([submission(launch(machine), f"op-{machine.number}")]))[0]
    except StoreFailed as failed:
        return failed


async def test_waiters_are_told_of_an_end_that_is_committed(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        (work,) = await store.works.take(1)
        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(store.journal.wait_ended(OperationId("op-1"), 10))
            await finish(store, work)
        ended = waiter.result()
        assert ended is not None
        assert ended.state is OperationState.SUCCEEDED
