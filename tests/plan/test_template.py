"""Templates: built, imported, published, deleted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from innkeeper.model.actions import BuildTemplate, DeleteTemplate, ImportTemplate, PublishTemplate
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Firmware
from innkeeper.model.host import Host
from innkeeper.model.ids import Kind, Ref, TemplateId, VolumeId
from innkeeper.model.instance import Wanted
from innkeeper.model.observed import Phase
from innkeeper.model.plans import Expect, NoUndo, Plan, Refusal, Verb, Why
from innkeeper.model.template import Origin, Template
from innkeeper.plan.template import CATALOGUE, build, delete_template, import_file, publish
from tests.plan.clusters import (
    DOWN,
    H1,
    H2,
    IMAGE,
    MINE,
    NOW,
    OTHERS,
    TINY,
    UP,
    a_cluster,
    a_host,
    a_template,
    accepted,
    done,
    draw,
    launched,
    made,
    planned,
    refused,
    same,
    standing,
    template_ref,
    undone,
    with_rows,
)

SILENT = a_cluster(None, Host(id=H1, name="new"))


def imported(
    cluster: Cluster, name: str = "golden", path: str = "/srv/golden.qcow2", fmt: str = "qcow2"
) -> Plan | Refusal:
    return import_file(cluster, MINE, name, (path, fmt, Firmware.BIOS), draw(), NOW)


def template_of(plan: Plan) -> Template:
    (row,) = made(plan)
    assert isinstance(row, Template)
    return row


def test_built_for_everybody() -> None:
    plan = planned(build(a_cluster(), "debian-12", draw(), NOW))
    row = template_of(plan)
    assert (row.name, row.version, row.project, row.origin, row.image) == ("debian-12", 1, None, Origin.BUILT, None)
    assert row.default_size == CATALOGUE["debian-12"]
    (step,) = plan.steps
    assert step.action == BuildTemplate(template=row.id, recipe="debian-12")
    assert step.undo == DeleteTemplate(template=row.id)
    assert (plan.verb, plan.title) == (Verb.BUILD, "build template debian-12:1")


@pytest.mark.parametrize("half", [True, False])
def test_versions_count_up_and_never_down(half: bool) -> None:
    cluster = with_rows(a_cluster(), a_template(TemplateId("t-9"), version=9, image=None if half else IMAGE))
    assert template_of(planned(build(cluster, "tiny", draw(), NOW))).version == 10


def test_one_at_a_time_is_made_of_a_name() -> None:
    one, other = (planned(build(a_cluster(), "tiny", draw(n), NOW)) for n in range(2))
    assert set(one.claims) & set(other.claims) == {Ref(Kind.TEMPLATE, "/tiny")}


def test_a_failed_one_leaves_nothing() -> None:
    cluster, web = standing(Phase.STOPPED)
    plans = (build(cluster, "tiny", draw(), NOW), imported(cluster), publish(cluster, web, "golden", draw(), NOW))
    assert all(same(undone(cluster, planned(plan)), cluster) for plan in plans)


def test_imported_for_the_project() -> None:
    plan = planned(imported(a_cluster()))
    row = template_of(plan)
    assert (row.name, row.project, row.origin) == ("golden", MINE, Origin.IMPORTED)
    assert plan.steps[0].action == ImportTemplate(
        template=row.id, path="/srv/golden.qcow2", format="qcow2", firmware=Firmware.BIOS
    )
    assert planned(imported(a_cluster(), fmt="raw")).verb is Verb.IMPORT


@pytest.mark.parametrize("name", ["debian-12", "tiny", "fedora"])
def test_what_everybody_has_or_may_build_is_no_name_for_a_projects_own(name: str) -> None:
    """Else there were two debian-12:1, of which one hides the other. What is being made counts, too."""
    cluster, web = standing(Phase.STOPPED)
    cluster = with_rows(cluster, a_template(TemplateId("t-f"), name="fedora", image=None))
    for answer in (imported(cluster, name=name), publish(cluster, web, name, draw(), NOW)):
        refusal = refused(answer)
        assert refusal.why is Why.CONFLICT
        assert refusal.reason.startswith(f"{name} is ")
        assert refusal.hint == f"Choose another name, such as my-{name}"


def test_names_of_other_projects_are_free() -> None:
    cluster = with_rows(a_cluster(), a_template(TemplateId("t-f"), name="golden", project=OTHERS))
    assert template_of(planned(imported(cluster))).version == 1


@pytest.mark.parametrize(
    "answer, why, says, hint",
    [
        (build(a_cluster(), "nixos", draw(), NOW), Why.NOT_FOUND, "no nixos", "debian-12, tiny"),
        (build(SILENT, "tiny", draw(), NOW), Why.UNAVAILABLE, "no host", "inn host list"),
        (imported(SILENT), Why.UNAVAILABLE, "no host", "inn host list"),
        (imported(a_cluster(), name="Golden"), Why.INVALID, "'Golden'", "a-z"),
        (imported(a_cluster(), fmt="vmdk"), Why.INVALID, "'vmdk' is no format", "qcow2, raw"),
        (imported(a_cluster(), fmt="QCOW2"), Why.INVALID, "'QCOW2' is no format", "qcow2, raw"),
        (imported(a_cluster(), fmt=""), Why.INVALID, "'' is no format", "qcow2, raw"),
        (imported(a_cluster(), path="golden.qcow2"), Why.INVALID, "golden.qcow2 is not an absolute path", "daemon"),
        (delete_template(SILENT, SILENT.templates[TINY]), Why.UNAVAILABLE, "no host", "inn host list"),
    ],
)
def test_refused(answer: Plan | Refusal, why: Why, says: str, hint: str) -> None:
    refusal = refused(answer)
    assert refusal.why is why
    assert says in refusal.reason
    assert hint in refusal.hint


# --- publish


@pytest.mark.parametrize("phase", [None, *DOWN])
def test_published_from_the_root_disk_of_what_is_down(phase: Phase | None) -> None:
    cluster, web = standing(phase)
    (volume,) = cluster.disks(web.id)
    earlier = replace(volume, id=VolumeId("vol-000000000000"), name="web/data")  # sorts before the root disk
    cluster = with_rows(cluster, earlier)
    plan = planned(publish(cluster, web, "golden", draw(), NOW))
    row = template_of(plan)
    assert plan.steps[0].action == PublishTemplate(template=row.id, instance=web.id, volume=volume.id, parent=TINY)
    assert (row.origin, row.project, row.default_size) == (Origin.PUBLISHED, MINE, web.size)
    assert {web.ref, volume.ref} <= set(plan.claims)
    assert web.ref in {e.ref for e in plan.expects}
    assert plan.title == "publish web as golden:1"


@pytest.mark.parametrize("phase", UP)
def test_what_runs_is_not_published(phase: Phase) -> None:
    cluster, web = standing(phase)
    refusal = refused(publish(cluster, web, "golden", draw(), NOW))
    assert (refusal.why, refusal.reason) == (Why.CONFLICT, "web is running")
    assert "inn stop web" in refusal.hint


def test_nor_is_what_is_being_deleted_or_badly_named() -> None:
    cluster, web = standing(Phase.STOPPED, wanted=Wanted.ABSENT)
    assert "being deleted" in refused(publish(cluster, web, "golden", draw(), NOW)).reason
    assert refused(publish(cluster, web, "no good", draw(), NOW)).why is Why.INVALID


# --- delete


def test_hidden_at_once_and_gone_with_its_artefacts() -> None:
    cluster = a_cluster()
    plan = planned(delete_template(cluster, cluster.templates[TINY]))
    assert accepted(cluster, plan).templates[TINY].image is None
    assert TINY not in done(cluster, plan).templates
    (step,) = plan.steps
    assert (step.action, step.undo, step.generation) == (DeleteTemplate(template=TINY), NoUndo.NO_WAY_BACK, 2)


def test_shown_again_when_its_host_refuses() -> None:
    cluster = a_cluster()
    plan = planned(delete_template(cluster, cluster.templates[TINY]))
    back = undone(cluster, plan).templates[TINY]
    assert back.generation == 3
    assert replace(back, generation=1) == cluster.templates[TINY]
    assert plan.claims == (template_ref(),)
    assert plan.expects == (Expect(ref=template_ref(), generation=1),)


@pytest.mark.parametrize(
    "users, says", [(1, "is used by n0"), (5, "n0, n1, n2, n3, n4"), (7, "n0, n1, n2, n3, n4 and 2 more")]
)
def test_what_is_used_is_kept(users: int, says: str) -> None:
    cluster = a_cluster()
    for number in range(users):
        cluster, _ = launched(cluster, f"n{number}")
    refusal = refused(delete_template(cluster, cluster.templates[TINY]))
    assert refusal.why is Why.CONFLICT
    assert refusal.reason.endswith(says)
    assert "delete them first" in refusal.hint


def test_the_host_that_has_reported() -> None:
    cluster = a_cluster(None, Host(id=H1, name="new"), a_host(H2, "h2"))
    assert planned(build(cluster, "tiny", draw(), NOW)).steps[0].host == H2
