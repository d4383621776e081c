"""A guest may send anything, for ever: what comes is decoded alike however it arrives, and costs a bounded amount.

Work and memory are counted here, never timed.
"""

from __future__ import annotations

import itertools
import struct
import tracemalloc
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as some

from innkeeper.drivers.guestlink import frames
from innkeeper.drivers.guestlink.connection import SKIPPED_MOST, WINDOW, Answered, Connection, Phase
from innkeeper.drivers.guestlink.facts import read_facts
from innkeeper.drivers.guestlink.fake import FakeGuest
from innkeeper.drivers.guestlink.frames import PAYLOAD_MAX, Decoder, Feature, Frame, Kind, WireError, encode
from innkeeper.drivers.guestlink.patience import FRAME_COSTS, PATIENCE, PATIENCE_UNDER_WAY
from innkeeper.drivers.guestlink.unread import Unread
from innkeeper.ports.streams import ExecRequest, Exited, Stderr, Stdout

pytestmark = pytest.mark.slow

NONCE = 77
MUCH = 1 << 18


def head(length: int, stream: int = 1) -> bytes:
    """The beginning of a frame, with nothing behind it."""
    return struct.pack("<2sBBII", b"IK", Kind.STDOUT, 0, stream, length)


# --- the decoder

FRAMES = some.builds(
    Frame,
    kind=some.integers(0, 255),
    flags=some.integers(0, 255),
    stream=some.integers(0, 0xFFFFFFFF),
    payload=some.binary(max_size=60) | some.just(b"IK" * 20),
)
LENGTHS = some.integers(0, 60) | some.sampled_from([PAYLOAD_MAX, PAYLOAD_MAX + 1, 0xFFFFFFFF])
PIECES = some.lists(
    some.binary(max_size=60)
    | some.integers(1, 60).map(lambda n: b"I" * n)
    | some.integers(1, 60).map(lambda n: b"IK" * n)
    | LENGTHS.map(head)
    | FRAMES.map(encode)
    | FRAMES.map(lambda frame: encode(frame)[:-1]),
    max_size=12,
)


def as_described(stream: bytes) -> Iterator[Frame]:
    """The README's rule, tried at one byte after the other."""
    at = 0
    while len(stream) - at >= 12:
        magic, kind, flags, number, length = struct.unpack_from("<2sBBII", stream, at)
        begins = magic == b"IK" and length <= PAYLOAD_MAX
        if begins and len(stream) - at < 12 + length + 4:
            return
        frame = Frame(kind=kind, flags=flags, stream=number, payload=stream[at + 12 : at + 12 + length])
        if begins and stream.startswith(encode(frame), at):
            yield frame
            at += len(encode(frame))
        else:
            at += 1


def heard(decoder: Decoder, pieces: Iterable[bytes], looks_most: int) -> list[Frame]:
    got = []
    for piece in pieces:
        got += decoder.feed(piece, looks_most)
        while True:
            before = (decoder.skipped, len(got))
            looks = decoder.looks
            got += decoder.feed(b"", looks_most)
            assert decoder.looks - looks <= looks_most
            if (decoder.skipped, len(got)) == before:
                break
    return got


@given(PIECES, some.data())
def test_bytes_mean_the_same_however_they_are_cut(pieces: list[bytes], data: some.DataObject) -> None:
    stream = b"".join(pieces)
    wanted = list(as_described(stream))
    assert Decoder().feed(stream) == wanted
    cuts = sorted(data.draw(some.lists(some.integers(0, len(stream)), max_size=10)))
    parts = [stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)])]
    decoder = Decoder()
    assert [frame for part in parts for frame in decoder.feed(part)] == wanted
    assert heard(Decoder(), parts, data.draw(some.integers(1, 5))) == wanted
    assert heard(Decoder(), (bytes([byte]) for byte in stream), 1) == wanted


