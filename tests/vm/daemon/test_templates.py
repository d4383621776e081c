"""Templates made in every way, and machines of them: built, imported for firmware, published from an instance."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest

from tests.vm.installation.house import House, Problem
from tests.vm.installation.process import INN
from tests.vm.installation.traces import assert_tidy, traces

WORDS = b"hello from the boot sector\r\n"
_SLEEP = bytes.fromhex("faf4ebfc")  # cli; hlt; and again
# 1: mov dx, 0x3fd; in al, dx; test al, 0x20; jz 1b; mov dx, 0x3f8; mov al, …
_WHEN_THERE_IS_ROOM = bytes.fromhex("bafd03eca82074f8baf803b0")


def _bootable(path: Path) -> Path:
    """A raw disk whose boot sector, 16-bit code, speaks on the serial line and then sleeps."""
    code = b"".join(_WHEN_THERE_IS_ROOM + bytes([byte]) + b"\xee" for byte in WORDS) + _SLEEP
    assert len(code) <= 510
    with path.open("wb") as disk:
        disk.write(code.ljust(510, b"\0") + b"\x55\xaa")
        disk.truncate(4 * 1024 * 1024)
    return path


def _heard(house: House, name: str) -> None:
    until = time.monotonic() + 120
    while WORDS.strip() not in (said := house.inn("logs", name).stdout):
        assert time.monotonic() < until, said
        time.sleep(0.2)


def _builders(staging: Path) -> list[str]:
    """Processes that were told to work there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended while we looked
            if str(staging) in (words := path.read_bytes().replace(b"\0", b" ").decode(errors="replace")):
                found.append(words)
    return found


@pytest.fixture
def disk(house: House) -> Path:
    return _bootable(house.place.data / "boot.raw")


def test_a_raw_disk_boots_by_firmware(house: House, disk: Path) -> None:
    words = ("--image-format", "raw", "--firmware", "bios")
    imported = house.inn("template", "import", str(disk), "--name", "speaker", *words)
    assert imported.returncode == 0, imported
    house.do(house.post("/instances", template="speaker", name="speaks", memory_mib=64))
    assert house.show("speaks")["status"] in ("starting", "running")
    _heard(house, "speaks")
    assert WORDS.strip() in _console(house, "speaks")
    house.power("speaks", "stop", grace_s=1)
    assert "did not shut down" in house.show("speaks")["reason"]
    house.remove("speaks")
    house.do(house.delete("/templates/speaker"))
    assert_tidy(house)


def _console(house: House, name: str) -> bytes:
    """What `inn console` shows at first, on a terminal; then Ctrl-]."""
    ours, theirs = pty.openpty()
    console = subprocess.Popen([*INN, "console", name], env=house.environment(), stdin=theirs, stdout=theirs)
    os.close(theirs)
    said, until = b"", time.monotonic() + 60
    while WORDS.strip() not in said and time.monotonic() < until:
        if select.select([ours], [], [], 1)[0]:
            said += os.read(ours, 4096)
    os.write(ours, b"\x1d")
    assert console.wait(60) == 0
    os.close(ours)
    return said


def test_a_qcow2_disk_boots_by_firmware(house: House, disk: Path) -> None:
    qcow2 = disk.with_suffix(".qcow2")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, qcow2], check=True)
    house.do(house.post("/templates/import", name="speaker", path=str(qcow2), format="qcow2", firmware="bios"))
    house.do(house.post("/instances", template="speaker", name="speaks", memory_mib=64))
    _heard(house, "speaks")
    house.remove("speaks")
    house.do(house.delete("/templates/speaker"))


def _refusal_of_import(house: House, path: Path, stated: str) -> str:
    """At once, or by its operation; empty when it is not refused."""
    try:
        ended = house.ended(house.post("/templates/import", name="bad", path=str(path), format=stated))
    except Problem as problem:
        return str(problem) if 400 <= problem.status < 500 else ""
    return str(ended["error"]) if ended["state"] == "failed" else ""


def test_disguised_and_damaged_images_are_refused(house: House, disk: Path) -> None:
    over = disk.with_name("over.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk, over], check=True)
    for path, stated in ((over, "qcow2"), (disk, "qcow2"), (disk.with_name("missing"), "raw")):
        assert _refusal_of_import(house, path, stated)
    assert [t["name"] for t in house.get("/templates")["items"]] == ["tiny"]
    assert traces(house.place).half_made == ()
    assert_tidy(house)


def test_what_an_instance_has_its_template_brings(house: House) -> None:
    house.launch("first")
    with pytest.raises(Problem, match="running"):
        house.post("/templates/publish", instance="first", name="mine")
    house.said_in("first", "sh", "-c", "echo published > /root/word && sync")
    house.power("first", "stop", grace_s=60)
    house.do(house.post("/templates/publish", instance="first", name="mine"))
    house.remove("first")  # the template stands on nothing of it
    house.launch("second", template="mine")
    assert house.said_in("second", "cat", "/root/word") == "published"
    assert house.said_in("second", "hostname") == "second"
    with pytest.raises(Problem, match="used by second"):
        house.delete("/templates/mine")
    house.remove("second")
    house.do(house.delete("/templates/mine"))
    assert_tidy(house)


def test_what_cannot_be_removed_keeps_no_daemon_from_starting(house: House) -> None:
    house.kill()
    held = house.place.data / "pool" / "staging" / "t-0000.half" / "work"
    held.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", str(held)], capture_output=True, text=True, timeout=30)
    try:
        house.start()
        if mounted.returncode:
            pytest.skip(f"cannot mount here: {mounted.stderr.strip()}")
        assert f"removing {held.parent}: " in house.said()
        assert traces(house.place).half_made == ("t-0000",)
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", str(held)], check=True, timeout=30)
    house.kill()
    house.start()
    assert_tidy(house)


@pytest.mark.slow
def test_a_build_survives_the_daemon_and_can_be_cancelled(house: House) -> None:
    building = house.post("/templates/build", recipe="tiny")
    staging, until = house.place.data / "pool" / "staging", time.monotonic() + 120
    while not list(staging.glob("*/*/packages/var/cache/apt/archives/*.deb")):
        assert time.monotonic() < until, house.said()
        time.sleep(0.05)
    assert _builders(staging)
    house.kill()
    until = time.monotonic() + 20
    while left := _builders(staging):
        assert time.monotonic() < until, left
        time.sleep(0.05)
    house.start()
    house.do(building)
    house.launch("built", template="tiny:2")
    assert house.said_in("built", "uname") == "Linux"
    house.remove("built")
    cancelled = house.post("/templates/build", recipe="tiny")
    time.sleep(1)
    house.post(f"/operations/{cancelled['id']}/cancel")
    assert house.ended(cancelled)["state"] == "cancelled"
    assert sorted(t["version"] for t in house.get("/templates")["items"]) == [1, 2]
    assert traces(house.place).half_made == ()
    house.do(house.delete("/templates/tiny:2"))
    assert_tidy(house)
