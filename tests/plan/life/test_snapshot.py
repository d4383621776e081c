"""Snapshots: what is planned, what is refused, and what the rows say at each end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from innkeeper.model.actions import CreateDisk, DeleteDisk, StartMachine, StopMachine, TakeSnapshot
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Disk
from innkeeper.model.ids import VolumeId
from innkeeper.model.instance import Instance, Snapshot, Taken, Volume, Wanted
from innkeeper.model.observed import Phase, SnapshotState
from innkeeper.model.plans import NoUndo, Plan, Refusal, Why
from innkeeper.plan.delete import delete
from innkeeper.plan.disks import snapshot as planner
from innkeeper.plan.disks.layers import needless
from innkeeper.plan.disks.snapshot import LAYERS_MOST, delete_snapshot, restore, take
from innkeeper.plan.intake.origin import LaunchWish
from innkeeper.plan.launch import launch, launch_together
from innkeeper.plan.names import find_snapshot
from innkeeper.plan.power import restart
from innkeeper.plan.template import delete_template, publish
from tests.plan.clusters import (
    MINE,
    NOW,
    TINY,
    claimed,
    done,
    draw,
    leaving,
    planned,
    refused,
    same,
    seen,
    standing,
    undone,
    with_rows,
)


def taken(cluster: Cluster, instance: Instance, name: str) -> tuple[Cluster, Snapshot]:
    """A snapshot more, whose host has told of it."""
    plan = planned(take(cluster, cluster.instances[instance.id], name, draw((name, instance.id)), NOW))
    after = done(cluster, plan)
    made = next(s for s in after.snapshots_by_age(instance.id) if s.name == name)
    tell = SnapshotState(snapshot=made.id, host=made.host, seq=1, taken=Taken(stored_bytes=7, consistent=True))
    after = after.seen(tell)
    return after, after.snapshots[made.id]


def tree(phase: Phase = Phase.RUNNING) -> tuple[Cluster, Instance, Snapshot, Snapshot]:
    """web, over second, over first."""
    cluster, web = standing(phase)
    cluster, first = taken(cluster, web, "first")
    cluster, second = taken(cluster, web, "second")
    return cluster, cluster.instances[web.id], first, second


def root(cluster: Cluster, instance: Instance) -> Volume:
    return cluster.volumes[cluster.instances[instance.id].hardware.disks()[0].volume]


def actions(plan: Plan) -> list[type]:
    return [type(s.action) for s in plan.steps]


# --- taking


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.STARTING, Phase.PAUSED, Phase.STOPPED, Phase.CRASHED, None])
def test_the_volume_is_frozen_where_it_is(phase: Phase | None) -> None:
    cluster, web = standing(phase)
    before = root(cluster, web)
    plan = planned(take(cluster, web, "first", draw(), NOW))
    after = done(cluster, plan)
    top, frozen = root(after, web), after.volumes[before.id]
    assert (top.name, top.over, top.instance) == ("web/root", before.id, web.id)
    assert (frozen.name, frozen.instance) == (before.id, None)
    (disk,) = after.instances[web.id].hardware.disks()
    assert disk == Disk(slot=web.hardware.disks()[0].slot, volume=top.id, serial=before.id)
    assert actions(plan) == [CreateDisk, TakeSnapshot]
    assert all(s.undo is NoUndo.NO_WAY_BACK for s in plan.steps)
    assert after.disks(web.id) == (top,)


def test_what_the_guest_sees_of_its_disk_stays() -> None:
    cluster, web, *_ = tree()
    (disk,) = cluster.instances[web.id].hardware.disks()
    assert disk.label == standing()[1].hardware.disks()[0].volume


def test_all_is_as_before_when_it_is_undone() -> None:
    cluster, web = standing()
    after = undone(cluster, planned(take(cluster, web, "first", draw(), NOW)))
    back = root(after, web)
    assert after.snapshots == cluster.snapshots
    assert replace(back, generation=1) == root(cluster, web)
    assert after.instances[web.id].hardware == web.hardware
    assert same(with_rows(after, web, root(cluster, web)), cluster)


def test_a_name_is_found_where_none_was_given() -> None:
    cluster, web = standing()
    cluster, _ = taken(cluster, web, "snap0")
    cluster, _ = taken(cluster, web, "snap2")
    plan = planned(take(cluster, cluster.instances[web.id], None, draw(), NOW))
    assert plan.title == "take snapshot snap1 of web"


@pytest.mark.parametrize("name", ["2026-11-23", "before-upgrade", "v1.2", "a", "0"])
def test_names_may_be_dates(name: str) -> None:
    cluster, web = standing()
    assert isinstance(take(cluster, web, name, draw(), NOW), Plan)


@pytest.mark.parametrize("name", ["", "A", "a/b", "-a", "a-", "a b", "x" * 64, "snap-0123456789ab", "i-0123456789ab"])
def test_other_names_are_refused(name: str) -> None:
    cluster, web = standing()
    assert refused(take(cluster, web, name, draw(), NOW)).why is Why.INVALID


def test_a_name_is_given_once() -> None:
    cluster, web, first, _ = tree()
    refusal = refused(take(cluster, web, "first", draw(), NOW))
    assert first.id in refusal.reason
    assert "inn snapshot delete web first" in refusal.hint


def test_nothing_is_taken_of_what_goes_or_does_not_answer() -> None:
    assert "being deleted" in refused(take(*leaving(), "first", draw(), NOW)).reason
    assert "does not answer" in refused(take(*standing(Phase.UNKNOWN), "first", draw(), NOW)).reason


def test_a_chain_has_its_end() -> None:
    cluster, web = standing()
    for number in range(LAYERS_MOST):
        cluster, _ = taken(cluster, web, f"s{number}")
    refusal = refused(take(cluster, cluster.instances[web.id], "more", draw(), NOW))
    assert f"stands over {LAYERS_MOST} layers" in refusal.reason
    assert "publish" in refusal.hint


def test_of_several_disks_only_the_last_one_ends_the_way_back() -> None:
    cluster, web = standing()
    data = replace(root(cluster, web), id=VolumeId("vol-data"), name="web/data")
    hardware = replace(web.hardware, devices=(*web.hardware.devices, Disk(slot=6, volume=data.id)))
    web = replace(web, hardware=hardware)
    plan = planned(take(with_rows(cluster, web, data), web, "both", draw(), NOW))
    first, last, switch = plan.steps
    assert isinstance(first.undo, DeleteDisk)
    assert last.undo is NoUndo.NO_WAY_BACK
    assert isinstance(switch.action, TakeSnapshot)
    assert [chain.below[0] for chain in switch.action.chains] == list(switch.action.volumes)
    assert len(switch.action.chains) == 2


# --- restoring


def test_restoring_gives_a_new_volume_over_the_frozen_one() -> None:
    cluster, web, first, second = tree(Phase.STOPPED)
    old = root(cluster, web)
    plan = planned(restore(cluster, web, first, draw(), restart=False))
    after = done(cluster, plan)
    assert root(after, web).over == first.volumes[0]
    assert old.id not in after.volumes
    assert actions(plan) == [CreateDisk, DeleteDisk]
    assert plan.steps[0].undo is NoUndo.NO_WAY_BACK
    assert set(after.snapshots) == {first.id, second.id}
    assert after.instances[web.id].wanted is Wanted.STOPPED


def test_one_that_runs_is_started_anew() -> None:
    cluster, web, first, _ = tree()
    assert "inn rewind web first" in refused(restore(cluster, web, first, draw(), restart=False)).hint
    plan = planned(restore(cluster, web, first, draw(), restart=True))
    assert [k for k in actions(plan) if k is not DeleteDisk][:2] == [CreateDisk, StopMachine]
    (start,) = (s.action for s in plan.steps if isinstance(s.action, StartMachine))
    assert start.chains[0].below == (first.volumes[0],)
    assert start.hardware == done(cluster, plan).instances[web.id].hardware
    assert isinstance(plan.steps[0].undo, DeleteDisk), "until it is off, nothing has happened"


def test_restoring_undone_leaves_all_as_it_was() -> None:
    cluster, web, first, _ = tree()
    plan = planned(restore(cluster, web, first, draw(), restart=True))
    after = undone(cluster, plan)
    assert same(with_rows(after, web, root(cluster, web)), cluster)


def test_what_only_the_dropped_volume_needed_goes_with_it() -> None:
    cluster, web, first, second = tree(Phase.STOPPED)
    cluster = done(cluster, delete_snapshot(cluster, second))
    assert second.volumes[0] in cluster.volumes, "web stands over it"
    plan = planned(restore(cluster, web, first, draw(), restart=False))
    assert second.volumes[0] not in done(cluster, plan).volumes
    assert same(with_rows(undone(cluster, plan), web, root(cluster, web), cluster.volumes[second.volumes[0]]), cluster)


def test_nothing_is_restored_where_it_makes_no_sense() -> None:
    cluster, web, first, _ = tree(Phase.STOPPED)
    gone = replace(web, wanted=Wanted.ABSENT)
    assert "being deleted" in refused(restore(with_rows(cluster, gone), gone, first, draw(), restart=False)).reason
    hidden = with_rows(cluster, replace(cluster.templates[TINY], image=None))
    assert "is gone" in refused(restore(hidden, web, first, draw(), restart=False)).reason


# --- a new instance from one


def copy(cluster: Cluster, snapshot: str, name: str = "copy", **more: object) -> Plan | Refusal:
    wish = LaunchWish(template="", snapshot=snapshot, name=name, **more)  # type: ignore[arg-type]
    return launch(cluster, MINE, wish, draw(name), NOW)


def test_a_new_instance_stands_over_the_frozen_volume() -> None:
    cluster, web, first, _ = tree()
    plan = planned(copy(cluster, "web/first"))
    after = done(cluster, plan)
    (made,) = (i for i in after.instances.values() if i.name == "copy")
    assert root(after, made).over == first.volumes[0]
    assert made.size == web.size
    assert plan.title == "launch copy from web/first"
    (start,) = (s.action for s in plan.steps if isinstance(s.action, StartMachine))
    assert start.chains[0].below == first.volumes


def test_several_at_once_stand_over_the_same() -> None:
    cluster, _, first, _ = tree()
    wishes = tuple(LaunchWish(template="", snapshot="web/first", name=n) for n in ("a", "b"))
    plan = planned(launch_together(cluster, MINE, wishes, draw(), NOW))
    assert len({e.ref for e in plan.expects}) == len(plan.expects)
    assert {e.generation for e in plan.expects if e.ref.id == first.volumes[0]} == {
        cluster.volumes[first.volumes[0]].generation
    }
    assert len(done(cluster, plan).above[first.volumes[0]]) == 3


def test_a_deletion_that_was_planned_before_a_copy_is_stale() -> None:
    cluster, _, first, second = tree()
    deletion = delete_snapshot(cluster, second)
    assert not any(e.ref.id == first.volumes[0] for e in deletion.expects)
    cluster = done(cluster, planned(copy(cluster, "web/second")))
    cluster = done(cluster, planned(delete(cluster, cluster.instances[first.instance], force=True)))
    (made,) = cluster.instances.values()
    late = planned(delete(cluster, made, force=True))
    assert {e.ref.id: e.generation for e in late.expects}[second.volumes[0]] == 3


@pytest.mark.parametrize(
    "word, why",
    [
        ("web", Why.INVALID),
        ("web/", Why.NOT_FOUND),
        ("web/none", Why.NOT_FOUND),
        ("none/first", Why.NOT_FOUND),
        ("/first", Why.NOT_FOUND),
    ],
)
def test_what_names_no_snapshot(word: str, why: Why) -> None:
    cluster, *_ = tree()
    assert refused(copy(cluster, word)).why is why


def test_a_snapshot_in_work_is_not_built_upon() -> None:
    cluster, web, first, _ = tree()
    held = claimed(cluster, [first.ref])
    unfinished = with_rows(cluster, replace(first, taken=None))
    leaving_web = with_rows(cluster, replace(web, wanted=Wanted.ABSENT))
    for picture in (held, unfinished, leaving_web):
        assert refused(copy(picture, "web/first")).why is Why.BUSY


def test_wishes_that_contradict_themselves() -> None:
    cluster, *_ = tree()
    both = LaunchWish(template="tiny", snapshot="web/first", name="copy")
    assert "not from both" in refused(launch(cluster, MINE, both, draw(), NOW)).reason
    big, web = standing(Phase.STOPPED)
    big = with_rows(big, replace(web, size=replace(web.size, disk_gib=5)), replace(root(big, web), size_gib=5))
    big, _ = taken(big, web, "first")
    assert "at least 5 GiB" in refused(copy(big, "web/first", disk_gib=4)).hint


# --- deleting


def test_a_volume_stays_for_what_stands_over_it() -> None:
    cluster, web, first, second = tree()
    plan = delete_snapshot(cluster, first)
    assert plan.steps == ()
    after = done(cluster, plan)
    assert first.volumes[0] in after.volumes
    assert cluster.below(root(cluster, web).id) == after.below(root(after, web).id)
    assert isinstance(find_snapshot(after, web, "first"), Refusal)
    assert find_snapshot(after, web, second.id[:9]) == second


def test_branches_go_when_nobody_needs_them() -> None:
    cluster, web, first, second = tree(Phase.STOPPED)
    cluster = done(cluster, planned(restore(cluster, web, first, draw(), restart=False)))
    plan = delete_snapshot(cluster, second)
    assert [s.action for s in plan.steps] == [DeleteDisk(volume=second.volumes[0])]
    assert second.volumes[0] not in done(cluster, plan).volumes


def test_an_instance_takes_its_snapshots_along() -> None:
    cluster, web, first, second = tree()
    plan = planned(delete(cluster, web, force=True))
    after = done(cluster, plan)
    assert not after.volumes
    assert not after.snapshots
    removed = [s.action.volume for s in plan.steps if isinstance(s.action, DeleteDisk)]
    assert removed == [root(cluster, web).id, *second.volumes, *first.volumes], "from the top down"


def test_a_copy_stays_whole_when_its_origin_goes() -> None:
    cluster, web, first, second = tree()
    cluster = done(cluster, planned(copy(cluster, "web/first")))
    cluster = done(cluster, planned(delete(cluster, web, force=True)))
    (made,) = cluster.instances.values()
    assert set(cluster.volumes) == {root(cluster, made).id, first.volumes[0]}
    assert second.id not in cluster.snapshots
    assert refused(delete_template(cluster, cluster.templates[TINY])).why is Why.CONFLICT
    assert not done(cluster, planned(delete(cluster, made, force=True))).volumes


def test_nothing_is_needless_while_it_is_needed() -> None:
    cluster, web, first, second = tree()
    assert needless(cluster, ()) == ()
    assert needless(cluster, [first]) == ()
    assert [v.id for v in needless(cluster, [first, second], [root(cluster, web).id])] == [
        *second.volumes,
        *first.volumes,
    ]


# --- other verbs


def test_starts_know_the_whole_chain() -> None:
    cluster, web, first, second = tree()
    plan = planned(restart(cluster, web, force=True))
    (start,) = (s.action for s in plan.steps if isinstance(s.action, StartMachine))
    assert start.chains[0].below == (*second.volumes, *first.volumes)


def test_publishing_flattens_the_whole_chain() -> None:
    cluster, web, first, second = tree(Phase.STOPPED)
    (step,) = planned(publish(cluster, web, "mine", draw(), NOW)).steps
    assert step.action.below == (*second.volumes, *first.volumes)  # type: ignore[union-attr]


def test_one_that_was_not_completed_is_completed_with_the_chains_of_now() -> None:
    cluster, web, first, second = tree()
    plan = planner.complete(cluster, first)
    (step,) = plan.steps
    assert isinstance(step.action, TakeSnapshot)
    assert step.action.volumes == first.volumes
    assert step.action.chains[0].below == (*second.volumes, *first.volumes)
    assert plan.accept == ()
    assert done(seen(cluster, web, Phase.RUNNING), plan).snapshots == cluster.snapshots
