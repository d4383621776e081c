"""Which names are allowed, and how objects are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innkeeper.model.cluster import Cluster
from innkeeper.model.host import Host
from innkeeper.model.ids import HostId, InstanceId, Kind, ProjectId, TemplateId
from innkeeper.model.instance import Instance
from innkeeper.model.network import Network
from innkeeper.model.plans import Refusal, Why
from innkeeper.model.template import Template
from innkeeper.plan.names import (
    bad_labels,
    bad_name,
    find_host,
    find_instance,
    find_network,
    find_template,
    name_claim,
    taken,
    template_by_id,
    template_versions,
)
from tests.plan.clusters import (
    H1,
    H2,
    MINE,
    NET,
    OTHERS,
    TINY,
    a_cluster,
    a_host,
    a_template,
    launched,
    refused,
    with_rows,
)

Found = Instance | Template | Network | Host | Refusal
NEWER, OWN, HALF = TemplateId("t-000000000002"), TemplateId("t-0000000000a1"), TemplateId("t-0000000000b1")


@pytest.mark.parametrize("name", ["a", "web", "web-1", "x" * 63, "i-web", "i-0123456789abc", "i", "net-1", "h-2"])
def test_good_names(name: str) -> None:
    assert bad_name(name, Kind.INSTANCE) is None
    assert bad_name(name, Kind.TEMPLATE) is None


@pytest.mark.parametrize(
    "name",
    [
        *("", "-web", "web-", "1web", "Web", "wéb", "web_1", "web 1", "web\n", "x" * 64, "../web", "web/1", "web:1"),
        *(f"{prefix}-0123456789ab" for prefix in ("i", "t", "vol", "net", "nic", "h", "p", "op")),
    ],
)
def test_bad_names(name: str) -> None:
    for kind, an in ((Kind.INSTANCE, "an instance"), (Kind.TEMPLATE, "a template")):
        refusal = refused(bad_name(name, kind))
        assert refusal.why is Why.INVALID
        assert refusal.reason.startswith(f"{name!r} cannot be the name of {an}")
        assert refusal.hint


@pytest.mark.parametrize(
    "kind, name",
    [
        (Kind.INSTANCE, "i-7"),
        (Kind.INSTANCE, "i-beef"),
        (Kind.INSTANCE, "i-0123456789a"),
        (Kind.TEMPLATE, "t-1"),
        (Kind.NETWORK, "net-1"),
    ],
)
def test_no_name_reads_as_the_beginning_of_an_id_of_its_kind(kind: Kind, name: str) -> None:
    refusal = refused(bad_name(name, kind))
    assert refusal.reason.endswith("it reads as the beginning of an id")
    assert "ids are accepted wherever names are" in refusal.hint


def test_dots_are_for_templates() -> None:
    assert bad_name("ubuntu-24.04", Kind.TEMPLATE) is None
    refused(bad_name("ubuntu-24.04", Kind.INSTANCE))
    refused(bad_name("ubuntu.", Kind.TEMPLATE))


@given(st.text(max_size=70))
def test_what_passes_is_a_host_name(name: str) -> None:
    if bad_name(name, Kind.INSTANCE) is None:
        assert name.encode("idna").decode() == name
        assert name == name.lower().strip("-")


def a_site() -> Cluster:
    """Two of my instances and one of another project's; tiny in two versions, my own, and a half-made one."""
    cluster, web = launched(a_cluster(), "web")
    cluster, _ = launched(cluster, "db")
    cluster = with_rows(
        cluster, replace(web, id=InstanceId("i-abc000000001"), project=OTHERS, uid_slot=1, name="theirs")
    )
    return with_rows(
        cluster,
        a_template(NEWER, version=2),
        a_template(HALF, version=3, image=None),
        a_template(OWN, name="golden", project=MINE),
        a_template(TemplateId("t-0000000000a2"), name="secret", project=OTHERS),
    )


def ids(cluster: Cluster) -> dict[str, str]:
    return {i.name: i.id for i in cluster.instances.values()}


def test_instances_by_name_id_and_prefix() -> None:
    cluster = a_site()
    web = ids(cluster)["web"]
    for word in ("web", web, web[:8]):
        found = find_instance(cluster, MINE, word)
        assert isinstance(found, Instance)
        assert found.id == web
    theirs = find_instance(cluster, OTHERS, "i-abc")
    assert isinstance(theirs, Instance)


@pytest.mark.parametrize("word", ["", "we", "theirs", "i-abc000000001", "i-abc", "i-", "i-zzz", "vol-1"])
def test_instances_that_are_not_found(word: str) -> None:
    """Another project's looks as if it were not there."""
    refusal = refused(find_instance(a_site(), MINE, word))
    assert (refusal.why, refusal.reason) == (Why.NOT_FOUND, f"there is no instance named {word}")
    assert refusal.hint == "See: inn list"


def test_a_name_goes_before_a_prefix() -> None:
    cluster = a_site()
    web = ids(cluster)["web"]
    cluster, named = launched(cluster, "named")
    older = replace(named, name=web[:6])  # as releases allowed that did not refuse such names
    assert find_instance(with_rows(cluster, older), MINE, web[:6]) == older


