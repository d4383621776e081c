"""Images that tests start machines from, built once for each content of their recipe and kept.

They lie below INNKEEPER_TEST_CACHE, or ~/.cache/innkeeper-tests, in folders named after recipe and content key, so that
a change of a recipe or of the guest program leads to a new build, and nothing else does. Several runs may ask at once:
one builds, the others wait for it. `python -m tests.vm.built tiny debian-12` builds ahead of a test run.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from innkeeper.drivers.guestlink.render import compile_argv
from innkeeper.drivers.images import render
from innkeeper.drivers.images.catalogue import RECIPES
from innkeeper.drivers.images.faults import CannotBuildHere
from innkeeper.drivers.images.hand import BuildRequest, build
from innkeeper.drivers.images.plans import Supply, write_out
from innkeeper.drivers.images.render import Mirrors, Workshop

GUEST = Path(__file__).resolve().parents[2] / "src/innkeeper/guest"
# Other checkouts on this machine may be using theirs.
KEPT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestProgram:
    program: Path
    unit: str


def built_image(recipe: str) -> Path:
    """A folder with disk.qcow2, vmlinuz, initrd.img and kernel_args; not to be written to."""
    try:
        # In a thread: the caller may have a running loop.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(_built, recipe).result()
    except CannotBuildHere as reason:
        pytest.skip(f"{recipe} cannot be built here: {reason}")


@contextmanager
def guest_program(folder: Path) -> Iterator[GuestProgram]:
    """Ours, compiled for the time of the context."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise CannotBuildHere("the guest program needs a C compiler; run: apt-get install gcc libc6-dev")
    with tempfile.TemporaryDirectory(prefix="guest.", dir=folder) as place:
        program = Path(place) / "innkeeper-guest"
        subprocess.run(compile_argv(str(GUEST), str(program), compiler), check=True, timeout=300)
        yield GuestProgram(program=program, unit=(GUEST / "innkeeper-guest.service").read_text())


def content_key(name: str, guest: GuestProgram) -> str:
    """Equal for builds that differ in nothing but the state of the mirror."""
    recipe, workshop = RECIPES[name], Workshop(staging="/staging")
    writing = write_out(recipe, workshop, Supply(mirrors=Mirrors(), apt_conf=render.apt_conf("")), guest.unit)
    argv = (render.mmdebstrap_argv(recipe, workshop), render.mkfs_argv(recipe, workshop), render.convert_argv(workshop))
    return hashlib.sha256(repr((recipe, writing, argv)).encode() + guest.program.read_bytes()).hexdigest()


def _built(recipe: str) -> Path:
    cache = Path(os.environ.get("INNKEEPER_TEST_CACHE") or Path.home() / ".cache/innkeeper-tests")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{recipe}.lock").open("w") as lock, guest_program(cache) as guest:
        fcntl.flock(lock, fcntl.LOCK_EX)
        key = content_key(recipe, guest)
        folder = cache / f"{recipe}-{key[:16]}"
        if not folder.exists():
            _build(recipe, guest, folder)
            _forget_all_but(KEPT, recipe, cache)
        os.utime(folder)
        return folder


def _build(recipe: str, guest: GuestProgram, folder: Path) -> None:
    staging = Path(tempfile.mkdtemp(prefix=f"staging-{recipe}.", dir=folder.parent))
    try:
        request = BuildRequest(recipe=recipe, staging=staging, guest_program=guest.program, guest_unit=guest.unit)
        asyncio.run(build(request, lambda fraction, words: None))
        (staging / "kernel_args").write_text(RECIPES[recipe].kernel_args + "\n")
        staging.chmod(0o755)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _forget_all_but(count: int, recipe: str, cache: Path) -> None:
    folders = sorted(cache.glob(f"{recipe}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in folders[count:]:
        shutil.rmtree(folder)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or sorted(RECIPES):
        sys.stdout.write(f"{_built(wanted)}\n")
