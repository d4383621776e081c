"""A host, the outside and guests, all in network namespaces of our own: nothing here sends a frame onto a real wire.

        outside 192.0.2.9 --- wan 192.0.2.1 host (root_netns of the driver) --- networks --- taps --- guests

A guest is a network namespace with a kernel's own network stack. What QEMU would do is done by a thread: it carries
frames between the tap that the driver hands out (with the virtio header) and a tap in the guest's namespace.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import IPv4Interface
from pathlib import Path
from typing import TypeVar

import pytest

from innkeeper.drivers.linuxnet.hand import LinuxNet, NetSettings
from innkeeper.drivers.linuxnet.kernel import namespaces, requests, switches
from innkeeper.drivers.linuxnet.kernel.rtnl import Rtnl
from innkeeper.model.ids import InstanceId, NetworkId, NicId, ProjectId
from innkeeper.model.network import Network, NetworkWanted, Port

OUTSIDE = "192.0.2.9"
HOST = "192.0.2.1"
WAIT_S = 5.0
VNET_HEADER = bytes(10)

T = TypeVar("T")


def network(number: int = 1, **changes: object) -> Network:
    fields: dict[str, object] = {
        "id": NetworkId(f"net-{number:012x}"),
        "project": ProjectId("p-1"),
        "name": f"lan{number}",
        "cidr": "10.9.0.0/24",
        "gateway": "10.9.0.1",
        "domain": "lab.internal",
    }
    return Network(**(fields | changes))  # type: ignore[arg-type]


def port(number: int, hostname: str = "", address: str = "") -> Port:
    return Port(
        nic=NicId(f"nic-{number:012x}"),
        instance=InstanceId(f"i-{number:012x}"),
        hostname=hostname or f"g{number}",
        mac=f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}",
        addresses=(address or f"10.9.{number + 9 >> 8}.{number + 9 & 255}",),
        uid_slot=number,
    )


def wanted(of: Network, *ports: Port, generation: int = 1) -> NetworkWanted:
    return NetworkWanted(network=of, generation=generation, ports=ports)


class Node:
    """A network namespace of the test's own."""

    def __init__(self, name: str) -> None:
        self.name = name
        namespaces.create(name)
        self.space = namespaces.named(name)
        with self.space.entered():
            self.rtnl = Rtnl()
        self.up("lo")

    def close(self) -> None:
        self.rtnl.close()
        self.space.close()
        namespaces.drop(self.name)

    def index(self, interface: str) -> int:
        link = self.rtnl.link(interface)
        assert link is not None, interface
        return link.index

    def up(self, interface: str) -> None:
        self.rtnl.send([requests.set_up(self.index(interface), interface)])

    def address(self, interface: str, address: str) -> None:
        self.up(interface)
        self.rtnl.send([requests.add_address(self.index(interface), interface, IPv4Interface(address))])

    def default_route(self, gateway: str, interface: str) -> None:
        self.rtnl.send([requests.default_route(gateway, self.index(interface))])

    def run(self, work: Callable[[], T]) -> T:
        with self.space.entered():
            return work()

    def nft(self, text: str) -> None:
        subprocess.run(
            ["ip", "netns", "exec", self.name, "nft", "-f", "-"], input=text.encode(), check=True, timeout=10
        )

    def rules(self) -> list[dict[str, object]]:
        words = ["ip", "netns", "exec", self.name, "nft", "-j", "list", "ruleset"]
        ran = subprocess.run(words, check=True, timeout=10, capture_output=True)
        return [item for item in json.loads(ran.stdout)["nftables"] if "metainfo" not in item]

    def switch(self, name: str) -> str | None:
        return self.run(lambda: switches.read(name))


