"""The use case of launching: one instance, several under a parent, or all or none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from innkeeper.access.rules import allowed
from innkeeper.control.parents import Parents
from innkeeper.control.submit import Asking, Decide, Submitter, as_before
from innkeeper.model.host import Principal
from innkeeper.model.ids import Draw, InstanceId, Kind, OperationId, ProjectId, SecretId, SecretRef
from innkeeper.model.plans import Plan, Refusal, Verb, Why
from innkeeper.model.work import Operation, OperationState
from innkeeper.plan.intake.ssh_key import check_ssh_key
from innkeeper.plan.intake.user_data import check_user_data
from innkeeper.plan.launch import LaunchWish, launch, launch_together
from innkeeper.ports.store import Pictures, Secrets, StoreFailed

log = logging.getLogger(__name__)

_MANY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOrder:
    """A launch as an edge received it: the wish, the secret part of it, and how many."""

    wish: LaunchWish
    user_data: bytes | None = None
    count: int = 1
    all_or_none: bool = False


class Launching:
    """`fresh` draws ids for what is not planned: parents and secrets."""

    def __init__(
        self, submitter: Submitter, pictures: Pictures, parents: Parents, secrets: Secrets, fresh: Callable[[], Draw]
    ) -> None:
        self._submitter = submitter
        self._pictures = pictures
        self._parents = parents
        self._secrets = secrets
        self._fresh = fresh

    def rehearse(
        self, who: Principal, project: ProjectId, order: LaunchOrder, now: float
    ) -> tuple[Plan, ...] | Refusal:
        """The plans that a launch would submit now, for --dry-run. Nothing is kept."""
        refusal = allowed(who, "launch", project) or _wrong(order)
        if refusal is not None:
            return refusal
        cluster, draw, plans = self._pictures.cluster(), self._fresh(), list[Plan]()
        wishes = _numbered(order)
        if order.user_data is not None:
            wishes = _referring(wishes, _references(draw, len(wishes)))  # to nothing: no rehearsed plan is carried out
        for number, wish in enumerate(wishes):
            plan = launch(cluster, project, wish, draw.branch(number), now)
            if isinstance(plan, Refusal):
                return plan
            cluster = cluster.after(plan.accept, cluster.revision)
            plans.append(plan)
        return tuple(plans)

    async def launch(self, who: Principal, order: LaunchOrder, asking: Asking) -> Operation | Refusal:
        """One instance, or a parent operation with a child for each; with `all_or_none` one operation for all."""
        refusal = allowed(who, "launch", asking.project) or _wrong(order)
        if refusal is not None:
            return refusal
        wishes = _numbered(order)
        if len(wishes) > 1 and not order.all_or_none:
            return await self._each(wishes, order.user_data, asking)
        if order.user_data is not None and (known := await self._submitter.earlier(asking)) is not None:
            return known  # before anything is sealed for it
        wishes = await self._sealed(wishes, order.user_data)
        # Should there be no answer it may still be accepted: then the secrets stay, and go at the latest at next start.
        answer = await self._submitter.submit(_decide(asking.project, wishes), asking)
        await self._unseal(wishes, [answer])
        return answer

    async def _each(self, wishes: Sequence[LaunchWish], user_data: bytes | None, asking: Asking) -> Operation | Refusal:
        """Many under one parent. What cannot be planned fails singly; when all of it cannot, the first is refused."""
        mine = _parent(self._fresh(), wishes, asking)
        parent = await self._parents.open(mine, asking)
        if parent.id != mine.id:
            return as_before(parent, asking)
        refused: list[Refusal] = []
        closed = None
        try:
            wishes = await self._sealed(wishes, user_data)
            child = replace(asking, parent=parent.id, key=None)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._part(wish, child)) for wish in wishes]
            answers = [task.result() for task in tasks]
            refused += [answer for answer in answers if isinstance(answer, Refusal)]
            await self._unseal(wishes, answers)
        finally:
            # Also when the store failed or the asker has gone away: nobody else would ever close it.
            closed = await self._parents.close(parent.id, refused)
        return refused[0] if len(refused) == len(wishes) else closed or parent

    async def _part(self, wish: LaunchWish, child: Asking) -> Operation | Refusal:
        """One of many; a fault of ours in it does not keep the others from being counted."""
        try:
            return await self._submitter.submit(_launching(child.project, wish), child)
        except Exception as fault:
            log.exception("a part of %s could not be submitted", child.parent)
            reason = f"a fault in Innkeeper itself: {fault!r}"
            return Refusal(why=Why.UNAVAILABLE, reason=reason, hint="See the daemon's log")

    async def _sealed(self, wishes: Sequence[LaunchWish], user_data: bytes | None) -> tuple[LaunchWish, ...]:
        """Sealed before a plan is accepted, each instance its own, so that no accepted plan lacks its secret."""
        if user_data is None:
            return tuple(wishes)
        refs = _references(self._fresh(), len(wishes))
        await self._secrets.seal(dict.fromkeys(refs, user_data))
        return _referring(wishes, refs)

    async def _unseal(self, wishes: Sequence[LaunchWish], answers: Sequence[Operation | Refusal]) -> None:
        """What no instance came to need: it was refused, or a twin came first."""
        sealed = {wish.first_boot.user_data for wish in wishes if wish.first_boot.user_data is not None}
        if not sealed:
            return
        cluster = self._pictures.cluster()
        subjects = (ref for answer in answers if isinstance(answer, Operation) for ref in answer.subjects)
        rows = (cluster.instances.get(InstanceId(ref.id)) for ref in subjects if ref.kind is Kind.INSTANCE)
        lost = sealed - {row.first_boot.user_data for row in rows if row is not None}
        try:
            await self._secrets.discard(tuple(lost))
        except StoreFailed as failed:
            log.warning("%d secrets stay until the next start: %s", len(lost), failed)


def _references(draw: Draw, count: int) -> tuple[SecretRef, ...]:
    return tuple(SecretRef(SecretId(draw.id("s", number))) for number in range(count))


def _referring(wishes: Sequence[LaunchWish], refs: Sequence[SecretRef]) -> tuple[LaunchWish, ...]:
    """Each wish with a secret of its own."""
    pairs = zip(wishes, refs, strict=True)
    return tuple(replace(wish, first_boot=replace(wish.first_boot, user_data=ref)) for wish, ref in pairs)


def _decide(project: ProjectId, wishes: tuple[LaunchWish, ...]) -> Decide:
    if len(wishes) == 1:
        return _launching(project, wishes[0])
    return lambda cluster, draw, now: launch_together(cluster, project, wishes, draw, now)


def _launching(project: ProjectId, wish: LaunchWish) -> Decide:
    return lambda cluster, draw, now: launch(cluster, project, wish, draw, now)


def _wrong(order: LaunchOrder) -> Refusal | None:
    """What is wrong with the parts that no planner sees."""
    if not 1 <= order.count <= _MANY:
        return Refusal(
            why=Why.INVALID, reason=f"{order.count} instances cannot be launched", hint=f"Ask for 1 to {_MANY}"
        )
    if order.user_data is not None and (problem := check_user_data(order.user_data)):
        return Refusal(why=Why.INVALID, reason=problem, hint="See the documentation of cloud-init")
    for key in order.wish.first_boot.ssh_keys:
        if problem := check_ssh_key(key):
            return Refusal(why=Why.INVALID, reason=problem, hint="Give the file that ends in .pub")
    return None


def _numbered(order: LaunchOrder) -> tuple[LaunchWish, ...]:
    """`{n}` in the name becomes 1, 2, 3 …; without it `-1`, `-2` … are appended when there are several."""
    name = order.wish.name
    if name is None:
        return (order.wish,) * order.count
    if order.count > 1 and "{n}" not in name:
        name += "-{n}"
    return tuple(replace(order.wish, name=name.replace("{n}", str(n + 1))) for n in range(order.count))


def _parent(draw: Draw, wishes: Sequence[LaunchWish], asking: Asking) -> Operation:
    return Operation(
        id=OperationId(draw.id("op")),
        project=asking.project,
        verb=Verb.LAUNCH,
        title=f"launch {len(wishes)} instances from {wishes[0].template}",
        subjects=(),
        principal=asking.principal,
        state=OperationState.PENDING,
        created_at=asking.at,
        updated_at=asking.at,
        steps=len(wishes),
        asked=asking.asked,
    )
