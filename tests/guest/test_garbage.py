"""Bytes that are no frames, on the way to the real program: nothing breaks it, and the next host finds it well.

These speak to the program directly, since no host of ours would say such things.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import struct
import subprocess
import time
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from innkeeper.drivers.guestlink import frames
from innkeeper.drivers.guestlink.connection import WINDOW, Connection
from innkeeper.drivers.guestlink.fake import STDIN_WINDOW
from innkeeper.drivers.guestlink.frames import PAYLOAD_MAX, Decoder, Frame, Kind, encode
from innkeeper.ports.streams import ExecRequest, Exited
from tests.guest.channel import PATIENCE_S, children

# Against the program built to notice its mistakes.
pytestmark = pytest.mark.slow

NONCE = 4242


class Program:
    """The program at the other end of a socket, and what it said."""

    def __init__(self, path: str) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(PATIENCE_S)
        with theirs:
            self.process = subprocess.Popen([path, "--fd", str(theirs.fileno())], pass_fds=[theirs.fileno()])
        self.decoder = Decoder()
        self.heard: deque[Frame] = deque()

    def say(self, data: bytes) -> None:
        self.ours.sendall(data)

    def hear(self, kind: Kind, stream: int = 0) -> Frame:
        """Reads on until such a frame comes."""
        while ((frame := self.next_frame()).kind, frame.stream) != (kind, stream):
            continue
        return frame

    def next_frame(self) -> Frame:
        while not self.heard:
            data = self.ours.recv(65536)
            assert data, "the program ended"
            self.heard += self.decoder.feed(data)
        return self.heard.popleft()

    def greet(self, nonce: int) -> None:
        """What a host does that gets no answer to its reset, until it has one."""
        self.say(frames.encode_reset(nonce) + Connection(nonce).insist())
        while frames.decode_hello(self.hear(Kind.HELLO).payload).nonce != nonce:
            pass

    def stop(self) -> None:
        self.ours.close()
        assert self.process.wait(PATIENCE_S) == 0


def order(stream: int, *argv: str) -> bytes:
    return frames.encode_open(stream, ExecRequest(argv=argv, env={}), WINDOW)


@pytest.fixture
def program(sanitized: str) -> Iterator[Program]:
    running = Program(sanitized)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def hardened(sanitized: str) -> Iterator[Program]:
    """One program for all of a property's examples: so each also meets what the one before left."""
    running = Program(sanitized)
    yield running
    running.stop()


# Orders made of noise would run whatever command they happen to name.
NOISE = some.builds(
    Frame,
    kind=some.sampled_from([kind for kind in Kind if kind is not Kind.OPEN]) | some.integers(0x10, 0xFF),
    flags=some.integers(0, 255),
    stream=some.integers(0, 5),
    payload=some.binary(max_size=60),
)
BAD_ORDERS = some.builds(
    Frame,
    kind=some.just(Kind.OPEN),
    flags=some.integers(0, 255),
    stream=some.integers(0, 5),
    payload=some.binary(min_size=0, max_size=12) | some.binary(max_size=60).map(lambda tail: bytes(8) + b"\1\0" + tail),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.lists(some.binary(max_size=300) | NOISE.map(encode) | BAD_ORDERS.map(encode), max_size=12))
def test_no_bytes_break_the_program(hardened: Program, chunks: list[bytes]) -> None:
    hardened.greet(NONCE)
    hardened.say(order(3, "cat"))
    for chunk in chunks:
        hardened.say(chunk)
    hardened.greet(NONCE + 1)
    hardened.say(order(9, "true"))
    assert frames.decode_exit(hardened.hear(Kind.EXIT, 9).payload) == Exited(code=0, signal=None)


def test_damaged_frames_never_run_anything(hardened: Program) -> None:
    """Real orders with single bytes changed: whatever is accepted is still an order to run `true`."""
    dice = random.Random(2)
    hardened.greet(NONCE)
    for _ in range(300):
        damaged = bytearray(order(5, "true"))
        damaged[dice.randrange(12)] ^= 1 << dice.randrange(8)
        hardened.say(bytes(damaged))
    hardened.greet(NONCE + 1)


def test_a_frame_cut_off_by_a_dying_host_never_reaches_the_command(program: Program, tmp_path: object) -> None:
    heard = f"{tmp_path}/heard"
    program.greet(1)
    program.say(order(1, "sh", "-c", f"trap '' HUP; echo up; exec cat >{heard}"))
    program.hear(Kind.STDOUT, 1)
    whole = encode(Frame(kind=Kind.STDIN, stream=1, payload=b"whole"))
    half = encode(Frame(kind=Kind.STDIN, stream=1, payload=b"cut" * 9000))
    program.say(whole + half[:1000])
    program.greet(2)
    program.say(order(2, "true"))
    program.hear(Kind.EXIT, 2)
    with open(heard, "rb") as file:
        assert file.read() in (b"", b"whole")  # hung up perhaps before it read, but never told what nobody said


