"""What is told of machines: at once where somebody ordered it or a machine has ended, else no faster than its pace.

    at_once ───────────────────────────────▶ outbox
    by_and_by ──▶ held, newest only ──timer──▶ outbox

What is held is told in the end, unless something newer about the machine was told meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from innkeeper.agent.kept.outbox import Outbox
from innkeeper.agent.watching.pacing import Pacing
from innkeeper.model.ids import InstanceId
from innkeeper.model.observed import MachineState


class Telling:
    def __init__(self, outbox: Outbox, clock: Callable[[], float] = time.monotonic) -> None:
        self._outbox = outbox
        self._clock = clock
        self._paces: dict[InstanceId, Pacing] = {}
        self._held: dict[InstanceId, MachineState] = {}
        self._timers: dict[InstanceId, asyncio.TimerHandle] = {}

    def at_once(self, state: MachineState) -> None:
        self._drop(state.instance)
        self._outbox.put(state)

    def by_and_by(self, state: MachineState) -> None:
        """For what nobody ordered: a guest decides how often that changes."""
        instance = state.instance
        pace = self._paces.setdefault(instance, Pacing(self._clock))
        if instance not in self._held and pace.left_s == 0:
            pace.went()
            self._outbox.put(state)
            return
        self._held[instance] = state
        if instance not in self._timers:
            self._timers[instance] = asyncio.get_running_loop().call_later(pace.left_s, self._release, instance)

    def hurry(self, instance: InstanceId) -> None:
        """What is held was ordered after all."""
        if instance in self._held:
            self.at_once(self._held[instance])

    def forget(self, instance: InstanceId) -> None:
        """Nothing more is said about an instance that is gone."""
        self._drop(instance)
        self._paces.pop(instance, None)
        self._outbox.forget(instance)

    def close(self) -> None:
        """What is held is not told any more: whoever watches next tells how he finds the machines."""
        for instance in tuple(self._held):
            self._drop(instance)

    def _release(self, instance: InstanceId) -> None:
        state = self._held[instance]
        self._drop(instance)
        self._paces[instance].went()
        self._outbox.put(state)

    def _drop(self, instance: InstanceId) -> None:
        self._held.pop(instance, None)
        timer = self._timers.pop(instance, None)
        if timer is not None:
            timer.cancel()
