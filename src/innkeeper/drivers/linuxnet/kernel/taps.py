"""Taps: persistent ones, in whatever network namespace the calling thread has entered, and loose ones.

One queue, with the virtio header (IFF_VNET_HDR), so that QEMU may leave checksums and segmentation to the kernel. No
owner is set: only who may administer the namespace attaches by name, and QEMU gets its descriptor from us.
"""

from __future__ import annotations

import fcntl
import os
import struct

from innkeeper.drivers.linuxnet.kernel import namespaces

_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
DEVICE = "/dev/net/tun"
LOOSE = "loose"


def attach(name: str) -> int:
    """A fresh descriptor of this tap, which is made if it is not there. EBUSY: somebody else holds it."""
    fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
        fcntl.ioctl(fd, _TUNSETIFF, request)
    except BaseException:
        os.close(fd)
        raise
    return fd


def create(name: str) -> None:
    """A tap that stays when nobody holds it. Until that is said it goes with us: a crash leaves none half-made."""
    fd = attach(name)
    try:
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    finally:
        os.close(fd)


def loose() -> int:
    """A fresh descriptor of a tap that leads nowhere: it is alone in a namespace that has no name.

    Whoever has it open keeps that namespace alive; with the last of them both are gone. It is down, and stays so.
    """
    with namespaces.nameless():
        return attach(LOOSE)
