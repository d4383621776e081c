"""One dnsmasq: started, found again, told of changes, ended. It outlives this daemon.

The pid file says who it might be; what proves it is that it is dnsmasq, running as root or as dnsmasq's own user, its
command line, which holds the path of its configuration, whose name holds the configuration's hash, and the network
namespace it lives in. A process with this proof runs exactly this configuration, and neither a user of the host, nor a
pid that was used again, nor a daemon that died half-way can deceive.

It reads its live files as its own user, when told by SIGHUP. A crash between writing and telling would leave it
uninformed, so a file `told` keeps the hash of what it was last told.

All functions here run in a worker thread that has entered the namespace.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

from innkeeper.drivers.linuxnet import names, render
from innkeeper.drivers.linuxnet.kernel import processes
from innkeeper.drivers.linuxnet.kernel.namespaces import Space
from innkeeper.drivers.linuxnet.kernel.processes import Mark, Process
from innkeeper.drivers.linuxnet.render import ServiceFiles, User
from innkeeper.drivers.linuxnet.settings import OOM_SCORE
from innkeeper.ports.scores import scored

_START_TIMEOUT_S = 10
_STOP_TIMEOUT_S = 5
_STOP_ROUNDS = 5
_DHCP_SERVER_PORT = 67


class ServiceFailed(Exception):
    """dnsmasq did not do what it should; says what, and what it said."""


class Service:
    """The dnsmasq of one folder. Remembers the process it proved, so that a look costs few system calls."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mark = Mark(
            argument=f"--conf-file={folder}/",
            # Where it may be, not where it is: one that runs may have been upgraded, or removed.
            programs=frozenset(os.path.realpath(f"{place}/dnsmasq") for place in _ways().split(":") if place),
            uids=frozenset((0, _account().pw_uid)),
        )
        self._process: Process | None = None
        self._config, self._inode = Path(), 0

    def converge(self, files: ServiceFiles, space_inode: int) -> None:
        """It runs in this namespace with this content afterwards. May be repeated.

        Raises:
            ServiceFailed: it cannot be started, or cannot read its files.
        """
        config, told = self._folder / files.config_name(), files.live_hash()
        if not self._is(config, space_inode):
            self.stop()
            for old in self._folder.glob("dnsmasq-*.conf"):
                old.unlink(missing_ok=True)
            self._write_all(config, files)
            self._start(config, space_inode)
        elif self._process is not None and (self._text("told") != told or not self.stands()):
            self._write_all(config, files)
            _write(self._folder / "pid", f"{self._process.pid}\n")
            self._process.tell(signal.SIGHUP)
        else:
            return
        _write(self._folder / "told", told)

    def stands(self) -> bool:
        """Whether the process that was proved last still lives, and all that it and the next daemon read is there."""
        files = (self._config, self._folder / "pid", self._folder / "told")
        return self._process is not None and self._process.runs() and all(map(os.path.exists, files))

    def stop(self) -> None:
        """Nothing that serves this folder runs afterwards, also none that was just starting. May be repeated."""
        self.close()
        for _ in range(_STOP_ROUNDS):
            pids = self._pids()
            for pid in pids:
                self._end(pid)
            if not pids:
                return
        raise ServiceFailed(f"processes that serve {self._folder} come again as soon as they are ended: {self._pids()}")

    def erase(self) -> None:
        """Neither process nor file remains. May be repeated."""
        self.stop()
        if self._folder.exists():
            shutil.rmtree(self._folder)

    def namespace(self) -> Space | None:
        """The namespace in which our process lives, whatever name that has or lost, open. Whoever called closes it."""
        for process in filter(None, map(processes.held, self._pids())):
            try:
                space = process.space()
                if space is not None and process.bears(self._mark):
                    return space
            finally:
                process.close()
            if space is not None:
                space.close()
        return None

    def freed_leases(self, files: ServiceFiles) -> set[tuple[str, str]]:
        """MAC and address of cards that may hold a lease, by the file last given to dnsmasq, and shall not any more."""
        given, wanted = self._text("hosts"), files.live["hosts"]
        return set() if given == wanted else render.leases(given) - render.leases(wanted)

    def close(self) -> None:
        """Lets go of the process; it runs on."""
        if self._process is not None:
            self._process.close()
            self._process = None

    # --- finding

    def _is(self, config: Path, space_inode: int) -> bool:
        if self._process is not None and self._process.runs() and (self._config, self._inode) == (config, space_inode):
            return True
        self.close()
        for process in filter(None, map(processes.held, self._pids())):
            if process.bears(replace(self._mark, argument=f"--conf-file={config}")) and process.lives_in(space_inode):
                self._process, self._config, self._inode = process, config, space_inode
                return True
            process.close()
        return False

    def _pids(self) -> list[int]:
        """The pid file's, if that is one of ours; else whoever serves this folder, for the file may be lost."""
        said = self._text("pid").strip()
        return processes.bearing(self._mark, int(said) if said.isdigit() else 0)

    def _text(self, name: str) -> str:
        try:
            return (self._folder / name).read_text()
        except FileNotFoundError:
            return ""

    # --- starting and ending

    def _start(self, config: Path, space_inode: int) -> None:
        _check_way(self._folder)
        said = _started(config)
        if said:
            # A daemon that was killed may just have been starting one, which nobody could find yet: it holds the port.
            self.stop()
            said = _started(config)
        if said:
            raise ServiceFailed(f"dnsmasq did not start: {said}")
        if not self._is(config, space_inode):
            raise ServiceFailed(f"dnsmasq started and ended at once; its log says why (configuration {config})")

    def _end(self, pid: int) -> None:
        process = processes.held(pid)
        if process is None:
            return
        try:
            if process.bears(self._mark):
                process.tell(signal.SIGTERM)
                if not process.ended_within(_STOP_TIMEOUT_S):
                    process.tell(signal.SIGKILL)
                    if not process.ended_within(_STOP_TIMEOUT_S):
                        raise ServiceFailed(f"dnsmasq (process {pid}) does not end, not even killed")
        finally:
            process.close()

    # --- files

    def _write_all(self, config: Path, files: ServiceFiles) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True)
            os.chown(self._folder, 0, user().gid)
            self._folder.chmod(0o750)
        if not config.exists():
            _write(config, files.config)
        for name, text in files.live.items():
            _write(self._folder / name, text)


