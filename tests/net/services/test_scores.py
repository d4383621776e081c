"""When memory runs out, what serves guests is an ordinary program, and not spared as the daemon is that starts it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from innkeeper.drivers.linuxnet import dnsmasq
from innkeeper.drivers.linuxnet.kernel import nft
from innkeeper.drivers.linuxnet.settings import OOM_SCORE
from tests.net.look import LAN, WEB, services
from tests.net.world import World, wanted

pytestmark = pytest.mark.net


def children() -> list[int]:
    listed = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(pid) for each in listed for pid in each.read_text().split()]


def score(pid: int | str) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def test_services_and_rules_have_a_score_of_their_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert OOM_SCORE == 0
    # To be spared takes rights that not every machine for tests gives, so it is theirs that is set apart from ours.
    own = score("self")
    for module in (dnsmasq, nft):
        monkeypatch.setattr(module, "OOM_SCORE", own + 7)
    await world.net().converge(wanted(LAN, WEB))
    rules = [pid for pid in children() if b"nft_process" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(rules) == 1
    serving = services(world)
    assert len(serving) == 2
    assert {score(pid) for pid in (*rules, *serving)} == {own + 7}
    assert score("self") == own
