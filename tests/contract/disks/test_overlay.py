"""The overlay that we write ourselves is the one that qemu-img would have made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from innkeeper.drivers.qcow2 import header as qcow2
from innkeeper.drivers.qcow2.header import Header
from innkeeper.drivers.qcow2.places import write_sparse
from innkeeper.drivers.qcow2.render import GIB, SIZE_GIB_MAX, overlay

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")

BELOW = "below.qcow2"
SIZES = st.one_of(st.integers(1, 64), st.integers(1, SIZE_GIB_MAX))


def qemu_img(folder: Path, *argv: str) -> str:
    return subprocess.run(
        ["qemu-img", *argv], cwd=folder, check=True, capture_output=True, text=True, timeout=60
    ).stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("overlay")
    qemu_img(made, "create", "-q", "-f", "qcow2", BELOW, "1G")
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 3M", BELOW], cwd=made, check=True, capture_output=True
    )
    return made


def written(folder: Path, size_bytes: int) -> Path:
    path = folder / "ours.qcow2"
    path.unlink(missing_ok=True)
    write_sparse(path, overlay(size_bytes, BELOW), os.geteuid())
    return path


def header_of(path: Path) -> tuple[bytes, Header]:
    head = path.read_bytes()[: 1 << 16]
    return head, qcow2.parse(head)


def without_name_place(header: Header) -> Header:
    """qemu-img writes the names of features, too; so its name of the backing file stands further behind."""
    return replace(header, backing_file_offset=0)


@settings(deadline=None, max_examples=40)
@given(size_gib=SIZES)
@example(size_gib=1)
@example(size_gib=4 * 1024)  # the last size whose first-level table is one cluster
@example(size_gib=4 * 1024 + 1)
@example(size_gib=SIZE_GIB_MAX)
def test_header_and_tables_are_those_of_qemu_img(folder: Path, size_gib: int) -> None:
    ours = written(folder, size_gib * GIB)
    theirs = folder / "theirs.qcow2"
    options = "compat=1.1,cluster_size=65536,lazy_refcounts=off"
    qemu_img(
        folder, "create", "-q", "-f", "qcow2", "-o", options, "-b", BELOW, "-F", "qcow2", theirs.name, f"{size_gib}G"
    )
    our_head, our_header = header_of(ours)
    their_head, their_header = header_of(theirs)
    assert without_name_place(our_header) == without_name_place(their_header)
    assert qcow2.backing_file(our_head, our_header) == qcow2.backing_file(their_head, their_header) == BELOW
    ignored = qcow2.EXTENSION_FEATURE_NAMES
    their_extensions = [e for e in qcow2.extensions(their_head, their_header) if e.kind != ignored]
    assert list(qcow2.extensions(our_head, our_header)) == their_extensions
    # All behind the first cluster: tables of reference counts and of places.
    at = 1 << 16
    our_rest, their_rest = ours.read_bytes()[at:], theirs.read_bytes()[at:]
    assert our_rest.rstrip(b"\0") == their_rest.rstrip(b"\0")


@settings(deadline=None, max_examples=25)
@given(size_gib=SIZES)
@example(size_gib=SIZE_GIB_MAX)
def test_qemu_img_finds_nothing_wrong(folder: Path, size_gib: int) -> None:
    ours = written(folder, size_gib * GIB)
    checked = json.loads(qemu_img(folder, "check", "-f", "qcow2", "--output=json", ours.name))
    assert {k: checked.get(k, 0) for k in ("check-errors", "corruptions", "leaks")} == {
        "check-errors": 0,
        "corruptions": 0,
        "leaks": 0,
    }
    told = json.loads(qemu_img(folder, "info", "-f", "qcow2", "--output=json", ours.name))
    assert told["virtual-size"] == size_gib * GIB
    assert told["backing-filename"] == BELOW
    assert told["backing-filename-format"] == "qcow2"
    data = told["format-specific"]["data"]
    assert data == {
        "compat": "1.1",
        "compression-type": "zlib",
        "lazy-refcounts": False,
        "refcount-bits": 16,
        "corrupt": False,
        "extended-l2": False,
    }


def test_what_is_below_is_read_and_what_is_written_stays(folder: Path) -> None:
    ours = written(folder, 3 * GIB)
    commands = ("read -P 7 0 3M", "read -P 0 3M 1M", "read -P 0 2900M 1M", "write -P 9 1M 64k", "write -P 5 3071M 1M")
    argv = [word for command in commands for word in ("-c", command)]
    told = subprocess.run(
        ["qemu-io", "-f", "qcow2", *argv, ours.name], cwd=folder, check=True, capture_output=True, text=True
    )
    assert "verification failed" not in told.stdout
    again = ("read -P 7 0 1M", "read -P 9 1M 64k", "read -P 7 1088k 960k", "read -P 5 3071M 1M")
    argv = [word for command in again for word in ("-c", command)]
    told = subprocess.run(
        ["qemu-io", "-r", "-f", "qcow2", *argv, ours.name], cwd=folder, check=True, capture_output=True, text=True
    )
    assert "verification failed" not in told.stdout
    assert "No errors" in qemu_img(folder, "check", "-f", "qcow2", ours.name)
    # The header keeps its say about what is below, which check_chain compares.
    head, header = header_of(ours)
    assert qcow2.backing_file(head, header) == BELOW


@pytest.mark.parametrize("size_bytes", [0, -1, SIZE_GIB_MAX * GIB + 1])
def test_an_absurd_size_is_refused(size_bytes: int) -> None:
    with pytest.raises(ValueError, match="outside of"):
        overlay(size_bytes, BELOW)


def test_an_empty_overlay_takes_next_to_nothing(folder: Path) -> None:
    assert written(folder, SIZE_GIB_MAX * GIB).stat().st_blocks * 512 <= 16 * 1024
