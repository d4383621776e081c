"""Is the proof of an accelerator one: does it pass where guests run, and fail where they do not?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.drivers.confine.hand import Launcher
from innkeeper.drivers.qemu.probe import guest
from innkeeper.drivers.qemu.probe.kvm import DEVICE, acceleration, opening_groups, prove
from innkeeper.drivers.qemu.probe.version import QemuFacts, QemuUnusable, probe_qemu
from innkeeper.drivers.qemu.render import Accelerator
from tests.vm.machines import QEMU, UID, unable

pytestmark = [pytest.mark.vm, pytest.mark.skipif(not QEMU.exists(), reason=f"{QEMU} is not installed")]
as_root = pytest.mark.skipif(unable() is not None, reason=str(unable()))


@pytest.fixture
async def qemu() -> QemuFacts:
    return await probe_qemu(str(QEMU))


@pytest.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[Launcher]:
    made = Launcher(tmp_path / "launcher.log")
    yield made
    made.close()


@pytest.mark.skipif(shutil.which("gcc") is None or shutil.which("ld") is None, reason="needs gcc and ld")
def test_the_guest_is_what_its_source_says(tmp_path: Path) -> None:
    source = Path(guest.__file__).with_name("guest.S")
    subprocess.run(["gcc", "-c", "-o", tmp_path / "guest.o", source], check=True)
    place = ["-Ttext=0x100000", "-e", "0x100020", "--oformat=binary"]
    subprocess.run(["ld", *place, "-o", tmp_path / "guest", tmp_path / "guest.o"], check=True)
    assert (tmp_path / "guest").read_bytes() == guest.IMAGE


@as_root
async def test_it_passes_where_guests_run(qemu: QemuFacts, launcher: Launcher) -> None:
    proof = await prove(qemu, launcher, Accelerator.TCG, UID, timeout_s=60)
    assert (proof.works, proof.certain) == (True, True), proof.words


@as_root
@pytest.mark.parametrize(
    "machine_type,words",
    [("pc", "step 6, device registers in memory"), ("q35,accel=none-such", "QEMU ended with code 1")],
)
async def test_it_fails_where_something_is_missing(
    qemu: QemuFacts, launcher: Launcher, machine_type: str, words: str
) -> None:
    proof = await prove(replace(qemu, machine_type=machine_type), launcher, Accelerator.TCG, UID, timeout_s=60)
    assert not proof.works
    assert words in proof.words


@as_root
async def test_interrupts_that_never_come_are_noticed_by_the_clock(qemu: QemuFacts, launcher: Launcher) -> None:
    without_timer = replace(qemu, machine_type=f"{qemu.machine_type},pit=off")
    proof = await prove(without_timer, launcher, Accelerator.TCG, UID, timeout_s=3)
    assert not proof.works
    assert "in 3 s" in proof.words


@as_root
async def test_the_answer_for_this_host_is_kept(qemu: QemuFacts, launcher: Launcher, tmp_path: Path) -> None:
    if not DEVICE.exists():
        pytest.skip(f"there is no {DEVICE} here")
    cache = tmp_path / "proofs.json"
    cache.write_text("damaged")
    first = await acceleration(qemu, launcher, UID, cache)
    assert first.reason
    if first.certain:
        known = json.loads(cache.read_text())
        assert len(known) == 1
        # What was kept is believed, so a changed word in it comes back.
        cache.write_text(json.dumps({key: value | {"words": "as kept"} for key, value in known.items()}))
        again = await acceleration(qemu, launcher, UID, cache)
        assert again.kind is first.kind
        assert "as kept" in again.reason or "only root" in again.reason


async def test_without_the_device_nothing_is_tried(qemu: QemuFacts, launcher: Launcher, tmp_path: Path) -> None:
    found = await acceleration(qemu, launcher, UID, tmp_path / "proofs.json", device=tmp_path / "kvm")
    assert (found.kind, launcher.pid) == (Accelerator.TCG, None)
    assert "there is no" in found.reason


@pytest.mark.parametrize(
    "mode,gid,groups",
    [(0o666, 0, ()), (0o660, 108, (108,)), (0o660, 0, None), (0o600, 108, None), (0o640, 108, None)],
)
def test_which_groups_open_the_device(mode: int, gid: int, groups: tuple[int, ...] | None) -> None:
    assert opening_groups(os.stat_result((0o020000 | mode, 0, 0, 1, 0, gid, 0, 0, 0, 0))) == groups


@pytest.mark.parametrize(
    "script,words",
    [
        (None, "cannot be run"),
        ("exit 3", "ended with code 3"),
        ("echo hello", "does not answer as QEMU"),
        ("echo '{\"return\": {}}'", "ended with code 0 when asked"),
    ],
)
async def test_what_is_no_qemu_is_refused_with_words(tmp_path: Path, script: str | None, words: str) -> None:
    program = tmp_path / "program"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    with pytest.raises(QemuUnusable, match=words):
        await probe_qemu(str(program))


@pytest.mark.parametrize(
    "version,options,words",
    [((7, 1), ["sandbox"], "7.2 or later"), ((6, 9), ["sandbox"], "7.2 or later"), ((9, 0), [], "without seccomp")],
)
async def test_too_old_and_too_open_ones_are_refused(
    tmp_path: Path, version: tuple[int, int], options: list[str], words: str
) -> None:
    answers = {
        "query-version": {"qemu": {"major": version[0], "minor": version[1], "micro": 0}, "package": ""},
        "query-machines": [{"name": "pc-q35-7.1"}],
        "query-command-line-options": [{"option": name, "parameters": []} for name in options],
    } | {name: {} for name in ("qmp_capabilities", "quit")}
    program = tmp_path / "program"
    lines = "\n".join(json.dumps({"return": value, "id": name}) for name, value in answers.items())
    program.write_text(f"#!/bin/sh\ncat > /dev/null\ncat <<'END'\n{lines}\nEND\n")
    program.chmod(0o755)
    with pytest.raises(QemuUnusable, match=words):
        await probe_qemu(str(program))
