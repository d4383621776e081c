"""rtnetlink in one network namespace: requests in batches, and looks that decode only what is asked for.

The socket belongs to the namespace that the thread had entered when it was opened, and can be used from anywhere. It is
our own because a converge is one synchronous piece of work in a worker thread: pyroute2's sockets run an event loop
each, and its full decoding of one link costs 0.4 ms, which for a network with 500 ports is longer than a launch may
take. Encoding is pyroute2's.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface, ip_network

from innkeeper.drivers.linuxnet.kernel.requests import Request

_SOL_NETLINK = 270
_ADD_MEMBERSHIP, _CAP_ACK, _EXT_ACK, _STRICT_CHECK = 1, 10, 11, 12
_RECEIVE_BYTES = 1 << 17
_BATCH_BYTES = 1 << 15
_ERROR, _DONE = 2, 3
_GETLINK, _GETADDR, _GETROUTE = 18, 22, 26
_REQUEST, _DUMP = 0x1, 0x300
_DUMP_INTERRUPTED = 0x10
_ACK_CAPPED, _ACK_WORDS = 0x100, 0x200
_BRIDGE = 7
_SKIP_STATS = struct.pack("=HHI", 8, 29, 8)  # IFLA_EXT_MASK: RTEXT_FILTER_SKIP_STATS
_MULTICAST_GROUPS = (1, 5, 7, 24)  # links, IPv4 addresses, IPv4 routes, forwarding switches
_ROUTE_UNICAST = 1
_ATTRIBUTE = struct.Struct("=HH")

_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _LINKINFO, _IFALIAS, _STATS64 = 1, 3, 4, 5, 10, 18, 20, 23

Interface = IPv4Interface | IPv6Interface
Range = IPv4Network | IPv6Network


class RtnlRefused(Exception):
    """The kernel said no: to what, and its reason."""

    def __init__(self, words: str, number: int, reason: str = "") -> None:
        super().__init__(f"{words}: {reason or os.strerror(number)}")
        self.number = number


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """`peer` is the number of a veth's other end. `counters` are, as the host sees it: packets received and sent, bytes
    received and sent, errors received and sent, packets dropped on receiving and sending."""

    index: int
    name: str
    up: bool
    mtu: int
    master: int
    peer: int
    mac: str
    kind: str
    alias: str
    counters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BridgePort:
    index: int
    name: str
    up: bool
    mtu: int
    master: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    index: int
    interface: Interface


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """`range` is None for a default route."""

    index: int
    range: Range | None
    gateway: str
    unicast: bool


class Rtnl:
    """Looks and changes in the namespace in which it was opened."""

    def __init__(self) -> None:
        self._socket = _opened()
        self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
        # Each request has a number of its own, so that an answer which came too late is not taken for another's.
        self._last = 0

    def close(self) -> None:
        self._socket.close()

    def send(self, requests: Sequence[Request]) -> None:
        """All, in this order. After a refusal it is unknown which of the later ones were done.

        Raises:
            RtnlRefused: the first request that was refused.
        """
        waiting: list[Request] = []
        size = 0
        for request in requests:
            if size + len(request.message) > _BATCH_BYTES:
                self._exchange(waiting)
                waiting, size = [], 0
            waiting.append(request)
            size += len(request.message)
        if waiting:
            self._exchange(waiting)

    def link(self, name: str) -> Link | None:
        text = name.encode() + b"\0"
        attribute = struct.pack("=HH", len(text) + 4, _IFNAME) + text + b"\0" * (-len(text) % 4)
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attribute + _SKIP_STATS
        try:
            for data in self._ask(_GETLINK, 0, body, f"look at {name}"):
                return _link(data)
        except RtnlRefused as refused:
            if refused.number != errno.ENODEV:
                raise
        return None

    def links(self, *, counters: bool = False) -> list[Link]:
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + (b"" if counters else _SKIP_STATS)
        return [_link(data) for data in self._ask(_GETLINK, _DUMP, body, "list interfaces")]

    def ports(self) -> list[BridgePort]:
        """Those with a bridge above them. A tenth of the cost of `links`: the kernel tells only what is of a bridge."""
        body = struct.pack("=BxHiII", _BRIDGE, 0, 0, 0, 0)
        return [_port(data) for data in self._ask(_GETLINK, _DUMP, body, "list ports")]

    def addresses(self, index: int = 0) -> list[Address]:
        body = struct.pack("=BBBBI", 0, 0, 0, 0, index)
        return [_address(data) for data in self._ask(_GETADDR, _DUMP, body, "list addresses")]

    def routes(self) -> list[Route]:
        """Of the main table: what this host reaches, and through what."""
        main_table = struct.pack("=HHI", 8, 15, 254)
        body = struct.pack("=BBBBBBBBI", 0, 0, 0, 0, 0, 0, 0, 0, 0) + main_table
        return [_route(data) for data in self._ask(_GETROUTE, _DUMP, body, "list routes")]

    def _exchange(self, requests: Sequence[Request]) -> None:
        numbered = dict(zip(self._numbers(len(requests)), requests, strict=True))
        batch = b"".join(
            request.message[:8] + struct.pack("=I", number) + request.message[12:]
            for number, request in numbered.items()
        )
        self._socket.send(batch)
        refused: RtnlRefused | None = None
        while numbered:
            for kind, flags, number, data in _messages(self._socket.recv(_RECEIVE_BYTES)):
                if kind != _ERROR or number not in numbered:
                    continue
                request = numbered.pop(number)
                code = -struct.unpack_from("=i", data)[0]
                if code and code not in request.settled and refused is None:
                    refused = RtnlRefused(request.words, code, _reason(flags, data))
        if refused is not None:
            raise refused

    def _ask(self, kind: int, flags: int, body: bytes, words: str) -> Iterator[bytes]:
        (asked,) = self._numbers(1)
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, asked, 0) + body)
        found: list[bytes] = []
        interrupted = False
        while True:
            for answer, answer_flags, number, data in _messages(self._socket.recv(_RECEIVE_BYTES)):
                if number != asked:
                    continue
                interrupted |= bool(answer_flags & _DUMP_INTERRUPTED)
                if answer == _ERROR:
                    raise RtnlRefused(words, -struct.unpack_from("=i", data)[0], _reason(answer_flags, data))
                if answer == _DONE:
                    # Something changed while the kernel was telling: what was told may be neither before nor after.
                    return self._ask(kind, flags, body, words) if interrupted else iter(found)
                found.append(data)
            if found and not flags & _DUMP:
                return iter(found)

    def _numbers(self, count: int) -> range:
        first = self._last + 1
        self._last += count
        if self._last > 1 << 31:
            first, self._last = 1, count
        return range(first, first + count)


class Watch:
    """Whether a namespace's interfaces, IPv4 addresses, routes or forwarding switches changed since one last asked."""

    def __init__(self) -> None:
        self._socket = _opened()
        for group in _MULTICAST_GROUPS:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()

    def quiet(self) -> bool:
        quiet = True
        while True:
            try:
                self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return quiet
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more happened than fits: not quiet
                    raise
            quiet = False


