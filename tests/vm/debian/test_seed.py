"""A real Debian reads our seed and does what it says, on a disk that we made ourselves."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from innkeeper.drivers.metadata.hand import Seeds
from innkeeper.drivers.qcow2.hand import Volumes
from innkeeper.drivers.qcow2.render import DISK
from innkeeper.drivers.qcow2.templates import Templates
from innkeeper.model.actions import Chain, SeedCard, WriteSeed
from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import InstanceId, SecretId, SecretRef, TemplateId, VolumeId
from innkeeper.model.template import Image
from tests.vm.built import built_image

QEMU = "qemu-system-x86_64"
BOOT_S = 900  # 60 on a quiet machine without KVM

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.timeout(BOOT_S + 100),
    pytest.mark.skipif(shutil.which(QEMU) is None, reason="QEMU is not installed"),
]

TEMPLATE, VOLUME = TemplateId("t-000000000001"), VolumeId("vol-000000000001")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIDmZtB4AyJ3iCfGJY1VNqO5yCfqJsgVd4mJQAF7DaTA me@desk"
MAC = "52:54:00:ab:cd:01"
SEED = WriteSeed(
    instance=InstanceId("i-3f09c2d41b7a"),
    hostname="web",
    domain="inn.internal",
    ssh_keys=(KEY,),
    user_data=SecretRef(SecretId("s-1")),
    cards=(SeedCard(mac=MAC, addresses=("10.1.2.3/20",), gateway="10.1.0.1", dns=("10.1.0.1",), mtu=1450),),
)
USER_DATA = """#cloud-config
users:
- default
- {name: keeper, shell: /bin/sh}
write_files:
- path: /etc/inn-test
  content: "größer\\n"
runcmd:
- |
  {
    echo "SAYS host=$(hostname)"
    echo "SAYS id=$(cat /var/lib/cloud/data/instance-id)"
    echo "SAYS file=$(cat /etc/inn-test)"
    echo "SAYS user=$(id -un keeper)"
    echo "SAYS keys=$(grep -rl me@desk /home/*/.ssh/authorized_keys)"
    echo "SAYS address=$(ip -4 -o address show eth0 | tr -s ' ' | cut -d' ' -f4) mtu=$(cat /sys/class/net/eth0/mtu)"
    echo "SAYS route=$(ip route show default | cut -d' ' -f1-5)"
    echo "SAYS dns=$(grep -h nameserver /etc/resolv.conf /run/systemd/resolve/resolv.conf | tail -n 1)"
    echo "SAYS disk=$(cat /sys/class/block/vda/size) root=$(df --output=size -BG / | tail -n 1 | tr -d ' ')"
  } >/dev/ttyS0 2>&1
power_state: {mode: poweroff, timeout: 5}
"""


async def prepare(root: Path) -> tuple[int, str]:
    """A pool with the built template, a volume over it, and the seed, which is opened."""
    volumes, templates, seeds = Volumes(root), Templates(root), Seeds(root / "seeds")
    await volumes.prepare()
    await seeds.prepare()
    kernel_args = (built_image("debian-12") / "kernel_args").read_text().strip()
    async with templates.stage(TEMPLATE) as staging:
        for name in (DISK, "vmlinuz", "initrd.img"):
            shutil.copyfile(built_image("debian-12") / name, staging / name)
        made = await templates.measure(staging, kernel_args)
        image = Image(
            digest=made.digest,
            virtual_size_bytes=made.virtual_size_bytes,
            stored_bytes=made.stored_bytes,
            firmware=Firmware.DIRECT,
            kernel_args=kernel_args,
        )
        await templates.adopt(TEMPLATE, staging, image)
    await volumes.create_overlay(VOLUME, TEMPLATE, 5, os.geteuid())
    await seeds.write(SEED, USER_DATA.encode())
    await volumes.check_chain(Chain(volume=VOLUME), TEMPLATE)
    return await seeds.open(SEED.instance), kernel_args


def command(root: Path, seed: int, kernel_args: str, serial: Path) -> list[str]:
    kernel = root / "templates" / TEMPLATE / "vmlinuz"
    disk, below = root / "volumes" / f"{VOLUME}.qcow2", root / "templates" / TEMPLATE / DISK

    def file(path: Path | str, read_only: str) -> str:
        return f"file.driver=file,file.filename={path},read-only={read_only},file.read-only={read_only}"

    argv = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-M", "q35", "-accel", "tcg"]
    argv += ["-cpu", "max", "-m", "512", "-serial", f"file:{serial}", "-kernel", str(kernel), "-append", kernel_args]
    argv += ["-initrd", str(kernel.with_name("initrd.img"))]
    argv += ["-add-fd", f"fd={seed},set={seed}"]
    argv += ["-blockdev", f"node-name=below,driver=qcow2,{file(below, 'on')}"]
    argv += ["-blockdev", f"node-name=root,driver=qcow2,backing=below,{file(disk, 'off')}"]
    argv += ["-blockdev", f"node-name=seed,driver=raw,{file(f'/dev/fdset/{seed}', 'on')}"]
    argv += ["-device", "virtio-blk-pci,drive=root", "-device", "virtio-blk-pci,drive=seed"]
    return [*argv, "-netdev", "hubport,id=n0,hubid=0", "-device", f"virtio-net-pci,netdev=n0,mac={MAC}"]


async def test_user_data_names_keys_and_addresses_arrive(tmp_path: Path) -> None:
    seed, kernel_args = await prepare(tmp_path)
    serial = tmp_path / "serial.log"
    argv = command(tmp_path, seed, kernel_args, serial)
    qemu = await asyncio.create_subprocess_exec(*argv, pass_fds=(seed,))
    os.close(seed)
    try:
        assert await asyncio.wait_for(qemu.wait(), BOOT_S) == 0
    finally:
        if qemu.returncode is None:
            qemu.kill()
            await qemu.wait()
    text = serial.read_text(errors="replace")
    said = [line.partition("SAYS ")[2].strip() for line in text.splitlines() if "SAYS " in line]
    assert said == [
        "host=web",
        f"id={SEED.instance}",
        "file=größer",
        "user=keeper",
        "keys=/home/debian/.ssh/authorized_keys",
        "address=10.1.2.3/20 mtu=1450",
        "route=default via 10.1.0.1 dev eth0",
        "dns=nameserver 10.1.0.1",
        "disk=10485760 root=5G",
    ], text[-3000:]
    # The guest wrote through QEMU; our header still says what stands below, and nothing is damaged.
    check = await asyncio.create_subprocess_exec(
        "qemu-img", "check", "-q", "-f", "qcow2", str(tmp_path / "volumes" / f"{VOLUME}.qcow2")
    )
    assert await check.wait() == 0
    await Volumes(tmp_path).check_chain(Chain(volume=VOLUME), TEMPLATE)
