"""Secrets live as long as what refers to them: an instance's row, or a plan that may yet write it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.model.ids import SecretId, SecretRef
from innkeeper.model.plans import Plan, Put
from innkeeper.model.work import Moment, OperationState
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
    refused,
    rename,
    undo,
)

ONES, TWOS, NOBODYS = (SecretRef(SecretId(f"s-{n}")) for n in (1, 2, 3))
ONE, TWO = Machine(number=1, user_data=ONES), Machine(number=2, user_data=TWOS)


async def _left(store: Store) -> set[SecretRef]:
    found = set()
    for ref in (ONES, TWOS, NOBODYS):
        with contextlib.suppress(KeyError):  # that it is gone is what the caller asks
            await store.secrets.redeem(ref)
            found.add(ref)
    return found


async def _two(store: Store) -> None:
    await store.secrets.seal({ONES: b"one", TWOS: b"two"})
    await accepted(store, launch(ONE), "op-1")
    await accepted(store, launch(TWO), "op-2")


async def test_a_secret_goes_with_its_instance(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await _two(store)
        for work in await store.works.take(2):
            await finish(store, work)
        assert await _left(store) == {ONES, TWOS}
        await accepted(store, delete(ONE.row()), "op-3")
        assert await _left(store) == {ONES, TWOS}, "it may yet be undone"
        await finish(store, (await store.works.take(1))[0])
        assert await _left(store) == {TWOS}


async def test_a_secret_goes_with_a_launch_that_was_undone(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await _two(store)
        await undo(store, (await store.works.take(1))[0])
        assert await _left(store) == {TWOS}


async def test_a_shared_secret_goes_with_the_last_that_needs_it(tmp_path: Path) -> None:
    """Whichever way they go: undone, or deleted in this life or the next."""
    shared = [replace(ONE, number=n) for n in (1, 2, 3)]
    async with furnished(tmp_path) as store:
        await store.secrets.seal({ONES: b"one"})
        for machine in shared:
            await accepted(store, launch(machine), f"op-{machine.number}")
        first, *others = await store.works.take(3)
        await undo(store, first)
        assert await _left(store) == {ONES}
        for work in others:
            await finish(store, work)
        await accepted(store, delete(shared[1].row()), "op-4")
        await finish(store, (await store.works.take(1))[0])
        assert await _left(store) == {ONES}
    async with opened(tmp_path) as store:
        assert store.mended == ()
        await accepted(store, delete(shared[2].row()), "op-5")
        assert await _left(store) == {ONES}, "it may yet be undone"
        await finish(store, (await store.works.take(1))[0])
        assert await _left(store) == set()


async def test_a_secret_stays_through_every_other_change(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await _two(store)
        for work in await store.works.take(2):
            await finish(store, work)
        await accepted(store, rename(ONE.row(), "shop"), "op-3")
        await refused(store, launch(replace(TWO, number=9, name="shop")), "op-4")
        await finish(store, (await store.works.take(1))[0])
    async with opened(tmp_path) as store:
        assert store.mended == ()
        assert await _left(store) == {ONES, TWOS}


@pytest.mark.parametrize("point", [1, 2])
async def test_row_and_secret_go_in_one_commit(tmp_path: Path, point: int) -> None:
    """Killed before or after the commit that drops the row: the file holds both, or neither."""
    async with furnished(tmp_path) as store:
        await _two(store)
        for work in await store.works.take(2):
            await finish(store, work)
        await accepted(store, delete(ONE.row()), "op-3")
    armed: list[int] = []

    def strike(_: int) -> None:
        if armed:
            armed[0] -= 1
            if armed[0] == 0:
                raise ZeroDivisionError("killed")

    async with opened(tmp_path, on_commit=strike) as store:
        work = (await store.works.take(1))[0]
        for done in (1, 2):
            assert await store.works.record(noted(work.operation.id, Moment.STEP_DONE, OperationState.RUNNING, done))
        armed.append(point)
        with pytest.raises(ZeroDivisionError):
            await store.works.record(noted(work.operation.id, Moment.ENDED, OperationState.SUCCEEDED, 2))
    async with opened(tmp_path) as store:
        assert store.mended == (), "nothing had to be swept"
        there = ONE.instance in store.pictures.cluster().instances
        assert there is (point == 1)
        assert await _left(store) == ({ONES, TWOS} if there else {TWOS})


async def test_what_nothing_refers_to_is_swept_at_open(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await store.secrets.seal({ONES: b"one", NOBODYS: b"nobody's"})
        await accepted(store, launch(ONE), "op-1")
        assert await _left(store) == {ONES, NOBODYS}
    async with opened(tmp_path) as store:
        (said,) = store.mended
        assert "1 sealed secrets" in said
        assert await _left(store) == {ONES}
    async with opened(tmp_path) as store:
        assert store.mended == ()


async def test_what_only_an_unended_plan_refers_to_is_kept(tmp_path: Path) -> None:
    """A plan whose row comes with its end: until then only the plan knows of the secret."""
    whole = launch(ONE)
    late: Plan = replace(whole, accept=whole.accept[1:], steps=(), retreat=(), finish=(Put(noun=ONE.row()),))
    ordered = replace(launch(TWO), accept=(), retreat=(), abandon=())
    async with furnished(tmp_path) as store:
        await store.secrets.seal({ONES: b"one", TWOS: b"two", NOBODYS: b"nobody's"})
        await accepted(store, late, "op-1")
        await accepted(store, ordered, "op-2")
    async with opened(tmp_path) as store:
        assert await _left(store) == {ONES, TWOS}
        await finish(store, (await store.works.take(1))[0])
        await undo(store, (await store.works.take(1))[0])
    async with opened(tmp_path) as store:
        assert await _left(store) == {ONES}


async def test_marks_tell_texts_apart_under_one_key(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    async with furnished(here) as store:
        mark = store.secrets.mark(b"a request")
        assert store.secrets.mark(b"another") != mark
    async with opened(here) as store:
        assert store.secrets.mark(b"a request") == mark
    async with furnished(there) as elsewhere:
        assert elsewhere.secrets.mark(b"a request") != mark
