"""Who may ask: the kernel's word on the UNIX socket, a token on TCP, and projects that are not one's own."""

from __future__ import annotations

import grp
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import HTTPConnection

from innkeeper.api.identity import Identity
from innkeeper.control.submit import Asking
from innkeeper.model.host import Principal, Project, Role
from innkeeper.model.ids import ProjectId
from innkeeper.model.plans import Expect, Plan, Put, Verb
from tests.contract.api.asking import done, problem
from tests.contract.daemon import TOKEN, Daemon, Wanted

pytestmark = pytest.mark.slow
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

# Becomes a user with groups, asks once, and prints what it was told.
_ASK = """
import json, os, socket, sys
path, uid, groups = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
os.setgroups(groups); os.setgid(uid); os.setuid(uid)
sock = socket.socket(socket.AF_UNIX); sock.connect(path)
sock.sendall(b"GET /v1 HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n")
print(b"".join(iter(lambda: sock.recv(65536), b"")).decode())
"""
_NOBODY, _GROUP = 65534, "users"


def asked_as(path: Path, uid: int, groups: list[int]) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-I", "-c", _ASK, str(path), str(uid), json.dumps(groups)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    head, _, body = said.partition("\n\n") if "\r\n\r\n" not in said else said.partition("\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.fixture(scope="module")
def open_door(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A daemon whose socket anybody may connect to: only what it thinks of them counts."""
    folder = tmp_path_factory.mktemp("door")
    with Daemon(Wanted(folder=folder, identify=Identity(None, group=_GROUP))) as made:
        for place in (folder, *folder.parents[:3]):
            place.chmod(place.stat().st_mode | 0o011)
        made.socket.chmod(0o666)
        yield made


@as_root
def test_root_is_administrator(open_door: Daemon) -> None:
    assert asked_as(open_door.socket, 0, [])[1]["principal"] == "root"


@as_root
def test_a_stranger_is_refused_and_told_what_to_do(open_door: Daemon) -> None:
    status, body = asked_as(open_door.socket, _NOBODY, [])
    assert (status, body["type"]) == (403, "urn:innkeeper:problem:forbidden")
    assert f"usermod -aG {_GROUP}" in body["hint"]


@as_root
def test_a_member_of_the_group_is_administrator(open_door: Daemon) -> None:
    """By the groups of the process, as the kernel knows them: nobody's entry in /etc/group names this one."""
    gid = grp.getgrnam(_GROUP).gr_gid
    status, body = asked_as(open_door.socket, _NOBODY, [4242, gid])
    assert (status, body["principal"]) == (200, "nobody")


@as_root
def test_who_is_in_more_groups_than_fit_is_known_all_the_same(open_door: Daemon) -> None:
    status, body = asked_as(open_door.socket, _NOBODY, list(range(10_000, 10_400)))
    assert status == 403, body


@as_root
def test_the_socket_itself_is_closed_to_strangers(daemon: Daemon) -> None:
    assert daemon.socket.stat().st_mode & 0o777 == 0o660
    with pytest.raises(subprocess.CalledProcessError) as refused:
        asked_as(daemon.socket, _NOBODY, [])
    assert "PermissionError" in refused.value.stderr


# --- TCP


@pytest.mark.parametrize(
    "header", [{}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}, {"authorization": "Bearer"}]
)
@pytest.mark.parametrize("path", ["/v1", "/v1/instances", "/metrics", "/v1/events"])
def test_without_the_token_nobody_is_let_in(daemon: Daemon, path: str, header: dict[str, str]) -> None:
    answer = httpx.get(f"http://127.0.0.1:{daemon.port}{path}", headers=header)
    body = problem(answer, 401)
    assert body["type"] == "urn:innkeeper:problem:unauthenticated"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text


def test_with_the_token_one_is_let_in(daemon: Daemon) -> None:
    answer = httpx.get(f"http://127.0.0.1:{daemon.port}/v1", headers={"authorization": f"bearer {TOKEN}"})
    assert answer.json()["principal"] == "token"


@as_root
def test_without_a_token_of_the_daemons_nobody_is_let_in_over_tcp(open_door: Daemon) -> None:
    for header in ({}, {"authorization": "Bearer"}, {"authorization": "Bearer None"}):
        problem(httpx.get(f"http://127.0.0.1:{open_door.port}/v1", headers=header), 401)


# --- projects of others


@pytest.fixture(scope="module")
def two_projects(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Whoever says `x-as: ann` is a member of project default alone; everybody else is administrator."""

    def identify(connection: HTTPConnection) -> Principal:
        if connection.headers.get("x-as") == "ann":
            return Principal(name="ann", role=Role.MEMBER, projects=(made.house.project,))
        return Principal(name="root", role=Role.ADMINISTRATOR)

    with Daemon(Wanted(folder=tmp_path_factory.mktemp("projects"), identify=identify)) as made:
        _add_project(made, "others")
        yield made


def _add_project(daemon: Daemon, name: str) -> None:
    row = Project(id=ProjectId("p-000000000002"), name=name)
    expects, accept = (Expect(ref=row.ref, generation=None),), (Put(noun=row),)
    plan = Plan(verb=Verb.SET_UP, title="add", subjects=(row.ref,), expects=expects, accept=accept)
    asking = Asking(principal="root", project=daemon.house.project, at=0)
    daemon.run(lambda: daemon.house.submitter.submit(lambda c, d, n: plan, asking))


PATHS = ["instances", "instances/web", "templates", "networks", "operations", "instances/web/log", "instances/web/wait"]


@pytest.mark.parametrize("path", PATHS)
def test_anothers_project_looks_as_if_it_were_not_there(two_projects: Daemon, path: str) -> None:
    with two_projects.client() as api:
        foreign = api.get(f"/v1/{path}", params={"project": "others"}, headers={"x-as": "ann"})
        missing = api.get(f"/v1/{path}", params={"project": "nowhere"}, headers={"x-as": "ann"})
        assert problem(foreign, 404) == {**problem(missing, 404), "detail": "there is no project named others"}


def test_a_member_works_in_a_project_of_hers(two_projects: Daemon) -> None:
    with two_projects.client(headers={"x-as": "ann"}) as ann:
        done(ann, ann.post("/v1/instances", json={"template": "tiny", "name": "hers"}))
        assert ann.get("/v1/instances/hers").json()["project"] == "default"
        for path in ("/v1/hosts", "/v1/hosts/sim", "/v1/events", "/metrics"):
            problem(ann.get(path), 403)
        problem(ann.post("/v1/templates/build", json={"recipe": "tiny"}), 403)
        problem(ann.delete("/v1/templates/tiny"), 403)
        problem(ann.post("/v1/templates/import", json={"name": "x", "path": "/etc/shadow", "format": "raw"}), 403)


def test_an_operation_of_another_project_is_not_found(two_projects: Daemon) -> None:
    with two_projects.client() as api:
        operation = done(api, api.post("/v1/instances", json={"template": "tiny", "name": "mine"}))
        for path in ("", "/wait"):
            problem(api.get(f"/v1/operations/{operation['id']}{path}", params={"project": "others"}), 404)
        problem(api.post(f"/v1/operations/{operation['id']}/cancel", params={"project": "others"}), 404)
        problem(api.get("/v1/instances/mine", params={"project": "others"}), 404)