def user() -> User:
    """dnsmasq's own user where the package made one."""
    account = _account()
    return User(name=account.pw_name, group=grp.getgrgid(account.pw_gid).gr_name, gid=account.pw_gid)


def release_lease(server: str, mac: str, address: str) -> None:
    """Tell dnsmasq, in the card's name, that its address is free.

    Without that it refuses the address to the next card until the lease ends ("leased to"), and addresses are used
    again soon. No client id is sent: dnsmasq then finds the lease by its hardware address.
    """
    hardware = bytes.fromhex(mac.replace(":", ""))
    message = struct.pack("!BBBBIHH", 1, 1, 6, 0, 0, 0, 0) + socket.inet_aton(address) + bytes(12)
    message += hardware.ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63"
    message += b"\x35\x01\x07" + b"\x36\x04" + socket.inet_aton(server) + b"\xff"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        # By name: a packet to an own address is delivered from that interface, which is the one dnsmasq serves.
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, names.BRIDGE.encode())
        sender.sendto(message, (server, _DHCP_SERVER_PORT))


def _started(config: Path) -> str:
    """What dnsmasq says against starting; nothing if it runs: it goes to the background once its sockets are open."""
    program = shutil.which("dnsmasq", path=_ways())
    if program is None:
        raise ServiceFailed("dnsmasq is not installed: apt install dnsmasq-base")
    try:
        ran = subprocess.run(
            scored(OOM_SCORE, [program, f"--conf-file={config}"]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_START_TIMEOUT_S,
            cwd="/",
            env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise ServiceFailed(f"dnsmasq did not start within {_START_TIMEOUT_S} s") from late
    words = ran.stderr.decode(errors="replace").strip()[:300]
    return words or f"exit code {ran.returncode}" if ran.returncode else ""


def _ways() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("dnsmasq")
    except KeyError:
        return pwd.getpwnam("nobody")


def _check_way(folder: Path) -> None:
    """It reads its files again as its own user, after giving up root's rights."""
    account = user()
    for above in folder.parents:
        state = above.stat()
        if not state.st_mode & (0o010 if state.st_gid == account.gid else 0o001):
            raise ServiceFailed(
                f"dnsmasq's user {account.name} cannot pass through {above}: run `chmod o+x {above}` "
                "or choose another directory for network state"
            )


def _write(path: Path, text: str) -> None:
    """Complete or not at all: dnsmasq may read at any moment."""
    half = path.with_name(f".{path.name}.new")
    half.write_text(text)
    os.chown(half, 0, user().gid)
    half.chmod(0o640)
    half.rename(path)
