"""Idempotency keys: a request that comes again under its key is carried out once and answered twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.contract.api.asking import Json, accepted, done, launch, problem
from tests.contract.daemon import Daemon


def test_the_same_request_again_is_answered_as_before(api: httpx.Client) -> None:
    wish = {"template": "tiny", "name": "once"}
    first = done(api, api.post("/v1/instances", json=wish, headers={"idempotency-key": "k1"}))
    again = accepted(api.post("/v1/instances", json=wish, headers={"idempotency-key": "k1"}))
    assert again["id"] == first["id"]
    problem(api.post("/v1/instances", json=wish, headers={"idempotency-key": "k2"}), 409)
    problem(api.post("/v1/instances", json=wish), 409)


POSTS: list[tuple[str, Json | None]] = [
    ("/v1/instances/keyed/stop", {"force": True}),
    ("/v1/instances/keyed/start", None),
    ("/v1/instances/keyed/restart", {"force": True}),
    ("/v1/instances/keyed/pause", None),
    ("/v1/instances/keyed/resume", None),
    ("/v1/templates/build", {"recipe": "tiny"}),
]


def test_every_post_knows_keys(api: httpx.Client) -> None:
    launch(api, "keyed")
    for path, body in POSTS:
        key = {"idempotency-key": f"key of {path}"}
        first = done(api, api.post(path, json=body, headers=key))
        assert accepted(api.post(path, json=body, headers=key))["id"] == first["id"], path
    done(api, api.post("/v1/instances/keyed/stop"))
    published = {"instance": "keyed", "name": "golden"}
    first = done(api, api.post("/v1/templates/publish", json=published, headers={"idempotency-key": "p"}))
    again = accepted(api.post("/v1/templates/publish", json=published, headers={"idempotency-key": "p"}))
    assert again["id"] == first["id"]
    assert api.get("/v1/templates/golden").json()["version"] == 1


def test_changes_and_deletions_know_keys_too(api: httpx.Client) -> None:
    launch(api, "short")
    first = done(api, api.delete("/v1/instances/short?force=true", headers={"idempotency-key": "gone"}))
    assert (
        accepted(api.delete("/v1/instances/short?force=true", headers={"idempotency-key": "gone"}))["id"] == first["id"]
    )


@pytest.mark.parametrize(
    "wish",
    [
        {"template": "tiny", "name": "twin"},
        {"template": "tiny"},
        {"template": "tiny", "name": "pair{n}", "count": 3},
        {"template": "tiny", "name": "whole{n}", "count": 3, "all_or_none": True},
        {"template": "debian-12", "name": "user", "user_data": "#cloud-config\n{}\n"},
    ],
    ids=["named", "unnamed", "several", "all-or-none", "user-data"],
)
def test_twins_at_the_same_time_are_one(daemon: Daemon, wish: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """Sixteen at once, on connections of their own."""
    key = {"idempotency-key": request.node.name}
    with daemon.client() as api, ThreadPoolExecutor(16) as threads:
        before = len(api.get("/v1/instances").json()["items"])
        answers = list(threads.map(lambda _: api.post("/v1/instances", json=wish, headers=key), range(16)))
        assert {a.status_code for a in answers} == {202}, [a.text for a in answers]
        (operation,) = {a.json()["id"] for a in answers}
        ended = api.get(f"/v1/operations/{operation}/wait").json()
        assert ended["state"] == "succeeded", ended
        assert len(api.get("/v1/instances").json()["items"]) - before == wish.get("count", 1)


def test_what_was_refused_may_be_asked_again(api: httpx.Client) -> None:
    wish, key = {"template": "mini", "name": "later"}, {"idempotency-key": "again"}
    problem(api.post("/v1/instances", json=wish, headers=key), 404)
    done(api, api.post("/v1/instances", json={**wish, "template": "tiny"}, headers=key))


def test_a_key_with_another_request_is_refused(api: httpx.Client) -> None:
    key = {"idempotency-key": "used"}
    wish = {"template": "debian-12", "name": "used", "user_data": "#cloud-config\n{}\n"}
    first = done(api, api.post("/v1/instances", json=wish, headers=key))
    before = len(api.get("/v1/instances").json()["items"])
    launches: list[Json] = [
        {**wish, "name": "unused"},
        {**wish, "user_data": "#cloud-config\n{ssh_pwauth: true}\n"},
        {**wish, "name": "unused", "count": 2},
    ]
    others = [
        *(api.post("/v1/instances", json=body, headers=key) for body in launches),
        api.post("/v1/instances/used/stop", json={"force": True}, headers=key),
        api.post("/v1/instances/used/restart", headers=key),
        api.delete("/v1/instances/used?force=true", headers=key),
    ]
    for other in others:
        assert first["id"] in problem(other, 422)["detail"]
    assert len(api.get("/v1/instances").json()["items"]) == before
    assert accepted(api.post("/v1/instances", json=wish, headers=key))["id"] == first["id"]
    done(api, api.post("/v1/instances/used/stop"))
    removed = {"idempotency-key": "r"}
    gone = done(api, api.delete("/v1/instances/used", headers=removed))
    assert gone["id"] in problem(api.delete("/v1/instances/used?force=true", headers=removed), 422)["detail"]


@pytest.mark.parametrize("key", ["", "k" * 201])
def test_a_key_that_is_none_is_refused(api: httpx.Client, key: str) -> None:
    answer = api.post("/v1/instances", json={"template": "tiny"}, headers={"idempotency-key": key})
    assert "idempotency-key" in problem(answer, 422)["detail"]


def test_a_key_is_its_askers_own(api: httpx.Client, daemon: Daemon) -> None:
    key = {"idempotency-key": "mine"}
    first = done(api, api.post("/v1/instances", json={"template": "tiny"}, headers=key))
    bearer = {"authorization": "Bearer a-token-that-nobody-guesses"}
    with httpx.Client(base_url=f"http://127.0.0.1:{daemon.port}", headers=bearer) as other:
        second = accepted(other.post("/v1/instances", json={"template": "tiny"}, headers=key))
    assert second["id"] != first["id"]
    assert second["principal"] == "token"


def test_a_key_that_came_with_another_request_is_refused(api: httpx.Client) -> None:
    key = {"idempotency-key": "reused"}
    first = done(api, api.post("/v1/instances", json={"template": "tiny", "name": "reused"}, headers=key))
    for path, body in (
        ("/v1/instances", {"template": "tiny", "name": "other"}),
        ("/v1/instances", {"template": "tiny", "name": "reused", "count": 2}),
        ("/v1/instances/reused/stop", {"force": True}),
    ):
        answer = problem(api.post(path, json=body, headers=key), 422)
        assert "came before with another request" in answer["detail"]
        assert first["id"] in answer["detail"]
    problem(api.get("/v1/instances/other"), 404)
