"""The host's half of the guest link, without a socket: bytes in, events out, and bytes to send.

The theory. A guest's program outlives the hosts that talk to it, and a host outlives the programs (they restart, guests
reboot), while the channel between them stays open. So neither may believe that the other is still the one of a moment
ago:

    silent --reset()--> waiting --HELLO with our nonce--> ready
                           ^------------HELLO with nonce 0--'   (a new program: our reset goes out again)

In `waiting` all that comes is the past (an earlier host's output, half a frame) and skipped. RESET ends the sessions of
earlier hosts. In `ready` all that comes is meant for us, so bytes that are no frame are a broken guest, and output
beyond what we granted is a hostile one: both are WireError, and the line is to be given up.

Flow control is by credit on each stream, in both directions: WINDOW bytes of output may be under way to us,
`stdin_window` to the guest. Who reads says so by CREDIT, or GRANT, so a stream that nobody reads holds at most a
window and stops no other.

What nobody asked for is borne with patience that runs out (patience.py), and so is what is no frame: that too breaks
the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from innkeeper.drivers.guestlink.frames import (
    FRAME_MAX,
    PAYLOAD_MAX,
    PROTOCOL_VERSION,
    Decoder,
    Frame,
    Hello,
    Kind,
    WireError,
    decode_exit,
    decode_failed,
    decode_hello,
    decode_u32,
    encode,
    encode_open,
    encode_reset,
    encode_u32,
)
from innkeeper.drivers.guestlink.patience import FRAME_COSTS, RESTART_COSTS, Patience
from innkeeper.ports.streams import ExecRequest, Exited, Failed, Stderr, Stdout

WINDOW = 262144
SKIPPED_MOST = 2 * FRAME_MAX  # a connection may begin inside one frame
_ANSWERS = (Kind.FACTS, Kind.PREPARED, Kind.IDENTIFIED)


@dataclass(frozen=True, slots=True)
class Ready:
    hello: Hello


@dataclass(frozen=True, slots=True)
class Restarted:
    """Another program answers in the guest: every session is over. `answer` goes to it before anything else."""

    answer: bytes


@dataclass(frozen=True, slots=True)
class Output:
    stream: int
    output: Stdout | Stderr


@dataclass(frozen=True, slots=True)
class Ended:
    stream: int
    end: Exited | Failed


@dataclass(frozen=True, slots=True)
class Granted:
    """More input may be sent to this stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class Answered:
    """What a guest says to question number `request`, which is of use only when it is of the right kind."""

    request: int
    kind: int
    payload: bytes


Event: TypeAlias = Ready | Restarted | Output | Ended | Granted | Answered


class Phase(Enum):
    SILENT = "silent"
    WAITING = "waiting"
    READY = "ready"


@dataclass(slots=True)
class _Stream:
    sendable: int  # bytes of input that the guest has room for
    receivable: int = WINDOW  # bytes of output that we have room for
    consumed: int = 0  # bytes of output read, not yet granted again
    ended: bool = False  # we said that no more input follows


