"""Images become templates: from outside, or from a stopped instance's disk.

qemu-img parses what strangers wrote, so it runs as a user who may do nothing, with limits, in a folder of its own:

    import    the source is opened once and copied into the folder (its blocks are shared where the file system can);
              the copy is inspected and converted. Whoever owns the source may write to it all the while: a header
              changed between inspecting and converting could name any file of this host, so the original never counts.
    flatten   runs as the user of the instance, who may read the volume anyway, with the descriptors of volume and
              all below it: it can read what the guest could read and nothing else.

What comes out is a qcow2 that qemu-img wrote just now, and it is inspected and checked as if it came from outside, too.
Deliberately absent for now: namespaces and Landlock around the tool, and other formats than qcow2 and raw. The first
would go into `confined` (render.py), the second into the allow-list (inspect.py).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from innkeeper.drivers.qcow2.artefacts import disk_size, open_source, read_sample
from innkeeper.drivers.qcow2.confined import Progress, Run, run
from innkeeper.drivers.qcow2.copying import copy_privately
from innkeeper.drivers.qcow2.faults import DiskFailed, ImageRefused
from innkeeper.drivers.qcow2.inspect import Limits, inspect
from innkeeper.drivers.qcow2.layers.chains import check_chain
from innkeeper.drivers.qcow2.places import Places, in_use, in_words, open_regular
from innkeeper.drivers.qcow2.render import (
    CLUSTER,
    DISK,
    GIB,
    SOURCE,
    Bounds,
    Tools,
    alone,
    check,
    confined,
    convert,
    layered,
)
from innkeeper.model.actions import Chain
from innkeeper.model.ids import TemplateId, VolumeId
from innkeeper.ports.tasks import to_the_end

DEFAULT_LIMITS = Limits()
DEFAULT_TOOLS = Tools()
_COPYING_SHARE = 0.3  # of the progress of an import
_CHECKING_SHARE = 0.05
_BASE_S = 120
_SECONDS_PER_GIB = 60  # a slow disk, or a compressed image under load


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What is converted, by whom, and how much of it there is."""

    doing: str
    source: str
    fds: tuple[int, ...]
    uid: int
    virtual_bytes: int


