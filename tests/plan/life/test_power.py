"""What start, stop, restart, pause and resume do to an instance, by what it was last seen doing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from innkeeper.model.actions import ConvergeNetwork, PauseMachine, ResumeMachine, StartMachine, StopMachine
from innkeeper.model.cluster import Cluster
from innkeeper.model.instance import Instance, Wanted
from innkeeper.model.observed import Phase
from innkeeper.model.plans import Drop, Expect, NoUndo, Plan, Refusal, Why
from innkeeper.plan.power import GRACE_S, is_up, pause, rename, restart, resume, start, stop
from tests.plan.clusters import (
    DOWN,
    UP,
    a_template,
    accepted,
    leaving,
    planned,
    refused,
    row_of,
    standing,
    template_ref,
    undone,
    with_rows,
)

Decide = Callable[[Cluster, Instance], Plan | Refusal]


def gently(cluster: Cluster, instance: Instance) -> Plan | Refusal:
    return stop(cluster, instance, force=False)


def forced(cluster: Cluster, instance: Instance) -> Plan | Refusal:
    return stop(cluster, instance, force=True)


def again(cluster: Cluster, instance: Instance) -> Plan | Refusal:
    return restart(cluster, instance, force=False)


def again_forced(cluster: Cluster, instance: Instance) -> Plan | Refusal:
    return restart(cluster, instance, force=True)


def to_www(cluster: Cluster, instance: Instance) -> Plan | Refusal:
    return rename(cluster, instance, "www")


ALLOWED: dict[Decide, tuple[Phase | None, ...]] = {
    start: (None, *DOWN),
    gently: UP,
    forced: (None, *DOWN, *UP),
    again: UP,
    again_forced: UP,
    pause: (Phase.RUNNING, Phase.STARTING),
    resume: (Phase.PAUSED, Phase.NO_SPACE),
    to_www: (None, *DOWN, *UP),
}
AFTERWARDS: dict[Decide, Wanted] = {
    start: Wanted.RUNNING,
    gently: Wanted.STOPPED,
    forced: Wanted.STOPPED,
    again: Wanted.RUNNING,
    again_forced: Wanted.RUNNING,
    pause: Wanted.PAUSED,
    resume: Wanted.RUNNING,
    to_www: Wanted.RUNNING,
}
STEPS: dict[Decide, list[type]] = {
    start: [ConvergeNetwork, StartMachine],
    gently: [StopMachine],
    forced: [StopMachine],
    again: [StopMachine, ConvergeNetwork, StartMachine],
    again_forced: [StopMachine, ConvergeNetwork, StartMachine],
    pause: [PauseMachine],
    resume: [ResumeMachine],
}
everything = pytest.mark.parametrize("decide", ALLOWED, ids=lambda d: d.__name__)
every_phase = pytest.mark.parametrize("phase", [None, *DOWN, *UP])


def test_an_unanswering_machine_counts_as_up() -> None:
    """QEMU is there and cannot be asked: nothing may be done that needs it gone."""
    assert [is_up(*standing(p)) for p in (None, *DOWN)] == [False, False, False]
    assert all(is_up(*standing(p)) for p in UP)


@everything
@every_phase
def test_allowed_by_phase(decide: Decide, phase: Phase | None) -> None:
    cluster, web = standing(phase)
    answer = decide(cluster, web)
    if phase in ALLOWED[decide]:
        assert row_of(planned(answer)).wanted is AFTERWARDS[decide]
    else:
        refusal = refused(answer)
        assert refusal.why is Why.CONFLICT
        assert "web" in refusal.reason
        assert "web" in refusal.hint


@pytest.mark.parametrize("decide", STEPS, ids=lambda d: d.__name__)
def test_steps(decide: Decide) -> None:
    cluster, web = standing(ALLOWED[decide][-1])
    plan = planned(decide(cluster, web))
    assert [type(s.action) for s in plan.steps] == STEPS[decide]
    assert {s.generation for s in plan.steps} == {web.generation + 1}


@everything
@pytest.mark.parametrize("wanted", [Wanted.RUNNING, Wanted.STOPPED, Wanted.PAUSED])
def test_generations_only_grow(decide: Decide, wanted: Wanted) -> None:
    cluster, web = standing(ALLOWED[decide][0], generation=7, wanted=wanted)
    plan = planned(decide(cluster, web))
    assert plan.expects[0] == Expect(ref=web.ref, generation=7)
    assert accepted(cluster, plan).generation(web.ref) == 8
    back = undone(cluster, plan).instances[web.id]
    assert back.generation == 9
    assert replace(back, generation=7, wanted=wanted) == web
    assert not any(isinstance(c, Drop) for c in (*plan.retreat, *plan.abandon, *plan.finish))


@pytest.mark.parametrize(
    "decide, wanted, back",
    [
        (start, Wanted.RUNNING, Wanted.STOPPED),
        (start, Wanted.STOPPED, Wanted.STOPPED),
        (gently, Wanted.RUNNING, Wanted.RUNNING),
        (gently, Wanted.PAUSED, Wanted.PAUSED),
        # A restart that was called off must not leave a running machine unwanted: repair would stop it.
        (again, Wanted.RUNNING, Wanted.RUNNING),
        (again, Wanted.PAUSED, Wanted.PAUSED),
        (pause, Wanted.RUNNING, Wanted.RUNNING),
        (resume, Wanted.PAUSED, Wanted.PAUSED),
    ],
)
def test_what_is_wanted_when_it_failed(decide: Decide, wanted: Wanted, back: Wanted) -> None:
    cluster, web = standing(ALLOWED[decide][-1], wanted=wanted)
    assert undone(cluster, planned(decide(cluster, web))).instances[web.id].wanted is back


@everything
@every_phase
def test_nothing_is_done_to_what_is_being_deleted(decide: Decide, phase: Phase | None) -> None:
    cluster, web = standing(phase, wanted=Wanted.ABSENT)
    refusal = refused(decide(cluster, web))
    assert refusal.reason == "web is being deleted"
    assert refusal.hint.endswith("inn wait web --for deleted")


@everything
def test_only_force_takes_over(decide: Decide) -> None:
    plan = planned(decide(*standing(ALLOWED[decide][-1])))
    assert plan.takes_over is (decide in (forced, again_forced))


def test_grace() -> None:
    def grace(answer: Plan | Refusal) -> float:
        action = planned(answer).steps[0].action
        assert isinstance(action, StopMachine)
        return action.grace_s

    cluster, web = standing()
    assert grace(stop(cluster, web, force=False)) == grace(restart(cluster, web, force=False)) == GRACE_S
    assert (
        grace(stop(cluster, web, force=False, grace_s=5)) == grace(restart(cluster, web, force=False, grace_s=5)) == 5
    )
    assert grace(stop(cluster, web, force=True, grace_s=5)) == grace(restart(cluster, web, force=True, grace_s=5)) == 0


def test_undo_of_single_steps() -> None:
    cluster, web = standing()
    assert planned(stop(cluster, web, force=False)).steps[0].undo is NoUndo.NOTHING
    assert planned(pause(cluster, web)).steps[0].undo == ResumeMachine(instance=web.id)
    cluster, web = standing(Phase.NO_SPACE)
    assert planned(resume(cluster, web)).steps[0].undo == PauseMachine(instance=web.id)
    cluster, web = standing(Phase.STOPPED)
    assert planned(start(cluster, web)).steps[-1].undo == StopMachine(instance=web.id, grace_s=0)


@pytest.mark.parametrize(
    "phase, hint",
    [
        (Phase.RUNNING, "inn restart web"),
        (Phase.PAUSED, "inn resume web"),
        (Phase.NO_SPACE, "Make room"),
        (Phase.PANICKED, "inn restart web --force"),
        (Phase.UNKNOWN, "inn stop web --force"),
    ],
)
def test_start_says_what_helps_instead(phase: Phase, hint: str) -> None:
    assert hint in refused(start(*standing(phase))).hint


@pytest.mark.parametrize("decide, phase", [(start, Phase.STOPPED), (again, Phase.RUNNING)])
def test_nothing_starts_whose_template_is_gone(decide: Decide, phase: Phase) -> None:
    """Its disk is a layer over the template's, and without the template's kernel it would start something else."""
    cluster, web = standing(phase)
    dropped = cluster.after((Drop(ref=template_ref()),), 99)
    assert web.template in refused(decide(dropped, web)).reason
    hidden = with_rows(cluster, a_template(image=None))
    assert "template tiny:1 is gone" in refused(decide(hidden, web)).reason


def test_stop_of_what_leaves_is_refused_even_by_force() -> None:
    assert refused(forced(*leaving())).why is Why.CONFLICT
