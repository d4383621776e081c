"""Snapshots on a simulated host: at one moment, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from innkeeper.model.actions import Chain, StartMachine, TakeSnapshot
from innkeeper.model.ids import VolumeId
from innkeeper.model.instance import Taken
from innkeeper.model.observed import Phase, SnapshotState
from innkeeper.model.work import Refused
from innkeeper.sim.metal.guests import Machine
from innkeeper.sim.state import SimState


def take(state: SimState, action: TakeSnapshot) -> SnapshotState | Refused:
    """A repeated order tells what the first one told."""
    for refused in chain_objections(state, action.chains):
        return refused
    frozen = [state.pool.disks[volume] for volume in action.volumes if volume in state.pool.disks]
    if len(frozen) < len(action.volumes):
        return Refused(reason=f"not all of {', '.join(action.volumes)} are on this host")
    machine = state.machines.get(action.instance)
    cannot = None if machine is None else _switch(state, machine, action.chains)
    if cannot is not None:
        return cannot
    taken = frozen[0].taken or Taken(
        stored_bytes=sum(disk.used_bytes for disk in frozen), consistent=_stands_still(state, action, machine)
    )
    for disk in frozen:
        disk.taken = taken
    state.seq += 1
    return SnapshotState(snapshot=action.snapshot, host=state.host, seq=state.seq, taken=taken)


def chain_objections(state: SimState, chains: tuple[Chain, ...]) -> Iterator[Refused]:
    """What stands below each volume must be what was said."""
    for chain in chains:
        if chain.volume not in state.pool.disks:
            yield Refused(reason=f"disk {chain.volume} is not on this host", hint="Create the disk first.")
        elif (found := state.pool.below(chain.volume)) != chain.below:
            words = ", ".join(found) or "its template alone"
            yield Refused(reason=f"disk {chain.volume} stands over {words}, not over {', '.join(chain.below)}")


def _switch(state: SimState, machine: Machine, chains: tuple[Chain, ...]) -> Refused | None:
    """The guest's writes go to the tops; what it has written is below them."""
    disks = {disk.volume: disk for disk in machine.action.hardware.disks()}
    ways: list[tuple[VolumeId, VolumeId]] = []
    for chain in chains:
        now = next((volume for volume in (chain.volume, *chain.below) if volume in disks), None)
        if now is None:
            return Refused(reason=f"{machine.action.name} runs on none of {', '.join((chain.volume, *chain.below))}")
        ways.append((now, chain.volume))
    for now, top in ways:
        if now != top:
            state.pool.begin(top)
            state.holders[top] = state.holders.pop(now)
    machine.action = _standing_on(machine.action, dict(ways), chains)
    return None


def _standing_on(action: StartMachine, ways: dict[VolumeId, VolumeId], chains: tuple[Chain, ...]) -> StartMachine:
    swapped = {
        d: replace(d, volume=ways[d.volume], serial=d.label) for d in action.hardware.disks() if d.volume in ways
    }
    devices = tuple(next((s for d, s in swapped.items() if d == device), device) for device in action.hardware.devices)
    return replace(action, hardware=replace(action.hardware, devices=devices), chains=chains)


def _stands_still(state: SimState, action: TakeSnapshot, machine: Machine | None) -> bool:
    """The guest freezes its file systems, or has left them whole."""
    if machine is not None:
        return machine.agent and machine.phase is Phase.RUNNING
    ending = state.endings.get(action.instance)
    return ending is None or ending.left_whole
