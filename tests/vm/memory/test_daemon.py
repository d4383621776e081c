"""Launches that go on from a memory image, under a daemon: each is somebody of its own, and stays that."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from innkeeper.drivers.memory.places import MEMORY
from tests.vm.installation.house import House, Problem
from tests.vm.installation.traces import assert_tidy

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

WHO = "hostname; cat /sys/class/net/eth0/address; ip -4 -o addr show eth0; cat /proc/sys/kernel/random/boot_id"


def test_clones_are_somebody_of_their_own(house: House) -> None:
    names = [f"c{n}" for n in range(1, 6)]
    house.do(house.post("/instances", template="tiny", name="c{n}", count=5))
    told = {}
    for name in names:
        row = house.until(name, "agent")
        assert row["warm"] is True
        assert row["cold"] == ""
        hostname, mac, address, boot_id = house.said_in(name, "sh", "-c", WHO).splitlines()
        assert hostname == name
        assert mac == row["nics"][0]["mac"]
        assert f" {row['nics'][0]['addresses'][0]}/" in address
        told[name] = boot_id
    assert len(set(told.values())) == len(names)
    house.remove(*names)
    assert_tidy(house)


def test_they_never_draw_the_same_random_bytes(house: House) -> None:
    names = [f"r{n}" for n in range(1, 5)]
    house.do(house.post("/instances", template="tiny", name="r{n}", count=4))
    drawn = []
    for name in names:
        house.until(name, "agent")
        said = house.said_in(name, "sh", "-c", "od -An -N32 -tx1 /dev/urandom; cat /proc/sys/kernel/random/uuid")
        drawn += [line for line in said.splitlines() if line.strip()]
    assert len(set(drawn)) == len(drawn)
    house.remove(*names)


def test_their_network_leads_out_and_to_each_other(house: House) -> None:
    for name in ("left", "right"):
        house.launch(name)
    address = house.show("right")["nics"][0]["addresses"][0]
    house.said_in("left", "ping", "-c", "1", "-W", "10", address)
    assert "right" in house.said_in(
        "left", "sh", "-c", "for i in 1 2 3 4 5 6; do nslookup right && break; sleep 1; done"
    )
    house.remove("left", "right")


def test_one_stays_itself_over_reboot_stop_and_start(house: House) -> None:
    house.launch("stays")
    before = house.show("stays")
    house.said_in("stays", "sh", "-c", "echo mine > /root/note; sync")
    boot = house.said_in("stays", "cat", "/proc/sys/kernel/random/boot_id")
    house.inn("exec", "stays", "--", "reboot")
    until = time.monotonic() + 120
    while True:
        went = house.inn("exec", "stays", "--", "cat", "/proc/sys/kernel/random/boot_id")
        if went.returncode == 0 and went.stdout.decode().strip() != boot:
            break
        assert time.monotonic() < until, went
        time.sleep(0.5)
    assert house.said_in("stays", "cat", "/root/note") == "mine"
    house.power("stays", "stop", grace_s=60)
    house.power("stays", "start")
    after = house.until("stays", "agent")
    assert after["warm"] is False
    assert after["nics"] == before["nics"]
    assert house.said_in("stays", "cat", "/root/note") == "mine"
    assert house.said_in("stays", "cat", "/sys/class/net/eth0/address") == before["nics"][0]["mac"]
    house.remove("stays")
    assert_tidy(house)


def test_what_does_not_fit_or_is_not_wanted_boots_and_says_why(house: House) -> None:
    house.launch("cold", cold=True)
    assert house.show("cold")["cold"] == "as it was asked for"
    house.launch("big", memory_mib=256)
    assert house.show("big")["cold"] == "the memory image has 128 MiB of memory, not 256"
    assert house.show("big")["warm"] is False
    house.remove("cold", "big")


def test_clones_outlive_the_daemon_and_share_with_those_after_it(house: House) -> None:
    house.launch("older")
    house.kill()
    house.start()
    assert house.show("older")["warm"] is True
    assert house.said_in("older", "hostname") == "older"
    house.launch("newer")
    assert _memory_of(house, "older") == _memory_of(house, "newer")
    house.remove("older", "newer")


def _memory_of(house: House, name: str) -> set[int]:
    """The inode of the memory that it has copies of."""
    links = Path(f"/proc/{house.pid(name)}/fd").iterdir()
    return {link.stat().st_ino for link in links if os.readlink(link).startswith("/memfd:innkeeper-mem")}


def test_one_that_was_not_told_who_it_is_is_never_met(house: House) -> None:
    """Killed in the middle of a launch, the daemon ends what has no name yet; the launch ends as a boot."""
    house.do(house.post("/instances", template="tiny", name="half", start=False))
    instance = house.show("half")["id"]
    house.remove("half")
    asked = house.post("/instances", template="tiny", name="half")
    began = house.place.data / "machines" / asked["subjects"][0] / "began.json"
    until = time.monotonic() + 60
    while not began.exists() and time.monotonic() < until:
        time.sleep(0.002)
    house.kill()
    house.start()
    house.ended(house.get(f"/operations/{asked['id']}"))
    house.until("half", "agent")
    assert house.said_in("half", "hostname") == "half"
    assert instance != asked["subjects"][0]
    house.remove("half")
    assert_tidy(house)


def test_a_damaged_image_is_told_and_what_wants_it_boots(house: House) -> None:
    image = house.get("/templates/tiny")["memory_images"][0]["id"]
    (file,) = house.place.data.glob(f"pool/**/{image}/{MEMORY}")
    house.kill()
    file.chmod(0o600)
    with file.open("r+b") as damaged:
        damaged.seek(file.stat().st_size // 2)
        damaged.write(b"damage")
    house.start()
    house.launch("cautious")
    shown = house.show("cautious")
    assert shown["warm"] is False
    assert "is damaged" in shown["cold"]
    house.remove("cautious")
    house.do(house.delete("/templates/tiny/memory"))
    with pytest.raises(Problem, match="has no memory image"):
        house.delete("/templates/tiny/memory")
    assert_tidy(house)
    house.do(house.post("/templates/tiny/warm"))
    assert house.get("/templates/tiny")["memory_images"][0]["status"] == "ready"


def test_killed_while_it_is_baked_nothing_is_left_and_it_is_made_after_all(house: House) -> None:
    house.do(house.delete("/templates/tiny/memory"))
    asked = house.post("/templates/tiny/warm")
    time.sleep(2.0)
    os.kill(house.daemon.pid, signal.SIGKILL)
    house.kill()
    house.start()
    assert house.ended(house.get(f"/operations/{asked['id']}"))["state"] == "succeeded"
    assert len(list((house.place.data / "pool" / "memories" / "images").iterdir())) == 1
    assert_tidy(house)


def test_a_template_goes_with_its_memory_image(house: House) -> None:
    house.do(house.delete("/templates/tiny"))
    assert not list(house.place.data.glob("pool/**/mem-*"))
    assert_tidy(house)
