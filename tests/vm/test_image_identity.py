"""Does a tiny machine that runs become who it is told, without waiting for anybody?"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.guest.channel import linked
from tests.vm.built import built_image
from tests.vm.identities import BORN, OWN, clone_seed, identity
from tests.vm.plain import Machine, Setup, booted, overlay

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

LATER_NS = 2_000_000_000 * 10**9  # in 2033


def check(machine: Machine) -> None:
    assert machine.run("hostname; cat /etc/hostname /etc/machine-id") == f"web\nweb\n{1:032x}\n"
    assert machine.run("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu") == f"{OWN}\n1450\n"
    assert "10.9.8.77/24" in machine.run("ip -4 address show eth0")
    assert "default via 10.9.8.2 dev eth0" in machine.run("ip route")


async def test_a_tiny_machine_becomes_another(tmp_path: Path) -> None:
    tiny = built_image("tiny")
    setup = Setup(image=tiny, disk=overlay(tiny, tmp_path / "disk"), network="user,restrict=on,net=10.9.8.0/24")
    with booted(setup, tmp_path / "machine") as machine:
        machine.qmp.ask("set_link", name="net", up=False)
        machine.wait_for("pidof udhcpc && pidof acpid")
        assert BORN in machine.run("cat /sys/class/net/eth0/address")
        async with linked(str(tmp_path / "machine" / "guest")) as link:
            await link.prepare(30)
            # Twice, as when the host lost the answer.
            for _ in range(2):
                await link.introduce(identity(clone_seed(), LATER_NS), 30)
                check(machine)
            status = await link.status()
            assert (status.hostname, status.boot_id) == ("web", "00000001-0000-4000-8000-000000000000")
        assert LATER_NS // 10**9 <= int(machine.run("date +%s")) < LATER_NS // 10**9 + 600
        machine.wait_for("grep -q 10.9.8.4 /run/resolv.conf")
        assert "search inn.internal\nnameserver 10.9.8.3\n" in machine.run("cat /run/resolv.conf")
        machine.wait_for("! pidof udhcpc")
        machine.qmp.ask("set_link", name="net", up=True)
        machine.wait_for("ping -c 1 -W 5 10.9.8.2 >/dev/null")
        # Nothing of DHCP comes after it.
        time.sleep(5)
        check(machine)
        machine.shut_down()
    with booted(setup, tmp_path / "again") as machine:
        assert machine.run("cat /etc/hostname /etc/machine-id") == f"web\n{1:032x}\n"