@pytest.mark.parametrize("piece", [100, 65536, MUCH])
@pytest.mark.parametrize(
    "rubbish,bytes_a_look",
    [
        (b"I", MUCH),
        (b"\0", MUCH),
        (b"KI" * 50 + b"\0", 2),
        (b"IK", 2),
        (head(PAYLOAD_MAX), 12),
        (head(PAYLOAD_MAX + 1), 12),
        (head(40), 12),
        (encode(Frame(kind=0x77)), 16),
    ],
    ids=["letters", "zeros", "backwards", "magic", "longest", "too long", "short", "empty frames"],
)
def test_rubbish_costs_a_look_for_each_beginning_at_most(rubbish: bytes, bytes_a_look: int, piece: int) -> None:
    stream = (rubbish * (MUCH // len(rubbish) + 1))[:MUCH]
    decoder = Decoder()
    for at in range(0, MUCH, piece):
        decoder.feed(stream[at : at + piece])
    calls = MUCH // piece + 1
    assert decoder.looks <= MUCH // bytes_a_look + calls
    assert len(decoder._bytes) <= frames.FRAME_MAX


# --- the connection


def ready() -> Connection:
    """With one stream open, one that ended, and one that we closed."""
    connection = Connection(NONCE)
    connection.reset()
    connection.receive(frames.encode_hello(FakeGuest().hello(NONCE)))
    request = ExecRequest(argv=("true",), env={})
    (_, _), (ended, _), (closed, _) = (connection.open(request) for _ in range(3))
    connection.receive(frames.encode_exit(ended, Exited(code=0, signal=None)))
    connection.close(closed)
    return connection


def waiting() -> Connection:
    connection = Connection(NONCE)
    connection.reset()
    return connection


STALE = frames.encode_hello(FakeGuest().hello(NONCE + 1))
AGAIN = frames.encode_hello(FakeGuest().hello(NONCE))
NOBODYS = frames.encode_hello(FakeGuest().hello(0))
EXIT_1, EXIT_2, EXIT_3 = (frames.encode_exit(stream, Exited(code=0, signal=None)) for stream in (1, 2, 3))


ENDLESS = {
    "letters": b"I",
    "magic": b"IK",
    "longest heads": head(PAYLOAD_MAX),
    "short heads": head(40),
    "greetings of another host": STALE,
    "our greeting": AGAIN,
    "new programs": NOBODYS,
    "new programs that greet": NOBODYS + AGAIN,
    "ends": EXIT_1,
    "ends of what ended": EXIT_2,
    "ends of what we closed": EXIT_3,
    "unknown kinds": encode(Frame(kind=0x77, stream=1)),
    "kinds of ours": encode(Frame(kind=Kind.STATUS, stream=1)),
    "empty output": encode(Frame(kind=Kind.STDOUT, stream=1)),
    "little output": encode(Frame(kind=Kind.STDOUT, stream=1, payload=bytes(16))),
    "little late output": encode(Frame(kind=Kind.STDOUT, stream=3, payload=b"x")),
    "much late output": encode(Frame(kind=Kind.STDERR, stream=3, payload=bytes(PAYLOAD_MAX))),
    "answers": encode(Frame(kind=Kind.FACTS, stream=4, payload=b"hostname=x\n")),
    "grants of nothing": frames.encode_u32(Kind.GRANT, 1, 0),
    "grants of everything": frames.encode_u32(Kind.GRANT, 1, 0xFFFFFFFF),
    "late grants": frames.encode_u32(Kind.GRANT, 3, 0xFFFFFFFF),
    "late failures": frames.encode_failed(2, 1, "again"),
}


def hear(connection: Connection, endless: bytes) -> None:
    """Several times as much as any patience."""
    block = endless * (65536 // len(endless) + 1)
    for _ in range(4 * PATIENCE_UNDER_WAY // len(block)):
        connection.receive(block)
        assert len(connection.decoder._bytes) <= frames.FRAME_MAX


@pytest.mark.parametrize("start", [waiting, ready])
@pytest.mark.parametrize("endless", ENDLESS.values(), ids=ENDLESS)
def test_nothing_is_heard_for_ever(endless: bytes, start: Callable[[], Connection]) -> None:
    """A stream of anything ends the line, after so many looks at most and with little kept."""
    connection = start()
    with pytest.raises(WireError):
        hear(connection, endless)
    assert connection.decoder.looks <= max(PATIENCE_UNDER_WAY // FRAME_COSTS, SKIPPED_MOST // 2, WINDOW) + 65536 // 2


def test_it_is_said_what_is_wrong_with_rubbish() -> None:
    connection = waiting()
    with pytest.raises(WireError, match=rf"more than {SKIPPED_MOST} bytes that are no frames; look which program"):
        connection.receive(b"I" * (SKIPPED_MOST + 13))


def test_half_a_frame_of_an_earlier_host_is_no_rubbish() -> None:
    connection = waiting()
    half = encode(Frame(kind=Kind.STDOUT, stream=1, payload=b"IK" * (PAYLOAD_MAX // 2)))[1:]
    past = half + encode(Frame(kind=Kind.STDOUT, stream=1, payload=bytes(PAYLOAD_MAX))) * 64
    assert connection.receive(past + AGAIN) != []
    assert connection.phase is Phase.READY


def test_what_a_closed_stream_had_under_way_is_borne() -> None:
    """Time and again: each close may leave what sockets and queues hold, also in small pieces."""
    connection = ready()
    for _ in range(5):
        stream, _ = connection.open(ExecRequest(argv=("yes",), env={}))
        connection.close(stream)
        assert connection.receive(encode(Frame(kind=Kind.STDOUT, stream=stream, payload=b"y")) * 20000) == []


def test_a_newer_guest_that_says_more_is_borne_as_long_as_it_answers() -> None:
    connection = ready()
    news = encode(Frame(kind=0x77, stream=1, payload=b"news"))
    for _ in range(5 * PATIENCE_UNDER_WAY // PATIENCE):
        number, _ = connection.ask(Kind.STATUS)
        answer = encode(Frame(kind=Kind.FACTS, stream=number, payload=b"hostname=x\n"))
        assert connection.receive(news * 100 + answer) == [Answered(number, Kind.FACTS, b"hostname=x\n")]


def test_flags_of_a_greeting_are_not_kept() -> None:
    known = len(Feature._value2member_map_)
    for bits in range(16, 4096):
        payload = struct.pack("<QHHII", NONCE, 1, 64, bits, 1)
        assert frames.decode_hello(payload).features in Feature(15)
    assert len(Feature._value2member_map_) <= known + 16


# --- what is kept


@given(some.lists(some.builds(Stdout, some.binary(min_size=1)) | some.builds(Stderr, some.binary(min_size=1))))
def test_unread_output_keeps_its_bytes_and_their_order(said: list[Stdout | Stderr]) -> None:
    unread = Unread()
    for output in said:
        unread.put(output)
    read = [unread.take() for _ in range(len(unread))]
    assert _bytes_of(read) == _bytes_of(said)
    with pytest.raises(IndexError):
        unread.take()


def _bytes_of(outputs: list[Stdout | Stderr]) -> list[tuple[type, int]]:
    return [(type(output), byte) for output in outputs for byte in output.data]


def test_large_and_small_output_keep_their_order() -> None:
    unread = Unread()
    said: list[Stdout | Stderr] = [
        Stdout(b"a" * 5),
        Stdout(b"b" * 5000),
        Stdout(b"c"),
        Stderr(b"d" * 3000),
        Stdout(b"e"),
        Stdout(b"f"),
    ]
    for output in said:
        unread.put(output)
    assert len(unread) == 5
    assert _bytes_of([unread.take() for _ in range(5)]) == _bytes_of(said)


@pytest.mark.parametrize("kinds", [(Stdout,), (Stdout, Stderr)])
def test_a_window_of_single_bytes_takes_little_more_than_a_window(
    kinds: tuple[type[Stdout] | type[Stderr], ...],
) -> None:
    unread = Unread()
    tracemalloc.start()
    try:
        for number in range(WINDOW):
            unread.put(kinds[number % len(kinds)](b"x"))
        assert tracemalloc.get_traced_memory()[1] < 12 * WINDOW
    finally:
        tracemalloc.stop()


def test_facts_are_read_no_further_than_an_honest_answer_goes() -> None:
    last = b"\nhostname=late\n"
    assert read_facts(b"x" * 1000 + last).hostname == "late"
    assert read_facts(b"x" * (PAYLOAD_MAX - len(last)) + last).hostname is None
    assert read_facts(b"\n" * 5000 + last).hostname is None


def test_interfaces_are_few_and_have_short_names() -> None:
    said = b"".join(b"address=eth%d 10.0.0.1/8\n" % n for n in range(600))
    assert len(read_facts(said).nics) == 64
    assert len(read_facts(b"address=eth0 10.0.0.1/8\n" * 600).nics[0].addresses) == 256
    assert read_facts(b"address=" + b"e" * 16 + b" 10.0.0.1/8\nmac= 52:54:00:00:00:01\n").nics == ()


@pytest.mark.parametrize(
    "address", ["10.0.0.1/33", "::1/129", "10.0.0.1", "10.0.0.1/", "1/8", "::1%eth0/64", "\u0661.0.0.1/8"]
)
def test_what_is_no_address_is_left_out(address: str) -> None:
    assert read_facts(f"address=eth0 {address}\n".encode()).nics == ()
