"""An instance's whole life on a real daemon: what its guest is, and what orders do to it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.vm.installation.house import BOOT_S, House, Problem
from tests.vm.installation.process import INN
from tests.vm.installation.traces import assert_tidy, traces


def test_two_launched_together_are_two(house: House) -> None:
    """Each has its own address, MAC, host name and disk, and finds the other by name."""
    parent = house.do(house.post("/instances", template="tiny", name="pair{n}", count=2))
    names = [house.until(f"pair{n}", "agent")["name"] for n in (1, 2)]
    assert len(parent["children"]) == 2
    for name in names:
        house.until(name, "ip")
        shown, nic = house.show(name), house.show(name)["nics"][0]
        assert house.said_in(name, "hostname") == name
        assert house.said_in(name, "cat", "/sys/class/net/eth0/address") == nic["mac"]
        assert nic["addresses"][0] in house.said_in(name, "ip", "-4", "addr", "show", "eth0")
        assert shown["status"] == "running"
    first, second = (house.show(name) for name in names)
    assert first["nics"][0]["mac"] != second["nics"][0]["mac"]
    assert first["addresses"] != second["addresses"]
    assert second["addresses"][0] in house.said_in("pair1", "nslookup", "pair2.inn.internal")
    assert "0% packet loss" in house.said_in("pair1", "ping", "-c", "1", "-w", "20", second["addresses"][0])
    house.said_in("pair1", "sh", "-c", "echo mine > /root/word && sync")
    assert house.inn("exec", "pair2", "--", "cat", "/root/word").returncode == 1
    house.remove(*names)
    assert_tidy(house)


def test_what_it_is_and_has_stays_through_stop_and_start(house: House) -> None:
    before = house.launch("stays")
    house.until("stays", "ip")
    house.said_in("stays", "sh", "-c", "echo kept > /root/word && sync")
    told = _identity(house, "stays")
    house.power("stays", "stop", grace_s=60)
    stopped = house.show("stays")
    assert (stopped["status"], stopped["reason"], stopped["agent"]) == ("stopped", "", False)
    assert traces(house.place).processes == ()
    house.power("stays", "start")
    house.until("stays", "ip")
    after = house.show("stays")
    assert _identity(house, "stays") == told
    assert (after["id"], after["nics"], after["volumes"]) == (before["id"], before["nics"], before["volumes"])
    assert house.said_in("stays", "cat", "/root/word") == "kept"
    house.remove("stays")
    assert_tidy(house)


def _identity(house: House, name: str) -> list[str]:
    """Host name, MAC, address, and the id that the hardware gives the machine."""
    asked = (
        ("hostname",),
        ("cat", "/sys/class/net/eth0/address"),
        ("cat", "/sys/class/dmi/id/product_uuid"),
        ("sh", "-c", "ip -4 -o addr show eth0 | tr -s ' ' | cut -d' ' -f4"),
    )
    return [house.said_in(name, *command) for command in asked]


def test_commands_streams_and_exit_codes(house: House) -> None:
    house.launch("speaks")
    ran = house.inn("exec", "speaks", "--", "sh", "-c", "cat; echo wrong >&2; exit 7", stdin=b"said\n")
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, b"said\n", b"wrong\n")
    missing = house.inn("exec", "speaks", "--", "no-such-command")
    assert missing.returncode not in (0, 7)
    assert b"no-such-command" in missing.stderr
    many = house.inn("exec", "speaks", "--", "sh", "-c", "head -c 3000000 /dev/zero")
    assert (many.returncode, len(many.stdout)) == (0, 3_000_000)
    assert b"login:" in house.inn("logs", "speaks").stdout
    house.remove("speaks")


def test_files_in_and_out(house: House, tmp_path: Path) -> None:
    """Links are followed, devices and pipes written into, modes kept, and nothing is left on the way."""
    house.launch("files")
    made = "mkdir /srv/x; ln -s x/a /srv/link; echo old > /srv/x/a; ln -s x/b /srv/new; mkfifo /tmp/pipe"
    house.said_in("files", "sh", "-c", f"{made}; cat /tmp/pipe > /root/heard 2> /dev/null < /dev/null &")
    mine = tmp_path / "mine"
    mine.write_bytes(os.urandom(300_000))
    mine.chmod(0o751)
    for place in ("/srv/link", "/srv/new", "/srv/x/", "/tmp/pipe", "/dev/null"):
        assert house.inn("push", str(mine), f"files:{place}").returncode == 0, place
    assert house.inn("push", "-", "files:given", stdin=mine.read_bytes()).returncode == 0
    kinds = house.said_in("files", "stat", "-c", "%n %F %a", "/srv/link", "/srv/x/b", "/srv/x/mine", "/dev/null")
    assert [line.split(" ", 1)[1][:12] for line in kinds.splitlines()] == [
        "symbolic lin",
        "regular file",
        "regular file",
        "character sp",
    ]
    for place in ("/srv/x/a", "/srv/new", "/srv/x/mine", "/root/heard", "given"):
        assert house.inn("pull", f"files:{place}", "-").stdout == mine.read_bytes(), place
    assert house.inn("pull", "files:/srv/link", str(tmp_path)).returncode == 0
    assert ((tmp_path / "link").stat().st_mode & 0o7777, (tmp_path / "link").read_bytes()) == (0o751, mine.read_bytes())
    for place, words in (("/", b"is a folder"), ("/srv/x/", b"is a folder"), ("/nix", b"No such file")):
        refused = house.inn("pull", f"files:{place}", str(tmp_path))
        assert (refused.returncode, refused.stdout) == (1, b"")
        assert words in refused.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "mine"]
    _told_to_end(house, "push", "-", "files:/srv/x/half")
    house.remove("files")
    assert_tidy(house)


def _told_to_end(house: House, *words: str) -> None:
    """While it waits for more; then nothing of it is in the guest."""
    parts = ("find", "/srv", "-name", ".inn-part.*")
    assert house.said_in("files", *parts) == ""
    with subprocess.Popen([*INN, *words], env=house.environment(), stdin=subprocess.PIPE) as push:
        until = time.monotonic() + BOOT_S
        while house.said_in("files", *parts) == "":
            assert time.monotonic() < until
        push.terminate()
        assert push.wait(BOOT_S) == 128 + signal.SIGTERM
    assert house.said_in("files", *parts) == ""


def test_pause_and_resume(house: House) -> None:
    house.launch("naps")
    house.power("naps", "pause")
    assert house.show("naps")["status"] == "paused"
    with pytest.raises(Problem, match="paused"):
        house.post("/instances/naps/start")
    assert b"paused" in house.inn("exec", "naps", "--", "true").stderr
    house.power("naps", "resume")
    assert house.show("naps")["status"] == "running"
    assert house.said_in("naps", "echo", "awake") == "awake"
    house.remove("naps")


def test_a_reboot_of_the_guest_is_no_end(house: House) -> None:
    """What an earlier boot said is not believed of the next one."""
    house.launch("again")
    pid = house.pid("again")
    boot = house.said_in("again", "cat", "/proc/sys/kernel/random/boot_id")
    house.inn("exec", "again", "--", "reboot")
    house.seen("again", "starting")
    assert house.show("again")["agent"] is False
    shown = house.until("again", "agent")
    assert shown["status"] == "running"
    assert house.pid("again") == pid
    assert house.said_in("again", "cat", "/proc/sys/kernel/random/boot_id") != boot
    house.remove("again")


def test_who_has_a_time_to_live_is_deleted(house: House) -> None:
    house.do(house.post("/instances", template="tiny", name="mayfly", ttl_s=2))
    assert house.until("mayfly", "deleted") is None
    assert_tidy(house)


def test_counters_are_taken_and_shown(house: House) -> None:
    house.launch("busy")
    house.said_in("busy", "sh", "-c", "head -c 4000000 /dev/urandom > /root/data && sync")
    until = asyncio.run(_metrics(house, "busy"))
    assert until[-1]["memory_mib"] > 10
    assert max(rates["cpus"] for rates in until) > 0
    shown = house.inn("show", "busy", "--metrics")
    assert shown.returncode == 0, shown
    assert b"cpu" in shown.stdout.lower()
    house.remove("busy")


async def _metrics(house: House, name: str) -> list[dict[str, float]]:
    """Rates need two samples, ten seconds apart."""
    async with asyncio.timeout(BOOT_S):
        while len(recent := house.get(f"/instances/{name}/metrics")["recent"]) < 2:
            await asyncio.sleep(1)
    found: list[dict[str, float]] = recent
    return found


def test_what_runs_is_snapshotted_and_goes_back(house: House) -> None:
    house.launch("web")
    house.said_in("web", "sh", "-c", "echo before > /root/note; sync")
    assert b"Snapshot web/first is taken" in house.inn("snapshot", "create", "web", "first").stdout
    house.said_in("web", "sh", "-c", "echo after > /root/note; sync")
    assert house.inn("rewind", "web", "first").returncode == 0
    house.until("web", "agent")
    assert house.said_in("web", "cat", "/root/note") == "before"
    house.do(house.post("/instances", snapshot="web/first", name="copy"))
    house.until("copy", "agent")
    assert house.said_in("copy", "cat", "/root/note") == "before"
    for name in ("copy", "web"):  # what two deletions at once leave to each other waits for the next repair
        house.remove(name)
    assert_tidy(house)
