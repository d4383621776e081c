"""Does the tiny image hold what it promises, as a machine?"""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.vm.built import built_image
from tests.vm.plain import Setup, booted, overlay, started

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def tiny() -> Path:
    return built_image("tiny")


def test_the_artefacts_are_whole_and_read_only(tiny: Path) -> None:
    said = subprocess.run(
        ["qemu-img", "info", "--output=json", str(tiny / "disk.qcow2")], check=True, capture_output=True
    )
    about = json.loads(said.stdout)
    assert about["format"] == "qcow2"
    assert about["virtual-size"] == 1 << 30
    assert "backing-filename" not in about
    for name in ("disk.qcow2", "vmlinuz", "initrd.img"):
        assert stat.S_IMODE((tiny / name).stat().st_mode) == 0o444


def test_what_is_written_outlives_a_shutdown_and_the_power_button(tiny: Path, tmp_path: Path) -> None:
    setup = Setup(image=tiny, disk=overlay(tiny, tmp_path / "disk"))
    with booted(setup, tmp_path / "first") as machine:
        machine.run("echo kept >/root/note")
        machine.shut_down()
    with booted(setup, tmp_path / "second") as machine:
        assert machine.run("cat /root/note") == "kept\n"
        machine.wait_for("pidof acpid")
        machine.press_power_button()
    with booted(setup, tmp_path / "third") as machine:
        assert machine.run("cat /root/note") == "kept\n"
        assert "damaged" not in machine.console


def test_it_asks_for_its_address_and_name_and_fills_its_disk(tiny: Path, tmp_path: Path) -> None:
    # QEMU names no name server and no gateway to a machine that is kept from them; this one asks neither for anything.
    network = "user,hostname=web1,net=10.9.8.0/24,dns=10.9.8.3"
    setup = Setup(image=tiny, disk=overlay(tiny, tmp_path / "disk", "3G"), network=network)
    with booted(setup, tmp_path / "machine") as machine:
        machine.wait_for("grep -q 10.9.8.3 /etc/resolv.conf")
        assert machine.run("hostname") == "web1\n"
        assert "10.9.8.15/24" in machine.run("ip -4 address show")
        assert "default via 10.9.8.2" in machine.run("ip route")
        machine.wait_for("[ $(df -P / | awk 'END { print $2 }') -gt 2800000 ]")


def test_both_agents_run_and_nobody_can_log_in(tiny: Path, tmp_path: Path) -> None:
    with booted(Setup(image=tiny, disk=overlay(tiny, tmp_path / "disk")), tmp_path / "machine") as machine:
        machine.wait_for("pidof innkeeper-guest >/dev/null")
        machine.wait_for_console("login:")
        assert machine.run("awk -F: '$2 !~ /^[*!]/' /etc/shadow") == ""
        assert machine.run("netstat -lntu | grep -E '^(tcp|udp)' || true") == ""


def test_a_root_that_the_kernel_found_damaged_is_checked(tiny: Path, tmp_path: Path) -> None:
    raw, disk = tmp_path / "raw", tmp_path / "disk"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(tiny / "disk.qcow2"), str(raw)], check=True)
    for field in ("state 3", "error_count 2"):
        subprocess.run(["debugfs", "-w", "-R", f"set_super_value {field}", str(raw)], check=True, capture_output=True)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(disk)], check=True)
    setup = Setup(image=tiny, disk=disk)
    with booted(setup, tmp_path / "first") as machine:
        assert "/dev/vda is damaged (errors seen: 2); checking it" in machine.console
        machine.run("echo written >/root/note")
        machine.shut_down()
    with booted(setup, tmp_path / "second") as machine:
        assert "damaged" not in machine.console


@pytest.mark.slow
def test_without_its_disk_it_stops_and_says_why(tiny: Path, tmp_path: Path) -> None:
    shutil.copy(tiny / "disk.qcow2", tmp_path / "disk")
    setup = Setup(image=tiny, disk=tmp_path / "disk", append="root=/dev/vdz")
    with started(setup, tmp_path / "machine") as machine:
        machine.wait_for_console("Kernel panic")
        assert "initrd: no disk at /dev/vdz within 10 s" in machine.console
