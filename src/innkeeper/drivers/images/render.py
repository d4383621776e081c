"""Words for the tools that build an image: where packages come from, arguments, settings of the file system.

Packages come from the machine's own Debian mirror, through its proxy, when the machine is a Debian; from Debian's
public mirror otherwise. Either is only transport: every list is checked against Debian's archive keys. What stays in
the image is always the public mirror, because the machine's own may exist only here.

Every tool runs in mount and process namespaces of its own. Nothing that a package's script starts can outlive the
build then, and no mount can be left behind, however the build ends: where the daemon is killed, the kernel ends
`unshare`, with it the first process of its namespace, and with that all others.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from innkeeper.drivers.images.catalogue import SUITE, Layout, Recipe

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PUBLIC_MIRROR = "http://deb.debian.org/debian"
PUBLIC_SECURITY = "http://deb.debian.org/debian-security"

# Which program is in which package, so that an error can name it.
TOOLS: Mapping[str, str] = {
    "chroot": "coreutils",
    "cpio": "cpio",
    "mkfs.ext4": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}

# When memory runs out, a build goes before any guest: it can be repeated.
OOM_SCORE = 500

TARGETS_FORMAT = "$(SITE) $(RELEASE) $(COMPONENT) $(ORIGIN)"

# The machine's ways to its mirror. Not its trust settings: those are ours.
_APT_KEPT = (
    "http",
    "https",
    "ftp",
    "retries",
    "forceipv4",
    "forceipv6",
    "check-valid-until",
    "check-date",
    "max-futuretime",
)

# Left out of the packages as they are unpacked, 60 MB on the disk; packages that are installed later bring theirs.
_LEFT_OUT = ("doc", "info", "lintian", "locale", "man")

_MKE2FS_CONF = """\
# The machine's own settings change with its release; the guest's kernel and tools are of one.
[defaults]
	base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
	default_mntopts = acl,user_xattr
	enable_periodic_fsck = 0
	blocksize = 4096
	inode_size = 256
	inode_ratio = 16384
	errors = remount-ro
	# Otherwise the kernel writes all inode tables in the first minutes of every instance, each into a disk of its own.
	lazy_itable_init = 0
	no_discard = 1

[fs_types]
	ext4 = {
		features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
	}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFile:
    """A file of ours in the root file system. `path` is absolute there."""

    path: str
    text: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrors:
    archive: str = PUBLIC_MIRROR
    security: str = PUBLIC_SECURITY


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where things lie while a build works; all below the staging directory."""

    staging: str

    @property
    def place(self) -> str:
        return f"{self.staging}/work"

    @property
    def packages(self) -> str:
        """Where packages are unpacked."""
        return f"{self.place}/packages"

    @property
    def overlay(self) -> str:
        """Our own files, laid over the unpacked ones."""
        return f"{self.place}/overlay"

    def root(self, layout: Layout) -> str:
        return self.packages if layout is Layout.INSTALLED else f"{self.place}/root"

    def file(self, name: str) -> str:
        return f"{self.place}/{name}"


def find_mirrors(targets: str, codename: str) -> Mirrors:
    """The machine's own Debian mirror, out of `apt-get indextargets` with TARGETS_FORMAT.

    Third parties name their suites after Debian's too. apt knows the origin only of lists that it has fetched; without
    one, a site counts as Debian's when it carries the stable updates as well.
    """
    rows = [words for line in targets.splitlines() if len(words := line.split(maxsplit=3)) == 4 and words[2] == "main"]
    known = {(site, release) for site, release, _, origin in rows if origin == "Debian"}
    unknown = {(site, release) for site, release, _, origin in rows if origin.startswith("$(")}
    updated = {site for site, release in unknown if release == f"{codename}-updates"}
    archives = [site for site, release in sorted(known) if release == codename]
    archives += [site for site, release in sorted(unknown) if release == codename and site in updated]
    securities = [site for site, release in sorted(known | unknown) if release == f"{codename}-security"]
    found = Mirrors()
    return Mirrors(
        archive=archives[0] if archives else found.archive,
        security=securities[0] if securities else found.security,
    )


def apt_sources(mirrors: Mirrors) -> str:
    """What mmdebstrap reads, one line each."""
    trust = f"[signed-by={KEYRING}]"
    return (
        f"deb {trust} {mirrors.archive} {SUITE} main\n"
        f"deb {trust} {mirrors.archive} {SUITE}-updates main\n"
        f"deb {trust} {mirrors.security} {SUITE}-security main\n"
    )


def apt_conf(dump: str) -> str:
    """The part of `apt-config dump` that leads to the mirror. May hold a proxy's password: for a private file only."""
    lines = [line for line in dump.splitlines() if _leads_to_mirror(line)]
    return "\n".join(['APT::Install-Recommends "false";', *lines, ""])


def _leads_to_mirror(line: str) -> bool:
    parts = line.split(" ", 1)[0].lower().split("::")
    return len(parts) > 1 and parts[0] == "acquire" and parts[1] in _APT_KEPT


def apart(argv: Iterable[str]) -> list[str]:
    """A tool in namespaces of its own. It gives way to running guests."""
    return [
        *("nice", "-n", "10"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--"),
        *argv,
    ]


def mmdebstrap_argv(recipe: Recipe, workshop: Workshop) -> list[str]:
    installed = recipe.layout is Layout.INSTALLED
    left_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
    kept = [
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        "--dpkgopt=path-include=/usr/share/locale/locale.alias",
    ]
    hooks = ["--customize-hook=" + workshop.file("customize.sh")] if installed else []
    return [
        *("mmdebstrap", "--verbose", "--mode=root", "--format=directory", "--architectures=amd64"),
        f"--variant={'minbase' if installed else 'extract'}",
        f"--aptopt={workshop.file('apt.conf')}",
        *("--dpkgopt=force-unsafe-io", "--skip=cleanup/apt/lists"),
        *(left_out + kept if installed else []),
        f"--include={','.join(recipe.packages)}",
        *hooks,
        *(SUITE, workshop.packages, workshop.file("sources.list")),
    ]


def mke2fs_conf() -> str:
    return _MKE2FS_CONF


def mkfs_argv(recipe: Recipe, workshop: Workshop) -> list[str]:
    """The whole disk is the file system: no partition table to grow, nothing but the kernel's `root=` to know."""
    own_id = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{recipe.name}.template.innkeeper"))
    return [
        *("mkfs.ext4", "-q", "-F", "-t", "ext4", "-L", "root", "-m", "1"),
        *("-U", own_id, "-E", f"hash_seed={own_id}"),
        *("-d", workshop.root(recipe.layout), workshop.file("disk.raw")),
    ]


def convert_argv(workshop: Workshop) -> list[str]:
    """Whole and sparse, without a backing file. Not compressed: every instance reads it, on its launch path."""
    disk = f"{workshop.staging}/disk.qcow2"
    return ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", workshop.file("disk.raw"), disk]
