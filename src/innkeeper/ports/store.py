"""The seam to the store, in small protocols. The store is the only memory that matters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import OperationId, ProjectId, Ref, SecretRef
from innkeeper.model.observed import State
from innkeeper.model.plans import Plan
from innkeeper.model.work import Operation, Record, Stale, Submission, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something changed. `revision` orders all events and is where a reader resumes.

    `kind` is `object`, `state` or `operation`.
    """

    revision: int
    kind: str
    ref: Ref | None
    operation: OperationId | None
    what: str


class StoreFailed(Exception):
    """Nothing was written: no room on the disk, or the database is away. The text says which and what to do.

    Try again later.
    """


class Contradiction(Exception):
    """The rows that a plan applies at this moment contradict others: a fault in its planner, which no second try
    mends. Nothing was written.
    """


class Pictures(Protocol):
    """The present."""

    def cluster(self) -> Cluster:
        """The newest committed picture. Never touches the disk."""
        ...

    async def report(self, states: Sequence[State]) -> None:
        """Keep what hosts report; older than known is ignored. Durable when this returns."""
        ...


class Works(Protocol):
    """Durable operations."""

    async def submit(self, submissions: Sequence[Submission]) -> tuple[Operation | Stale, ...]:
        """Accept plans, all in one transaction, each on its own merits: later ones may build on earlier ones.

        Checked in the transaction: expected generations, free claims (or taken over), unique names, addresses and
        user slots, and room on the host. What fails is Stale and leaves no trace; the others stand. Durable when
        this returns. A submission with a known idempotency key of the same principal answers with the earlier
        operation.

        Several are accepted with their parent, which is answered, or none of them is. A part whose objects another
        operation holds is refused alone, unless that leaves no part. A parent ends with the last of its parts;
        it has SUCCEEDED only when each did, and none was refused.
        """
        ...

    async def earlier(self, principal: str, key: str) -> Operation | None:
        """What this principal's idempotency key has led to before."""
        ...

    async def take(self, limit: int) -> tuple[Work, ...]:
        """Operations that nobody works on, oldest first; waits until there is at least one.

        After a restart every unended operation is taken again.
        """
        ...

    async def record(self, record: Record) -> bool:
        """Write what happened; batched with others into one commit. Durable when this returns.

        False: the operation's claims were taken over, it has ended as cancelled, and its worker must stop touching
        its objects.

        Raises:
            StoreFailed: try again later.
            Contradiction: never try this record again.
        """
        ...

    async def cancel(self, operation: OperationId) -> Operation | None:
        """Ask an operation to stop at its next step's boundary. None: unknown. An ended one is returned as it is.

        With a parent, each of its parts is asked.
        """
        ...

    def cancel_wanted(self, operation: OperationId) -> bool:
        """Whether it was cancelled or its claims were taken over. Never touches the disk."""
        ...


class Journal(Protocol):
    """The past and the feed."""

    async def operation(self, id_or_prefix: str) -> Operation | None: ...

    async def operations(
        self, project: ProjectId | None, limit: int, before: int | None = None
    ) -> tuple[Operation, ...]:
        """Newest first; `before` is a revision to go on from. Children are listed under their parents only."""
        ...

    async def children(self, parent: OperationId) -> tuple[Operation, ...]: ...

    async def plan_of(self, operation: OperationId) -> Plan | None: ...

    async def wait_ended(self, operation: OperationId, timeout_s: float) -> Operation | None:
        """The operation once it has ended, or as it is when time is up. None: unknown."""
        ...

    def events(self, after: int) -> AsyncIterator[Event]:
        """Every event with a greater revision, then new ones as they are committed; never skips one.

        Raises:
            TooOld: `after` lies before the kept history; the reader must look at everything anew.
        """
        ...


class TooOld(Exception):
    """The asked revision is older than the kept history."""


class Secrets(Protocol):
    """Sealed with a key that is kept outside the database.

    A secret that an instance's row refers to goes when that row is dropped, in the same transaction. One that nothing
    refers to when the store opens goes then: its process died before it could submit what it was for.
    """

    async def seal(self, secrets: Mapping[SecretRef, bytes]) -> None:
        """Keep secrets, all or none, under references drawn by the caller. A known reference's secret is replaced."""
        ...

    def mark(self, text: bytes) -> str:
        """Tells texts apart without telling anything about them to those who do not hold the key."""
        ...

    async def redeem(self, ref: SecretRef) -> bytes:
        """The secret.

        Raises:
            KeyError: there is none under this reference.
        """
        ...

    async def discard(self, refs: Sequence[SecretRef]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """Five minutes of one instance: averages and maxima of rates per second, memory in MiB."""

    instance: str
    at: int
    cpu_avg: float
    cpu_max: float
    memory_avg_mib: float
    memory_max_mib: float
    disk_read_avg: float
    disk_read_max: float
    disk_written_avg: float
    disk_written_max: float
    net_received_avg: float
    net_received_max: float
    net_sent_avg: float
    net_sent_max: float


class History(Protocol):
    """Metrics that outlive the ring in memory."""

    async def keep(self, rows: Sequence[MetricRow], forget_before: int) -> None: ...

    async def metrics(self, instance: str, since: int) -> tuple[MetricRow, ...]: ...
