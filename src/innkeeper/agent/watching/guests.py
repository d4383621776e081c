"""What one guest says: its agent answers or not, our program in it is connected or not, how far cloud-init is, its
addresses.

Nothing is polled until a guest has opened its end of a channel; then only what is not settled yet is asked again, with
growing pauses. The two channels are asked apart, so that a program that never answers hides nothing of the other. A
guest that sends rubbish is left alone for longer and longer; one that opens and closes its channels all the time is
asked no faster than its pace, and fills no log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from innkeeper.agent.watching.distrust import Distrust
from innkeeper.agent.watching.pacing import Pacing, Remarks
from innkeeper.drivers.guestlink.hand import ExecSession, GuestLink
from innkeeper.drivers.guestlink.line import LinkDown
from innkeeper.drivers.qemu.agent import NoAgent
from innkeeper.drivers.qemu.directory import read_began
from innkeeper.drivers.qemu.machine import Machine
from innkeeper.drivers.qemu.seen import Run, Seen
from innkeeper.model.hardware import AGENT_CHANNEL, GUEST_CHANNEL
from innkeeper.ports.host import NoLine
from innkeeper.ports.streams import CloudInit, ExecRequest, GuestStatus

log = logging.getLogger(__name__)

_ANSWER_S = 30.0
_PANICKED = "its kernel has panicked, so nothing in it answers; see its console's log, and restart it by force"
_CONNECT_S = 5.0
_HELLO_S = 15.0
_NAMED_S = 30.0
_PAUSE_FIRST_S, _PAUSE_UNSETTLED_S, _PAUSE_MOST_S = 0.5, 2.0, 30.0


@dataclass(frozen=True, slots=True)
class Said:
    """What is known from the guest itself."""

    agent: bool = False
    program: bool = False
    cloud_init: str = ""
    addresses: tuple[str, ...] = ()


class Named:
    """Whether a guest that went on from a memory image was told who it is. Until then nobody is let to it."""

    def __init__(self, *, known: bool) -> None:
        self._known = asyncio.Event()
        if known:
            self._known.set()

    def met(self) -> None:
        self._known.set()

    async def once(self) -> None:
        """
        Raises:
            NoLine: it is not told in time.
        """
        try:
            async with asyncio.timeout(_NAMED_S):
                await self._known.wait()
        except TimeoutError:
            raise NoLine("it went on from a memory image and was not told yet who it is; start it anew") from None


class Guest:
    """Follows one machine's channels. `changed` is called whenever `said` is another."""

    def __init__(
        self, machine: Machine, changed: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.said = Said()
        self._machine = machine
        self._changed = changed
        self._link: GuestLink | None = None
        self._linking = asyncio.Lock()
        self._clock = clock
        self._distrust = Distrust(clock)
        self._remarks = Remarks(clock)
        self._shown: tuple[object, ...] = ()
        self._news = asyncio.Event()
        self.named = Named(known=not read_began(machine.directory).nameless)

    def saw(self, seen: Seen) -> None:
        """A channel's other end opened or closed, the guest was paused or resumed, or it booted anew."""
        shown = (seen.open_channels, _still(seen), seen.resets)
        if shown == self._shown:
            return
        if self._shown and seen.resets != self._shown[-1]:
            self._say(Said())  # what an earlier boot said holds no more
            self._distrust.forget()
            self._remarks.forget()
        self._shown = shown
        if seen.panicked and self._link is not None:
            self._link.give_up(_PANICKED)  # commands under way have nobody any more who could end them
        self._news.set()
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Asks what there is to ask, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._steadily(self._ask_agent))
            group.create_task(self._steadily(self._ask_program))

    async def close(self) -> None:
        if self._link is not None:
            await self._link.close()
            self._link = None

    # --- lines

    async def exec(self, request: ExecRequest) -> ExecSession:
        await self.named.once()
        try:
            return await (await self.linked()).open(request)
        except LinkDown as down:
            raise NoLine(str(down)) from down

    async def status(self) -> GuestStatus:
        await self.named.once()
        try:
            return await (await self.linked()).status()
        except LinkDown as down:
            raise NoLine(str(down)) from down

    async def linked(self) -> GuestLink:
        """The link, made anew where it broke.

        Raises:
            NoLine: the guest stands still; or our program has not opened its channel, does not answer, or was not to
                be believed lately.
        """
        if (still := _still(self._machine.seen)) is not None:
            raise NoLine(still)
        if not self._opened(GUEST_CHANNEL):
            raise NoLine(
                "nothing in the guest has opened our channel: it still boots, or its template lacks innkeeper-guest"
            )
        async with self._linking:
            if self._link is not None and self._link.down is not None:
                self._judge(self._link)
                self._link = None
            if self._link is None:
                if self._distrust.left_s > 0:
                    raise NoLine(self._distrust.words)
                self._link = await self._new_link()
            return self._link

    async def _new_link(self) -> GuestLink:
        try:
            with self._machine.directory.short_path() as short:
                link = await GuestLink.connect(f"{short}/guest.sock", _CONNECT_S)
        except (LinkDown, OSError) as down:
            raise NoLine(str(down)) from down
        try:
            await link.hello(_HELLO_S)
        except BaseException as failed:
            # One that is left open would hold the channel, which serves one at a time.
            self._judge(link)
            await link.close()
            if isinstance(failed, LinkDown):
                raise NoLine(str(failed)) from failed
            raise
        return link

    def _judge(self, link: GuestLink) -> None:
        if link.down is not None and link.guest_at_fault:
            self._distrust.fell_out(link.down)
            self._remark(logging.WARNING, "rubbish", self._distrust.words)

    def _remark(self, level: int, about: str, words: str) -> None:
        due = self._remarks.is_due(about, words)
        log.log(level if due else logging.DEBUG, "%s: %s", self._machine.name, words)

    # --- asking

    def _opened(self, channel: str) -> bool:
        return channel in self._machine.seen.open_channels

    async def _steadily(self, ask: Callable[[], Awaitable[float]]) -> None:
        """Again when there is news, or after a pause that grows up to what `ask` says."""
        pause_s, pace = _PAUSE_FIRST_S, Pacing(self._clock)
        while True:
            # News that come meanwhile are contained in what is asked then.
            await asyncio.sleep(pace.left_s)
            pace.went()
            news, before = self._news, self.said
            most_s = await ask()
            pause_s = _PAUSE_FIRST_S if self.said != before else min(pause_s * 2, most_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await news.wait()
                    pause_s = _PAUSE_FIRST_S

    async def _ask_agent(self) -> float:
        if _still(self._machine.seen) is not None:
            return _PAUSE_MOST_S  # it can say nothing, and is what it was
        if not self._opened(AGENT_CHANNEL):
            self._say(replace(self.said, agent=False))
        elif not self.said.agent:
            try:
                await self._machine.agent.ping(_ANSWER_S)
            except NoAgent as silent:
                self._remark(logging.INFO, "silence", str(silent))
                return _PAUSE_UNSETTLED_S
            self._say(replace(self.said, agent=True))
        return _PAUSE_MOST_S

    async def _ask_program(self) -> float:
        if _still(self._machine.seen) is not None:
            return _PAUSE_MOST_S
        if not self._opened(GUEST_CHANNEL):
            self._say(replace(self.said, program=False))
            return _PAUSE_MOST_S
        try:
            status = await self.status()
        except NoLine as silent:
            log.debug("%s: %s", self._machine.name, silent)
            self._say(replace(self.said, program=False))
            return max(_PAUSE_UNSETTLED_S, self._distrust.left_s)
        found = (a.partition("/")[0] for n in status.nics if n.name != "lo" for a in n.addresses)
        addresses = tuple(a for a in found if not a.startswith("fe80:"))
        self._say(replace(self.said, program=True, cloud_init=_words(status), addresses=addresses))
        return _PAUSE_UNSETTLED_S if status.cloud_init is CloudInit.RUNNING or not addresses else _PAUSE_MOST_S

    def _say(self, said: Said) -> None:
        if said != self.said:
            self.said = said
            self._changed()


def _words(status: GuestStatus) -> str:
    if status.cloud_init is CloudInit.NONE:
        return ""
    why = f": {status.cloud_init_error}" if status.cloud_init_error else ""
    return f"{status.cloud_init.value}{why}"


def _still(seen: Seen) -> str | None:
    """Why nothing in a guest can answer, whatever it is asked."""
    if seen.unreachable:
        return f"{seen.unreachable}; if it stays so, stop it by force"
    if seen.panicked:
        return _PANICKED
    if seen.run is not Run.RUNNING:
        return f"it is {seen.phase}, so nothing in it answers; resume it first"
    return None
