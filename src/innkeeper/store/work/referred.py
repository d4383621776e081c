"""Which secrets are still needed: those that a row, or work that may yet be done, refers to.

An instance's row says which secret it needs, the same one for all that were launched by one request; when the last of
these rows goes, the secret goes in the same transaction. Secrets are sealed before the plan that needs them is
accepted, so a process that dies in between leaves some that nobody will ever ask for: they go when the store opens
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import bindparam, delete, select
from sqlalchemy.engine import Connection

from innkeeper.model.actions import WriteSeed
from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import SecretId
from innkeeper.model.instance import Instance
from innkeeper.model.plans import Noun, Plan, Put
from innkeeper.store.database import schema
from innkeeper.store.work.standing import Standing

_TABLE = schema.secrets


def secret_of(noun: Noun) -> SecretId | None:
    """The secret that this row needs."""
    user_data = noun.first_boot.user_data if isinstance(noun, Instance) else None
    return None if user_data is None else user_data.id


def orphans(dropped: Iterable[Noun], after: Cluster) -> list[SecretId]:
    """The secrets that no row needs any more once these have gone."""
    loose = {secret for noun in dropped if (secret := secret_of(noun)) is not None}
    if loose:
        loose.difference_update([secret_of(row) for row in after.instances.values()])
    return sorted(loose)


def forget(connection: Connection, secrets: Iterable[str]) -> None:
    """Those that are not there are no error."""
    gone = [{"gone": id} for id in secrets]
    if gone:
        connection.execute(delete(_TABLE).where(_TABLE.c.id == bindparam("gone")), gone)


def sweep(connection: Connection, standing: Standing) -> int:
    """Deletes what nothing refers to; how many those were."""
    kept = {secret_of(instance) for instance in standing.cluster.instances.values()}
    for plan in standing.plans.values():
        kept.update(_of_plan(plan))
    lost = sorted(row.id for row in connection.execute(select(_TABLE.c.id)) if row.id not in kept)
    forget(connection, lost)
    return len(lost)


def _of_plan(plan: Plan) -> Iterator[SecretId | None]:
    for change in (*plan.accept, *plan.retreat, *plan.abandon, *plan.finish):
        if isinstance(change, Put):
            yield secret_of(change.noun)
    for step in plan.steps:
        for action in (step.action, step.undo):
            if isinstance(action, WriteSeed) and action.user_data is not None:
                yield action.user_data.id