class Connection:
    """One host's line to one guest. Bytes that a method returns are to be sent, in the order of the calls."""

    def __init__(self, nonce: int) -> None:
        if not 0 < nonce < 1 << 64:
            raise ValueError("a nonce is 64 bits, and 0 means that nobody was answered")
        self.hello: Hello | None = None
        self.phase = Phase.SILENT
        self._nonce = nonce
        self.decoder = Decoder()
        self._streams: dict[int, _Stream] = {}
        self._last = 0  # stream and request numbers are never used twice
        self._asked = 0  # questions that may still be answered
        self._patience = Patience()

    def reset(self) -> bytes:
        self._streams.clear()
        self._asked = 0
        self.phase = Phase.WAITING
        return encode_reset(self._nonce)

    def insist(self) -> bytes:
        """For when nothing answers a reset: an earlier host may have died inside a frame, so complete that first."""
        return bytes(FRAME_MAX) + encode_reset(self._nonce)

    def receive(self, data: bytes, looks_most: int | None = None) -> list[Event]:
        """Raises WireError when the guest broke the protocol; then the line is to be given up.

        After `looks_most` looks the rest waits for the next call, which need not bring anything more.
        """
        skipped = self.decoder.skipped
        frames = self.decoder.feed(data, looks_most)
        if self.decoder.skipped > SKIPPED_MOST:
            raise WireError(
                f"the guest sent more than {SKIPPED_MOST} bytes that are no frames; look which program in it, other "
                "than innkeeper-guest, writes to our channel"
            )
        ready_before = self.phase is Phase.READY
        events = []
        for frame in frames:
            event = self._event(frame)
            self._patience.spend(_cost(frame, event))
            if event is not None:
                events.append(event)
        if ready_before and self.phase is Phase.READY and self.decoder.skipped != skipped:
            raise WireError("the guest sent bytes that are no frame")
        return events

    def open(self, request: ExecRequest) -> tuple[int, bytes]:
        """A new stream and its order. Raises Unsendable."""
        data = encode_open(self._last + 1, request, WINDOW)
        self._last += 1
        self._streams[self._last] = _Stream(sendable=self.hello.stdin_window if self.hello else 0)
        return self._last, data

    def stdin(self, stream: int, data: memoryview) -> tuple[int, bytes]:
        """How many bytes of `data` may go now, and the frame that carries them; 0 until Granted, and after the end."""
        state = self._streams.get(stream)
        length = min(len(data), state.sendable, PAYLOAD_MAX) if state else 0
        if not state or not length:
            return 0, b""
        state.sendable -= length
        return length, encode(Frame(kind=Kind.STDIN, stream=stream, payload=bytes(data[:length])))

    def eof(self, stream: int) -> bytes:
        """No more input. Later calls send nothing: a second one would be a breach."""
        state = self._streams.get(stream)
        if not state or state.ended:
            return b""
        state.ended, state.sendable = True, 0
        return encode(Frame(kind=Kind.STDIN_EOF, stream=stream))

    def consumed(self, stream: int, length: int) -> bytes:
        """Output was read. Credit goes out in quarters of the window: one small frame for many bytes."""
        state = self._streams.get(stream)
        if not state:
            return b""
        state.consumed += length
        if state.consumed < WINDOW // 4:
            return b""
        credit, state.consumed = state.consumed, 0
        state.receivable += credit
        return encode_u32(Kind.CREDIT, stream, credit)

    def close(self, stream: int) -> bytes:
        """Hang up; what the stream still says is passed over. Nothing to send when it has ended."""
        if self._streams.pop(stream, None) is None:
            return b""
        self._patience.hung_up()
        return encode(Frame(kind=Kind.CLOSE, stream=stream))

    def ask(self, question: Kind, payload: bytes = b"") -> tuple[int, bytes]:
        """A question's number and its frame."""
        self._last += 1
        self._asked += 1
        return self._last, encode(Frame(kind=question, stream=self._last, payload=payload))

    def _event(self, frame: Frame) -> Event | None:
        if frame.kind == Kind.HELLO:
            return self._greeted(decode_hello(frame.payload))
        if self.phase is not Phase.READY:
            return None
        if frame.kind in _ANSWERS:
            return self._answered(frame)
        if not 0 < frame.stream <= self._last:
            raise WireError(f"the guest speaks on stream {frame.stream}, which was never opened")
        state = self._streams.get(frame.stream)
        # A stream that we closed may still have something under way.
        return self._on_stream(frame, state) if state else None

    def _answered(self, frame: Frame) -> Answered:
        self._asked -= 1
        if self._asked < 0:
            raise WireError("the guest answered more questions than it was asked")
        self._patience.answered()
        return Answered(frame.stream, frame.kind, frame.payload)

    def _greeted(self, hello: Hello) -> Ready | Restarted | None:
        if self.phase is Phase.WAITING and hello.nonce == self._nonce:
            if hello.protocol != PROTOCOL_VERSION:
                raise WireError(
                    f"the guest's program {hello.version} speaks protocol {hello.protocol}, this host speaks "
                    f"{PROTOCOL_VERSION}; build its template again with this release"
                )
            self.hello, self.phase = hello, Phase.READY
            self._patience.past_is_over()
            return Ready(hello)
        if hello.nonce == 0 and self.phase is not Phase.SILENT:
            return Restarted(self.reset())
        return None

    def _on_stream(self, frame: Frame, state: _Stream) -> Event | None:
        match frame.kind:
            case Kind.STDOUT | Kind.STDERR:
                state.receivable -= len(frame.payload)
                if state.receivable < 0:
                    raise WireError("the guest sent more output than there was room for")
                if not frame.payload:
                    return None
                return Output(frame.stream, (Stdout if frame.kind == Kind.STDOUT else Stderr)(frame.payload))
            case Kind.EXIT:
                del self._streams[frame.stream]
                return Ended(frame.stream, decode_exit(frame.payload))
            case Kind.FAILED:
                del self._streams[frame.stream]
                return Ended(frame.stream, decode_failed(frame.payload))
            case Kind.GRANT:
                return self._granted(frame, state)
            case _:
                return None  # a newer guest's, which we did not ask for

    def _granted(self, frame: Frame, state: _Stream) -> Granted | None:
        granted = decode_u32(frame.payload)
        if self.hello is None or state.sendable + granted > self.hello.stdin_window:
            raise WireError("the guest granted more input than it has room for")
        state.sendable += granted
        return Granted(frame.stream) if granted else None


def _cost(frame: Frame, event: Event | None) -> int:
    """What a frame that is of no use takes of our patience."""
    if event is None:
        return FRAME_COSTS + len(frame.payload)
    return RESTART_COSTS if isinstance(event, Restarted) else 0
