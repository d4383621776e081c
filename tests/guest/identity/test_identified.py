"""The real program forgets who it is, and becomes who it is told, in namespaces of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from innkeeper.drivers.guestlink.frames import Feature
from innkeeper.drivers.guestlink.hand import GuestLink
from innkeeper.ports.streams import CloudInit
from tests.guest.channel import PATIENCE_S, Channel, children, linked, run, until
from tests.guest.identity.place import Place, inside
from tests.guest.identity.samples import FIRST, KEY, PUBLIC, WEB

pytestmark = [pytest.mark.net, pytest.mark.timeout(300)]

HOOK = """\
#!/bin/sh
{ echo "where=$INNKEEPER_IDENTITY host=$(hostname) input=$(cat)"; cat "$INNKEEPER_IDENTITY"; } >/tmp/hook.new
mv /tmp/hook.new /tmp/hook
"""
TOLD = """\
where=/run/innkeeper/identity host=web input=
instance=i-3f09c2d41b7a
hostname=web
domain=inn.internal
host_key=1
cloud_init=0
card=eth0
mac=52:54:00:ab:cd:01
address=10.1.2.3/20
address=fd00::5/64
gateway=10.1.0.1
dns=10.1.0.1
dns=10.1.0.2
mtu=1450
card=card1
mac=52:54:00:ab:cd:02
address=10.2.0.5/24
gateway=10.2.0.1
"""


def ip(pid: int, *arguments: str) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = json.loads(inside(pid, "ip", "-json", *arguments))
    return said


def addresses(pid: int, device: str) -> set[str]:
    (link,) = ip(pid, "address", "show", "dev", device)
    found = [address for address in link["addr_info"] if address["scope"] != "link"]
    return {f"{address['local']}/{address['prefixlen']}" for address in found}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_it_is_all_that_it_was_told(link: GuestLink, baked: Channel, apart: Place) -> None:
    apart.write("/usr/lib/innkeeper/identified", HOOK, 0o755)
    apart.write("/var/lib/dbus/machine-id", "f" * 32 + "\n")
    before = time.time()
    await link.introduce(WEB, PATIENCE_S)
    assert before <= time.time() < before + PATIENCE_S  # this machine's clock is not the program's to set
    check_files(apart)
    check_network(baked.pid)
    assert apart.text("/var/lib/dbus/machine-id") == WEB.machine_id + "\n"
    assert inside(baked.pid, "hostname") == "web\n"
    status = await link.status()
    assert (status.hostname, status.boot_id) == ("web", WEB.boot_id)
    await until((apart.root / "tmp" / "hook").exists)
    assert apart.text("/tmp/hook") == TOLD
    assert children(baked.pid) == []


def check_files(apart: Place) -> None:
    key = apart.root / "etc/ssh/ssh_host_ed25519_key"
    assert (key.read_text(), mode(key), key.stat().st_uid) == (KEY, 0o600, 0)
    assert apart.text("/etc/ssh/ssh_host_ed25519_key.pub") == PUBLIC + "\n"
    assert apart.text("/etc/hostname") == "web\n"
    assert apart.text("/etc/machine-id") == WEB.machine_id + "\n"
    assert not list(apart.root.rglob("*.innkeeper"))
    assert "c2VjcmV0" not in apart.text("/run/innkeeper/identity")


def check_network(pid: int) -> None:
    (eth0,) = ip(pid, "link", "show", "dev", "eth0")
    assert (eth0["address"], eth0["mtu"], "UP" in eth0["flags"]) == ("52:54:00:ab:cd:01", 1450, True)
    assert addresses(pid, "eth0") == {"10.1.2.3/20", "fd00::5/64"}
    assert addresses(pid, "card1") == {"10.2.0.5/24"}
    # The first card's gateway is the way out.
    (route,) = ip(pid, "-4", "route", "show", "default")
    assert (route["gateway"], route["dev"], route["protocol"]) == ("10.1.0.1", "eth0", "static")
    assert inside(pid, "cat", "/proc/sys/net/ipv4/conf/eth0/arp_notify") == "1\n"
    (v4,) = [entry for entry in ip(pid, "address", "show", "dev", "eth0")[0]["addr_info"] if entry["family"] == "inet"]
    assert v4["broadcast"] == "10.1.15.255"


async def test_it_may_come_twice_and_change_its_mind(link: GuestLink, baked: Channel, apart: Place) -> None:
    await link.introduce(WEB, PATIENCE_S)
    await link.introduce(WEB, PATIENCE_S)
    check_files(apart)
    check_network(baked.pid)
    moved = dataclasses.replace(
        FIRST, from_mac=FIRST.mac, mac="52:54:00:ab:cd:99", name="lan0", addresses=("10.1.2.9/24",), gateway="10.1.2.1"
    )
    other = dataclasses.replace(WEB, hostname="db", cards=(moved,), boot_id="11111111-2222-3333-4444-555555555555")
    await link.introduce(other, PATIENCE_S)
    assert addresses(baked.pid, "lan0") == {"10.1.2.9/24"}
    (route,) = ip(baked.pid, "-4", "route", "show", "default")
    assert (route["gateway"], route["dev"]) == ("10.1.2.1", "lan0")
    assert ((await link.status()).boot_id, inside(baked.pid, "hostname")) == (other.boot_id, "db\n")
    mounts = (await run(link, "cat", "/proc/self/mounts")).out.decode()
    assert mounts.count("/random/boot_id ") == 1


async def test_it_keeps_nothing_of_whom_it_forgets(link: GuestLink, apart: Place) -> None:
    await link.introduce(WEB, PATIENCE_S)
    own = ["/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_rsa_key.pub", "/var/lib/systemd/random-seed"]
    own += [
        "/var/lib/dbus/machine-id",
        "/run/systemd/netif/leases/2",
        "/etc/cloud/cloud.cfg.d/95-innkeeper-identity.cfg",
    ]
    for path in own:
        apart.write(path, "whose")
    kept = ["/etc/ssh/sshd_config", "/etc/ssh/ssh_config", "/etc/cloud/cloud.cfg"]
    for path in kept:
        apart.write(path, "everybody's")
    for _ in range(2):
        await link.prepare(PATIENCE_S)
        assert sorted(entry.name for entry in (apart.root / "etc/ssh").iterdir()) == ["ssh_config", "sshd_config"]
        assert [path for path in own if (apart.root / path.lstrip("/")).exists()] == []
        assert [apart.text(path) for path in kept] == ["everybody's"] * 3
        assert apart.text("/etc/machine-id") == ""
        assert not (apart.root / "etc/hostname").exists()
        assert not (apart.root / "run/innkeeper/identity").exists()
    await link.introduce(WEB, PATIENCE_S)
    assert apart.text("/etc/machine-id") == WEB.machine_id + "\n"


async def test_cloud_init_counts_as_running_from_the_answer_on(link: GuestLink, apart: Place) -> None:
    marks = [f"/run/cloud-init/{name}" for name in ("result.json", "status.json", ".instance-id", "enabled")]
    for path in marks:
        apart.write(path, "{}")
    await link.introduce(WEB, PATIENCE_S)
    assert (await link.status()).cloud_init is CloudInit.DONE
    await link.introduce(dataclasses.replace(WEB, cloud_init=True), PATIENCE_S)
    assert (await link.status()).cloud_init is CloudInit.RUNNING
    assert [path for path in marks if (apart.root / path.lstrip("/")).exists()] == ["/run/cloud-init/enabled"]


async def test_keys_of_a_parent_do_not_stay(link: GuestLink, apart: Place) -> None:
    for kind in ("rsa", "ecdsa", "ed25519", "ed25519-sk"):
        apart.write(f"/etc/ssh/ssh_host_{kind}_key", "parent's", 0o600)
        apart.write(f"/etc/ssh/ssh_host_{kind}_key.pub", "parent's")
    await link.introduce(WEB, PATIENCE_S)
    names = sorted(entry.name for entry in (apart.root / "etc/ssh").iterdir())
    assert names == ["ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"]
    check_files(apart)


async def test_addresses_that_nobody_asked_for_go(link: GuestLink, baked: Channel) -> None:
    for words in ("link set card0 up", "address add 10.1.2.3/8 dev card0", "address add 192.0.2.9/24 dev card0"):
        inside(baked.pid, "ip", *words.split())
    inside(baked.pid, "ip", "route", "add", "default", "via", "192.0.2.1")
    await link.introduce(WEB, PATIENCE_S)
    check_network(baked.pid)


async def test_its_addresses_are_announced_once_the_cable_is_in(link: GuestLink, baked: Channel) -> None:
    await link.introduce(WEB, PATIENCE_S)
    heard = subprocess.Popen(
        ["nsenter", "--target", str(baked.pid), "--net", "--", sys.executable, "-c", LISTEN],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert heard.stdout is not None
    try:
        assert await asyncio.to_thread(heard.stdout.readline) == "listening\n"
        inside(baked.pid, "ip", "link", "set", "cable0", "up")
        async with asyncio.timeout(PATIENCE_S):
            said = await asyncio.to_thread(heard.stdout.readline)
    finally:
        heard.kill()
        heard.communicate()
    mine = "0a010203"
    assert said == f"ffffffffffff525400abcd010806 0001 525400abcd01{mine} {mine}\n"


# Prints the first ARP frame that comes out of the cable.
LISTEN = """\
import socket
line = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
line.bind(("cable0", 0x0806))
print("listening", flush=True)
frame = b""
while not frame:
    try:
        frame = line.recv(100)
    except OSError:
        pass  # told once that the cable is not in yet
