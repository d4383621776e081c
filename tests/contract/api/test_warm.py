"""Warm launches over HTTP: memory images made by wish and by themselves, used, told of, and dropped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from innkeeper.control.warming import Warming
from tests.contract.api.asking import Json, accepted, done, ended, launch, problem
from tests.contract.daemon import Daemon, Wanted


def images(api: httpx.Client) -> list[Json]:
    return list(api.get("/v1/templates/tiny").json()["memory_images"])


@pytest.fixture
def warm(api: httpx.Client) -> Iterator[Json]:
    """The image, which is gone afterwards with all that was launched from it."""
    done(api, api.post("/v1/templates/tiny/warm"))
    (image,) = images(api)
    yield image
    for one in api.get("/v1/instances").json()["items"]:
        done(api, api.delete(f"/v1/instances/{one['id']}", params={"force": "true"}))
    if images(api):
        done(api, api.delete("/v1/templates/tiny/memory"))


def test_one_is_made_and_shown(api: httpx.Client, warm: Json) -> None:
    assert warm["status"] == "ready"
    assert warm["size"] == api.get("/v1/templates/tiny").json()["default_size"]
    assert warm["stored_bytes"] > 0
    assert warm["clones"] == 0
    promised = api.get("/v1/hosts").json()["items"][0]["memory_promised_mib"]
    assert promised == warm["size"]["memory_mib"]
    again = problem(api.post("/v1/templates/tiny/warm"), 409)
    assert warm["id"] in again["detail"]


def test_launches_go_on_from_it_and_say_so(api: httpx.Client, warm: Json) -> None:
    assert (launch(api, "a")["warm"], launch(api, "b", cold=True)["warm"]) == (True, False)
    shown = {name: api.get(f"/v1/instances/{name}").json() for name in ("a", "b")}
    assert shown["a"]["cold"] == ""
    assert shown["b"]["cold"] == "as it was asked for"
    assert launch(api, "c", memory_mib=256)["cold"] == "the memory image has 128 MiB of memory, not 256"
    assert images(api)[0]["clones"] == 1


def test_later_starts_boot(api: httpx.Client, warm: Json) -> None:
    launch(api, "web")
    done(api, api.post("/v1/instances/web/stop", json={"force": True}))
    done(api, api.post("/v1/instances/web/start", json={}))
    one = api.get("/v1/instances/web").json()
    assert (one["warm"], one["cold"]) == (False, "")


def test_dropped_from_under_clones_it_disturbs_none(api: httpx.Client, warm: Json) -> None:
    launch(api, "web")
    done(api, api.delete("/v1/templates/tiny/memory"))
    assert images(api) == []
    assert api.get("/v1/instances/web").json()["status"] == "running"
    assert launch(api, "other")["cold"] == "no memory image of tiny:1 has been made"
    problem(api.delete("/v1/templates/tiny/memory"), 404)


def test_a_plan_can_be_looked_at_before(api: httpx.Client, warm: Json) -> None:
    answer = api.post("/v1/instances", json={"template": "tiny", "name": "web", "dry_run": True}).json()
    (plan,) = answer["items"]
    assert plan["instances"][0]["warm"] is True
    assert plan["steps"][-1]["words"] == f"sim: start web from {warm['id']}"


def test_lost_by_its_host_the_machine_boots_all_the_same(api: httpx.Client, daemon: Daemon, warm: Json) -> None:
    daemon.do(lambda: daemon.state.pool.memories.clear())
    one = launch(api, "web")
    assert one["warm"] is False
    assert one["cold"] == f"memory image {warm['id']} is not on this host"


def test_what_cannot_be_is_refused(api: httpx.Client, daemon: Daemon) -> None:
    problem(api.post("/v1/templates/nothing/warm"), 404)
    guest = daemon.state.guest
    daemon.do(lambda: setattr(daemon.state, "guest", replace(guest, agent=False)))
    try:
        failed = ended(api, api.post("/v1/templates/tiny/warm"))
    finally:
        daemon.do(lambda: setattr(daemon.state, "guest", guest))
    assert failed["state"] == "failed"
    assert "nothing in a guest" in failed["error"]
    assert images(api) == []


def test_one_can_be_cancelled_while_it_is_made(api: httpx.Client) -> None:
    operation = accepted(api.post("/v1/templates/tiny/warm"))
    assert images(api)[0]["status"] == "making"
    api.post(f"/v1/operations/{operation['id']}/cancel")
    waited = api.get(f"/v1/operations/{operation['id']}/wait", params={"timeout_s": 20}).json()
    if waited["state"] == "succeeded":  # it was quicker
        done(api, api.delete("/v1/templates/tiny/memory"))
    assert images(api) == []


# --- by itself


def until(condition: object, looked: Iterator[bool]) -> None:
    deadline = time.monotonic() + 20
    while not next(looked):
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)


def ready(api: httpx.Client) -> Iterator[bool]:
    while True:
        yield [image["status"] for image in images(api)] == ["ready"]


def test_after_a_first_launch_one_is_made_unless_it_is_refused(tmp_path: Path) -> None:
    with Daemon(Wanted(folder=tmp_path)) as daemon, daemon.client() as api:
        warming = Warming(daemon.house.submitter, daemon.store.pictures, daemon.state.clock)
        at_work = daemon.do(lambda: asyncio.get_running_loop().create_task(warming.run()))
        launch(api, "quiet", warms=False)
        assert images(api) == []
        launch(api, "first")
        until("an image is made", ready(api))
        (image,) = images(api)
        made = api.get("/v1/operations").json()["items"]
        assert [o["principal"] for o in made if o["verb"] == "warm"] == ["innkeeper"]
        assert launch(api, "second")["warm"] is True

        newer = replace(daemon.state.size, qemu_version="10.0.0")
        daemon.do(lambda: setattr(daemon.state, "size", newer))
        until("another is made for the newer QEMU", (images(api)[:1] not in ([image], []) for _ in iter(int, 1)))
        daemon.do(at_work.cancel)
