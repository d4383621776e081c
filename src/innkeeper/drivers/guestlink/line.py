"""One connected channel: asyncio's callbacks on one side, who waits for a stream on the other, the connection between.

Nothing here needs a task: bytes arrive by callback, go through the connection, and wake who waits for them. So a
cancelled caller leaves nothing behind, and a session that nobody reads costs at most its window of memory.

The daemon has one loop for everybody, and a guest may send as fast as it can. So a line does a bounded amount of work
in each window of time and leaves the rest unread, which stops the guest and nobody else. The bound is on frames, not
on bytes: 32 KiB in one frame cost hardly more than nothing in one, so honest output is not slowed down.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from innkeeper.drivers.guestlink.connection import Answered, Connection, Ended, Event, Granted, Output, Ready, Restarted
from innkeeper.drivers.guestlink.frames import WireError
from innkeeper.ports.host import NoLine
from innkeeper.ports.streams import Exited, Failed, Stderr, Stdout

_OUTGOING_MAX = 4 << 20  # a guest that leaves so much unread will not begin again
# Less than a millisecond of work, then everybody else's turn. 32 KiB each, these are more than 1 GB/s.
LOOKS_MOST = 256
WINDOW_S = 0.005
_RESTARTED = "the guest was rebooted, or its program restarted, while the command ran; it cannot be known how it ended"


class LinkDown(NoLine):
    """Nothing in the guest answers on this line, or not in time; the text says why."""


class Listener(Protocol):
    """Who hears of one stream. Called from asyncio's callbacks, so these only take note."""

    def came(self, output: Stdout | Stderr) -> None: ...

    def granted(self) -> None: ...

    def ended(self, end: Exited | Failed) -> None: ...


class Line(asyncio.Protocol):
    """`down` says why this line is of no more use, or is None; `guest_at_fault`, that the guest broke it.

    `changed` is set when a guest answers and at the end.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.down: str | None = None
        self.guest_at_fault = False
        self.changed = asyncio.Event()
        self.over = asyncio.Event()
        self.listeners: dict[int, Listener] = {}
        self.questions: dict[tuple[int, int], asyncio.Future[bytes]] = {}  # by number and the answer's kind
        self._unclogged = asyncio.Event()
        self._unclogged.set()
        self._transport: asyncio.Transport | None = None
        self._looks_left = LOOKS_MOST
        self._window: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()
        reason = f"broke: {exc}" if exc else "was closed at its other end; QEMU has ended"
        self.give_up(f"the guest's channel {reason}")

    def pause_writing(self) -> None:
        self._unclogged.clear()

    def resume_writing(self) -> None:
        self._unclogged.set()

    def data_received(self, data: bytes) -> None:
        if self.down is None:
            self._take(data)

    def _take(self, data: bytes) -> None:
        looks = self.connection.decoder.looks
        try:
            events = self.connection.receive(data, self._looks_left)
        except WireError as broken:
            self.guest_at_fault = True
            self.give_up(f"the line to the guest was given up: {broken}")
            return
        # Bytes that there is nothing to look at yet cost a call all the same.
        self._looks_left = max(0, self._looks_left - max(1, self.connection.decoder.looks - looks))
        for event in events:
            self._happened(event)
        if self.down is not None or self._transport is None:
            return
        if self._looks_left == 0:
            self._transport.pause_reading()
        if self._window is None:
            self._window = asyncio.get_running_loop().call_later(WINDOW_S, self._next_window)

    def _next_window(self) -> None:
        self._window = None
        waiting, self._looks_left = self._looks_left == 0, LOOKS_MOST
        if waiting and self._transport is not None:
            self._transport.resume_reading()
            self._take(b"")

    async def unclogged(self) -> None:
        """Waits while more is under way than the channel takes; ends at once when the line is down."""
        await self._unclogged.wait()

    def send(self, data: bytes) -> None:
        if not data or self.down is not None or self._transport is None:
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > _OUTGOING_MAX:
            self.guest_at_fault = True
            self.give_up("the guest no longer reads its channel")

    def give_up(self, why: str) -> None:
        """Ends everything that runs over this line. May be repeated; the first reason stays."""
        if self.down is not None:
            return
        self.down = why
        if self._window is not None:
            self._window.cancel()
            self._window = None
        self._end_all(why)
        self._unclogged.set()
        if self._transport is not None:
            # Not close(): that would wait for a guest that may never read again.
            self._transport.abort()

    def _happened(self, event: Event) -> None:
        match event:
            case Ready():
                self.changed.set()
            case Restarted(answer=reset):
                self._end_all(_RESTARTED)
                self.send(reset)
            case Answered(request, kind, payload):
                question = self.questions.get((request, kind))
                if question is not None and not question.done():
                    question.set_result(payload)
            case Output(stream) | Granted(stream) | Ended(stream):
                self._tell(self.listeners[stream], event)

    def _tell(self, listener: Listener, event: Output | Granted | Ended) -> None:
        match event:
            case Output(output=output):
                listener.came(output)
            case Granted():
                listener.granted()
            case Ended(stream, end):
                del self.listeners[stream]
                listener.ended(end)

    def _end_all(self, why: str) -> None:
        listeners, self.listeners = self.listeners, {}
        for listener in listeners.values():
            listener.ended(Failed(why))
        for question in self.questions.values():
            if not question.done():
                question.set_exception(LinkDown(why))
        self.changed.set()
