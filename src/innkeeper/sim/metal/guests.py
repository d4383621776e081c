"""A simulated machine: the QEMU process, and the guest in it that boots, answers, shuts itself down or dies.

What a guest will do stands in its `Guest` script. Things happen at due times that the machine names; `SimState`
keeps the time and tells the machine when one is due. A machine belongs to the host, not to our process: it runs on
while we are dead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from innkeeper.model.actions import StartMachine
from innkeeper.model.observed import Ended, Phase, Sample
from innkeeper.model.template import Image
from innkeeper.sim.metal.load import Counters, load_of

_LOG_LIMIT = 64 * 1024
_GOES_ON_S = 0.1


BOOTED = "the host was restarted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """What a guest does by itself. `dies_at_start` is what QEMU says as it ends at once, "" if it lives.

    Without `agent` nothing inside ever answers. `crash_after_s` kills QEMU by `crash_signal` so long after its start.
    """

    boot_s: float = 1.0
    shutdown_s: float = 0.5
    cloud_init_s: float = 2.0
    agent: bool = True
    ignores_shutdown: bool = False
    dies_at_start: str = ""
    crash_after_s: float | None = None
    crash_signal: int = 11
    load: float = 1.0


class Due(StrEnum):
    """What can be due in a machine."""

    ANSWERS = "answers"
    CLOUD_INIT_ENDS = "cloud-init-ends"
    POWERS_OFF = "powers-off"
    DIES = "dies"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a machine ended; outlives it, as QEMU's last words do in a log."""

    phase: Phase
    ended: Ended
    reason: str
    left_whole: bool = False
    since: float


