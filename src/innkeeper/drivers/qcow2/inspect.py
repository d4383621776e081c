"""Whether an image from outside may be opened at all, decided on its first and last bytes. Pure.

This is an allow-list: what is not known to be harmless is refused. A qcow2 header can name other files (backing file,
data file), and tables outside of the file; a tool that opens such an image reads what its author chose, with our
rights. So an image is looked at here, in memory, before any tool sees it.

A raw image has no header. One that begins like another format is refused all the same: nobody means to boot a VMDK's
bytes, and a disk that looks like a qcow2 waits for the first careless tool that guesses.
"""

from __future__ import annotations

from dataclasses import dataclass

from innkeeper.drivers.qcow2 import header as qcow2
from innkeeper.drivers.qcow2.faults import ImageRefused
from innkeeper.drivers.qcow2.header import Header

HEAD_BYTES = 1 << 21  # the largest first cluster there can be
TAIL_BYTES = 512

_L1_BYTES_MAX = 32 << 20  # QEMU's own limits
_REFCOUNT_TABLE_BYTES_MAX = 8 << 20
_CLUSTER_BITS = range(9, 22)
_SECTOR = 512

_SAFE_INCOMPATIBLE = qcow2.INCOMPATIBLE_COMPRESSION | qcow2.INCOMPATIBLE_EXTENDED_L2
_SAFE_EXTENSIONS = {qcow2.EXTENSION_BACKING_FORMAT, qcow2.EXTENSION_FEATURE_NAMES}
_COMPRESSION_TYPES = {0, 1}  # zlib, zstd
_REWRITE = "If you trust it, rewrite it with `qemu-img convert -f qcow2 -O qcow2 OLD NEW` and import the new file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    virtual_bytes_max: int = 16 << 40
    file_bytes_max: int = 16 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What is looked at: the first HEAD_BYTES and the last TAIL_BYTES, or all of a smaller file; and its length."""

    head: bytes
    tail: bytes
    length_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    image_format: str
    virtual_bytes: int


def inspect(image_format: str, sample: Sample, limits: Limits) -> Inspected:
    """Judge an image by the format it was said to have.

    Raises:
        ImageRefused: with what is wrong with it, and what its owner can do.
    """
    if sample.length_bytes == 0:
        raise ImageRefused("the image is empty", "Check that it was copied completely")
    if sample.length_bytes > limits.file_bytes_max:
        raise _too_large(sample.length_bytes, limits.file_bytes_max)
    match image_format:
        case "qcow2":
            return _inspect_qcow2(sample, limits)
        case "raw":
            return _inspect_raw(sample, limits)
        case _:
            raise ImageRefused(
                f"images of format {image_format!r} cannot be imported",
                "Convert it to qcow2 on a machine where it does no harm, and import it with --image-format qcow2",
            )


def check_overlay(head: bytes, backing: str) -> Header:
    """A volume of our own, before it is opened: its QEMU may have been taken over and have rewritten the header.

    Raises:
        ImageRefused: it is no longer what we made: an overlay over exactly this backing file.
    """
    try:
        header = qcow2.parse(head)
        stated = qcow2.backing_file(head, header)
        kinds = {e.kind for e in qcow2.extensions(head, header)}
    except qcow2.NotReadable as error:
        raise ImageRefused(f"the disk {error}", _DAMAGED) from error
    if stated != backing:
        raise ImageRefused(f"the disk says that it stands over {stated!r}, it was made over {backing!r}", _DAMAGED)
    if header.incompatible & qcow2.INCOMPATIBLE_CORRUPT:
        raise ImageRefused("the disk was marked as corrupt by QEMU", _REPAIR)
    if header.version != 3 or header.incompatible or header.crypt_method or header.nb_snapshots:
        raise ImageRefused("the disk has features that we never gave it", _DAMAGED)
    if kinds - _SAFE_EXTENSIONS:
        raise ImageRefused("the disk has header extensions that we never gave it", _DAMAGED)
    return header


_DAMAGED = "It was damaged, or changed by somebody else: do not start it; restore a backup, or delete the instance"
_REPAIR = "Look at it with `qemu-img check -f qcow2`; restore a backup, or delete the instance"


# --- qcow2


def _inspect_qcow2(sample: Sample, limits: Limits) -> Inspected:
    if sample.head[:4] != qcow2.MAGIC:
        found = disguise(sample)
        if found is None:
            raise ImageRefused("the image is not qcow2", "If it is a plain disk, import it with --image-format raw")
        raise ImageRefused(f"the image is not qcow2 but {found.name}", found.hint)
    try:
        header = qcow2.parse(sample.head)
        _check_features(header)
        _check_extensions(sample.head, header)
    except qcow2.NotReadable as error:
        raise ImageRefused(f"the image {error}", _DAMAGED_IMAGE) from error
    _check_sizes(header, limits)
    _check_places(header, sample.length_bytes)
    return Inspected(image_format="qcow2", virtual_bytes=header.size_bytes)


def _check_features(header: Header) -> None:
    if header.backing_file_offset or header.backing_file_size:
        raise ImageRefused(
            "the image has a backing file, which it would read on this host", f"Flatten it first. {_REWRITE}"
        )
    if header.incompatible & qcow2.INCOMPATIBLE_DATA_FILE:
        raise ImageRefused("the image keeps its data in another file, which it would read on this host", _REWRITE)
    if header.crypt_method:
        raise ImageRefused("the image is encrypted", "Decrypt it first: we have no key for it")
    if header.nb_snapshots:
        raise ImageRefused(f"the image holds {header.nb_snapshots} internal snapshots", _REWRITE)
    if header.incompatible & qcow2.INCOMPATIBLE_CORRUPT:
        raise ImageRefused("the image is marked as corrupt", "Get a good copy of it")
    if header.incompatible & qcow2.INCOMPATIBLE_DIRTY:
        raise ImageRefused(
            "the image was not closed cleanly", "Run `qemu-img check -f qcow2 -r all` on it, or get a good copy"
        )
    if unknown := header.incompatible & ~_SAFE_INCOMPATIBLE:
        raise ImageRefused(f"the image has unknown incompatible features ({unknown:#x})", _REWRITE)
    _check_layout(header)


def _check_layout(header: Header) -> None:
    compressed = bool(header.incompatible & qcow2.INCOMPATIBLE_COMPRESSION)
    if header.compression_type not in _COMPRESSION_TYPES or compressed != bool(header.compression_type):
        raise ImageRefused(f"the image has an unknown compression type ({header.compression_type})", _REWRITE)
    if header.cluster_bits not in _CLUSTER_BITS:
        raise ImageRefused(f"the image has clusters of 2^{header.cluster_bits} bytes; 2^9 to 2^21 exist", _REWRITE)
    if header.incompatible & qcow2.INCOMPATIBLE_EXTENDED_L2 and header.cluster_bits < 14:
        raise ImageRefused("the image has extended tables with clusters that are too small for them", _REWRITE)
    if header.refcount_order > 6:
        raise ImageRefused(f"the image has reference counts of 2^{header.refcount_order} bits", _REWRITE)
    lengths = {qcow2.V2_LENGTH} if header.version == 2 else {qcow2.V3_LENGTH_MIN, qcow2.V3_LENGTH}
    if header.header_length not in lengths:
        raise ImageRefused(
            f"the image has a header of {header.header_length} bytes, which no known version writes", _REWRITE
        )


def _check_extensions(head: bytes, header: Header) -> None:
    for extension in qcow2.extensions(head, header):
        if extension.kind not in _SAFE_EXTENSIONS:
            raise ImageRefused(
                f"the image has a header extension that is not allowed ({extension.kind:#010x})", _REWRITE
            )


def _check_sizes(header: Header, limits: Limits) -> None:
    if header.size_bytes == 0 or header.size_bytes % _SECTOR:
        raise ImageRefused(
            f"the image says its disk is {header.size_bytes} bytes, which is no whole number of sectors", _REWRITE
        )
    if header.size_bytes > limits.virtual_bytes_max:
        raise _too_large(header.size_bytes, limits.virtual_bytes_max)
    entry_bytes = 16 if header.incompatible & qcow2.INCOMPATIBLE_EXTENDED_L2 else 8
    cluster = 1 << header.cluster_bits
    needed = -(-header.size_bytes // (cluster * (cluster // entry_bytes)))
    if header.l1_size < needed or header.l1_size * 8 > _L1_BYTES_MAX:
        raise ImageRefused(
            f"the image has {header.l1_size} first-level entries where {needed} are needed", _DAMAGED_IMAGE
        )
    table_bytes = header.refcount_table_clusters << header.cluster_bits
    if not 0 < table_bytes <= _REFCOUNT_TABLE_BYTES_MAX:
        raise ImageRefused(f"the image has a table of reference counts of {table_bytes} bytes", _DAMAGED_IMAGE)


_DAMAGED_IMAGE = "It is damaged: check that it was copied completely, or get a good copy"


def _too_large(length_bytes: int, limit_bytes: int) -> ImageRefused:
    return ImageRefused(
        f"the image is a disk of {length_bytes >> 30} GiB, the limit is {limit_bytes >> 30} GiB",
        "Shrink its file systems and partitions, then the image",
    )


def _check_places(header: Header, length_bytes: int) -> None:
    cluster = 1 << header.cluster_bits
    whole = -(-length_bytes // cluster) * cluster
    l1 = (header.l1_table_offset, header.l1_table_offset + header.l1_size * 8)
    counts = (header.refcount_table_offset, header.refcount_table_offset + header.refcount_table_clusters * cluster)
    for name, (first, end) in (("first-level table", l1), ("table of reference counts", counts)):
        if first % cluster or first < cluster or end > whole:
            raise ImageRefused(
                f"the image's {name} lies at {first} to {end}, the file is {length_bytes} bytes", _DAMAGED_IMAGE
            )
    if l1[0] < counts[1] and counts[0] < l1[1]:
        raise ImageRefused("the image's tables overlap", _DAMAGED_IMAGE)


# --- raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Disguise:
    name: str
    hint: str


_CONVERT = "Convert it to qcow2 on a machine where it does no harm, and import it with --image-format qcow2"
_UNPACK = "Unpack it, and import what is in it"
_AT_HEAD: tuple[tuple[int, bytes, str, str], ...] = (
    (0, qcow2.MAGIC, "a qcow2 image", "Import it with --image-format qcow2"),
    (0, b"KDMV", "a VMDK image", _CONVERT),
    (0, b"COWD", "a VMDK image", _CONVERT),
    (0, b"# Disk DescriptorFile", "a VMDK description", _CONVERT),
    (64, b"\x7f\x10\xda\xbe", "a VDI image", _CONVERT),
    (0, b"vhdxfile", "a VHDX image", _CONVERT),
    (0, b"conectix", "a VHD image", _CONVERT),
    (0, b"QED\x00", "a QED image", _CONVERT),
    (0, b"WithoutFreeSpace", "a Parallels image", _CONVERT),
    (0, b"WithouFreSpacExt", "a Parallels image", _CONVERT),
    (0, b"Bochs Virtual HD Image", "a Bochs image", _CONVERT),
    (0, b"LUKS\xba\xbe", "an encrypted (LUKS) volume", "Decrypt it first: we have no key for it"),
    (0, b"\x1f\x8b", "a gzip file", _UNPACK),
    (0, b"\xfd7zXZ\x00", "an xz file", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file", _UNPACK),
    (0, b"BZh", "a bzip2 file", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"PK\x03\x04", "a zip archive", _UNPACK),
    (257, b"ustar", "a tar archive (an OVA is one)", _UNPACK),
)
_AT_TAIL: tuple[tuple[bytes, str, str], ...] = (
    (b"conectix", "a VHD image", _CONVERT),
    (b"koly", "a DMG image", _CONVERT),
)


def disguise(sample: Sample) -> Disguise | None:
    """Which other format the bytes belong to by their magic numbers, if any."""
    for offset, magic, name, hint in _AT_HEAD:
        if sample.head[offset : offset + len(magic)] == magic:
            return Disguise(name=name, hint=hint)
    for magic, name, hint in _AT_TAIL:
        if sample.tail.startswith(magic):
            return Disguise(name=name, hint=hint)
    return None


def _inspect_raw(sample: Sample, limits: Limits) -> Inspected:
    found = disguise(sample)
    if found is not None:
        raise ImageRefused(f"the image was said to be raw but is {found.name}", found.hint)
    if sample.length_bytes > limits.virtual_bytes_max:
        raise _too_large(sample.length_bytes, limits.virtual_bytes_max)
    whole = -(-sample.length_bytes // _SECTOR) * _SECTOR
    return Inspected(image_format="raw", virtual_bytes=whole)
