"""Snapshots over HTTP: taken, listed as a tree, restored, launched from, deleted."""

from __future__ import annotations

from datetime import datetime

import httpx
import pytest

from innkeeper.sim.commands import disk_of, write_file
from innkeeper.sim.faults import Fault
from innkeeper.sim.metal.guests import Guest
from tests.contract.api.asking import Json, accepted, done, ended, launch, problem
from tests.contract.daemon import Daemon, Wanted


def at(instance: str, *more: str) -> str:
    return "/".join(("/v1/instances", instance, "snapshots", *more))


def take(api: httpx.Client, instance: str, name: str) -> Json:
    """As it is shown once it was taken."""
    done(api, api.post(at(instance), json={"name": name}))
    return dict(api.get(at(instance, name)).json())


def make(api: httpx.Client, name: str, *snapshots: str) -> None:
    """An instance that is off, with snapshots one over the other."""
    done(api, api.post("/v1/instances", json={"template": "tiny", "name": name, "start": False}))
    for snapshot in snapshots:
        take(api, name, snapshot)


def tree(api: httpx.Client, instance: str) -> dict[str, str | None]:
    """Names to parents, oldest first; the one that the instance stands on with a mark."""
    items = api.get(at(instance)).json()["items"]
    return {s["name"] + ("*" if s["current"] else ""): s["parent"] for s in items}


def note(daemon: Daemon, instance: str, words: bytes) -> None:
    said = daemon.do(lambda: write_file(daemon.state, daemon.state.running(instance), "/root/note", words))
    assert said.code == 0, said


def noted(daemon: Daemon, instance: str) -> bytes:
    disk = daemon.do(lambda: disk_of(daemon.state, daemon.state.running(instance)))
    assert disk is not None
    return disk.files["/root/note"].data


# --- taking and looking


def test_one_is_taken_of_a_running_instance_and_shown(api: httpx.Client) -> None:
    one = launch(api, "web")
    assert (one["snapshots"], one["over"]) == (0, None)
    operation = done(api, api.post(at("web"), json={"name": "before"}))
    assert (operation["verb"], operation["title"]) == ("snapshot", "take snapshot before of web")
    assert operation["subjects"][0] == one["id"]
    found = api.get(at("web", "before")).json()
    assert found["id"] == operation["subjects"][1]
    assert api.get(at(one["id"], found["id"][:10])).json() == found
    assert api.get(at("web")).json() == {"items": [found], "next": None}
    assert {k: found[k] for k in ("instance", "project", "host", "template", "size")} == {
        "instance": "web",
        "project": "default",
        "host": "sim",
        "template": "tiny:1",
        "size": one["size"],
    }
    assert (found["status"], found["consistent"], found["parent"], found["current"]) == ("ready", True, None, True)
    assert found["stored_bytes"] > 0
    assert found["operation"] is None
    assert datetime.fromisoformat(found["created_at"]) >= datetime.fromisoformat(one["created_at"])
    after = api.get("/v1/instances/web").json()
    assert (after["status"], after["snapshots"], after["over"]) == ("running", 1, "before")


def test_without_a_name_they_are_numbered(api: httpx.Client) -> None:
    make(api, "counted")
    done(api, api.post(at("counted")))
    done(api, api.post(at("counted"), json={}))
    done(api, api.delete(at("counted", "snap0")))
    done(api, api.post(at("counted"), json={"name": None}))
    assert list(tree(api, "counted")) == ["snap1", "snap0*"]


def test_without_an_agent_the_file_systems_do_not_stand_still(api: httpx.Client, daemon: Daemon) -> None:
    daemon.do(lambda: daemon.state.script("mute", Guest(agent=False)))
    done(api, api.post("/v1/instances", json={"template": "tiny", "name": "mute"}))
    assert take(api, "mute", "running")["consistent"] is False
    done(api, api.post("/v1/instances/mute/stop", json={"force": True}))
    assert take(api, "mute", "off")["consistent"] is False, "it was not asked to write out what it held"


