# shellcheck shell=bash
# Prepares this machine and .venv. Sourced by ./run, ./check and the Makefile, then called as `prepare run` or `prepare dev`.
#
# Only what is missing is installed, nothing that is there is upgraded, and a second call does next to nothing. The
# environment is made anew when requirements.lock or the place of this checkout has changed: one that is patched in place
# keeps packages nobody asked for, and then an undeclared import goes unseen.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

packages_run=(
  qemu-system-x86 qemu-utils ovmf         # machines, their disks, and firmware for those that want UEFI
  mmdebstrap debian-archive-keyring       # templates made from Debian's packages, and the keys they are signed with
  e2fsprogs cpio zstd                     # file systems and initrds of templates
  busybox-static gcc libc6-dev            # the `tiny` template and the small programs that go into guests
  dnsmasq-base nftables iproute2          # networks
)
packages_dev=(
  libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients  # the peer that bench/ measures against
  openssh-client                                                    # for the way into a Debian that the guide shows
  shellcheck make git zsh                                           # zsh: its completion is tested in it
)

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing_of() {  # those of the named packages that dpkg does not have
  local have
  # dpkg-query fails when one of them is unknown, which is an answer here and no error.
  have=" $({ dpkg-query --show --showformat '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true; } \
    | awk '$2 == "installed" { printf "%s ", $1 }')"
  for name; do case $have in *" $name "*) ;; *) printf '%s\n' "$name" ;; esac; done
}

install_packages() {
  local missing
  if ! command -v dpkg-query apt-get >/dev/null; then
    say "note: no apt-get on this machine, so install what is missing of these by its own means: $*"
    return
  fi
  mapfile -t missing < <(missing_of "$@")
  [ ${#missing[@]} = 0 ] && return
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    fail "these Debian packages are missing, and installing them needs root or sudo: ${missing[*]}
       As root, run:  apt-get install ${missing[*]}   and then this command again."
  fi
  say "Installing ${#missing[@]} Debian packages (once): ${missing[*]}"
  # Another apt (a fresh machine updating itself) may hold the lock for minutes. No service of this machine is restarted.
  local apt=(env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -o DPkg::Lock::Timeout=300)
  [ -t 2 ] || apt+=(-qq)
  as_root "${apt[@]}" update >&2 || say "note: the package lists could not be renewed; going on with those that are here"
  as_root "${apt[@]}" install --yes --no-upgrade --no-install-recommends "${missing[@]}" >&2 </dev/null \
    || fail "apt-get could not install: ${missing[*]}
       What it says above tells why. Once they are installed, run this command again."
}

find_python() {  # the first Python on PATH that is new enough and can make environments
  local name
  for name in python3 python3.11 python3.12 python3.13 python3.14; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  return 1
}

need_python() {
  find_python && return
  install_packages python3 python3-venv
  find_python && return
  install_packages python3.11 python3.11-venv  # where `python3` is older: Ubuntu 22.04
  find_python || fail "Innkeeper needs Python 3.11 or newer with the venv module, and none is on PATH.
       Install one (Debian and Ubuntu: python3.11 and python3.11-venv), then run this command again."
}

stamp_of() {  # what an environment for this purpose is made of
  local locks=(requirements.lock)
  [ "$1" = dev ] && locks+=(requirements-dev.lock)
  (cd "$root" && printf '%s\n' "$root" && sha256sum "${locks[@]}")
}

stamp_self() { sha256sum <"$root/pyproject.toml"; }

holds() { [ -x "$venv/bin/python" ] && [ "$(cat "$venv/made-for-$1" 2>/dev/null)" = "$(stamp_of "$1")" ]; }

fresh() { holds "$1" && [ "$(cat "$venv/made-from" 2>/dev/null)" = "$(stamp_self)" ]; }

pip_install() {
  local quiet=(--quiet)
  [ -t 2 ] && quiet=()
  "$venv/bin/python" -m pip install --disable-pip-version-check "${quiet[@]}" "$@" >&2 </dev/null \
    || fail "pip could not install into $venv; what it says above tells why. Once mended, run this command again."
}

make_environment() {  # $1: run or dev
  local lock=requirements.lock python
  [ "$1" = dev ] && lock=requirements-dev.lock
  if ! holds run; then
    python=$(need_python) || exit 1
    say "Making $venv with $python (again only when the lock files change)"
    rm -rf "$venv"
    "$python" -m venv "$venv" || fail "$python could not make $venv. Is there room, and is its module venv complete?"
  fi
  if ! holds "$1"; then
    # Wheels only: building from source would fetch build tools that no hash guards.
    # No resolving: the lock holds everything, and pip before 23.3 looks at newer versions of what is asked for with an
    # extra (`coverage[toml]`), then refuses them for having no hash.
    pip_install --require-hashes --only-binary :all: --no-deps --requirement "$root/$lock"
    "$venv/bin/python" -m pip check --disable-pip-version-check >&2 \
      || fail "$lock does not hold all that its packages need; see above. Write it anew: make lock"
    stamp_of run >"$venv/made-for-run"
    stamp_of "$1" >"$venv/made-for-$1"
  fi
  fresh "$1" && return
  pip_install --no-deps --no-index --no-build-isolation --editable "$root"
  # For users who may run `inn` here but not write here, and where Python is told to leave no compiled files.
  "$venv/bin/python" -m compileall -q "$root/src/innkeeper" || fail "Not all of $root/src can be compiled; see above."
  stamp_self >"$venv/made-from"
}

prepare_environment() {  # .venv alone: enough for linters, the demo and the fast tests, and needs no root
  fresh "$1" && return
  mkdir -p "$root/build"
  # In a subshell, so that no daemon started later inherits the lock.
  (flock 9 && make_environment "$1") 9>"$root/build/prepare.lock"
}

prepare() {
  local packages=("${packages_run[@]}")
  [ "$1" = dev ] && packages+=("${packages_dev[@]}")
  install_packages "${packages[@]}"
  # Its members may speak to the daemon.
  getent group innkeeper >/dev/null || as_root groupadd --system innkeeper || fail "The group innkeeper cannot be made; see above."
  prepare_environment "$1"
}
