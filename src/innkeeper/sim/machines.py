"""The orders about machines, and what QEMU or the kernel would refuse of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from innkeeper.model.actions import (
    Chain,
    ForgetMachine,
    MachineAction,
    PauseMachine,
    ResumeMachine,
    StartMachine,
    StopMachine,
    Warm,
)
from innkeeper.model.hardware import Firmware, SeedDisk
from innkeeper.model.ids import InstanceId
from innkeeper.model.observed import MachineState, Phase
from innkeeper.model.work import Done, Refused
from innkeeper.sim.metal.guests import Due, Machine, SerialLine
from innkeeper.sim.metal.pool import MIB
from innkeeper.sim.snapshots import chain_objections
from innkeeper.sim.state import SimState

_VCPUS_MAX = 288  # what the q35 machine takes
_MEMORY_MIN_MIB = 16
_SLOTS = range(1, 31)


def carry_out(state: SimState, action: MachineAction) -> Done | Refused:
    """At once, or not at all. A stop is by force here; asking the guest first is SimHost's affair."""
    match action:
        case StartMachine():
            return _start(state, action)
        case StopMachine():
            stop(state, action.instance, "")
            return Done()
        case PauseMachine():
            return _pause(state, action.instance)
        case ResumeMachine():
            return _resume(state, action.instance)
        case ForgetMachine():
            return _forget(state, action.instance)
        case _:
            assert_never(action)


def observe(state: SimState, instance: InstanceId, obeyed: int) -> MachineState | None:
    """How a machine is, found by looking; None where none was ever started. `seq` is drawn anew: a later look is a
    newer report."""
    state.seq += 1
    seen = MachineState(
        instance=instance, host=state.host, seq=state.seq, phase=Phase.STOPPED, since=0.0, obeyed=obeyed
    )
    machine = state.machines.get(instance)
    if machine is not None:
        return replace(
            seen,
            phase=machine.phase,
            since=machine.since,
            pid=machine.pid,
            agent=machine.agent,
            guest_program=machine.agent,
            cloud_init=machine.cloud_init,
            addresses=machine.addresses if machine.agent else (),
            warm=machine.warm,
            cold=machine.cold,
        )
    ending = state.endings.get(instance)
    if ending is None:
        return None
    return replace(seen, phase=ending.phase, since=ending.since, ended=ending.ended, reason=ending.reason)


# --- starting


def _start(state: SimState, action: StartMachine) -> Done | Refused:
    if action.instance in state.machines:
        return Done()
    guest = state.guests.get(action.instance) or state.guests.get(action.name) or state.guest
    for refused in _objections(state, action):
        return refused
    if guest.dies_at_start:
        state.lines.setdefault(action.instance, SerialLine()).say(f"qemu: {guest.dies_at_start}\r\n")
        return Refused(
            reason=f"QEMU ended as it started {action.name}: {guest.dies_at_start}",
            hint="`inn logs` has all that it said.",
        )
    line = state.lines.setdefault(action.instance, SerialLine())
    machine = Machine(action, guest, state.pool.templates[action.template], next(state.pids), line)
    ports = (state.networks.port(action.instance, card) for card in action.hardware.cards())
    machine.addresses = tuple(a for port in ports if not isinstance(port, Refused) for a in port.addresses)
    if action.warm is not None:
        machine.cold = _cannot_go_on(state, action, action.warm)
        machine.warm = not machine.cold
    state.begin(machine)
    return Done()


def _cannot_go_on(state: SimState, action: StartMachine, warm: Warm) -> str:
    """Why it must boot; nothing if it need not."""
    if warm.memory not in state.pool.memories:
        return f"memory image {warm.memory} is not on this host"
    if any(state.pool.disks[disk.volume].begun for disk in action.hardware.disks()):
        return "its disk was written to by an earlier start"
    return ""


def _objections(state: SimState, action: StartMachine) -> Iterator[Refused]:
    yield from _hardware_objections(state, action)
    yield from _template_objections(state, action)
    yield from _disk_objections(state, action)
    if action.hardware.has_seed() and action.instance not in state.seeds:
        yield Refused(
            reason=f"{action.name} has no seed disk here, which its hardware names", hint="Write the seed first."
        )
    for card in action.hardware.cards():
        port = state.networks.port(action.instance, card)
        if isinstance(port, Refused):
            yield port
        elif port.uid_slot != action.uid_slot:
            yield Refused(reason=f"the tap of {card.nic} belongs to user slot {port.uid_slot}, not {action.uid_slot}")


def _hardware_objections(state: SimState, action: StartMachine) -> Iterator[Refused]:
    hardware = action.hardware
    if not _is_known(hardware.machine, state.size.machine_type):
        yield Refused(
            reason=f"QEMU {state.size.qemu_version} has no machine type {hardware.machine}", hint="Upgrade QEMU."
        )
    if not 1 <= hardware.vcpus <= _VCPUS_MAX:
        yield Refused(reason=f"QEMU takes 1 to {_VCPUS_MAX} virtual CPUs, not {hardware.vcpus}")
    if hardware.memory_mib < _MEMORY_MIN_MIB:
        yield Refused(reason=f"{hardware.memory_mib} MiB is too little memory to start")
    free_mib = state.size.memory_mib - state.memory_used_mib
    if hardware.memory_mib > free_mib:
        yield Refused(
            reason=f"no memory for {action.name}: it needs {hardware.memory_mib} MiB, {free_mib} MiB are free",
            hint="Stop a machine, or choose another host.",
        )
    slots = [device.slot for device in hardware.devices]
    if len(set(slots)) < len(slots) or any(slot not in _SLOTS for slot in slots):
        yield Refused(reason=f"the devices of {action.name} do not have a PCI slot each: {sorted(slots)}")
    if sum(isinstance(device, SeedDisk) for device in hardware.devices) > 1:
        yield Refused(reason=f"{action.name} has more than one seed disk")


