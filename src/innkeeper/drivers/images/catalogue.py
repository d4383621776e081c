"""The catalogue: which templates we can build, and what each is made of. Only values; `render` has the words for tools.

Both entries boot Debian's cloud kernel. It is the same source as the general one, built without drivers for hardware
that a machine of ours does not have; its image is packed with LZ4 where the other is packed with XZ, which alone costs
seconds under emulation, and ext4 is built in. What it lacks (vmgenid, graphics, sound) no machine of ours offers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

SUITE = "bookworm"
KERNEL_PACKAGE = "linux-image-cloud-amd64"

# `quiet` keeps warnings and drops chatter that a serial line prints slowly. The crypto self-tests are known-answer
# tests of code that the machine has just checked the signature of; upstream leaves them out by default, Debian's
# kernel builds them in. Under emulation, on a busy host, the kernel waits in vain for a few ticks of its timer, takes
# that for broken hardware and gives up (seen once in 64 boots under threefold load); under KVM it never asks.
_KERNEL_ARGS = "console=ttyS0 quiet root=/dev/vda rw cryptomgr.notests no_timer_check"


class Layout(StrEnum):
    """How the packages become a root file system."""

    INSTALLED = "installed"  # unpacked, configured, a system that apt goes on keeping
    PICKED = "picked"  # a few programs with the libraries they need, picked out of unpacked packages


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What one image is made of.

    `early_modules` stand in the initial RAM disk; `late_modules` are picked for the root, where it does not have all.
    `size_gib` is the disk's, small, because instances grow theirs; `room_mib` is what a build needs while it works.
    """

    name: str
    os: str
    layout: Layout
    packages: tuple[str, ...]
    early_modules: tuple[str, ...]
    late_modules: tuple[str, ...] = ()
    kernel_args: str = _KERNEL_ARGS
    size_gib: int
    room_mib: int
    cloud_init: bool


# The order matters: the console driver asks the host for its ports' names while the disk's driver loads.
_EARLY_MODULES = ("virtio_pci", "virtio_console", "virtio_blk")

DEBIAN_12 = Recipe(
    name="debian-12",
    os="Debian GNU/Linux 12 (bookworm)",
    layout=Layout.INSTALLED,
    packages=(
        KERNEL_PACKAGE,
        "busybox-static",
        "ca-certificates",
        "cloud-init",
        "dbus",
        "e2fsck-static",
        "iproute2",
        "iputils-ping",
        "less",
        "libnss-resolve",
        "libpam-systemd",
        "netbase",
        "openssh-server",
        "qemu-guest-agent",
        "sudo",
        "systemd-resolved",
        "systemd-sysv",
        "systemd-timesyncd",
        "udev",
        "unattended-upgrades",
        "vim-tiny",
    ),
    early_modules=_EARLY_MODULES,
    size_gib=2,
    room_mib=2200,
    cloud_init=True,
)

TINY = Recipe(
    name="tiny",
    os="Innkeeper tiny (Debian kernel and BusyBox)",
    layout=Layout.PICKED,
    packages=(KERNEL_PACKAGE, "busybox-static", "e2fsck-static", "e2fsprogs", "qemu-guest-agent"),
    early_modules=_EARLY_MODULES,
    # The name until DHCP gives one; a later `hostname=` takes precedence.
    kernel_args=f"{_KERNEL_ARGS} hostname=tiny",
    late_modules=("button", "evdev", "isofs", "loop", "overlay", "pvpanic-mmio", "virtio_net", "virtio_rng"),
    size_gib=1,
    room_mib=600,
    cloud_init=False,
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in (DEBIAN_12, TINY)})
