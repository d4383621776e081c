"""An identity on the wire, without any guest."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from innkeeper.drivers.guestlink.connection import Answered, Connection
from innkeeper.drivers.guestlink.fake import FakeGuest
from innkeeper.drivers.guestlink.frames import (
    PAYLOAD_MAX,
    Feature,
    Frame,
    Hello,
    Kind,
    Unsendable,
    WireError,
    encode,
    encode_hello,
)
from innkeeper.drivers.guestlink.hand import GuestLink
from innkeeper.drivers.guestlink.identity import (
    Identity,
    IdentityFailed,
    encode_identity,
    entries,
    require_all_done,
)
from innkeeper.drivers.guestlink.line import LinkDown
from tests.guest.channel import guest, linked
from tests.guest.identity.samples import FIRST, KEY, PUBLIC, WEB

# Templates live longer than releases.
FOR_EVER = [
    ("seed", bytes(range(64)).hex()),
    ("time_ns", "1700000000123456789"),
    ("instance", "i-3f09c2d41b7a"),
    ("machine_id", "0123456789abcdef0123456789abcdef"),
    ("boot_id", "0b5b4f0e-7a6a-4c4f-9d35-1d3a0b6a7c11"),
    ("hostname", "web"),
    ("domain", "inn.internal"),
    ("host_key", KEY),
    ("host_key_public", PUBLIC),
    ("cloud_init", "0"),
    ("card", "52:54:00:00:00:01"),
    ("name", "eth0"),
    ("mac", "52:54:00:ab:cd:01"),
    ("address", "10.1.2.3/20"),
    ("address", "fd00::5/64"),
    ("gateway", "10.1.0.1"),
    ("dns", "10.1.0.1"),
    ("dns", "10.1.0.2"),
    ("mtu", "1450"),
    ("card", "52:54:00:00:00:02"),
    ("mac", "52:54:00:ab:cd:02"),
    ("address", "10.2.0.5/24"),
    ("gateway", "10.2.0.1"),
]


def test_these_words_are_for_ever() -> None:
    payload = encode_identity(WEB)
    assert payload == b"".join(f"{key}={value}".encode() + b"\0" for key, value in FOR_EVER)
    assert list(entries(payload)) == FOR_EVER
    assert (Kind.PREPARE, Kind.IDENTITY, Kind.PREPARED, Kind.IDENTIFIED) == (0x20, 0x21, 0x60, 0x61)
    assert int(Feature.IDENTITY) == 8


def test_secrets_are_not_printed() -> None:
    assert "c2VjcmV0" not in repr(WEB)
    assert repr(WEB.seed) not in repr(WEB)


@pytest.mark.parametrize(
    "changed, words",
    [
        (dataclasses.replace(WEB, hostname="web\nx"), "hostname"),
        (dataclasses.replace(WEB, host_key="a\0b"), "host_key"),
        (dataclasses.replace(WEB, seed=b"short"), "5 bytes"),
        (dataclasses.replace(WEB, cards=(FIRST,) * 400), f"at most {PAYLOAD_MAX}"),
    ],
)
def test_what_has_no_form_is_refused(changed: Identity, words: str) -> None:
    with pytest.raises(Unsendable, match=words) as refused:
        encode_identity(changed)
    assert "a\0b" not in str(refused.value)


def test_what_was_cut_off_is_no_identity() -> None:
    with pytest.raises(WireError, match="cut off"):
        entries(encode_identity(WEB)[:-1])


def test_faults_are_told_without_control_characters() -> None:
    require_all_done("do it", b"")
    with pytest.raises(IdentityFailed, match=r"could not do it: no card  ?\[31m; no clock$"):
        require_all_done("do it", b"no card \x1b[31m\nno clock\n")
    with pytest.raises(IdentityFailed, match="did not say why"):
        require_all_done("do it", b"\n\n")


def ready() -> Connection:
    connection = Connection(77)
    connection.reset()
    connection.receive(encode_hello(FakeGuest().hello(77)))
    return connection


def test_only_what_was_asked_is_answered() -> None:
    connection = ready()
    number, frame = connection.ask(Kind.IDENTITY, b"x=y\0")
    assert frame == encode(Frame(kind=Kind.IDENTITY, stream=number, payload=b"x=y\0"))
    answer = encode(Frame(kind=Kind.IDENTIFIED, stream=number))
    assert connection.receive(answer) == [Answered(number, Kind.IDENTIFIED, b"")]
    with pytest.raises(WireError, match="more questions than it was asked"):
        connection.receive(answer)


# --- over a line


async def test_a_guest_that_lacks_a_card_is_not_believed_to_be_anybody(socket_path: str) -> None:
    async with FakeGuest(macs=(FIRST.from_mac,)).listening(socket_path), linked(socket_path) as link:
        with pytest.raises(IdentityFailed, match="no network card has the address 52:54:00:00:00:02"):
            await link.introduce(WEB, timeout_s=5)


async def test_another_kind_of_answer_is_none(socket_path: str) -> None:
    class Confused(FakeGuest):
        def prepare(self) -> bytes:
            raise AssertionError("it was asked for its identity")

    confused = Confused(macs=tuple(card.from_mac for card in WEB.cards))
    async with confused.listening(socket_path), linked(socket_path) as link:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await link._answer(Kind.IDENTITY, Kind.PREPARED, encode_identity(WEB))
        await link.introduce(WEB, timeout_s=5)
        assert (await link.status()).hostname == "web"


async def test_an_older_program_is_said_to_be_too_old(socket_path: str) -> None:
    class Older(FakeGuest):
        def hello(self, nonce: int) -> Hello:
            return dataclasses.replace(super().hello(nonce), features=Feature.EXEC, version="0.0.9")

    async with Older().listening(socket_path), linked(socket_path) as link:
        for asked in (link.prepare(5), link.introduce(WEB, 5)):
            with pytest.raises(IdentityFailed, match=r"program 0\.0\.9 takes no identity; build its template again"):
                await asked


async def test_a_guest_that_does_not_answer_may_be_anybody(socket_path: str) -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with guest(socket_path, listen):
        link = await GuestLink.connect(socket_path, deadline_s=5)
        with pytest.raises(LinkDown, match=r"did not answer PREPARE within 0\.2 s, so it may be anybody"):
            await link.prepare(timeout_s=0.2)
        await link.close()
