"""What the inspector lets through is harmless, whatever the bytes; and it lets through what people really have."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innkeeper.drivers.qcow2 import header as qcow2
from innkeeper.drivers.qcow2.faults import ImageRefused
from innkeeper.drivers.qcow2.header import Header, pack_extension
from innkeeper.drivers.qcow2.inspect import Inspected, Limits, check_overlay, inspect
from innkeeper.drivers.qcow2.render import GIB, overlay
from tests.contract.disks.images import CLUSTER, END, GOOD, HOSTILE_QCOW2, HOSTILE_RAW, MIB, Hostile, image, sample

pytestmark = pytest.mark.slow

LIMITS = Limits()
needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")


@pytest.mark.parametrize("hostile", HOSTILE_QCOW2, ids=lambda h: h.name)
def test_a_hostile_qcow2_is_refused_with_its_reason(hostile: Hostile) -> None:
    with pytest.raises(ImageRefused, match=hostile.says):
        inspect("qcow2", sample(hostile.data()), LIMITS)


@pytest.mark.parametrize("hostile", HOSTILE_RAW, ids=lambda h: h.name)
def test_a_disguised_raw_disk_is_refused_with_what_it_is(hostile: Hostile) -> None:
    with pytest.raises(ImageRefused, match=hostile.says) as caught:
        inspect("raw", sample(hostile.data()), LIMITS)
    assert caught.value.hint


@pytest.mark.parametrize("image_format", ["vmdk", "vdi", "host_device", "", "QCOW2"])
def test_other_formats_are_refused(image_format: str) -> None:
    with pytest.raises(ImageRefused, match="cannot be imported"):
        inspect(image_format, sample(image()), LIMITS)


@pytest.mark.parametrize(
    "good",
    [
        GOOD,
        replace(GOOD, version=2, header_length=qcow2.V2_LENGTH),
        replace(GOOD, header_length=qcow2.V3_LENGTH_MIN),
        replace(GOOD, compatible=1),  # lazy reference counts
        replace(GOOD, compatible=1 << 40),  # by definition safe to ignore
        replace(GOOD, incompatible=qcow2.INCOMPATIBLE_COMPRESSION, compression_type=1),
        replace(GOOD, refcount_order=0),
    ],
)
def test_a_good_qcow2_is_accepted(good: Header) -> None:
    assert inspect("qcow2", sample(image(good)), LIMITS) == Inspected(image_format="qcow2", virtual_bytes=64 * MIB)


def test_a_raw_disk_is_accepted_and_counted_in_whole_sectors() -> None:
    disk = bytes(510) + b"\x55\xaa" + b"x" * 100
    assert inspect("raw", sample(disk), LIMITS) == Inspected(image_format="raw", virtual_bytes=1024)


def test_limits_hold_for_raw_disks_too() -> None:
    with pytest.raises(ImageRefused, match="limit"):
        inspect("raw", sample(bytes(4096)), Limits(virtual_bytes_max=1024))
    with pytest.raises(ImageRefused, match="limit"):
        inspect("qcow2", sample(image()), Limits(file_bytes_max=1024))


# --- properties

# (offset, bytes) of all fields that we judge, and of the first words behind the header
OFFSETS = (0, 4, 8, 16, 20, 24, 32, 36, 40, 48, 56, 60, 64, 72, 80, 88, 96, 100, 104, 112, 116, 120)
BYTES = (4, 4, 8, 4, 4, 8, 4, 4, 8, 8, 4, 4, 8, 8, 8, 8, 4, 4, 1, 4, 4, 4)
FIELDS = list(zip(OFFSETS, BYTES, strict=True))
KNOWN_VALUES = [0, 1, 2, 7, 9, 16, 21, 64, 104, 112, CLUSTER, 1 << 31, 1 << 63]
HEADER_FIELDS = st.sampled_from(FIELDS)
VALUES = st.one_of(st.sampled_from(KNOWN_VALUES), st.integers(0, (1 << 64) - 1))


def harmless(data: bytes) -> bool:
    """Said once more, by offsets from the specification and in another way than the inspector does."""
    magic, version, backing_at, backing_size, bits, size, crypt, l1, l1_at, counts_at, counts, snapshots = (
        struct.unpack_from(">4sIQIIQIIQQII", data)
    )
    incompatible = struct.unpack_from(">Q", data, 72)[0] if version == 3 else 0
    return bool(
        magic == b"QFI\xfb"
        and version in (2, 3)
        and not (backing_at or backing_size or crypt or snapshots)
        and incompatible & 0b111 == 0
        and incompatible < 32
        and 9 <= bits <= 21
        and 0 < size <= LIMITS.virtual_bytes_max
        and l1 * 8 <= 32 * MIB
        and 0 < l1_at <= len(data)
        and 0 < counts_at <= len(data)
        and 0 < counts << bits <= 8 * MIB
    )


def judged(data: bytes) -> bool:
    try:
        found = inspect("qcow2", sample(data), LIMITS)
    except ImageRefused:
        return False
    assert found.virtual_bytes <= LIMITS.virtual_bytes_max
    return True


@settings(max_examples=600, deadline=None)
@given(changes=st.lists(st.tuples(HEADER_FIELDS, VALUES), min_size=1, max_size=4))
def test_whatever_the_fields_say_only_harmless_headers_pass(changes: list[tuple[tuple[int, int], int]]) -> None:
    data = bytearray(image())
    for (at, size), value in changes:
        data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "big")
    if judged(bytes(data)):
        assert harmless(bytes(data))


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=4096), image_format=st.sampled_from(["qcow2", "raw"]))
def test_bytes_of_any_kind_never_crash_it(data: bytes, image_format: str) -> None:
    said = ""
    try:
        inspect(image_format, sample(data), LIMITS)
    except ImageRefused as refused:
        said = refused.reason
    assert said or image_format == "raw"


@settings(max_examples=300, deadline=None)
@given(tail=st.binary(max_size=300), version=st.sampled_from([2, 3]))
def test_extensions_of_any_kind_never_crash_it(tail: bytes, version: int) -> None:
    judged(image(replace(GOOD, version=version), tail))


@pytest.mark.slow
def test_a_hundred_thousand_mutations() -> None:
    """Bits flipped in the header of a good image: never a crash, never a forbidden feature."""
    source = random.Random(20260)  # the same run each time
    good = image(length=CLUSTER) + bytes(3 * CLUSTER)
    passed = 0
    for _ in range(100_000):
        head = bytearray(good[:256])
        for _ in range(source.randint(1, 6)):
            head[source.randrange(144)] ^= 1 << source.randrange(8)
        data = bytes(head) + good[256:]
        if judged(data):
            passed += 1
            assert harmless(data)
    assert 0 < passed < 100_000


# --- the other side: images that qemu-img makes


@needs_qemu_img
@pytest.mark.parametrize(
    "options",
    ["compat=1.1", "compat=0.10", "lazy_refcounts=on", "cluster_size=512", "cluster_size=2M", "compression_type=zstd",
     "extended_l2=on", "refcount_bits=1", "refcount_bits=64", "preallocation=metadata"],
)  # fmt: skip
def test_what_qemu_img_makes_alone_is_accepted(tmp_path: Path, options: str) -> None:
    path = tmp_path / "made.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), "70M"]
    subprocess.run(argv, check=True, timeout=60)
    assert inspect("qcow2", sample(path.read_bytes()), LIMITS).virtual_bytes == 70 * MIB


@needs_qemu_img
def test_what_qemu_img_makes_with_secrets_of_the_host_is_refused(tmp_path: Path) -> None:
    def make(name: str, *argv: str) -> bytes:
        subprocess.run(["qemu-img", *argv], check=True, cwd=tmp_path, timeout=60, capture_output=True)
        return (tmp_path / name).read_bytes()

    made = [
        make("plain", "create", "-f", "qcow2", "plain", "10M"),
        make("over", "create", "-f", "qcow2", "-b", "plain", "-F", "qcow2", "over"),
        make("split", "create", "-f", "qcow2", "-o", "data_file=data.raw,data_file_raw=on", "split", "10M"),
        make("locked", "create", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o",
             "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "locked", "10M"),
        make("plain", "bitmap", "--add", "plain", "b0"),
    ]  # fmt: skip
    shutil.copy(tmp_path / "over", tmp_path / "snapped")
    subprocess.run(
        ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", "snapped"], check=True, cwd=tmp_path, timeout=60
    )
    made.append(make("snapped", "snapshot", "-c", "one", "snapped"))
    assert judged(made.pop(0))
    for data in made:
        assert not judged(data)


# --- volumes of our own

BACKING = "../templates/t-1/disk.qcow2"


def ours(**changes: int) -> bytes:
    made = overlay(GIB, BACKING).extents[0].data
    header = replace(qcow2.parse(made.ljust(4096, b"\0")), **changes)
    return (header.pack() + made[qcow2.V3_LENGTH :]).ljust(4096, b"\0")


def test_an_untouched_volume_passes() -> None:
    assert check_overlay(ours(), BACKING).size_bytes == GIB


@pytest.mark.parametrize(
    "changes,says",
    [
        ({"incompatible": qcow2.INCOMPATIBLE_DATA_FILE}, "never gave"),
        ({"incompatible": qcow2.INCOMPATIBLE_CORRUPT}, "corrupt"),
        ({"crypt_method": 1}, "never gave"),
        ({"nb_snapshots": 1}, "never gave"),
        ({"backing_file_offset": 0}, "stands over None"),
        ({"backing_file_size": 0}, "outside"),
        ({"backing_file_offset": 1 << 50}, "outside"),
        ({"cluster_bits": 0xFFFFFFFF}, "clusters"),
    ],
)
def test_a_volume_that_its_qemu_rewrote_is_refused(changes: dict[str, int], says: str) -> None:
    with pytest.raises(ImageRefused, match=says):
        check_overlay(ours(**changes), BACKING)


def test_a_volume_over_another_template_is_refused() -> None:
    with pytest.raises(ImageRefused, match="t-2"):
        check_overlay(ours().replace(b"t-1", b"t-2"), BACKING)


def test_a_volume_with_a_data_file_extension_is_refused() -> None:
    name = BACKING.encode()
    behind = pack_extension(0x44415441, b"/etc/shadow") + END + name
    at = qcow2.V3_LENGTH + len(behind) - len(name)
    header = replace(GOOD, backing_file_offset=at, backing_file_size=len(name))
    with pytest.raises(ImageRefused, match="extensions"):
        check_overlay(image(header, behind), BACKING)
