"""A place where the real program may change who the machine is, and touches nothing of this one.

Namespaces of its own for mounts, names and network, and a root file system of BusyBox's. The clock has no namespace, so
the program leaves it alone when it serves a test's socket. Cards are one end of a veth each; the
other end, put up or down, stands for the cable.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

BORN = "52:54:00:00:00:01"
BORN_TOO = "52:54:00:00:00:02"
FOLDERS = ("bin", "dev", "etc/ssh", "proc", "run", "sys", "tmp", "usr/lib/innkeeper", "var/lib/dbus", "var/lib/systemd")
# The sanitizers' libraries are not in the program.
LENT = ("lib", "lib64", "usr/lib/x86_64-linux-gnu")
SET_UP = f"""\
set -e
cd "$1"
mount --make-rprivate /
mount --rbind /proc proc
mount --rbind /dev dev
for lent in {" ".join(LENT)}; do [ ! -d "$lent" ] || mount --bind -o ro "/$lent" "$lent"; done
hostname baked
ip link set lo up
ip link add card0 address {BORN} type veth peer name cable0
ip link add card1 address {BORN_TOO} type veth peer name cable1
shift
exec chroot . "$@"
"""


@dataclass(frozen=True, slots=True)
class Place:
    root: Path

    def argv(self, program: str) -> list[str]:
        shutil.copy(program, self.root / "bin" / "innkeeper-guest")
        apart = ["unshare", "--mount", "--uts", "--net", "--", "sh", "-c", SET_UP, "sh", str(self.root)]
        return [*apart, "/bin/innkeeper-guest", "--identity"]

    def text(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)


def unable() -> str | None:
    """Why this machine has no such places; None if it has."""
    if os.geteuid() != 0:
        return "needs root: namespaces of its own"
    for tool in ("unshare", "nsenter", "ip", "busybox"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed: apt-get install util-linux iproute2 busybox-static"
    probe = "mount --make-rprivate / && ip link add probe type veth peer name other"
    tried = subprocess.run(
        ["unshare", "--mount", "--uts", "--net", "--", "sh", "-c", probe], capture_output=True, text=True, timeout=60
    )
    return None if tried.returncode == 0 else f"no namespaces or cards can be made here: {tried.stderr.strip()}"


@contextmanager
def place(folder: Path) -> Iterator[Place]:
    reason = unable()
    if reason is not None:
        pytest.skip(reason)
    root = folder / "root"
    for name in (*FOLDERS, *(lent for lent in LENT if Path("/", lent).is_dir())):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(str(shutil.which("busybox")), root / "bin" / "busybox")
    for name in ("sh", "cat", "hostname", "ip", "ls", "stat"):
        (root / "bin" / name).symlink_to("busybox")
    yield Place(root)


def inside(pid: int, *argv: str) -> str:
    """What a tool of this machine sees in a program's network and under its name."""
    enter = ["nsenter", "--target", str(pid), "--net", "--uts", "--"]
    return subprocess.run([*enter, *argv], capture_output=True, text=True, check=True, timeout=60).stdout
