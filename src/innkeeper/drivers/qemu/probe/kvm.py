"""Whether KVM works here, by proof.

`/dev/kvm` that opens is not KVM that works. Where the machine is itself a guest, the module may be there and only be
able to run kernels that were made for it, or interpret instructions one by one: an ordinary guest then gets through its
firmware, slowly, and dies or crawls in its first second. So a guest of our own does what that first second does
(guest.S), on an ordinary board, as the user that machines run as, once per kernel and QEMU; what came out is kept.

On hardware that works, it takes a fraction of a second, most of it in the firmware, also when nested: it leaves to QEMU
a few hundred times only. What interprets fails at floating point, or is not through 200 million instructions in time.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from innkeeper.drivers.qemu import process
from innkeeper.drivers.qemu.directory import MachineDirectory
from innkeeper.drivers.qemu.machine import exit_is_written
from innkeeper.drivers.qemu.probe.guest import EXIT_PORT, GOOD, IMAGE, STEPS, step_of
from innkeeper.drivers.qemu.probe.version import QemuFacts
from innkeeper.drivers.qemu.render import Accelerator
from innkeeper.ports.launcher import FIRST_DESCRIPTOR, LauncherPort, SpawnFailed, SpawnRequest

DEVICE = Path("/dev/kvm")
PROOF_TIMEOUT_S = 2.5
MEMORY_MIB = 64
# A QEMU that had less of a processor than this did not fail; the host was too busy to tell.
CONCLUSIVE_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceleration:
    """`groups` are what QEMU's user needs to open /dev/kvm. `certain` is False when another try may end otherwise."""

    kind: Accelerator
    reason: str
    groups: tuple[int, ...] = ()
    certain: bool = True


async def acceleration(
    qemu: QemuFacts, launcher: LauncherPort, uid: int, cache: Path, device: Path = DEVICE
) -> Acceleration:
    """The accelerator for this host, proven now or earlier. `cache` is a file of ours; damaged ones are replaced."""
    if not device.exists():
        return Acceleration(kind=Accelerator.TCG, reason=f"there is no {device} here, so machines are emulated")
    groups = opening_groups(device.stat())
    key = _key(qemu, groups)
    proof = _cached(cache).get(key)
    if proof is None:
        # Where only root may open it, root shows what it would be worth to change that.
        proof = await prove(qemu, launcher, Accelerator.KVM, 0 if groups is None else uid, groups or ())
        if proof.certain:
            _keep(cache, key, proof)
    return _decided(device, proof, groups)


def _decided(device: Path, proof: Proof, groups: tuple[int, ...] | None) -> Acceleration:
    if not proof.works:
        words = f"{device} opens, but a test guest failed under KVM: {proof.words}; machines are emulated"
        return Acceleration(kind=Accelerator.TCG, reason=words, certain=proof.certain)
    if groups is None:
        words = (
            f"KVM works, but only root may open {device}, and machines do not run as root; they are emulated. "
            f"Give it to a group: chgrp kvm {device} && chmod 660 {device}, then restart the daemon"
        )
        return Acceleration(kind=Accelerator.TCG, reason=words)
    return Acceleration(kind=Accelerator.KVM, reason=f"a test guest ran under KVM: {proof.words}", groups=groups)


def opening_groups(device: os.stat_result) -> tuple[int, ...] | None:
    """The groups that a user without rights must be in to open a device read-write; None: none would do."""
    if device.st_mode & (stat.S_IROTH | stat.S_IWOTH) == stat.S_IROTH | stat.S_IWOTH:
        return ()
    if device.st_mode & (stat.S_IRGRP | stat.S_IWGRP) == stat.S_IRGRP | stat.S_IWGRP and device.st_gid != 0:
        return (device.st_gid,)
    return None


# --- the proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    works: bool
    words: str
    certain: bool