def _opened() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    opened.bind((0, 0))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    opened.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
    opened.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
    # The kernel answers at once, or waits for its one lock on interfaces: longer means that something hangs.
    opened.settimeout(10)
    return opened


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    at = 0
    while at + 16 <= len(data):
        size, kind, flags, number = struct.unpack_from("=IHHI", data, at)
        yield kind, flags, number, data[at + 16 : at + size]
        at += (size + 3) & ~3


def _attributes(data: bytes, start: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at, end = start, len(data)
    while at + 4 <= end:
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        found[kind & 0x3FFF] = data[at + 4 : at + size]
        at += (size + 3) & ~3
    return found


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


def _port(data: bytes) -> BridgePort:
    """Reads no further than it must: the bridge's own attributes are many, and come last."""
    index, flags = struct.unpack_from("=iI", data, 4)
    name, mtu, master = b"", 0, 0
    at, end = 16, len(data)
    while at < end and not (name and mtu and master):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if kind == _IFNAME:
            name = data[at + 4 : at + size]
        elif kind == _MTU:
            mtu = _number(data[at + 4 : at + size])
        elif kind == _MASTER:
            master = _number(data[at + 4 : at + size])
        at += (size + 3) & ~3
    return BridgePort(index, _text(name), bool(flags & 1), mtu, master)


def _link(data: bytes) -> Link:
    index, flags = struct.unpack_from("=iI", data, 4)
    told = _attributes(data, 16)
    counters = told.get(_STATS64, b"")[:64]
    info = _attributes(told[_LINKINFO], 0) if _LINKINFO in told else {}
    return Link(
        index=index,
        name=_text(told.get(_IFNAME, b"")),
        up=bool(flags & 1),
        mtu=_number(told.get(_MTU, b"")),
        master=_number(told.get(_MASTER, b"")),
        peer=_number(told.get(_LINK, b"")),
        mac=told.get(_ADDRESS, b"").hex(":"),
        kind=_text(info.get(1, b"")),
        alias=_text(told.get(_IFALIAS, b"")),
        counters=struct.unpack(f"={len(counters) // 8}Q", counters),
    )


def _address(data: bytes) -> Address:
    _, prefix, _, _, index = struct.unpack_from("=BBBBI", data)
    told = _attributes(data, 8)
    packed = told.get(2) or told[1]  # IFA_LOCAL; point-to-point links have the peer's in IFA_ADDRESS
    return Address(index=index, interface=ip_interface((packed, prefix)))


def _route(data: bytes) -> Route:
    prefix, kind = data[1], data[7]
    told = _attributes(data, 12)
    gateway = told.get(5, b"")
    return Route(
        index=_number(told.get(4, b"")),
        range=ip_network((told[1], prefix)) if 1 in told else None,
        gateway=socket.inet_ntop(socket.AF_INET if len(gateway) == 4 else socket.AF_INET6, gateway) if gateway else "",
        unicast=kind == _ROUTE_UNICAST,
    )


def _reason(flags: int, data: bytes) -> str:
    """The kernel's own sentence, if it gave one."""
    if not flags & _ACK_WORDS:
        return ""
    size = struct.unpack_from("=I", data, 4)[0]
    start = 4 + (16 if flags & _ACK_CAPPED else size)
    return _text(_attributes(data, start).get(1, b""))