def test_an_ambiguous_prefix_names_what_it_begins() -> None:
    cluster = a_site()
    for number in range(7):
        row = replace(
            cluster.instances[InstanceId(ids(cluster)["web"])], id=InstanceId(f"i-fff{number}"), name=f"n{number}"
        )
        cluster = with_rows(cluster, replace(row, uid_slot=100 + number))
    refusal = refused(find_instance(cluster, MINE, "i-fff"))
    assert refusal.why is Why.CONFLICT
    shown = "i-fff0 (n0), i-fff1 (n1), i-fff2 (n2), i-fff3 (n3), i-fff4 (n4) and 2 more"
    assert refusal.reason == f"i-fff is the beginning of 7 instance ids: {shown}"


@pytest.mark.parametrize(
    "word, found",
    [
        ("tiny", NEWER),
        ("tiny:1", TINY),
        ("tiny:2", NEWER),
        ("golden", OWN),
        ("golden:1", OWN),
        (TINY, TINY),
        ("t-0000000000a", OWN),
    ],
)
def test_templates(word: str, found: TemplateId) -> None:
    template = find_template(a_site(), MINE, word)
    assert isinstance(template, Template)
    assert template.id == found


@pytest.mark.parametrize("word", ["tiny:3", "tiny:0", "tiny:x", HALF, "secret", "golden:2", "debian-12", "t-", ""])
def test_templates_that_are_not_found(word: str) -> None:
    refusal = refused(find_template(a_site(), MINE, word))
    assert refusal.why is Why.NOT_FOUND
    assert "inn template build" in refusal.hint


def test_neither_a_projects_own_template_nor_everybodys_hides_the_other() -> None:
    """Older releases let a project take a name of the catalogue."""
    own = a_template(TemplateId("t-0000000000c1"), project=MINE)
    cluster = with_rows(a_site(), own)
    for word, shared in (("tiny", f"tiny:2 ({NEWER})"), ("tiny:1", f"tiny:1 ({TINY})")):
        refusal = refused(find_template(cluster, MINE, word))
        assert refusal.why is Why.CONFLICT
        assert refusal.reason == f"{word} is everybody's {shared} and this project's own tiny:1 ({own.id})"
        assert own.id in refusal.hint
    for project, word, id in ((MINE, own.id, own.id), (MINE, TINY, TINY), (MINE, "tiny:2", NEWER)):
        found = find_template(cluster, project, word)
        assert isinstance(found, Template)
        assert found.id == id
    theirs = find_template(cluster, OTHERS, "tiny")
    assert isinstance(theirs, Template)
    assert theirs.id == NEWER


def test_versions_count_those_being_made() -> None:
    assert [t.version for t in template_versions(a_site(), None, "tiny")] == [1, 2, 3]
    assert template_versions(a_site(), MINE, "tiny") == ()


def test_template_by_id() -> None:
    assert template_by_id(a_site(), TINY) == "tiny:1"
    assert template_by_id(a_site(), TemplateId("t-gone")) == "t-gone"


def network_of(project: ProjectId) -> Callable[[Cluster, str], Found]:
    return lambda cluster, word: find_network(cluster, project, word)


@pytest.mark.parametrize(
    "find, words, id, missing",
    [
        (network_of(MINE), ("default", NET, NET[:5], "net"), NET, ("lan", "ne")),
        (network_of(OTHERS), (), NET, ("default", NET)),
        (find_host, ("h1", H1, H1[:3]), H1, ("h3", "h-", "")),
    ],
)
def test_networks_and_hosts(
    find: Callable[[Cluster, str], Found], words: tuple[str, ...], id: str, missing: tuple[str, ...]
) -> None:
    """Three characters are enough to be a prefix."""
    cluster = a_cluster()
    for word in words:
        found = find(cluster, word)
        assert not isinstance(found, Refusal)
        assert found.id == id
    for word in missing:
        assert refused(find(cluster, word)).why is Why.NOT_FOUND


def test_a_whole_id_is_never_too_short() -> None:
    short = a_host(HostId("h"), "one")
    cluster = a_cluster(None, short, a_host(H2, "two"))
    assert find_host(cluster, "h") == short


def test_taken() -> None:
    cluster = a_site()
    assert taken(cluster, MINE, "www") is None
    assert taken(cluster, OTHERS, "web") is None
    assert ids(cluster)["web"] in refused(taken(cluster, MINE, "web")).reason


def test_claims_of_names_differ_by_kind_and_project() -> None:
    claims = {name_claim(k, p, "web") for k in (Kind.INSTANCE, Kind.TEMPLATE) for p in (MINE, OTHERS, None)}
    assert len(claims) == 6


@pytest.mark.parametrize(
    "labels", [{}, {"team": "blue"}, {"a.b/c-d_e": ""}, {"k" * 63: "é" * 255}, {"é".encode().hex(): "é"}]
)
def test_good_labels(labels: dict[str, str]) -> None:
    assert bad_labels(labels) is None


@pytest.mark.parametrize(
    "labels, word",
    [
        ({"": "x"}, "key"),
        ({"a b": "x"}, "key"),
        ({"-a": "x"}, "key"),
        ({"k" * 64: "x"}, "key"),
        ({"a": "v" * 256}, "value"),
        ({"a": "\x1b[2J"}, "value"),
        ({f"k{n}": "" for n in range(65)}, "65 labels"),
    ],
)
def test_bad_labels(labels: dict[str, str], word: str) -> None:
    refusal = refused(bad_labels(labels))
    assert refusal.why is Why.INVALID
    assert word in refusal.reason
    assert refusal.reason.isprintable()
    assert refusal.hint
