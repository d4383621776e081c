"""Does the Debian image hold what it promises, as a machine? Few tests: under emulation each boot takes a minute."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pycdlib
import pytest

from tests.vm.built import built_image
from tests.vm.plain import Machine, Setup, booted, overlay

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(1800)]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIDmZtB4AyJ3iCfGJY1VNqO5yCfqJsgVd4mJQAF7DaTA me@desk"
SEED = {
    "meta-data": "instance-id: i-1\nlocal-hostname: web\n",
    "network-config": """\
version: 2
ethernets:
  first:
    match: {macaddress: "52:54:00:12:34:56"}
    set-name: inn0
    addresses: [10.9.8.77/24]
    routes: [{to: 0.0.0.0/0, via: 10.9.8.2}]
    nameservers: {addresses: [10.9.8.3]}
""",
    "user-data": f"""\
#cloud-config
ssh_authorized_keys: ["{KEY}"]
users:
  - default
  - name: alice
    sudo: "ALL=(ALL) NOPASSWD:ALL"
    shell: /bin/bash
write_files:
  - path: /etc/innkeeper-test
    content: written
    permissions: '0640'
bootcmd:
  - echo early >/run/bootcmd
runcmd:
  - [sh, -c, "id -un >/root/ran"]
""",
}


@pytest.fixture(scope="module")
def debian() -> Path:
    return built_image("debian-12")


@pytest.fixture(scope="module")
def inside(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Asks debugfs about the file system that instances start from."""
    raw = tmp_path_factory.mktemp("inside") / "raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(debian / "disk.qcow2"), str(raw)], check=True)

    def ask(request: str) -> str:
        said = subprocess.run(["debugfs", "-R", request, str(raw)], check=True, capture_output=True, text=True)
        return said.stdout + said.stderr.split("\n", 1)[1]

    return ask


def test_nothing_in_it_is_one_machines_own(inside: Callable[[str], str]) -> None:
    assert inside("cat /etc/machine-id") == ""
    assert "File not found" in inside("stat /var/lib/systemd/random-seed")
    assert "File not found" in inside("stat /etc/ssh/ssh_host_ed25519_key")
    assert "File not found" in inside("stat /var/lib/cloud/instance")
    assert "File not found" in inside("stat /etc/hostname")
    assert "root:*:" in inside("cat /etc/shadow")


def test_it_knows_the_public_mirror_only(inside: Callable[[str], str]) -> None:
    assert "File not found" in inside("stat /etc/apt/sources.list")
    assert "File not found" in inside("stat /etc/apt/apt.conf.d/99mmdebstrap")
    assert "File not found" in inside("stat /etc/dpkg/dpkg.cfg.d/99mmdebstrap")
    for directory, entries in (("/etc/apt/sources.list.d", ["debian.sources"]), ("/var/lib/apt/lists", [])):
        rows = [line for line in inside(f"ls -p {directory}").splitlines() if line.startswith("/")]
        assert sorted(row.split("/")[5] for row in rows) == [".", "..", *entries]


def test_it_can_be_shut_down_as_soon_as_it_answers(debian: Path, tmp_path: Path) -> None:
    setup = Setup(image=debian, disk=overlay(debian, tmp_path / "disk"), memory_mib=512)
    with booted(setup, tmp_path / "machine") as machine:
        assert machine.run("findmnt --noheadings --output FSTYPE,OPTIONS /").split()[1].startswith("rw,")
        machine.shut_down()


def test_user_data_works_and_the_power_button_too(debian: Path, tmp_path: Path) -> None:
    setup = Setup(
        image=debian,
        disk=overlay(debian, tmp_path / "disk", "4G"),
        memory_mib=512,
        network="user,restrict=on,net=10.9.8.0/24",
        seed=write_seed(tmp_path / "seed.iso"),
    )
    with booted(setup, tmp_path / "first") as machine:
        machine.wait_for("[ -e /run/cloud-init/result.json ]", patience_s=900)
        result = json.loads(machine.run("cat /run/cloud-init/result.json"))
        assert result["v1"]["errors"] == []
        assert "NoCloud" in result["v1"]["datasource"]
        check(machine)
        machine.press_power_button()


def check(machine: Machine) -> None:
    """What the seed asked for, and what the image promises besides."""
    assert machine.run("cat /root/ran /run/bootcmd /etc/innkeeper-test") == "root\nearly\nwritten"
    assert machine.run("stat -c %a /etc/innkeeper-test") == "640\n"
    assert KEY in machine.run("cat ~debian/.ssh/authorized_keys")
    assert machine.run("passwd --status debian").split()[1] == "L"
    assert machine.run("su - debian -c 'sudo -n id -un'; su - alice -c 'sudo -n id -un'") == "root\nroot\n"
    assert machine.run("hostname") == "web\n"
    assert "10.9.8.77/24" in machine.run("ip -4 address show inn0")
    assert "10.9.8.3" in machine.run("resolvectl dns inn0")
    assert machine.run("ls /etc/ssh/ssh_host_*_key") == "/etc/ssh/ssh_host_ed25519_key\n"
    assert int(machine.run("df --output=size -k / | tail -n 1")) > 3_700_000
    assert len(machine.run("cat /etc/machine-id").strip()) == 32
    assert machine.run("systemctl --failed --no-legend") == ""
    machine.run("systemctl --quiet is-active innkeeper-guest qemu-guest-agent ssh serial-getty@ttyS0")


def write_seed(path: Path) -> Path:
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=4, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for name, text in SEED.items():
        content = text.encode()
        plain = f"/{name.upper().replace('-', '_')}.;1"
        iso.add_fp(io.BytesIO(content), len(content), plain, rr_name=name, joliet_path=f"/{name}")
    iso.write(str(path))
    iso.close()
    return path
