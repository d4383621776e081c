"""The first cluster of a qcow2 file, as numbers. Pure: bytes in, values out, and back.

    0            72           104          112                     backing_file_offset
    | version 2  | version 3  | version 3  | extensions, end mark  | name of the backing file |
    |            | features   | compress.  | (type, length, bytes) |                          |

Everything is big-endian. Version 2 ends after 72 bytes; version 3 says its own length. This file reads without judging:
what an image may contain is decided in inspect.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"QFI\xfb"
CLUSTER_BITS = 16
REFCOUNT_ORDER = 4
V2_LENGTH = 72
V3_LENGTH_MIN = 104
V3_LENGTH = 112

EXTENSION_END = 0
EXTENSION_BACKING_FORMAT = 0xE2792ACA
EXTENSION_FEATURE_NAMES = 0x6803F857

INCOMPATIBLE_DIRTY = 1 << 0
INCOMPATIBLE_CORRUPT = 1 << 1
INCOMPATIBLE_DATA_FILE = 1 << 2
INCOMPATIBLE_COMPRESSION = 1 << 3
INCOMPATIBLE_EXTENDED_L2 = 1 << 4

_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")


class NotReadable(ValueError):
    """The bytes are too few, or point outside of themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The fields by their names in the specification; those of version 3 default to what version 2 implies."""

    version: int
    backing_file_offset: int = 0
    backing_file_size: int = 0
    cluster_bits: int = CLUSTER_BITS
    size_bytes: int
    crypt_method: int = 0
    l1_size: int
    l1_table_offset: int
    refcount_table_offset: int
    refcount_table_clusters: int
    nb_snapshots: int = 0
    snapshots_offset: int = 0
    incompatible: int = 0
    compatible: int = 0
    autoclear: int = 0
    refcount_order: int = REFCOUNT_ORDER
    header_length: int = V3_LENGTH
    compression_type: int = 0

    def pack(self) -> bytes:
        """A version 3 header of 112 bytes, as QEMU writes it since 5.1."""
        return (
            _V2.pack(
                MAGIC,
                self.version,
                self.backing_file_offset,
                self.backing_file_size,
                self.cluster_bits,
                self.size_bytes,
                self.crypt_method,
                self.l1_size,
                self.l1_table_offset,
                self.refcount_table_offset,
                self.refcount_table_clusters,
                self.nb_snapshots,
                self.snapshots_offset,
            )
            + _V3.pack(self.incompatible, self.compatible, self.autoclear, self.refcount_order, self.header_length)
            + bytes([self.compression_type])
            + bytes(7)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    kind: int
    data: bytes


def parse(head: bytes) -> Header:
    """The header at the beginning of `head`.

    Raises:
        NotReadable: no qcow2 magic, a version other than 2 and 3, or too few bytes.
    """
    if len(head) < V2_LENGTH or head[:4] != MAGIC:
        raise NotReadable("does not begin with a qcow2 header")
    (_, version, *fields) = _V2.unpack_from(head)
    if fields[2] > 63:
        raise NotReadable("has clusters larger than any file")
    if version == 2:
        return Header(**_named(version, fields), header_length=V2_LENGTH)
    if version != 3:
        raise NotReadable(f"has qcow version {version}")
    if len(head) < V3_LENGTH_MIN:
        raise NotReadable("ends within its header")
    incompatible, compatible, autoclear, refcount_order, header_length = _V3.unpack_from(head, V2_LENGTH)
    if header_length > len(head):
        raise NotReadable("ends within its header")
    return Header(
        **_named(version, fields),
        incompatible=incompatible,
        compatible=compatible,
        autoclear=autoclear,
        refcount_order=refcount_order,
        header_length=header_length,
        compression_type=head[V3_LENGTH_MIN] if header_length > V3_LENGTH_MIN else 0,
    )


_V2_NAMES = (
    "backing_file_offset",
    "backing_file_size",
    "cluster_bits",
    "size_bytes",
    "crypt_method",
    "l1_size",
    "l1_table_offset",
    "refcount_table_offset",
    "refcount_table_clusters",
    "nb_snapshots",
    "snapshots_offset",
)


def _named(version: int, fields: list[int]) -> dict[str, int]:
    return {"version": version, **dict(zip(_V2_NAMES, fields, strict=True))}


def pack_extension(kind: int, data: bytes) -> bytes:
    return _EXTENSION.pack(kind, len(data)) + data + bytes(-len(data) % 8)


def extensions(head: bytes, header: Header) -> Iterator[Extension]:
    """The extensions up to, without, the end mark. Each step moves on by eight bytes at least.

    QEMU stops at the backing file's name, or else at the end of the first cluster.

    Raises:
        NotReadable: an extension is longer than what holds it.
    """
    end = min(len(head), header.backing_file_offset or (1 << header.cluster_bits))
    at = header.header_length
    while at + _EXTENSION.size <= end:
        kind, length = _EXTENSION.unpack_from(head, at)
        at += _EXTENSION.size
        if kind == EXTENSION_END:
            return
        if length > end - at:
            raise NotReadable("has a header extension that is longer than the space for it")
        yield Extension(kind=kind, data=head[at : at + length])
        at += length + -length % 8
    # QEMU takes a missing end mark for the end when the space is used up.


def backing_file(head: bytes, header: Header) -> str | None:
    """The name of the backing file as the header states it, or None.

    Raises:
        NotReadable: the name lies outside of `head`, or is not text.
    """
    if header.backing_file_offset == 0:
        return None
    name = head[header.backing_file_offset : header.backing_file_offset + header.backing_file_size]
    if len(name) != header.backing_file_size or not name:
        raise NotReadable("has a backing file name outside of its first cluster")
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise NotReadable("has a backing file name that is not text") from error
