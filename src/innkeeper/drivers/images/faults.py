"""What can go wrong in a build, in words for the operator: what happened, to what, what to do next."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from innkeeper.drivers.images.catalogue import Recipe
from innkeeper.drivers.images.render import KEYRING, TOOLS
from innkeeper.drivers.images.tool import ToolFailed


class BuildFailed(Exception):
    """`str()` is for the operator; `tail` is what the failing tool said last, for whoever looks closer."""

    def __init__(self, words: str, tail: tuple[str, ...] = ()) -> None:
        super().__init__(words)
        self.tail = tail


class CannotBuildHere(BuildFailed):
    """Nothing is wrong with the request: this machine lacks something, or cannot reach the mirror now."""


# What tools say of causes that have a remedy. The first that fits is told; `said` is the line that it was found in.
_KNOWN = (
    (
        re.compile(re.escape(os.strerror(errno.ENOSPC))),
        BuildFailed,
        "the file system of {staging} became full while {recipe} was built, which needs {room} MiB; make room there and"
        " build again",
    ),
    (
        re.compile(
            r"NO_PUBKEY|is not signed|signatures? (were|was) invalid|couldn't be verified|is (not valid yet|expired)"
        ),
        BuildFailed,
        "package lists for {recipe} are not signed by Debian, or expired ({said}); check this machine's clock, its"
        " mirror, and that debian-archive-keyring is up to date",
    ),
    (
        re.compile(r"Unable to locate package|has no installation candidate"),
        BuildFailed,
        "the mirror lacks a package that {recipe} needs ({said}); check this machine's apt sources",
    ),
    (
        re.compile(
            r"[Cc]ould not (resolve|connect)|Temporary failure resolving|Cannot initiate the connection"
            r"|Unable to connect|Connection (timed out|refused|failed)|Failed to fetch|does not have a Release file"
        ),
        CannotBuildHere,
        "the Debian mirror cannot be reached for building {recipe} ({said}); check that apt-get update works on this"
        " machine, and build again",
    ),
    (
        re.compile(r"\bnodev\b|\bnoexec\b"),
        CannotBuildHere,
        "{staging} is mounted with nodev or noexec, so that no system can be built there; use another file system",
    ),
)


def require_tools() -> None:
    """Raises CannotBuildHere when the machine lacks a tool, with the package that has it."""
    missing = {package for name, package in TOOLS.items() if shutil.which(name) is None}
    if not Path(KEYRING).exists():
        missing.add("debian-archive-keyring")
    if missing:
        names = " ".join(sorted(missing))
        raise CannotBuildHere(f"building images needs packages that are missing here; run: apt-get install {names}")
    if os.geteuid() != 0:
        raise CannotBuildHere(
            "building images needs root, to unpack packages with their owners; run the daemon as root"
        )


def require_room(recipe: Recipe, staging: Path) -> None:
    free_mib = shutil.disk_usage(staging).free >> 20
    if free_mib < recipe.room_mib:
        raise BuildFailed(
            f"building {recipe.name} needs {recipe.room_mib} MiB on the file system of {staging}, where {free_mib} MiB"
            " are free; make room there and build again"
        )


def explain(recipe: Recipe, staging: Path, failed: ToolFailed) -> BuildFailed:
    """The tool's last words, read for known causes."""
    for pattern, kind, words in _KNOWN:
        for line in failed.tail:
            if pattern.search(line):
                known = {"recipe": recipe.name, "staging": staging, "room": recipe.room_mib, "said": line.strip()}
                return kind(words.format_map(known), failed.tail)
    last = failed.tail[-1].strip() if failed.tail else "nothing"
    return BuildFailed(f"building {recipe.name} failed: {failed}, and said last: {last}", failed.tail)


def explain_os_error(recipe: Recipe, staging: Path, error: OSError) -> BuildFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return explain(recipe, staging, ToolFailed(["writing"], 1, (os.strerror(errno.ENOSPC),)))
    return BuildFailed(f"building {recipe.name} in {staging} failed: {error}")
