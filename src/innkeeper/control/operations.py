"""Use cases of operations: looking, waiting, cancelling, and the feed of events."""

from __future__ import annotations

from collections.abc import AsyncIterator

from innkeeper.access.rules import allowed
from innkeeper.model.host import Principal
from innkeeper.model.ids import ProjectId
from innkeeper.model.plans import Plan, Refusal, Why
from innkeeper.model.work import Operation, OperationState
from innkeeper.ports.store import Event, Journal, Works


class Operations:
    def __init__(self, works: Works, journal: Journal) -> None:
        self._works = works
        self._journal = journal

    async def list(
        self, who: Principal, project: ProjectId, limit: int, before: int | None
    ) -> tuple[Operation, ...] | Refusal:
        return allowed(who, "show", project) or await self._journal.operations(project, limit, before)

    async def find(self, who: Principal, project: ProjectId, word: str) -> Operation | Refusal:
        """By id or an unambiguous prefix."""
        refusal = allowed(who, "show", project)
        if refusal is not None:
            return refusal
        found = await self._journal.operation(word)
        if found is None or found.project != project:
            return Refusal(why=Why.NOT_FOUND, reason=f"there is no operation {word}", hint="See: inn operation list")
        return found

    async def children(self, operation: Operation) -> tuple[Operation, ...]:
        """Only parents have any, and they alone have no subject of their own: for the others nothing is read."""
        return () if operation.subjects else await self._journal.children(operation.id)

    async def plan(self, operation: Operation) -> Plan | None:
        return await self._journal.plan_of(operation.id)

    async def wait(self, who: Principal, project: ProjectId, word: str, timeout_s: float) -> Operation | Refusal:
        """Once it has ended, or as it is when time is up."""
        found = await self.find(who, project, word)
        if isinstance(found, Refusal) or found.state.ended:
            return found
        return await self._journal.wait_ended(found.id, timeout_s) or found

    async def cancel(self, who: Principal, project: ProjectId, word: str) -> Operation | Refusal:
        """Takes effect at the next step's boundary; a parent's children are cancelled with it."""
        found = await self.find(who, project, word)
        if isinstance(found, Refusal):
            return found
        if found.state is OperationState.CANCELLED or (found.state.ended and found.cancel_wanted):
            return found  # asked for before
        if found.state.ended:
            reason = f"operation {found.id} has ended already: {found.state.value}"
            return Refusal(why=Why.CONFLICT, reason=reason, hint="")
        for child in await self.children(found):
            await self._works.cancel(child.id)
        return await self._works.cancel(found.id) or found

    def events(self, who: Principal, after: int) -> AsyncIterator[Event] | Refusal:
        """For administrators: the feed tells of every project.

        Raises, when it is read, TooOld: `after` lies before the kept history.
        """
        return allowed(who, "events", None) or self._journal.events(after)
