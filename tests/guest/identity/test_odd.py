"""Odd orders to the real program: nothing breaks it, what can be done is done, and the host hears of the rest."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from innkeeper.drivers.guestlink.frames import Decoder, Frame, Kind, decode_hello, encode, encode_reset
from innkeeper.drivers.guestlink.hand import GuestLink
from innkeeper.drivers.guestlink.identity import IdentityFailed, encode_identity
from tests.guest.channel import PATIENCE_S, Channel
from tests.guest.identity.place import Place, inside
from tests.guest.identity.samples import FIRST, WEB

pytestmark = [pytest.mark.net, pytest.mark.timeout(300)]


class Hardened:
    """The program built to notice its mistakes, and a loop of its own, for a property's examples."""

    def __init__(self, program: subprocess.Popen[bytes], line: socket.socket) -> None:
        self.program = program
        self._line = line
        self._decoder = Decoder()
        self._line.sendall(encode_reset(7))

    def ask(self, payload: bytes) -> None:
        self._line.sendall(encode(Frame(kind=Kind.IDENTITY, stream=9, payload=payload)))
        while all(frame.kind != Kind.IDENTIFIED for frame in self._decoder.feed(self._heard())):
            continue

    def _heard(self) -> bytes:
        data = self._line.recv(65536)
        assert data, "the program ended"
        return data


@pytest.fixture
def hardened(sanitized: str, apart: Place) -> Iterator[Hardened]:
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE_S)
    with ours, theirs:
        argv = [*apart.argv(sanitized), "--fd", str(theirs.fileno())]
        running = Hardened(subprocess.Popen(argv, pass_fds=[theirs.fileno()]), ours)
        theirs.close()
        yield running
        ours.close()
        assert running.program.wait(PATIENCE_S) == 0


async def told(link: GuestLink, payload: bytes) -> str:
    return (await link._answer(Kind.IDENTITY, Kind.IDENTIFIED, payload)).decode()


async def test_what_was_cut_off_is_not_half_believed(link: GuestLink, baked: Channel) -> None:
    whole = encode_identity(WEB)
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        # A cut between two entries cannot be told from a short identity; the frame's own length guards that.
        if not whole[:length].endswith(b"\0"):
            assert await told(link, whole[:length]) == "the identity was cut off; nothing of it was taken on\n"
    assert inside(baked.pid, "hostname") == "baked\n"


async def test_unknown_keys_are_passed_over(link: GuestLink, baked: Channel) -> None:
    payload = b"colour=blue\0no equals sign\0=\0" + b"x" * 100 + b"=y\0" + encode_identity(WEB) + b"shoe_size=43\0"
    assert await told(link, payload) == ""
    assert inside(baked.pid, "hostname") == "web\n"


async def test_a_missing_card_is_told_and_all_else_is_done(link: GuestLink, baked: Channel, apart: Place) -> None:
    missing = dataclasses.replace(FIRST, from_mac="52:54:00:00:00:77", mac="52:54:00:00:00:78", name="eth7")
    with pytest.raises(IdentityFailed, match="no network card has the address 52:54:00:00:00:77"):
        await link.introduce(dataclasses.replace(WEB, cards=(missing, *WEB.cards)), PATIENCE_S)
    assert inside(baked.pid, "hostname") == "web\n"
    assert apart.text("/etc/hostname") == "web\n"
    assert "10.1.2.3/20" in inside(baked.pid, "ip", "address", "show", "dev", "eth0")


@pytest.mark.parametrize(
    "entry, words",
    [
        (b"seed=00", "seed\n"),
        (b"seed=" + b"g" * 128, "seed\n"),
        (b"time_ns=-5", "time_ns=-5"),
        (b"time_ns=99999999999999999999", "time_ns"),
        (b"machine_id=0123", "machine_id=0123"),
        (b"boot_id=../../etc/passwd", "boot_id=../../etc/passwd"),
        (b"hostname=", "hostname"),
        (b"hostname=a/b", "hostname=a/b"),
        (b"hostname=" + b"a" * 65, "hostname=aaa"),
        (b"hostname=a\nb", "hostname=a b"),
        (b"host_key=", "host_key\n"),
        (b"cloud_init=yes", "cloud_init=yes"),
        (b"card=52:54:00", "card=52:54:00"),
        (b"address=10.0.0.1/24", "address=10.0.0.1/24"),
        (b"card=52:54:00:00:00:01\0address=10.0.0.1", "address=10.0.0.1"),
        (b"card=52:54:00:00:00:01\0address=10.0.0.1/33", "address=10.0.0.1/33"),
        (b"card=52:54:00:00:00:01\0address=fd00::/129", "address=fd00::/129"),
        (b"card=52:54:00:00:00:01\0name=../../x", "name=../../x"),
        (b"card=52:54:00:00:00:01\0name=much-too-long-a-name", "name=much-too-long"),
        (b"card=52:54:00:00:00:01\0gateway=10.0.0.0/8", "gateway=10.0.0.0/8"),
        (b"card=52:54:00:00:00:01\0mtu=99999999", "mtu=99999999"),
        (b"card=52:54:00:00:00:01\0" + b"address=10.0.0.1/24\0" * 17, "address=10.0.0.1/24"),
        (b"card=52:54:00:00:00:01\0" * 17, "card=52:54:00:00:00:01"),
        (b"card=52:54:00:00:00:01\0mtu=10", "cannot set up the network card card0"),
    ],
)
async def test_what_makes_no_sense_is_said(link: GuestLink, entry: bytes, words: str) -> None:
    assert words in await told(link, entry.rstrip(b"\0") + b"\0")
    await link.introduce(WEB, PATIENCE_S)


async def test_a_secret_is_not_repeated(link: GuestLink) -> None:
    assert "5ec7e7" not in await told(link, b"seed=5ec7e7\0host_key\x01=5ec7e7\0host_key_public=5ec7e7\n\0")


async def test_before_a_reset_nothing_is_obeyed(baked: Channel, apart: Place) -> None:
    apart.write("/etc/ssh/ssh_host_rsa_key", "whose")
    reader, writer = await asyncio.open_unix_connection(baked.path)
    for kind in (Kind.PREPARE, Kind.IDENTITY):
        writer.write(encode(Frame(kind=kind, stream=1, payload=encode_identity(WEB))))
    writer.write(encode_reset(7))
    decoder, heard = Decoder(), list[Frame]()
    async with asyncio.timeout(PATIENCE_S):
        while all(frame.kind != Kind.HELLO or decode_hello(frame.payload).nonce != 7 for frame in heard):
            heard += decoder.feed(await reader.read(65536))
    writer.close()
    assert {frame.kind for frame in heard} == {Kind.HELLO}
    assert apart.text("/etc/ssh/ssh_host_rsa_key") == "whose"
    assert inside(baked.pid, "hostname") == "baked\n"


KEYS = some.sampled_from(
    ["seed", "time_ns", "card", "mac", "name", "address", "gateway", "dns", "mtu", "machine_id", "boot_id", "domain"]
)
ENTRIES = some.builds(
    lambda key, value: key.encode() + b"=" + value, KEYS, some.binary(max_size=40)
) | some.sampled_from(
    [b"card=52:54:00:00:00:01", b"card=52:54:00:00:00:02", b"address=10.0.0.1/24", b"gateway=10.0.0.9", b"mtu=1400"]
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.lists(ENTRIES, max_size=12).map(lambda entries: b"\0".join(entries) + b"\0"))
def test_no_words_break_it(hardened: Hardened, payload: bytes) -> None:
    hardened.ask(payload)
