"""Versions: a reader who knows an answer is told so, a writer who saw another version changes nothing."""

from __future__ import annotations

import httpx
import pytest

from tests.contract.api.asking import Json, done, launch, problem
from tests.contract.daemon import Daemon


@pytest.fixture
def web(api: httpx.Client, request: pytest.FixtureRequest) -> str:
    """An instance of the test's own, at rest."""
    name = request.node.originalname.replace("_", "-").removeprefix("test-")[:40].strip("-")
    done(api, api.post("/v1/instances", json={"template": "tiny", "name": name, "start": False}))
    return str(name)


def test_who_knows_an_answer_is_told_so(api: httpx.Client, web: str) -> None:
    first = api.get(f"/v1/instances/{web}")
    tag = first.headers["etag"]
    again = api.get(f"/v1/instances/{web}", headers={"if-none-match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    for known in (f"W/{tag}", f'"x", {tag}', "*"):
        assert api.get(f"/v1/instances/{web}", headers={"if-none-match": known}).status_code == 304
    assert api.get(f"/v1/instances/{web}", headers={"if-none-match": '"x"'}).status_code == 200


def test_a_tag_changes_with_what_was_observed(api: httpx.Client) -> None:
    launch(api, "seen")
    before = api.get("/v1/instances/seen")
    done(api, api.post("/v1/instances/seen/stop", json={"force": True}))
    after = api.get("/v1/instances/seen", headers={"if-none-match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.json()["status"] == "stopped"


def test_objects_of_every_kind_have_tags(api: httpx.Client) -> None:
    operation = api.get("/v1/operations").json()["items"][0]["id"]
    for path in ("templates/tiny", "hosts/sim", "networks/default", f"operations/{operation}"):
        first = api.get(f"/v1/{path}")
        again = api.get(f"/v1/{path}", headers={"if-none-match": first.headers["etag"]})
        assert again.status_code == 304, path


def test_a_writer_who_saw_this_version_may_go_on(api: httpx.Client, web: str) -> None:
    tag = api.get(f"/v1/instances/{web}").headers["etag"]
    done(api, api.patch(f"/v1/instances/{web}", json={"name": "renamed"}, headers={"if-match": tag}))


def test_a_writer_who_saw_another_version_changes_nothing(api: httpx.Client, web: str) -> None:
    old = api.get(f"/v1/instances/{web}").headers["etag"]
    done(api, api.post(f"/v1/instances/{web}/start"))
    requests: tuple[tuple[str, str, Json | None], ...] = (
        ("PATCH", f"/v1/instances/{web}", {"name": "other"}),
        ("DELETE", f"/v1/instances/{web}?force=true", None),
        ("POST", f"/v1/instances/{web}/stop", {}),
        ("POST", f"/v1/instances/{web}/pause", None),
    )
    for method, path, body in requests:
        answer = problem(api.request(method, path, json=body, headers={"if-match": old}), 412)
        assert answer["type"] == "urn:innkeeper:problem:changed"
    assert api.get(f"/v1/instances/{web}").json()["wanted"] == "running"
    new = api.get(f"/v1/instances/{web}").headers["etag"]
    done(api, api.post(f"/v1/instances/{web}/pause", headers={"if-match": f"{old}, {new}"}))


def test_a_machine_that_answered_meanwhile_is_no_other_version(api: httpx.Client, daemon: Daemon) -> None:
    done(api, api.post("/v1/instances", json={"template": "tiny", "name": "booting"}))
    early = api.get("/v1/instances/booting").headers["etag"]
    assert api.get("/v1/instances/booting/wait").json()["agent"]
    done(api, api.patch("/v1/instances/booting", json={"name": "booted"}, headers={"if-match": early}))


@pytest.mark.parametrize("tag", ["x", '"x"', 'W/"1-x"', '""', '"99999999999999999999999-a"'])
def test_a_tag_that_is_none_of_ours_fits_nothing(api: httpx.Client, tag: str) -> None:
    problem(api.post("/v1/instances/web/start", headers={"if-match": tag}), 412)


def test_templates_have_versions_too(api: httpx.Client) -> None:
    done(api, api.post("/v1/templates/build", json={"recipe": "tiny"}))
    tag = api.get("/v1/templates/tiny:2").headers["etag"]
    stale = problem(api.delete("/v1/templates/tiny:2", headers={"if-match": '"77-0"'}), 412)
    assert stale["detail"] == "template tiny:2 has changed since it was read"
    done(api, api.delete("/v1/templates/tiny:2", headers={"if-match": tag}))
