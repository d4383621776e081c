"""Renaming: all that is named after an instance follows, and can go back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from innkeeper.model.actions import ConvergeNetwork, WriteSeed
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import NetworkCard
from innkeeper.model.ids import Kind, NetworkId, NicId
from innkeeper.model.instance import Instance
from innkeeper.model.network import Nic
from innkeeper.model.plans import Put, Why
from innkeeper.plan.launch import launch
from innkeeper.plan.power import rename
from tests.plan.clusters import (
    MINE,
    NET,
    NOW,
    a_cluster,
    a_network,
    accepted,
    done,
    draw,
    launched,
    made,
    planned,
    refused,
    same,
    standing,
    undone,
    wish,
    with_rows,
)
from tests.plan.life.desk import Desk

LAN = NetworkId("net-000000000002")


def with_two_cards() -> tuple[Cluster, Instance]:
    """The second card's id sorts before the first's."""
    cluster, web = launched(a_cluster())
    lan = a_network("10.7.0.0/16", "10.7.0.1", id=LAN, name="lan", domain="lan.internal")
    nic = Nic(
        id=NicId("nic-0"),
        project=MINE,
        name="web/eth1",
        instance=web.id,
        network=LAN,
        mac="52:54:00:00:00:01",
        addresses=("10.7.0.9",),
    )
    card = NetworkCard(slot=6, nic=nic.id, network=LAN, mac=nic.mac)
    web = replace(web, hardware=replace(web.hardware, devices=(*web.hardware.devices, card)))
    return with_rows(cluster, lan, nic, web), web


def names(cluster: Cluster) -> set[str]:
    own = (*cluster.instances.values(), *cluster.volumes.values(), *cluster.nics.values())
    return {noun.name for noun in own}


def test_everything_named_after_it_follows() -> None:
    cluster, web = standing()
    plan = planned(rename(cluster, web, "www"))
    after = done(cluster, plan)
    assert names(after) == {"www", "www/root", "www/eth0"}
    assert {after.generation(noun.ref) for noun in made(plan)} == {2}
    assert after.named(Kind.VOLUME, MINE, "web/root") is None
    launched(after, "web")  # the names of its disk and card are free as well


def test_and_goes_back() -> None:
    cluster, web = standing()
    plan = planned(rename(cluster, web, "www"))
    back = undone(cluster, plan)
    assert names(back) == names(cluster)
    assert {back.generation(noun.ref) for noun in made(plan)} == {3}
    lowered = with_rows(back, *(replace(c.noun, generation=1) for c in plan.retreat if isinstance(c, Put)))
    assert same(lowered, cluster)


def test_seed_has_all_cards_in_the_guests_order_and_one_way_out() -> None:
    cluster, web = with_two_cards()
    plan = planned(rename(cluster, web, "www"))
    seed, before = plan.steps[0].action, plan.steps[0].undo
    assert isinstance(seed, WriteSeed)
    assert isinstance(before, WriteSeed)
    assert (seed.hostname, before.hostname, seed.domain) == ("www", "web", "inn.internal")
    assert replace(before, hostname="www") == seed
    assert [c.gateway for c in seed.cards] == ["10.1.0.1", None]
    assert [c.dns for c in seed.cards] == [("10.1.0.1",), ()]
    assert seed.cards[1].addresses == ("10.7.0.9/16",)


def test_every_network_of_it_learns() -> None:
    cluster, web = with_two_cards()
    plan = planned(rename(cluster, web, "www"))
    converged = {s.action for s in plan.steps if isinstance(s.action, ConvergeNetwork)}
    assert converged == {ConvergeNetwork(network=NET), ConvergeNetwork(network=LAN)}
    assert all(s.undo == s.action for s in plan.steps[1:])
    assert {"web/eth0", "web/eth1"} <= names(cluster)
    assert {"www/eth0", "www/eth1"} <= names(done(cluster, plan))


def test_without_cards_too() -> None:
    cluster, web = standing()
    bare = replace(web, hardware=replace(web.hardware, devices=()))
    (nic,) = cluster.cards(web.id)
    cluster = with_rows(cluster, bare).after([], 9)
    cluster = replace(cluster, nics=cluster.nics.delete(nic.id), nics_of=cluster.nics_of.delete(web.id))
    (seed,) = planned(rename(cluster, bare, "www")).steps
    assert isinstance(seed.action, WriteSeed)
    assert (seed.action.cards, seed.action.domain) == ((), "")


@pytest.mark.parametrize(
    "name, why, says",
    [
        ("Www", Why.INVALID, "'Www' cannot be the name"),
        ("db", Why.CONFLICT, "an instance named db already"),
        ("web", Why.CONFLICT, "web is its name already"),
    ],
)
def test_refused(name: str, why: Why, says: str) -> None:
    cluster, web = standing()
    cluster, _ = launched(cluster, "db")
    refusal = refused(rename(cluster, web, name))
    assert refusal.why is why
    assert says in refusal.reason
    assert "delete web" not in refusal.hint


def test_nobody_takes_the_old_name_before_it_is_settled() -> None:
    """Otherwise going back would find it taken, and the operation could never end."""
    cluster, web = standing()
    desk = Desk(cluster)
    renaming = desk.accept(planned(rename(cluster, web, "www")))
    late = planned(launch(desk.cluster, MINE, wish("web"), draw("late"), NOW))
    assert getattr(desk.hand_in(late), "busy", None) == renaming
    desk.turn_back(renaming)
    desk.fail(renaming)
    assert names(desk.cluster) == names(cluster)
    assert not desk.cluster.claims


def test_a_launch_under_the_new_name_comes_first_or_second() -> None:
    cluster, web = standing()
    renaming = planned(rename(cluster, web, "www"))
    launching = planned(launch(cluster, MINE, wish("www"), draw("late"), NOW))
    for first, second in ((renaming, launching), (launching, renaming)):
        desk = Desk(cluster)
        running = desk.accept(first)
        assert getattr(desk.hand_in(second), "busy", None) == running


def test_two_renames_to_one_name() -> None:
    cluster, web = standing()
    cluster, db = launched(cluster, "db")
    desk = Desk(cluster)
    one, other = planned(rename(cluster, web, "www")), planned(rename(cluster, db, "www"))
    running = desk.accept(one)
    assert getattr(desk.hand_in(other), "busy", None) == running
    desk.succeed(running)
    assert "instance name www" in getattr(desk.hand_in(other), "what", "")
    assert accepted(cluster, one).named(Kind.INSTANCE, MINE, "www") == web.id