async def prove(
    qemu: QemuFacts,
    launcher: LauncherPort,
    kind: Accelerator,
    uid: int,
    groups: tuple[int, ...] = (),
    timeout_s: float = PROOF_TIMEOUT_S,
) -> Proof:
    """Run the test guest once, under the given accelerator, with a deadline."""
    with tempfile.TemporaryDirectory(prefix="innkeeper-proof-") as place:
        directory = MachineDirectory(Path(place))
        image = Path(place, "guest")
        image.write_bytes(IMAGE)
        image.chmod(0o444)
        began = time.monotonic()
        kernel = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
        log = os.open(directory.log_file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            request = _request(qemu, kind, directory, (kernel, log), (uid, groups))
            spawned = await launcher.spawn(request)
        except SpawnFailed as error:
            return Proof(works=False, words=str(error), certain=False)
        finally:
            os.close(kernel)
            os.close(log)
        held = process.hold(spawned.pid, spawned.start_time)
        cpu_s = await _run_out(held, spawned.pid, timeout_s) if held is not None else None
        # Also after we ended it: the launcher must not write into a folder that is being removed.
        await exit_is_written(directory, directory.record())
        if cpu_s is not None:
            return _overdue(directory, timeout_s, cpu_s)
        return _judged(directory, time.monotonic() - began)


async def _run_out(held: int, pid: int, timeout_s: float) -> float | None:
    """Wait for the end. If it does not come in time, make it, and tell how much processor the guest has had."""
    try:
        if await process.gone(held, timeout_s):
            return None
        cpu_s = process.cpu_s(pid) or 0.0
        process.kill(held)
        await process.gone(held, timeout_s)
        return cpu_s
    finally:
        os.close(held)


def _overdue(directory: MachineDirectory, timeout_s: float, cpu_s: float) -> Proof:
    log = directory.log_file.read_text(errors="replace")
    if "KVM internal error" in log:
        what = "emulation failure" if "emulation failure" in log else "internal error"
        return Proof(works=False, words=f"the kernel's KVM stopped it with an {what}", certain=True)
    if cpu_s < CONCLUSIVE_SHARE * timeout_s:
        words = (
            f"it had only {cpu_s:.1f} s of processor time in {timeout_s:g} s, too little to tell; asked again next time"
        )
        return Proof(works=False, words=words, certain=False)
    return Proof(works=False, words=f"it was not through in {timeout_s:g} s", certain=True)


def _judged(directory: MachineDirectory, took_s: float) -> Proof:
    exit_ = directory.exit()
    if exit_ is None or exit_.code is None:
        how = f"signal {exit_.signal}" if exit_ is not None else "an end that nobody saw"
        return Proof(works=False, words=f"QEMU met {how}", certain=False)
    step = step_of(exit_.code)
    if exit_.code & 1 and step == GOOD:
        return Proof(works=True, words=f"through in {took_s:.2f} s", certain=True)
    if exit_.code & 1 and step in STEPS:
        return Proof(works=False, words=f"it went wrong at step {step}, {STEPS[step]}", certain=True)
    return Proof(works=False, words=f"QEMU ended with code {exit_.code}: {directory.log_tail(2)}", certain=False)


def _request(
    qemu: QemuFacts,
    kind: Accelerator,
    directory: MachineDirectory,
    opened: tuple[int, int],
    user: tuple[int, tuple[int, ...]],
) -> SpawnRequest:
    kernel, log = opened
    uid, groups = user
    argv = (
        *(qemu.binary, "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"),
        *("-machine", qemu.machine_type, "-accel", kind, "-cpu", "max", "-m", f"{MEMORY_MIB}M"),
        *("-kernel", f"/proc/self/fd/{FIRST_DESCRIPTOR}"),
        *("-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=4"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
    )
    return SpawnRequest(
        argv=argv,
        descriptors=(kernel,),
        log=log,
        uid=uid,
        gid=uid,
        groups=groups,
        record=str(directory.record_file),
        exit_file=str(directory.exit_file),
        note=directory.note(argv, ""),
    )


# --- what was proven earlier


def _key(qemu: QemuFacts, groups: tuple[int, ...] | None) -> str:
    guest = hashlib.sha256(IMAGE).hexdigest()[:12]
    return " | ".join((os.uname().release, os.uname().version, qemu.text, f"groups {groups}", f"guest {guest}"))


def _cached(cache: Path) -> dict[str, Proof]:
    try:
        found = json.loads(cache.read_text())
        return {key: Proof(works=bool(k["works"]), words=str(k["words"]), certain=True) for key, k in found.items()}
    except (FileNotFoundError, ValueError, AttributeError, KeyError, TypeError):
        return {}


def _keep(cache: Path, key: str, proof: Proof) -> None:
    known = {k: {"works": p.works, "words": p.words} for k, p in (_cached(cache) | {key: proof}).items()}
    staged = cache.with_suffix(".new")
    staged.write_text(json.dumps(known, indent=1))
    staged.rename(cache)
