"""The past and the feed: nothing is skipped, nothing comes twice, and what is no longer kept is said."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from innkeeper.model.ids import OperationId, ProjectId
from innkeeper.model.observed import Phase
from innkeeper.model.work import Moment, Operation, OperationState
from innkeeper.ports.store import Event, TooOld
from innkeeper.store.store import Store
from innkeeper.store.work.prune import Keep
from tests.jobs.store.plans import (
    PROJECT,
    Machine,
    accepted,
    finish,
    furnished,
    launch,
    noted,
    opened,
    seen,
    several,
    submission,
    undo,
)

ONE, TWO = Machine(number=1), Machine(number=2)


async def _events(store: Store, after: int, until: int) -> list[Event]:
    """All events up to a revision; hangs, and is ended by the test's deadline, if one is missing."""
    found: list[Event] = []
    if after >= until:
        return found
    async for event in store.journal.events(after):
        found.append(event)
        if event.revision >= until:
            break
    return found


async def test_every_event_has_a_revision_of_its_own(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        start = store.pictures.cluster().revision
        await accepted(store, launch(ONE), "op-1")
        await store.pictures.report([seen(ONE, 1)])
        (work,) = await store.works.take(1)
        await undo(store, work)
        found = await _events(store, start, store.pictures.cluster().revision)
        assert [event.revision for event in found] == list(range(start + 1, store.pictures.cluster().revision + 1))
        assert [(event.kind, event.what) for event in found] == [
            ("object", "created"),
            ("object", "created"),
            ("object", "created"),
            ("operation", "pending"),
            ("state", "running"),
            ("object", "changed"),
            ("operation", "undoing 0/4"),
            ("object", "dropped"),
            ("object", "dropped"),
            ("object", "dropped"),
            ("operation", "failed 0/4"),
        ]
        assert found[0].ref == ONE.row().ref
        assert found[3].operation == "op-1"


async def test_a_reader_resumes_anywhere_also_after_opening_again(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        for n in range(1, 8):
            await accepted(store, launch(Machine(number=n)), f"op-{n}")
        last = store.pictures.cluster().revision
        everything = await _events(store, 0, last)
        assert len(everything) == last
        for after in range(0, last, 3):
            assert await _events(store, after, last) == everything[after:]
    async with opened(tmp_path) as store:
        for after in range(0, last, 5):
            assert await _events(store, after, last) == everything[after:]


async def test_readers_beside_writers_miss_nothing(tmp_path: Path) -> None:
    """Whoever is told of an object's creation finds it in the picture."""
    async with furnished(tmp_path) as store:
        last = store.pictures.cluster().revision + 40 * 4

        async def read(after: int) -> list[Event]:
            found = []
            async for event in store.journal.events(after):
                if event.what == "created" and event.ref is not None:
                    assert store.pictures.cluster().get(event.ref) is not None
                found.append(event)
                if event.revision == last:
                    return found
            raise AssertionError("the feed ended")

        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(read(0)) for _ in range(3)]
            for n in range(1, 41):
                group.create_task(accepted(store, launch(Machine(number=n)), f"op-{n}"))
        for reader in readers:
            assert [event.revision for event in reader.result()] == list(range(1, last + 1))


async def test_a_reader_waits_for_what_comes(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        now = store.pictures.cluster().revision
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(store.journal.events(now))
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(_events(store, now, now + 4))
            await asyncio.sleep(0)
            await accepted(store, launch(ONE), "op-1")
        assert len(reader.result()) == 4


async def test_the_past_is_pruned_and_too_old_is_said(tmp_path: Path) -> None:
    async with furnished(tmp_path, keep=Keep(revisions=100)) as store:
        await accepted(store, launch(ONE), "op-1")
        await finish(store, (await store.works.take(1))[0])
        await accepted(store, launch(TWO), "op-2")
        phases = (Phase.RUNNING, Phase.PAUSED)
        for seq in range(1, 700, 50):
            await store.pictures.report([seen(ONE, n, phases[n % 2]) for n in range(seq, seq + 50)])
        last = store.pictures.cluster().revision
        with pytest.raises(TooOld):
            await anext(store.journal.events(0))
        with pytest.raises(TooOld):
            await anext(store.journal.events(last + 1))
        assert len(await _events(store, last - 100, last)) == 100
        cluster = store.pictures.cluster()
    async with opened(tmp_path, keep=Keep(revisions=100)) as store:
        assert store.mended == ()
        assert store.pictures.cluster() == cluster
        with pytest.raises(TooOld):
            await anext(store.journal.events(0))
        assert len(await _events(store, last - 100, last)) == 100
        assert [work.operation.id for work in await store.works.take(5)] == ["op-2"]


# --- operations


async def _pages(store: Store, project: ProjectId | None, limit: int) -> list[str]:
    found: list[str] = []
    before: int | None = None
    while page := await store.journal.operations(project, limit, before):
        found += [operation.id for operation in page]
        before = page[-1].revision
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_pages_neither_skip_nor_repeat(tmp_path: Path, limit: int) -> None:
    async with furnished(tmp_path) as store:
        for n in range(1, 7):
            await accepted(store, launch(Machine(number=n)), f"op-{n}")
        works = {work.operation.id: work for work in await store.works.take(6)}
        for id in ("op-4", "op-2"):
            await finish(store, works[OperationId(id)])
        wanted = ["op-2", "op-4", "op-6", "op-5", "op-3", "op-1", "op-setup"]
        assert await _pages(store, None, limit) == wanted
        assert await _pages(store, PROJECT, limit) == wanted
        assert await _pages(store, ProjectId("p-other"), limit) == []
    async with opened(tmp_path) as store:
        assert await _pages(store, None, limit) == wanted


async def test_children_are_listed_under_their_parents_only(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        (parent,) = await store.works.submit([submission(several(TWO), "op-p")])
        assert isinstance(parent, Operation)
        assert await _pages(store, None, 10) == ["op-p", "op-1", "op-setup"]
        (child,) = await store.journal.children(parent.id)
        assert (child.id, child.state) == ("op-2", OperationState.PENDING)
        await store.works.cancel(child.id)
        assert (await store.journal.children(parent.id))[0].cancel_wanted


async def test_an_id_may_be_shortened_while_it_is_unambiguous(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        for n, id in enumerate(("op-aa1", "op-aa2", "op-b%1", "op-bb1"), 1):
            await accepted(store, launch(Machine(number=n)), id)
        found = {
            word: await store.journal.operation(word) for word in ("op-aa1", "op-aa", "op-b%", "op-c", "", "op-bb")
        }
        assert {word: operation and operation.id for word, operation in found.items()} == {
            "op-aa1": "op-aa1",
            "op-aa": None,
            "op-b%": "op-b%1",
            "op-c": None,
            "": None,
            "op-bb": "op-bb1",
        }


async def test_waiting_ends_with_the_operation_or_with_time(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        assert await store.journal.wait_ended(OperationId("op-"), 1) is None
        await accepted(store, launch(ONE), "op-1")
        running = await store.journal.wait_ended(OperationId("op-1"), 0.01)
        assert running is not None
        assert running.state is OperationState.PENDING
        (work,) = await store.works.take(1)
        async with asyncio.TaskGroup() as group:
            waiters = [group.create_task(store.journal.wait_ended(OperationId("op-1"), 60)) for _ in range(3)]
            await finish(store, work)
        assert {w.result().state for w in waiters if (w.result())} == {OperationState.SUCCEEDED}  # type: ignore[union-attr]
    async with opened(tmp_path) as store:
        ended = await store.journal.wait_ended(OperationId("op-1"), 60)
        assert ended is not None
        assert ended.state is OperationState.SUCCEEDED


async def test_an_end_is_not_told_before_its_effects_are_in_the_picture(tmp_path: Path) -> None:
    """Between the commit and its publication, whoever reads the tables is ahead of whoever reads the picture."""
    held, committed, published = threading.Event(), threading.Event(), threading.Event()

    def hold(point: int) -> None:
        if held.is_set() and point % 2 == 0:
            committed.set()
            assert published.wait(30)

    async with furnished(tmp_path, on_commit=hold) as store:
        await accepted(store, launch(ONE), "op-11")
        (work,) = await store.works.take(1)
        steps = len(work.plan.steps)
        for done in range(1, steps + 1):
            await store.works.record(noted(work.operation.id, Moment.STEP_DONE, OperationState.RUNNING, done))
        held.set()
        ended = noted(work.operation.id, Moment.ENDED, OperationState.SUCCEEDED, steps)
        async with asyncio.TaskGroup() as group:
            group.create_task(store.works.record(ended))
            await asyncio.to_thread(committed.wait, 30)
            listed = await store.journal.operations(PROJECT, 1)
            found = await store.journal.operation("op-1")
            published.set()
        assert [(o.id, o.state) for o in listed] == [("op-11", OperationState.RUNNING)]
        assert found is not None
        assert found.state is OperationState.RUNNING
        assert [o.state for o in await store.journal.operations(PROJECT, 1)] == [OperationState.SUCCEEDED]
