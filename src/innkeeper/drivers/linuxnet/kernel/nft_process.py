"""A program of its own that holds libnftables and does what `nft.py` asks of it, until its line is closed.

It is apart from the daemon because libnftables waits with select(), which ends the whole process once a descriptor has
a number of 1024 or more, and a daemon with some hundred instances has that many. It keeps nothing between requests.

    nft_process.py LINE HOME SCORE      descriptors: a stream socket, and the network namespace to be in when idle;
                                        what to be when memory runs out, at least: the daemon's own would be inherited

Request: the namespace as a descriptor beside a header (length, whether JSON is wanted), then nft's words.
Answer: whether it was refused, two lengths, what nft said, what it complained of.

It imports the standard library only, so that it starts at once and stays small.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys

HEADER = struct.Struct("=I?")
ANSWER = struct.Struct("=?II")

_LIBRARY = "libnftables.so.1"
_JSON = 1 << 4
_CLONE_NEWNET = 0x40000000


def library() -> ctypes.CDLL:
    loaded = ctypes.CDLL(_LIBRARY)
    loaded.nft_ctx_new.restype = ctypes.c_void_p
    loaded.nft_ctx_new.argtypes = [ctypes.c_uint32]
    loaded.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    loaded.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(loaded, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(loaded, name).argtypes = [ctypes.c_void_p]
        getattr(loaded, name).restype = ctypes.c_char_p
    return loaded


def run(nft: ctypes.CDLL, text: bytes, json: bool) -> tuple[bool, bytes, bytes]:
    """In the namespace that the process is in. All in one transaction."""
    context = nft.nft_ctx_new(0)
    if not context:
        return True, b"", b"libnftables could not be started: out of memory, or no netfilter socket"
    try:
        nft.nft_ctx_buffer_output(context)
        nft.nft_ctx_buffer_error(context)
        nft.nft_ctx_output_set_flags(context, _JSON if json else 0)
        refused = nft.nft_run_cmd_from_buffer(context, text) != 0
        return refused, nft.nft_ctx_get_output_buffer(context), nft.nft_ctx_get_error_buffer(context)
    finally:
        nft.nft_ctx_free(context)


def received(line: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = line.recv(min(size - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def serve(line: socket.socket, home: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(space: int) -> None:
        if libc.setns(space, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    enter(home)
    nft = library()
    while True:
        head, (space, *_), _, _ = socket.recv_fds(line, HEADER.size, 1, socket.MSG_WAITALL)
        size, json = HEADER.unpack(head)
        text = received(line, size)
        enter(space)
        try:
            refused, said, complaint = run(nft, text, json)
        finally:
            # In nobody's namespace between requests: it could not end while we are in it.
            enter(home)
            os.close(space)
        line.sendall(ANSWER.pack(refused, len(said), len(complaint)) + said + complaint)


def take(score: int) -> None:
    """Have this score when memory runs out, or the higher one that we have."""
    try:
        with open("/proc/self/oom_score_adj", "r+", buffering=1) as mine:
            if int(mine.read()) < score:
                mine.write(str(score))
    except OSError as error:
        # Rules go on as well; what this says stands in the daemon's log.
        sys.stderr.write(f"the process with libnftables is spared like the daemon when memory runs out: {error}\n")


def main() -> None:
    take(int(sys.argv[3]))
    try:
        serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    except (EOFError, ValueError, ConnectionError):
        return  # the daemon closed its line, or is gone


if __name__ == "__main__":
    main()