print(frame[:14].hex(), frame[20:22].hex(), frame[22:32].hex(), frame[38:42].hex(), flush=True)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed; it shows what the kernel is asked")
async def test_the_random_pool_comes_first_and_is_made_to_listen(
    link: GuestLink, baked: Channel, tmp_path: Path
) -> None:
    record = tmp_path / "calls"
    only = "trace=ioctl,clock_settime,settimeofday,sethostname,rename,sendto"
    tracer = subprocess.Popen(["strace", "-q", "-e", only, "-o", str(record), "-p", str(baked.pid)])
    try:
        await until(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{baked.pid}/status").read_text())
        await link.introduce(WEB, PATIENCE_S)
    finally:
        tracer.terminate()
        tracer.wait(PATIENCE_S)
    calls = [line for line in record.read_text().splitlines() if "SIG" not in line and not line.startswith("+++")]
    assert "RNDADDENTROPY" in calls[0]
    assert calls[0].endswith("= 0")
    assert "RNDRESEEDCRNG" in calls[1]
    assert calls[1].endswith("= 0")
    assert not [call for call in calls if call.startswith(("clock_settime", "settimeofday"))]
    named = [at for at, call in enumerate(calls) if call.startswith("sethostname")]
    assert len(named) == 1
    # Once it is named it asks for its own addresses, to announce them; sometimes the tracer hears of that too.
    told = [at for at, call in enumerate(calls) if call.startswith(("rename", "sendto")) and "RTM_GET" not in call]
    assert named[0] > max(told)


async def test_who_serves_a_test_offers_nothing_of_the_kind(plain: str, socket_path: str) -> None:
    """So that no test of anything else can change who this machine is."""
    async with Channel.running(plain, socket_path) as channel, linked(channel.path) as connected:
        assert Feature.IDENTITY not in (await connected.hello(PATIENCE_S)).features


def test_this_machine_was_left_alone() -> None:
    assert socket.gethostname() not in ("web", "db", "baked")
    assert not os.path.exists("/run/innkeeper/identity")
