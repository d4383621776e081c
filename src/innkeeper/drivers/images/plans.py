"""A recipe written out: every text that a build needs, as values. The hand writes them down and runs them in order."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from innkeeper.drivers.images import debian, initrd, render, tiny
from innkeeper.drivers.images.catalogue import Layout, Recipe
from innkeeper.drivers.images.render import GuestFile, Mirrors, Workshop

GUEST_PROGRAM = "/usr/lib/innkeeper/innkeeper-guest"

_HEAD = """\
#!/bin/sh
# Makes the root file system, and what its kernel is started with, from unpacked packages.
set -eu
export LC_ALL=C
packages=@PACKAGES@ place=@PLACE@ staging=@STAGING@
version=$(ls "$packages/lib/modules")
# The lists are newer than the packages that they name: what is newer than the lists was made here, and gets their day.
seconds() { while read -r day; do date --date="$day" +%s; done; }
epoch=$(sed -n 's/^Date: //p' "$packages"/var/lib/apt/lists/*Release | seconds | sort -n | tail -n 1)
rm -rf "$packages"/var/lib/apt/lists/*
cp "$packages/boot/vmlinuz-$version" "$staging/vmlinuz"
"""

_TAIL = """\
find @ROOT@ -newermt "@$epoch" -exec touch --no-dereference --date="@$epoch" {} +
echo "$epoch" >"$place/epoch"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """`scripts` are run and `texts` are read by tools, both by name in the workshop; the rest becomes the overlay."""

    scripts: Mapping[str, str]
    texts: Mapping[str, str]
    files: tuple[GuestFile, ...]
    links: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What the machine has to offer: the way to packages."""

    mirrors: Mirrors
    apt_conf: str


def write_out(recipe: Recipe, workshop: Workshop, supply: Supply, guest_unit: str | None) -> Writing:
    """`guest_unit` None means: our guest program is left out."""
    installed = recipe.layout is Layout.INSTALLED
    scripts = {"assemble.sh": _assemble(recipe, workshop)}
    if installed:
        scripts["customize.sh"] = debian.customize_script(workshop.overlay, with_guest=guest_unit is not None)
    return Writing(
        scripts=scripts,
        texts={
            "apt.conf": supply.apt_conf,
            "fstab": initrd.fstab(),
            "init": initrd.init_script(recipe),
            "mke2fs.conf": render.mke2fs_conf(),
            "sources.list": render.apt_sources(supply.mirrors),
        },
        files=debian.files(guest_unit) if installed else tiny.files(with_guest=guest_unit is not None),
        links=debian.links() if installed else {},
    )


def _assemble(recipe: Recipe, workshop: Workshop) -> str:
    own = debian.assemble_script() if recipe.layout is Layout.INSTALLED else tiny.assemble_script(recipe)
    script = _HEAD + own + initrd.pack_script(recipe) + _TAIL
    places = {
        "@PACKAGES@": workshop.packages,
        "@PLACE@": workshop.place,
        "@STAGING@": workshop.staging,
        "@ROOT@": workshop.root(recipe.layout),
    }
    for mark, path in places.items():
        script = script.replace(mark, shlex.quote(path))
    return script
