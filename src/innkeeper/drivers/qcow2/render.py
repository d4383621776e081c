"""What goes to disk and to qemu-img, as values. Pure.

An empty overlay is four structures and nothing else, so we write it ourselves: no process on the launch path.

    cluster 0   header, extension "backing format", name of the backing file
    cluster 1   refcount table: one entry, pointing at cluster 2
    cluster 2   refcount block: a 1 for each cluster of this file
    cluster 3…  L1 table: all zero, so that everything is read from the backing file

The name of the backing file stands in the header, relative to the volume's own folder. QEMU and qemu-img are always
told the backing file explicitly and never follow that name; it is there for the operator (`qemu-img info
--backing-chain` tells the truth, also in a pool that was moved) and lets us notice a volume over a wrong template.

Every argv names every format. A format that is left to be guessed is chosen by the guest, who owns the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from innkeeper.drivers.qcow2.header import (
    CLUSTER_BITS,
    EXTENSION_BACKING_FORMAT,
    EXTENSION_END,
    V3_LENGTH,
    Header,
    pack_extension,
)
from innkeeper.model.ids import TemplateId, VolumeId

GIB = 1 << 30
SIZE_GIB_MAX = 64 * 1024
CLUSTER = 1 << CLUSTER_BITS
_L1_SPAN = CLUSTER * (CLUSTER // 8)  # bytes of guest disk behind one L1 entry: 512 MiB

# When memory runs out, a tool that reads what a stranger wrote goes before any guest.
OOM_SCORE = 500

SOURCE = "source"  # names inside a staging folder
DISK = "disk.qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseFile:
    """A file of `length_bytes` that holds these extents and otherwise zeros."""

    length_bytes: int
    extents: tuple[Extent, ...]


def backing_name(template: TemplateId) -> str:
    """How a volume names its template's disk: relative to the folder of volumes."""
    return f"../templates/{template}/{DISK}"


def volume_name(volume: VolumeId) -> str:
    """How a volume names the one below it, which lies beside it."""
    return f"{volume}.qcow2"


def overlay(size_bytes: int, backing: str) -> SparseFile:
    """An empty qcow2 of version 3 over a qcow2 backing file, of this virtual size."""
    if not 0 < size_bytes <= SIZE_GIB_MAX * GIB:
        raise ValueError(f"an overlay of {size_bytes} bytes is outside of 1 byte to {SIZE_GIB_MAX} GiB")
    name = backing.encode()
    l1_size = -(-size_bytes // _L1_SPAN)
    clusters = 3 + -(-l1_size * 8 // CLUSTER)
    tail = pack_extension(EXTENSION_BACKING_FORMAT, b"qcow2") + pack_extension(EXTENSION_END, b"")
    header = Header(
        version=3,
        backing_file_offset=V3_LENGTH + len(tail),
        backing_file_size=len(name),
        size_bytes=size_bytes,
        l1_size=l1_size,
        l1_table_offset=3 * CLUSTER,
        refcount_table_offset=CLUSTER,
        refcount_table_clusters=1,
    )
    return SparseFile(
        length_bytes=clusters * CLUSTER,
        extents=(
            Extent(offset=0, data=header.pack() + tail + name),
            Extent(offset=CLUSTER, data=(2 * CLUSTER).to_bytes(8, "big")),
            Extent(offset=2 * CLUSTER, data=b"\x00\x01" * clusters),
        ),
    )


# --- qemu-img


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Absolute paths: what is found in PATH is the caller's choice, not ours."""

    qemu_img: str = "/usr/bin/qemu-img"
    prlimit: str = "/usr/bin/prlimit"
    setpriv: str = "/usr/bin/setpriv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one run of a tool may use. `uid` None: we are nobody special ourselves, so there is nothing to give up.

    `memory_bytes` is of addresses, not of memory: on a busy host qemu-img has twenty threads, with 60 MiB each.
    """

    uid: int | None
    cpu_s: int
    file_bytes: int
    memory_bytes: int = 4 << 30


def confined(tools: Tools, bounds: Bounds, argv: tuple[str, ...]) -> tuple[str, ...]:
    """The same command with limits, without any right that it does not need, and dying with us.

    Every tool of ours is begun to die with us; one that becomes another user has to say it again.
    """
    limits = (
        tools.prlimit,
        f"--as={bounds.memory_bytes}",
        f"--cpu={bounds.cpu_s}",
        f"--fsize={bounds.file_bytes}",
        "--core=0",
        "--nofile=64",
        "--",
    )
    identity: tuple[str, ...] = ()
    if bounds.uid is not None:
        identity = (
            f"--reuid={bounds.uid}",
            f"--regid={bounds.uid}",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
        )
    return (*limits, tools.setpriv, *identity, "--no-new-privs", "--pdeathsig=KILL", "--", *argv)


def convert(tools: Tools, source: str) -> tuple[str, ...]:
    """Into a fresh qcow2 of our own making in the working directory, with progress on standard output."""
    options = "compat=1.1,cluster_size=65536,lazy_refcounts=off,compression_type=zlib"
    return (tools.qemu_img, "convert", "-p", "-O", "qcow2", "-o", options, source, DISK)


def check(tools: Tools) -> tuple[str, ...]:
    return (tools.qemu_img, "check", "-q", "-f", "qcow2", DISK)


def alone(image_format: str, filename: str) -> str:
    """A source that stands on nothing: a qcow2's own claims about a backing file are overruled."""
    return _json(_node(image_format, filename))


def layered(fds: Sequence[int]) -> str:
    """A disk with all that stands below it, each by passed descriptor, from the top down."""
    chain: dict[str, object] | None = None
    for fd in reversed(fds):
        chain = _node("qcow2", f"/proc/self/fd/{fd}") | {"backing": chain}
    if chain is None:
        raise ValueError("a disk has one layer at least")
    return _json(chain)


def _node(image_format: str, filename: str) -> dict[str, object]:
    node: dict[str, object] = {"driver": image_format, "file": {"driver": "file", "filename": filename}}
    return node | {"backing": None} if image_format == "qcow2" else node


def _json(node: dict[str, object]) -> str:
    return "json:" + json.dumps(node, separators=(",", ":"))


def progress(text: str) -> float | None:
    """The newest fraction in what qemu-img -p printed, such as `    (12.34/100%)`."""
    for piece in reversed(text.split("(")):
        number, slash, _ = piece.partition("/")
        if slash and number.replace(".", "", 1).isdigit():
            return min(float(number) / 100, 1.0)
    return None
