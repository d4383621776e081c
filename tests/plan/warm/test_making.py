"""Making memory images, dropping them, what is due, and what repair does about them."""

from __future__ import annotations

from dataclasses import replace

from innkeeper.model.actions import BakeMemory, CreateDisk, DeleteDisk, DeleteMemory, DeleteTemplate
from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import MemoryImageId
from innkeeper.model.instance import Instance, Wanted
from innkeeper.model.observed import Phase
from innkeeper.model.plans import Plan, Why
from innkeeper.model.template import BAKER_SLOT
from innkeeper.plan.delete import delete
from innkeeper.plan.launch import launch
from innkeeper.plan.repair import repair
from innkeeper.plan.size import free
from innkeeper.plan.template import delete_template
from innkeeper.plan.warm.making import cool, drop, due, outdated, warm
from tests.plan.clusters import (
    H1,
    MINE,
    NOW,
    OTHERS,
    a_cluster,
    a_host,
    accepted,
    claimed,
    done,
    draw,
    facts,
    planned,
    refused,
    row_of,
    same,
    seen,
    undone,
    wish,
    with_rows,
)
from tests.plan.repair.held import Held
from tests.plan.warm.ready import answering, warmed


def test_a_machine_is_booted_where_nobody_reaches_it_and_kept() -> None:
    cluster, template = answering()
    plan = planned(warm(cluster, MINE, template, draw(), NOW))
    disk, bake = (step.action for step in plan.steps)
    assert isinstance(disk, CreateDisk)
    assert disk.uid_slot == BAKER_SLOT
    assert isinstance(bake, BakeMemory)
    assert bake.hardware.cards()[0].network not in cluster.networks
    assert bake.hardware.disks()[0].volume == disk.volume
    assert "machine_id" not in (bake.kernel_args or "")
    assert same(undone(cluster, plan), cluster)


def test_it_counts_against_the_memory_of_its_host() -> None:
    cluster, template, memory = warmed()
    host = cluster.hosts[H1]
    before, _ = answering()
    assert free(before, host).memory_mib - free(cluster, host).memory_mib == memory.size.memory_mib
    assert free(before, host).disk_gib == free(cluster, host).disk_gib
    assert free(done(cluster, drop(cluster, (memory,))), host) == free(before, host)
    small = with_rows(before, a_host(has=facts(memory_mib=600)))
    assert refused(warm(small, MINE, template, draw(), NOW)).why is Why.NO_ROOM


def test_one_that_fits_is_enough() -> None:
    cluster, template, memory = warmed()
    again = refused(warm(cluster, MINE, template, draw(1), NOW))
    assert again.why is Why.CONFLICT
    assert memory.id in again.reason
    busy = refused(warm(claimed(cluster, [memory.ref]), MINE, template, draw(1), NOW))
    assert busy.why is Why.BUSY
    newer = with_rows(cluster, a_host(has=replace(facts(), kernel="6.2.0")))
    assert isinstance(warm(newer, MINE, template, draw(1), NOW), Plan)


def test_a_guest_that_cannot_be_told_who_it_is_is_not_warmed() -> None:
    cluster = a_cluster()
    (template,) = cluster.templates.values()
    assert "no program of ours" in refused(warm(cluster, MINE, template, draw(), NOW)).reason


def test_dropping_takes_the_volume_along() -> None:
    cluster, template, memory = warmed()
    plan = planned(cool(cluster, MINE, template))
    assert [type(step.action) for step in plan.steps] == [DeleteMemory, DeleteDisk]
    after = done(cluster, plan)
    assert not after.memories
    assert not after.volumes
    assert not after.kept_by
    assert refused(cool(after, MINE, template)).why is Why.NOT_FOUND
    assert refused(cool(cluster, OTHERS, template)).why is Why.NOT_FOUND
    assert memory.id in drop(cluster, (memory,)).title


def test_one_that_is_going_is_used_no_more_and_may_come_back() -> None:
    cluster, _, memory = warmed()
    plan = drop(cluster, (memory,))
    assert row_of(planned(launch(accepted(cluster, plan), MINE, wish(), draw(1), NOW))).memory is None
    back = undone(cluster, plan).memories[memory.id]
    assert back == replace(memory, generation=back.generation)
    assert back.generation > memory.generation


def clone(cluster: Cluster) -> tuple[Cluster, Instance]:
    plan = planned(launch(cluster, MINE, wish(), draw("clone"), NOW))
    after = done(cluster, plan)
    return after, after.instances[row_of(plan).id]


