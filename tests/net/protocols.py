"""DHCP and DNS as a guest speaks them, and single frames, put together by hand."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.net.world import WAIT_S, Node, ask

BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


# --- DHCP


def dhcp(node: Node, hardware: str, interface: str = "eth0", wait_s: float = WAIT_S) -> dict[int, bytes] | None:
    """Discover and request. The options of the acknowledgement, and under 0 the address; None if nobody gave one."""
    with node.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        client.bind(("", 68))
        client.settimeout(0.5)
        offer = _exchange(client, hardware, b"\x35\x01\x01", 2, wait_s)
        if offer is None:
            return None
        request = b"\x35\x01\x03" + b"\x32\x04" + offer[0] + b"\x36\x04" + offer[54]
        return _exchange(client, hardware, request, 5, wait_s)


def _exchange(
    client: socket.socket, hardware: str, options: bytes, kind: int, wait_s: float
) -> dict[int, bytes] | None:
    wish = b"\x37\x07\x01\x03\x06\x0c\x0f\x1a\x77"
    message = struct.pack("!BBBBIHH", 1, 1, 6, 0, 0x1234, 0, 0x8000) + bytes(16) + mac(hardware).ljust(16, b"\0")
    message += bytes(192) + b"\x63\x82\x53\x63" + options + wish + b"\xff"
    for _ in range(max(1, round(wait_s / 0.5))):
        client.sendto(message, ("255.255.255.255", 67))
        try:
            answer = client.recv(2048)
        except TimeoutError:
            continue  # it is asked again, until the time is over
        found = {0: answer[16:20]} | dict(_options(answer[240:]))
        if answer[28:34] == mac(hardware) and found.get(53) == bytes([kind]):
            return found
    return None


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data) and data[at] != 255:
        if data[at] == 0:
            at += 1
            continue
        size = data[at + 1]
        yield data[at], data[at + 2 : at + 2 + size]
        at += 2 + size


# --- DNS


def resolve(node: Node, name: str, server: str, wait_s: float = WAIT_S) -> list[str] | None:
    """IPv4 addresses; an empty list for "no such name"; None for no answer, or none that is one."""
    answer = ask(node, server, 53, _question(name), wait_s)
    if answer is None:
        return None
    _, flags, questions, answers, _, _ = struct.unpack_from("!6H", answer)
    if flags & 15 not in (0, 3):
        return None
    at = 12
    for _ in range(questions):
        at = _after_name(answer, at) + 4
    found = []
    for _ in range(answers):
        at = _after_name(answer, at)
        kind, _, _, size = struct.unpack_from("!HHIH", answer, at)
        if kind == 1:
            found.append(socket.inet_ntoa(answer[at + 10 : at + 14]))
        at += 10 + size
    return found


def _question(name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def _after_name(data: bytes, at: int) -> int:
    while data[at]:
        if data[at] & 0xC0:
            return at + 2
        at += data[at] + 1
    return at + 1


@contextmanager
def name_server(node: Node, address: str, answer: str) -> Iterator[list[bytes]]:
    """Answers every question for an address with `answer`; yields the questions it got."""
    questions: list[bytes] = []
    server = node.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind((address, 53))
    server.settimeout(0.05)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                asked, client = server.recvfrom(2048)
            except TimeoutError:
                continue  # time to see whether it shall stop
            questions.append(asked)
            end = _after_name(asked, 12) + 4
            head = asked[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0)
            record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(answer)
            server.sendto(head + asked[12:end] + record, client)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield questions
    finally:
        stop.set()
        thread.join()
        server.close()


# --- frames


def ethernet(source: str, target: str, kind: int, payload: bytes) -> bytes:
    return mac(target) + mac(source) + struct.pack("!H", kind) + payload


def arp(source: str, address: str, asked: str, operation: int = 1, sender: str | None = None) -> bytes:
    """`sender` is the hardware address said inside, where it differs from the frame's."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac(sender or source) + socket.inet_aton(address)
    return ethernet(source, BROADCAST, 0x0806, body + bytes(6) + socket.inet_aton(asked))


def udp(source: str, target: str, addresses: tuple[str, str], ports: tuple[int, int], text: bytes = b"mark") -> bytes:
    body = struct.pack("!HHHH", *ports, 8 + len(text), 0) + text
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, 17, 0)
    head += socket.inet_aton(addresses[0]) + socket.inet_aton(addresses[1])
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return ethernet(source, target, 0x0800, head[:10] + struct.pack("!H", checksum) + head[12:] + body)


def router_advertisement(source: str) -> bytes:
    body = bytes((134, 0, 0, 0, 64, 0, 7, 8)) + bytes(8)
    pair = socket.inet_pton(socket.AF_INET6, "fe80::66") + socket.inet_pton(socket.AF_INET6, "ff02::1")
    total = sum(struct.unpack(f"!{len(pair) // 2}H", pair)) + len(body) + 58
    total += sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), 58, 255)
    return ethernet(source, "33:33:00:00:00:01", 0x86DD, head + pair + body)
