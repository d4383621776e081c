"""Accepting plans: what stands, what is stale and why, and that what is stale leaves no trace."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.model.host import HostFacts
from innkeeper.model.ids import OperationId
from innkeeper.model.instance import Size, Wanted
from innkeeper.model.plans import Drop, Expect, Plan, Put
from innkeeper.model.work import Moment, Operation, OperationState, Stale, Submission
from innkeeper.store.store import Store
from tests.jobs.store.plans import (
    FACTS,
    HOST,
    NETWORK,
    SIZE,
    Machine,
    accepted,
    delete,
    finish,
    furnished,
    launch,
    noted,
    opened,
    plain,
    refused,
    rename,
    set_up,
    submission,
    submitted,
    undo,
)

ONE, TWO = Machine(number=1), Machine(number=2)


async def test_an_accepted_plan_is_in_the_picture_with_its_claims(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        before = store.pictures.cluster().revision
        operation = await accepted(store, launch(ONE), "op-1")
        cluster = store.pictures.cluster()
        assert cluster.instances[ONE.instance] == ONE.row()
        assert {str(ref): held for ref, held in cluster.claims.items()} == {
            str(ref): "op-1" for ref in launch(ONE).claims
        }
        assert cluster.usage[HOST].vcpus == 1
        assert dict(cluster.addresses[NETWORK]) == {ONE.nic.addresses[0]: ONE.nic.id}
        assert operation.state is OperationState.PENDING
        assert operation.steps == 4
        assert before < operation.revision <= cluster.revision


RIVALS = {
    "instance name web1": replace(TWO, name="web1"),
    "address 10.0.0.1": replace(TWO, address="10.0.0.1"),
    "MAC 52:54:00:00:00:01": replace(TWO, mac="52:54:00:00:00:01"),
    "user slot 1": replace(TWO, slot=1),
}


@pytest.mark.parametrize("what", RIVALS)
async def test_what_only_one_may_hold_is_given_once(tmp_path: Path, what: str) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        before = store.pictures.cluster()
        stale = await refused(store, launch(RIVALS[what]), "op-2")
        assert what in stale.what
        assert "taken by" in stale.what
        assert store.pictures.cluster() == before


@pytest.mark.parametrize("what", RIVALS)
@pytest.mark.parametrize("together", [True, False])
async def test_of_two_racing_planners_exactly_one_wins(tmp_path: Path, what: str, *, together: bool) -> None:
    """Both planned on the same picture; they arrive in one call, or in two that wait together."""
    async with furnished(tmp_path) as store:
        rivals = [submission(launch(ONE), "op-1"), submission(launch(RIVALS[what]), "op-2")]
        answers = await _race(store, rivals, together=together)
        assert sorted(type(answer).__name__ for answer in answers) == ["Operation", "Stale"]
        assert len(store.pictures.cluster().instances) == 1


async def _race(store: Store, rivals: list[Submission], *, together: bool) -> list[Operation | Stale]:
    if together:
        return list(await store.works.submit(rivals))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(store.works.submit([rival])) for rival in rivals]
    return [task.result()[0] for task in tasks]


@pytest.mark.parametrize(
    "facts, word",
    [
        (replace(FACTS, vcpus=1, memory_mib=4096), "vCPUs"),
        (replace(FACTS, memory_mib=1024), "MiB of memory"),
        (replace(FACTS, disk_gib=8), "GiB of disk"),
    ],
)
async def test_the_last_room_is_given_once(tmp_path: Path, facts: HostFacts, word: str) -> None:
    """Room for four; five ask at once."""
    async with furnished(tmp_path, facts=facts) as store:
        rivals: list[Submission] = [submission(launch(Machine(number=n)), f"op-{n}") for n in range(1, 6)]
        answers = await _race(store, rivals, together=False)
        stale = [answer for answer in answers if isinstance(answer, Stale)]
        assert len(stale) == 1
        assert f"host here has no room: 0 {word} are left" in stale[0].what
        assert store.pictures.cluster().usage[HOST].instances == 4


async def test_a_host_that_has_not_reported_has_no_room(tmp_path: Path) -> None:
    async with furnished(tmp_path, facts=None) as store:
        assert "no room" in (await refused(store, launch(ONE), "op-1")).what


async def test_room_comes_back_with_what_is_dropped(tmp_path: Path) -> None:
    async with furnished(tmp_path, facts=replace(FACTS, disk_gib=2)) as store:
        await accepted(store, launch(ONE), "op-1")
        await refused(store, launch(TWO), "op-2")
        await undo(store, (await store.works.take(1))[0])
        await accepted(store, launch(TWO), "op-3")
    async with opened(tmp_path) as store:
        assert store.mended == ()
        await refused(store, launch(ONE), "op-4")


async def test_what_stands_may_change_on_a_host_that_has_shrunk(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        await finish(store, (await store.works.take(1))[0])
        cluster = store.pictures.cluster()
        smaller = replace(cluster.hosts[HOST], facts=replace(FACTS, disk_gib=1), generation=2)
        plan = replace(set_up(), expects=(), claims=(), accept=(Put(noun=smaller),))
        await accepted(store, plan, "op-2")
        await accepted(store, rename(ONE.row(), "other"), "op-3")
        await refused(store, launch(TWO), "op-4")


async def test_growing_needs_room_too(tmp_path: Path) -> None:
    async with furnished(tmp_path, facts=replace(FACTS, memory_mib=512)) as store:
        await accepted(store, launch(ONE), "op-1")
        bigger = replace(ONE.row(), generation=2, size=replace(SIZE, memory_mib=513))
        plan = replace(rename(ONE.row(), "web1"), accept=(Put(noun=bigger),), takes_over=True)
        assert "256 MiB of memory are left, 257 MiB more" in (await refused(store, plan, "op-2")).what
        assert store.pictures.cluster().claims[ONE.row().ref] == "op-1"


@pytest.mark.parametrize(
    "expect, words",
    [
        (Expect(ref=ONE.row().ref, generation=None), "instance web1 exists by now"),
        (Expect(ref=ONE.row().ref, generation=7), r"instance web1 has changed meanwhile \(generation 1, planned for 7"),
        (Expect(ref=TWO.row().ref, generation=1), "instance i-000000000002 is gone"),
    ],
)
async def test_expectations_are_checked(tmp_path: Path, expect: Expect, words: str) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        await finish(store, (await store.works.take(1))[0])
        before = store.pictures.cluster()
        stale = await refused(store, replace(rename(ONE.row(), "other"), expects=(expect,)), "op-2")
        assert stale.busy is None
        with pytest.raises(AssertionError, match=words):
            raise AssertionError(stale.what)
        assert store.pictures.cluster() == before


async def test_a_claimed_object_is_busy(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        assert await refused(store, rename(ONE.row(), "other"), "op-2") == Stale(
            what="instance web1 is busy", busy=OperationId("op-1")
        )


async def test_later_submissions_build_on_earlier_ones(tmp_path: Path) -> None:
    """Even in one call: the name that the first gives up is free for the second."""
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        await finish(store, (await store.works.take(1))[0])
        answers = await store.works.submit(
            [
                submission(rename(ONE.row(), "old"), "op-2"),
                submission(launch(replace(TWO, name="old")), "op-3"),
                submission(launch(replace(TWO, name="web1")), "op-4"),
            ]
        )
        assert [type(answer) for answer in answers] == [Operation, Stale, Operation]
        cluster = store.pictures.cluster()
        assert {i.name for i in cluster.instances.values()} == {"old", "web1"}
    async with opened(tmp_path) as store:
        assert store.mended == ()
        assert plain(store.pictures.cluster()) == plain(cluster)


async def test_names_may_be_handed_round_within_a_plan(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        await accepted(store, launch(TWO), "op-2")
        swap = (Put(noun=replace(ONE.row(), name="web2")), Put(noun=replace(TWO.row(), name="web1")))
        plan = replace(rename(ONE.row(), "web2"), accept=swap, claims=())
        await accepted(store, plan, "op-3")
        cluster = store.pictures.cluster()
        assert cluster.instances[ONE.instance].name == "web2"
        stolen = replace(plan, accept=(Put(noun=replace(ONE.row(), name="web1")),))
        assert "taken by instance web1" in (await refused(store, stolen, "op-4")).what
    async with opened(tmp_path) as store:
        assert store.mended == ()
        assert plain(store.pictures.cluster()) == plain(cluster)


async def test_two_rows_of_one_plan_do_not_share_a_name(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        both = replace(launch(ONE), accept=(Put(noun=ONE.row()), Put(noun=replace(TWO.row(), name="web1"))))
        assert "instance name web1" in (await refused(store, both, "op-1")).what


# --- idempotency


async def test_a_known_key_answers_with_the_earlier_operation(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        first = await submitted(store, launch(ONE), "op-1", key="k")
        again = await submitted(store, launch(TWO), "op-2", key="k")
        assert again == first
        (other,) = await store.works.submit([submission(launch(TWO), "op-3", key="k", principal="somebody else")])
        assert isinstance(other, Operation)
        assert other.id == "op-3"
        for work in await store.works.take(2):
            await finish(store, work)
    async with opened(tmp_path) as store:
        found = await submitted(store, launch(ONE), "op-4", key="k")
        assert isinstance(found, Operation)
        assert (found.id, found.state) == ("op-1", OperationState.SUCCEEDED)
        assert len(store.pictures.cluster().instances) == 2


@pytest.mark.parametrize("together", [True, False])
async def test_a_key_counts_within_a_batch(tmp_path: Path, *, together: bool) -> None:
    async with furnished(tmp_path) as store:
        twins: list[Submission] = [submission(launch(ONE), "op-1", key="k"), submission(launch(TWO), "op-2", key="k")]
        answers = await _race(store, twins, together=together)
        assert [getattr(answer, "id", None) for answer in answers] == ["op-1", "op-1"]
        assert len(store.pictures.cluster().instances) == 1


async def test_the_same_submission_twice_is_one_operation(tmp_path: Path) -> None:
    """Without a key, too: whoever was not sure of his answer may ask again while the operation runs."""
    async with furnished(tmp_path) as store:
        first = await accepted(store, launch(ONE), "op-1")
        assert await accepted(store, launch(ONE), "op-1") == first
        assert len(await store.works.take(5)) == 1


async def test_the_key_of_what_was_stale_is_free(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        assert isinstance(await submitted(store, launch(replace(TWO, slot=1)), "op-2", key="k"), Stale)
        again = await submitted(store, launch(TWO), "op-2", key="k")
        assert isinstance(again, Operation)


# --- taking over


async def test_force_takes_the_claims_over(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        (work,) = await store.works.take(1)
        assert not store.works.cancel_wanted(work.operation.id)
        step = noted(work.operation.id, Moment.STEP_DONE, OperationState.RUNNING, 1)
        assert await store.works.record(step)

        await accepted(store, delete(ONE.row(), force=True), "op-2")
        assert set(store.pictures.cluster().claims.values()) == {"op-2"}
        assert store.works.cancel_wanted(work.operation.id)
        old = await store.journal.operation("op-1")
        assert old is not None
        assert (old.state, old.error, old.done) == (OperationState.CANCELLED, "taken over by op-2", 1)
        assert not await store.works.record(step)
        assert not await undo(store, work)
        assert store.pictures.cluster().instances[ONE.instance].wanted is Wanted.ABSENT

        (work,) = await store.works.take(5)
        assert work.operation.id == "op-2"
        assert await finish(store, work)
        cluster = store.pictures.cluster()
        assert not cluster.instances
        assert not cluster.claims
        assert not cluster.macs
    async with opened(tmp_path) as store:
        assert store.mended == ()
        assert plain(store.pictures.cluster()) == plain(cluster)


async def test_what_was_taken_over_before_it_began_is_never_handed_out(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await store.works.submit(
            [submission(launch(ONE), "op-1", key="k"), submission(delete(ONE.row(), force=True), "op-2")]
        )
        assert [work.operation.id for work in await store.works.take(5)] == ["op-2"]
        ended = await submitted(store, launch(ONE), "op-3", key="k")
        assert isinstance(ended, Operation)
        assert ended.state is OperationState.CANCELLED


async def test_all_claims_of_the_holder_are_free_afterwards(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        await accepted(store, launch(ONE), "op-1")
        plan = replace(rename(ONE.row(), "other"), takes_over=True)
        await accepted(store, plan, "op-2")
        assert set(store.pictures.cluster().claims) == {ONE.row().ref}


# --- callers who are wrong


async def test_a_plan_that_cannot_be_written_concerns_only_its_caller(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        unwritable = replace(ONE.row(), labels={"a": object()})  # type: ignore[dict-item]
        poison = replace(launch(ONE), accept=(Put(noun=unwritable),))
        async with asyncio.TaskGroup() as group:
            good = group.create_task(store.works.submit([submission(launch(TWO), "op-2")]))
            bad = group.create_task(_outcome(store, poison))
            late = group.create_task(store.works.submit([submission(launch(Machine(number=3)), "op-3")]))
        assert isinstance(bad.result(), TypeError)
        assert [isinstance(task.result()[0], Operation) for task in (good, late)] == [True, True]
        assert set(store.pictures.cluster().instances) == {TWO.instance, Machine(number=3).instance}
        assert await store.journal.operation("op-1") is None


async def _outcome(store: Store, plan: Plan) -> object:
    try:
        return await submitted(store, plan, "op-1")
    except TypeError as error:
        return error


async def test_dropping_what_is_not_there_is_no_event(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        before = store.pictures.cluster()
        plan = replace(set_up(), expects=(), claims=(), accept=(Drop(ref=ONE.row().ref),))
        operation = await accepted(store, plan, "op-1")
        assert operation.revision == before.revision + 1


async def test_sizes_are_counted_as_they_are(tmp_path: Path) -> None:
    async with furnished(tmp_path) as store:
        big = replace(ONE, size=Size(vcpus=3, memory_mib=700, disk_gib=9))
        await accepted(store, launch(big), "op-1")
        usage = store.pictures.cluster().usage[HOST]
        assert (usage.vcpus, usage.memory_mib, usage.disk_gib, usage.instances) == (3, 700, 9, 1)
