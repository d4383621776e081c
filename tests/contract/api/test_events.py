"""The live feed: every change in order, resumable by revision, from now on or from what was missed."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.contract.api.asking import done, launch, problem
from tests.contract.daemon import Daemon, Wanted

pytestmark = pytest.mark.timeout(30)


def revision(api: httpx.Client) -> int:
    return int(api.get("/v1").json()["revision"])


def read(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """Events as a browser reads them: the data, with `event` and `id` from the lines before it."""
    event = dict[str, Any]()
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if line == "" and event:
            yield {**json.loads(event["data"]), "event": event["event"], "last": event.get("id")}
            event = {}
        elif name:
            event[name] = value


def until(answer: httpx.Response, what: str) -> list[dict[str, Any]]:
    seen = []
    for event in read(answer):
        seen.append(event)
        if event["what"].startswith(what):
            return seen
    raise AssertionError(seen)


def test_a_launch_is_told_step_by_step(daemon: Daemon, api: httpx.Client) -> None:
    begin = revision(api)
    with daemon.client() as listener, listener.stream("GET", "/v1/events", params={"after": begin}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        one = launch(api, "heard")
        seen = until(answer, "succeeded")
    revisions = [e["revision"] for e in seen]
    assert revisions == sorted(set(revisions))
    assert revisions[0] > begin
    assert all(str(e["revision"]) == e["last"] for e in seen)
    assert {"revision", "kind", "id", "operation", "what"} <= seen[0].keys()
    about_it = [(e["event"], e["what"]) for e in seen if e["id"] == one["id"]]
    assert about_it[0] == ("object", "created")


def test_a_reader_resumes_where_it_left_off(api: httpx.Client) -> None:
    begin = revision(api)
    launch(api, "twice-read")
    with api.stream("GET", "/v1/events", params={"after": begin}) as answer:
        whole = until(answer, "succeeded")
    half = len(whole) // 2
    with api.stream("GET", "/v1/events", headers={"last-event-id": whole[half - 1]["last"]}) as answer:
        assert until(answer, "succeeded") == whole[half:]


def test_without_a_revision_it_begins_now(daemon: Daemon, api: httpx.Client) -> None:
    launch(api, "before")
    now = revision(api)
    with daemon.client() as listener, listener.stream("GET", "/v1/events") as answer:
        done(api, api.post("/v1/instances/before/stop", json={"force": True}))
        assert until(answer, "succeeded")[0]["revision"] > now


def test_a_revision_from_the_future_is_not_kept(api: httpx.Client) -> None:
    body = problem(api.get("/v1/events", params={"after": 10**9}), 410)
    assert body["type"] == "urn:innkeeper:problem:gone"


@pytest.mark.parametrize("after", ["-1", "x", "99999999999999999999999"])
def test_a_revision_that_is_none_is_refused(api: httpx.Client, after: str) -> None:
    problem(api.get("/v1/events", params={"after": after}), 422)


def test_what_is_too_old_is_told_before_the_answer_begins(tmp_path_factory: pytest.TempPathFactory) -> None:
    with (
        Daemon(Wanted(folder=tmp_path_factory.mktemp("brief"), keep_revisions=20)) as daemon,
        daemon.client() as api,
    ):
        done(api, api.post("/v1/instances", json={"template": "tiny", "count": 60}))
        assert revision(api) > 520  # the past is forgotten in slices of 500
        body = problem(api.get("/v1/events", params={"after": 1}), 410)
        assert "not kept" in body["detail"]
        assert "anew" in body["hint"]
        with api.stream("GET", "/v1/events", params={"after": revision(api) - 2}) as answer:
            assert next(read(answer))["revision"] > 1


@pytest.mark.slow
def test_a_reader_that_hangs_up_is_not_written_to(
    daemon: Daemon, api: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    begin = revision(api)
    launch(api, "leaving")
    for _ in range(60):
        done(api, api.post("/v1/instances/leaving/pause"))
        done(api, api.post("/v1/instances/leaving/resume"))
    with socket.socket(socket.AF_UNIX) as reader:
        reader.connect(str(daemon.socket))
        reader.sendall(f"GET /v1/events?after={begin} HTTP/1.1\r\nhost: innkeeper\r\n\r\n".encode())
        assert reader.recv(64)
    done(api, api.post("/v1/instances/leaving/pause"))
    assert [r.getMessage() for r in caplog.records if "socket.send" in r.getMessage()] == []
