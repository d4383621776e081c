"""Which bytes and which commands the qcow2 driver makes."""

from __future__ import annotations

from innkeeper.drivers.qcow2 import render
from innkeeper.drivers.qcow2.render import GIB, Bounds, Tools
from innkeeper.model.ids import TemplateId, VolumeId
from tests.golden.compare import same_as_golden

BOUNDS = Bounds(uid=700001, cpu_s=180, file_bytes=11 * GIB)


def dump(data: bytes) -> str:
    rows = (data[at : at + 16] for at in range(0, len(data), 16))
    return "".join(f"  {row.hex(' '):<48} {''.join(chr(b) if 32 <= b < 127 else '.' for b in row)}\n" for row in rows)


def test_an_overlay_of_ten_gib() -> None:
    made = render.overlay(10 * GIB, render.backing_name(TemplateId("t-3f09c2d41b7a")))
    text = "".join(f"at {e.offset:#x}\n{dump(e.data)}" for e in made.extents)
    same_as_golden("qcow2/overlay-10-gib.txt", f"{made.length_bytes} bytes\n{text}")


def test_import_of_a_qcow2() -> None:
    argv = render.confined(Tools(), BOUNDS, render.convert(Tools(), render.alone("qcow2", render.SOURCE)))
    same_as_golden("qcow2/import-qcow2.txt", "\n".join(argv) + "\n")


def test_import_of_a_raw_disk() -> None:
    argv = render.confined(Tools(), BOUNDS, render.convert(Tools(), render.alone("raw", render.SOURCE)))
    same_as_golden("qcow2/import-raw.txt", "\n".join(argv) + "\n")


def test_flattening_by_descriptors() -> None:
    argv = render.confined(Tools(), BOUNDS, render.convert(Tools(), render.layered((7, 8))))
    same_as_golden("qcow2/flatten.txt", "\n".join(argv) + "\n")


def test_flattening_a_chain() -> None:
    argv = render.confined(Tools(), BOUNDS, render.convert(Tools(), render.layered((7, 9, 8))))
    same_as_golden("qcow2/flatten-chain.txt", "\n".join(argv) + "\n")


def test_an_overlay_over_a_frozen_volume() -> None:
    made = render.overlay(10 * GIB, render.volume_name(VolumeId("vol-3f09c2d41b7a")))
    same_as_golden("qcow2/overlay-over-volume.txt", dump(made.extents[0].data))


def test_checking_without_being_root() -> None:
    bounds = Bounds(uid=None, cpu_s=180, file_bytes=11 * GIB)
    same_as_golden("qcow2/check.txt", "\n".join(render.confined(Tools(), bounds, render.check(Tools()))) + "\n")


def test_progress_is_the_newest_number_that_is_whole() -> None:
    assert render.progress("    (12.34/100%)\r    (15.00/100%)\r") == 0.15
    assert render.progress("    (12.34/100%)\r    (15.0") == 0.1234
    assert render.progress("(100.00/100%)\r\n") == 1.0
    assert render.progress("qemu-img: (what) 12/100") is None
    assert render.progress("") is None