class Converter:
    """`worker_uid` is a user of the host who owns nothing and runs nothing else."""

    def __init__(
        self, root: Path, worker_uid: int, limits: Limits = DEFAULT_LIMITS, tools: Tools = DEFAULT_TOOLS
    ) -> None:
        self._root = root
        self._places = Places(root)
        self._worker_uid = worker_uid
        self._limits = limits
        self._tools = tools

    async def convert_import(self, source: Path, image_format: str, staging: Path, said: Progress) -> Path:
        """The image as a template's disk in the staging folder. `said` hears fractions, growing up to 1.

        Raises:
            ImageRefused: it is not what it is said to be, or asks for what is not allowed.
            PoolFull, DiskFailed: the host cannot.
        """
        doing = f"importing {source.name}"
        async with self._tidy(staging):
            fd = await to_the_end(partial(open_source, source))
            try:
                await copy_privately(fd, staging / SOURCE, self._root, lambda f: said(f * _COPYING_SHARE))
            finally:
                os.close(fd)
            virtual_bytes = await to_the_end(partial(self._judge, staging / SOURCE, image_format))
            job = _Job(
                doing=doing,
                source=alone(image_format, SOURCE),
                fds=(),
                uid=self._worker_uid,
                virtual_bytes=virtual_bytes,
            )
            return await self._convert(job, staging, lambda f: said(_COPYING_SHARE + f * (1 - _COPYING_SHARE)))

    async def flatten(self, chain: Chain, template: TemplateId, staging: Path, said: Progress) -> Path:
        """A stopped instance's disk, with all that stands below it, as one disk in the staging folder.

        Raises:
            ImageRefused: the header of a volume is not what we wrote.
            PoolFull, DiskFailed: the host cannot, or the disk is in use.
        """
        async with self._tidy(staging):
            with ExitStack() as opened:
                job = await to_the_end(partial(self._flattening, chain, template, opened))
                return await self._convert(job, staging, said)

    async def _convert(self, job: _Job, staging: Path, said: Progress) -> Path:
        uid = _identity(job.uid, job.doing)
        gib = -(-job.virtual_bytes // GIB)
        bounds = Bounds(
            uid=uid,
            cpu_s=_BASE_S + _SECONDS_PER_GIB * gib,
            # Data, its second-level tables and reference counts, and room for the first tables.
            file_bytes=job.virtual_bytes + job.virtual_bytes // 4096 + 1024 * CLUSTER,
        )
        await to_the_end(partial(self._hand_over, staging, uid))
        work = partial(self._run, job, bounds, staging)
        await work(convert(self._tools, job.source), lambda f: said(f * (1 - _CHECKING_SHARE)))
        # Looked at by us before any tool opens it again: whoever took over the first run wrote what he liked.
        made_bytes = await to_the_end(partial(disk_size, staging / DISK, self._root))
        if made_bytes != job.virtual_bytes:
            raise ImageRefused(f"{job.doing}: {job.virtual_bytes} bytes of disk became {made_bytes}")
        await work(check(self._tools), lambda _: None)
        said(1.0)
        return staging / DISK

    async def _run(self, job: _Job, bounds: Bounds, folder: Path, argv: tuple[str, ...], said: Progress) -> None:
        await run(
            Run(
                doing=job.doing,
                argv=confined(self._tools, bounds, argv),
                folder=folder,
                pool=self._root,
                fds=job.fds,
                deadline_s=bounds.cpu_s * 2,
            ),
            said,
        )

    @asynccontextmanager
    async def _tidy(self, staging: Path) -> AsyncIterator[None]:
        """Afterwards the folder is ours again and holds the finished disk, or nothing of this."""
        try:
            yield
        except BaseException:
            await to_the_end(partial(self._take_back, staging, (SOURCE, DISK)))
            raise
        await to_the_end(partial(self._take_back, staging, (SOURCE,)))

    # --- in a thread

    def _judge(self, path: Path, image_format: str) -> int:
        fd = open_regular(path, os.O_RDONLY, f"the copy {path}", self._root)
        try:
            with in_words(f"reading {path}", self._root):
                sample = read_sample(fd)
            return inspect(image_format, sample, self._limits).virtual_bytes
        finally:
            os.close(fd)

    def _flattening(self, chain: Chain, template: TemplateId, opened: ExitStack) -> _Job:
        """All layers are opened, and belong to `opened`. They are read by who may read the topmost."""
        top, *below = (chain.volume, *chain.below)
        fds = [self._open_volume(volume, opened) for volume in (top, *below)]
        if in_use(fds[0]):
            raise DiskFailed(f"volume {top} is in use by a running QEMU", "Stop its instance first")
        headers = check_chain(chain, template, fds, self._root)
        disk = open_regular(self._places.disk(template), os.O_RDONLY, f"the disk of template {template}", self._root)
        opened.callback(os.close, disk)
        return _Job(
            doing=f"publishing volume {top}",
            source=layered((*fds, disk)),
            fds=(*fds, disk),
            uid=os.fstat(fds[0]).st_uid,
            virtual_bytes=headers[0].size_bytes,
        )

    def _open_volume(self, volume: VolumeId, opened: ExitStack) -> int:
        fd = open_regular(self._places.volume(volume), os.O_RDONLY, f"volume {volume}", self._root)
        opened.callback(os.close, fd)
        return fd

    def _hand_over(self, staging: Path, uid: int | None) -> None:
        with in_words(f"preparing {staging}", self._root):
            if uid is not None:
                for path in (staging, staging / SOURCE):
                    if path.exists():
                        os.chown(path, uid, uid, follow_symlinks=False)

    def _take_back(self, staging: Path, doomed: tuple[str, ...]) -> None:
        with in_words(f"tidying {staging}", self._root):
            os.chown(staging, os.geteuid(), os.getegid())
            for name in doomed:
                (staging / name).unlink(missing_ok=True)


def _identity(uid: int, doing: str) -> int | None:
    """As whom the tool runs; None: as ourselves, where we have no rights to give up."""
    if os.geteuid() != 0:
        return None
    if uid == 0:
        raise DiskFailed(f"{doing}: no tool reads it as root", "Give the volume, or the conversions, a user of its own")
    return uid
