"""The frames of the guest link, as bytes and back. guest/README.md describes them; guest.h has the same numbers.

    magic u16 "IK" | type u8 | flags u8 | stream u32 | length u32 | payload | tail u32        (little-endian)

A frame is at most 32 KiB as a whole, because the guest's kernel takes that much in one write, whole or not at all.
The tail is mixed from the header: it exposes a frame that was cut off by its sender's death and filled up by the
successor's bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from innkeeper.ports.streams import ExecRequest, Exited, Failed, Pty

PROTOCOL_VERSION = 1
MAGIC = b"IK"
FRAME_MAX = 32768
_HEAD = struct.Struct("<2sBBII")
_TAIL = struct.Struct("<I")
PAYLOAD_MAX = FRAME_MAX - _HEAD.size - _TAIL.size
_WORDS_MAX = 4096  # of arguments, and as many of environment

_HELLO = struct.Struct("<QHHII")
_OPEN = struct.Struct("<IHHHH")
_EXIT = struct.Struct("<ii")
_U32 = struct.Struct("<I")
_SIZE = struct.Struct("<HH")
_RESET = struct.Struct("<QH")


class Kind(IntEnum):
    """Types of frames. 0x20 to 0x3f, answered by 0x60 to 0x7f, belong to identity."""

    RESET = 0x01
    OPEN = 0x02
    STDIN = 0x03
    STDIN_EOF = 0x04
    SIGNAL = 0x05
    WINCH = 0x06
    CLOSE = 0x07
    CREDIT = 0x08
    STATUS = 0x09
    PREPARE = 0x20
    IDENTITY = 0x21
    HELLO = 0x41
    STDOUT = 0x43
    STDERR = 0x44
    EXIT = 0x45
    FAILED = 0x46
    GRANT = 0x48
    FACTS = 0x49
    PREPARED = 0x60
    IDENTIFIED = 0x61


class Feature(IntFlag):
    EXEC = 1
    PTY = 2
    STATUS = 4
    IDENTITY = 8


# A flag keeps every value it was ever made of, so it is made only of what we know.
_FEATURES_KNOWN = Feature.EXEC | Feature.PTY | Feature.STATUS | Feature.IDENTITY

_PTY_FLAG = 1
_LOGIN_FLAG = 2


class WireError(Exception):
    """The other side broke the protocol; nothing it says from here on can be trusted to mean anything."""


class Unsendable(ValueError):
    """A command that cannot be put on the wire; the text says why, for the person who gave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """`kind` is a plain number, since a newer other side may know more kinds than we do."""

    kind: int
    stream: int = 0
    payload: bytes = b""
    flags: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a guest's program says of itself. Nonce 0: it has just started and answers nobody."""

    nonce: int
    protocol: int
    sessions_max: int
    features: Feature
    stdin_window: int
    version: str


def _tail(kind: int, flags: int, stream: int, length: int) -> int:
    return ((stream * 0x9E3779B1) ^ (length * 0x85EBCA6B) ^ (0xA5C30000 | kind << 8 | flags)) & 0xFFFFFFFF


def encode(frame: Frame) -> bytes:
    length = len(frame.payload)
    if length > PAYLOAD_MAX:
        raise Unsendable(f"{length} bytes do not fit into one frame; at most {PAYLOAD_MAX} do")
    head = _HEAD.pack(MAGIC, frame.kind, frame.flags, frame.stream, length)
    return b"".join((head, frame.payload, _TAIL.pack(_tail(frame.kind, frame.flags, frame.stream, length))))


