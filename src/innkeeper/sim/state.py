"""The machine under a simulated host: all that survives our process.

    SimState   disks, templates, networks, running QEMUs and their guests, and what the agent notes durably
    SimHost    our process on it; dropped and made anew over the same SimState, it finds everything as it was

`reboot()` takes what a reboot takes: QEMUs and networks. Tests and the demo pull the strings of guests here.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from innkeeper.model.actions import WriteSeed
from innkeeper.model.hardware import NetworkCard
from innkeeper.model.host import HostFacts
from innkeeper.model.ids import HostId, InstanceId, OperationId, Ref, TemplateId, VolumeId
from innkeeper.model.observed import Ended, MachineState, Phase
from innkeeper.model.template import Image
from innkeeper.model.work import Done, Order
from innkeeper.sim.clock import SimClock
from innkeeper.sim.metal.guests import BOOTED, Due, Ending, Guest, Machine, SerialLine
from innkeeper.sim.metal.networks import Networks
from innkeeper.sim.metal.pool import GIB, ImageFile, Pool, Recipe, debian_image, tiny_image

Key = tuple[OperationId, int, bool]
_RESULTS_KEPT = 4096


def sim_facts(vcpus: int = 16, memory_mib: int = 65_536, disk_gib: int = 500) -> HostFacts:
    """A host of this size. The boot id is the state's own affair."""
    return HostFacts(
        vcpus=vcpus,
        memory_mib=memory_mib,
        disk_gib=disk_gib,
        accelerator="kvm",
        accelerator_reason="a simulated host",
        qemu_version="7.2.0",
        machine_type="pc-q35-7.2",
        cpu_model="host",
        kernel="6.1.0",
        boot_id="",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SimSeed:
    """A seed disk, with the user-data that was fetched for it."""

    action: WriteSeed
    user_data: bytes


class Agent(Protocol):
    """Our process, as the machine sees it."""

    def noticed(self, instance: InstanceId) -> None:
        """Something happened to a machine."""
        ...

    def room_changed(self) -> None: ...

    def rearm(self) -> None:
        """Something is due earlier than before."""
        ...

    def end(self) -> None:
        """Another process has taken over, or the power went."""
        ...


class Obedience:
    """What the agent keeps durably: the newest generation that it obeyed for each object, and its latest results."""

    def __init__(self) -> None:
        self._generations: dict[Ref, int] = {}
        self._results: OrderedDict[Key, Done] = OrderedDict()

    def generation(self, about: Ref) -> int:
        return self._generations.get(about, 0)

    def result(self, key: Key) -> Done | None:
        return self._results.get(key)

    def note(self, order: Order, done: Done) -> None:
        self._generations[order.about] = order.generation
        self._results[key_of(order)] = done
        if len(self._results) > _RESULTS_KEPT:
            self._results.popitem(last=False)


def key_of(order: Order) -> Key:
    """What names an order."""
    return (order.operation, order.step, order.undo)


class Timeline:
    """What is due in machines, in order of time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Machine, Due]] = []
        self._numbers = itertools.count()

    def add(self, machine: Machine, due: list[tuple[float, Due]]) -> None:
        for at, what in due:
            heapq.heappush(self._heap, (at, next(self._numbers), machine, what))

    def next_at(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def pop(self, until: float) -> tuple[Machine, Due] | None:
        if not self._heap or self._heap[0][0] > until:
            return None
        _, _, machine, what = heapq.heappop(self._heap)
        return machine, what


class SimState:
    """`facts` gives the size; free room and boot id are filled in. With `sample_every_s` 0 no counters are reported."""

    def __init__(
        self,
        host: HostId,
        facts: HostFacts | None = None,
        *,
        clock: SimClock | None = None,
        sample_every_s: float = 10.0,
    ) -> None:
        self.host = host
        self.clock = clock or SimClock()
        self.sample_every_s = sample_every_s
        self.agent: Agent | None = None
        self.size = facts or sim_facts()
        self.pool = Pool(self.size.disk_gib * GIB)
        self.networks = Networks()
        self.machines: dict[InstanceId, Machine] = {}
        self.endings: dict[InstanceId, Ending] = {}
        self.lines: dict[InstanceId, SerialLine] = {}
        self.holders: dict[VolumeId, InstanceId] = {}
        self.memory_used_mib = 0
        self.seeds: dict[InstanceId, SimSeed] = {}
        self.known: dict[InstanceId, MachineState] = {}
        self.obedience = Obedience()
        self.guests: dict[str, Guest] = {}
        self.guest = Guest()
        self.recipes = {
            "tiny": Recipe(image=tiny_image(), build_s=3.0),
            "debian-12": Recipe(image=debian_image(), build_s=60.0),
        }
        self.files: dict[str, ImageFile] = {}
        self.seq = 0
        self._boots = 1
        self.pids = itertools.count(1001)
        self.timeline = Timeline()

    @property
    def facts(self) -> HostFacts:
        return replace(self.size, boot_id=f"{self.host}-boot-{self._boots}", disk_free_gib=self.pool.free_bytes // GIB)

    # --- what tests and the demo do to it

    def add_template(self, template: TemplateId, image: Image | None = None) -> None:
        """A complete template, as if it had been built here."""
        image = image or tiny_image()
        if not self.pool.stage(template, image.stored_bytes):
            raise ValueError(f"template {template} does not fit on {self.host}")
        self.pool.publish(template, template, image)

    def script(self, instance: str, guest: Guest) -> None:
        """From its next start on, the machine with this id or name behaves so. Others follow `self.guest`."""
        self.guests[instance] = guest

    def shut_down(self, instance: str) -> None:
        """Somebody in the guest says `poweroff`."""
        self.settle()
        machine = self.running(instance)
        self.finish(machine, machine.power_off(self.clock.now()))

    def crash(self, instance: str, signal: int = 9) -> None:
        """QEMU dies by a signal that we did not send."""
        self.settle()
        machine = self.running(instance)
        self.finish(machine, machine.crash(signal, self.clock.now()))

    def write(self, instance: str, volume: VolumeId, count: int) -> bool:
        """The guest writes so many bytes anew. If the pool is full, nothing is written and it is paused."""
        machine = self.running(instance)
        written = self.pool.write(volume, count)
        if not written:
            machine.halt(Phase.NO_SPACE, self.clock.monotonic(), self.clock.now())
            self._tell(machine.action.instance)
        elif self.agent is not None:
            self.agent.room_changed()
        return written

    def reboot(self) -> None:
        """QEMUs, networks and our process are gone, and the boot id is new. Make a SimHost anew."""
        self.settle()
        agent, self.agent = self.agent, None
        if agent is not None:
            agent.end()
        self._boots += 1
        self.networks = Networks()
        for machine in tuple(self.machines.values()):
            self.finish(machine, machine.lose_power(self.clock.now()))
        # Of what ended before, too, only that is known.
        self.endings = {
            i: replace(e, phase=Phase.STOPPED, ended=Ended.HOST_BOOT, reason=BOOTED) for i, e in self.endings.items()
        }

    # --- for the agent

    def running(self, instance: str) -> Machine:
        """By id or name.

        Raises:
            KeyError: no such machine runs.
        """
        machine = self.machines.get(InstanceId(instance))
        if machine is None:
            machine = next((m for m in self.machines.values() if m.action.name == instance), None)
        if machine is None:
            raise KeyError(f"no machine {instance} runs on {self.host}")
        return machine

    def cards(self) -> Iterator[tuple[InstanceId, NetworkCard]]:
        return ((i, card) for i, machine in self.machines.items() for card in machine.action.hardware.cards())

    def settle(self) -> None:
        """Let everything happen whose time has come."""
        now = self.clock.monotonic()
        while (due := self.timeline.pop(now)) is not None:
            machine, what = due
            instance = machine.action.instance
            if self.machines.get(instance) is not machine:
                continue
            ending = machine.happen(what, self.clock.now())
            if ending is not None:
                self.finish(machine, ending)
            else:
                self._tell(instance)

    def begin(self, machine: Machine) -> None:
        """QEMU runs, and holds memory, disks and taps."""
        action = machine.action
        self.machines[action.instance] = machine
        self.endings.pop(action.instance, None)
        self.memory_used_mib += action.hardware.memory_mib
        for disk in action.hardware.disks():
            self.holders[disk.volume] = action.instance
            self.pool.begin(disk.volume)
        self.expect(machine, machine.boot(self.clock.monotonic(), self.clock.now()))

    def expect(self, machine: Machine, due: list[tuple[float, Due]]) -> None:
        self.timeline.add(machine, due)
        if self.agent is not None:
            self.agent.rearm()

    def finish(self, machine: Machine, ending: Ending) -> None:
        """QEMU is gone: its memory, its hold on disks and taps, its lines."""
        del self.machines[machine.action.instance]
        self.memory_used_mib -= machine.action.hardware.memory_mib
        for disk in machine.action.hardware.disks():
            del self.holders[disk.volume]
        self.endings[machine.action.instance] = ending
        machine.line.hang_up()
        self._tell(machine.action.instance)

    def _tell(self, instance: InstanceId) -> None:
        if self.agent is not None:
            self.agent.noticed(instance)