def test_nothing_is_obeyed_before_a_reset(program: Program) -> None:
    program.say(encode(Frame(kind=Kind.STATUS, stream=1)) + order(2, "no-such-thing"))
    program.say(frames.encode_reset(NONCE) + encode(Frame(kind=Kind.STATUS, stream=3)))
    said = [program.next_frame() for _ in range(3)]
    assert [(frame.kind, frame.stream) for frame in said] == [(Kind.HELLO, 0), (Kind.HELLO, 0), (Kind.FACTS, 3)]


def test_a_grant_that_found_no_room_goes_out_when_there_is(program: Program) -> None:
    """One command fills the line to the last byte just when another's grant is due, and then nothing more happens."""
    program.greet(1)
    program.say(order(1, "sh", "-c", f"echo up; sleep 0.3; head -c {PAYLOAD_MAX} /dev/zero; sleep 1000"))
    program.say(order(2, "sh", "-c", "sleep 0.3; exec cat >/dev/null"))
    # As much as a pipe holds is taken at once, and granted; the rest waits for a reader.
    program.say(encode(Frame(kind=Kind.STDIN, stream=2, payload=bytes(21000))) * 5)
    granted = frames.decode_u32(program.hear(Kind.GRANT, 2).payload)
    os.kill(program.process.pid, signal.SIGSTOP)
    time.sleep(0.8)
    os.kill(program.process.pid, signal.SIGCONT)
    while granted < 5 * 21000 - STDIN_WINDOW // 4:
        granted += frames.decode_u32(program.hear(Kind.GRANT, 2).payload)


def test_more_input_than_granted_ends_that_stream_alone(program: Program) -> None:
    program.greet(1)
    program.say(order(1, "sleep", "1000") + order(2, "cat"))
    program.say(encode(Frame(kind=Kind.STDIN, stream=1, payload=bytes(30000))) * 20)
    assert "more input than was granted" in frames.decode_failed(program.hear(Kind.FAILED, 1).payload).reason
    program.say(encode(Frame(kind=Kind.STDIN_EOF, stream=2)))
    program.hear(Kind.EXIT, 2)


def test_a_stream_opened_twice_is_ended(program: Program) -> None:
    program.greet(1)
    program.say(order(1, "sleep", "1000") * 2)
    assert "opened a stream twice" in frames.decode_failed(program.hear(Kind.FAILED, 1).payload).reason


def test_it_says_hello_unasked_when_it_starts(program: Program) -> None:
    hello = frames.decode_hello(program.hear(Kind.HELLO).payload)
    assert (hello.nonce, hello.protocol) == (0, frames.PROTOCOL_VERSION)
    assert hello.features == frames.Feature.EXEC | frames.Feature.PTY | frames.Feature.STATUS


def test_a_host_that_never_reads_is_no_reason_to_grow(plain: str) -> None:
    program = Program(plain)
    program.greet(1)
    program.say(b"".join(order(n, "yes") for n in range(1, 60)))
    # Nothing is read here. Questions pile up until the program stops taking them; then it waits.
    program.ours.setblocking(False)
    question = encode(Frame(kind=Kind.STATUS, stream=1)) * 1000
    while select.select([], [program.ours], [], 1.0)[1]:
        program.ours.send(question)
    with open(f"/proc/{program.process.pid}/statm") as file:
        pages = int(file.read().split()[1])
    assert pages * os.sysconf("SC_PAGE_SIZE") <= 1536 * 1024
    program.ours.settimeout(PATIENCE_S)
    # A question may have been sent in part; the rest of it is junk to the program, which the insisting host overcomes.
    talk = bytearray()
    while select.select([program.ours], [], [], 1.0)[0]:
        talk += program.ours.recv(65536)
    assert len(Decoder().feed(bytes(talk))) > 100
    for pid in children(program.process.pid):
        os.kill(int(pid), signal.SIGKILL)
    program.stop()


def test_the_hello_frame_is_for_ever(program: Program) -> None:
    program.say(frames.encode_reset(NONCE))
    while frames.decode_hello((hello := program.hear(Kind.HELLO)).payload).nonce != NONCE:
        pass
    assert struct.unpack_from("<QHHII", hello.payload) == (NONCE, 1, 64, 7, 131072)
