"""A full disk: work is refused cleanly, running guests wait, and all goes on once there is room.

The data directory lies on a file system in memory whose size is changed while it is in use. Such a one has no O_DIRECT
either, so all of this shows too that machines run without it.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.built import built_image
from tests.vm.installation.house import WORK_S, House, Problem, end_processes, installation
from tests.vm.installation.template import put_template
from tests.vm.installation.traces import assert_tidy, traces

_ROOMY_MIB = 4096
_WRITE = "yes | head -c 20000000 > /root/much; sync; wc -c < /root/much > /root/done"


class Room:
    """A file system in memory at a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self) -> None:
        self._mount("-t", "tmpfs", "-o", f"size={_ROOMY_MIB}m,mode=0711", "tmpfs")

    def leave(self, kib: int) -> None:
        """Only so much room is left over from now on."""
        info = os.statvfs(self.folder)
        used = (info.f_blocks - info.f_bfree) * info.f_frsize
        self._mount("-o", f"remount,size={used + kib * 1024}")

    def make(self) -> None:
        self._mount("-o", f"remount,size={_ROOMY_MIB}m")

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def _mount(self, *words: str) -> None:
        subprocess.run(["mount", *words, str(self.folder)], check=True)


@pytest.fixture(scope="module", params=["pool", "all"])
def narrow(request: pytest.FixtureRequest) -> Iterator[tuple[House, Room]]:
    """The pool alone on such a file system, or the whole data directory."""
    with installation("narrow") as house:
        folder = house.place.data if request.param == "all" else house.place.data / "pool"
        folder.mkdir(exist_ok=True)
        room = Room(folder)
        room.mount()
        try:
            asyncio.run(put_template(house.place, "tiny", built_image("tiny")))
            house.start()
            yield house, room
            house.end()
        finally:
            end_processes(house)
            room.unmount()


def test_a_launch_is_refused_and_leaves_nothing(narrow: tuple[House, Room]) -> None:
    house, room = narrow
    room.leave(0)
    try:
        words = _refusal(house)
    finally:
        room.make()
    assert re.search("room|space|full|disk free", words), words
    _until_room_is_known(house)
    until = time.monotonic() + 60
    while house.instances() and time.monotonic() < until:
        time.sleep(0.2)
    assert house.instances() == []
    assert_tidy(house)
    house.launch("somewhere")
    house.remove("somewhere")
    assert_tidy(house)


def _until_room_is_known(house: House) -> None:
    """The host tells within seconds that it has room again."""
    until = time.monotonic() + 60
    while house.get("/hosts")["items"][0]["disk_gib"] < 2:
        assert time.monotonic() < until
        time.sleep(0.2)


def _until_it_is_a_problem(house: House) -> None:
    until = time.monotonic() + 60
    while not any("less than 1 GiB free" in words for words in house.get("/hosts")["items"][0]["problems"]):
        assert time.monotonic() < until
        time.sleep(0.2)


def _refusal(house: House) -> str:
    """Of a launch: at once, or by its operation."""
    try:
        ended = house.ended(house.post("/instances", template="tiny", name="nowhere"))
    except Problem as problem:
        return str(problem)
    assert ended["state"] == "failed", ended
    return str(ended["error"])


def test_a_build_is_refused_and_leaves_nothing(narrow: tuple[House, Room]) -> None:
    house, room = narrow
    room.leave(40 * 1024)
    try:
        ended = house.ended(house.post("/templates/build", recipe="tiny"))
    finally:
        room.make()
    assert ended["state"] == "failed"
    assert "room" in ended["error"] or "space" in ended["error"]
    assert [t["version"] for t in house.get("/templates")["items"]] == [1]
    assert traces(house.place).half_made == ()
    _until_room_is_known(house)
    assert_tidy(house)


def _until_it_stands_still(house: House, name: str) -> None:
    """Its disk has grown, and then no more for a while: there was no room for the rest."""
    disk = house.place.data / "pool" / "volumes" / f"{house.show(name)['volumes'][0]['id']}.qcow2"
    first = last = disk.stat().st_blocks
    until, since = time.monotonic() + WORK_S, time.monotonic()
    while last - first < 2048 or time.monotonic() - since < 5:
        assert time.monotonic() < until
        if (now := disk.stat().st_blocks) != last:
            last, since = now, time.monotonic()
        time.sleep(0.1)


def test_a_guest_waits_for_room_and_goes_on(narrow: tuple[House, Room]) -> None:
    house, room = narrow
    house.launch("writes")
    room.leave(6 * 1024)
    try:
        # Not zeros, which take no room; and in a session of its own, which outlives the command.
        house.said_in("writes", "setsid", "sh", "-c", f"({_WRITE}) >/dev/null 2>&1 &")
        _until_it_stands_still(house, "writes")
        if room.folder != house.place.data:
            # Where the database has no room either, nothing can be written down, and so nothing is shown, until it has.
            assert "no space left" in house.seen("writes", "no-space")["reason"]
            _until_it_is_a_problem(house)
            refused = house.ended(house.post("/instances/writes/resume"))
            assert "still full" in refused["error"]
            house.seen("writes", "no-space")
        house.kill()
    finally:
        room.make()
    house.start()
    house.seen("writes", "no-space")
    _until_room_is_known(house)
    house.power("writes", "resume")
    house.seen("writes", "running")
    waited = house.said_in("writes", "sh", "-c", "until [ -s /root/done ]; do sleep 0.2; done; cat /root/done")
    assert waited == "20000000"
    house.remove("writes")
    assert_tidy(house)
