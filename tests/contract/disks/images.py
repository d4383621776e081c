"""Images to try the inspector with: a good qcow2 header, and many that are not."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from innkeeper.drivers.qcow2 import header as qcow2
from innkeeper.drivers.qcow2.header import Header, pack_extension
from innkeeper.drivers.qcow2.inspect import TAIL_BYTES, Sample

MIB = 1 << 20
CLUSTER = 1 << 16
GOOD = Header(
    version=3,
    size_bytes=64 * MIB,
    l1_size=1,
    l1_table_offset=3 * CLUSTER,
    refcount_table_offset=CLUSTER,
    refcount_table_clusters=1,
)
END = pack_extension(qcow2.EXTENSION_END, b"")


def image(header: Header = GOOD, behind: bytes = END, length: int = 4 * CLUSTER) -> bytes:
    """A whole file: header, what stands behind it, the smallest tables, zeros."""
    head = header.pack() if header.version != 2 else header.pack()[: qcow2.V2_LENGTH]
    file = bytearray(max(length, CLUSTER))
    file[0 : len(head) + len(behind)] = head + behind
    if length >= 3 * CLUSTER:
        file[CLUSTER : CLUSTER + 8] = struct.pack(">Q", 2 * CLUSTER)
        file[2 * CLUSTER : 2 * CLUSTER + 8] = b"\0\1" * 4
    return bytes(file[:length])


def sample(data: bytes) -> Sample:
    return Sample(head=data, tail=data[-TAIL_BYTES:], length_bytes=len(data))


@dataclass(frozen=True, slots=True)
class Hostile:
    """`says` is part of the refusal; `by_qemu` tells that qemu-img would open it, which is why we look first."""

    name: str
    data: Callable[[], bytes]
    says: str


def _with(**changes: int) -> Callable[[], bytes]:
    return lambda: image(replace(GOOD, **changes))


def _named(header: Header, name: bytes) -> bytes:
    at = qcow2.V3_LENGTH + len(END)
    return image(replace(header, backing_file_offset=at, backing_file_size=len(name)), END + name)


def _extended(kind: int, data: bytes) -> Callable[[], bytes]:
    return lambda: image(GOOD, pack_extension(kind, data) + END)


def _cut(length: int) -> Callable[[], bytes]:
    return lambda: image()[:length]


def _patched(at: int, data: bytes) -> Callable[[], bytes]:
    def made() -> bytes:
        file = bytearray(image())
        file[at : at + len(data)] = data
        return bytes(file)

    return made


HOSTILE_QCOW2 = (
    Hostile("backing file", lambda: _named(GOOD, b"/etc/shadow"), "backing file"),
    Hostile("backing file by protocol", lambda: _named(GOOD, b"nbd://10.0.0.1/x"), "backing file"),
    Hostile("backing file as json", lambda: _named(GOOD, b'json:{"driver":"host_device"}'), "backing file"),
    Hostile("backing file of no name", _with(backing_file_offset=512), "backing file"),
    Hostile("backing file of size alone", _with(backing_file_size=11), "backing file"),
    Hostile("backing file far away", _with(backing_file_offset=1 << 60, backing_file_size=9), "backing file"),
    Hostile("data file", _with(incompatible=qcow2.INCOMPATIBLE_DATA_FILE), "another file"),
    Hostile("data file's name without its bit", _extended(0x44415441, b"/etc/shadow"), "extension"),
    Hostile("AES", _with(crypt_method=1), "encrypted"),
    Hostile("LUKS", _with(crypt_method=2), "encrypted"),
    Hostile("LUKS extension", _extended(0x0537BE77, bytes(16)), "extension"),
    Hostile("snapshots", _with(nb_snapshots=1, snapshots_offset=CLUSTER), "internal snapshots"),
    Hostile("snapshots without end", _with(nb_snapshots=0xFFFFFFFF), "internal snapshots"),
    Hostile("bitmaps", _extended(0x23852875, bytes(24)), "extension"),
    Hostile("extension of tomorrow", _extended(0x12345678, b"?"), "extension"),
    Hostile("extension longer than the cluster", _patched(112, struct.pack(">II", 0xE2792ACA, 0xFFFFFFF0)), "longer"),
    Hostile("dirty", _with(incompatible=qcow2.INCOMPATIBLE_DIRTY), "not closed"),
    Hostile("corrupt", _with(incompatible=qcow2.INCOMPATIBLE_CORRUPT), "corrupt"),
    Hostile("unknown feature", _with(incompatible=1 << 5), "unknown incompatible"),
    Hostile("all features", _with(incompatible=(1 << 64) - 1), "another file"),
    Hostile("highest feature", _with(incompatible=1 << 63), "unknown incompatible"),
    Hostile("compression without its bit", _with(compression_type=1), "compression"),
    Hostile("bit without compression", _with(incompatible=qcow2.INCOMPATIBLE_COMPRESSION), "compression"),
    Hostile(
        "unknown compression", _with(incompatible=qcow2.INCOMPATIBLE_COMPRESSION, compression_type=9), "compression"
    ),
    Hostile("clusters of 2^8", _with(cluster_bits=8), "clusters"),
    Hostile("clusters of 2^22", _with(cluster_bits=22), "clusters"),
    Hostile("clusters larger than memory", _with(cluster_bits=0xFFFFFFFF), "clusters"),
    Hostile(
        "extended tables in small clusters",
        _with(incompatible=qcow2.INCOMPATIBLE_EXTENDED_L2, cluster_bits=9),
        "extended",
    ),
    Hostile("counts of 128 bits", _with(refcount_order=7), "reference counts"),
    Hostile("header of 96 bytes", _with(header_length=96), "header of"),
    Hostile("header of 4 GiB", _with(header_length=0xFFFFFFFF), "ends within"),
    Hostile("header of 120 bytes", _with(header_length=120), "header of"),
    Hostile("no size", _with(size_bytes=0), "sectors"),
    Hostile("half a sector", _with(size_bytes=64 * MIB + 1), "sectors"),
    Hostile("16 EiB", _with(size_bytes=(1 << 64) - 512), "limit"),
    Hostile("17 TiB", _with(size_bytes=17 << 40), "limit"),
    Hostile("too few first-level entries", _with(size_bytes=1 << 40), "first-level"),
    Hostile("no first-level entries", _with(l1_size=0), "first-level"),
    Hostile("32 GiB of first-level entries", _with(l1_size=0xFFFFFFFF), "first-level"),
    Hostile("first-level table in the header", _with(l1_table_offset=0), "first-level"),
    Hostile("first-level table between clusters", _with(l1_table_offset=3 * CLUSTER + 8), "first-level"),
    Hostile("first-level table outside", _with(l1_table_offset=1 << 62), "first-level"),
    Hostile("first-level table just outside", _with(l1_table_offset=4 * CLUSTER), "first-level"),
    Hostile("no counts", _with(refcount_table_clusters=0), "reference counts"),
    Hostile("too many counts", _with(refcount_table_clusters=0xFFFFFFFF), "reference counts"),
    Hostile("counts in the header", _with(refcount_table_offset=0), "reference counts"),
    Hostile("counts outside", _with(refcount_table_offset=1 << 63), "reference counts"),
    Hostile("counts over the first-level table", _with(refcount_table_offset=3 * CLUSTER), "overlap"),
    Hostile("version 1", _patched(4, struct.pack(">I", 1)), "version 1"),
    Hostile("version 4", _patched(4, struct.pack(">I", 4)), "version 4"),
    Hostile("cut within the magic", _cut(3), "not qcow2"),
    Hostile("cut within version 2", _cut(71), "header"),
    Hostile("cut within version 3", _cut(103), "header"),
    Hostile("cut before the tables", _cut(CLUSTER), "first-level"),
    Hostile("zeros", lambda: bytes(4 * CLUSTER), "not qcow2"),
    Hostile("a raw disk", lambda: bytes(510) + b"\x55\xaa" + bytes(CLUSTER), "not qcow2"),
    Hostile("a VMDK", lambda: b"KDMV" + bytes(CLUSTER), "VMDK"),
    Hostile("nothing", lambda: b"", "empty"),
)

HOSTILE_RAW = (
    Hostile("qcow2 version 3", image, "qcow2"),
    Hostile("qcow2 version 2", lambda: image(replace(GOOD, version=2)), "qcow2"),
    Hostile("qcow version 1", lambda: b"QFI\xfb\0\0\0\1" + bytes(CLUSTER), "qcow2"),
    Hostile("VMDK, sparse", lambda: b"KDMV" + bytes(CLUSTER), "VMDK"),
    Hostile("VMDK, ESX", lambda: b"COWD" + bytes(CLUSTER), "VMDK"),
    Hostile("VMDK, text", lambda: b"# Disk DescriptorFile\nversion=1\n", "VMDK"),
    Hostile("VDI", lambda: b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe", "VDI"),
    Hostile("VHDX", lambda: b"vhdxfile" + bytes(CLUSTER), "VHDX"),
    Hostile("VHD, dynamic", lambda: b"conectix" + bytes(CLUSTER), "VHD"),
    Hostile("VHD, fixed", lambda: bytes(CLUSTER) + b"conectix" + bytes(504), "VHD"),
    Hostile("DMG", lambda: bytes(CLUSTER) + b"koly" + bytes(508), "DMG"),
    Hostile("QED", lambda: b"QED\0" + bytes(CLUSTER), "QED"),
    Hostile("Parallels", lambda: b"WithoutFreeSpace" + bytes(CLUSTER), "Parallels"),
    Hostile("Parallels, extended", lambda: b"WithouFreSpacExt" + bytes(CLUSTER), "Parallels"),
    Hostile("Bochs", lambda: b"Bochs Virtual HD Image" + bytes(CLUSTER), "Bochs"),
    Hostile("LUKS", lambda: b"LUKS\xba\xbe\0\1" + bytes(CLUSTER), "LUKS"),
    Hostile("gzip", lambda: b"\x1f\x8b\x08" + bytes(CLUSTER), "gzip"),
    Hostile("xz", lambda: b"\xfd7zXZ\0" + bytes(CLUSTER), "xz"),
    Hostile("zstd", lambda: b"\x28\xb5\x2f\xfd" + bytes(CLUSTER), "zstd"),
    Hostile("bzip2", lambda: b"BZh91AY&SY" + bytes(CLUSTER), "bzip2"),
    Hostile("zip", lambda: b"PK\x03\x04" + bytes(CLUSTER), "zip"),
    Hostile("7z", lambda: b"7z\xbc\xaf\x27\x1c" + bytes(CLUSTER), "7z"),
    Hostile("OVA", lambda: b"box.ovf".ljust(257, b"\0") + b"ustar\0" + bytes(CLUSTER), "tar"),
    Hostile("nothing", lambda: b"", "empty"),
)
