"""Whose a process is: what to ask of one that is nobody's child of ours, before anything else.

This the kernel knows itself. A command line and an environment lie in the process's own memory, and it may let whoever
reads them wait for ever: of a stranger they are not even read.
"""

from __future__ import annotations

from pathlib import Path


def users_of(pid: int) -> tuple[int, ...]:
    """For whom it runs (its real user), whose rights it has, whose it may take up again, and as whom it opens files.

    Raises:
        FileNotFoundError, ProcessLookupError: there is no such process.
    """
    # The owner of the folder in /proc is root for everything that may not be dumped, so that tells nothing.
    for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
        if line.startswith("Uid:"):
            return tuple(map(int, line.split()[1:]))
    raise ProcessLookupError  # cut short: it ended while it was read
