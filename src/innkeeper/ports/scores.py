"""Whom the kernel ends first when memory runs out.

The daemon is spared, because it can tell what became of the rest. What it starts would inherit that, and then a build
that eats memory would take guests and the host's own services with it before it ends itself. So each driver says which
score its tools have: 0 is everybody's, guests have 300, and who has the highest goes first.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)


def scored(score: int, argv: Sequence[str]) -> tuple[str, ...]:
    """The same command, begun so that it has this score. It keeps ours where that is higher: lowering takes rights.

    The command begins by another program then, which ends with 127 if there is none of the command's own.
    """
    if own() >= score or (program := choom()) is None:
        return tuple(argv)
    return (program, "-n", str(score), "--", *argv)


def own() -> int:
    return int(Path("/proc/self/oom_score_adj").read_text())


@cache
def choom() -> str | None:
    """Where it is. Looked for once, so that its lack is said once."""
    found = shutil.which("choom", path="/usr/bin:/bin")
    if found is None:
        log.warning("tools are spared like the daemon when memory runs out: choom is missing (apt install util-linux)")
    return found
