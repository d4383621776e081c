"""Orders about one instance and one disk, for tests of how an agent obeys."""

from __future__ import annotations

import itertools

from innkeeper.model.actions import Action, DeleteDisk, StopMachine
from innkeeper.model.ids import HostId, InstanceId, Kind, OperationId, Ref, VolumeId
from innkeeper.model.work import Order

INSTANCE, VOLUME = InstanceId("i-0123456789ab"), VolumeId("vol-0123456789ab")
_numbers = itertools.count(1)


def stop(generation: int, *, undo: bool = False, operation: str | None = None) -> Order:
    action = StopMachine(instance=INSTANCE, grace_s=0)
    return _order(Ref(Kind.INSTANCE, INSTANCE), action, generation, (operation, undo))


def delete_disk(volume: VolumeId = VOLUME, generation: int = 1) -> Order:
    return _order(Ref(Kind.VOLUME, volume), DeleteDisk(volume=volume), generation, (None, False))


def _order(about: Ref, action: Action, generation: int, which: tuple[str | None, bool]) -> Order:
    operation, undo = which
    return Order(
        operation=OperationId(operation or f"op-{next(_numbers):012x}"),
        step=0,
        undo=undo,
        host=HostId("h-0123456789ab"),
        about=about,
        generation=generation,
        action=action,
    )
