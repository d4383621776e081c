"""Parents: accepted with all of their parts or not at all; then their state follows from their children's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.model.ids import OperationId
from innkeeper.model.work import Operation, OperationState, Several, Stale
from innkeeper.store.store import Store
from tests.jobs.store.plans import (
    Machine,
    accepted,
    delete,
    finish,
    furnished,
    launch,
    opened,
    plain,
    rename,
    several,
    submission,
    undo,
)

ONE, TWO, THREE = (Machine(number=n) for n in (1, 2, 3))


async def _state(store: Store, id: str) -> Operation:
    operation = await store.journal.operation(id)
    assert operation is not None
    return operation


async def _answer(store: Store, parts: Several, id: str = "op-p") -> Operation | Stale:
    (answer,) = await store.works.submit([submission(parts, id, key="k")])
    return answer


async def _family(store: Store, *machines: Machine, refused: tuple[str, ...] = ()) -> Operation:
    parent = await _answer(store, several(*machines, refused=refused))
    assert isinstance(parent, Operation), parent
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
        parent = await _family(store, ONE, TWO)
        assert (parent.state, parent.done, parent.steps) == (OperationState.RUNNING, 0, 2)
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


async def test_what_was_refused_counts_as_failed_from_the_beginning(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        parent = await _family(store, ONE, refused=("no room", "no luck"))
        assert (parent.state, parent.done, parent.steps) == (OperationState.RUNNING, 2, 3)
        assert parent.error == "no room"
        await finish(store, (await store.works.take(1))[0])
        ended = await _state(store, "op-p")
        assert (ended.state, ended.done, ended.error) == (OperationState.FAILED, 3, "2 of 3 failed: no room")


@pytest.mark.parametrize("part", [0, 1, 2])
async def test_one_stale_part_leaves_nothing_of_all(tmp_path: Path, part: int) -> None:
    """Neither in memory nor in the file; who is in the same batch stands."""
    machines = [ONE, TWO, THREE]
    machines[part] = replace(machines[part], name="web7")
    async with furnished(tmp_path) as store:
        await accepted(store, launch(Machine(number=7)), "op-7")
        before = store.pictures.cluster()
        assert await _answer(store, several(*machines)) == Stale(
            what="instance name web7 in project p-1 is taken by instance web7"
        )
        assert store.pictures.cluster() == before
        both = [submission(several(*machines), "op-p", key="k"), submission(launch(Machine(number=8)), "op-8")]
        stale, neighbour = await store.works.submit(both)
        assert isinstance(stale, Stale)
        assert isinstance(neighbour, Operation)
        for id in ("op-p", "op-1", "op-2", "op-3"):
            assert await store.journal.operation(id) is None
        assert await store.works.earlier("root", "k") is None
        after = plain(store.pictures.cluster())
        assert len(after.instances) == 2
    async with opened(tmp_path) as store:
        assert store.mended == ()
        assert plain(store.pictures.cluster()) == after
        assert [work.operation.id for work in await store.works.take(9)] == ["op-7", "op-8"]
        await _family(store, ONE, TWO, THREE)


async def test_a_busy_part_is_refused_alone_unless_that_leaves_none(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-9")
        busy = (OperationId("op-r"), rename(ONE.row(), "other"))
        alone = replace(several(), parts=(busy,))
        assert await _answer(store, alone) == Stale(what="instance web1 is busy", busy=OperationId("op-9"))
        assert await store.journal.operation("op-p") is None
        parent = await _answer(store, replace(several(TWO), parts=(busy, *several(TWO).parts)))
        assert isinstance(parent, Operation)
        assert (parent.done, parent.steps) == (1, 2)
        assert parent.error == "instance web1 is busy: operation op-9 holds it"
        assert [child.id for child in await store.journal.children(parent.id)] == ["op-2"]
        await finish(store, (await store.works.take(9))[1])
        ended = await _state(store, "op-p")
        assert (ended.state, ended.steps) == (OperationState.FAILED, 2)
        assert ended.error == "1 of 2 failed: instance web1 is busy: operation op-9 holds it"
    async with opened(tmp_path) as store:
        assert await _state(store, "op-p") == ended


async def test_twins_of_parents_find_the_first(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        twins = [submission(several(m), id, key="k") for m, id in ((ONE, "op-p"), (TWO, "op-q"))]
        first, second = await store.works.submit(twins)
        assert isinstance(first, Operation)
        assert second == first
        assert await _answer(store, several(THREE), "op-s") == first
        assert set(store.pictures.cluster().instances) == {ONE.instance}
    async with opened(tmp_path) as store:
        assert await _answer(store, several(THREE), "op-s") == first
        await finish(store, (await store.works.take(9))[0])
        late = await _answer(store, several(THREE), "op-s")
        assert isinstance(late, Operation)
        assert (late.id, late.state) == ("op-p", OperationState.SUCCEEDED)
        assert set(store.pictures.cluster().instances) == {ONE.instance}


async def test_cancelling_a_parent_cancels_its_children(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        parent = await _family(store, ONE, TWO)
        asked = await store.works.cancel(parent.id)
        assert asked is not None
        assert (asked.state, asked.cancel_wanted) == (OperationState.RUNNING, True)
        assert [store.works.cancel_wanted(OperationId(id)) for id in ("op-1", "op-2")] == [True, True]
        for work in await store.works.take(2):
            await undo(store, work, OperationState.CANCELLED)
        ended = await _state(store, "op-p")
        assert (ended.state, ended.error) == (OperationState.CANCELLED, "2 of 2 were cancelled")
        assert await store.works.cancel(parent.id) == ended


async def test_a_parent_is_read_again_with_its_progress(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await _family(store, ONE, TWO, THREE, refused=("no room",))
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


async def test_a_child_that_is_taken_over_ends_its_parent(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await _family(store, ONE)
        await accepted(store, delete(ONE.row(), force=True), "op-2")
        assert (await _state(store, "op-p")).state is OperationState.CANCELLED


async def test_a_part_may_be_taken_over_by_its_sibling(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        parts = (*several(ONE).parts, (OperationId("op-2"), delete(ONE.row(), force=True)))
        parent = await _answer(store, replace(several(), parts=parts))
        assert isinstance(parent, Operation)
        assert (parent.done, parent.steps) == (1, 2)
        await finish(store, (await store.works.take(9))[0])
        ended = await _state(store, "op-p")
        assert (ended.state, ended.error) == (OperationState.CANCELLED, "1 of 2 were cancelled")
