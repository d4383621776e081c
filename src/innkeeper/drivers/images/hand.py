"""Builds an image: from a recipe to a disk, a kernel and an initial RAM disk in a staging directory.

    packages --mmdebstrap--> unpacked --assemble.sh--> root, kernel, RAM disk --mkfs.ext4 -d--> raw --qemu-img--> qcow2

No loop device, no KVM and no guest is needed, only root. A build keeps all it makes below its staging directory, runs
its tools in namespaces of their own and touches nothing else, so builds do not disturb each other, and one that is
cancelled or fails leaves the directory as empty as it was.

Two builds from the same lists of packages hold the same files with the same times; the places of files in the file
system can differ.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from innkeeper.drivers.images import faults, plans, render, tool
from innkeeper.drivers.images.catalogue import RECIPES, Recipe
from innkeeper.drivers.images.faults import BuildFailed
from innkeeper.drivers.images.progress import Listener
from innkeeper.drivers.images.render import Workshop
from innkeeper.ports.tasks import to_the_end

# On two slow cores a build takes minutes; the rest is for a slow mirror.
_DEADLINE_S = 3 * 3600

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """`staging` is an empty directory on the file system where the image will stay.

    `guest_program` (compiled, static) and `guest_unit` (its systemd unit) go together: both or neither.
    """

    recipe: str
    staging: Path
    guest_program: Path | None
    guest_unit: str | None


async def build(request: BuildRequest, progress: Progress) -> None:
    """Fill the staging directory. `progress` hears a fraction from 0 to 1 that never falls, and a line of words.

    Afterwards the artefacts lie there, read-only, and nothing else: disk.qcow2, vmlinuz, initrd.img, and for some
    recipes initrd-stock.img. What else is to be known of the image, its recipe says.

    Cancelled or failed, everything that it started has ended and the staging directory is empty again, so that it may
    be repeated.

    Raises:
        BuildFailed: with words for an operator.
        CannotBuildHere: the same, where the fault is not the request's.
    """
    recipe = checked(request)
    async with emptied_unless_done(request.staging):
        try:
            async with asyncio.timeout(_DEADLINE_S):
                await _build(request, recipe, progress)
        except tool.ToolFailed as failed:
            raise faults.explain(recipe, request.staging, failed) from failed
        except TimeoutError as late:
            hours = _DEADLINE_S // 3600
            raise BuildFailed(f"building {recipe.name} took more than {hours} hours; is the mirror slow?") from late
        except OSError as error:
            raise faults.explain_os_error(recipe, request.staging, error) from error


def checked(request: BuildRequest) -> Recipe:
    """The recipe of a request that makes sense."""
    recipe = RECIPES.get(request.recipe)
    if recipe is None:
        raise BuildFailed(f"no recipe is called {request.recipe}; there are {', '.join(sorted(RECIPES))}")
    if (request.guest_program is None) != (request.guest_unit is None):
        raise BuildFailed("the guest program and its unit go together: give both or neither")
    if any(request.staging.iterdir()):
        raise BuildFailed(f"{request.staging} is not empty; give an empty directory to build {recipe.name} in")
    return recipe


@contextlib.asynccontextmanager
async def emptied_unless_done(staging: Path) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        await to_the_end(lambda: _empty(staging))
        raise


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


async def _build(request: BuildRequest, recipe: Recipe, progress: Progress) -> None:
    faults.require_tools()
    faults.require_room(recipe, request.staging)
    workshop = Workshop(staging=str(request.staging.resolve()))
    env = _environment(workshop)
    progress(0.0, "looking for the machine's Debian mirror")
    writing = plans.write_out(recipe, workshop, await _supply(env), request.guest_unit)
    await to_the_end(lambda: _write_down(writing, workshop, request.guest_program))
    await _unpack(recipe, workshop, env, progress)
    progress(0.85, "picking the root file system, the kernel and its RAM disk")
    await tool.run(render.apart([workshop.file("assemble.sh")]), env)
    epoch = Path(workshop.file("epoch")).read_text().strip()
    progress(0.88, "making the file system")
    _make_sparse(Path(workshop.file("disk.raw")), recipe.size_gib << 30)
    await tool.run(render.apart(render.mkfs_argv(recipe, workshop)), {**env, "E2FSPROGS_FAKE_TIME": epoch})
    progress(0.94, "writing the disk image")
    await tool.run(render.apart(render.convert_argv(workshop)), env)
    progress(0.98, "tidying up")
    await to_the_end(lambda: finish(request.staging))
    progress(1.0, "built")


def _environment(workshop: Workshop) -> dict[str, str]:
    """Proxies may be named in ours; apart from them tools see nothing of it. Temporary files go into our own place."""
    kept = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return {
        **kept,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "TMPDIR": workshop.place,
        "DEBIAN_FRONTEND": "noninteractive",
        "MKE2FS_CONFIG": workshop.file("mke2fs.conf"),
    }


async def _supply(env: dict[str, str]) -> plans.Supply:
    """What this machine's apt knows about mirrors, when it has one."""
    if shutil.which("apt-get") is None:
        return plans.Supply(mirrors=render.Mirrors(), apt_conf=render.apt_conf(""))
    dump = await _said(["apt-config", "dump"], env)
    mirrors = render.Mirrors()
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    if release.get("ID", "").strip('"') == "debian":
        targets = await _said(
            ["apt-get", "indextargets", "--format", render.TARGETS_FORMAT, "Created-By: Packages"], env
        )
        mirrors = render.find_mirrors(targets, release.get("VERSION_CODENAME", "").strip('"'))
    return plans.Supply(mirrors=mirrors, apt_conf=render.apt_conf(dump))