def test_one_that_is_being_taken_or_deleted_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    orders = dict[int, Fault]()
    folder = tmp_path_factory.mktemp("taking")
    with Daemon(Wanted(folder=folder, orders=orders)) as daemon, daemon.client() as api:
        make(api, "web")
        daemon.do(lambda: orders.update(dict.fromkeys(range(100_000), Fault.AWAY)))
        operation = accepted(api.post(at("web"), json={"name": "slow"}))
        seen = api.get(at("web", "slow"))
        found = seen.json()
        assert (found["status"], found["consistent"], found["stored_bytes"]) == ("taking", None, None)
        assert found["operation"] == operation["id"]
        busy = problem(api.post("/v1/instances", json={"snapshot": "web/slow"}), 409)
        assert busy["type"] == "urn:innkeeper:problem:busy"
        problem(api.post(at("web", "slow", "restore")), 409)
        problem(api.delete(at("web", "slow")), 409)
        daemon.do(orders.clear)
        assert api.get(f"/v1/operations/{operation['id']}/wait").json()["state"] == "succeeded"
        changed = api.get(at("web", "slow"), headers={"if-none-match": seen.headers["etag"]})
        assert (changed.status_code, changed.json()["status"]) == (200, "ready")
        daemon.do(lambda: orders.update(dict.fromkeys(range(100_000), Fault.AWAY)))
        operation = accepted(api.delete("/v1/instances/web"))
        found = api.get(at("web", "slow")).json()
        assert (found["status"], found["operation"]) == ("deleting", operation["id"])
        problem(api.post("/v1/instances", json={"snapshot": "web/slow"}), 409)
        daemon.do(orders.clear)
        assert api.get(f"/v1/operations/{operation['id']}/wait").json()["state"] == "succeeded"
        problem(api.get(at("web", "slow")), 404)


# --- back, and elsewhere


def test_an_instance_is_taken_back(api: httpx.Client, daemon: Daemon) -> None:
    launch(api, "back")
    note(daemon, "back", b"one")
    take(api, "back", "first")
    note(daemon, "back", b"two")
    take(api, "back", "second")
    note(daemon, "back", b"three")
    assert "inn rewind back first" in problem(api.post(at("back", "first", "restore")), 409)["hint"]
    problem(api.post(at("back", "first", "restore"), json={"restart": False}), 409)
    restored = done(api, api.post(at("back", "first", "restore"), json={"restart": True}))
    assert (restored["verb"], restored["title"]) == ("restore", "restore back to snapshot first")
    assert api.get("/v1/instances/back/wait").json()["agent"]
    assert noted(daemon, "back") == b"one"
    assert tree(api, "back") == {"first*": None, "second": "first"}
    take(api, "back", "other")
    assert tree(api, "back") == {"first": None, "second": "first", "other*": "first"}
    done(api, api.post("/v1/instances/back/stop", json={"force": True}))
    done(api, api.post(at("back", "second", "restore")))
    one = api.get("/v1/instances/back").json()
    assert (one["status"], one["wanted"], one["over"]) == ("stopped", "stopped", "second")
    done(api, api.post(at("back", "second", "restore"), json={"restart": True}))
    assert api.get("/v1/instances/back").json()["status"] == "stopped"
    done(api, api.post("/v1/instances/back/start"))
    assert api.get("/v1/instances/back/wait").json()["agent"]
    assert noted(daemon, "back") == b"two"


def test_what_is_over_a_deleted_one_stays_whole(api: httpx.Client, daemon: Daemon) -> None:
    launch(api, "parent")
    note(daemon, "parent", b"kept")
    take(api, "parent", "below")
    take(api, "parent", "middle")
    child = launch(api, "child", template=None, snapshot="parent/middle")
    assert (child["snapshots"], child["over"]) == (0, "parent/middle")
    assert child["addresses"] != api.get("/v1/instances/parent").json()["addresses"]
    assert take(api, "child", "own")["parent"] == "parent/middle"
    done(api, api.delete(at("parent", "middle")))
    assert tree(api, "parent") == {"below*": None}
    assert tree(api, "child") == {"own*": "parent/below"}
    done(api, api.delete("/v1/instances/parent?force=true"))
    problem(api.get(at("parent")), 404)
    assert tree(api, "child") == {"own*": None}
    done(api, api.post("/v1/instances/child/restart", json={"force": True}))
    assert api.get("/v1/instances/child/wait").json()["agent"]
    assert noted(daemon, "child") == b"kept"
    before = len(daemon.state.pool.disks)
    done(api, api.delete("/v1/instances/child?force=true"))
    # Its own two, and both of its late parent's.
    assert before - len(daemon.state.pool.disks) == 4


