"""Our own terminal: what is typed, its size, and the signals that it sends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType

_CHUNK = 16 * 1024
_AHEAD = 4  # chunks that may be read before they are sent


@contextlib.contextmanager
def raw() -> Iterator[None]:
    """The terminal passes every key on; it is as before afterwards, whatever happens. Without one, nothing."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin, termios.TCSADRAIN)  # what was typed ahead stays
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def size() -> tuple[int, int]:
    """Rows and columns: of the terminal itself, whatever LINES and COLUMNS say."""
    try:
        now = os.get_terminal_size(sys.stdin.fileno())
    except (OSError, ValueError):
        now = shutil.get_terminal_size()
    return max(1, now.lines), max(1, now.columns)


async def typed() -> AsyncIterator[bytes]:
    """Standard input as it comes; read in a thread, since an ordinary file cannot be waited for.

    The thread is a daemon's: a read that nobody waits for any more must not keep us from ending.
    """
    loop, chunks, room = asyncio.get_running_loop(), asyncio.Queue[bytes](), threading.Semaphore(_AHEAD)

    def read() -> None:
        data = b"some"
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for more
            while data:
                room.acquire()
                try:
                    data = os.read(sys.stdin.fileno(), _CHUNK)
                except (OSError, ValueError):  # there is no input, or not any more: its end
                    data = b""
                loop.call_soon_threadsafe(chunks.put_nowait, data)

    threading.Thread(target=read, daemon=True, name="stdin").start()
    while data := await chunks.get():
        room.release()
        yield data


async def write(stream: int, data: bytes) -> None:
    """To standard output (1) or error (2), at once."""
    out = sys.stderr if stream == 2 else sys.stdout
    out.buffer.write(data)
    out.buffer.flush()


@contextlib.contextmanager
def heard(numbers: tuple[signal.Signals, ...], hear: Callable[[int], object]) -> Iterator[None]:
    """While the block runs in a loop, these signals are ours to hear."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        loop.add_signal_handler(number, hear, int(number))
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def unwound() -> Iterator[None]:
    """In the block, being told to end unwinds as Ctrl-C does, so that it is tidied up. A second time ends at once."""
    told = list[int]()

    def end(number: int, frame: FrameType | None) -> None:
        told.append(number)
        signal.signal(number, signal.SIG_DFL)
        interrupt = signal.getsignal(signal.SIGINT)  # while a loop runs, the loop's own: an error would hit any task
        if callable(interrupt):
            interrupt(signal.SIGINT, frame)

    # Who has us ignore them, as nohup does, is obeyed.
    ours = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    with _interruptible():
        for number in ours:
            signal.signal(number, end)
        try:
            yield
        except KeyboardInterrupt:
            if told:
                sys.exit(128 + told[0])
            raise
        finally:
            for number in ours:
                signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A shell's job in the background ignores Ctrl-C, and goes on doing so; but there is what Ctrl-C would do."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # which also drops one that waits
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))


@contextlib.contextmanager
def blocking() -> Iterator[None]:
    """For what may wait long in a loop: Ctrl-C ends it at once. The loop itself would learn of it only afterwards."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