class SerialLine:
    """What was said on the serial console and by QEMU, the last 64 KiB. Outlives the machine."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.listeners: list[Callable[[bytes], None]] = []

    def say(self, text: str) -> None:
        self.put(text.encode())

    def put(self, data: bytes) -> None:
        self.text += data
        if len(self.text) > _LOG_LIMIT:
            del self.text[: len(self.text) - _LOG_LIMIT]
        for listener in tuple(self.listeners):
            listener(data)

    def hang_up(self) -> None:
        """The machine has ended: an empty message to each listener."""
        listeners, self.listeners = self.listeners, []
        for listener in listeners:
            listener(b"")


class Machine:
    """One QEMU process with its guest. `at` is monotonic time; `now` is the time of day."""

    def __init__(self, action: StartMachine, guest: Guest, image: Image, pid: int, line: SerialLine) -> None:
        self.action = action
        self.guest = guest
        self.pid = pid
        self.line = line
        self.phase = Phase.STARTING
        self.since = 0.0
        self.began_at = 0.0
        self.agent = False
        self.cloud_init = ""
        self.addresses: tuple[str, ...] = ()
        self.asked_to_shut_down = False
        self.warm = False
        self.cold = ""
        self._image = image
        self._load = load_of(action.instance, action.hardware.vcpus, guest.load)
        self._counters = Counters()
        self._counting_since: float | None = None
        self._answers_at = 0.0
        self._deferred: list[Due] = []

    def boot(self, at: float, now: float) -> list[tuple[float, Due]]:
        """Everything that is due from here on."""
        self.since = now
        self._counting_since = at
        self.began_at = at
        self._answers_at = at + (_GOES_ON_S if self.warm else self.guest.boot_s)
        self.line.say(f"innkeeper: QEMU started for {self.action.name}\r\nBooting {self.action.template}\r\n")
        due: list[tuple[float, Due]] = []
        if self.guest.agent and self._image.agent:
            due.append((self._answers_at, Due.ANSWERS))
        if self.guest.agent and self._image.cloud_init:
            due.append((self._answers_at + _configures_s(self), Due.CLOUD_INIT_ENDS))
        if self.guest.crash_after_s is not None:
            due.append((at + self.guest.crash_after_s, Due.DIES))
        return due

    def happen(self, what: Due, now: float) -> Ending | None:
        """Something is due. Virtual CPUs that are stopped do nothing: it happens once they go on."""
        if what is Due.DIES:
            return self.crash(self.guest.crash_signal, now)
        if self.phase is Phase.PANICKED:
            return None
        if self.phase in (Phase.PAUSED, Phase.NO_SPACE):
            self._deferred.append(what)
        elif what is Due.POWERS_OFF:
            return self.power_off(now)
        elif what is Due.CLOUD_INIT_ENDS:
            self.cloud_init = "done"
        else:
            self.agent, self.phase, self.since = True, Phase.RUNNING, now
            self.cloud_init = "running" if self._image.cloud_init else "none"
            self.line.say(f"{self.action.name} login: ")
        return None

    def ask_to_shut_down(self, at: float) -> float | None:
        """The power button; when the guest will be off, or None if it takes no notice (yet)."""
        self.asked_to_shut_down = True
        if self.guest.ignores_shutdown or self.phase in (Phase.PANICKED, Phase.PAUSED, Phase.NO_SPACE):
            return None
        return max(at, self._answers_at) + self.guest.shutdown_s

    def halt(self, phase: Phase, at: float, now: float) -> None:
        """Virtual CPUs stop: PAUSED or NO_SPACE."""
        self._counters, self._counting_since = self.counters(at), None
        self.phase, self.since = phase, now

    def panic(self, now: float) -> None:
        """The kernel gives up; virtual CPUs turn on the spot."""
        self.line.say("Kernel panic - not syncing\r\n")
        self.phase, self.since = Phase.PANICKED, now
        self.agent, self.cloud_init, self.addresses = False, "", ()

    def go_on(self, at: float, now: float) -> list[tuple[float, Due]]:
        """Virtual CPUs run again; what was held up is due now."""
        self._counting_since = at
        self.phase, self.since = (Phase.RUNNING if self.agent else Phase.STARTING), now
        due = [(at, what) for what in self._deferred]
        self._deferred.clear()
        if self.asked_to_shut_down and (off := self.ask_to_shut_down(at)) is not None:
            due.append((off, Due.POWERS_OFF))
        return due

    def counters(self, at: float) -> Counters:
        if self._counting_since is None:
            return self._counters
        return self._counters.plus(self._load.between(self._counting_since, at))

    def loads(self, at: float) -> tuple[float, float, float]:
        """Busy threads, averaged over the last 1, 5 and 15 minutes."""
        one, five, fifteen = (self._load.between(at - span, at).cpu_s / span for span in (60.0, 300.0, 900.0))
        return one, five, fifteen

    def memory_mib(self, at: float) -> float:
        return self._load.memory_mib(at, self.action.hardware.memory_mib)

    def sample(self, at: float, now: float) -> Sample:
        done = self.counters(at)
        return Sample(
            instance=self.action.instance,
            at=now,
            cpu_s=done.cpu_s,
            memory_mib=self.memory_mib(at),
            disk_read_bytes=int(done.disk_read_bytes),
            disk_written_bytes=int(done.disk_written_bytes),
            net_received_bytes=int(done.net_received_bytes),
            net_sent_bytes=int(done.net_sent_bytes),
        )

    # --- endings

    def power_off(self, now: float) -> Ending:
        """From inside, asked or not."""
        self.line.say("reboot: Power down\r\n")
        asked = self.asked_to_shut_down
        reason = "" if asked else "the guest shut itself down"
        ended = Ended.ASKED if asked else Ended.GUEST
        return Ending(phase=Phase.STOPPED, ended=ended, reason=reason, left_whole=True, since=now)

    def crash(self, signal: int, now: float) -> Ending:
        reason = f"QEMU was killed by signal {signal}"
        self.line.say(f"innkeeper: {reason}\r\n")
        return Ending(phase=Phase.CRASHED, ended=Ended.CRASH, reason=reason, since=now)

    def kill(self, reason: str, now: float) -> Ending:
        """By us."""
        self.line.say("innkeeper: QEMU was stopped\r\n")
        return Ending(phase=Phase.STOPPED, ended=Ended.ASKED, reason=reason, since=now)

    def lose_power(self, now: float) -> Ending:
        ending = self.kill(BOOTED, now)
        return replace(ending, ended=Ended.HOST_BOOT)


def _configures_s(machine: Machine) -> float:
    """A clone that has nothing to apply is as far as the machine that it goes on from."""
    warm = machine.action.warm if machine.warm else None
    return 0.0 if warm is not None and not warm.configure else machine.guest.cloud_init_s