class World:
    """One host and one outside, joined by a wire. `tag` keeps the names of one test apart from another's."""

    def __init__(self, tag: str, folder: Path) -> None:
        self.tag, self.folder = tag, folder
        self.host, self.outside = Node(f"{tag}host"), Node(f"{tag}outside")
        self.guests: list[Guest] = []
        self.nets: list[LinuxNet] = []
        wire = requests.add_veth("wan", "wan", self.outside.space.fd, 1500)
        self.host.rtnl.send([wire])
        self.host.address("wan", f"{HOST}/24")
        self.outside.address("wan", f"{OUTSIDE}/24")
        self.host.default_route(OUTSIDE, "wan")
        self.resolv_conf = folder / "resolv.conf"
        self.resolv_conf.write_text(f"nameserver {OUTSIDE}\n")

    def settings(self, tag: str | None = None) -> NetSettings:
        used = tag or self.tag
        return NetSettings(
            tag=used, state_dir=self.folder / used, root_netns=self.host.name, resolv_conf=self.resolv_conf
        )

    def net(self, tag: str | None = None) -> LinuxNet:
        net = LinuxNet(self.settings(tag))
        self.nets.append(net)
        return net

    async def guest(self, net: LinuxNet, of: Network, which: Port) -> Guest:
        guest = Guest(f"{self.tag}guest{len(self.guests)}", await net.open_tap(of.id, which.nic), which)
        self.guests.append(guest)
        return guest

    async def close(self) -> None:
        for guest in self.guests:
            guest.close()
        for net in self.nets:
            for each in await net.present():
                await net.remove(each)
            await net.close()
        self.host.close()
        self.outside.close()


@contextlib.asynccontextmanager
async def new_world() -> AsyncIterator[World]:
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists() or shutil.which("dnsmasq") is None:
        pytest.skip("needs root, /dev/net/tun and dnsmasq: run as root after `apt install dnsmasq-base`")
    folder = Path(tempfile.mkdtemp(prefix="ik-net-"))
    folder.chmod(0o755)
    # Drawn, not counted: other test runs may be going on beside this one.
    made = World(f"ik{secrets.token_hex(2)}", folder)
    try:
        yield made
    finally:
        await made.close()
        shutil.rmtree(folder)


class Guest(Node):
    """Holds a tap as QEMU would. `seen` is every frame that the host gave it."""

    def __init__(self, name: str, fd: int, which: Port) -> None:
        super().__init__(name)
        self.port, self._fd = which, fd
        self.seen: list[bytes] = []
        self._inner = self.run(_plain_tap)
        self.rtnl.send([requests.set_link(self.index("eth0"), "eth0", IFLA_ADDRESS=which.mac)])
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        for fd in (self._fd, self._inner, self._stop):
            os.close(fd)
        super().close()

    def settle(self, gateway: str = "10.9.0.1", prefix: int = 24) -> None:
        """Use the planned address, without asking."""
        self.address("eth0", f"{self.port.addresses[0]}/{prefix}")
        self.default_route(gateway, "eth0")

    def inject(self, frame: bytes) -> None:
        """Straight to the host, past the guest's own kernel, which would not send such a thing."""
        os.write(self._fd, VNET_HEADER + frame)

    def _carry(self) -> None:
        poll = select.poll()
        for fd in (self._fd, self._inner, self._stop):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._stop in ready:
                return
            with contextlib.suppress(BlockingIOError, OSError):
                if self._fd in ready:
                    frame = os.read(self._fd, 70000)[len(VNET_HEADER) :]
                    self.seen.append(frame)
                    os.write(self._inner, frame)
                if self._inner in ready:
                    os.write(self._fd, VNET_HEADER + os.read(self._inner, 70000))


def _plain_tap() -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"eth0", 0x1002))
    return fd


# --- talking


@contextlib.contextmanager
def echo(node: Node, address: str, number: int, kind: int = socket.SOCK_DGRAM) -> Iterator[list[str]]:
    """A server that answers with what it got; yields the addresses of those who asked."""
    asked: list[str] = []
    server = node.run(lambda: socket.socket(socket.AF_INET, kind))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, number))
    if kind == socket.SOCK_STREAM:
        server.listen()
    server.settimeout(0.05)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                if kind == socket.SOCK_DGRAM:
                    data, client = server.recvfrom(2048)
                    server.sendto(data, client)
                else:
                    line, client = server.accept()
                    line.close()
                asked.append(client[0])
            except TimeoutError:
                continue  # time to see whether it shall stop

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        thread.join()
        server.close()


def ask(node: Node, address: str, number: int, text: bytes = b"hello", wait_s: float = WAIT_S) -> bytes | None:
    """One question by UDP, asked again each half second until it is answered or the time is over."""
    with node.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.settimeout(min(wait_s, 0.5))
        for _ in range(max(1, round(wait_s / 0.5))):
            try:
                client.sendto(text, (address, number))
                return client.recv(4096)
            except OSError:
                continue  # no answer, or an ICMP error: it is asked again until the time is over
    return None


def connects(node: Node, address: str, number: int, wait_s: float = 1.0) -> bool:
    with node.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as client:
        client.settimeout(wait_s)
        try:
            client.connect((address, number))
        except OSError:
            return False
    return True
