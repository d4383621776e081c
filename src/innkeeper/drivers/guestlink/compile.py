"""The program that goes into guests, compiled on this host from the source that ships with us.

Not on the launch path: a template is built with it, and then holds it.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from asyncio.subprocess import PIPE, STDOUT
from importlib.resources import as_file, files
from pathlib import Path

from innkeeper.drivers.guestlink.render import OOM_SCORE, compile_argv
from innkeeper.ports.tasks import to_the_end
from innkeeper.ports.tools import begin, end

_COMPILE_S = 120
_SAID_KEPT = 400
_INSTALL = "apt-get install gcc libc6-dev"


class CompileFailed(Exception):
    """`reason` says what happened; `hint` says what to do next."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class GuestProgram:
    """`workshop` is a folder of this class's own: it holds the program, made once for each version of its source."""

    def __init__(self, workshop: Path) -> None:
        self._workshop = workshop
        self._compiling = asyncio.Lock()

    async def compiled(self) -> Path:
        """Where it is, whole.

        Raises:
            CompileFailed: there is no compiler, or it fails.
        """
        with as_file(files("innkeeper.guest")) as source:
            text = b"".join(path.read_bytes() for path in sorted(source.rglob("*.[ch]")))
            version = hashlib.sha256(text + repr(compile_argv("", "")).encode()).hexdigest()[:16]
            program = self._workshop / f"innkeeper-guest-{version}"
            async with self._compiling:
                if not program.exists():
                    await to_the_end(self._empty)
                    await _compile(source, program)
        return program

    def _empty(self) -> None:
        """Programs of earlier releases are of no use to anybody."""
        self._workshop.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._workshop.iterdir():
            path.unlink()


async def _compile(source: Path, program: Path) -> None:
    if shutil.which("cc") is None:
        raise CompileFailed("there is no C compiler for the guest program", _INSTALL)
    draft = program.with_suffix(".draft")
    cc = await begin(OOM_SCORE, compile_argv(str(source), str(draft)), stdout=PIPE, stderr=STDOUT)
    try:
        async with asyncio.timeout(_COMPILE_S):
            said, _ = await cc.communicate()
    except BaseException as failed:
        await asyncio.shield(end(cc))
        if isinstance(failed, TimeoutError):
            words = f"the guest program did not compile in {_COMPILE_S} s"
            raise CompileFailed(words, "Is this host overloaded?") from None
        raise
    if cc.returncode != 0:
        words = said.decode(errors="replace")[-_SAID_KEPT:]
        raise CompileFailed(f"the guest program does not compile: {words}", _INSTALL)
    draft.replace(program)
