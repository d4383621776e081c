"""The seam to a host. Three worlds satisfy it, under the same contract tests.

A local one, a remote one (later), a simulated one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from innkeeper.model.ids import HostId, InstanceId, OperationId
from innkeeper.model.observed import Inventory, Report
from innkeeper.model.work import Order, Outcome
from innkeeper.ports.streams import Console, ExecRequest, GuestStatus, Session


class HostAway(Exception):
    """The host did not answer, so nothing is known about the order. Give it again later."""


class HostPort(Protocol):
    """Carries orders, streams and reports; knows no plan."""

    @property
    def id(self) -> HostId: ...

    async def give(self, order: Order) -> Outcome:
        """Carry out an order, or say how a long one stands.

        May be repeated: (operation, step, undo) names the order, and one that was carried out answers Done again
        without a second effect, also after a crash between effect and answer. An order about an object whose newer
        generation was obeyed is refused as stale; a newer order about an object interrupts a waiting older one.
        Refused means: nothing half-made remains.

        Raises:
            HostAway: nobody answered; the effect may or may not have happened.
        """
        ...

    async def cancel(self, operation: OperationId, step: int) -> None:
        """End a long order that is under way; it then answers Refused. Unknown or ended ones are no error.

        May be repeated.
        """
        ...

    async def inventory(self) -> Inventory:
        """Everything of ours that the host holds, found by looking at it now."""
        ...

    def reports(self) -> AsyncIterator[Report]:
        """Reports as they come, endlessly. One reader; a slow reader gets only the newest state of each object."""
        ...


class StreamPort(Protocol):
    """Lines into instances. Not durable: they end with either side."""

    async def exec(self, instance: InstanceId, request: ExecRequest) -> Session:
        """Run a command in the guest.

        Raises:
            NoLine: the instance is not running, or nothing in the guest answers; says which.
        """
        ...

    async def console(self, instance: InstanceId) -> Console:
        """The serial console: first what was said lately, then live, in both directions. Several may look at once.

        Raises:
            NoLine: the instance is not running.
        """
        ...

    async def guest(self, instance: InstanceId) -> GuestStatus:
        """What the guest says of itself now.

        Raises:
            NoLine: the instance is not running, or our program in the guest does not answer.
        """
        ...

    async def log(self, instance: InstanceId) -> bytes:
        """The bounded serial log and QEMU's own messages, also of a machine that ended."""
        ...


class NoLine(Exception):
    """No stream can be opened; the text says why and what to do."""
