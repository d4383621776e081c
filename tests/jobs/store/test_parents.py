"""Parents: their state follows from their children's, from being closed on, whatever happens in between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.model.ids import OperationId
from innkeeper.model.plans import Verb
from innkeeper.model.work import Operation, OperationState, Stale
from innkeeper.store.store import Store
from tests.jobs.store.plans import (
    PROJECT,
    Machine,
    accepted,
    delete,
    finish,
    furnished,
    launch,
    opened,
    submission,
    undo,
)

ONE, TWO, THREE = (Machine(number=n) for n in (1, 2, 3))


async def _state(store: Store, id: str) -> Operation:
    operation = await store.journal.operation(id)
    assert operation is not None
    return operation


def _parent(steps: int, id: str = "op-p") -> Operation:
    return Operation(
        id=OperationId(id),
        project=PROJECT,
        verb=Verb.LAUNCH,
        title="launch some",
        subjects=(),
        principal="root",
        state=OperationState.PENDING,
        created_at=1.0,
        updated_at=1.0,
        steps=steps,
    )


async def _family(store: Store, *machines: Machine) -> Operation:
    parent = await store.works.open_parent(_parent(len(machines)), "k")
    children = [submission(launch(m), f"op-{m.number}", parent=parent.id) for m in machines]
    answers = await store.works.submit(children)
    assert all(isinstance(answer, Operation) for answer in answers)
    return parent


@pytest.mark.parametrize(
    "ends, state, error",
    [
        ("SS", OperationState.SUCCEEDED, ""),
        ("SF", OperationState.FAILED, "1 of 2 failed: launch web2 from tiny:1: no luck"),
        ("FC", OperationState.FAILED, "1 of 2 failed: launch web1 from tiny:1: no luck"),
        ("SC", OperationState.CANCELLED, "1 of 2 were cancelled"),
    ],
)
async def test_a_parent_becomes_what_its_children_became(
    tmp_path: Path, ends: str, state: OperationState, error: str
) -> None:
    async with furnished(tmp_path) as store:
        await _family(store, ONE, TWO)
        closed = await store.works.close_parent(OperationId("op-p"), ())
        assert (closed.state, closed.done, closed.steps) == (OperationState.RUNNING, 0, 2)
        works = await store.works.take(5)
        assert [work.operation.id for work in works] == ["op-1", "op-2"]
        for work, end in zip(works, ends, strict=True):
            assert (await _state(store, "op-p")).state is OperationState.RUNNING
            if end == "S":
                await finish(store, work)
            else:
                await undo(store, work, OperationState.FAILED if end == "F" else OperationState.CANCELLED)
        ended = await store.journal.wait_ended(OperationId("op-p"), 1)
        assert ended is not None
        assert (ended.state, ended.done, ended.error) == (state, 2, error)
        assert [child.id for child in await store.journal.children(ended.id)] == ["op-1", "op-2"]
    async with opened(tmp_path) as store:
        assert await _state(store, "op-p") == ended


async def test_a_parent_waits_until_it_is_closed(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await _family(store, ONE)
        await finish(store, (await store.works.take(1))[0])
        now = await _state(store, "op-p")
        assert (now.state, now.done) == (OperationState.PENDING, 1)
        late = submission(launch(TWO), "op-2", parent=now.id)
        assert isinstance((await store.works.submit([late]))[0], Operation)
        closed = await store.works.close_parent(now.id, ("there is no room",))
        assert (closed.state, closed.done, closed.steps) == (OperationState.RUNNING, 2, 3)
        later = await store.works.submit([submission(launch(THREE), "op-3", parent=now.id)])
        assert later == (Stale(what="operation op-p takes no more parts"),)
        assert await store.works.close_parent(now.id, ("again",)) == closed
        await finish(store, (await store.works.take(1))[0])
        ended = await _state(store, "op-p")
        assert (ended.state, ended.error) == (OperationState.FAILED, "1 of 3 failed: there is no room")
        assert await store.works.close_parent(now.id, ()) == ended
        after = await store.works.submit([submission(launch(THREE), "op-3", parent=now.id)])
        assert after == (Stale(what="operation op-p is over or has no parts"),)


async def test_a_parent_all_of_whose_parts_were_refused(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await store.works.open_parent(_parent(2))
        closed = await store.works.close_parent(OperationId("op-p"), ("no room", "no room"))
        assert (closed.state, closed.done, closed.error) == (OperationState.FAILED, 2, "2 of 2 failed: no room")
        with pytest.raises(KeyError):
            await store.works.close_parent(OperationId("op-x"), ())


async def test_parents_have_keys_too(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        first = await store.works.open_parent(_parent(1), "k")
        assert await store.works.open_parent(_parent(1, "op-q"), "k") == first
        await store.works.submit([submission(launch(ONE), "op-1", parent=first.id)])
        await store.works.close_parent(first.id, ())
    async with opened(tmp_path) as store:
        assert (await store.works.open_parent(_parent(1, "op-q"), "k")).id == first.id


async def test_cancelling_a_parent_cancels_its_children_also_later_ones(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        parent = await _family(store, ONE)
        asked = await store.works.cancel(parent.id)
        assert asked is not None
        assert asked.cancel_wanted
        await store.works.submit([submission(launch(TWO), "op-2", parent=parent.id)])
        assert [store.works.cancel_wanted(OperationId(id)) for id in ("op-1", "op-2")] == [True, True]


async def test_cancelling_an_open_parent_without_children_ends_it(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        parent = await store.works.open_parent(_parent(2), "k")
        ended = await store.works.cancel(parent.id)
        assert ended is not None
        assert (ended.state, ended.done, ended.error) == (OperationState.CANCELLED, 2, "2 of 2 were cancelled")
        assert await store.journal.wait_ended(parent.id, 0) == ended
        late = await store.works.submit([submission(launch(ONE), "op-1", parent=parent.id)])
        assert late == (Stale(what="operation op-p is over or has no parts"),)
        assert await store.works.close_parent(parent.id, ("it came too late",)) == ended
    async with opened(tmp_path) as store:
        assert await _state(store, "op-p") == ended


@pytest.mark.parametrize(
    "steps, end, state, error",
    [
        (2, "S", OperationState.CANCELLED, "1 of 2 were cancelled"),
        (2, "F", OperationState.FAILED, "1 of 2 failed: launch web1 from tiny:1: no luck"),
        (2, "C", OperationState.CANCELLED, "2 of 2 were cancelled"),
        (1, "S", OperationState.SUCCEEDED, ""),
    ],
)
@pytest.mark.parametrize("first", ["cancelled", "ended"])
async def test_a_cancelled_parent_that_nobody_closes_ends_with_its_last_child(
    tmp_path: Path, first: str, steps: int, end: str, state: OperationState, error: str
) -> None:
    async with furnished(tmp_path) as store:
        parent = await store.works.open_parent(_parent(steps))
        await store.works.submit([submission(launch(ONE), "op-1", parent=parent.id)])
        work = (await store.works.take(1))[0]
        if first == "cancelled":
            asked = await store.works.cancel(parent.id)
            assert asked is not None
            assert asked.state is OperationState.PENDING
        if end == "S":
            await finish(store, work)
        else:
            await undo(store, work, OperationState.FAILED if end == "F" else OperationState.CANCELLED)
        if first == "ended":
            assert (await _state(store, "op-p")).state is OperationState.PENDING
            await store.works.cancel(parent.id)
        ended = await _state(store, "op-p")
        assert (ended.state, ended.done, ended.steps, ended.error) == (state, steps, steps, error)


async def test_the_parts_that_nobody_accounts_for_count_as_failed(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        parent = await store.works.open_parent(_parent(3))
        await store.works.submit([submission(launch(ONE), "op-1", parent=parent.id)])
        closed = await store.works.close_parent(parent.id, ("no room",), "the request ended")
        assert (closed.state, closed.done, closed.steps) == (OperationState.RUNNING, 2, 3)
        await finish(store, (await store.works.take(1))[0])
        ended = await _state(store, "op-p")
        assert (ended.state, ended.error) == (OperationState.FAILED, "2 of 3 failed: no room")
        whole = await store.works.open_parent(_parent(1, "op-q"))
        await store.works.submit([submission(launch(TWO), "op-2", parent=whole.id)])
        assert (await store.works.close_parent(whole.id, (), "the request ended")).steps == 1


async def test_a_parent_of_which_nothing_came_gives_up_its_key(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await store.works.open_parent(_parent(1), "k")
        await store.works.close_parent(OperationId("op-p"), ("no room",))
        assert (await store.works.open_parent(_parent(1, "op-q"), "k")).id == "op-q"


async def test_a_parent_is_read_again_with_its_progress(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await _family(store, ONE, TWO, THREE)
        await store.works.close_parent(OperationId("op-p"), ("no room",))
        works = await store.works.take(3)
        await undo(store, works[0])
        before = await _state(store, "op-p")
        assert before.done == 2
    async with opened(tmp_path) as store:
        now = await _state(store, "op-p")
        assert replace(now, revision=0) == replace(before, revision=0)
        for work in await store.works.take(3):
            await finish(store, work)
        ended = await _state(store, "op-p")
        assert (ended.state, ended.done) == (OperationState.FAILED, 4)
        assert ended.error == "2 of 4 failed: no room"


async def test_a_parent_left_open_by_a_dead_process_is_closed(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await _family(store, ONE)
        await store.works.open_parent(_parent(2, "op-empty"), "empty")
    async with opened(tmp_path) as store:
        assert (await _state(store, "op-p")).state is OperationState.RUNNING
        empty = await _state(store, "op-empty")
        assert empty.state is OperationState.FAILED
        assert "the daemon stopped before this part was accepted" in empty.error
        # Nothing came of it: the same request may be made again.
        again = await store.works.open_parent(_parent(2, "op-new"), "empty")
        assert again.id == "op-new"
        await finish(store, (await store.works.take(1))[0])
        assert (await _state(store, "op-p")).state is OperationState.SUCCEEDED


async def test_a_child_that_is_taken_over_ends_its_parent(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await _family(store, ONE)
        await store.works.close_parent(OperationId("op-p"), ())
        await accepted(store, delete(ONE.row(), force=True), "op-2")
        assert (await _state(store, "op-p")).state is OperationState.CANCELLED


async def test_who_has_a_plan_is_no_parent(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        child = submission(launch(TWO), "op-2", parent=OperationId("op-1"))
        assert isinstance((await store.works.submit([child]))[0], Stale)
