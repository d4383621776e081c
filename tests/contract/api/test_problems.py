"""What is wrong is told: what, on what, what to do next; as a 4xx, and nothing is half-made."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from innkeeper.sim.metal.guests import Due
from tests.contract.api.asking import Json, done, launch, problem
from tests.contract.daemon import Daemon, Wanted

LAUNCH = "/v1/instances"
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHg6kUb8AIbcUmsuXuIdUEnxsK83HpE9EDJSHJj9dPMf"

# What is wished, the status, and what the detail must say.
WISHES: list[tuple[Json, int, str]] = [
    ({"template": "nosuch"}, 404, "there is no template named nosuch"),
    ({"template": "tiny:7"}, 404, "tiny:7"),
    ({"template": ""}, 404, "template"),
    ({"name": "x"}, 422, "neither template nor snapshot was given"),
    ({"template": "tiny", "vcpus": 0}, 422, "0 vCPUs"),
    ({"template": "tiny", "vcpus": -1}, 422, "-1 vCPUs"),
    ({"template": "tiny", "vcpus": 200}, 507, "sim has 64 CPU threads"),
    ({"template": "tiny", "vcpus": 1.5}, 422, "vcpus"),
    ({"template": "tiny", "vcpus": "two"}, 422, "vcpus"),
    ({"template": "tiny", "vcpus": "2"}, 422, "vcpus"),
    ({"template": "tiny", "vcpus": True}, 422, "vcpus"),
    ({"template": "tiny", "vcpus": 2.0}, 422, "vcpus"),
    ({"template": "tiny", "memory_mib": 100.3}, 422, "memory_mib"),
    ({"template": "tiny", "disk_gib": 1.3}, 422, "disk_gib"),
    ({"template": "tiny", "count": 2.7}, 422, "count"),
    ({"template": "tiny", "count": "2"}, 422, "count"),
    ({"template": "tiny", "start": "no"}, 422, "start"),
    ({"template": "tiny", "dry_run": 1}, 422, "dry_run"),
    ({"template": "tiny", "ttl_s": "60"}, 422, "ttl_s"),
    ({"template": "tiny", "vcpus": 10**30}, 422, "vCPUs cannot be given"),
    ({"template": "tiny", "memory_mib": 0}, 422, "0 MiB"),
    ({"template": "tiny", "memory_mib": 10**9}, 507, "MiB of memory free"),
    ({"template": "tiny", "disk_gib": 0}, 422, "0 GiB"),
    ({"template": "debian-12", "disk_gib": 1}, 422, "smaller than the template's image"),
    ({"template": "tiny", "disk_gib": 10**6}, 422, "cannot be made"),
    ({"template": "tiny", "disk_gib": 60_000}, 507, "GiB of disk free"),
    ({"template": "tiny", "size": "huge"}, 422, "no size named huge"),
    ({"template": "tiny", "network": "nowhere"}, 404, "no network named nowhere"),
    ({"template": "tiny", "name": ""}, 422, "cannot be the name"),
    ({"template": "tiny", "name": "Web"}, 422, "cannot be the name"),
    ({"template": "tiny", "name": "-web"}, 422, "cannot be the name"),
    ({"template": "tiny", "name": "w" * 64}, 422, "cannot be the name"),
    ({"template": "tiny", "name": "wéb"}, 422, "cannot be the name"),
    ({"template": "tiny", "name": "a/b"}, 422, "cannot be the name"),
    ({"template": "tiny", "name": "i-0123456789ab"}, 422, "cannot be the name"),
    ({"template": "tiny", "name": "web\n"}, 422, "cannot be the name"),
    ({"template": "tiny", "name": "i-7"}, 422, "reads as the beginning of an id"),
    ({"template": "tiny", "user_data": "#cloud-config\n{}\n"}, 422, "tiny:1 has no cloud-init"),
    ({"template": "tiny", "user_data": "#cloud-config\n{}\n", "dry_run": True}, 422, "tiny:1 has no cloud-init"),
    ({"template": "tiny", "ssh_keys": [KEY]}, 422, "would ignore SSH keys"),
    ({"template": "tiny", "ttl_s": 0}, 422, "time to live"),
    ({"template": "tiny", "ttl_s": -5}, 422, "time to live"),
    ({"template": "tiny", "ttl_s": 1e300}, 422, "time to live"),
    ({"template": "tiny", "count": 0}, 422, "0 instances"),
    ({"template": "tiny", "count": 1001}, 422, "1001 instances"),
    ({"template": "tiny", "user_data": ""}, 422, "user-data is empty"),
    ({"template": "tiny", "user_data": "#cloud-config\na: [b"}, 422, "not valid YAML"),
    ({"template": "tiny", "user_data": "hello"}, 422, "begins with nothing that cloud-init knows"),
    ({"template": "tiny", "user_data": "#!/bin/sh\n" + "x" * (1 << 20)}, 422, "more than"),
    ({"template": "tiny", "user_data_base64": "%%%"}, 422, "base64"),
    ({"template": "tiny", "user_data": "#!/bin/sh", "user_data_base64": "IyEvYmluL3No"}, 422, "both given"),
    ({"template": "tiny", "ssh_keys": [PRIVATE]}, 422, "PRIVATE"),
    ({"template": "tiny", "ssh_keys": ["ssh-ed25519 AAAA"]}, 422, "damaged"),
    ({"template": "tiny", "ssh_keys": [KEY[:-4]]}, 422, "damaged"),
    ({"template": "tiny", "labels": {"": "x"}}, 422, "label"),
    ({"template": "tiny", "labels": {"a": "x\x1b[2J"}}, 422, "label"),
    ({"template": "tiny", "labels": {"k" * 200: "x"}}, 422, "label"),
    ({"template": "tiny", "nmae": "web"}, 422, "nmae"),
]


@pytest.mark.parametrize("wish, status, words", WISHES, ids=lambda v: str(v)[:50])
def test_a_launch_that_cannot_be(api: httpx.Client, daemon: Daemon, wish: Json, status: int, words: str) -> None:
    before = daemon.store.pictures.cluster().revision
    body = problem(api.post(LAUNCH, json=wish), status)
    assert words in body["detail"]
    assert "b3BlbnNzaC1rZXktdjE" not in body["detail"]
    assert body["hint"]
    assert daemon.store.pictures.cluster().revision == before


def test_a_name_that_is_taken(api: httpx.Client) -> None:
    one = launch(api, "taken")
    body = problem(api.post(LAUNCH, json={"template": "tiny", "name": "taken"}), 409)
    assert one["id"] in body["detail"]
    launch(api, "free")
    body = problem(api.patch("/v1/instances/free", json={"name": "taken"}), 409)
    assert one["id"] in body["detail"]


def test_what_an_instance_is_not_in_the_state_for(api: httpx.Client) -> None:
    launch(api, "state")
    assert "running already" in problem(api.post("/v1/instances/state/start"), 409)["detail"]
    assert "not paused" in problem(api.post("/v1/instances/state/resume"), 409)["detail"]
    assert "is running" in problem(api.delete("/v1/instances/state"), 409)["detail"]
    publish = {"instance": "state", "name": "golden"}
    assert "is running" in problem(api.post("/v1/templates/publish", json=publish), 409)["detail"]
    done(api, api.post("/v1/instances/state/stop"))
    for deed in ("stop", "restart", "pause", "resume"):
        body = problem(api.post(f"/v1/instances/state/{deed}"), 409)
        assert "state is not" in body["detail"]
        assert body["hint"]


@pytest.mark.parametrize("word", ["nosuch", "i-", "i-ffffffffffff", "%C3%A9", "a" * 3000, "..%00"])
def test_an_instance_that_is_not_there(api: httpx.Client, word: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/stop"), ("GET", "/log"), ("GET", "/metrics")):
        problem(api.request(method, f"/v1/instances/{word}{path}"), 404)


def test_a_beginning_of_many_ids_says_so(api: httpx.Client) -> None:
    done(api, api.post(LAUNCH, json={"template": "tiny", "count": 40}))
    ids = sorted(i["id"] for i in api.get("/v1/instances").json()["items"])
    twin = next(a[:3] for a, b in itertools.pairwise(ids) if a[:3] == b[:3])
    body = problem(api.get(f"/v1/instances/{twin}"), 409)
    assert "is the beginning of" in body["detail"]


TEMPLATES: list[tuple[str, Json, int, str]] = [
    ("build", {"recipe": "windows-95"}, 404, "the catalogue has no windows-95"),
    ("build", {}, 422, "recipe"),
    ("import", {"name": "x", "path": "/images/nix", "format": "vmdk"}, 422, "no format"),
    ("import", {"name": "x", "path": "images/x", "format": "raw"}, 422, "not an absolute path"),
    ("import", {"name": "x", "path": "/x", "format": "raw", "firmware": "coreboot"}, 422, "no firmware"),
    ("import", {"name": "X!", "path": "/x", "format": "raw"}, 422, "cannot be the name"),
    ("import", {"name": "debian-12", "path": "/x", "format": "raw"}, 409, "debian-12 is an entry of the catalogue"),
    ("publish", {"instance": "nosuch", "name": "golden"}, 404, "no instance named nosuch"),
]


@pytest.mark.parametrize("deed, body, status, words", TEMPLATES, ids=lambda v: str(v)[:40])
def test_a_template_that_cannot_be(api: httpx.Client, deed: str, body: Json, status: int, words: str) -> None:
    assert words in problem(api.post(f"/v1/templates/{deed}", json=body), status)["detail"]


def test_a_template_that_is_used_stays(api: httpx.Client) -> None:
    launch(api, "user-of-it")
    assert "is used by" in problem(api.delete("/v1/templates/tiny"), 409)["detail"]


# --- requests that are none


@pytest.mark.parametrize(
    "content, status, words",
    [
        (b"", 422, "Field required"),
        (b"{", 400, "the body is not JSON: Expecting property name"),
        (b"[]", 422, "dictionary"),
        (b'"x"', 422, "dictionary"),
        (b"\xff\xfe", 400, "the body is not JSON"),
        (b"\xff\xff{}", 400, "the body is not JSON"),
        (b"[" * 100_000, 400, "the body is not JSON"),
        (b'{"template": "tiny", "vcpus": NaN}', 422, "vcpus"),
    ],
    ids=lambda v: str(v)[:20],
)
def test_a_body_that_makes_no_sense(api: httpx.Client, content: bytes, status: int, words: str) -> None:
    body = problem(api.post(LAUNCH, content=content, headers={"content-type": "application/json"}), status)
    assert words in body["detail"]
    assert body["hint"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "text/json", "x", None]
)
@pytest.mark.parametrize("path", [LAUNCH, "/v1/instances/any/stop", "/v1/templates/build"])
def test_a_body_that_is_said_to_be_something_else(api: httpx.Client, path: str, kind: str | None) -> None:
    answer = api.post(path, content=b'{"template": "tiny"}', headers={} if kind is None else {"content-type": kind})
    body = problem(answer, 415)
    assert (kind or "without its content type") in body["detail"]
    assert "application/json" in body["hint"]
    assert answer.headers["accept"] == "application/json"


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"]
)
def test_json_by_its_other_names(api: httpx.Client, kind: str) -> None:
    answer = api.post(LAUNCH, content=b'{"template": "nosuch"}', headers={"content-type": kind})
    assert "nosuch" in problem(answer, 404)["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
def test_no_body_needs_no_type(api: httpx.Client, kind: str) -> None:
    problem(api.post("/v1/instances/nosuch/stop", headers={"content-type": kind}), 404)


def test_a_body_that_is_too_long(api: httpx.Client) -> None:
    body = problem(api.post(LAUNCH, content=b"x" * (5 << 20)), 413)
    assert "may have" in body["detail"]

    def pieces() -> Any:
        for _ in range(80):
            yield b"x" * 65_536

    answer = api.post(LAUNCH, content=pieces(), headers={"content-type": "application/json"})
    assert "may have" in problem(answer, 413)["detail"]


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/instances/", 404),
        ("GET", "/v1/instances/a/b", 404),
    ],
)
def test_a_path_that_is_none(api: httpx.Client, method: str, path: str, status: int) -> None:
    body = problem(api.request(method, path), status)
    assert path in body["detail"]
    assert body["type"] == "about:blank"


@pytest.mark.parametrize(
    "method, path, known",
    [
        ("PUT", "/v1/instances", "GET, POST"),
        ("POST", "/v1/hosts", "GET"),
        ("PUT", "/v1/instances/any", "DELETE, GET, PATCH"),
        ("OPTIONS", "/v1/instances/any", "DELETE, GET, PATCH"),
        ("GET", "/v1/instances/any/stop", "POST"),
        ("PUT", "/v1/templates/build", "DELETE, GET, POST"),  # it could be a template's name, too
        ("POST", "/openapi.json", "GET, HEAD"),
    ],
)
def test_a_method_that_a_path_does_not_know(api: httpx.Client, method: str, path: str, known: str) -> None:
    """All that it knows is named, also where several routes share it (RFC 9110, 15.5.6)."""
    answer = api.request(method, path)
    body = problem(answer, 405)
    assert ", ".join(sorted(answer.headers["allow"].split(", "))) == known
    assert path in body["detail"]
    assert answer.headers["allow"] in body["hint"]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=-1", "limit=x", "limit=1000000", "limit=" + "9" * 30],
)
def test_a_page_that_is_none(api: httpx.Client, query: str) -> None:
    for what in ("instances", "templates", "hosts", "networks", "operations"):
        problem(api.get(f"/v1/{what}?{query}"), 422)


@pytest.mark.parametrize("query", ["for=lunch", "timeout_s=-1", "timeout_s=nan", "timeout_s=inf", "timeout_s=1e9"])
def test_a_wait_for_nothing(api: httpx.Client, query: str) -> None:
    problem(api.get(f"/v1/instances/any/wait?{query}"), 422)


def test_a_wait_that_is_over_says_how_far_it_is(api: httpx.Client) -> None:
    launch(api, "patient")
    body = problem(api.get("/v1/instances/patient/wait?for=stopped&timeout_s=0.05"), 503)
    assert "it has not stopped after 0.05 s" in body["detail"]
    assert "running" in body["hint"]


def test_an_agent_that_the_template_does_not_bring_is_not_waited_for(tmp_path: Path) -> None:
    """Unless user-data may be about to install it; and one that answers is used, whoever installed it."""
    with Daemon(Wanted(folder=tmp_path)) as daemon, daemon.client() as api:
        debian = daemon.state.recipes["debian-12"]
        daemon.state.recipes["debian-12"] = replace(debian, image=replace(debian.image, agent=False))
        done(api, api.post("/v1/templates/build", json={"recipe": "debian-12"}))
        user_data = {"user_data": "#cloud-config\npackages: [qemu-guest-agent]\n"}
        for name, more in (("mute", {}), ("soon", user_data)):
            done(api, api.post(LAUNCH, json={"template": "debian-12", "name": name, **more}))
        for until in ("agent", "ip"):
            body = problem(api.get(f"/v1/instances/mute/wait?for={until}&timeout_s=20"), 409)
            assert "no agent answers in mute, and its template debian-12:2 is not known to bring one" in body["detail"]
            assert "inn console mute" in body["hint"]
        problem(api.get("/v1/instances/soon/wait?for=agent&timeout_s=0.05"), 503)
        machine = next(m for m in daemon.state.machines.values() if m.action.name == "mute")
        daemon.do(lambda: daemon.state.expect(machine, [(daemon.state.clock.monotonic(), Due.ANSWERS)]))
        while not api.get("/v1/instances/mute").json()["agent"]:
            time.sleep(0.02)
        assert api.get("/v1/instances/mute/wait?for=agent&timeout_s=20").json()["agent"]


def test_what_a_guest_cannot_come_to_is_refused_at_once(api: httpx.Client) -> None:
    done(api, api.post(LAUNCH, json={"template": "tiny", "name": "never", "start": False}))
    for until in ("agent", "running", "ip"):
        body = problem(api.get(f"/v1/instances/never/wait?for={until}&timeout_s=20"), 409)
        assert "is stopped" in body["detail"]
    assert api.get("/v1/instances/never/wait?for=stopped&timeout_s=20").json()["name"] == "never"
    launch(api, "no-cloud")
    body = problem(api.get("/v1/instances/no-cloud/wait?for=cloud-init&timeout_s=20"), 409)
    assert "cloud-init" in body["detail"]


def test_what_never_ran_has_said_nothing(api: httpx.Client) -> None:
    done(api, api.post(LAUNCH, json={"template": "tiny", "name": "silent", "start": False}))
    assert "has never run" in problem(api.get("/v1/instances/silent/log"), 409)["detail"]
    problem(api.get("/v1/instances/silent/guest"), 409)


def test_an_operation_that_is_not_there(api: httpx.Client) -> None:
    for path in ("", "/wait"):
        problem(api.get(f"/v1/operations/op-nix{path}"), 404)
    problem(api.post("/v1/operations/op-nix/cancel"), 404)


def test_a_full_disk_is_told_and_leaves_nothing(api: httpx.Client, daemon: Daemon) -> None:
    pool = daemon.state.pool
    taken = pool.free_bytes - 100_000
    daemon.do(lambda: pool.occupy(taken))
    try:
        operation = api.get(
            f"/v1/operations/{api.post(LAUNCH, json={'template': 'tiny', 'name': 'full'}).json()['id']}/wait"
        ).json()
        assert operation["state"] == "failed"
        assert "no room in the pool" in operation["error"]
        assert operation["hint"]
        problem(api.get("/v1/instances/full"), 404)
    finally:
        daemon.do(lambda: pool.occupy(-taken))


@pytest.mark.parametrize(
    "query, words",
    [("lable=team=blue", "'lable' is no parameter"), ("limit=1&limit=2", "limit is given 2 times")],
)
def test_a_query_that_nobody_knows_is_refused(api: httpx.Client, query: str, words: str) -> None:
    """It may have been a filter, and what it should have left out may be deleted next."""
    body = problem(api.get(f"/v1/instances?{query}"), 422)
    assert words in body["detail"]
    assert api.get("/v1/instances?label=a=1&label=b=2").status_code == 200