def test_but_not_from_under_a_clone() -> None:
    cluster, _, memory = warmed()
    cluster, _ = clone(cluster)
    plan = drop(cluster, (memory,))
    assert [type(step.action) for step in plan.steps] == [DeleteMemory]
    assert memory.volumes[0] in done(cluster, plan).volumes


def test_a_template_goes_with_its_memory_images() -> None:
    cluster, template, memory = warmed()
    plan = planned(delete_template(cluster, template))
    assert [type(step.action) for step in plan.steps] == [DeleteMemory, DeleteDisk, DeleteTemplate]
    assert memory.ref in plan.claims
    after = done(cluster, plan)
    assert (len(after.templates), len(after.memories), len(after.volumes)) == (0, 0, 0)
    used, _ = clone(cluster)
    assert refused(delete_template(used, template)).why is Why.CONFLICT


# --- what is due


def test_due_is_what_runs_answers_and_is_not_warm_yet() -> None:
    cluster, template = answering()
    plan = planned(launch(cluster, MINE, wish(), draw(), NOW))
    cluster = done(cluster, plan)
    web = cluster.instances[row_of(plan).id]
    assert not list(due(cluster))
    running = seen(cluster, web, Phase.RUNNING)
    assert not list(due(running))  # nothing of ours in it has answered
    state = replace(running.machines[web.id], seq=9, guest_program=True)
    answers = running.seen(state)
    assert list(due(answers)) == [(MINE, template, H1)]
    for other in (replace(web, warms=False), replace(web, wanted=Wanted.STOPPED)):
        assert not list(due(with_rows(answers, other).seen(replace(state, seq=10))))
    assert not list(due(claimed(answers, [web.ref])))
    assert not list(due(with_rows(answers, replace(template, image=None))))
    being_made = done(answers, planned(warm(answers, MINE, template, draw(1), NOW)))
    assert not list(due(being_made))


def test_outdated_is_what_was_made_on_another_host_than_this_has_become() -> None:
    cluster, _, memory = warmed()
    assert not list(outdated(cluster))
    newer = with_rows(cluster, a_host(has=replace(facts(), qemu_version="10.0.0", kernel="6.2.0")))
    assert [m.id for m in outdated(newer)] == [memory.id]
    assert not list(outdated(with_rows(newer, replace(memory, baked=None))))
    assert not list(outdated(with_rows(cluster, replace(a_host(), facts=None))))
    said = memory.fits.differs_in(replace(memory.fits, qemu_version="10.0.0", kernel="6.2.0"))
    assert said == "QEMU 7.2.0, not 10.0.0, host kernel 6.1.0, not 6.2.0"


# --- repair


def looked_at(cluster: Cluster, *memories: MemoryImageId) -> tuple[Plan, ...]:
    held = Held(cluster.networks)
    held.disks = {v.id: v.template for v in cluster.volumes.values() if v.template is not None}
    held.seeds = set(cluster.instances)
    return repair(cluster, replace(held.inventory(), memories=memories), cluster)


def test_what_the_host_has_lost_or_nobody_finished_is_dropped() -> None:
    cluster, _, memory = warmed()
    assert looked_at(cluster, memory.id) == ()
    (lost,) = looked_at(cluster)
    assert memory.ref in lost.claims
    (unfinished,) = looked_at(with_rows(cluster, replace(memory, baked=None)), memory.id)
    assert [type(step.action) for step in unfinished.steps] == [DeleteMemory, DeleteDisk]
    assert looked_at(claimed(cluster, [memory.ref])) == ()


def test_what_has_no_row_is_removed_and_its_volume_once_no_clone_stands_over_it() -> None:
    cluster, _, memory = warmed()
    cluster, web = clone(cluster)
    stranger = MemoryImageId("mem-stranger")
    asked = [step.action for plan in looked_at(cluster, memory.id, stranger) for step in plan.steps]
    assert asked == [DeleteMemory(memory=stranger)]
    dropped = done(cluster, drop(cluster, (memory,)))
    assert not [step for plan in looked_at(dropped) for step in plan.steps]
    alone = done(dropped, planned(delete(dropped, web, force=True)))
    assert memory.volumes[0] not in alone.volumes  # which its deletion takes along
    left = with_rows(alone, dropped.volumes[memory.volumes[0]])
    assert [step.action for plan in looked_at(left) for step in plan.steps] == [DeleteDisk(volume=memory.volumes[0])]
