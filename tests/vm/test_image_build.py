"""What becomes of a build that is disturbed: it says why, and nothing of it is left."""

from __future__ import annotations

import asyncio
import hashlib
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from innkeeper.drivers.images.faults import BuildFailed, CannotBuildHere, require_tools
from innkeeper.drivers.images.hand import BuildRequest, build

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def _able() -> None:
    try:
        require_tools()
    except CannotBuildHere as reason:
        pytest.skip(str(reason))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 700 MiB: enough for the tiny image, when nobody else writes to it."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def request(staging: Path) -> BuildRequest:
    staging.mkdir(exist_ok=True)
    return BuildRequest(recipe="tiny", staging=staging, guest_program=None, guest_unit=None)


def once(fraction: float, act: Callable[[], object]) -> Callable[[float, str], None]:
    """Acts when a build has come so far."""
    left = [act]

    def hear(done: float, words: str) -> None:
        if done >= fraction and left:
            left.pop()()

    return hear


def listener(told: list[float]) -> Callable[[float, str], None]:
    return lambda done, words: told.append(done)


def traces(staging: Path) -> list[str]:
    """Files, mounts and processes of a build."""
    found = [str(path) for path in staging.rglob("*")]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"{staging}/" in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv = (process / "cmdline").read_bytes()
        except OSError:
            continue  # ended while we looked
        if str(staging).encode() in argv:
            found.append(argv.decode(errors="replace"))
    return found


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.85, 0.94])
async def test_a_cancelled_build_leaves_nothing(tmp_path: Path, fraction: float) -> None:
    staging = tmp_path / "staging"
    async with asyncio.TaskGroup() as group:
        reached = asyncio.Event()
        task = group.create_task(build(request(staging), once(fraction, reached.set)))
        await reached.wait()
        assert any(staging.iterdir()), "nothing was there to be left"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert traces(staging) == []


async def test_a_disk_that_becomes_full_is_named_and_left_clean(small_disk: Path) -> None:
    staging = small_disk / "staging"
    filler = small_disk / "filler"

    def fill() -> None:
        subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=1M"], check=False, capture_output=True)

    with pytest.raises(BuildFailed, match=f"file system of {staging} became full .* needs 600 MiB"):
        await build(request(staging), once(0.15, fill))
    assert traces(staging) == []


async def test_a_disk_that_is_too_full_is_refused_at_once(small_disk: Path) -> None:
    staging = small_disk / "staging"
    (small_disk / "filler").write_bytes(bytes(200 << 20))
    with pytest.raises(BuildFailed, match=r"needs 600 MiB on the file system of .*, where \d+ MiB are free; make room"):
        await build(request(staging), lambda done, words: None)
    assert traces(staging) == []


async def test_a_mirror_that_is_away_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "proxy" in subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout.lower():
        pytest.skip("this machine's apt has a proxy of its own, which ours cannot take the place of")
    # Nobody listens on the discard port.
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    staging = tmp_path / "staging"
    with pytest.raises(CannotBuildHere, match=r"mirror cannot be reached for building tiny .*apt-get update") as failed:
        await build(request(staging), lambda done, words: None)
    assert any("127.0.0.1" in line for line in failed.value.tail)
    assert traces(staging) == []


async def test_two_builds_at_once_make_the_same(tmp_path: Path) -> None:
    told: dict[str, list[float]] = {"one": [], "two": []}
    async with asyncio.TaskGroup() as group:
        for name in told:
            group.create_task(build(request(tmp_path / name), listener(told[name])))
    for fractions in told.values():
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
    for name in ("vmlinuz", "initrd.img"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    for name in told:
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["disk.qcow2", "initrd.img", "vmlinuz"]
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o444 for path in (tmp_path / name).iterdir())
    assert content(tmp_path / "one") == content(tmp_path / "two")


def content(built: Path) -> str:
    """Everything in the disk's file system but where it lies: modes, owners, sizes, times, names and bytes."""
    raw, tree = built.with_suffix(".raw"), built.with_suffix(".tree")
    tree.mkdir()
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(built / "disk.qcow2"), str(raw)], check=True)
    subprocess.run(["debugfs", "-R", f"rdump / {tree}", str(raw)], check=True, capture_output=True)
    # Symbolic links get the time of this reading, which may be another second for the other disk.
    subprocess.run(["find", str(tree), "-type", "l", "-exec", "touch", "-h", "-d", "@0", "{}", "+"], check=True)
    tar = ["tar", "--create", "--sort=name", "--format=gnu", "--directory", str(tree), "."]
    return hashlib.sha256(subprocess.run(tar, check=True, capture_output=True).stdout).hexdigest()
