"""The daemon is killed at many points of a pass; the next pass ends where an undisturbed one would have ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.net import killed
from tests.net.look import everything, standing
from tests.net.protocols import dhcp, resolve
from tests.net.world import World, wanted

pytestmark = [pytest.mark.net, pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
POINTS = 14


def run(world: World, calls: int, verb: str) -> tuple[int, str]:
    words = [sys.executable, "-m", "tests.net.killed", world.tag, world.host.name, str(world.folder), str(calls), verb]
    ran = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode in (0, -signal.SIGKILL), ran.stderr
    return ran.returncode, ran.stdout


def points(calls: int) -> list[int]:
    """Spread over the pass, but for its very end: how many calls there are depends on how many processes there are."""
    return sorted({1 + number * (calls * 9 // 10) // (POINTS - 1) for number in range(POINTS)})


@pytest.mark.parametrize("verb", ["first", "change"])
async def test_killed_while_converging(world: World, verb: str) -> None:
    net = world.net()
    goal = killed.FIRST if verb == "first" else killed.SECOND
    if verb == "change":
        await net.converge(killed.FIRST)
    calls = int(run(world, 0, verb)[1])
    undisturbed = standing(world)
    assert calls > 100
    for point in points(calls):
        await net.remove(killed.LAN.id)
        if verb == "change":
            await net.converge(killed.FIRST)
        assert run(world, point, verb)[0] == -signal.SIGKILL, f"not killed at {point} of {calls}"
        await world.net().converge(goal)
        after = standing(world)
        assert strip(after) == strip(undisturbed), f"killed at {point} of {calls}"
    last = goal.ports[-1]
    guest = await world.guest(net, killed.LAN, last)
    guest.up("eth0")
    assert dhcp(guest, last.mac) is not None
    guest.settle()
    assert resolve(guest, last.hostname, killed.LAN.gateway) == list(last.addresses)


async def test_killed_while_removing(world: World) -> None:
    before = everything(world)
    net = world.net()
    await net.converge(killed.FIRST)
    calls = int(run(world, 0, "remove")[1])
    assert everything(world) == before
    for point in points(calls):
        await world.net().converge(killed.FIRST)
        run(world, point, "remove")
        again = world.net()
        for each in await again.present():
            await again.remove(each)
        assert everything(world) == before, f"killed at {point} of {calls}"


async def test_a_lease_that_was_held_when_we_died_hinders_nobody(world: World) -> None:
    net = world.net()
    await net.converge(killed.FIRST)
    old = await world.guest(net, killed.LAN, killed.FIRST.ports[1])
    old.up("eth0")
    assert dhcp(old, killed.FIRST.ports[1].mac) is not None
    assert killed.FIRST.ports[1].addresses == killed.SECOND.ports[1].addresses
    calls = int(run(world, 0, "change")[1])
    await net.converge(killed.FIRST)
    for point in points(calls)[-5:]:
        run(world, point, "change")
        await world.net().converge(killed.SECOND)
        await world.net().converge(wanted(killed.LAN, *killed.FIRST.ports))
    await net.converge(killed.SECOND)
    new = await world.guest(net, killed.LAN, killed.SECOND.ports[1])
    new.up("eth0")
    assert dhcp(new, killed.SECOND.ports[1].mac) is not None


def strip(shown: dict[str, str]) -> dict[str, str]:
    """Which of the free transit ranges was taken may differ from making to making; that there is one does not."""
    return {key: shown[key] for key in ("links", "ports", "services", "files")} | {
        "rules": shown["rules"],
        "addresses": str(len(shown["addresses"].splitlines())),
        "routes": str(len(shown["routes"].splitlines())),
        "host rules": str(len(shown["host rules"].splitlines())),
    }
