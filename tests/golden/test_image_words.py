"""Which words go to the tools that build images, and into the images."""

from __future__ import annotations

from pathlib import Path

import pytest

from innkeeper.drivers.images import plans, render
from innkeeper.drivers.images.catalogue import DEBIAN_12, RECIPES, Recipe
from innkeeper.drivers.images.faults import BuildFailed, CannotBuildHere, explain
from innkeeper.drivers.images.progress import Listener
from innkeeper.drivers.images.render import Mirrors, Workshop
from innkeeper.drivers.images.tool import ToolFailed
from tests.golden.compare import same_as_golden

OWN = Mirrors(archive="http://mirror.example/debian", security="http://mirror.example/debian-security")
WORKSHOP = Workshop(staging="/pool/staging/t-1 and a blank")
UNIT = "[Service]\nExecStart=/usr/lib/innkeeper/innkeeper-guest\n"
PUBLIC_HOST = render.PUBLIC_MIRROR.split("/")[2]

every_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


def writing(recipe: Recipe, guest_unit: str | None = UNIT) -> plans.Writing:
    supply = plans.Supply(mirrors=OWN, apt_conf=render.apt_conf('Acquire::http::Proxy "http://proxy.example:3142";'))
    return plans.write_out(recipe, WORKSHOP, supply, guest_unit)


def golden(recipe: Recipe, name: str, text: str) -> None:
    same_as_golden(f"images/{recipe.name}/{name}", text.replace(PUBLIC_HOST, "public-mirror.example"))


@every_recipe
def test_arguments(recipe: Recipe) -> None:
    for name, argv in (
        ("mmdebstrap", render.apart(render.mmdebstrap_argv(recipe, WORKSHOP))),
        ("mkfs", render.mkfs_argv(recipe, WORKSHOP)),
        ("convert", render.convert_argv(WORKSHOP)),
    ):
        golden(recipe, f"{name}.argv", "\n".join([*argv, ""]))


@every_recipe
def test_scripts_and_settings(recipe: Recipe) -> None:
    written = writing(recipe)
    for name, text in {**written.scripts, **written.texts, "kernel_args": recipe.kernel_args + "\n"}.items():
        golden(recipe, name, text)


@every_recipe
def test_what_is_laid_over(recipe: Recipe) -> None:
    written = writing(recipe)
    for file in written.files:
        golden(recipe, f"overlay{file.path}", file.text)
    modes = [f"{file.mode:04o} {file.path}" for file in written.files]
    links = [f"link {path} -> {target}" for path, target in written.links.items()]
    golden(recipe, "overlay.list", "\n".join([*modes, *links, ""]))


@every_recipe
def test_without_our_program_nothing_mentions_it(recipe: Recipe) -> None:
    written = writing(recipe, guest_unit=None)
    assert plans.GUEST_PROGRAM not in repr(written)
    assert plans.GUEST_PROGRAM in repr(writing(recipe))


@every_recipe
def test_the_machines_own_mirror_and_proxy_stay_outside(recipe: Recipe) -> None:
    """They stand in what mmdebstrap reads, and in nothing that is laid over."""
    written = writing(recipe)
    assert "mirror.example" in written.texts["sources.list"]
    assert "proxy.example" in written.texts["apt.conf"]
    laid_over = repr((written.files, written.links, written.scripts))
    assert "mirror.example" not in laid_over.replace("public-mirror.example", "")
    assert "proxy.example" not in laid_over


TARGETS = """\
http://mirror.example/debian bookworm main Debian
http://mirror.example/debian bookworm-updates main Debian
http://mirror.example/security bookworm-security main Debian
http://third.example/stable/debian bookworm main Third
http://backports.example/debian bookworm-backports main Debian
"""


def test_the_machines_own_mirror_is_found() -> None:
    found = render.find_mirrors(TARGETS, "bookworm")
    assert found == Mirrors(archive="http://mirror.example/debian", security="http://mirror.example/security")


def test_without_lists_the_mirror_is_the_one_that_has_updates() -> None:
    found = render.find_mirrors(
        TARGETS.replace(" Debian\n", " $(ORIGIN)\n").replace(" Third", " $(ORIGIN)"), "bookworm"
    )
    assert found == Mirrors(archive="http://mirror.example/debian", security="http://mirror.example/security")


