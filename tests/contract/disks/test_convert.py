"""Images from outside, and stopped instances' disks, become disks of templates: whole, and by nobody special."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.drivers.qcow2 import header as qcow2
from innkeeper.drivers.qcow2.convert import Converter
from innkeeper.drivers.qcow2.faults import DiskFailed, ImageRefused
from innkeeper.drivers.qcow2.hand import Volumes
from innkeeper.drivers.qcow2.inspect import Limits
from innkeeper.drivers.qcow2.render import DISK, GIB, Tools
from innkeeper.drivers.qcow2.templates import Templates
from innkeeper.model.actions import Chain
from innkeeper.model.ids import TemplateId, VolumeId
from tests.contract.disks.images import GOOD, HOSTILE_QCOW2, HOSTILE_RAW, MIB, Hostile, image
from tests.contract.disks.pools import (
    OWNER,
    WORKER,
    add_template,
    io,
    make_disk,
    needs_qemu_img,
    needs_root,
    refused,
)

pytestmark = needs_qemu_img

T1, T2 = TemplateId("t-000000000001"), TemplateId("t-000000000002")
V1 = VolumeId("vol-000000000001")


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    await Volumes(tmp_path / "pool").prepare()
    return tmp_path / "pool"


class Heard:
    def __init__(self) -> None:
        self.fractions: list[float] = []

    def __call__(self, fraction: float) -> None:
        self.fractions.append(fraction)

    def grew_to_the_end(self) -> bool:
        return self.fractions == sorted(self.fractions) and self.fractions[-1] == 1.0


async def imported(root: Path, source: Path, image_format: str, said: Callable[[float], None] = lambda _: None) -> Path:
    """Converts, judges what the staging folder holds while it lasts, and gives a copy of the disk."""
    async with Templates(root).stage(T2) as staging:
        made = await Converter(root, WORKER).convert_import(source, image_format, staging, said)
        assert sorted(p.name for p in staging.iterdir()) == [DISK]
        assert staging.stat().st_uid == os.geteuid()
        kept = root / "kept.qcow2"
        kept.write_bytes(made.read_bytes())
        return kept


@pytest.mark.parametrize(
    "options", ["compat=1.1", "compat=0.10", "compression_type=zstd", "cluster_size=4k", "extended_l2=on"]
)
async def test_a_qcow2_is_imported_whole(root: Path, tmp_path: Path, options: str) -> None:
    raw, source = tmp_path / "data.raw", tmp_path / "in.qcow2"
    with raw.open("wb") as file:
        file.truncate(64 * MIB)
        for at in (0, 5 * MIB + 512, 63 * MIB):
            file.seek(at)
            file.write(os.urandom(100_000))
    compressed = ["-c"] if "zstd" in options or "0.10" in options else []
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *compressed, "-o", options, str(raw), str(source)]
    subprocess.run(argv, check=True, timeout=60)
    heard = Heard()
    kept = await imported(root, source, "qcow2", heard)
    assert heard.grew_to_the_end()
    argv = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(raw), str(kept)]
    subprocess.run(argv, check=True, timeout=60, capture_output=True)
    header = qcow2.parse(kept.read_bytes())
    assert (header.version, header.cluster_bits, header.incompatible, header.compatible) == (3, 16, 0, 0)


async def test_a_raw_disk_is_imported_whole_and_sparse(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.raw"
    with source.open("wb") as file:
        file.truncate(3 * GIB)
        for at in (0, GIB + 4096, 3 * GIB - 1000):
            file.seek(at)
            file.write(b"x" * 1000)
    heard = Heard()
    kept = await imported(root, source, "raw", heard)
    assert heard.grew_to_the_end()
    argv = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(source), str(kept)]
    subprocess.run(argv, check=True, timeout=60, capture_output=True)
    assert kept.stat().st_size < 2 * MIB


async def test_a_raw_disk_that_holds_a_qcow2_further_in_stays_raw(root: Path, tmp_path: Path) -> None:
    """Only the first bytes are the guest's disk; nothing is ever guessed from what lies behind them."""
    source = tmp_path / "in.raw"
    source.write_bytes(bytes(MIB) + image())
    kept = await imported(root, source, "raw")
    assert qcow2.parse(kept.read_bytes()).size_bytes == MIB + len(image())


