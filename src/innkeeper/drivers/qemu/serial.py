"""The serial console: one line to QEMU, a bounded log of what was said, and any number of people looking on.

    guest ─▶ QEMU ─▶ ConsoleLine ─▶ ConsoleLog (two files, the older one dropped)
                          └───────▶ View, View… (each bounded; a slow one loses the oldest)

Everything a guest writes is bounded: what is kept, and how fast it is taken. A guest that writes faster than that waits
for its serial port, as with a slow cable. While nobody is connected, QEMU drops what is said.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import cast

from innkeeper.ports.streams import StreamClosed

LOG_PART_BYTES = 512 * 1024
LATELY_BYTES = 16 * 1024
VIEW_MOST_BYTES = 256 * 1024
RATE_BYTES = 64 * 1024
RATE_WINDOW_S = 0.1
LOST = b"\r\n[some output was lost: it was not read in time]\r\n"


class ConsoleLog:
    """Appends to a file, and starts a new one when it is full; the one before is kept, older ones are not."""

    def __init__(self, file: Path, part_bytes: int = LOG_PART_BYTES) -> None:
        self._file = file
        self._part_bytes = part_bytes
        self._fd: int | None = None
        self._size = 0
        # What a full disk did not take. The console must go on, and people must still see it.
        self.dropped_bytes = 0

    def append(self, data: bytes) -> None:
        try:
            if self._fd is None:
                self._open()
            elif self._size + len(data) > self._part_bytes:
                self.close()
                self._file.rename(older(self._file))
                self._open()
            if self._fd is not None:
                self._size += os.write(self._fd, data)
        except OSError:
            self.dropped_bytes += len(data)

    def _open(self) -> None:
        self._fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def older(file: Path) -> Path:
    return file.with_name(f"{file.name}.1")


def said_lately(file: Path, most_bytes: int = LATELY_BYTES) -> bytes:
    """The end of a console's log, also of a machine that runs no more."""
    said = _end_of(file, most_bytes)
    if len(said) < most_bytes:
        said = _end_of(older(file), most_bytes - len(said)) + said
    return said


def _end_of(file: Path, most_bytes: int) -> bytes:
    try:
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - most_bytes))
            return log.read(most_bytes)
    except FileNotFoundError:
        return b""


class ConsoleLine(asyncio.Protocol):
    """The one connection to QEMU's serial port."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._log = ConsoleLog(file)
        self._views: set[View] = set()
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self._taken = 0
        self._window: asyncio.TimerHandle | None = None

    @classmethod
    async def over(cls, line: socket.socket, file: Path) -> ConsoleLine:
        """Listen on a connected socket, which belongs to the line from then on."""
        _, console = await asyncio.get_running_loop().create_unix_connection(lambda: cls(file), sock=line)
        return console

    def view(self) -> View:
        """Look on from now, beginning with what was said lately."""
        view = View(self, said_lately(self._file))
        if self._transport is None:
            view.end()
        else:
            self._views.add(view)
        return view

    def forget(self, view: View) -> None:
        self._views.discard(view)

    async def write(self, data: bytes) -> None:
        await self._writable.wait()
        if self._transport is None:
            raise StreamClosed("the machine's console has ended")
        self._transport.write(data)

    async def drain(self, timeout_s: float) -> None:
        """Hear the last words of a machine that has ended, then let the line go."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._lost.wait()
        except TimeoutError:
            pass  # no last words came: the line goes all the same
        self.close()

    def close(self) -> None:
        """Let the line go; the machine runs on. May be repeated."""
        if self._transport is not None:
            self._transport.abort()
        self.connection_lost(None)

    # --- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._log.append(data)
        for view in self._views:
            view.feed(data)
        self._taken += len(data)
        if self._window is None:
            self._window = asyncio.get_running_loop().call_later(RATE_WINDOW_S, self._next_window)
        if self._taken > RATE_BYTES and self._transport is not None:
            self._transport.pause_reading()

    def _next_window(self) -> None:
        if self._taken > RATE_BYTES and self._transport is not None:
            self._transport.resume_reading()
        self._taken = 0
        self._window = None

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._lost.set()
        self._writable.set()
        if self._window is not None:
            self._window.cancel()
            self._window = None
        self._log.close()
        for view in self._views:
            view.end()
        self._views.clear()


class View:
    """One person looking on; satisfies the `Console` seam."""

    def __init__(self, line: ConsoleLine, lately: bytes) -> None:
        self._line = line
        self._waiting = bytearray(lately)
        self._more = asyncio.Event()
        self._ended = False
        if lately:
            self._more.set()

    async def read(self) -> bytes:
        await self._more.wait()
        data = bytes(self._waiting)
        self._waiting.clear()
        if not self._ended:
            self._more.clear()
        return data

    async def write(self, data: bytes) -> None:
        if self._ended:
            raise StreamClosed("the console has ended")
        await self._line.write(data)

    async def close(self) -> None:
        self._line.forget(self)
        self.end()

    def feed(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) > VIEW_MOST_BYTES:
            self._waiting[:] = LOST + self._waiting[-VIEW_MOST_BYTES // 2 :]
        self._more.set()

    def end(self) -> None:
        self._ended = True
        self._more.set()