def test_several_are_launched_from_one(api: httpx.Client) -> None:
    make(api, "model", "gold")
    parent = done(api, api.post("/v1/instances", json={"snapshot": "model/gold", "name": "cast", "count": 3}))
    assert len(parent["children"]) == 3
    whole = {"snapshot": "model/gold", "name": "whole", "count": 2, "all_or_none": True, "memory_mib": 256}
    done(api, api.post("/v1/instances", json=whole))
    names = [f"cast-{n}" for n in (1, 2, 3)] + ["whole-1", "whole-2"]
    made = [api.get(f"/v1/instances/{name}").json() for name in names]
    assert {one["over"] for one in made} == {"model/gold"}
    assert [one["size"]["memory_mib"] for one in made] == [128, 128, 128, 256, 256]


def test_a_dry_run_shows_what_it_would_stand_on(api: httpx.Client, daemon: Daemon) -> None:
    make(api, "dry", "wet")
    before = daemon.store.pictures.cluster()
    wish = {"snapshot": "dry/wet", "name": "planned", "count": 2, "dry_run": True}
    answer = api.post("/v1/instances", json=wish)
    assert answer.status_code == 200
    plans = answer.json()["items"]
    assert [p["title"] for p in plans] == ["launch planned-1 from dry/wet", "launch planned-2 from dry/wet"]
    assert [one["over"] for p in plans for one in p["instances"]] == ["dry/wet", "dry/wet"]
    assert " over vol-" in plans[0]["steps"][0]["words"]
    after = daemon.store.pictures.cluster()
    assert (after.instances, after.volumes) == (before.instances, before.volumes)


# --- what every list, object and change has


