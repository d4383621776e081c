"""The peer: libvirt, started by hand for the bench alone, without systemd, and ended with it."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from rows import Timed

NAME = "innkeeper-bench-peer"
_AGENT_EVERY_S = 0.05
_DEADLINE_S = 300

_DOMAIN = """<domain type='{kind}'>
  <name>{name}</name>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>{vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 root=/dev/vda ro</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='pty'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <memballoon model='none'/>
  </devices>
</domain>
"""


class Libvirt:
    """`template` is the folder of a template of ours. Its disk is only read; each start has a fresh overlay."""

    def __init__(self, template: Path, size: dict[str, int], accelerator: str) -> None:
        self._template = template
        self._size = size
        self._kind = "kvm" if accelerator == "kvm" else "qemu"
        self._folder = Path(tempfile.mkdtemp(prefix="inn-peer-", dir="/var/tmp"))
        self._daemons: list[Path] = []

    def __enter__(self) -> Libvirt:
        self._folder.chmod(0o755)
        missing = [p for p in ("virtlogd", "libvirtd", "virsh") if shutil.which(p) is None]
        if missing:
            raise SystemExit(
                f"the peer is not here ({', '.join(missing)}): apt-get install libvirt-daemon-system libvirt-clients"
            )
        # libvirt's QEMU runs as a user that reads files by path, so it gets copies it can reach.
        for name in ("disk.qcow2", "vmlinuz"):
            shutil.copy(self._template / name, self._folder / name)
            (self._folder / name).chmod(0o644)
        self._initrd = stock_initrd(self._template, self._folder)
        # Made by systemd or an init script elsewhere; here nobody did.
        for needed in ("/var/log/libvirt/qemu", "/var/lib/libvirt/qemu", "/run/libvirt"):
            Path(needed).mkdir(parents=True, exist_ok=True)
        for daemon in ("virtlogd", "libvirtd"):
            pid = self._folder / f"{daemon}.pid"
            subprocess.run([daemon, "-d", "-p", str(pid)], check=True)
            self._daemons.append(pid)
        self._until_up()
        self._forget()  # what a bench that was killed left defined
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forget()
        for pid in reversed(self._daemons):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                _end(int(pid.read_text()))
        shutil.rmtree(self._folder)

    def _forget(self) -> None:
        for verb in ("destroy", "undefine"):
            with contextlib.suppress(subprocess.CalledProcessError):  # there is none
                self._virsh(verb, NAME)

    def cold_start(self) -> Timed:
        """`virsh start` to the first answer of the guest agent; the domain is gone afterwards."""
        disk = self._folder / "overlay.qcow2"
        disk.unlink(missing_ok=True)
        base = self._folder / "disk.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(disk), "8G"], check=True
        )
        disk.chmod(0o666)
        text = _DOMAIN.format(
            kind=self._kind,
            name=NAME,
            disk=disk,
            kernel=self._folder / "vmlinuz",
            initrd=self._initrd,
            **self._size,
        )
        (self._folder / "domain.xml").write_text(text)
        self._virsh("define", str(self._folder / "domain.xml"))
        began = time.perf_counter()
        self._virsh("start", NAME)
        self._until_agent()
        wall = time.perf_counter() - began
        cpu = self._cpu_s()
        self._virsh("destroy", NAME)
        self._virsh("undefine", NAME)
        return Timed(wall_s=wall, cpu_s=cpu)

    def _until_agent(self) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while time.monotonic() < deadline:
            try:
                self._virsh("qemu-agent-command", NAME, '{"execute":"guest-ping"}')
                return
            except subprocess.CalledProcessError:
                time.sleep(_AGENT_EVERY_S)
        raise TimeoutError("the peer's guest agent did not answer")

    def _until_up(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                self._virsh("version")
                return
            except subprocess.CalledProcessError:
                time.sleep(0.2)
        raise TimeoutError("libvirtd does not answer")

    def _cpu_s(self) -> float:
        told = self._virsh("domstats", "--cpu-total", NAME)
        nanoseconds = next(line for line in told.splitlines() if "cpu.time=" in line).partition("=")[2]
        return int(nanoseconds) / 1e9

    @staticmethod
    def _virsh(*words: str) -> str:
        done = subprocess.run(
            ["virsh", "-q", "-c", "qemu:///system", *words], check=True, capture_output=True, text=True
        )
        return done.stdout


def _end(pid: int) -> None:
    """A daemon that is not our child: asked to end, and waited for."""
    held = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(held, signal.SIGTERM)
        select.select([held], [], [], 20)
    finally:
        os.close(held)


def stock_initrd(template: Path, folder: Path) -> Path:
    """The distribution's own initial RAM disk; a template without one (tiny) boots with ours."""
    target = folder / "initrd.img"
    stock = template / "initrd-stock.img"
    shutil.copy(stock if stock.exists() else template / "initrd.img", target)
    target.chmod(0o644)
    return target
