"""Deleting, and what ends by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from innkeeper.model.actions import ConvergeNetwork, DeleteDisk, ForgetMachine, StopMachine
from innkeeper.model.ids import NetworkId, NicId, VolumeId
from innkeeper.model.instance import Wanted
from innkeeper.model.observed import Phase
from innkeeper.model.plans import NoUndo, Why
from innkeeper.plan.delete import delete, ending, remove
from innkeeper.plan.network import network_wanted
from tests.plan.clusters import (
    DOWN,
    H1,
    NET,
    NOW,
    UP,
    a_cluster,
    a_network,
    accepted,
    claimed,
    done,
    launched,
    leaving,
    planned,
    refused,
    same,
    standing,
    undone,
    with_rows,
)


@pytest.mark.parametrize("phase", UP)
def test_what_runs_is_deleted_by_force_only(phase: Phase) -> None:
    cluster, web = standing(phase)
    refusal = refused(delete(cluster, web, force=False))
    assert (refusal.why, refusal.reason) == (Why.CONFLICT, "web is running")
    assert "inn delete web --force" in refusal.hint
    assert planned(delete(cluster, web, force=True)).takes_over


@pytest.mark.parametrize("phase", [None, *DOWN])
def test_what_is_down_is_deleted(phase: Phase | None) -> None:
    cluster, web = standing(phase)
    assert not planned(delete(cluster, web, force=False)).takes_over


def test_nothing_of_it_remains() -> None:
    before = a_cluster()
    for phase in (None, Phase.STOPPED):
        cluster, web = standing(phase)
        assert same(done(cluster, planned(delete(cluster, web, force=False))), before)


def test_steps_lead_one_way() -> None:
    cluster, web = standing()
    plan = planned(delete(cluster, web, force=True))
    (volume,) = cluster.disks(web.id)
    assert [s.action for s in plan.steps] == [
        StopMachine(instance=web.id, grace_s=0),
        ConvergeNetwork(network=NET),
        DeleteDisk(volume=volume.id),
        ForgetMachine(instance=web.id),
    ]
    assert {s.undo for s in plan.steps} == {NoUndo.NO_WAY_BACK}
    assert {s.generation for s in plan.steps} == {2}


def test_its_port_is_gone_with_the_acceptance() -> None:
    cluster, web = standing()
    wanted = network_wanted(accepted(cluster, remove(cluster, web)), H1, NET)
    assert wanted is not None
    assert wanted.ports == ()


def test_called_off_before_its_first_step_the_instance_stands() -> None:
    cluster, web = standing(generation=5)
    back = undone(cluster, remove(cluster, web)).instances[web.id]
    assert (back.wanted, back.generation) == (Wanted.RUNNING, 7)


def test_a_deletion_that_got_stuck_is_gone_on_with() -> None:
    cluster, web = leaving(generation=4)
    plan = remove(cluster, web)
    assert accepted(cluster, plan).instances[web.id].wanted is Wanted.ABSENT
    assert undone(cluster, plan).instances[web.id].wanted is Wanted.ABSENT
    assert same(done(cluster, plan), a_cluster())


def test_all_its_disks_and_networks() -> None:
    cluster, web = standing()
    (volume,), (nic,) = cluster.disks(web.id), cluster.cards(web.id)
    lan = a_network("10.7.0.0/16", "10.7.0.1", id=NetworkId("net-2"), name="lan")
    more = replace(nic, id=NicId("nic-2"), name="web/eth1", network=lan.id, mac="52:54:00:00:00:02")
    data = replace(volume, id=VolumeId("vol-2"), name="web/data")
    cluster = with_rows(cluster, lan, data, replace(more, addresses=("10.7.0.9",)))
    plan = remove(cluster, web)
    assert [type(s.action) for s in plan.steps].count(DeleteDisk) == 2
    assert [type(s.action) for s in plan.steps].count(ConvergeNetwork) == 2
    assert same(done(cluster, plan), with_rows(a_cluster(), lan))


# --- what ends by itself


@pytest.mark.parametrize(
    "phase, changes, ends",
    [
        (Phase.RUNNING, {"expires_at": NOW}, True),
        (Phase.RUNNING, {"expires_at": NOW + 1}, False),
        (Phase.RUNNING, {"expires_at": NOW, "wanted": Wanted.ABSENT}, False),
        (Phase.RUNNING, {"ephemeral": True}, False),
        (Phase.PAUSED, {"ephemeral": True}, False),
        (Phase.UNKNOWN, {"ephemeral": True}, False),
        (None, {"ephemeral": True}, False),  # launched without being started
        (Phase.STOPPED, {"ephemeral": True}, True),
        (Phase.CRASHED, {"ephemeral": True}, True),
        (Phase.STOPPED, {"ephemeral": True, "wanted": Wanted.ABSENT}, False),
        (Phase.STOPPED, {}, False),
    ],
)
def test_whose_end_has_come(phase: Phase | None, changes: dict[str, Any], ends: bool) -> None:
    cluster, web = standing(phase, **changes)
    assert ending(cluster, NOW) == ((web,) if ends else ())
    assert ending(claimed(cluster, [web.ref]), NOW) == ()


def test_only_those() -> None:
    cluster, _ = launched(a_cluster(), "lasting")
    cluster, brief = launched(cluster, "brief", ttl_s=10.0)
    assert ending(cluster, NOW + 9) == ()
    assert ending(cluster, NOW + 10) == (brief,)