def test_a_long_list_has_pages(api: httpx.Client) -> None:
    make(api, "paged", "c", "a", "b")
    names, cursor = list[str](), None
    while True:
        query = {"limit": 1} if cursor is None else {"limit": 1, "cursor": cursor}
        page = api.get(at("paged"), params=query).json()
        names += [s["name"] for s in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert names == ["c", "a", "b"]
    problem(api.get(at("paged"), params={"cursor": "x"}), 422)
    problem(api.get(at("paged"), params={"limit": 0}), 422)
    problem(api.get(at("paged"), params={"label": "a=b"}), 422)


def test_versions(api: httpx.Client) -> None:
    make(api, "tagged", "old")
    tag = api.get(at("tagged", "old")).headers["etag"]
    assert api.get(at("tagged", "old"), headers={"if-none-match": tag}).status_code == 304
    take(api, "tagged", "new")
    # The instance stands on another one now: a reader is told, a writer need not care.
    assert api.get(at("tagged", "old"), headers={"if-none-match": tag}).json()["current"] is False
    stale = problem(api.delete(at("tagged", "old"), headers={"if-match": '"77-0"'}), 412)
    assert stale["detail"] == "snapshot old has changed since it was read"
    done(api, api.delete(at("tagged", "old"), headers={"if-match": tag}))


def test_changes_know_keys(api: httpx.Client) -> None:
    make(api, "keyed")
    for method, path, body in (
        ("POST", at("keyed"), {"name": "once"}),
        ("POST", at("keyed"), None),
        ("POST", at("keyed", "once", "restore"), {"restart": True}),
        ("POST", "/v1/instances", {"snapshot": "keyed/once", "name": "keyed-too"}),
        ("DELETE", at("keyed", "once"), None),
    ):
        key = {"idempotency-key": f"{method} {path} {body}"}
        first = done(api, api.request(method, path, json=body, headers=key))
        assert accepted(api.request(method, path, json=body, headers=key))["id"] == first["id"], path
        other = problem(api.post(at("keyed"), json={"name": "another"}, headers=key), 422)
        assert first["id"] in other["detail"]
    assert list(tree(api, "keyed")) == ["snap0"]


# --- what cannot be

_NONE = "there is no instance named none"


REFUSED: tuple[tuple[str, str, Json | None, int, str], ...] = (
    ("GET", at("none"), None, 404, _NONE),
    ("POST", at("none"), {}, 404, _NONE),
    ("GET", at("none", "kept"), None, 404, _NONE),
    ("DELETE", at("none", "kept"), None, 404, _NONE),
    ("POST", at("none", "kept", "restore"), None, 404, _NONE),
    ("GET", at("odd", "none"), None, 404, "there is no snapshot named none"),
    ("DELETE", at("odd", "none"), None, 404, "there is no snapshot named none"),
    ("POST", at("odd", "none", "restore"), {}, 404, "there is no snapshot named none"),
    ("GET", at("odd", "others"), None, 404, "there is no snapshot named others"),
    ("POST", at("odd"), {"name": "kept"}, 409, "odd has a snapshot named kept already"),
    ("POST", at("odd"), {"name": ""}, 422, "'' cannot be the name of a snapshot"),
    ("POST", at("odd"), {"name": "a/b"}, 422, "'a/b' cannot be the name of a snapshot"),
    ("POST", at("odd"), {"name": "Loud"}, 422, "'Loud' cannot be the name of a snapshot"),
    ("POST", at("odd"), {"name": "snap-0a"}, 422, "reads as the beginning of an id"),
    ("POST", at("odd"), {"name": 7}, 422, "name: "),
    ("POST", at("odd"), {"nmae": "x"}, 422, "nmae: "),
    ("POST", at("odd", "kept", "restore"), {"restart": "yes"}, 422, "restart: "),
    ("POST", "/v1/instances", {}, 422, "neither template nor snapshot was given"),
    (
        "POST",
        "/v1/instances",
        {"template": "tiny", "snapshot": "odd/kept"},
        422,
        "template and snapshot were given",
    ),
    ("POST", "/v1/instances", {"template": "tiny", "snapshot": "no/no"}, 422, "template and snapshot were given"),
    ("POST", "/v1/instances", {"snapshot": "odd"}, 422, "odd names no snapshot, as odd/NAME would"),
    ("POST", "/v1/instances", {"snapshot": "none/kept"}, 404, _NONE),
    ("POST", "/v1/instances", {"snapshot": "odd/others"}, 404, "there is no snapshot named others"),
    ("POST", "/v1/instances", {"snapshot": "odd/none", "dry_run": True}, 404, "there is no snapshot named none"),
    ("POST", "/v1/instances", {"snapshot": "odd/large", "disk_gib": 1}, 422, "smaller than that of snapshot large"),
    ("PUT", at("odd", "kept"), None, 405, "this path does not know that method"),
)


@pytest.fixture(scope="module")
def odd(api: httpx.Client) -> None:
    """Two instances with a snapshot each: none finds the other's."""
    done(api, api.post("/v1/instances", json={"template": "tiny", "name": "odd", "disk_gib": 3, "start": False}))
    for snapshot in ("kept", "large"):
        take(api, "odd", snapshot)
    make(api, "stranger", "others")


@pytest.mark.parametrize("request_of, words", [(r[:3], r[3:]) for r in REFUSED], ids=lambda v: ascii(v)[:70])
def test_what_cannot_be_is_refused_in_words(
    api: httpx.Client, odd: None, request_of: tuple[str, str, Json | None], words: tuple[int, str]
) -> None:
    method, path, body = request_of
    status, detail = words
    answer = problem(api.request(method, path, json=body), status)
    assert detail in answer["detail"]
    assert answer["hint"]


def test_the_id_of_anothers_is_none_of_ours(api: httpx.Client, odd: None) -> None:
    other = api.get(at("stranger", "others")).json()["id"]
    problem(api.get(at("odd", other)), 404)
    problem(api.delete(at("odd", other)), 404)
    problem(api.post("/v1/instances", json={"snapshot": f"odd/{other}"}), 404)


def test_changes_know_what_was_read(api: httpx.Client) -> None:
    make(api, "read", "first")
    one = "/v1/instances/read/snapshots/first"
    early = {"if-match": api.get("/v1/instances/read").headers["etag"]}
    done(api, api.post("/v1/instances/read/snapshots", json={"name": "second"}, headers=early))
    problem(api.post("/v1/instances/read/snapshots", json={"name": "third"}, headers=early), 412)
    problem(api.post(f"{one}/restore", json={"restart": True}, headers={"if-match": '"9"'}), 412)
    problem(api.delete(one, headers={"if-match": '"9"'}), 412)
    done(api, api.delete(one, headers={"if-match": api.get(one).headers["etag"]}))


def test_several_deletions_at_once_leave_nothing(api: httpx.Client, daemon: Daemon) -> None:
    """A branch that nobody stands on, from its middle, its top and its root."""
    make(api, "tree", "root")
    for name in ("one", "two", "three"):
        done(api, api.post("/v1/instances/tree/snapshots", json={"name": name}))
    done(api, api.post("/v1/instances/tree/snapshots/root/restore", json={"restart": True}))
    answers = [api.delete(f"/v1/instances/tree/snapshots/{name}") for name in ("two", "three", "one")]
    assert [ended(api, answer)["state"] for answer in answers] == ["succeeded"] * 3
    left = daemon.store.pictures.cluster()
    assert [s.name for s in left.snapshots.values() if left.instances[s.instance].name == "tree"] == ["root"]
