"""The first rows of an installation."""

from __future__ import annotations

from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import Kind
from innkeeper.model.plans import Why
from innkeeper.plan.setup import default_project, set_up
from tests.plan.clusters import H1, H2, accepted, draw, planned, refused

ONE = ((H1, "h1"),)


def test_project_network_and_hosts() -> None:
    plan = planned(set_up(Cluster(), (*ONE, (H2, "h2")), (), draw()))
    assert plan.title == "set up host, network, project"
    assert plan.steps == ()
    assert all(e.generation is None for e in plan.expects)
    assert set(plan.claims) == {e.ref for e in plan.expects}
    cluster = accepted(Cluster(), plan)
    project = default_project(cluster)
    assert project is not None
    assert cluster.named(Kind.NETWORK, project, "default") is not None
    assert {h.name for h in cluster.hosts.values()} == {"h1", "h2"}


def test_once_is_enough() -> None:
    cluster = accepted(Cluster(), planned(set_up(Cluster(), ONE, (), draw())))
    assert set_up(cluster, ONE, ("10.0.0.0/8",), draw(1)) is None


def test_only_what_is_missing() -> None:
    cluster = accepted(Cluster(), planned(set_up(Cluster(), ONE, (), draw())))
    assert planned(set_up(cluster, (*ONE, (H2, "h2")), (), draw(1))).title == "set up host"


def test_without_a_range_nothing_stands() -> None:
    in_use = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    assert refused(set_up(Cluster(), ONE, in_use, draw())).why is Why.NO_ROOM
    assert default_project(Cluster()) is None
