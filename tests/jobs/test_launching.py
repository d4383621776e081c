"""Launching as a whole: what is sealed is either used or gone, parts come with their parent or not at all, and keys are
their request's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from innkeeper.control.launching import LaunchOrder
from innkeeper.model.cluster import Cluster
from innkeeper.model.codec import encode
from innkeeper.model.ids import Draw, OperationId, ProjectId
from innkeeper.model.instance import FirstBoot
from innkeeper.model.plans import Plan, Refusal, Verb, Why
from innkeeper.model.work import Operation, OperationState, Several, Submission
from innkeeper.plan.delete import delete
from innkeeper.plan.intake.origin import LaunchWish
from innkeeper.plan.intake.user_data import check_user_data
from innkeeper.plan.launch import launch
from innkeeper.ports.store import StoreFailed
from innkeeper.sim.faults import Fault, Faults
from tests.jobs.life import ROOT, Decide, Life, Lives, footprint
from tests.jobs.wishes import SEVERAL, WITH_USER_DATA, launching, template

TOGETHER = replace(SEVERAL, all_or_none=True)


def _failing(error: Exception, times: int, then: Callable[..., Any]) -> Callable[..., Any]:
    left = [error] * times

    async def fails(*arguments: Any) -> Any:
        if left:
            raise left.pop()
        return await then(*arguments)

    return fails


async def _launches(life: Life) -> list[Operation]:
    """Without those that are parts of others."""
    return [o for o in await life.store.journal.operations(None, 100) if o.verb is Verb.LAUNCH]


@pytest.mark.parametrize("order", [WITH_USER_DATA, SEVERAL, TOGETHER], ids=["one", "several", "together"])
async def test_all_of_one_request_share_a_secret_and_twins_leave_none(order: LaunchOrder, tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        async with asyncio.TaskGroup() as group:
            twins = [group.create_task(life.launch(order, "k")) for _ in range(5)]
        first = twins[0].result()
        assert isinstance(first, Operation), first
        assert first.state is OperationState.SUCCEEDED, first
        assert {twin.result() for twin in twins} == {first}
        assert len(lives.secrets()) == 1
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
        assert await _launches(life) == []
        await template(life, lives)
        again = await life.launch(order, "k")
        assert isinstance(again, Operation), "what was refused may be asked again"
        assert again.state is OperationState.SUCCEEDED
        footprint(lives, life.cluster)


@pytest.mark.parametrize("order", [WITH_USER_DATA, SEVERAL, TOGETHER], ids=["one", "several", "together"])
async def test_a_refused_launch_seals_nothing_at_all(order: LaunchOrder, tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        failing = _failing(StoreFailed("no room on the disk"), 100, life.store.secrets.seal)
        object.__setattr__(life.store.secrets, "seal", failing)
        greedy = replace(order, wish=replace(order.wish, memory_mib=1 << 20))
        answer = await life.launch(greedy, "k")
        assert isinstance(answer, Refusal)
        assert answer.why is Why.NO_ROOM, answer
        with pytest.raises(StoreFailed):
            await life.launch(order, "k")


@pytest.mark.parametrize("order", [SEVERAL, TOGETHER], ids=["several", "together"])
async def test_a_shared_secret_outlives_those_that_fail_and_goes_with_the_last(
    order: LaunchOrder, tmp_path: Path
) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
    seen = set()
    for number in range(1, 15):
        async with lives.living(faults=Faults(orders={number: Fault.REFUSE})) as life:
            ended = await life.launch(order)
            assert isinstance(ended, Operation)
            await life.settled()
            seen.add(len(life.cluster.instances))
        async with lives.living() as life:
            await life.mend()
            for name in [row.name for row in life.cluster.instances.values()]:
                assert len(lives.secrets()) == 1
                await life.wish(_deleting(name))
            assert lives.secrets() == set()
    assert seen == ({2, 3} if order is SEVERAL else {0, 3})


def _deleting(name: str) -> Decide:
    def decide(cluster: Cluster, draw: Draw, now: float) -> Plan | Refusal:
        found = next(row for row in cluster.instances.values() if row.name == name)
        return delete(cluster, found, force=True)

    return decide


async def test_others_are_served_while_user_data_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that began goes on only once the loop has turned meanwhile."""
    lives, began, turned = Lives(tmp_path), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(data: bytes) -> str | None:
        loop.call_soon_threadsafe(began.set)
        assert turned.wait(20), "the loop stood still"
        return check_user_data(data)

    async def others() -> None:
        for _ in range(2):
            await began.wait()
            began.clear()
            turned.set()

    monkeypatch.setattr("innkeeper.control.launching.check_user_data", slow)
    async with lives.living() as life:
        await template(life, lives)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(others())
            rehearsed = await life.launching.rehearse(ROOT, life.project, WITH_USER_DATA, 0.0)
            turned.clear()
            launched = await life.launch(WITH_USER_DATA)
            await task
    assert not isinstance(rehearsed, Refusal)
    assert isinstance(launched, Operation)
    assert launched.state is OperationState.SUCCEEDED


