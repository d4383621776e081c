"""What repair does about single differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from immutables import Map

from innkeeper.model.actions import (
    Action,
    ApplyNetwork,
    ConvergeNetwork,
    CreateDisk,
    DeleteDisk,
    DeleteTemplate,
    ForgetMachine,
    StartMachine,
    StopMachine,
    WriteSeed,
)
from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import InstanceId, Kind, NetworkId, Ref, TemplateId, VolumeId
from innkeeper.model.instance import Instance, Wanted
from innkeeper.model.observed import Ended, Phase
from innkeeper.model.plans import Drop, Plan, Verb
from innkeeper.plan.launch import launch
from innkeeper.plan.power import GRACE_S, start
from innkeeper.plan.repair import repair, settle, wanted_networks
from tests.plan.clusters import (
    DOWN,
    H1,
    H2,
    MINE,
    NET,
    NOW,
    TINY,
    UP,
    a_cluster,
    a_host,
    a_template,
    accepted,
    claimed,
    draw,
    planned,
    row_of,
    template_ref,
    wish,
    with_rows,
)
from tests.plan.repair.held import Held, carried_out

ENDED = (
    (Phase.STOPPED, Ended.ASKED),
    (Phase.STOPPED, Ended.GUEST),
    (Phase.STOPPED, Ended.HOST_BOOT),
    (Phase.CRASHED, Ended.CRASH),
)


def running(wanted: Wanted = Wanted.RUNNING, *, autostart: bool = False) -> tuple[Cluster, Held, Instance]:
    """The instance web, whose machine runs, with another wanted state than that perhaps."""
    held, cluster = Held(), a_cluster()
    plan = planned(launch(cluster, MINE, wish(autostart=autostart), draw(), NOW))
    cluster = carried_out(cluster, plan, held)
    web = replace(cluster.instances[row_of(plan).id], wanted=wanted)
    return with_rows(cluster, web), held, web


def mended(cluster: Cluster, held: Held) -> tuple[Plan, ...]:
    return repair(cluster, held.inventory(), cluster)


def actions(plan: Plan) -> list[Action]:
    return [step.action for step in plan.steps]


# --- machines of instances


@pytest.mark.parametrize("phase", UP)
@pytest.mark.parametrize("wanted", [Wanted.RUNNING, Wanted.PAUSED])
def test_what_is_there_is_left_as_it_is(phase: Phase, wanted: Wanted) -> None:
    cluster, held, web = running(wanted)
    held.turns(web.id, phase)
    assert mended(cluster, held) == ()


@pytest.mark.parametrize("phase", DOWN)
def test_what_should_be_stopped_and_is_needs_nothing(phase: Phase) -> None:
    cluster, held, web = running(Wanted.STOPPED)
    held.turns(web.id, phase)
    assert mended(cluster, held) == ()


@pytest.mark.parametrize("phase", UP)
def test_what_should_be_stopped_is_asked_to(phase: Phase) -> None:
    cluster, held, web = running(Wanted.STOPPED)
    held.turns(web.id, phase)
    (plan,) = mended(cluster, held)
    assert actions(plan) == [StopMachine(instance=web.id, grace_s=GRACE_S)]
    assert accepted(cluster, plan).instances[web.id] == replace(web, generation=web.generation + 1)
    assert plan.steps[0].generation == web.generation + 1


@pytest.mark.parametrize("phase, ended", [e for e in ENDED if e[1] is not Ended.CRASH])
@pytest.mark.parametrize("wanted", [Wanted.RUNNING, Wanted.PAUSED])
@pytest.mark.parametrize("told", [True, False])
def test_what_ended_is_no_longer_wanted(phase: Phase, ended: Ended, wanted: Wanted, told: bool) -> None:
    cluster, held, web = running(wanted)
    state = held.turns(web.id, phase, ended)
    (plan,) = mended(cluster.seen(state) if told else cluster, held)
    assert plan == settle(web)
    assert plan.steps == ()
    row = accepted(cluster, plan).instances[web.id]
    assert (row.wanted, row.generation) == (Wanted.STOPPED, web.generation + 1)


@pytest.mark.parametrize("autostart", [True, False])
def test_a_crash_is_not_settled_by_a_look(autostart: bool) -> None:
    """Its host may be going down, and return."""
    cluster, held, web = running(autostart=autostart)
    held.turns(web.id, Phase.CRASHED, Ended.CRASH)
    assert mended(cluster, held) == ()


@pytest.mark.parametrize("wanted", [Wanted.RUNNING, Wanted.PAUSED])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("listed", [True, False])
def test_autostart_returns_after_a_host_boot(wanted: Wanted, told: bool, listed: bool) -> None:
    cluster, held, web = running(wanted, autostart=True)
    held.networks.clear()
    state = held.turns(web.id, Phase.STOPPED, Ended.HOST_BOOT)
    cluster = cluster.seen(state) if told or not listed else cluster
    if not listed:
        del held.machines[web.id]
    (plan, *_) = mended(cluster, held)
    assert plan.verb is Verb.START
    assert [type(a) for a in actions(plan)] == [ConvergeNetwork, StartMachine]
    assert accepted(cluster, plan).instances[web.id].wanted is Wanted.RUNNING


@pytest.mark.parametrize("phase, ended", [e for e in ENDED if e[1] not in (Ended.HOST_BOOT, Ended.CRASH)])
def test_autostart_does_not_return_from_other_ends(phase: Phase, ended: Ended) -> None:
    cluster, held, web = running(autostart=True)
    held.turns(web.id, phase, ended)
    assert mended(cluster, held) == (settle(web),)


def test_autostart_of_what_was_stopped_before_stays_stopped() -> None:
    cluster, held, web = running(Wanted.STOPPED, autostart=True)
    held.turns(web.id, Phase.STOPPED, Ended.HOST_BOOT)
    assert mended(cluster, held) == ()


def test_autostart_that_cannot_be_shows_as_stopped() -> None:
    cluster, held, web = running(autostart=True)
    held.turns(web.id, Phase.STOPPED, Ended.HOST_BOOT)
    cluster = cluster.after((Drop(ref=template_ref()),), 99)
    assert mended(cluster, held) == (settle(web),)


def test_a_host_that_knows_nothing_of_a_machine_does_not_run_it() -> None:
    cluster, held, web = running()
    held.machines.clear()
    assert mended(cluster, held) == (settle(web),)


@pytest.mark.parametrize("wanted, found", [(Wanted.RUNNING, Phase.STOPPED), (Wanted.STOPPED, Phase.RUNNING)])
def test_a_newer_report_than_the_look_counts(wanted: Wanted, found: Phase) -> None:
    """The machine was started, or ended, after its host was looked at."""
    cluster, held, web = running(wanted)
    held.turns(web.id, found, Ended.ASKED)
    inventory = held.inventory()
    other = Phase.RUNNING if found is Phase.STOPPED else Phase.STOPPED
    cluster = cluster.seen(held.turns(web.id, other))
    assert repair(cluster, inventory, cluster) == ()


@pytest.mark.parametrize("listed", [True, False])
def test_an_unfinished_deletion_goes_on(listed: bool) -> None:
    cluster, held, _ = running(Wanted.ABSENT)
    if not listed:
        held.machines.clear()
    (plan,) = mended(cluster, held)
    assert [type(a) for a in actions(plan)] == [StopMachine, ConvergeNetwork, DeleteDisk, ForgetMachine]
    assert not plan.takes_over
    after = carried_out(cluster, plan, held)
    assert (len(after.instances), held.disks, held.seeds, held.machines) == (0, {}, set(), {})


def never_made() -> tuple[Cluster, Held, Instance]:
    """Stopped, with the rows of a launch that made nothing."""
    cluster = a_cluster()
    plan = planned(launch(cluster, MINE, wish(), draw(), NOW))
    web = replace(row_of(plan), wanted=Wanted.STOPPED)
    held = Held([NET])
    return with_rows(accepted(cluster, plan), web), held, web


def test_what_a_launch_did_not_come_to_is_made_and_can_start() -> None:
    cluster, held, web = never_made()
    cluster = replace(cluster, claims=Map())
    (plan,) = mended(cluster, held)
    assert [type(a) for a in actions(plan)] == [CreateDisk, WriteSeed, ConvergeNetwork]
    assert {disk.ref for disk in cluster.disks(web.id)} < {*plan.claims}
    cluster = carried_out(cluster, plan, held)
    assert mended(cluster, held) == ()
    carried_out(cluster, planned(start(cluster, cluster.instances[web.id])), held)


def test_a_disk_that_was_lost_is_not_made_anew() -> None:
    cluster, held, web = running(Wanted.STOPPED)
    cluster = with_rows(cluster.seen(held.turns(web.id, Phase.STOPPED, Ended.ASKED)), web)
    held.disks.clear()
    assert mended(cluster, held) == ()


def test_without_its_template_no_disk_is_made() -> None:
    cluster, held, _ = never_made()
    cluster = replace(cluster, claims=Map(), templates=Map())
    assert CreateDisk not in {type(a) for plan in mended(cluster, held) for a in actions(plan)}


def test_instances_of_another_host_are_not_this_ones() -> None:
    cluster, _, _ = running()
    cluster = with_rows(cluster, a_host(H2, "h2"))
    other = replace(Held([NET]).inventory(), host=H2)
    assert repair(cluster, other, cluster) == ()


def instance(web: Instance, cluster: Cluster) -> Ref:
    return web.ref


def disk(web: Instance, cluster: Cluster) -> Ref:
    return cluster.disks(web.id)[0].ref


def card(web: Instance, cluster: Cluster) -> Ref:
    return cluster.cards(web.id)[0].ref


@pytest.mark.parametrize("part", [instance, disk, card])
@pytest.mark.parametrize("then", [True, False])
def test_what_an_operation_holds_or_held_is_left_alone(part: Callable[[Instance, Cluster], Ref], then: bool) -> None:
    cluster, held, web = running(Wanted.ABSENT)
    holding = claimed(cluster, [part(web, cluster)])
    before, now = (holding, cluster) if then else (cluster, holding)
    assert repair(before, held.inventory(), now) == ()


# --- things without a row


def stranger(kind: str) -> tuple[Held, Ref]:
    held = Held([NET])
    match kind:
        case "machine":
            held.turns(InstanceId("i-x"), Phase.RUNNING)
            held.seeds.add(InstanceId("i-x"))
        case "seed":
            held.seeds.add(InstanceId("i-x"))
        case "disk":
            held.disks[VolumeId("vol-x")] = TINY
            return held, Ref(Kind.VOLUME, "vol-x")
        case "network":
            held.networks.add(NetworkId("net-x"))
            return held, Ref(Kind.NETWORK, "net-x")
        case _:
            held.templates.add(TemplateId("t-x"))
            return held, Ref(Kind.TEMPLATE, "t-x")
    return held, Ref(Kind.INSTANCE, "i-x")


@pytest.mark.parametrize(
    "kind, removed",
    [
        ("machine", [StopMachine, ForgetMachine]),
        ("seed", [ForgetMachine]),
        ("disk", [DeleteDisk]),
        ("network", [ApplyNetwork]),
        ("template", [DeleteTemplate]),
    ],
)
def test_what_has_no_row_goes(kind: str, removed: list[type]) -> None:
    cluster = a_cluster()
    held, ref = stranger(kind)
    (plan,) = mended(cluster, held)
    assert [type(a) for a in actions(plan)] == removed
    assert (plan.subjects, plan.claims, plan.expects[0].generation) == ((ref,), (ref,), None)
    assert str(ref) in plan.title
    after = carried_out(cluster, plan, held)
    assert mended(after, held) == ()
    assert held.inventory() == Held([NET]).inventory()


def test_orders_about_them_are_newer_than_all() -> None:
    plan, *_ = mended(a_cluster(), stranger("machine")[0])
    assert actions(plan)[0] == StopMachine(instance=InstanceId("i-x"), grace_s=0)
    assert all(step.generation == 2**31 for step in plan.steps)
    network, *_ = mended(a_cluster(), stranger("network")[0])
    action = network.steps[0].action
    assert isinstance(action, ApplyNetwork)
    assert (action.absent, action.wanted.generation, action.wanted.ports) == (True, 2**31, ())


def test_a_template_without_a_row_stays_while_it_is_used() -> None:
    cluster, held, _ = running()
    cluster = cluster.after((Drop(ref=template_ref()),), 99)
    assert mended(cluster, held) == ()


def test_a_disk_whose_row_stands_stays_though_its_instance_went() -> None:
    cluster, held, web = running(Wanted.STOPPED)
    held.turns(web.id, Phase.STOPPED, Ended.ASKED)
    cluster = cluster.after((Drop(ref=web.ref),), 99)
    assert not any(isinstance(a, DeleteDisk) for plan in mended(cluster, held) for a in actions(plan))


# --- templates and networks


def test_a_template_that_nobody_makes_any_more_goes_with_its_row() -> None:
    half = a_template(TemplateId("t-half"), name="golden", image=None)
    cluster, held = with_rows(a_cluster(), half), Held([NET])
    (plan,) = mended(cluster, held)
    assert actions(plan) == [DeleteTemplate(template=half.id)]
    assert plan.steps[0].generation == 2
    assert "golden:1" in plan.title
    assert half.id not in carried_out(cluster, plan, held).templates
    assert mended(claimed(cluster, [half.ref]), held) == ()


def test_a_network_that_the_host_lost_is_set_up_again() -> None:
    cluster, held, web = running()
    assert wanted_networks(cluster, H1) == (NET,)
    held.networks.clear()
    (plan,) = mended(cluster, held)
    assert actions(plan) == [ConvergeNetwork(network=NET)]
    assert mended(carried_out(cluster, plan, held), held) == ()
    leaving = with_rows(cluster, replace(web, wanted=Wanted.ABSENT))
    assert wanted_networks(leaving, H1) == ()


def test_a_network_that_was_not_yet_wanted_when_looked_at_waits() -> None:
    cluster, held, _ = running()
    held.networks.clear()
    assert repair(a_cluster(), held.inventory(), cluster) == ()
