"""`inn snapshot` and `inn rewind`: kept, listed, gone back to, launched from, deleted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from innkeeper.sim.metal.guests import Guest
from tests.contract.cli.running import Inn
from tests.contract.daemon import Daemon


def shown(inn: Inn, *words: str) -> dict[str, Any]:
    return dict(json.loads(inn.well(*words, "-f", "json")))


def note(inn: Inn, instance: str, words: str, folder: Path) -> None:
    (folder / "note").write_text(words)
    inn.well("push", str(folder / "note"), f"{instance}:/root/note")


def noted(inn: Inn, instance: str) -> str:
    inn.well("wait", instance)
    return inn.well("exec", instance, "--", "cat", "/root/note")


def table(inn: Inn, instance: str) -> list[list[str]]:
    """Name, consistent, parent and current of each."""
    head, *rows = inn.well("snapshot", "list", instance).splitlines()
    assert head.split() == ["NAME", "TAKEN", "STORED", "CONSISTENT", "PARENT", "CURRENT", "ID"]
    cells = [re.split(r" {2,}", row) for row in rows]
    return [[row[0], *row[3:6]] for row in cells]


def test_back_and_forth(inn: Inn, tmp_path: Path) -> None:
    inn.well("launch", "tiny", "web", "--wait")
    note(inn, "web", "one", tmp_path)
    out = inn.well("snapshot", "create", "web", "first")
    assert re.fullmatch(r"Snapshot web/first is taken \([0-9.]+ [KM]iB, consistent\)\n", out)
    note(inn, "web", "two", tmp_path)
    assert inn.well("snapshot", "create", "web").startswith("Snapshot web/snap0 is taken (")
    assert table(inn, "web") == [["first", "yes", "-", "-"], ["snap0", "yes", "first", "yes"]]
    assert "\nSnapshots: 2; it stands on snap0\n" in inn.well("show", "web")
    refused = inn("snapshot", "restore", "web", "first")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == (
        "inn: web is running\n     Stop it first, or let it be ended and started anew: inn rewind web first\n"
    )
    assert inn.well("rewind", "web", "first") == ""
    assert noted(inn, "web") == "one"
    assert table(inn, "web") == [["first", "yes", "-", "yes"], ["snap0", "yes", "first", "-"]]
    assert inn.well("snapshot", "restore", "web", "snap0", "--restart") == ""
    assert noted(inn, "web") == "two"
    inn.well("stop", "web", "--force")
    assert inn.well("snapshot", "restore", "web", "first") == ""
    assert shown(inn, "show", "web")["status"] == "stopped"
    assert inn.well("rewind", "web", "first") == ""
    assert shown(inn, "show", "web")["status"] == "stopped"
    inn.well("start", "web")
    assert noted(inn, "web") == "one"


def test_another_instance_from_one(inn: Inn, tmp_path: Path) -> None:
    inn.well("launch", "tiny", "old", "--wait")
    note(inn, "old", "then", tmp_path)
    inn.well("snapshot", "create", "old", "kept")
    note(inn, "old", "now", tmp_path)
    plan = inn.well("launch", "old/kept", "dry", "--dry-run")
    assert plan.startswith("launch dry from old/kept\n")
    assert inn("show", "dry").code == 1
    assert re.match(r"twin is \w+ at 10\.", inn.well("snapshot", "restore", "old", "kept", "--as", "twin"))
    inn.well("launch", "old/kept", "large", "--memory", "256MiB", "--disk", "3GiB", "--wait")
    assert shown(inn, "show", "large")["size"] == {"vcpus": 1, "memory_mib": 256, "disk_gib": 3}
    assert "\nSnapshots: none of its own; it stands on old/kept\n" in inn.well("show", "large")
    out = inn.well("launch", shown(inn, "show", "old")["id"][:10] + "/kept", "many", "--count", "2")
    assert len(out.splitlines()) == 2
    assert [noted(inn, name) for name in ("old", "twin", "large", "many-1")] == ["now", "then", "then", "then"]
    taken = inn("snapshot", "restore", "old", "kept", "--as", "twin")
    assert (taken.code, taken.out) == (1, "")
    assert "there is an instance named twin already" in taken.err
    # What they need of it stays, also when it is gone, and its instance.
    inn.well("snapshot", "delete", "old", "kept")
    inn.well("delete", "old", "--force")
    inn.well("restart", "twin", "--force")
    assert noted(inn, "twin") == "then"
    assert "Snapshots:" not in inn.well("show", "twin")


def test_all_formats(inn: Inn) -> None:
    inn.well("launch", "tiny", "formed", "--no-start")
    assert inn("snapshot", "list", "formed").err == "No snapshots. Take one: inn snapshot create formed\n"
    assert inn.well("snapshot", "list", "formed", "-f", "json") == "[]\n"
    inn.well("snapshot", "create", "formed", "2026-11-23")
    (one,) = json.loads(inn.well("snapshot", "list", "formed", "-f", "json"))
    assert shown(inn, "snapshot", "show", "formed", "2026-11-23") == one
    assert shown(inn, "snapshot", "show", one["instance"], one["id"][:11]) == one
    head, row = inn.well("snapshot", "list", "formed", "-f", "csv").splitlines()
    assert head.startswith("id,name,instance,")
    assert row.startswith(f"{one['id']},2026-11-23,formed,")
    assert f"- id: {one['id']}\n" in inn.well("snapshot", "list", "formed", "-f", "yaml")
    page = inn.well("snapshot", "show", "formed", "2026-11-23")
    for words in ("Instance: formed, which stands on it\n", "Disks:    consistent\n", "Parent:   none\n"):
        assert words in page


def test_a_guest_without_an_agent(inn: Inn, daemon: Daemon) -> None:
    daemon.do(lambda: daemon.state.script("mute", Guest(agent=False)))
    inn.well("launch", "tiny", "mute")
    assert inn.well("snapshot", "create", "mute", "rough").endswith(", as after a loss of power)\n")
    assert table(inn, "mute") == [["rough", "no", "-", "yes"]]


def test_several_are_deleted_and_what_one_refuses_keeps_nobody_waiting(inn: Inn) -> None:
    inn.well("launch", "tiny", "tidy", "--no-start")
    for name in ("a", "b", "c", "d"):
        inn.well("snapshot", "create", "tidy", name)
    ran = inn("snapshot", "delete", "tidy", "b", "nosuch", "d", "b")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "inn: there is no snapshot named nosuch\n     See: inn snapshot list tidy\n"
    assert table(inn, "tidy") == [["a", "yes", "-", "-"], ["c", "yes", "a", "yes"]]
    assert inn.well("snapshot", "rm", "tidy", "c", "a") == ""
    assert inn.well("snapshot", "list", "tidy") == ""


def test_a_branch_that_nobody_stands_on_goes_from_its_top(inn: Inn, daemon: Daemon) -> None:
    before = len(daemon.state.pool.disks)
    inn.well("launch", "tiny", "pruned", "--no-start")
    for name in ("root", "low", "high", "top"):
        inn.well("snapshot", "create", "pruned", name)
    inn.well("snapshot", "restore", "pruned", "root")
    assert len(daemon.state.pool.disks) - before == 5
    inn.well("snapshot", "delete", "pruned", "top", "high", "low")
    assert table(inn, "pruned") == [["root", "yes", "-", "yes"]]
    assert len(daemon.state.pool.disks) - before == 2
    wrong = inn("snapshot", "delete", "pruned", "nosuch", "a/b", "root")
    assert wrong.code == 2
    assert "no snapshot named nosuch" in wrong.err
    assert "'a/b' is the name of nothing" in wrong.err
    assert table(inn, "pruned") == [["root", "yes", "-", "yes"]]


def test_a_name_is_taken_or_is_none(inn: Inn) -> None:
    inn.well("launch", "tiny", "named", "--no-start")
    inn.well("snapshot", "create", "named", "x")
    for name, words in (
        ("x", "named has a snapshot named x already|inn snapshot delete named x"),
        ("X", "'X' cannot be the name of a snapshot|1 to 63 of the characters"),
        ("a/b", "'a/b' cannot be the name of a snapshot"),
        ("", "'' cannot be the name of a snapshot"),
    ):
        ran = inn("snapshot", "create", "named", name)
        assert (ran.code, ran.out) == (1, "")
        for part in words.split("|"):
            assert part in ran.err
    for command in (("snapshot", "restore"), ("snapshot", "show"), ("snapshot", "delete"), ("rewind",)):
        ran = inn(*command, "named", "nosuch")
        assert ran.code == 1
        assert ran.err == "inn: there is no snapshot named nosuch\n     See: inn snapshot list named\n"


def test_they_go_with_their_instance(inn: Inn, daemon: Daemon) -> None:
    before = set(daemon.state.pool.disks)
    inn.well("launch", "tiny", "brief")
    inn.well("snapshot", "create", "brief")
    inn.well("snapshot", "create", "brief")
    assert len(set(daemon.state.pool.disks) - before) == 3
    assert inn("delete", "brief").code == 1
    inn.well("delete", "brief", "--force")
    assert set(daemon.state.pool.disks) == before
    assert inn("snapshot", "list", "brief").err == "inn: there is no instance named brief\n     See: inn list\n"


@pytest.mark.parametrize("words", [("snapshot", "create", "nosuch"), ("rewind", "nosuch", "x")])
def test_without_a_daemon(inn: Inn, tmp_path: Path, words: tuple[str, ...]) -> None:
    ran = inn(*words, "--socket", str(tmp_path / "none.sock"))
    assert ran.code == 3
    assert "inn serve" in ran.err
