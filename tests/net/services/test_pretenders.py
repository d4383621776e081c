"""Any user may run a program with any argument, in any namespace of his own. None of that makes it our service.

Most of this asks `Places`, not the whole driver: should a test fail, no rules are flushed where it must not be.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.drivers.linuxnet.dnsmasq import Service
from innkeeper.drivers.linuxnet.kernel import namespaces
from innkeeper.drivers.linuxnet.kernel.nft import NftProcess
from innkeeper.drivers.linuxnet.places import Places
from tests.net.look import LAN, WEB, inside, services, standing, works
from tests.net.world import World, wanted

pytestmark = pytest.mark.net

STRANGER = 790_003
APART = ("unshare", "--user", "--map-root-user", "--net")
SERVES_NOBODY = "no-daemon\nport=0\nno-resolv\nno-hosts\npid-file\n"


def folder(world: World) -> Path:
    return world.settings().state_dir / "networks" / LAN.id


def told(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")


@contextlib.contextmanager
def running(argument: str, *argv: str, user: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose first argument is this, once it is so. It is held up in writing to a pipe that nobody reads."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writes, bytes(4096))
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writes, b"\0")
    os.set_blocking(writes, True)
    process = subprocess.Popen(
        [*argv, argument], stdout=writes, stderr=subprocess.DEVNULL, user=user, group=user, extra_groups=[]
    )
    try:
        deadline = time.monotonic() + 10
        while told(process.pid)[1:2] != [argument]:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()
        os.close(reads)
        os.close(writes)


@contextlib.contextmanager
def taken(world: World) -> Iterator[int]:
    """The namespace that our name leads to, by its inode."""
    nft = NftProcess()
    places = Places(world.settings(), nft)
    try:
        yield places.make(LAN.id).space.inode
    finally:
        places.erase(LAN.id)
        places.close()
        nft.close()


def space_of(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/net").st_ino


@pytest.mark.parametrize("apart", [(), APART], ids=["in the host's namespace", "in one of his own"])
def test_a_user_does_not_choose_the_namespace(world: World, apart: tuple[str, ...]) -> None:
    with running(f"--conf-file={folder(world)}/x", *apart, "/bin/echo", user=STRANGER) as his, taken(world) as ours:
        assert ours != space_of(his.pid)
        assert his.poll() is None


@pytest.mark.parametrize("account", ["root", "dnsmasq"])
def test_another_program_of_a_trusted_user_does_not_choose_it(world: World, account: str) -> None:
    """A program that lends rights, such as sudo, may be run by anybody with any argument."""
    user = pwd.getpwnam(account).pw_uid
    with running(f"--conf-file={folder(world)}/x", "/bin/echo", user=user) as other, taken(world) as ours:
        assert ours != space_of(other.pid)
        assert other.poll() is None


@pytest.mark.parametrize("apart", [(), APART], ids=["the host's own", "one that another user owns"])
def test_a_namespace_that_cannot_be_ours_is_not_taken(world: World, apart: tuple[str, ...]) -> None:
    """Even where our own service should live in it."""
    folder(world).mkdir(parents=True)
    config = folder(world) / "dnsmasq-0.conf"
    config.write_text(SERVES_NOBODY)
    with running(f"--conf-file={config}", *apart, "dnsmasq") as service, taken(world) as ours:
        assert ours not in (space_of(service.pid), space_of(os.getpid()))


def test_a_dnsmasq_of_a_users_own_is_left_alone(world: World) -> None:
    folder(world).mkdir(parents=True)
    config = folder(world) / "dnsmasq-0.conf"
    config.write_text(SERVES_NOBODY)
    with running(f"--conf-file={config}", "dnsmasq", user=STRANGER) as his:
        service = Service(folder(world))
        assert service.namespace() is None
        service.erase()
        assert his.poll() is None


async def test_the_host_that_a_network_is_joined_to_is_not_taken(world: World) -> None:
    folder(world).mkdir(parents=True)
    config = folder(world) / "dnsmasq-0.conf"
    config.write_text(SERVES_NOBODY)
    there = ("ip", "netns", "exec", world.host.name)
    with running(f"--conf-file={config}", *there, "dnsmasq"), taken(world) as ours:
        assert ours != world.host.space.inode


async def test_who_pretends_to_serve_hinders_nobody_and_is_left_alone(world: World) -> None:
    config = folder(world) / "dnsmasq-0.conf"
    relay = world.settings().state_dir / "relay" / "x"
    with (
        running(f"--conf-file={config}", *APART, "/bin/echo", user=STRANGER) as his,
        running(f"--conf-file={relay}", "/bin/echo", user=STRANGER) as relays,
    ):
        net = world.net()
        await net.converge(wanted(LAN, WEB))
        guest = await world.guest(net, LAN, WEB)
        guest.settle()
        assert works(world, guest)
        await net.remove(LAN.id)
        assert await net.present() == ()
        assert services(world) == sorted([his.pid, relays.pid])
        assert his.poll() is relays.poll() is None


async def test_a_service_whose_program_was_upgraded_stays_ours(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = shutil.which("dnsmasq")
    assert program is not None
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    shutil.copy(program, tmp_path / "dnsmasq")
    await world.net().converge(wanted(LAN, WEB))
    before, serving = standing(world), services(world)
    shutil.copy(program, tmp_path / "new")
    (tmp_path / "new").rename(tmp_path / "dnsmasq")
    assert any(os.readlink(f"/proc/{pid}/exe") == f"{tmp_path}/dnsmasq (deleted)" for pid in serving)
    namespaces.drop(inside(world))
    await world.net().converge(wanted(LAN, WEB))
    assert standing(world) == before
    assert services(world) == serving
