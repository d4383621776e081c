"""What is kept of operations that have ended: so many of them, however much hosts report meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, select
from sqlalchemy.engine import Connection

from innkeeper.model.ids import OperationId
from innkeeper.model.observed import Phase
from innkeeper.model.plans import Plan, Verb
from innkeeper.model.work import Operation, OperationState
from innkeeper.store.database import schema
from innkeeper.store.store import Store
from innkeeper.store.work.prune import _OPERATIONS_SLICE, Keep
from tests.jobs.store.plans import (
    PROJECT,
    Machine,
    accepted,
    finish,
    furnished,
    launch,
    opened,
    seen,
    several,
    submission,
)

pytestmark = pytest.mark.slow

ONE, TWO = Machine(number=1), Machine(number=2)
NOTHING = Plan(verb=Verb.SET_UP, title="nothing", subjects=())
PHASES = (Phase.RUNNING, Phase.PANICKED)
TABLES = (schema.operations, schema.plans, schema.records)


async def _rows(store: Store) -> list[int]:
    def count(connection: Connection) -> list[int]:
        return [connection.execute(select(func.count()).select_from(table)).scalar_one() for table in TABLES]

    return await store.reader.read(count)


async def _listed(store: Store) -> list[str]:
    return [operation.id for operation in await store.journal.operations(None, 10_000)]


async def _one_by_one(store: Store, first: int, count: int) -> list[str]:
    """Operations that end as soon as they are taken, each in a commit of its own."""
    ids = [f"op-n{number}" for number in range(first, first + count)]
    for id in ids:
        (answer,) = await store.works.submit([submission(NOTHING, id, key=f"key-{id}")])
        assert isinstance(answer, Operation)
        assert await finish(store, (await store.works.take(1))[0])
    return ids


async def test_reports_however_many_leave_operations_in_place(tmp_path: Path) -> None:
    async with furnished(tmp_path, keep=Keep(revisions=100, operations=100)) as store:
        (answer,) = await store.works.submit([submission(launch(ONE), "op-1", key="mine")])
        assert isinstance(answer, Operation)
        await finish(store, (await store.works.take(1))[0])
        before, rows = await store.journal.operation("op-1"), await _rows(store)
        records = await store.journal.records(OperationId("op-1"))
        start = store.pictures.cluster().revision
        for seq in range(1, 3001, 50):
            await store.pictures.report([seen(ONE, n, PHASES[n % 2]) for n in range(seq, seq + 50)])
        assert store.pictures.cluster().revision == start + 3000
    async with opened(tmp_path, keep=Keep(revisions=100, operations=100)) as store:
        assert await store.journal.operation("op-1") == before
        assert await _listed(store) == ["op-1", "op-setup"]
        assert await _rows(store) == rows
        assert await store.journal.plan_of(OperationId("op-1")) == launch(ONE)
        assert await store.journal.records(OperationId("op-1")) == records != ()
        assert await store.works.earlier("root", "mine") == before
        (again,) = await store.works.submit([submission(launch(TWO), "op-2", key="mine")])
        assert again == before


async def test_the_oldest_operations_go_with_all_that_is_theirs(tmp_path: Path) -> None:
    keep = Keep(operations=20)
    async with furnished(tmp_path, keep=keep) as store:
        # What has not ended stays, however old.
        await accepted(store, launch(ONE), "op-open")
        (held,) = await store.works.take(1)
        ids = await _one_by_one(store, 1, 3 * _OPERATIONS_SLICE)
        left = await _listed(store)
        newest_first = [*reversed(ids), "op-setup"]
        assert left[-1] == "op-open"
        assert left[:-1] == newest_first[: len(left) - 1]
        assert keep.operations <= len(left) - 1 < keep.operations + _OPERATIONS_SLICE
        assert await store.works.earlier("root", "key-op-n1") is None
        assert await store.journal.records(OperationId("op-n1")) == ()
        assert await store.journal.plan_of(OperationId("op-n1")) is None
        assert (await _rows(store))[:2] == [len(left), len(left)]
        # A list goes on where it was, to its new end.
        cursor = (await store.journal.operations(None, 5))[-1].revision
        assert [o.id for o in await store.journal.operations(None, 1000, cursor)] == left[5:]
        # And the key of one that is gone is free again.
        (answer,) = await store.works.submit([submission(NOTHING, "op-again", key="key-op-n1")])
        assert isinstance(answer, Operation)
        assert answer.id == "op-again"
        assert await finish(store, held)


async def test_the_count_is_the_same_after_opening_again(tmp_path: Path) -> None:
    """As many go as without it, at the same time."""
    keep, count = Keep(operations=20), _OPERATIONS_SLICE + 20 - 1  # with the first one, the last of these is too many
    async with furnished(tmp_path, keep=keep) as store:
        await _one_by_one(store, 1, count - 1)
        assert len(await _listed(store)) == count
    async with opened(tmp_path, keep=keep) as store:
        assert len(await _listed(store)) == count
        await _one_by_one(store, count, 1)
        assert len(await _listed(store)) == keep.operations


async def test_less_may_be_kept_than_before_and_goes_slice_by_slice(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await _one_by_one(store, 1, 6 * _OPERATIONS_SLICE)
    async with opened(tmp_path, keep=Keep(operations=10)) as store:
        await _one_by_one(store, 1000, 1)
        assert len(await _listed(store)) > _OPERATIONS_SLICE + 10
        ids = await _one_by_one(store, 1001, 9)
        assert 10 <= len(await _listed(store)) < 10 + _OPERATIONS_SLICE
        assert (await _listed(store))[:9] == ids[::-1]


async def test_a_parent_outlives_its_children_and_keeps_them_until_it_ends(tmp_path: Path) -> None:
    keep = Keep(operations=10)
    async with furnished(tmp_path, keep=keep) as store:
        (parent,) = await store.works.submit([submission(several(ONE, TWO), "op-p", key="k")])
        assert isinstance(parent, Operation)
        first, second = await store.works.take(2)
        await finish(store, first)
        await _one_by_one(store, 1, 2 * _OPERATIONS_SLICE)
        assert [child.id for child in await store.journal.children(parent.id)] == ["op-1", "op-2"]
    async with opened(tmp_path, keep=keep) as store:
        # It still knows how the first one ended, and so when all have.
        (second,) = await store.works.take(1)
        await finish(store, second)
        ended = await store.journal.operation("op-p")
        assert ended is not None
        assert (ended.state, ended.done) == (OperationState.SUCCEEDED, 2)
        number = 10_000
        while (await store.journal.operation("op-p")) is not None and "op-p" in await _listed(store):
            await _one_by_one(store, number, _OPERATIONS_SLICE)
            number += _OPERATIONS_SLICE
            assert number < 20_000
        assert await store.journal.children(parent.id) == ()
        assert (await _rows(store))[0] == len(await _listed(store)) < keep.operations + _OPERATIONS_SLICE


async def test_neither_forgetting_nor_listing_sorts_all_there_is(tmp_path: Path) -> None:
    """By the plans of the database: they go along an index, and stop when they have what they look for."""
    said: list[str] = []

    def listen(engine: Engine) -> None:
        @event.listens_for(engine, "before_cursor_execute")
        def heard(_c: Any, cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
            if statement.startswith(("SELECT operations.id", "DELETE FROM operations")):
                said.append(statement)
                said.extend(row[3] for row in cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    async with furnished(tmp_path, keep=Keep(operations=20)) as store:
        listen(store.writer._engine)
        listen(store.reader._engine)
        await _one_by_one(store, 1, 3 * _OPERATIONS_SLICE)
        assert len(await _listed(store)) < 20 + _OPERATIONS_SLICE
        assert len(await store.journal.operations(PROJECT, 5, store.pictures.cluster().revision)) == 5
    text = "\n".join(said)
    assert text.count("DELETE FROM operations") == 2
    assert text.count("USING INDEX ix_operations_revision") == 2 + 2
    assert "TEMP B-TREE" not in text
