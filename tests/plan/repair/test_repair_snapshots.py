"""Repair of snapshots whose taking stopped half-way, and of disks that lie over others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from innkeeper.model.actions import DeleteDisk, TakeSnapshot
from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import Kind, VolumeId
from innkeeper.model.instance import Instance, Taken, Wanted
from innkeeper.model.observed import Phase
from innkeeper.model.plans import Drop, Plan
from innkeeper.plan.disks.snapshot import take
from innkeeper.plan.repair import repair
from tests.plan.clusters import H2, NOW, a_host, accepted, claimed, draw, planned, seen, standing, with_rows
from tests.plan.repair.held import Held


def half_taken(phase: Phase | None = Phase.RUNNING) -> tuple[Cluster, Instance]:
    """All disks stand, and nobody knows whether the machine writes to the new one."""
    cluster, web = standing(phase)
    cluster = accepted(cluster, planned(take(cluster, web, "first", draw(), NOW)))
    return cluster, cluster.instances[web.id]


def looked_at(cluster: Cluster) -> tuple[Plan, ...]:
    """The host holds what the rows say."""
    held = Held(cluster.networks)
    held.disks = {v.id: v.template for v in cluster.volumes.values() if v.template is not None}
    held.seeds = set(cluster.instances)
    held.machines = dict(cluster.machines)
    return repair(cluster, held.inventory(), cluster)


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.STARTING, Phase.PAUSED, Phase.PANICKED])
def test_what_stopped_half_way_is_completed(phase: Phase) -> None:
    cluster, web = half_taken(phase)
    (plan,) = looked_at(cluster)
    (step,) = plan.steps
    assert isinstance(step.action, TakeSnapshot)
    assert step.action.chains[0].volume == web.hardware.disks()[0].volume
    assert plan.title == "complete snapshot first of web"
    assert web.ref in plan.claims


def test_also_of_one_that_is_off() -> None:
    cluster, web = half_taken(None)
    off = with_rows(cluster, replace(web, wanted=Wanted.STOPPED))
    assert [plan.title for plan in looked_at(off)] == ["complete snapshot first of web"]


def test_but_not_of_one_that_does_not_answer_or_is_held_or_goes_or_is_elsewhere() -> None:
    cluster, web = half_taken()
    (snapshot,) = cluster.snapshots.values()
    assert looked_at(seen(cluster, web, Phase.UNKNOWN)) == ()
    assert looked_at(claimed(cluster, [snapshot.ref])) == ()
    assert looked_at(claimed(cluster, [web.ref])) == ()
    going = looked_at(with_rows(cluster, replace(web, wanted=Wanted.ABSENT)))
    assert [plan.title for plan in going] == ["delete web"]
    elsewhere = with_rows(cluster, a_host(H2, "h2"), replace(snapshot, host=H2))
    assert looked_at(elsewhere) == ()


def test_nothing_is_left_to_do_once_it_is_told() -> None:
    cluster, _ = half_taken()
    (snapshot,) = cluster.snapshots.values()
    told = replace(snapshot, taken=Taken(stored_bytes=0, consistent=True))
    assert looked_at(with_rows(cluster, told)) == ()


def test_what_two_deletions_left_to_each_other_is_collected_with_what_only_it_needed() -> None:
    cluster, web = half_taken(None)
    cluster = with_rows(cluster, replace(web, wanted=Wanted.STOPPED))
    cluster = accepted(cluster, planned(take(cluster, cluster.instances[web.id], "second", draw("again"), NOW)))
    first, second = (s.volumes[0] for s in cluster.snapshots_by_age(web.id))
    (top,) = cluster.disks(web.id)
    left = cluster.after([Drop(ref=s.ref) for s in cluster.snapshots.values()], cluster.revision + 1)
    assert looked_at(left) == (), "web stands over both"
    left = left.after([Drop(ref=top.ref), Drop(ref=web.ref)], left.revision + 1)
    plan = next(p for p in looked_at(left) if p.steps and p.claims[0].kind is Kind.VOLUME)
    assert [s.action for s in plan.steps] == [DeleteDisk(volume=second), DeleteDisk(volume=first)]
    assert not left.after(plan.finish, left.revision + 1).volumes
    assert looked_at(claimed(left, plan.claims)) == ()


def test_a_volume_with_a_name_of_its_own_is_somebodys() -> None:
    cluster, web = standing(Phase.STOPPED, wanted=Wanted.STOPPED)
    spare = replace(cluster.disks(web.id)[0], id=VolumeId("vol-spare"), name="spare", instance=None)
    assert looked_at(with_rows(cluster, spare)) == ()
