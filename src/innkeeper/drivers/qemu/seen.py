"""What is known of one machine, as a value: folded from QEMU's events, and at last explained. Pure.

Whoever looks on reads the newest `Seen`; events that came in between are contained in it, so a slow reader misses
nothing that matters.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from innkeeper.model.observed import Ended, Phase

NO_SPACE = "no space left in its pool"


class Run(StrEnum):
    """Whether virtual CPUs run.

    `LOADING`: memory and state of a guest that ran before are still to come. `BUSY` is what else passes by itself.
    """

    RUNNING = "running"
    PAUSED = "paused"
    IO_ERROR = "io-error"
    SHUT_DOWN = "shut-down"
    BROKEN = "broken"
    LOADING = "loading"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class ShutDown:
    """QEMU is about to end. `reason` is QEMU's word: guest-shutdown, host-qmp-quit, host-signal…"""

    by_guest: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Reset:
    by_guest: bool


@dataclass(frozen=True, slots=True)
class Stopped:
    pass


@dataclass(frozen=True, slots=True)
class Resumed:
    pass


@dataclass(frozen=True, slots=True)
class DiskTrouble:
    """A disk request failed on the host. `stops`: the guest is paused for it."""

    device: str
    no_space: bool
    stops: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Panicked:
    pass


@dataclass(frozen=True, slots=True)
class ChannelChanged:
    """A program in the guest opened or closed its end of a named channel."""

    name: str
    open: bool


@dataclass(frozen=True, slots=True)
class StateMoved:
    """QEMU has written or read the machine's state, or has given that up."""

    well: bool


Event = ShutDown | Reset | Stopped | Resumed | DiskTrouble | Panicked | ChannelChanged | StateMoved


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a machine ended, in words for its owner. `at` is None when nobody saw it."""

    ended: Ended
    reason: str
    at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """`open_channels` are names; `answered`: something in the guest opened one since it last started.

    `trouble` is what the owner should know although the machine goes on. `unreachable` says why QEMU, which is alive,
    could not be asked. `moves` counts how often the machine's state was written or read, `moved_well` is how the last
    time ended.
    """

    run: Run = Run.RUNNING
    open_channels: frozenset[str] = frozenset()
    answered: bool = False
    resets: int = 0
    panicked: bool = False
    trouble: str = ""
    no_space: bool = False
    shut_down: ShutDown | None = None
    unreachable: str = ""
    moves: int = 0
    moved_well: bool = False
    end: End | None = None

    @property
    def phase(self) -> Phase:
        if self.end is not None:
            return Phase.CRASHED if self.end.ended is Ended.CRASH else Phase.STOPPED
        if self.unreachable:
            return Phase.UNKNOWN
        if self.run is Run.IO_ERROR and self.no_space:
            return Phase.NO_SPACE
        if self.run in (Run.PAUSED, Run.IO_ERROR, Run.BROKEN):
            return Phase.PAUSED
        if self.panicked:
            return Phase.PANICKED
        return Phase.RUNNING if self.answered else Phase.STARTING


def follow(seen: Seen, event: Event) -> Seen:
    """What is known after one more event."""
    match event:
        case ShutDown():
            return replace(seen, shut_down=event, run=Run.SHUT_DOWN)
        case Reset():
            return Seen(run=seen.run, resets=seen.resets + 1, moves=seen.moves, moved_well=seen.moved_well)
        case Stopped():
            return seen if seen.run is Run.IO_ERROR else replace(seen, run=Run.PAUSED)
        case Resumed():
            return replace(seen, run=Run.RUNNING, no_space=False, trouble="the guest panicked" if seen.panicked else "")
        case DiskTrouble(stops=True):
            words = f"{event.device}: {NO_SPACE if event.no_space else event.reason}"
            return replace(seen, run=Run.IO_ERROR, no_space=event.no_space, trouble=words)
        case DiskTrouble():
            return replace(seen, trouble=f"{event.device} reported to the guest: {event.reason}")
        case Panicked():
            return replace(seen, panicked=True, trouble="the guest panicked")
        case ChannelChanged():
            return _channel_changed(seen, event)
        case StateMoved(well=well):
            return replace(seen, moves=seen.moves + 1, moved_well=well)
        case _:
            assert_never(event)


def _channel_changed(seen: Seen, event: ChannelChanged) -> Seen:
    if event.open:
        return replace(seen, open_channels=seen.open_channels | {event.name}, answered=True)
    return replace(seen, open_channels=seen.open_channels - {event.name})


# --- the end


@dataclass(frozen=True, slots=True, kw_only=True)
class EndFacts:
    """All that could be found out. `code` and `signal` are both None when the launcher was not there to see it."""

    code: int | None = None
    signal: int | None = None
    at: float | None = None
    asked: str | None = None
    shut_down: ShutDown | None = None
    out_of_memory: bool | None = None
    host_booted: bool = False
    log: str = ""


def explain(facts: EndFacts) -> End:
    """Why the machine ended. What we asked for is not a crash, whatever happened on the way."""
    if facts.host_booted:
        return End(ended=Ended.HOST_BOOT, reason="its host was started anew")
    ended, reason = _by_itself(facts)
    if facts.asked is not None:
        detail = f" (on the way there, {reason})" if ended is Ended.CRASH and facts.signal != signal.SIGKILL else ""
        return End(ended=Ended.ASKED, reason=facts.asked + detail, at=facts.at)
    if ended is Ended.CRASH and facts.log:
        reason = f"{reason}; its log ends with: {facts.log}"
    return End(ended=ended, reason=reason, at=facts.at)


def _by_itself(facts: EndFacts) -> tuple[Ended, str]:
    if facts.signal is not None:
        return Ended.CRASH, _signal_words(facts.signal, facts.out_of_memory)
    if facts.code:
        return Ended.CRASH, f"QEMU ended with code {facts.code}"
    if facts.shut_down is not None:
        return _shut_down(facts.shut_down)
    if "terminating on signal" in facts.log:
        return Ended.CRASH, "QEMU was told to end by a signal from outside"
    if facts.code == 0:
        return Ended.GUEST, "the guest shut itself down"
    if facts.out_of_memory:
        return Ended.CRASH, _signal_words(signal.SIGKILL, True)
    return Ended.CRASH, "QEMU ended, and nobody was there to see how"


def _shut_down(event: ShutDown) -> tuple[Ended, str]:
    if event.by_guest:
        return Ended.GUEST, "the guest shut itself down"
    if event.reason == "host-signal":
        return Ended.CRASH, "QEMU was told to end by a signal from outside"
    return Ended.ASKED, f"QEMU was told to end ({event.reason})"


def _signal_words(number: int, out_of_memory: bool | None) -> str:
    if number == signal.SIGKILL:
        if out_of_memory:
            return "QEMU was killed by the kernel because memory ran out (OOM killer)"
        if out_of_memory is None:
            return "QEMU was killed by signal 9, perhaps by the kernel because memory ran out"
        return "QEMU was killed by signal 9 from outside"
    if number == signal.SIGSYS:
        return "QEMU was killed because it tried what its confinement forbids (SIGSYS)"
    known = {s.value: s.name for s in signal.Signals}
    return f"QEMU was ended by signal {number} ({known.get(number, 'real-time')})"
