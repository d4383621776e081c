"""The frames and the connection, without any guest: what goes in comes out, and what is hostile is noticed."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as some

from innkeeper.drivers.guestlink import frames
from innkeeper.drivers.guestlink.connection import WINDOW, Connection, Ended, Output, Phase, Ready, Restarted
from innkeeper.drivers.guestlink.fake import FakeGuest
from innkeeper.drivers.guestlink.frames import PAYLOAD_MAX, Decoder, Frame, Kind, WireError, encode
from innkeeper.ports.streams import ExecRequest, Exited, Failed, Pty, Stdout

NONCE = 77
WORDS = some.text(some.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NAMES = some.text(some.characters(exclude_characters="\0=", exclude_categories=["Cs"]), min_size=1, max_size=20)
FRAMES = some.builds(
    Frame,
    kind=some.integers(0, 255),
    flags=some.integers(0, 255),
    stream=some.integers(0, 0xFFFFFFFF),
    payload=some.binary(max_size=200) | some.just(b"IK" * 100),
)
REQUESTS = some.builds(
    ExecRequest,
    argv=some.lists(WORDS, max_size=5).map(tuple).filter(lambda argv: not argv or bool(argv[0])),
    env=some.dictionaries(NAMES, WORDS, max_size=5),
    cwd=some.none() | WORDS.filter(bool),
    user=some.none() | WORDS.filter(bool),
    pty=some.none() | some.builds(Pty, rows=some.integers(0, 65535), cols=some.integers(0, 65535), term=WORDS),
)


def ready() -> Connection:
    connection = Connection(NONCE)
    connection.reset()
    connection.receive(frames.encode_hello(FakeGuest().hello(NONCE)))
    assert connection.phase is Phase.READY
    return connection


def opened() -> tuple[Connection, int]:
    connection = ready()
    stream, _ = connection.open(ExecRequest(argv=("true",), env={}))
    return connection, stream


def test_these_bytes_are_for_ever() -> None:
    """guest.h has the same numbers, and templates live longer than releases."""
    assert encode(Frame(kind=Kind.STDIN, stream=5, payload=b"hi")).hex() == "494b030005000000020000006869a3f701b9"
    assert encode(Frame(kind=Kind.CLOSE, stream=1)).hex() == "494b07000100000000000000b17ef43b"
    assert frames.encode_reset(1)[12:-4].hex() == "01000000000000000100"


@given(some.lists(FRAMES, max_size=8), some.data())
def test_frames_survive_any_cutting(sent: list[Frame], data: some.DataObject) -> None:
    stream = b"".join(map(encode, sent))
    cuts = sorted(data.draw(some.lists(some.integers(0, len(stream)), max_size=10)))
    decoder = Decoder()
    got = [frame for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) for frame in decoder.feed(stream[a:b])]
    assert (got, decoder.skipped) == (sent, 0)


@given(some.lists(some.binary(max_size=400) | FRAMES.map(encode), max_size=8))
def test_no_bytes_break_the_decoder(chunks: list[bytes]) -> None:
    decoder = Decoder()
    frames_found = [frame for chunk in chunks for frame in decoder.feed(chunk)]
    whole = sum(len(encode(frame)) for frame in frames_found)
    assert whole + decoder.skipped + len(decoder._bytes) == sum(map(len, chunks))


@given(some.binary(max_size=400), some.lists(FRAMES, max_size=3))
def test_frames_are_found_again_after_garbage(garbage: bytes, sent: list[Frame]) -> None:
    decoder = Decoder()
    decoder.feed(garbage)
    decoder.feed(bytes(2 * frames.FRAME_MAX))
    assert decoder.feed(b"".join(map(encode, sent))) == sent


@given(FRAMES.filter(lambda frame: len(frame.payload) > 1), FRAMES, some.data())
def test_a_frame_that_was_cut_off_never_arrives(cut: Frame, later: Frame, data: some.DataObject) -> None:
    half = encode(cut)[: data.draw(some.integers(1, len(encode(cut)) - 5))]
    got = Decoder().feed(half + encode(later) * 100 + bytes(2 * frames.FRAME_MAX))
    assert set(got) == {later}


@given(REQUESTS)
def test_requests_survive_the_wire(request: ExecRequest) -> None:
    [frame] = Decoder().feed(frames.encode_open(9, request, WINDOW))
    assert frames.decode_open(frame) == (request, WINDOW)


@given(some.binary(max_size=100))
def test_no_payload_breaks_the_readers(payload: bytes) -> None:
    readers = (frames.decode_reset, frames.decode_hello, frames.decode_u32, frames.decode_size, frames.decode_exit)
    for reader in (*readers, frames.decode_failed):
        with contextlib.suppress(WireError):
            reader(payload)


@given(some.lists(FRAMES | some.builds(Frame, kind=some.sampled_from(Kind), stream=some.integers(0, 3)), max_size=8))
def test_no_frames_break_the_connection(sent: list[Frame]) -> None:
    connection, _ = opened()
    try:
        connection.receive(b"".join(map(encode, sent)))
    except WireError:
        return
    assert connection.phase is Phase.READY or Frame(kind=Kind.HELLO) not in sent


def test_the_past_is_skipped_until_our_own_greeting() -> None:
    connection = Connection(NONCE)
    connection.reset()
    past = encode(Frame(kind=Kind.STDOUT, stream=3, payload=b"old")) + b"half a frame"
    stale = frames.encode_hello(FakeGuest().hello(NONCE + 1))
    assert connection.receive(past + stale) == []
    assert connection.receive(frames.encode_hello(FakeGuest().hello(NONCE))) == [Ready(FakeGuest().hello(NONCE))]


def test_another_program_is_greeted_anew_and_ends_every_stream() -> None:
    connection, stream = opened()
    assert connection.receive(frames.encode_hello(FakeGuest().hello(0))) == [Restarted(frames.encode_reset(NONCE))]
    assert connection.stdin(stream, memoryview(b"lost")) == (0, b"")
    assert connection.receive(frames.encode_hello(FakeGuest().hello(NONCE))) == [Ready(FakeGuest().hello(NONCE))]


def test_a_second_answer_to_a_doubled_reset_changes_nothing() -> None:
    connection, stream = opened()
    assert connection.receive(frames.encode_hello(FakeGuest().hello(NONCE))) == []
    assert connection.stdin(stream, memoryview(b"kept"))[0] == 4


def test_what_a_closed_stream_still_says_is_passed_over() -> None:
    connection, stream = opened()
    connection.close(stream)
    assert connection.receive(frames.encode_exit(stream, Exited(code=0, signal=None))) == []


def test_ends_and_output() -> None:
    connection, stream = opened()
    data = encode(Frame(kind=Kind.STDOUT, stream=stream, payload=b"x")) + frames.encode_failed(stream, 2, "no\x1b[2J")
    assert connection.receive(data) == [Output(stream, Stdout(b"x")), Ended(stream, Failed("no [2J"))]


@pytest.mark.parametrize(
    "said,complaint",
    [
        (b"no frame at all, though long enough", "no frame"),
        (encode(Frame(kind=Kind.STDOUT, stream=9, payload=b"x")), "stream 9, which was never opened"),
        (encode(Frame(kind=Kind.STDOUT, stream=1, payload=bytes(PAYLOAD_MAX))) * 9, "more output than there was room"),
        (frames.encode_u32(Kind.GRANT, 1, 1), "granted more input than it has room for"),
        (encode(Frame(kind=Kind.EXIT, stream=1, payload=b"123")), "too short"),
        (encode(Frame(kind=Kind.HELLO, payload=struct.pack("<Q", 0))), "too short"),
    ],
)
def test_a_guest_that_breaks_the_protocol_is_noticed(said: bytes, complaint: str) -> None:
    connection, _ = opened()
    with pytest.raises(WireError, match=complaint):
        connection.receive(said)


def test_another_protocol_is_refused_with_advice() -> None:
    connection = Connection(NONCE)
    connection.reset()
    payload = struct.pack("<QHHII", NONCE, 9, 64, 1, 1) + b"9.9"
    with pytest.raises(
        WireError, match=r"program 9\.9 speaks protocol 9, this host speaks 1; build its template again"
    ):
        connection.receive(encode(Frame(kind=Kind.HELLO, payload=payload)))


def test_credit_goes_out_in_quarters() -> None:
    connection, stream = opened()
    assert connection.consumed(stream, WINDOW // 4 - 1) == b""
    assert connection.consumed(stream, 1) == frames.encode_u32(Kind.CREDIT, stream, WINDOW // 4)
    assert connection.consumed(99, WINDOW) == b""


def test_the_end_of_input_is_said_once() -> None:
    connection, stream = opened()
    assert connection.eof(stream) != b""
    assert connection.eof(stream) == b""
    assert connection.stdin(stream, memoryview(b"late")) == (0, b"")
