"""nftables: a process that carries out its words, and a ruleset that knows whether somebody else touched it.

Starting `nft` for each change costs more than the change, so libnftables waits in a process beside us (`nft_process.py`
says why not in this one). Every transaction in a network namespace raises the kernel's ruleset generation by one. While
it stands where our last one left it, nobody has changed anything and a difference of set elements is enough; otherwise
the whole is loaded again, in one transaction too, so there is no moment without rules.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from innkeeper.drivers.linuxnet.kernel import nft_process
from innkeeper.drivers.linuxnet.kernel.namespaces import Space
from innkeeper.drivers.linuxnet.kernel.rules import Rules
from innkeeper.drivers.linuxnet.settings import OOM_SCORE

_NETFILTER = 12  # NETLINK_NETFILTER
_GETGEN = (10 << 8) | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_ID_ATTRIBUTE = 1
_TIMEOUT_S = 30
_END_TIMEOUT_S = 5


class NftRefused(Exception):
    """The first lines of what nft said, and the command it was about."""


class NftProcess:
    """The process that holds libnftables. Started when it is needed, and again should it end. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

    def run(self, space: Space, text: str, *, json_wanted: bool = False) -> str:
        """Carry out nft's words in this namespace, all in one transaction or none, and return what it says.

        Raises:
            NftRefused: with nft's own words; or the process ended, and it is unknown whether anything was done.
        """
        with self._lock:
            line = self._ready()
            try:
                words = text.encode()
                head = nft_process.HEADER.pack(len(words), json_wanted)
                socket.send_fds(line, [head], [space.fd])
                line.sendall(words)
                answer = nft_process.received(line, nft_process.ANSWER.size)
                refused, said, complaint = nft_process.ANSWER.unpack(answer)
                output, error = nft_process.received(line, said), nft_process.received(line, complaint)
            except (EOFError, OSError) as lost:
                self._end()
                raise NftRefused(f"the process that holds libnftables ended or hangs ({lost!r}); try again") from lost
        if refused:
            raise NftRefused(" ".join(error.decode(errors="replace").split())[:400])
        return output.decode()

    def close(self) -> None:
        with self._lock:
            self._end()

    def _ready(self) -> socket.socket:
        if self._line is not None and self._child is not None and self._child.poll() is None:
            return self._line
        self._end()
        ours, theirs = socket.socketpair()
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # A session of its own: Ctrl-C at the daemon's terminal must not end it half-way through a pass.
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", nft_process.__file__, str(theirs.fileno()), str(home), str(OOM_SCORE)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                pass_fds=(theirs.fileno(), home),
                start_new_session=True,
            )
        finally:
            theirs.close()
            os.close(home)
        ours.settimeout(_TIMEOUT_S)
        self._line = ours
        return ours

    def _end(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._child is not None:
            try:
                self._child.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait(_END_TIMEOUT_S)
            self._child = None


class Nft:
    """nftables in one namespace."""

    def __init__(self, process: NftProcess, space: Space) -> None:
        self._process, self._space = process, space
        with space.entered():
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
        self._socket.bind((0, 0))
        self._socket.settimeout(5)

    def close(self) -> None:
        self._socket.close()

    def run(self, text: str) -> None:
        self._process.run(self._space, text)

    def show(self, command: str) -> list[dict[str, Any]]:
        """The answer to a `list` command, as nft's JSON objects, without the header."""
        answer = json.loads(self._process.run(self._space, command, json_wanted=True))
        return [item for item in answer["nftables"] if "metainfo" not in item]

    def generation(self) -> int:
        """Grows by one with each transaction of anybody in this namespace."""
        self._socket.send(struct.pack("=IHHIIBBH", 20, _GETGEN, 1, 1, 0, 0, 0, 0))
        answer = self._socket.recv(8192)
        for kind, value in _attributes(answer[20:]):
            if kind == _ID_ATTRIBUTE:
                return int.from_bytes(value, "big")
        raise NftRefused("the kernel tells no ruleset generation: nf_tables is missing")


class Ruleset:
    """The wanted rules of one namespace, brought about at the least cost that is still certain."""

    def __init__(self, nft: Nft) -> None:
        self._nft = nft
        self._standing: Rules | None = None
        self._generation = -1

    def untouched(self) -> bool:
        """Nobody but us changed anything in this namespace since our last change."""
        return self._nft.generation() == self._generation

    def converge(self, wanted: Rules) -> None:
        before = self._nft.generation()
        standing = self._standing if before == self._generation else None
        if standing == wanted:
            return
        self._standing, self._generation = None, -1
        incremental = standing is not None and standing.base == wanted.base
        self._nft.run(wanted.since(standing) if standing is not None and incremental else wanted.text())
        after = self._nft.generation()
        # Two steps instead of one: somebody came between, and what is there is unknown. Next time everything is loaded.
        if after == before + 1:
            self._standing, self._generation = wanted, after


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        yield kind, data[at + 4 : at + size]
        at += (size + 3) & ~3 or 4
