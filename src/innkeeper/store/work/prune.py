"""Forgetting the past, in small slices: events by revision, ended operations by their own number.

The two are apart because anybody's guest can cause events, by changing how it is seen, and none may thereby erase who
did what. Operations cost somebody's rights, and push out only the oldest of their kind.

An operation goes alone, with its plan, its records and its idempotency key. A parent ends after all its children, so
that by age they go before it; those of a parent that has not ended stay, since its own state follows from theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import delete, exists, select
from sqlalchemy.engine import Connection

from innkeeper.model.work import OperationState
from innkeeper.store.database import schema
from innkeeper.store.work.standing import Draft

# Enough to be worth its statements, little enough that no single commit is noticeably longer than others.
_EVENTS_SLICE = 500
_OPERATIONS_SLICE = 50
_UNENDED = [state.value for state in OperationState if not state.ended]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How much is kept at least: the newest revisions' events, and the operations that ended last."""

    revisions: int = 100_000
    operations: int = 100_000


KEEP = Keep()


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What the tables hold of it: events above `floor`, and so many operations that have `ended`.

    Known by heart, so that a commit that has nothing to forget asks the database nothing.
    """

    floor: int
    ended: int

    def after(self, draft: Draft) -> Past:
        """An operation ends once, and nothing touches it any more."""
        return replace(self, ended=self.ended + sum(operation.state.ended for operation in draft.latest.values()))


def prune(connection: Connection, past: Past, revision: int, keep: Keep) -> Past:
    """What is left of it."""
    return _without_old_operations(connection, _without_old_events(connection, past, revision, keep), keep)


def _without_old_events(connection: Connection, past: Past, revision: int, keep: Keep) -> Past:
    if revision - past.floor < keep.revisions + _EVENTS_SLICE:
        return past
    floor = revision - keep.revisions
    connection.execute(delete(schema.events).where(schema.events.c.revision <= floor))
    return replace(past, floor=floor)


def _without_old_operations(connection: Connection, past: Past, keep: Keep) -> Past:
    if past.ended < keep.operations + _OPERATIONS_SLICE:
        return past
    table, parents = schema.operations, schema.operations.alias()
    needed = exists().where(parents.c.id == table.c.parent, parents.c.state.in_(_UNENDED))
    ended = select(table.c.id).where(table.c.state.not_in(_UNENDED), ~needed)
    # A slice, also where far too many are kept: what a greater setting had kept goes by and by.
    most = min(past.ended - keep.operations, 2 * _OPERATIONS_SLICE)
    gone = list(connection.execute(ended.order_by(table.c.revision).limit(most)).scalars())
    connection.execute(delete(table).where(table.c.id.in_(gone)))
    return replace(past, ended=past.ended - len(gone))
