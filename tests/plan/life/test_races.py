"""Plans made on one picture and handed in on another: claims, generations and force decide."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import InstanceId, OperationId, Ref, VolumeId
from innkeeper.model.instance import Instance, Wanted
from innkeeper.model.observed import Inventory, Phase
from innkeeper.model.plans import Plan, Refusal
from innkeeper.model.work import Operation, Stale
from innkeeper.plan.delete import delete, remove
from innkeeper.plan.launch import launch
from innkeeper.plan.power import pause, rename, restart, start, stop
from innkeeper.plan.repair import repair
from innkeeper.plan.template import delete_template, publish
from tests.plan.clusters import H1, MINE, NOW, TINY, a_cluster, draw, planned, refused, same, standing, wish
from tests.plan.life.desk import Desk

Decide = Callable[[Cluster, Instance], Plan | Refusal]


def launching() -> tuple[Desk, OperationId, InstanceId]:
    """A launch is under way; nothing of it was reported yet."""
    desk = Desk(a_cluster())
    plan = planned(launch(desk.cluster, MINE, wish(), draw(), NOW))
    return desk, desk.accept(plan), InstanceId(plan.subjects[0].id)


def publishing() -> tuple[Desk, OperationId, Instance]:
    cluster, web = standing(Phase.STOPPED)
    desk = Desk(cluster)
    return desk, desk.accept(planned(publish(cluster, web, "golden", draw("p"), NOW))), web


def busy(answer: Operation | Stale) -> OperationId | None:
    assert isinstance(answer, Stale)
    return answer.busy


def looked_at(*disks: VolumeId) -> Inventory:
    return Inventory(host=H1, boot_id="b", machines=(), disks=disks, seeds=(), templates=(TINY,), networks=())


# --- over the head of a launch


def test_force_stop_ends_a_launch_and_leaves_what_can_be_deleted() -> None:
    desk, launch_id, web = launching()
    row = desk.cluster.instances[web]
    stopping = desk.accept(planned(stop(desk.cluster, row, force=True)))
    assert not desk.turn_back(launch_id)
    assert not desk.succeed(launch_id)
    assert desk.succeed(stopping)
    assert not desk.cluster.claims
    row = desk.cluster.instances[web]
    assert (row.wanted, row.generation) == (Wanted.STOPPED, 2)
    assert len(desk.cluster.disks(web)) == len(desk.cluster.cards(web)) == 1
    assert desk.succeed(desk.accept(planned(delete(desk.cluster, row, force=False))))
    assert same(desk.cluster, a_cluster())


def test_force_delete_ends_a_launch_and_leaves_nothing() -> None:
    desk, launch_id, web = launching()
    deleting = desk.accept(planned(delete(desk.cluster, desk.cluster.instances[web], force=True)))
    assert not desk.fail(launch_id)
    assert set(desk.cluster.claims.values()) == {deleting}
    assert desk.succeed(deleting)
    assert same(desk.cluster, a_cluster())


def test_force_delete_of_a_launch_that_is_being_undone() -> None:
    desk, launch_id, web = launching()
    desk.turn_back(launch_id)
    row = desk.cluster.instances[web]
    assert (row.wanted, row.generation) == (Wanted.ABSENT, 2)
    deleting = desk.accept(planned(delete(desk.cluster, row, force=True)))
    assert not desk.fail(launch_id)
    assert desk.fail(deleting)  # called off: it stays on its way out, for repair to go on with
    assert desk.cluster.instances[web].wanted is Wanted.ABSENT


def test_a_force_planned_before_the_launch_turned_back_is_stale() -> None:
    desk, launch_id, web = launching()
    plan = planned(stop(desk.cluster, desk.cluster.instances[web], force=True))
    desk.turn_back(launch_id)
    assert isinstance(desk.hand_in(plan), Stale)
    assert "is being deleted" in refused(stop(desk.cluster, desk.cluster.instances[web], force=True)).reason


def test_without_force_a_launch_is_left_alone() -> None:
    desk, launch_id, web = launching()
    row = desk.cluster.instances[web]
    for plan in (delete(desk.cluster, row, force=False), start(desk.cluster, row), rename(desk.cluster, row, "www")):
        assert busy(desk.hand_in(planned(plan))) == launch_id


# --- two at once


def gently(cluster: Cluster, web: Instance) -> Plan | Refusal:
    return stop(cluster, web, force=False)


def again(cluster: Cluster, web: Instance) -> Plan | Refusal:
    return restart(cluster, web, force=False)


def forced(cluster: Cluster, web: Instance) -> Plan | Refusal:
    return delete(cluster, web, force=True)


@pytest.mark.parametrize("first", [gently, again, pause, forced])
@pytest.mark.parametrize("second", [gently, again, pause, forced, remove])
def test_the_second_on_the_same_picture_is_stale(first: Decide, second: Decide) -> None:
    cluster, web = standing()
    one, other = planned(first(cluster, web)), planned(second(cluster, web))
    desk = Desk(cluster)
    running = desk.accept(one)
    assert isinstance(desk.hand_in(other), Stale)
    desk.succeed(running)
    assert isinstance(desk.hand_in(other), Stale)


def test_the_same_draw_twice_makes_one() -> None:
    desk = Desk(a_cluster())
    one, other = (planned(launch(desk.cluster, MINE, wish(n), draw(), NOW)) for n in ("a", "b"))
    desk.succeed(desk.accept(one))
    assert isinstance(desk.hand_in(other), Stale)
    assert len(desk.cluster.instances) == 1


# --- templates


def test_launch_and_delete_of_its_template() -> None:
    cluster = a_cluster()
    launching, deleting = (
        planned(launch(cluster, MINE, wish(), draw(), NOW)),
        planned(delete_template(cluster, cluster.templates[TINY])),
    )
    desk = Desk(cluster)
    removing = desk.accept(deleting)
    assert isinstance(desk.hand_in(launching), Stale)
    refused(launch(desk.cluster, MINE, wish(), draw(), NOW))
    desk.fail(removing)
    desk.accept(planned(launch(desk.cluster, MINE, wish(), draw(), NOW)))


def test_a_template_that_its_host_would_not_drop_is_shown_again() -> None:
    """The launch was accepted between the look and the acceptance; its disk is there, so the host refuses."""
    cluster = a_cluster()
    deleting = planned(delete_template(cluster, cluster.templates[TINY]))
    desk = Desk(cluster)
    desk.succeed(desk.accept(planned(launch(cluster, MINE, wish(), draw(), NOW))))
    removing = desk.accept(deleting)
    (web,) = desk.cluster.instances.values()
    assert "is gone" in refused(start(desk.cluster, web)).reason
    desk.fail(removing)
    assert desk.cluster.templates[TINY].image is not None
    planned(start(desk.cluster, web))


def test_publishing_holds_the_instance() -> None:
    desk, running, web = publishing()
    assert busy(desk.hand_in(planned(start(desk.cluster, web)))) == running
    assert busy(desk.hand_in(planned(publish(desk.cluster, web, "golden", draw("q"), NOW)))) == running


def test_expiry_waits_for_a_publish_that_came_in_between() -> None:
    """Publishing changes no generation of the instance: only the claim tells."""
    desk, running, web = publishing()
    assert busy(desk.hand_in(remove(desk.cluster, web))) == running


def test_what_a_forced_delete_leaves_of_a_publish_is_repaired() -> None:
    desk, publish_id, web = publishing()
    deleting = desk.accept(planned(delete(desk.cluster, web, force=True)))
    assert not desk.succeed(publish_id)
    desk.succeed(deleting)
    assert [t.name for t in desk.cluster.templates.values() if t.image is None] == ["golden"]
    (mending,) = repair(desk.cluster, looked_at(), desk.cluster)
    desk.succeed(desk.accept(mending))
    assert same(desk.cluster, a_cluster())


# --- repair against everybody else


def ran_and_was_lost() -> tuple[Desk, Plan, Instance]:
    cluster, web = standing(Phase.STOPPED)
    (mending,) = (p for p in repair(cluster, looked_at(), cluster) if web.ref in p.claims)
    return Desk(cluster), mending, web


def test_a_repair_that_comes_late_is_stale() -> None:
    desk, mending, web = ran_and_was_lost()
    starting = desk.accept(planned(start(desk.cluster, web)))
    assert isinstance(desk.hand_in(mending), Stale)
    desk.succeed(starting)
    assert isinstance(desk.hand_in(mending), Stale)


def test_repair_never_takes_over() -> None:
    cluster, web = standing(Phase.STOPPED, wanted=Wanted.ABSENT)
    (mending,) = (p for p in repair(cluster, looked_at(), cluster) if web.ref in p.claims)
    desk = Desk(cluster)
    deleting = desk.accept(planned(delete(cluster, web, force=True)))
    assert busy(desk.hand_in(mending)) == deleting


@pytest.mark.parametrize("while_looking", ["launch began", "launch ended"])
def test_a_look_into_the_middle_of_a_launch_judges_nothing_of_it(while_looking: str) -> None:
    desk = Desk(a_cluster())
    earlier = desk.cluster
    plan = planned(launch(desk.cluster, MINE, wish(), draw(), NOW))
    launching = desk.accept(plan)
    before = earlier if while_looking == "launch began" else desk.cluster
    desk.succeed(launching)
    found = looked_at()  # before the machine ran
    assert not any(ref in plan.claims for p in repair(before, found, desk.cluster) for ref in p.claims)


def test_a_disk_whose_row_went_while_looking_waits_for_the_next_look() -> None:
    cluster, web = standing(Phase.STOPPED)
    (volume,) = cluster.disks(web.id)
    desk = Desk(cluster)
    desk.succeed(desk.accept(planned(delete(cluster, web, force=False))))
    found = looked_at(volume.id)
    assert repair(cluster, found, desk.cluster) == ()
    (removal,) = repair(desk.cluster, found, desk.cluster)
    assert removal.subjects == (Ref(volume.ref.kind, volume.id),)
