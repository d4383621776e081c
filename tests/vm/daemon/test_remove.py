"""`./run --remove`: the machine is as it was, and nobody's instance goes with the daemon."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.vm.installation.house import House
from tests.vm.installation.traces import traces


def _removed(house: House) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, "-m", "innkeeper.main.quickstart", "--remove", "--data", str(house.place.data))
    return subprocess.run(words, env=house.environment(), capture_output=True, text=True, timeout=120)


def _in_the_kernel(tag: str) -> str:
    """Lines about anything that bears an installation's mark."""
    commands = (("ip", "netns", "list"), ("ip", "-o", "link"), ("nft", "list", "tables"))
    said = [subprocess.run(c, check=True, capture_output=True, text=True).stdout for c in commands]
    return "\n".join(line for line in "".join(said).splitlines() if tag in line)


@pytest.mark.parametrize("alive", [True, False], ids=["daemon", "no-daemon"])
def test_it_refuses_while_there_are_instances_and_then_leaves_nothing(fresh: House, alive: bool) -> None:
    fresh.start()
    fresh.launch("web")
    if not alive:
        fresh.kill()
    refused = _removed(fresh)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "web" in refused.stderr
    assert _in_the_kernel(fresh.place.tag)
    assert len(traces(fresh.place).processes) == 1
    if not alive:
        fresh.start()
    fresh.remove("web")
    if not alive:
        fresh.kill()
    for _ in range(2):  # once more changes nothing
        done = _removed(fresh)
        assert done.returncode == 0, done.stderr
        assert str(fresh.place.data) in done.stdout
    assert fresh.daemon.poll() is not None
    assert _in_the_kernel(fresh.place.tag) == ""
    assert not fresh.place.volatile.exists()
    assert traces(fresh.place).processes == ()
    assert (fresh.place.data / "innkeeper.db").exists()
