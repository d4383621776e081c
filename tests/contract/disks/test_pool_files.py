"""What only the real pool can get wrong: names, modes, half-made things, hands that came in between, no room."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from innkeeper.drivers.qcow2.faults import DiskFailed, ImageRefused, PoolFull
from innkeeper.drivers.qcow2.hand import Volumes
from innkeeper.drivers.qcow2.render import DISK, GIB
from innkeeper.drivers.qcow2.templates import Templates
from innkeeper.model.actions import Chain
from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import TemplateId, VolumeId
from innkeeper.model.template import Image
from tests.contract.disks.pools import OWNER, add_template, fill, io, make_disk, needs_qemu_img, needs_root, small

__all__ = ["small"]

pytestmark = needs_qemu_img

T1, T2 = TemplateId("t-000000000001"), TemplateId("t-000000000002")
V1 = VolumeId("vol-000000000001")


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    await Volumes(tmp_path).prepare()
    await add_template(Templates(tmp_path), T1, "write -P 7 0 3M")
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_who_may_read_what(root: Path) -> None:
    await Volumes(root).create_overlay(V1, T1, 5, OWNER)
    volume = root / "volumes" / f"{V1}.qcow2"
    assert (mode(volume), volume.stat().st_uid, volume.stat().st_gid) == (0o600, OWNER, OWNER)
    assert {mode(root / name) for name in ("volumes", "templates", "staging")} == {0o700}
    made = root / "templates" / T1
    assert {mode(path) for path in made.iterdir()} == {0o444}
    assert {path.stat().st_uid for path in made.iterdir()} == {os.geteuid()}
    assert list((root / "staging").iterdir()) == []


async def test_a_volume_is_as_large_as_asked_and_takes_next_to_nothing(root: Path) -> None:
    await Volumes(root).create_overlay(V1, T1, 5, OWNER)
    argv = ["qemu-img", "info", "-f", "qcow2", "--output=json", str(root / "volumes" / f"{V1}.qcow2")]
    told = json.loads(subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout)
    assert told["virtual-size"] == 5 * GIB
    assert 0 < told["actual-size"] <= 256 * 1024


async def test_a_volume_whose_template_is_gone_is_not_started(root: Path) -> None:
    await Volumes(root).create_overlay(V1, T1, 5, OWNER)
    (root / "templates" / T1 / DISK).unlink()
    with pytest.raises(DiskFailed, match=f"the disk of template {T1}, below volume {V1}, is missing"):
        await Volumes(root).check_chain(Chain(volume=V1), T1)


async def test_a_disk_that_a_process_has_open_is_not_deleted(root: Path) -> None:
    volumes = Volumes(root)
    await volumes.create_overlay(V1, T1, 5, OWNER)
    argv = ["qemu-io", "-f", "qcow2", str(root / "volumes" / f"{V1}.qcow2")]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert process.stdout is not None
        assert process.stdout.read(8) == b"qemu-io>"
        with pytest.raises(DiskFailed, match="in use"):
            await volumes.delete(V1)
        assert await volumes.list_volumes() == (V1,)
    finally:
        process.communicate(b"quit\n", timeout=30)
    await volumes.delete(V1)
    assert await volumes.list_volumes() == ()


async def test_a_volume_that_holds_data_survives_a_repeated_order(root: Path) -> None:
    volumes = Volumes(root)
    await volumes.create_overlay(V1, T1, 5, OWNER)
    path = root / "volumes" / f"{V1}.qcow2"
    io(path, "write -P 9 1M 64k")
    await volumes.create_overlay(V1, T1, 5, OWNER)
    assert "failed" not in io(path, "read -P 9 1M 64k", "read -P 7 0 1M", read_only=True)


async def test_many_at_once_make_one(root: Path) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(Volumes(root).create_overlay(V1, T1, 5, OWNER))
    assert await Volumes(root).list_volumes() == (V1,)
    assert list((root / "staging").iterdir()) == []


async def test_a_header_that_names_another_template_is_refused(root: Path) -> None:
    await add_template(Templates(root), T2)
    await Volumes(root).create_overlay(V1, T1, 5, OWNER)
    path = root / "volumes" / f"{V1}.qcow2"
    path.write_bytes(path.read_bytes().replace(T1.encode(), T2.encode()))
    with pytest.raises(ImageRefused, match=T2):
        await Volumes(root).check_chain(Chain(volume=V1), T1)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "x" * 64, "vol\0", "VOL"])
async def test_an_id_never_leads_elsewhere(root: Path, name: str) -> None:
    with pytest.raises(DiskFailed, match="not an id"):
        await Volumes(root).create_overlay(VolumeId(name), T1, 5, OWNER)
    with pytest.raises(DiskFailed, match="not an id"):
        await Templates(root).delete(TemplateId(name))


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
async def test_no_plain_file_is_not_opened(root: Path, kind: str) -> None:
    path = root / "volumes" / f"{V1}.qcow2"
    if kind == "link":
        path.symlink_to(root / "templates" / T1 / DISK)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(DiskFailed):
        await asyncio.wait_for(Volumes(root).check_chain(Chain(volume=V1), T1), 10)


async def test_a_smaller_disk_than_the_template_s_is_refused(tmp_path: Path) -> None:
    templates, volumes = Templates(tmp_path), Volumes(tmp_path)
    await templates.prepare()
    async with templates.stage(T2) as staging:
        make_disk(staging / DISK, size="3500M")
        measured = await templates.measure(staging, None)
        image = Image(
            digest=measured.digest,
            virtual_size_bytes=measured.virtual_size_bytes,
            stored_bytes=measured.stored_bytes,
            firmware=Firmware.BIOS,
        )
        await templates.adopt(T2, staging, image)
    with pytest.raises(DiskFailed, match="less than the 4 GiB"):
        await volumes.create_overlay(V1, T2, 3, OWNER)
    await volumes.create_overlay(V1, T2, 4, OWNER)


# --- templates


def bios(size: int = GIB) -> Image:
    return Image(digest="d", virtual_size_bytes=size, stored_bytes=0, firmware=Firmware.BIOS)


async def test_a_template_over_another_file_is_refused(root: Path) -> None:
    templates = Templates(root)
    async with templates.stage(T2) as staging:
        below = root / "templates" / T1 / DISK
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(below), "-F", "qcow2", str(staging / DISK)]
        subprocess.run(argv, check=True, timeout=60)
        with pytest.raises(ImageRefused, match="backing file"):
            await templates.adopt(T2, staging, bios())
    assert await templates.list_templates() == (T1,)


async def test_an_incomplete_template_is_refused(root: Path) -> None:
    templates = Templates(root)
    direct = Image(digest="d", virtual_size_bytes=GIB, stored_bytes=0, firmware=Firmware.DIRECT, kernel_args="quiet")
    async with templates.stage(T2) as staging:
        make_disk(staging / DISK)
        with pytest.raises(DiskFailed, match="lacks vmlinuz"):
            await templates.adopt(T2, staging, direct)
        (staging / "notes").write_text("?")
        with pytest.raises(DiskFailed, match="notes"):
            await templates.adopt(T2, staging, bios())
        (staging / "notes").unlink()
        with pytest.raises(DiskFailed, match="stated"):
            await templates.adopt(T2, staging, bios(2 * GIB))
    assert await templates.list_templates() == (T1,)


async def test_files_of_a_template_and_of_one_made_from_it(root: Path) -> None:
    templates = Templates(root)
    direct = Image(digest="d", virtual_size_bytes=GIB, stored_bytes=0, firmware=Firmware.DIRECT, kernel_args="quiet")
    async with templates.stage(T2) as staging:
        make_disk(staging / DISK)
        (staging / "vmlinuz").write_bytes(b"kernel")
        (staging / "initrd.img").write_bytes(b"initrd")
        before = await templates.measure(staging, None)
        (staging / "initrd.img").write_bytes(b"initrD")
        assert (await templates.measure(staging, None)).digest != before.digest
        told = subprocess.run(
            ["sha256sum", DISK, "initrd.img", "vmlinuz"], cwd=staging, check=True, capture_output=True, timeout=60
        )
        assert (await templates.measure(staging, "quiet")).digest == sha256(told.stdout + b"quiet\n").hexdigest()
        await templates.adopt(T2, staging, direct)
    files = await templates.files(T2)
    assert files.kernel is not None
    assert files.kernel.read_bytes() == b"kernel"
    assert (await templates.files(T1)).kernel is None
    async with templates.stage(TemplateId("t-3")) as staging:
        await templates.link_boot_files(T2, staging)
        assert (staging / "initrd.img").samefile(files.kernel.parent / "initrd.img")
    assert files.kernel.exists()
    with pytest.raises(DiskFailed, match="no template"):
        await templates.files(TemplateId("t-3"))


async def test_what_an_earlier_life_left_is_cleaned(root: Path) -> None:
    templates = Templates(root)
    half = root / "staging" / "t-9.abc"
    half.mkdir()
    (half / DISK).write_bytes(b"half")
    (root / "staging" / "vol-9.abc").write_bytes(b"half")
    assert await templates.leftovers() == ("t-9.abc", "vol-9.abc")
    await templates.clean_staging()
    assert await templates.leftovers() == ()
    assert await templates.list_templates() == (T1,)


@needs_root
async def test_what_cannot_be_removed_stays_a_leftover_and_is_told(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    templates, staging = Templates(small), small / "staging"
    await templates.prepare()
    held = staging / "t-8.abc"
    for path in (staging / "t-7.abc", held / "work", staging / "t-9.abc"):
        path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(held / "work")], check=True, timeout=30)
    try:
        await templates.clean_staging()
    finally:
        subprocess.run(["umount", str(held / "work")], check=True, timeout=30)
    assert await templates.leftovers() == ("t-8.abc",)
    (told,) = caplog.messages
    assert f"removing {held}: " in told
    await templates.clean_staging()
    assert await templates.leftovers() == ()


async def test_a_folder_without_its_record_is_no_template(root: Path) -> None:
    (root / "templates" / T2).mkdir()
    (root / "templates" / T2 / DISK).write_bytes(b"")
    assert await Templates(root).list_templates() == (T1,)
    assert await Templates(root).image(T2) is None


async def test_a_damaged_record_is_said_so(root: Path) -> None:
    about = root / "templates" / T1 / "template.json"
    about.chmod(0o644)
    about.write_text("{")
    with pytest.raises(DiskFailed, match="cannot be read"):
        await Templates(root).image(T1)


# --- no room


@needs_root
async def test_a_full_pool_is_said_so_and_nothing_half_made_stays(small: Path) -> None:
    volumes, templates = Volumes(small), Templates(small)
    await volumes.prepare()
    image = await add_template(templates, T1)
    fill(small)
    assert await volumes.free_bytes() < 1 << 20
    with pytest.raises(PoolFull, match="no room left"):
        await volumes.create_overlay(V1, T1, 5, OWNER)
    assert await volumes.list_volumes() == ()
    assert await templates.leftovers() == ()
    async with templates.stage(T2) as staging:
        os.link(small / "templates" / T1 / DISK, staging / DISK)
        with pytest.raises(PoolFull, match=f"adopting template {T2}"):
            await templates.adopt(T2, staging, image)
    assert await templates.list_templates() == (T1,)
    assert await templates.leftovers() == ()
    (small / "ballast").unlink()
    await volumes.create_overlay(V1, T1, 5, OWNER)