class Decoder:
    """Bytes in, frames out. What is no frame is skipped up to the next bytes that can begin one, and counted.

    A look is at one place where a frame may begin. It costs the same whatever is there, and the way to the next place
    next to nothing: so `looks` is the work that was done, and who limits it limits the time.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self.looks = 0
        self._bytes = bytearray()

    def feed(self, data: bytes, looks_most: int | None = None) -> list[Frame]:
        """The frames that are whole. After `looks_most` looks the rest waits; feed it nothing to go on."""
        self._bytes += data
        end = self.looks + (len(self._bytes) if looks_most is None else looks_most)
        frames: list[Frame] = []
        at = 0
        while len(self._bytes) - at >= _HEAD.size and self.looks < end:
            self.looks += 1
            size = self._frame(at, frames)
            if size is None:
                break
            at += size or self._skip(at)
        del self._bytes[:at]
        return frames

    def _frame(self, at: int, frames: list[Frame]) -> int | None:
        """The size of the frame that begins here: 0 where none does, None when it has not come whole."""
        magic, kind, flags, stream, length = _HEAD.unpack_from(self._bytes, at)
        if magic != MAGIC or length > PAYLOAD_MAX:
            return 0
        begin, end = at + _HEAD.size, at + _HEAD.size + length
        if len(self._bytes) < end + _TAIL.size:
            return None
        if _TAIL.unpack_from(self._bytes, end)[0] != _tail(kind, flags, stream, length):
            return 0
        with memoryview(self._bytes) as view:
            frames.append(Frame(kind=kind, flags=flags, stream=stream, payload=bytes(view[begin:end])))
        return int(end + _TAIL.size - at)

    def _skip(self, at: int) -> int:
        found = self._bytes.find(MAGIC, at + 1)
        if found < 0:
            # The last byte may be the first of two.
            found = len(self._bytes) - self._bytes.endswith(MAGIC[:1])
        self.skipped += found - at
        return found - at


def encode_reset(nonce: int) -> bytes:
    return encode(Frame(kind=Kind.RESET, payload=_RESET.pack(nonce, PROTOCOL_VERSION)))


def decode_reset(payload: bytes) -> int:
    if len(payload) < _RESET.size:
        raise WireError("a reset frame is too short")
    return int(_RESET.unpack_from(payload)[0])


def encode_hello(hello: Hello) -> bytes:
    fixed = _HELLO.pack(hello.nonce, hello.protocol, hello.sessions_max, hello.features, hello.stdin_window)
    return encode(Frame(kind=Kind.HELLO, payload=fixed + hello.version.encode()))


def decode_hello(payload: bytes) -> Hello:
    if len(payload) < _HELLO.size:
        raise WireError("a hello frame is too short")
    nonce, protocol, sessions_max, features, stdin_window = _HELLO.unpack_from(payload)
    return Hello(
        nonce=nonce,
        protocol=protocol,
        sessions_max=sessions_max,
        features=Feature(features & _FEATURES_KNOWN),
        stdin_window=stdin_window,
        version=printable(payload[_HELLO.size :][:256])[:64],
    )


def encode_u32(kind: Kind, stream: int, value: int) -> bytes:
    return encode(Frame(kind=kind, stream=stream, payload=_U32.pack(value & 0xFFFFFFFF)))


def decode_u32(payload: bytes) -> int:
    if len(payload) < _U32.size:
        raise WireError("a frame is too short for the number it should hold")
    return int(_U32.unpack_from(payload)[0])


def encode_size(stream: int, rows: int, cols: int) -> bytes:
    return encode(Frame(kind=Kind.WINCH, stream=stream, payload=_SIZE.pack(_u16(rows), _u16(cols))))


def decode_size(payload: bytes) -> tuple[int, int]:
    if len(payload) < _SIZE.size:
        raise WireError("a resize frame is too short")
    rows, cols = _SIZE.unpack_from(payload)
    return rows, cols


def encode_exit(stream: int, exited: Exited) -> bytes:
    code = -1 if exited.code is None else exited.code
    return encode(Frame(kind=Kind.EXIT, stream=stream, payload=_EXIT.pack(code, exited.signal or 0)))


def decode_exit(payload: bytes) -> Exited:
    if len(payload) < _EXIT.size:
        raise WireError("an exit frame is too short")
    code, signal = _EXIT.unpack_from(payload)
    if signal:
        return Exited(code=None, signal=signal)
    return Exited(code=code, signal=None)


def encode_failed(stream: int, errno: int, reason: str) -> bytes:
    return encode(Frame(kind=Kind.FAILED, stream=stream, payload=_U32.pack(errno) + reason.encode()))


def decode_failed(payload: bytes) -> Failed:
    if len(payload) < _U32.size:
        raise WireError("a failure frame is too short")
    return Failed(printable(payload[_U32.size :][:2048])[:512] or "the guest gave no reason")


def encode_open(stream: int, request: ExecRequest, window: int) -> bytes:
    """Raises Unsendable when the request has no form on the wire."""
    argv = tuple(_word(word, "argument") for word in request.argv)
    env = tuple(_variables(request.env))
    if argv and not argv[0]:
        raise Unsendable("the command has an empty name")
    if len(argv) > _WORDS_MAX or len(env) > _WORDS_MAX:
        raise Unsendable(f"more than {_WORDS_MAX} arguments or variables; send them through the command's input")
    pty = request.pty or Pty(rows=0, cols=0, term="")
    places = (_word(request.user or "", "user"), _word(request.cwd or "", "directory"), _word(pty.term, "terminal"))
    fixed = _OPEN.pack(window, _u16(pty.rows), _u16(pty.cols), len(argv), len(env))
    payload = fixed + b"".join(word + b"\0" for word in (*places, *argv, *env))
    if len(payload) > PAYLOAD_MAX:
        raise Unsendable(
            f"the command line and its environment take {len(payload)} bytes, at most {PAYLOAD_MAX} fit; "
            "put the long part into a file, or send it through the command's input"
        )
    flags = (_PTY_FLAG if request.pty else 0) | (0 if argv else _LOGIN_FLAG)
    return encode(Frame(kind=Kind.OPEN, stream=stream, payload=payload, flags=flags))


def decode_open(frame: Frame) -> tuple[ExecRequest, int]:
    """The guest's side of encode_open: the request and the window."""
    if len(frame.payload) < _OPEN.size or not frame.payload.endswith(b"\0"):
        raise WireError("an open frame is too short")
    window, rows, cols, argc, envc = _OPEN.unpack_from(frame.payload)
    words = [word.decode("utf-8", "surrogateescape") for word in frame.payload[_OPEN.size : -1].split(b"\0")]
    if len(words) != 3 + argc + envc:
        raise WireError("an open frame does not hold as many words as it says")
    user, cwd, term = words[:3]
    env = dict(_parted(words[3 + argc :]))
    pty = Pty(rows=rows, cols=cols, term=term) if frame.flags & _PTY_FLAG else None
    return ExecRequest(argv=tuple(words[3 : 3 + argc]), env=env, cwd=cwd or None, user=user or None, pty=pty), window


def _parted(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        name, _, value = word.partition("=")
        yield name, value


def _variables(env: Mapping[str, str]) -> Iterator[bytes]:
    for name, value in env.items():
        if not name or "=" in name:
            raise Unsendable(f"{name!r} is no name for an environment variable")
        yield _word(f"{name}={value}", f"environment variable {name}")


def _word(text: str, what: str) -> bytes:
    try:
        word = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Unsendable(f"the {what} {text!r} is no valid text") from None
    if b"\0" in word:
        raise Unsendable(f"the {what} {text!r} contains a zero byte")
    return word


def _u16(value: int) -> int:
    return min(max(value, 0), 0xFFFF)


def printable(data: bytes) -> str:
    """A guest's words for people to read: no control characters, which could drive the reader's terminal."""
    text = data.decode("utf-8", "replace")
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return text.strip()
