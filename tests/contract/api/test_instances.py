"""Instances over HTTP: launched, looked at, listed in pages, stopped and started, renamed, deleted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from innkeeper.sim.metal.guests import Guest
from tests.contract.api.asking import accepted, done, ended, launch, problem
from tests.contract.daemon import Daemon


def test_a_launch_is_accepted_waited_for_and_shown(api: httpx.Client) -> None:
    operation = done(api, api.post("/v1/instances", json={"template": "tiny", "name": "web", "labels": {"a": "b"}}))
    assert operation["principal"] == "root"
    assert operation["done"] == operation["steps"] > 0
    one = api.get("/v1/instances/web/wait", params={"for": "agent"}).json()
    assert one["id"] in operation["subjects"]
    assert (one["status"], one["agent"], one["wanted"]) == ("running", True, "running")
    assert (one["template"], one["labels"]) == ("tiny:1", {"a": "b"})
    assert one["addresses"] == one["nics"][0]["addresses"]
    assert api.get(f"/v1/instances/{one['id'][:8]}").json()["name"] == "web"


def test_all_wishes_reach_the_instance(api: httpx.Client) -> None:
    wish = {"vcpus": 2, "memory_mib": 512, "disk_gib": 3, "autostart": True, "ephemeral": True, "ttl_s": 86_400}
    one = launch(api, "wishes", template="debian-12:1", **{**wish, "disk_gib": 12})
    assert one["size"] == {"vcpus": 2, "memory_mib": 512, "disk_gib": 12}
    assert one["autostart"]
    assert one["ephemeral"]
    made, ends = (datetime.fromisoformat(one[at]) for at in ("created_at", "expires_at"))
    assert ends - made == timedelta(days=1)


def test_a_named_size_can_be_changed_in_parts(api: httpx.Client) -> None:
    one = launch(api, "sized", size="medium", memory_mib=1024)
    assert one["size"] == {"vcpus": 2, "memory_mib": 1024, "disk_gib": 20}


def test_without_a_name_one_is_made_up(api: httpx.Client) -> None:
    operation = done(api, api.post("/v1/instances", json={"template": "tiny"}))
    name = api.get(f"/v1/instances/{operation['subjects'][0]}").json()["name"]
    assert name.startswith("tiny-")


def test_user_data_and_keys_reach_the_seed_and_are_shown_nowhere(api: httpx.Client, daemon: Daemon) -> None:
    secret = "#cloud-config\npassword: hunter2\n"
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHg6kUb8AIbcUmsuXuIdUEnxsK83HpE9EDJSHJj9dPMf a@b"
    operation = done(
        api,
        api.post(
            "/v1/instances", json={"template": "debian-12", "name": "seeded", "user_data": secret, "ssh_keys": [key]}
        ),
    )
    one = api.get("/v1/instances/seeded").json()
    seed = daemon.state.seeds[one["id"]]
    assert seed.user_data == secret.encode()
    assert seed.action.ssh_keys == (key,)
    assert seed.action.hostname == "seeded"
    told = api.get(f"/v1/operations/{operation['id']}").text + api.get("/v1/instances/seeded").text
    assert "hunter2" not in told


def test_user_data_that_is_no_text_comes_as_base64(api: httpx.Client, daemon: Daemon) -> None:
    zipped = {"user_data_base64": "H4sIAAAAAAAAA0vOyS9N0U3Oz0vLTOcCAJVwXUIOAAAA"}
    operation = done(api, api.post("/v1/instances", json={"template": "debian-12", "name": "zipped", **zipped}))
    assert daemon.state.seeds[operation["subjects"][0]].user_data.startswith(b"\x1f\x8b")


def test_a_rehearsal_shows_the_plan_and_does_nothing(api: httpx.Client, daemon: Daemon) -> None:
    before = daemon.store.pictures.cluster()
    answer = api.post("/v1/instances", json={"template": "tiny", "name": "dry", "count": 2, "dry_run": True})
    assert answer.status_code == 200
    plans = answer.json()["items"]
    assert [p["title"] for p in plans] == ["launch dry-1 from tiny:1", "launch dry-2 from tiny:1"]
    words = [s["words"] for s in plans[0]["steps"]]
    assert words == [
        "sim: create disk dry-1/root of 1 GiB from tiny:1",
        "sim: write seed of dry-1",
        "sim: converge network default",
        "sim: start dry-1",
    ]
    after = daemon.store.pictures.cluster()
    assert (after.instances, after.volumes, after.nics) == (before.instances, before.volumes, before.nics)
    problem(api.get("/v1/instances/dry-1"), 404)


# --- several


def test_several_are_parts_of_one_operation(api: httpx.Client) -> None:
    operation = done(api, api.post("/v1/instances", json={"template": "tiny", "name": "n{n}x", "count": 3}))
    assert len(operation["children"]) == 3
    parts = api.get("/v1/operations", params={"parent": operation["id"]}).json()["items"]
    assert sorted(p["title"] for p in parts) == [f"launch n{n}x from tiny:1" for n in (1, 2, 3)]
    assert {p["parent"] for p in parts} == {operation["id"]}
    listed = {o["id"] for o in api.get("/v1/operations", params={"limit": 1000}).json()["items"]}
    assert operation["id"] in listed
    assert listed.isdisjoint(operation["children"])


def test_what_succeeded_stays_when_another_part_failed(api: httpx.Client) -> None:
    launch(api, "part-2")
    operation = ended(api, api.post("/v1/instances", json={"template": "tiny", "name": "part", "count": 3}))
    assert operation["state"] == "failed"
    assert "part-2" in operation["error"]
    names = {i["name"] for i in api.get("/v1/instances").json()["items"]}
    assert {"part-1", "part-3"} <= names


def test_all_or_none(api: httpx.Client) -> None:
    launch(api, "whole-2")
    wish = {"template": "tiny", "name": "whole", "count": 3, "all_or_none": True}
    body = problem(api.post("/v1/instances", json=wish), 409)
    assert "number 2 of 3" in body["detail"]
    problem(api.get("/v1/instances/whole-1"), 404)
    together = done(api, api.post("/v1/instances", json={**wish, "name": "all"}))
    assert len(together["subjects"]) == 3
    assert together["children"] == []


def test_a_dry_run_tells_what_would_be_made(api: httpx.Client) -> None:
    wish = {"template": "tiny", "name": "planned", "count": 2, "ttl_s": 60, "labels": {"a": "b"}, "dry_run": True}
    plans = api.post("/v1/instances", json=wish).json()["items"]
    made = [one for plan in plans for one in plan["instances"]]
    assert [(one["name"], one["status"], one["labels"]) for one in made] == [
        ("planned-1", "planned", {"a": "b"}),
        ("planned-2", "planned", {"a": "b"}),
    ]
    for one in made:
        assert one["size"]["memory_mib"] == 128
        assert one["nics"][0]["network"] == "default"
        assert one["nics"][0]["mac"].startswith("52:54:00:")
        assert one["nics"][0]["addresses"] == one["addresses"] != []
        assert one["expires_at"] > one["created_at"]
    assert made[0]["addresses"] != made[1]["addresses"]


# --- lists


def test_instances_are_listed_by_label_and_status(api: httpx.Client) -> None:
    launch(api, "blue-1", labels={"team": "blue", "tier": "web"})
    wish = {"template": "tiny", "name": "blue-2", "labels": {"team": "blue"}, "start": False}
    done(api, api.post("/v1/instances", json=wish))
    launch(api, "red-1", labels={"team": "red", "tier": "web"})

    def names(**query: Any) -> list[str]:
        return [i["name"] for i in api.get("/v1/instances", params=query).json()["items"]]

    assert names(label="team=blue") == ["blue-1", "blue-2"]
    assert names(label=["team=blue", "tier=web"]) == ["blue-1"]
    assert names(label="team=blue", status="stopped") == ["blue-2"]
    assert names(label="team=") == []
    assert names(status="paused", label="team=blue") == []
    assert names(label="team=blue", limit=1) == ["blue-1"]
    assert "running" in problem(api.get("/v1/instances", params={"status": "asleep"}), 422)["hint"]
    assert "'team'" in problem(api.get("/v1/instances", params={"label": "team"}), 422)["detail"]


# --- times


def test_moments_are_rfc_3339_in_utc(api: httpx.Client, daemon: Daemon) -> None:
    launch(api, "timely", ttl_s=86_400)
    one = api.get("/v1/instances/timely").json()
    operation = api.get("/v1/operations", params={"limit": 1}).json()["items"][0]
    template = api.get("/v1/templates/tiny").json()
    told = [one["created_at"], one["expires_at"], one["since"], operation["updated_at"], template["created_at"]]
    for moment in told:
        assert moment.endswith("Z")
        assert datetime.fromisoformat(moment).tzinfo is UTC
    row = next(i for i in daemon.store.pictures.cluster().instances.values() if i.name == "timely")
    assert datetime.fromisoformat(one["created_at"]).timestamp() == pytest.approx(row.created_at, abs=0.002)


def test_metrics_since_a_moment(api: httpx.Client) -> None:
    launch(api, "measured")
    for since in ("2026-01-01T00:00:00Z", "1970-01-01T00:00:00+02:00", "0"):
        assert api.get("/v1/instances/measured/metrics", params={"since": since}).status_code == 200
    for wrong in ("yesterday", "2026-01-01T00:00:00"):  # of which zone, nobody would know
        problem(api.get("/v1/instances/measured/metrics", params={"since": wrong}), 422)


def test_lists_come_in_pages(api: httpx.Client) -> None:
    for name in ("page-a", "page-b", "page-c"):
        launch(api, name)
    names, cursor = list[str](), None
    while True:
        page = api.get("/v1/instances", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        assert len(page["items"]) <= 2
        names += [i["name"] for i in page["items"]]
        if (cursor := page["next"]) is None:
            break
        launch(api, f"aaa-{len(names)}")  # what comes before the cursor meanwhile shifts nothing
    assert names == sorted(set(names))
    assert {"page-a", "page-b", "page-c"} <= set(names)


@pytest.mark.parametrize("what", ["templates", "hosts", "networks", "operations", "instances"])
def test_every_list_has_cursors(api: httpx.Client, what: str) -> None:
    whole = api.get(f"/v1/{what}").json()
    assert whole["next"] is None or what == "operations"
    first = api.get(f"/v1/{what}", params={"limit": 1}).json()
    assert len(first["items"]) == 1
    if first["next"] is not None:
        second = api.get(f"/v1/{what}", params={"limit": 1, "cursor": first["next"]}).json()
        assert second["items"][0]["id"] != first["items"][0]["id"]


@pytest.mark.parametrize("cursor", ["x", "é", "W10=", "WzFd", "bnVsbA==", "[1]", "a" * 900])
def test_a_cursor_that_is_none_of_ours_is_refused(api: httpx.Client, cursor: str) -> None:
    assert "cursor" in problem(api.get("/v1/templates", params={"cursor": cursor}), 422)["detail"]


# --- power


def test_an_instance_is_stopped_and_started_paused_and_resumed(api: httpx.Client) -> None:
    launch(api, "power")

    def status() -> str:
        return str(api.get("/v1/instances/power").json()["status"])

    done(api, api.post("/v1/instances/power/pause"))
    assert status() == "paused"
    done(api, api.post("/v1/instances/power/resume"))
    assert status() == "running"
    done(api, api.post("/v1/instances/power/stop", json={"grace_s": 30}))
    assert status() == "stopped"
    done(api, api.post("/v1/instances/power/start"))
    assert api.get("/v1/instances/power/wait").json()["status"] == "running"
    done(api, api.post("/v1/instances/power/restart", json={"force": True}))
    assert api.get("/v1/instances/power/wait").json()["status"] == "running"
    done(api, api.post("/v1/instances/power/stop", json={"force": True}))
    assert status() == "stopped"


def test_an_instance_is_renamed_and_deleted(api: httpx.Client, daemon: Daemon) -> None:
    one = launch(api, "old")
    done(api, api.patch("/v1/instances/old", json={"name": "new"}))
    assert api.get("/v1/instances/new").json()["id"] == one["id"]
    problem(api.get("/v1/instances/old"), 404)
    problem(api.delete("/v1/instances/new"), 409)
    done(api, api.delete("/v1/instances/new", params={"force": True}))
    problem(api.get("/v1/instances/new"), 404)
    assert one["volumes"][0]["id"] not in daemon.state.pool.disks


def test_ephemeral_ones_go_when_they_stop_and_others_when_their_time_is_up(api: httpx.Client) -> None:
    launch(api, "brief", ephemeral=True)
    done(api, api.post("/v1/instances/brief/stop"))
    assert api.get("/v1/instances/brief/wait", params={"for": "deleted", "timeout_s": 20}).json() is None
    done(api, api.post("/v1/instances", json={"template": "tiny", "name": "mortal", "ttl_s": 2}))
    assert api.get("/v1/instances/mortal/wait", params={"for": "deleted", "timeout_s": 20}).json() is None


def test_a_guest_that_shuts_itself_down_shows_that(api: httpx.Client, daemon: Daemon) -> None:
    launch(api, "tired")
    daemon.do(lambda: daemon.state.shut_down("tired"))
    one = api.get("/v1/instances/tired/wait", params={"for": "stopped"}).json()
    assert (one["status"], one["reason"]) == ("stopped", "the guest shut itself down")


def test_a_crash_shows_its_reason(api: httpx.Client, daemon: Daemon) -> None:
    launch(api, "unlucky")
    daemon.do(lambda: daemon.state.crash("unlucky", 11))
    one = api.get("/v1/instances/unlucky/wait", params={"for": "stopped"}).json()
    assert (one["status"], one["reason"]) == ("crashed", "QEMU was killed by signal 11")
    answer = problem(api.get("/v1/instances/unlucky/wait", params={"for": "agent", "timeout_s": 5}), 409)
    assert "killed by signal 11" in answer["detail"]
    assert "innkeeper: QEMU was killed" in api.get("/v1/instances/unlucky/log").text


# --- operations


def test_a_cancelled_operation_leaves_nothing(api: httpx.Client, daemon: Daemon) -> None:
    daemon.build_takes("debian-12", 3600)
    built = accepted(api.post("/v1/templates/build", json={"recipe": "debian-12"}))
    cancelled = accepted(api.post(f"/v1/operations/{built['id']}/cancel"))
    assert cancelled["cancel_wanted"]
    last = api.get(f"/v1/operations/{built['id']}/wait").json()
    assert last["state"] == "cancelled"
    assert accepted(api.post(f"/v1/operations/{built['id'][:9]}/cancel"))["id"] == built["id"]
    assert [t["version"] for t in api.get("/v1/templates").json()["items"] if t["name"] == "debian-12"] == [1]
    assert not daemon.state.pool.staging


def test_what_has_ended_well_cannot_be_cancelled(api: httpx.Client) -> None:
    operation = done(api, api.post("/v1/instances", json={"template": "tiny", "name": "late"}))
    assert "ended already" in problem(api.post(f"/v1/operations/{operation['id']}/cancel"), 409)["detail"]


def test_an_operation_shows_its_steps(api: httpx.Client) -> None:
    operation = done(api, api.post("/v1/instances", json={"template": "tiny", "name": "steps"}))
    plan = api.get(f"/v1/operations/{operation['id']}").json()["plan"]
    assert [s["state"] for s in plan] == ["done"] * 4
    assert plan[0]["undo"] == "delete disk steps/root"


def test_a_busy_instance_is_refused_with_who_holds_it_and_force_takes_over(api: httpx.Client, daemon: Daemon) -> None:
    daemon.do(lambda: daemon.state.script("stuck", Guest(ignores_shutdown=True)))
    launch(api, "stuck")
    stopping = accepted(api.post("/v1/instances/stuck/stop", json={"grace_s": 3600}))
    body = problem(api.post("/v1/instances/stuck/pause"), 409)
    assert body["type"] == "urn:innkeeper:problem:busy"
    assert stopping["id"] in body["detail"]
    done(api, api.post("/v1/instances/stuck/stop", json={"force": True}))
    assert api.get(f"/v1/operations/{stopping['id']}").json()["state"] == "cancelled"