def _is_known(machine: str, newest: str) -> bool:
    """`q35`, or a version of it up to the newest that this QEMU has."""
    stem, _, version = machine.rpartition("-")
    newest_version = newest.rpartition("-")[2]
    if machine == "q35":
        return True
    numbers = [part.split(".") for part in (version, newest_version)]
    if stem != "pc-q35" or not all(number.isdigit() for part in numbers for number in part):
        return False
    mine, host = ([int(number) for number in part] for part in numbers)
    return mine <= host


def _template_objections(state: SimState, action: StartMachine) -> Iterator[Refused]:
    image = state.pool.templates.get(action.template)
    direct = action.hardware.firmware is Firmware.DIRECT
    if image is None:
        yield Refused(reason=f"template {action.template} is not on this host", hint="Build or import it here.")
    elif direct and (image.firmware is not Firmware.DIRECT or action.kernel_args is None):
        yield Refused(reason=f"template {action.template} has no kernel to start {action.name} with directly")


def _disk_objections(state: SimState, action: StartMachine) -> Iterator[Refused]:
    wanted = [disk.volume for disk in action.hardware.disks()]
    stated = {chain.volume: chain for chain in action.chains}
    yield from chain_objections(state, tuple(stated.get(v, Chain(volume=v)) for v in wanted if v in state.pool.disks))
    for volume in wanted:
        disk = state.pool.disks.get(volume)
        if disk is None:
            yield Refused(reason=f"{action.name} has no disk {volume} here", hint="Create the disk first.")
        elif disk.made.uid_slot != action.uid_slot:
            yield Refused(reason=f"disk {volume} belongs to user slot {disk.made.uid_slot}, not {action.uid_slot}")
        elif disk.taken is not None:
            yield Refused(reason=f"disk {volume} is frozen, so {action.name} cannot write to it")
        elif volume in state.pool.being_read:
            yield Refused(
                reason=f"disk {volume} is being copied into a template", hint="Start again when that has ended."
            )
        elif (user := state.holders.get(volume)) is not None:
            yield Refused(reason=f"disk {volume} is in use by running machine {user}", hint="Stop that machine first.")
    if len(set(wanted)) < len(wanted):
        yield Refused(reason=f"{action.name} has one disk twice")


# --- the others


def stop(state: SimState, instance: InstanceId, reason: str) -> None:
    """By force. Of a machine that does not run, nothing remains to be done."""
    machine = state.machines.get(instance)
    if machine is not None:
        state.finish(machine, machine.kill(reason, state.clock.now()))


def hears(state: SimState, instance: InstanceId) -> bool:
    """Whether there is anybody whom to ask."""
    machine = state.machines.get(instance)
    return machine is not None and machine.phase is not Phase.PANICKED


def ask_to_stop(state: SimState, instance: InstanceId) -> None:
    """The guest is asked; whether it listens will be seen."""
    machine = state.machines[instance]
    off_at = machine.ask_to_shut_down(state.clock.monotonic())
    if off_at is not None:
        state.expect(machine, [(off_at, Due.POWERS_OFF)])


def _pause(state: SimState, instance: InstanceId) -> Done | Refused:
    machine = state.machines.get(instance)
    if machine is None:
        return _not_running(instance)
    if machine.phase in (Phase.STARTING, Phase.RUNNING):
        machine.halt(Phase.PAUSED, state.clock.monotonic(), state.clock.now())
    return Done()


def _resume(state: SimState, instance: InstanceId) -> Done | Refused:
    machine = state.machines.get(instance)
    if machine is None:
        return _not_running(instance)
    if machine.phase is Phase.NO_SPACE and state.pool.free_bytes < MIB:
        return Refused(
            reason=f"the pool is still full, so {instance} would stop again at once",
            hint="Delete disks or templates, or add storage; then resume again.",
        )
    if machine.phase in (Phase.PAUSED, Phase.NO_SPACE):
        state.expect(machine, machine.go_on(state.clock.monotonic(), state.clock.now()))
    return Done()


def _forget(state: SimState, instance: InstanceId) -> Done | Refused:
    if instance in state.machines:
        return Refused(reason=f"machine {instance} still runs, so it cannot be forgotten", hint="Stop it first.")
    state.seeds.pop(instance, None)
    state.lines.pop(instance, None)
    state.endings.pop(instance, None)
    state.known.pop(instance, None)
    return Done()


def _not_running(instance: InstanceId) -> Refused:
    return Refused(reason=f"machine {instance} does not run", hint="Start it first.")


# --- by themselves


def panic(state: SimState, instance: str) -> None:
    """The guest's kernel gives up."""
    state.settle()
    machine = state.running(instance)
    machine.panic(state.clock.now())
    if state.agent is not None:
        state.agent.noticed(machine.action.instance)