@pytest.mark.parametrize("targets", ["", "nonsense", "http://third.example/debian bookworm main Third\n", "a b c d\n"])
def test_otherwise_the_public_mirror_serves(targets: str) -> None:
    assert render.find_mirrors(targets, "bookworm") == Mirrors()


def test_a_newer_machines_mirror_serves_the_images_suite() -> None:
    found = render.find_mirrors("http://mirror.example/debian trixie main Debian\n", "trixie")
    assert found.archive == "http://mirror.example/debian"
    assert " bookworm main" in render.apt_sources(found)


DUMP = """\
APT::Install-Recommends "1";
Acquire "";
Acquire::AllowInsecureRepositories "1";
Acquire::http::Proxy "http://user:secret@proxy.example:3142";
Acquire::https::mirror.example::Verify-Peer "false";
Acquire::Check-Valid-Until "false";
Acquire::Languages:: "none";
DPkg::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";
"""


def test_only_the_way_to_the_mirror_is_taken_from_the_machines_settings() -> None:
    assert render.apt_conf(DUMP) == (
        'APT::Install-Recommends "false";\n'
        'Acquire::http::Proxy "http://user:secret@proxy.example:3142";\n'
        'Acquire::https::mirror.example::Verify-Peer "false";\n'
        'Acquire::Check-Valid-Until "false";\n'
    )


HEARD = """\
I: running apt-get update...
Get:1 http://mirror.example/debian bookworm InRelease [151 kB]
I: downloading packages with apt...
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
Get:1 http://mirror.example/debian bookworm/main amd64 gcc-12-base amd64 12.2.0-14 [37.6 kB]
Get:2 http://mirror.example/debian bookworm/main amd64 libc6 amd64 2.36-9 [2758 kB]
I: extracting archives...
I: installing essential packages...
I: installing remaining packages inside the chroot...
0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.
Unpacking less (590-2) ...
Setting up less (590-2) ...
I: running --customize-hook directly: /pool/customize.sh /pool/packages
I: success in 84.1446 seconds
"""


def test_progress_never_falls_and_names_packages() -> None:
    listener = Listener()
    told = [(listener.fraction, listener.words) for line in HEARD.splitlines() if listener.hear(line)]
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
    assert "downloading packages (libc6)" in [words for _, words in told]
    assert "installing packages (less)" in [words for _, words in told]
    assert listener.fraction == pytest.approx(0.85)


def test_lines_out_of_order_do_not_turn_progress_back() -> None:
    listener = Listener()
    for line in reversed(HEARD.splitlines()):
        before = listener.fraction
        listener.hear(line)
        assert listener.fraction >= before


@pytest.mark.parametrize(
    "line, kind, advice",
    [
        ("cp: error writing '/x': No space left on device", BuildFailed, "make room"),
        (
            "W: GPG error: http://m bookworm InRelease: NO_PUBKEY 0E98404D386FA1D9",
            BuildFailed,
            "debian-archive-keyring",
        ),
        ("E: Release file for http://m/InRelease is expired (invalid since 3d)", BuildFailed, "clock"),
        ("E: Unable to locate package e2fsck-static", BuildFailed, "apt sources"),
        ("  Could not connect to 127.0.0.1:9 (127.0.0.1). - connect", CannotBuildHere, "apt-get update works"),
        ("  Temporary failure resolving 'mirror.example'", CannotBuildHere, "apt-get update works"),
        ("E: /pool is mounted with nodev", CannotBuildHere, "another file system"),
        ("Segmentation fault", BuildFailed, "said last: Segmentation fault"),
    ],
)
def test_causes_are_told_with_their_remedy(line: str, kind: type[BuildFailed], advice: str) -> None:
    failed = explain(DEBIAN_12, Path(WORKSHOP.staging), ToolFailed(["mmdebstrap"], 25, ("I: running", line)))
    assert type(failed) is kind
    assert advice in str(failed)
    assert failed.tail[-1] == line
