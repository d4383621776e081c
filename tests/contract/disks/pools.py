"""A pool to test with: templates with a known pattern in their disks, volumes over them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.drivers.qcow2.convert import Converter
from innkeeper.drivers.qcow2.faults import PoolFault
from innkeeper.drivers.qcow2.render import DISK, GIB
from innkeeper.drivers.qcow2.templates import Templates
from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import TemplateId
from innkeeper.model.template import Image

needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users, and mount")

# As whom things run here: another user where we may choose one.
WORKER = 790_001 if os.geteuid() == 0 else os.geteuid()
OWNER = 790_002 if os.geteuid() == 0 else os.geteuid()


def io(disk: Path, *commands: str, read_only: bool = False) -> str:
    """qemu-io's words; its reads verify patterns."""
    argv = [word for command in commands for word in ("-c", command)]
    more = ["-r"] if read_only else []
    told = subprocess.run(
        ["qemu-io", *more, "-f", "qcow2", *argv, str(disk)], check=True, capture_output=True, text=True, timeout=60
    )
    return told.stdout


def make_disk(path: Path, *commands: str, size: str = "1G") -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), size], check=True, timeout=60)
    if commands:
        io(path, *commands)


async def add_template(templates: Templates, template: TemplateId, *commands: str) -> Image:
    """A template of 1 GiB that boots by firmware."""
    async with templates.stage(template) as staging:
        make_disk(staging / DISK, *commands)
        measured = await templates.measure(staging, None)
        image = Image(
            digest=measured.digest,
            virtual_size_bytes=measured.virtual_size_bytes,
            stored_bytes=measured.stored_bytes,
            firmware=Firmware.BIOS,
        )
        await templates.adopt(template, staging, image)
    assert image.virtual_size_bytes == GIB
    return image


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 8 MiB."""
    root = tmp_path / "small"
    root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=1000", "none", str(root)], capture_output=True, timeout=30
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.decode().strip()}")
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True, timeout=30)


def fill(root: Path) -> None:
    with (root / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass  # as full as it gets


async def refused(root: Path, source: Path, image_format: str) -> PoolFault:
    """The refusal; nothing was left behind."""
    converter = Converter(root, WORKER)
    async with Templates(root).stage(TemplateId("t-refused")) as staging:
        with pytest.raises(PoolFault) as caught:
            await converter.convert_import(source, image_format, staging, lambda _: None)
        assert list(staging.iterdir()) == []
        assert staging.stat().st_uid == os.geteuid()
    return caught.value
