"""Launching as a whole: what is sealed is either used or gone, parents are closed, and keys are their request's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from innkeeper.control.launching import LaunchOrder
from innkeeper.control.submit import Asking
from innkeeper.model.ids import OperationId
from innkeeper.model.plans import Refusal, Why
from innkeeper.model.work import Operation, OperationState, Submission
from innkeeper.plan.launch import LaunchWish
from innkeeper.ports.store import StoreFailed
from tests.jobs.life import ROOT, Life, Lives, footprint
from tests.jobs.wishes import WITH_USER_DATA, template

SEVERAL = replace(WITH_USER_DATA, count=3)
TOGETHER = replace(SEVERAL, all_or_none=True)


def _failing(error: Exception, times: int, then: Callable[..., Any]) -> Callable[..., Any]:
    left = [error] * times

    async def fails(*arguments: Any) -> Any:
        if left:
            raise left.pop()
        return await then(*arguments)

    return fails


async def _parents(life: Life) -> list[Operation]:
    return [o for o in await life.store.journal.operations(None, 100) if await life.store.journal.children(o.id)]


@pytest.mark.parametrize("order", [WITH_USER_DATA, SEVERAL, TOGETHER], ids=["one", "several", "together"])
async def test_each_instance_has_its_secret_and_twins_leave_none(order: LaunchOrder, tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        async with asyncio.TaskGroup() as group:
            twins = [group.create_task(life.launch(order, "k")) for _ in range(5)]
        first = twins[0].result()
        assert isinstance(first, Operation), first
        assert first.state is OperationState.SUCCEEDED, first
        assert {twin.result() for twin in twins} == {first}
        assert len(lives.secrets()) == order.count
        footprint(lives, life.cluster)
        assert {seed.user_data for seed in lives.state.seeds.values()} == {order.user_data}


@pytest.mark.parametrize("order", [WITH_USER_DATA, SEVERAL, TOGETHER], ids=["one", "several", "together"])
async def test_a_refused_launch_leaves_no_secret(order: LaunchOrder, tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        answer = await life.launch(order, "k")
        assert isinstance(answer, Refusal)
        assert answer.why is Why.NOT_FOUND
        assert lives.secrets() == set()
        await template(life, lives)
        again = await life.launch(order, "k")
        assert isinstance(again, Operation), "what was refused may be asked again"
        assert again.state is OperationState.SUCCEEDED
        footprint(lives, life.cluster)


async def test_a_known_key_is_answered_before_anything_is_sealed(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        first = [await life.launch(order, order.wish.name) for order in _three()]
        failing = _failing(StoreFailed("no room on the disk"), 100, life.store.secrets.seal)
        object.__setattr__(life.store.secrets, "seal", failing)
        assert [await life.launch(order, order.wish.name) for order in _three()] == first
        with pytest.raises(StoreFailed):
            await life.launch(WITH_USER_DATA, "another")


def _three() -> tuple[LaunchOrder, ...]:
    named = {"one": WITH_USER_DATA, "several": SEVERAL, "together": TOGETHER}
    return tuple(replace(order, wish=LaunchWish(template="tiny", name=name)) for name, order in named.items())


# --- parents


async def test_a_parent_is_closed_when_its_parts_cannot_be_sealed(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        seal = life.store.secrets.seal
        object.__setattr__(life.store.secrets, "seal", _failing(StoreFailed("no room on the disk"), 1, seal))
        with pytest.raises(StoreFailed):
            await life.launch(SEVERAL, "k")
        newest = (await life.store.journal.operations(None, 1))[0]
        assert (newest.state, newest.done, newest.steps) == (OperationState.FAILED, 3, 3)
        assert "the request ended before this part was accepted" in newest.error
        again = await life.launch(SEVERAL, "k")
        assert isinstance(again, Operation)
        assert again.state is OperationState.SUCCEEDED, again


@pytest.mark.parametrize("times", [1, 3])
async def test_a_store_that_fails_is_asked_again_to_close(times: int, tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        works = life.store.works
        failing = _failing(StoreFailed("no room on the disk"), times, works.close_parent)
        object.__setattr__(works, "close_parent", failing)
        ended = await life.launch(SEVERAL)
        assert isinstance(ended, Operation)
        assert (ended.state, ended.steps) == (OperationState.SUCCEEDED, 3), ended


async def test_a_parent_that_could_not_be_closed_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        works = life.store.works
        failing = _failing(StoreFailed("no room on the disk"), 100, works.close_parent)
        object.__setattr__(works, "close_parent", failing)
        answer = await life.launching.launch(ROOT, SEVERAL, life.asking())
        assert isinstance(answer, Operation), "its parts are carried out all the same"
        assert answer.state is OperationState.PENDING
        for child in await life.store.journal.children(answer.id):
            await life.store.journal.wait_ended(child.id, 30)
        ended = await works.cancel(answer.id)
        assert ended is not None
        assert (ended.state, ended.steps) == (OperationState.SUCCEEDED, 3)
        footprint(lives, life.cluster)


async def test_an_asker_who_goes_away_leaves_no_open_parent(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        submit, reached = life.store.works.submit, asyncio.Event()

        async def slow(submissions: list[Submission]) -> Any:
            reached.set()
            await asyncio.sleep(0.05)
            return await submit(submissions)

        object.__setattr__(life.store.works, "submit", slow)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(life.launch(SEVERAL))
            await reached.wait()
            asking.cancel()
        assert asking.cancelled()
        newest = (await life.store.journal.operations(None, 1))[0]
        assert (newest.state, newest.done, newest.steps) == (OperationState.FAILED, 3, 3)
        await life.settled()
        assert await _parents(life) == [], "no part was accepted after it was closed"
        object.__setattr__(life.store.works, "submit", submit)
        again = await life.launch(SEVERAL)  # the submitter lives
        assert isinstance(again, Operation)
        assert again.state is OperationState.SUCCEEDED, again
    async with lives.living() as life:
        footprint(lives, life.cluster)


async def test_a_fault_in_one_part_is_counted_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        submit, calls = life.submitter.submit, list[OperationId | None]()

        async def faulty(decide: Any, asking: Asking) -> Operation | Refusal:
            calls.append(asking.parent)
            if len(calls) == 2:
                raise ZeroDivisionError("nobody thought of this")
            return await submit(decide, asking)

        monkeypatch.setattr(life.submitter, "submit", faulty)
        ended = await life.launch(SEVERAL)
        assert isinstance(ended, Operation)
        assert (ended.state, ended.done, ended.steps) == (OperationState.FAILED, 3, 3)
        assert "1 of 3 failed: a fault in Innkeeper itself" in ended.error
        assert len(life.cluster.instances) == 2
        footprint(lives, life.cluster)


# --- keys


@pytest.mark.parametrize("order", [WITH_USER_DATA, SEVERAL, TOGETHER], ids=["one", "several", "together"])
async def test_a_key_with_another_request_is_refused_and_names_the_earlier_operation(
    order: LaunchOrder, tmp_path: Path
) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        first = await life.launching.launch(ROOT, order, life.asking("k", "a request"))
        assert isinstance(first, Operation)
        plain = replace(order, user_data=None)
        for other in (order, plain, replace(plain, wish=LaunchWish(template="tiny", name="free"))):
            answer = await life.launching.launch(ROOT, other, life.asking("k", "another"))
            assert isinstance(answer, Refusal)
            assert answer.why is Why.INVALID
            assert first.id in answer.reason
        for asked in ("a request", ""):  # who does not say what he asked is believed
            same = await life.launching.launch(ROOT, order, life.asking("k", asked))
            assert isinstance(same, Operation)
            assert same.id == first.id
        await life.settled()
        assert len(life.cluster.instances) == order.count
        footprint(lives, life.cluster)
    async with lives.living() as life:
        answer = await life.launching.launch(ROOT, order, life.asking("k", "another"))
        assert isinstance(answer, Refusal), "also in the next life"
