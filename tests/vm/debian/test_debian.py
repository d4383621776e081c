"""A whole Debian, launched by the daemon: what its owner wished by cloud-init, what its host gives it, and its end."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.built import built_image
from tests.vm.installation.house import House, installation
from tests.vm.installation.process import INN
from tests.vm.installation.template import put_template
from tests.vm.installation.traces import assert_tidy

BOOT_S = 900  # 20 on a quiet machine without KVM, and cloud-init takes as long again
USER_DATA = """#cloud-config
users:
- default
- {name: keeper, shell: /bin/sh, groups: [adm]}
write_files:
- path: /etc/inn-test
  content: "größer\\n"
  permissions: "0640"
bootcmd:
- |
  set -e
  mkdir -p /srv/inn/greeting/DEBIAN /srv/inn/greeting/usr/bin
  cd /srv/inn
  printf '%s\\n' 'Package: greeting' 'Version: 1.0' 'Architecture: all' 'Maintainer: Inn <inn@example.org>' \\
    'Description: says hello' > greeting/DEBIAN/control
  printf '%s\\n' '#!/bin/sh' 'echo hello' > greeting/usr/bin/greeting
  chmod 755 greeting/usr/bin/greeting
  dpkg-deb --build --root-owner-group greeting greeting.deb
  # The words of dpkg-scanpackages, which no small Debian has.
  { cat greeting/DEBIAN/control; echo "Filename: ./greeting.deb"; echo "Size: $(stat -c %s greeting.deb)"
    echo "SHA256: $(sha256sum greeting.deb | cut -d' ' -f1)"; } > Packages
  rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
  echo "deb [trusted=yes] file:/srv/inn ./" > /etc/apt/sources.list.d/inn.list
apt: {preserve_sources_list: true}
package_update: true
packages: [greeting]
runcmd:
- [sh, -c, "echo ran > /root/ran"]
"""

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.timeout(BOOT_S + 900),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: users, namespaces and taps"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
    pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed"),
]


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with installation("debian") as made:
        for recipe in ("debian-12", "tiny"):
            asyncio.run(put_template(made.place, recipe, built_image(recipe)))
        made.start()
        yield made


def _files(house: House) -> tuple[Path, Path]:
    user_data, key = house.place.data / "user-data.yaml", house.place.data / "key"
    user_data.write_text(USER_DATA)
    subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key), check=True)
    return user_data, key.with_suffix(".pub")


def test_a_debian_is_what_its_owner_wished(house: House) -> None:
    user_data, key = _files(house)
    wishes = ("--user-data", str(user_data), "--ssh-key", str(key), "--cpus", "2", "--disk", "5GiB")
    launched = house.inn("launch", "debian-12", "web", *wishes)
    assert launched.returncode == 0, launched
    house.launch("near")
    house.until("web", "agent")
    assert house.said_in("web", "hostname") == "web"  # long before cloud-init comes to that
    waited = house.inn("wait", "web", "--for", "cloud-init", "--timeout", f"{BOOT_S}s", timeout_s=BOOT_S + 60)
    assert waited.returncode == 0, (waited, house.inn("logs", "web").stdout[-3000:])
    shown = house.until("web", "agent")
    assert (shown["status"], shown["cloud_init"], shown["reason"]) == ("running", "done", "")
    _as_wished(house)
    assert house.said_in("web", "cat", "/home/debian/.ssh/authorized_keys") == key.read_text().strip()
    assert _logged_in(house, key.with_suffix("")) == b"debian"
    _as_given(house, shown)
    uptime = house.inn("exec", "web", "--user", "keeper", "--", "id", "-un")
    assert uptime.stdout.strip() == b"keeper"
    own = _identity(house, "web")
    house.power("web", "stop", grace_s=300)
    stopped = house.show("web")
    assert (stopped["status"], stopped["reason"]) == ("stopped", "")
    assert "did not" not in house.inn("logs", "web").stdout.decode(errors="replace")[-200:]
    house.do(house.post("/templates/publish", instance="web", name="golden"))
    house.launch("twin", "golden")
    assert house.until("twin", "cloud-init")["template"] == "golden:1"
    assert _identity(house, "twin").isdisjoint(own)
    house.remove("web", "near", "twin")
    assert_tidy(house)


def _identity(house: House, name: str) -> set[str]:
    """What no two machines share, also when one was made from the other's disk."""
    key = house.said_in(name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
    return {key.split()[1], house.said_in(name, "cat", "/etc/machine-id"), house.said_in(name, "hostname")}


def _as_wished(house: House) -> None:
    said = {
        ("id", "-Gn", "keeper"): "keeper adm",
        ("cat", "/etc/inn-test"): "größer",
        ("stat", "-c", "%a", "/etc/inn-test"): "640",
        ("cat", "/root/ran"): "ran",
        ("greeting",): "hello",  # of a package, from a mirror in the guest: there may be no other to be reached
        ("dpkg-query", "--show", "--showformat=${db:Status-Status}", "greeting"): "installed",
        ("hostname",): "web",
        ("nproc",): "2",
        ("cloud-init", "status"): "status: done",
    }
    assert {command: house.said_in("web", *command) for command in said} == said
    root_gib = int(house.said_in("web", "df", "--block-size=1M", "--output=size", "/").split()[-1]) / 1024
    assert 4.5 < root_gib <= 5


def _logged_in(house: House, key: Path) -> bytes:
    """As docs/guide/first-machine.md says: by SSH, over our own channel."""
    proxy = shlex.join((*INN, "exec", "web", "--", "busybox", "nc", "127.0.0.1", "22"))
    settings = (f"ProxyCommand={proxy}", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes")
    options = [word for setting in (*settings, "IdentitiesOnly=yes") for word in ("-o", setting)]
    words = ("ssh", *options, "-i", str(key), "debian@web", "id", "-un")
    said = subprocess.run(words, env=house.environment(), capture_output=True, timeout=BOOT_S)
    assert said.returncode == 0, said
    return said.stdout.strip()


def _as_given(house: House, shown: dict[str, object]) -> None:
    """Its own identity and address, and its neighbour by name in both directions."""
    addresses = house.said_in("web", "hostname", "-I").split()
    assert addresses == shown["addresses"]
    assert len(house.said_in("web", "cat", "/etc/machine-id")) == 32
    assert house.said_in("web", "sh", "-c", "ls /etc/ssh/ssh_host_*_key | wc -l") >= "1"
    near = house.show("near")["addresses"][0]
    assert house.said_in("web", "getent", "hosts", "near.inn.internal").split()[0] == near
    assert house.said_in("web", "getent", "hosts", "near").split()[0] == near
    assert addresses[0] in house.said_in("near", "nslookup", "web.inn.internal")
    assert house.inn("exec", "web", "--", "ping", "-c", "1", "-W", "20", near).returncode == 0
