"""What a user does, command by command, on a simulated host."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from innkeeper.cli.times import epoch
from innkeeper.sim.metal.pool import ImageFile
from tests.contract.cli.running import PATIENCE_S, Inn, started
from tests.contract.daemon import Daemon

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHg6kUb8AIbcUmsuXuIdUEnxsK83HpE9EDJSHJj9dPMf a@b"


def shown(inn: Inn, name: str) -> dict[str, Any]:
    return dict(json.loads(inn.well("show", name, "-f", "json")))


# --- launch


def test_launch_with_every_option(inn: Inn, daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "cloud.yaml").write_text("#cloud-config\npackages: [hello]\n")
    (tmp_path / "id.pub").write_text(f"# mine\n{KEY}\n\n{KEY}2\n".replace(f"{KEY}2", KEY.replace("a@b", "c@d")))
    words = ["--cpus", "2", "--memory", "1GiB", "--disk", "10GiB", "--autostart", "--ephemeral", "--ttl", "1h30m"]
    words += [
        "--user-data",
        str(tmp_path / "cloud.yaml"),
        "--ssh-key",
        str(tmp_path / "id.pub"),
        "--network",
        "default",
    ]
    words += ["--label", "team=blue", "--label", "tier=", "--wait"]
    out = inn.well("launch", "debian-12", "full", *words)
    assert out.startswith("full is running at 10.")
    one = shown(inn, "full")
    assert one["size"] == {"vcpus": 2, "memory_mib": 1024, "disk_gib": 10}
    assert one["autostart"]
    assert one["ephemeral"]
    assert epoch(one["expires_at"]) == pytest.approx(epoch(one["created_at"]) + 5400)
    assert one["labels"] == {"team": "blue", "tier": ""}
    seed = daemon.state.seeds[one["id"]]
    assert seed.user_data == b"#cloud-config\npackages: [hello]\n"
    assert [key.split()[-1] for key in seed.action.ssh_keys] == ["a@b", "c@d"]


def test_launch_by_a_named_size_without_starting(inn: Inn) -> None:
    assert inn.well("launch", "tiny", "resting", "--size", "nano", "--no-start").startswith("resting is stopped")
    assert shown(inn, "resting")["size"] == {"vcpus": 1, "memory_mib": 256, "disk_gib": 4}


def test_launch_several(inn: Inn) -> None:
    out = inn.well("launch", "tiny", "node{n}", "--count", "3")
    assert sorted(line.split()[0] for line in out.splitlines()) == ["node1", "node2", "node3"]
    made = json.loads(inn.well("launch", "tiny", "--count", "2", "-f", "json", "--ephemeral", "--ttl", "1h"))
    assert len({one["id"] for one in made}) == 2


def test_launch_many_is_told_as_one_list(inn: Inn) -> None:
    out = inn.well("launch", "tiny", "many", "--count", "25")
    assert len(out.splitlines()) == 25


def test_launch_where_one_fails(inn: Inn) -> None:
    """Those that were made are told as if none had failed."""
    inn.well("launch", "tiny", "some-2")
    ran = inn("launch", "tiny", "some", "--count", "3")
    assert ran.code == 1
    assert "launch 3 instances from tiny: 1 of 3 failed: there is an instance named some-2 already" in ran.err
    assert sorted(line.split(" is ")[0] for line in ran.out.splitlines()) == ["some-1", "some-3"]
    ran = inn("launch", "tiny", "some-{n}", "--count", "4", "-f", "json", "--wait")
    assert ran.code == 1
    assert "3 of 4 failed" in ran.err
    assert [(one["name"], one["agent"]) for one in json.loads(ran.out)] == [("some-4", True)]


def test_a_dry_run_prints_the_plan(inn: Inn) -> None:
    lines = inn.well("launch", "tiny", "dry", "--dry-run", "--ttl", "2h", "--label", "a=b").splitlines()
    assert lines[:3] == [
        "launch dry from tiny:1",
        "  Size:    1 vCPU, 128 MiB of memory, 1 GiB of disk",
        "  Host:    sim",
    ]
    assert re.fullmatch(r"  Card:    10\.[0-9.]+ on default \(52:54:00:[0-9a-f:]+\)", lines[3])
    assert lines[4].startswith("  Expires: ")
    assert lines[5:8] == [
        "  Labels:  a=b",
        "  1. sim: create disk dry/root of 1 GiB from tiny:1",
        "     undo: delete disk dry/root",
    ]
    assert lines[-1] == "Nothing was done. When it is launched, ids and addresses may be others."
    assert (
        json.loads(inn.well("launch", "tiny", "dry", "--dry-run", "-f", "json"))[0]["title"] == "launch dry from tiny:1"
    )
    assert inn("show", "dry").code == 1


def test_user_data_that_is_no_text(inn: Inn, daemon: Daemon, tmp_path: Path) -> None:
    data = gzip.compress(b"#cloud-config\n{}\n")
    (tmp_path / "zipped").write_bytes(data)
    inn.well("launch", "debian-12", "zipped", "--user-data", str(tmp_path / "zipped"))
    assert daemon.state.seeds[shown(inn, "zipped")["id"]].user_data == data


# --- standing instances


def test_power(inn: Inn) -> None:
    inn.well("launch", "tiny", "power", "--wait")
    for words, status in (
        (("pause", "power"), "paused"),
        (("resume", "power"), "running"),
        (("stop", "power", "--grace", "10s"), "stopped"),
        (("start", "power"), None),
        (("restart", "power", "--force"), None),
        (("stop", "power", "--force"), "stopped"),
    ):
        assert inn.well(*words) == ""
        if status is not None:
            assert shown(inn, "power")["status"] == status
    inn.well("rename", "power", "strength")
    inn.well("delete", "strength")
    assert inn("show", "strength").code == 1


def test_a_start_waits_for_the_guest_where_that_is_wanted(inn: Inn) -> None:
    inn.well("launch", "tiny", "awaited", "--no-start")
    assert inn.well("start", "awaited", "--wait") == ""
    assert shown(inn, "awaited")["agent"]
    inn.well("restart", "awaited", "--force", "--wait")
    assert shown(inn, "awaited")["agent"]


def test_lists_of_some(inn: Inn) -> None:
    inn.well("launch", "tiny", "chosen", "--label", "tier=web", "--no-start")
    inn.well("launch", "tiny", "unchosen", "--label", "tier=db")

    def names(*words: str) -> list[str]:
        return [one["name"] for one in json.loads(inn.well("list", "-f", "json", *words))]

    assert names("--label", "tier=web") == ["chosen"]
    assert names("--label", "tier=web", "--status", "stopped") == ["chosen"]
    assert names("--label", "tier=web", "--label", "tier=db") == ["unchosen"]
    assert {"chosen", "unchosen"} <= set(names())
    ran = inn("list", "--label", "tier=none")
    assert (ran.code, ran.out, ran.err) == (0, "", "No instance is like that\n")


def test_several_at_once_and_what_one_refuses_keeps_nobody_waiting(inn: Inn) -> None:
    inn.well("launch", "tiny", "pair{n}", "--count", "2")
    ran = inn("stop", "pair1", "nosuch", "pair2", "pair1", "--force")
    assert ran.code == 1
    assert ran.err == "inn: there is no instance named nosuch\n     See: inn list\n"
    assert {shown(inn, n)["status"] for n in ("pair1", "pair2")} == {"stopped"}
    inn.well("rm", "pair1", "pair2")


def test_ids_and_their_beginnings_are_names_too(inn: Inn) -> None:
    inn.well("launch", "tiny", "named", "--wait")
    one = shown(inn, "named")
    assert shown(inn, one["id"][:10])["name"] == "named"
    assert inn.well("exec", one["id"][:10], "--", "hostname") == "named\n"
    inn.well("stop", one["id"], "--force")
    template = json.loads(inn.well("template", "show", "tiny", "-f", "json"))
    assert json.loads(inn.well("template", "show", template["id"][:9], "-f", "json")) == template
    operation = json.loads(inn.well("operation", "list", "-f", "json"))[0]
    assert json.loads(inn.well("operation", "show", operation["id"][:11], "-f", "json"))["id"] == operation["id"]
    network = json.loads(inn.well("network", "list", "-f", "json"))[0]
    assert json.loads(inn.well("network", "show", network["id"][:8], "-f", "json"))["name"] == "default"
    assert json.loads(inn.well("host", "show", "h-0000", "-f", "json"))["name"] == "sim"


def test_waiting(inn: Inn) -> None:
    inn.well("launch", "debian-12", "cloudy")
    inn.well("wait", "cloudy")
    inn.well("wait", "cloudy", "--for", "cloud-init", "--timeout", "60s")
    assert shown(inn, "cloudy")["cloud_init"] == "done"
    ran = inn("wait", "cloudy", "--for", "stopped", "--timeout", "0.1s")
    assert ran.code == 1
    assert "it has not stopped after 0.1 s" in ran.err
    inn.well("stop", "cloudy", "--force")
    operation = json.loads(inn.well("operation", "list", "-f", "json"))[0]["id"]
    for words in (("wait", "cloudy", "--for", "stopped"), ("operation", "wait", operation)):
        assert inn.well(*words, "--timeout", "6d") == ""
        ran = inn(*words, "--timeout", "8d")
        assert ran.code == 1, "never cut silently"
        assert "604800" in ran.err


def test_showing(inn: Inn, daemon: Daemon) -> None:
    inn.well("launch", "tiny", "seen", "--wait", "--label", "a=b", "--ttl", "2d", "--autostart")
    out = inn.well("show", "seen")
    for words in (
        "Name:  ",
        "Status:",
        "running since",
        "Size:",
        "1 vCPU, 128 MiB of memory",
        "Labels:",
        "a=b",
        "Expires:",
    ):
        assert words in out
    daemon.do(lambda: daemon.state.crash("seen"))
    inn.well("wait", "seen", "--for", "stopped")
    assert "QEMU was killed by signal 9" in inn.well("show", "seen")
    assert "innkeeper: QEMU was killed by signal 9" in inn.well("logs", "seen")


def test_logs_are_followed_until_it_stops(inn: Inn, daemon: Daemon) -> None:
    inn.well("launch", "tiny", "talking", "--wait")
    with started(daemon.socket, "logs", "talking", "--follow") as process:
        assert process.stdout is not None
        assert "Booting" in process.stdout.readline() + process.stdout.readline()
        inn.well("stop", "talking")
        rest = process.stdout.read()
        assert process.wait(PATIENCE_S) == 0
    assert "Power down" in rest


def test_metrics_and_top(inn: Inn, daemon: Daemon) -> None:
    inn.well("launch", "tiny", "busy", "--wait")
    with daemon.client() as api:  # two samples make a rate
        while api.get("/v1/instances/busy").json()["rates"] is None:
            api.get("/v1/instances/busy/wait?for=stopped&timeout_s=0.1")
    assert " 10 s " in inn.well("show", "busy", "--metrics")
    head, row, *_ = inn.well("show", "busy", "--metrics", "-f", "csv").splitlines()
    assert head.startswith("at,cpus,memory_mib,disk_read_bytes_per_s,")
    assert row.count(",") == head.count(",")
    assert json.loads(inn.well("show", "busy", "--metrics", "-f", "json"))["recent"]
    top = inn.well("top", "--once")
    assert "busy" in top
    assert "Load:" in inn.well("show", "busy")
    assert json.loads(inn.well("top", "-f", "json"))[0]["rates"].keys() >= {
        "cpus",
        "memory_mib",
        "net_sent_bytes_per_s",
    }


# --- in an instance


def test_exec_passes_all_on(inn: Inn) -> None:
    inn.well("launch", "tiny", "inside")
    ran = inn("exec", "inside", "--", "cat", "/nix")  # waits until it has booted
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.endswith("cat: /nix: No such file or directory\n")
    assert inn.well("exec", "inside", "--", "echo", "--user", "-x") == "--user -x\n"
    assert inn.well("exec", "inside", "echo", "-n", "--user", "x") == "-n --user x\n"
    assert inn("exec", "inside", "--", "false").code == 1


def test_files_go_in_and_out(inn: Inn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inn.well("launch", "tiny", "files", "--wait")
    data = bytes(range(256)) * 2000
    here, there = tmp_path / "here.bin", tmp_path / "there"
    here.write_bytes(data)
    here.chmod(0o751)
    inn.well("push", str(here), "files:/root/a.bin")
    inn.well("push", str(here), "files:/tmp")
    assert inn.well("exec", "files", "--", "stat", "-c", "%a", "/root/a.bin") == "751\n"
    inn.well("pull", "files:/root/a.bin", str(there))
    assert there.read_bytes() == data
    monkeypatch.chdir(tmp_path)
    inn.well("pull", "files:/tmp/here.bin")
    assert here.read_bytes() == data
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here.bin", "there"]


def test_a_file_that_cannot_go(inn: Inn, tmp_path: Path) -> None:
    inn.well("launch", "tiny", "closed", "--wait")
    (tmp_path / "x").write_text("x")
    ran = inn("push", str(tmp_path / "x"), "closed:/no/such/folder")
    assert ran.code == 1
    assert "mkdir: " in ran.err
    assert inn("pull", "closed:/etc/nix", str(tmp_path / "y")).code == 1
    assert inn("pull", "closed:/etc/nix", "/no/such/folder/y").code == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]


# --- templates, networks, hosts, operations


def test_templates(inn: Inn, daemon: Daemon, tmp_path: Path) -> None:
    assert inn.well("template", "build", "tiny") == "Template tiny:2 is ready (16.0 MiB)\n"
    assert "tiny:2" in inn.well("template", "list")
    assert "Digest:" in inn.well("template", "show", "tiny:2")
    image = tmp_path / "disk.qcow2"
    image.write_bytes(b"QFI\xfb")
    daemon.state.files[str(image)] = ImageFile(format="qcow2", virtual_size_bytes=1 << 30, stored_bytes=1 << 20)
    inn.well("template", "import", str(image), "--name", "mine-1.0", "--image-format", "qcow2", "--firmware", "uefi")
    assert json.loads(inn.well("template", "show", "mine-1.0", "-f", "json"))["firmware"] == "uefi"
    ran = inn("template", "import", str(image), "--name", "mine-1.0", "--image-format", "raw")
    assert ran.code == 1
    assert "is not raw" in ran.err
    inn.well("launch", "tiny", "model", "--no-start")
    assert inn.well("template", "publish", "model", "--name", "golden").startswith("Template golden:1 is ready (")
    inn.well("launch", "golden", "from-golden", "--wait")
    assert inn("template", "delete", "golden").code == 1
    inn.well("delete", "from-golden", "--force")
    inn.well("template", "delete", "golden", "mine-1.0")
    assert "golden" not in inn.well("template", "list")


def test_hosts_and_networks(inn: Inn) -> None:
    assert "kvm: a simulated host" in inn.well("host", "show")
    assert "sim " in inn.well("host", "list")
    assert "default" in inn.well("network", "list")
    assert "Gateway:" in inn.well("network", "show", "default")


def test_operations(inn: Inn, daemon: Daemon) -> None:
    inn.well("launch", "tiny", "worked", "--count", "2")
    listed = json.loads(inn.well("operation", "list", "--limit", "1", "-f", "json"))
    assert len(listed) == 1
    parent = json.loads(inn.well("operation", "show", listed[0]["id"], "-f", "json"))
    assert len(parent["children"]) == 2
    told = inn.well("operation", "show", parent["id"])
    assert f"{parent['children'][0]}  succeeded  launch worked-" in told
    child = inn.well("operation", "show", parent["children"][0])
    assert "Step 1: done     sim: create disk" in child
    daemon.build_takes("debian-12", 3600)
    with daemon.client() as api:
        operation = api.post("/v1/templates/build", json={"recipe": "debian-12"}).json()["id"]
    ran = inn("operation", "wait", operation, "--timeout", "0.1s")
    assert (ran.code, ran.err.partition(" after")[0]) == (1, "inn: build template debian-12:2: still running")
    assert f"template debian-12 is busy: operation {operation} holds it" in inn("template", "build", "debian-12").err
    inn.well("operation", "cancel", operation)
    ran = inn("operation", "wait", operation)
    assert ran.code == 1
    assert "cancelled" in ran.err
    assert inn("operation", "cancel", parent["id"]).code == 1