@pytest.mark.parametrize(
    "image_format,hostile",
    [("qcow2", h) for h in HOSTILE_QCOW2[::9]] + [("raw", h) for h in HOSTILE_RAW[::6]],
    ids=lambda v: v.name if isinstance(v, Hostile) else v,
)
async def test_hostile_images_are_refused_and_leave_nothing(
    root: Path, tmp_path: Path, image_format: str, hostile: Hostile
) -> None:
    source = tmp_path / "in.img"
    source.write_bytes(hostile.data())
    error = await refused(root, source, image_format)
    assert isinstance(error, ImageRefused)
    assert hostile.says in error.reason


async def test_no_plain_file_is_not_touched(root: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.qcow2"
    make_disk(good)
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(good)
    os.mkfifo(pipe)
    for source, says in ((link, "symbolic link"), (pipe, "no plain file"), (tmp_path, "no plain file"),
                         (tmp_path / "absent", "no file"), (Path("/dev/zero"), "no plain file")):  # fmt: skip
        error = await asyncio.wait_for(refused(root, source, "qcow2"), 10)
        assert isinstance(error, ImageRefused)
        assert says in error.reason


async def test_a_limit_on_the_size_holds(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.qcow2"
    make_disk(source, size="2G")
    converter = Converter(root, WORKER, Limits(virtual_bytes_max=GIB))
    async with Templates(root).stage(T2) as staging:
        with pytest.raises(ImageRefused, match="limit is 1 GiB"):
            await converter.convert_import(source, "qcow2", staging, lambda _: None)


async def test_tables_that_lead_nowhere_are_refused_by_the_tool(root: Path, tmp_path: Path) -> None:
    """The header is fine; what it points to is not. That is for qemu-img to find, confined."""
    source = tmp_path / "in.qcow2"
    data = bytearray(image(replace(GOOD, size_bytes=64 * MIB)))
    data[3 * 65536 : 3 * 65536 + 8] = (0x8000_0000_0000_0200).to_bytes(8, "big")
    source.write_bytes(data)
    error = await refused(root, source, "qcow2")
    assert isinstance(error, ImageRefused)
    assert "importing in.qcow2" in error.reason


# --- who converts


TELLTALE = """#!{python}
import os, pathlib, sys
here = pathlib.Path("seen")
status = pathlib.Path("/proc/self/status").read_text()
limits = pathlib.Path("/proc/self/limits").read_text()
mine = pathlib.Path("/proc/self/fd")
fds = sorted(os.readlink(mine / n) for n in os.listdir(mine) if (mine / n).exists())
here.write_text(status + limits + "\\n".join(fds) + "\\n" + repr(dict(os.environ)))
sys.exit(1)
"""


@needs_root
async def test_the_tool_is_nobody_special(root: Path, tmp_path: Path) -> None:
    """A tool that writes down what it is, in place of qemu-img."""
    source = tmp_path / "in.qcow2"
    make_disk(source)
    telltale = Path("/tmp") / f"inn-telltale-{os.getpid()}"
    telltale.write_text(TELLTALE.format(python="/usr/bin/python3"))
    telltale.chmod(0o755)
    seen = ""
    try:
        converter = Converter(root, WORKER, tools=Tools(qemu_img=str(telltale)))
        async with Templates(root).stage(T2) as staging:
            with pytest.raises(ImageRefused):
                await converter.convert_import(source, "qcow2", staging, lambda _: None)
            seen = (staging / "seen").read_text()
    finally:
        telltale.unlink()
    fields = dict(line.split(":\t", 1) for line in seen.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(WORKER)] * 4
    assert fields["Gid"].split() == [str(WORKER)] * 4
    assert fields["Groups"].split() in ([], [str(WORKER)])
    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"
    limits = {line[:26].strip(): line[26:].split()[0] for line in seen.splitlines() if line.startswith("Max ")}
    assert limits["Max core file size"] == "0"
    assert limits["Max address space"] == str(4 << 30)
    assert int(limits["Max cpu time"]) == 180
    assert GIB < int(limits["Max file size"]) < 2 * GIB
    assert str(root) not in seen.split("Max realtime timeout")[1].replace(str(root / "staging"), "")
    assert "HOME" not in seen


@needs_root
async def test_the_importer_cannot_be_root(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.qcow2"
    make_disk(source)
    async with Templates(root).stage(T2) as staging:
        with pytest.raises(DiskFailed, match="as root"):
            await Converter(root, 0).convert_import(source, "qcow2", staging, lambda _: None)


@needs_root
async def test_a_private_source_of_another_user_is_read_by_nobody_else(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.qcow2"
    make_disk(source, "write -P 3 0 1M")
    source.chmod(0o600)
    kept = await imported(root, source, "qcow2")
    assert stat.S_IMODE(source.stat().st_mode) == 0o600
    assert "failed" not in io(kept, "read -P 3 0 1M", read_only=True)


async def test_a_source_that_changes_meanwhile_changes_nothing(root: Path, tmp_path: Path) -> None:
    """Its owner writes the name of a secret file into the header, once it was copied."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"SECRET--" * 8192)
    source = tmp_path / "in.qcow2"
    make_disk(source, size="64M")

    def rewrite(fraction: float) -> None:
        if fraction >= 0.3:
            subprocess.run(
                ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(source)], check=True
            )

    kept = await imported(root, source, "qcow2", rewrite)
    assert qcow2.backing_file(source.read_bytes(), qcow2.parse(source.read_bytes())) == str(secret)
    assert b"SECRET" not in kept.read_bytes()
    assert "failed" not in io(kept, "read -P 0 0 64k", read_only=True)


# --- flattening


async def test_a_volume_is_flattened_with_what_is_below(root: Path) -> None:
    await add_template(Templates(root), T1, "write -P 7 0 3M")
    await Volumes(root).create_overlay(V1, T1, 2, OWNER)
    volume = root / "volumes" / f"{V1}.qcow2"
    io(volume, "write -P 9 1M 1M", "write -P 5 2000M 1M")
    heard = Heard()
    async with Templates(root).stage(T2) as staging:
        made = await Converter(root, WORKER).flatten(Chain(volume=V1), T1, staging, heard)
        told = io(made, "read -P 7 0 1M", "read -P 9 1M 1M", "read -P 7 2M 1M", "read -P 0 3M 9M", "read -P 5 2000M 1M")
        assert "failed" not in told
        assert (await Templates(root).measure(staging, None)).virtual_size_bytes == 2 * GIB
    assert heard.grew_to_the_end()
    assert (volume.stat().st_uid, stat.S_IMODE(volume.stat().st_mode)) == (OWNER, 0o600)


async def test_a_running_instance_s_volume_is_not_flattened(root: Path) -> None:
    await add_template(Templates(root), T1)
    await Volumes(root).create_overlay(V1, T1, 2, OWNER)
    argv = ["qemu-io", "-f", "qcow2", str(root / "volumes" / f"{V1}.qcow2")]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert process.stdout is not None
        assert process.stdout.read(8) == b"qemu-io>"
        async with Templates(root).stage(T2) as staging:
            with pytest.raises(DiskFailed, match="in use"):
                await Converter(root, WORKER).flatten(Chain(volume=V1), T1, staging, lambda _: None)
            assert list(staging.iterdir()) == []
    finally:
        process.communicate(b"quit\n", timeout=30)


async def test_a_volume_whose_header_was_rewritten_is_not_flattened(root: Path, tmp_path: Path) -> None:
    await add_template(Templates(root), T1)
    await Volumes(root).create_overlay(V1, T1, 2, OWNER)
    volume = root / "volumes" / f"{V1}.qcow2"
    subprocess.run(
        ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", str(volume)], check=True
    )
    async with Templates(root).stage(T2) as staging:
        with pytest.raises(ImageRefused, match="shadow"):
            await Converter(root, WORKER).flatten(Chain(volume=V1), T1, staging, lambda _: None)
        assert list(staging.iterdir()) == []
