"""Forwarding switches of the host's interfaces: those that we turn on, and how we answer for it.

Linux asks the interface on which a packet comes *in* whether it may be forwarded. Answers to our guests come in from
outside, so the interfaces that lead outward must forward. Turning on the switch for all (`ip_forward`) would make the
host a router for everybody; so we turn on only what is off, one by one, and a rule drops whatever comes in there and is
not for a guest (`opened` in render.py). Where the administrator or Docker has turned on the switch for all, we open
nothing and guard nothing.

Which ones were us is kept in a file, because rules can be flushed, and in the rules, because files can be lost. Several
installations on one machine each guard what any of them opened; the last one closes it.

All functions run in a worker thread that has entered the host's namespace.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from innkeeper.drivers.linuxnet.kernel import switches

_ALL = "ipv4/conf/all/forwarding"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Forwarding:
    def __init__(self, record: Path, space_inode: int) -> None:
        self._record = record
        self._moment = f"{_BOOT_ID.read_text().strip()}/{space_inode}"
        self._answered = False

    def stands(self) -> bool:
        """Whether what we answer for is still written down."""
        return self._record.exists() or not self._answered

    def answer_for(self, outward: Iterable[str], guarded: Iterable[str]) -> frozenset[str]:
        """Interfaces to guard: closed ones that we are going to open, those on record, and those that any of us guards.

        Recorded before anything is opened.
        """
        if switches.read(_ALL) == "1":
            self._record.unlink(missing_ok=True)
            self._answered = False
            return frozenset()
        closed = {name for name in outward if _is(name) == "0"}
        standing = {name for name in (*self._recorded(), *guarded) if _is(name) is not None}
        opened = frozenset(closed | standing)
        if opened != self._recorded():
            self._record.parent.mkdir(parents=True, exist_ok=True)
            half = self._record.with_suffix(".new")
            half.write_text("\n".join((self._moment, *sorted(opened))))
            half.rename(self._record)
        self._answered = bool(opened)
        return opened

    def open(self, interfaces: Iterable[str]) -> None:
        for name in interfaces:
            switches.ensure(_switch(name), "1")

    def close(self, others: Iterable[str]) -> None:
        """What we opened is closed, but for what others still guard. May be repeated."""
        if switches.read(_ALL) == "0":
            for name in self._recorded() - set(others):
                switches.ensure(_switch(name), "0")
        self._record.unlink(missing_ok=True)
        self._answered = False

    def _recorded(self) -> frozenset[str]:
        try:
            moment, *interfaces = self._record.read_text().splitlines()
        except (FileNotFoundError, ValueError):
            return frozenset()
        # After a reboot the switches are as the system set them.
        return frozenset(interfaces) if moment == self._moment else frozenset()


def _switch(interface: str) -> str:
    return f"ipv4/conf/{interface}/forwarding"


def _is(interface: str) -> str | None:
    return switches.read(_switch(interface))
