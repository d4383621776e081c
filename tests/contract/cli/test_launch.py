"""`inn launch`: what is told of those that were made when not all were, and what is read from files and pipes."""

from __future__ import annotations

import json

import pytest

from innkeeper.cli.units import disk_gib, memory_mib
from innkeeper.sim.metal.guests import Guest
from tests.contract.cli.running import Inn
from tests.contract.cli.running import ran as process
from tests.contract.daemon import Daemon

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHg6kUb8AIbcUmsuXuIdUEnxsK83HpE9EDJSHJj9dPMf a@b"


def test_launch_where_a_step_fails(inn: Inn, daemon: Daemon) -> None:
    """The pool has room for one; the host says so, not the planner."""
    pool = daemon.state.pool
    taken = pool.free_bytes - 250_000
    daemon.do(lambda: pool.occupy(taken))
    try:
        ran = inn("launch", "tiny", "room", "--count", "3", "-f", "csv")
        whole = inn("launch", "tiny", "whole", "--count", "3", "--all-or-none")
    finally:
        daemon.do(lambda: pool.occupy(-taken))
    assert ran.code == 1
    assert "2 of 3 failed" in ran.err
    assert ran.err.count("no room in the pool") >= 2
    made = [line.split(",")[1] for line in ran.out.splitlines()[1:]]
    assert len(made) == 1
    assert made[0] in inn.well("list")
    assert whole.code == 1
    assert whole.out == ""
    assert "All was undone, none of the 3 remains." in whole.err
    assert "whole-" not in inn.well("list")


def test_launch_of_all_or_none_that_cannot_be(inn: Inn) -> None:
    ran = inn("launch", "tiny", "whole", "--count", "2", "--all-or-none", "--cpus", "999")
    assert ran.code == 1
    assert "none was launched" in ran.err
    assert "whole-" not in inn.well("list")


def test_launch_is_told_also_where_a_guest_does_not_answer(inn: Inn, daemon: Daemon) -> None:
    daemon.do(lambda: daemon.state.script("mute-2", Guest(agent=False, crash_after_s=5)))
    ran = inn("launch", "tiny", "mute", "--count", "2", "--wait")
    assert ran.code == 1
    assert "mute-2 is crashed" in ran.err
    assert sorted(line.split()[0] for line in ran.out.splitlines()) == ["mute-1", "mute-2"]


def test_parts_of_units_that_are_whole(inn: Inn) -> None:
    inn.well("launch", "tiny", "parts", "--memory", "0.125GiB", "--disk", "1.0GiB", "--no-start")
    assert json.loads(inn.well("show", "parts", "-f", "json"))["size"] == {"vcpus": 1, "memory_mib": 128, "disk_gib": 1}


@pytest.mark.parametrize("option", ["--user-data", "--ssh-key"])
def test_what_is_piped_in(daemon: Daemon, inn: Inn, option: str) -> None:
    given = f"{KEY}\n" if option == "--ssh-key" else "#cloud-config\n{}\n"
    name = f"piped{option[1:]}"
    went = process(daemon.socket, "launch", "debian-12", name, option, "-", given=given.encode())
    assert went.returncode == 0, went
    seed = daemon.state.seeds[json.loads(inn.well("show", name, "-f", "json"))["id"]]
    assert (seed.user_data.decode(), seed.action.ssh_keys) in ((given, ()), ("", (KEY,)))


@pytest.mark.parametrize(
    "text, mib",
    [
        ("1G", 1024),
        ("1g", 1024),
        ("1GiB", 1024),
        ("1Gi", 1024),
        ("1.5G", 1536),
        ("512", 512),
        ("1GB", 954),
        ("1073741824B", 1024),
        ("1T", 1 << 20),
    ],
)
def test_memory_is_read_as_people_write_it(text: str, mib: int) -> None:
    assert memory_mib(text) == mib


@pytest.mark.parametrize(
    "text, gib", [("10", 10), ("10G", 10), ("10GiB", 10), ("10GB", 10), ("1T", 1024), ("1TB", 932)]
)
def test_disks_are_read_as_people_write_them(text: str, gib: int) -> None:
    assert disk_gib(text) == gib


def test_a_warm_launch_is_made_told_and_dropped(inn: Inn) -> None:
    assert "ready: 1 vCPU, 128 MiB of memory" in inn.well("template", "warm", "tiny")
    inn.well("launch", "tiny", "quick")
    inn.well("launch", "tiny", "slow", "--cold")
    assert "Began:    went on from a memory image" in inn.well("show", "quick")
    assert "Began:    booted, as it was asked for" in inn.well("show", "slow")
    assert "1 clone" in inn.well("template", "show", "tiny")
    inn.well("template", "warm", "tiny", "--drop")
    assert "Memory" not in inn.well("template", "show", "tiny")
    again = inn("template", "warm", "tiny", "--drop")
    assert again.code == 1
    assert "has no memory image" in again.err
    inn.well("delete", "quick", "slow", "--force")
