"""Does a Debian that runs become who it is told, and is it still the same after its next boot?"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from innkeeper.drivers.guestlink.hand import GuestLink
from innkeeper.model.ids import InstanceId
from innkeeper.ports.streams import CloudInit
from tests.guest.channel import linked
from tests.vm.built import built_image
from tests.vm.identities import BAKER, KEY, OWN, clone_seed, identity, write_seed
from tests.vm.plain import Machine, Setup, booted, overlay

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(2400)]

SETTLED_S = 900
USER_DATA = b"#cloud-config\nruncmd:\n- [sh, -c, 'echo ran >>/root/ran']\n"
KEEP = "/etc/cloud/cloud.cfg.d/95-innkeeper-identity.cfg"
HOOK = """\
mkdir -p /etc/innkeeper/identity.d
printf '#!/bin/sh\\nhostname >/root/hooked\\n' >/etc/innkeeper/identity.d/own
chmod +x /etc/innkeeper/identity.d/own
"""


async def cloud_init_ended(link: GuestLink) -> CloudInit:
    deadline = time.monotonic() + SETTLED_S
    while (said := (await link.status(30)).cloud_init) is CloudInit.RUNNING:
        assert time.monotonic() < deadline, "cloud-init goes on and on"
        time.sleep(1)
    return said


def is_web(machine: Machine, public: str) -> None:
    assert machine.run("hostname; cat /etc/hostname /etc/machine-id") == f"web\nweb\n{1:032x}\n"
    assert machine.run("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu") == f"{OWN}\n1450\n"
    assert "10.9.8.77/24" in machine.run("ip -4 address show eth0")
    assert "default via 10.9.8.2 dev eth0 proto static" in machine.run("ip route")
    assert machine.run("ls /etc/ssh/ssh_host_*_key") == "/etc/ssh/ssh_host_ed25519_key\n"
    assert machine.run("stat -c %a:%U /etc/ssh/ssh_host_ed25519_key") == "600:root\n"
    assert public.split()[1] in machine.run("ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null")


@pytest.mark.parametrize("at_once", [True, False], ids=["cloud-init at once", "cloud-init at its next boot"])
async def test_a_debian_becomes_another_and_stays_it(tmp_path: Path, at_once: bool) -> None:
    debian = built_image("debian-12")
    setup = Setup(
        image=debian,
        disk=overlay(debian, tmp_path / "disk", "4G"),
        memory_mib=512,
        network="user,restrict=on,net=10.9.8.0/24",
        seed=write_seed(tmp_path / "seed.iso", BAKER),
    )
    own = identity(clone_seed(), time.time_ns(), cloud_init=at_once)
    assert own.host_key_public is not None
    with booted(setup, tmp_path / "baked") as machine:
        machine.qmp.ask("set_link", name="net", up=False)
        async with linked(str(tmp_path / "baked" / "guest")) as link:
            assert await cloud_init_ended(link) is CloudInit.DONE
            machine.wait_for("systemctl --quiet is-active ssh multi-user.target")
            machine.run(HOOK)
            # Without a card in its seed nothing waited for one.
            assert machine.run(
                "systemctl --failed --no-legend; systemctl is-active systemd-networkd-wait-online || :"
            ) == ("inactive\n")
            await link.prepare(60)
            assert machine.run("ls /etc/ssh/ssh_host_* 2>/dev/null | wc -l; cat /etc/machine-id") == "0\n"
            write_seed(tmp_path / "seed.iso", clone_seed(), USER_DATA)
            await link.introduce(dataclasses.replace(own, time_ns=time.time_ns()), 60)
            status = await link.status(30)
            assert (status.hostname, status.boot_id) == ("web", own.boot_id)
            assert status.cloud_init is (CloudInit.RUNNING if at_once else CloudInit.DONE)
            is_web(machine, own.host_key_public)
            machine.qmp.ask("set_link", name="net", up=True)
            machine.wait_for("[ -e /root/hooked ]")
            ours = machine.run("cat /etc/systemd/network/10-cloud-init-eth0.network")
            machine.wait_for("resolvectl dns eth0 | grep -q '10.9.8.3 10.9.8.4'")
            machine.wait_for("ping -c 1 -W 5 10.9.8.2 >/dev/null")
            is_web(machine, own.host_key_public)
            if at_once:
                assert await cloud_init_ended(link) is CloudInit.DONE
                done_by_cloud_init(machine, ours)
                is_web(machine, own.host_key_public)
        machine.wait_for("journalctl --quiet --lines 1 | grep -q .")
        assert machine.run("systemctl --failed --no-legend") == ""
        machine.shut_down()
    setup = dataclasses.replace(setup, mac=OWN)
    with booted(setup, tmp_path / "again") as machine:
        async with linked(str(tmp_path / "again" / "guest")) as link:
            assert await cloud_init_ended(link) is CloudInit.DONE
        done_by_cloud_init(machine, ours)
        is_web(machine, own.host_key_public)
        assert own.boot_id not in machine.run("cat /proc/sys/kernel/random/boot_id")
        machine.shut_down()
    if at_once:
        return
    # A copy of its disk is another instance, and must not keep its key.
    write_seed(tmp_path / "seed.iso", dataclasses.replace(clone_seed(), instance=InstanceId("i-000000000c0b")))
    with booted(setup, tmp_path / "copy") as machine:
        async with linked(str(tmp_path / "copy" / "guest")) as link:
            assert await cloud_init_ended(link) is CloudInit.DONE
        assert machine.run(f"[ ! -e {KEEP} ]; ls /etc/ssh/ssh_host_*_key") == "/etc/ssh/ssh_host_ed25519_key\n"
        assert own.host_key_public.split()[1] not in machine.run("cat /etc/ssh/ssh_host_ed25519_key.pub")


def done_by_cloud_init(machine: Machine, ours: str) -> None:
    """Once, and its network is what we had written before it."""
    assert machine.run("cat /var/lib/cloud/data/instance-id") == f"{clone_seed().instance}\n"
    machine.wait_for("[ -e /root/ran ]")
    assert machine.run("cat /root/ran") == "ran\n"
    assert KEY in machine.run("cat ~debian/.ssh/authorized_keys")
    assert machine.run("cat /etc/systemd/network/10-cloud-init-eth0.network") == ours
    assert machine.run("ls /etc/systemd/network") == "10-cloud-init-eth0.network\n"