async def _said(argv: list[str], env: dict[str, str]) -> str:
    lines: list[str] = []
    await tool.run(argv, env, lines.append)
    return "\n".join(lines)


def _write_down(writing: plans.Writing, workshop: Workshop, guest_program: Path | None) -> None:
    # Private: apt.conf can hold a proxy's password.
    Path(workshop.place).mkdir(mode=0o700)
    for name, text in writing.texts.items():
        _write(Path(workshop.file(name)), text, 0o644)
    for name, text in writing.scripts.items():
        _write(Path(workshop.file(name)), text, 0o755)
    overlay = Path(workshop.overlay)
    overlay.mkdir(mode=0o755)
    for file in writing.files:
        _write(_below(overlay, file.path), file.text, file.mode)
    for path, target in writing.links.items():
        _below(overlay, path).symlink_to(target)
    if guest_program is not None:
        target_file = _below(overlay, plans.GUEST_PROGRAM)
        shutil.copyfile(guest_program, target_file)
        target_file.chmod(0o755)


def _below(overlay: Path, path: str) -> Path:
    """The place of a guest's path in the overlay, its directories made, readable by all whatever our umask is."""
    place = overlay / path.lstrip("/")
    for directory in reversed(place.relative_to(overlay).parents):
        target = overlay / directory
        target.mkdir(exist_ok=True)
        target.chmod(0o755)
    return place


def _write(path: Path, text: str, mode: int) -> None:
    path.write_text(text)
    path.chmod(mode)


async def _unpack(recipe: Recipe, workshop: Workshop, env: dict[str, str], progress: Progress) -> None:
    listener = Listener()

    def hear(line: str) -> None:
        if listener.hear(line):
            progress(listener.fraction, listener.words)

    await tool.run(render.apart(render.mmdebstrap_argv(recipe, workshop)), env, hear)


def _make_sparse(path: Path, size_bytes: int) -> None:
    with path.open("xb") as file:
        file.truncate(size_bytes)


def finish(staging: Path) -> None:
    """Take the workshop away and make the artefacts read-only."""
    shutil.rmtree(staging / "work")
    for artefact in staging.iterdir():
        artefact.chmod(0o444)
