"""The program where it belongs: behind a real virtio port, in a guest of Debian's kernel and BusyBox, before it.

What a socket cannot show: finding the port, hosts that come and go, a program that dies while the host stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from innkeeper.drivers.guestlink.hand import GuestLink
from innkeeper.ports.streams import Exited, Failed, Pty
from tests.guest.channel import finish, linked, read_until, request, run

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

BOOT_S = 200.0
MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_console")
INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
mkdir /dev/pts; mount -t devpts devpts /dev/pts
echo "::respawn:/bin/innkeeper-guest" >/etc/inittab
(usleep 300000; for m in MODULES; do insmod /lib/$m.ko; done) &
exec init
"""


def kernel(cache: Path) -> tuple[Path, Path]:
    """Debian's kernel, and the folder of its modules: this machine's own, or its package, kept between runs."""
    ours = sorted(Path("/boot").glob("vmlinuz-*"))
    for image in reversed(ours):
        modules = Path("/lib/modules") / image.name.removeprefix("vmlinuz-")
        if modules.is_dir():
            return image, modules
    if not any(cache.glob("boot/vmlinuz-*")):
        unpack_kernel(cache)
    return next(cache.glob("boot/vmlinuz-*")), next(cache.glob("lib/modules/*"))


def unpack_kernel(cache: Path) -> None:
    if shutil.which("apt-get") is None:
        pytest.skip("no kernel in /boot, and this is no Debian to fetch one from")
    with tempfile.TemporaryDirectory(prefix="ikguest-", dir="/var/tmp") as folder:
        depends = subprocess.run(
            ["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True, check=False, timeout=60
        ).stdout
        names = [line.split()[-1] for line in depends.splitlines() if "Depends: linux-image-" in line]
        fetched = subprocess.run(
            ["apt-get", "download", *names[:1]], cwd=folder, capture_output=True, text=True, check=False, timeout=200
        )
        package = next(Path(folder).glob("linux-image-*.deb"), None)
        if package is None:
            pytest.skip(f"no kernel in /boot, and none could be fetched: {fetched.stderr.strip()[-200:]}")
        subprocess.run(["dpkg-deb", "-x", str(package), str(cache)], check=True, timeout=100)


def initial_disk(folder: Path, program: str, modules: Path) -> Path:
    busybox = shutil.which("busybox")
    if busybox is None or b"not a dynamic" not in subprocess.run(["ldd", busybox], capture_output=True).stderr:
        pytest.skip("no static busybox: install busybox-static")
    root = folder / "root"
    for name in ("bin", "lib", "dev", "proc", "sys", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin" / "busybox")
    shutil.copy(program, root / "bin" / "innkeeper-guest")
    for name in MODULES:
        found = next(modules.rglob(f"{name}.ko*"), None)
        if found is None:
            continue  # built into this kernel
        if found.suffix != ".ko":
            pytest.skip(f"the kernel's modules are packed ({found.name})")
        shutil.copy(found, root / "lib" / found.name)
    (root / "init").write_text(INIT.replace("MODULES", " ".join(MODULES)))
    (root / "init").chmod(0o755)
    listing = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=listing.encode(), capture_output=True, check=True
    )
    disk = folder / "initrd"
    disk.write_bytes(gzip.compress(packed.stdout, 1))
    return disk


@pytest.fixture
def machine(plain: str, socket_path: str, pytestconfig: pytest.Config) -> Iterator[list[str]]:
    """QEMU's command line, its channel at `socket_path`."""
    for tool in ("qemu-system-x86_64", "cpio"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    assert pytestconfig.cache is not None
    image, modules = kernel(pytestconfig.cache.mkdir("guest-kernel"))
    with tempfile.TemporaryDirectory(prefix="ikguest-") as folder:
        disk = initial_disk(Path(folder), plain, modules)
        yield [
            *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "128"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-kernel", str(image), "-initrd", str(disk)),
            *("-append", "quiet panic=-1", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=c,path={socket_path},server=on,wait=off"),
            *("-device", "virtserialport,chardev=c,name=org.innkeeper.guest.0"),
        ]


@contextlib.asynccontextmanager
async def booted(argv: list[str], path: str) -> AsyncIterator[GuestLink]:
    """The first host is there before the guest is: its greeting waits."""
    process = await asyncio.create_subprocess_exec(*argv)
    try:
        async with asyncio.timeout(BOOT_S):
            while not os.path.exists(path):
                assert process.returncode is None, "QEMU ended"
                await asyncio.sleep(0.05)
        link = await GuestLink.connect(path, BOOT_S)
        await link.hello(BOOT_S)
        yield link
        await link.close()
    finally:
        process.kill()
        await process.wait()


async def program_ticks(link: GuestLink) -> int:
    """CPU time that the program has used, in clock ticks."""
    words = (await run(link, "sh", "-c", "cat /proc/$(pidof innkeeper-guest)/stat")).out.rpartition(b")")[2].split()
    return int(words[11]) + int(words[12])


async def test_a_guest_from_boot_to_the_third_host(machine: list[str], socket_path: str) -> None:
    async with booted(machine, socket_path) as first:
        assert b"Linux" in (await run(first, "uname")).out
        status = await first.status()
        assert (status.memory_total_kib or 0) < 131072
        data = os.urandom(1 << 20)
        assert (await run(first, "cat", stdin=data)).out == data
        shell = await first.open(request("sh", "-c", "stty size", pty=Pty(rows=31, cols=97)))
        assert (await finish(shell)).out == b"31 97\r\n"

        stubborn = await first.open(request("sh", "-c", "trap '' HUP; echo $$; while :; do sleep 1; done"))
        pid = (await read_until(stubborn, b"\n")).decode().strip()
        before = await program_ticks(first)
        await first.close()
        await asyncio.sleep(4)  # nobody is attached; the session is hung up, and the program must not spin

        for _ in range(5):
            async with linked(socket_path) as second:
                assert (await run(second, "echo", "here")).out == b"here\n"
        async with linked(socket_path) as third:
            assert (await run(third, "ls", "-d", f"/proc/{pid}")).code == 1
            assert await program_ticks(third) - before < 100

            held = await third.open(request("cat"))
            await third.open(request("sh", "-c", "kill -9 $(pidof innkeeper-guest)"))
            end = await held.read()
            assert isinstance(end, Failed)
            assert "restarted" in end.reason
            assert (await run(third, "true")).end == Exited(code=0, signal=None)