async def test_more_keys_than_fit_into_an_order_are_refused(tmp_path: Path) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHg6kUb8AIbcUmsuXuIdUEnxsK83HpE9EDJSHJj9dPMf"
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        for keys, says in (([key] * 101, "101 SSH keys"), ([f"{key} {'ß' * 6000}"], "characters together")):
            order = LaunchOrder(wish=LaunchWish(template="tiny", first_boot=FirstBoot(ssh_keys=tuple(keys))))
            refusal = await life.launch(order)
            assert isinstance(refusal, Refusal)
            assert says in refusal.reason
        most = tuple(f"{key} {'ß' * 30}" for _ in range(100))
        wish = LaunchWish(template="tiny", first_boot=FirstBoot(ssh_keys=most))
        assert isinstance(await life.launch(LaunchOrder(wish=wish)), Operation)
        (seed,) = lives.state.seeds.values()
        assert len(encode(seed.action)) < 60 << 10, "an order stays below 64 KiB"


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


# --- several


async def test_of_parts_that_cannot_be_sealed_nothing_is_known(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        seal = life.store.secrets.seal
        object.__setattr__(life.store.secrets, "seal", _failing(StoreFailed("no room on the disk"), 1, seal))
        with pytest.raises(StoreFailed):
            await life.launch(SEVERAL, "k")
        assert await _launches(life) == []
        again = await life.launch(SEVERAL, "k")
        assert isinstance(again, Operation)
        assert again.state is OperationState.SUCCEEDED, again


async def test_of_parts_that_the_store_does_not_take_nothing_stays(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        submit = life.store.works.submit
        object.__setattr__(life.store.works, "submit", _failing(StoreFailed("no room on the disk"), 1, submit))
        answer = await life.launch(SEVERAL, "k")
        assert isinstance(answer, Refusal)
        assert answer.why is Why.UNAVAILABLE
        assert await _launches(life) == []
        assert lives.secrets() == set()
        again = await life.launch(SEVERAL, "k")
        assert isinstance(again, Operation)
        assert again.state is OperationState.SUCCEEDED, again


async def test_an_asker_who_goes_away_leaves_all_parts_behind(tmp_path: Path) -> None:
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
            asking = group.create_task(life.launch(SEVERAL, "k"))
            await reached.wait()
            asking.cancel()
        assert asking.cancelled()
        object.__setattr__(life.store.works, "submit", submit)
        again = await life.launch(SEVERAL, "k")  # the submitter lives
        assert isinstance(again, Operation)
        assert (again.state, again.done, again.steps) == (OperationState.SUCCEEDED, 3, 3), again
        assert [launch.id for launch in await _launches(life)] == [again.id]
        footprint(lives, life.cluster)


async def test_what_cannot_be_planned_is_counted_and_the_others_go_on(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        await life.wish(launching("web-2"))
        ended = await life.launch(SEVERAL, "k")
        assert isinstance(ended, Operation)
        assert (ended.state, ended.done, ended.steps) == (OperationState.FAILED, 3, 3)
        assert ended.error.startswith("1 of 3 failed: there is an instance named web-2 already"), ended.error
        assert {row.name for row in life.cluster.instances.values()} == {"web-1", "web-2", "web-3"}
        assert await life.launch(SEVERAL, "k") == ended
        footprint(lives, life.cluster)


async def test_a_fault_in_one_part_is_counted_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)

        def faulty(cluster: Cluster, project: ProjectId, wish: LaunchWish, draw: Draw, now: float) -> Plan | Refusal:
            if wish.name == "web-2":
                raise ZeroDivisionError("nobody thought of this")
            return launch(cluster, project, wish, draw, now)

        monkeypatch.setattr("innkeeper.control.launching.launch", faulty)
        ended = await life.launch(SEVERAL)
        assert isinstance(ended, Operation)
        assert (ended.state, ended.done, ended.steps) == (OperationState.FAILED, 3, 3)
        assert "1 of 3 failed: a fault in Innkeeper itself" in ended.error
        assert len(life.cluster.instances) == 2
        footprint(lives, life.cluster)


class Rivals:
    """Whenever several are submitted, somebody else has launched one of their names just before, to the end."""

    def __init__(self, life: Life, names: list[str]) -> None:
        self._life = life
        self._names = names
        self._submit = life.store.works.submit
        object.__setattr__(life.store.works, "submit", self)

    async def __call__(self, submissions: list[Submission]) -> Any:
        if self._names and isinstance(submissions[0].plan, Several):
            name, draw = self._names.pop(0), Draw(f"rival {len(self._names)}".encode())
            plan = launching(name)(self._life.cluster, draw, 0.0)
            assert isinstance(plan, Plan), plan
            rival = replace(submissions[0], operation=OperationId(draw.id("op")), plan=plan, key=None)
            await self._submit([rival])
            await self._life.store.journal.wait_ended(rival.operation, 30)
        return await self._submit(submissions)


async def test_several_are_planned_again_as_a_whole_when_one_is_stale(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        Rivals(life, ["web-2"])
        ended = await life.launch(SEVERAL, "k")
        assert isinstance(ended, Operation)
        assert (ended.state, ended.done, ended.steps) == (OperationState.FAILED, 3, 3)
        assert ended.error.startswith("1 of 3 failed: there is an instance named web-2 already"), ended.error
        children = await life.store.journal.children(ended.id)
        assert [child.title for child in children] == [f"launch web-{n} from tiny:1" for n in (1, 3)]
        await life.settled()
        assert len(life.cluster.instances) == 3
        assert len(lives.secrets()) == 1
        footprint(lives, life.cluster)


async def test_several_that_are_stale_again_and_again_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        names = [f"web-{n}" for n in range(1, 6)]
        Rivals(life, names)
        answer = await life.launch(replace(SEVERAL, count=9), "k")
        assert isinstance(answer, Refusal)
        assert answer.why is Why.BUSY
        assert "5 times in a row" in answer.reason
        assert names == []
        await life.settled()
        assert len(life.cluster.instances) == len(await _launches(life)) == 5, "the rivals', and nobody else's"
        assert lives.secrets() == set()
        again = await life.launch(replace(SEVERAL, count=9), "k")
        assert isinstance(again, Operation)
        assert (again.state, again.error[:14]) == (OperationState.FAILED, "5 of 9 failed:")


@pytest.mark.parametrize("order", [SEVERAL, TOGETHER], ids=["several", "together"])
async def test_nobody_is_refused_for_what_a_twin_would_have_taken(order: LaunchOrder, tmp_path: Path) -> None:
    """64 GiB: thrice ten, and twenty; with the twin's share it would be too much."""
    lives = Lives(tmp_path)
    async with lives.living() as life:
        await template(life, lives)
        order = replace(order, wish=LaunchWish(template="tiny", memory_mib=10 * 1024), user_data=None)
        other = LaunchOrder(wish=LaunchWish(template="tiny", memory_mib=20 * 1024))
        async with asyncio.TaskGroup() as group:
            twins = [group.create_task(life.launch(order, "k")) for _ in range(2)]
            # Who asks for several looks for its key first: this one is to stand behind both, in the same batch.
            while life.submitter._waiting.qsize() < 2 and not life.cluster.instances:
                await asyncio.sleep(0)
            third = group.create_task(life.launch(other))
        assert twins[0].result() == twins[1].result()
        for answer in (twins[0].result(), third.result()):
            assert isinstance(answer, Operation), answer
            assert answer.state is OperationState.SUCCEEDED, answer
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
