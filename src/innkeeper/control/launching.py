"""The use case of launching: one instance, several under a parent, or all or none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from innkeeper.access.rules import allowed
from innkeeper.control.submit import Asking, Decide, Submitter
from innkeeper.model.host import Principal
from innkeeper.model.ids import Draw, OperationId, ProjectId, SecretId, SecretRef
from innkeeper.model.plans import Plan, Refusal, Verb, Why
from innkeeper.model.work import Operation, OperationState
from innkeeper.plan.intake.ssh_key import check_ssh_key
from innkeeper.plan.intake.user_data import check_user_data
from innkeeper.plan.launch import LaunchWish, launch, launch_together
from innkeeper.ports.store import Pictures, Secrets, Works

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
        self, submitter: Submitter, pictures: Pictures, works: Works, secrets: Secrets, fresh: Callable[[], Draw]
    ) -> None:
        self._submitter = submitter
        self._pictures = pictures
        self._works = works
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
        for number, wish in enumerate(_numbered(order)):
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
        wishes = tuple([await self._sealed(w, order.user_data) for w in _numbered(order)])
        if len(wishes) == 1:
            answer = await self._submitter.submit(_launching(asking.project, wishes[0]), asking)
        elif order.all_or_none:
            answer = await self._submitter.submit(
                lambda cluster, draw, now: launch_together(cluster, asking.project, wishes, draw, now), asking
            )
        else:
            return await self._each(wishes, asking)
        if isinstance(answer, Refusal):
            await self._unseal(wishes)
        return answer

    async def _each(self, wishes: Sequence[LaunchWish], asking: Asking) -> Operation | Refusal:
        """Many under one parent. What cannot even be planned is refused at once when the first is.

        Later ones fail singly.
        """
        mine = _parent(self._fresh(), wishes, asking)
        parent = await self._works.open_parent(mine, asking.key)
        if parent.id != mine.id:
            return parent  # the same request came before
        child = replace(asking, parent=parent.id, key=None)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._submitter.submit(_launching(asking.project, wish), child)) for wish in wishes
            ]
        answers = [task.result() for task in tasks]
        refused = [(w, a) for w, a in zip(wishes, answers, strict=True) if isinstance(a, Refusal)]
        await self._unseal([w for w, _ in refused])
        closed = await self._works.close_parent(parent.id, tuple(str(a) for _, a in refused))
        return refused[0][1] if len(refused) == len(wishes) else closed

    async def _sealed(self, wish: LaunchWish, user_data: bytes | None) -> LaunchWish:
        """Sealed before the plan is accepted, each instance its own, so that no accepted plan lacks its secret."""
        if user_data is None:
            return wish
        ref = SecretRef(SecretId(self._fresh().id("s")))
        await self._secrets.seal(ref, user_data)
        return replace(wish, first_boot=replace(wish.first_boot, user_data=ref))

    async def _unseal(self, wishes: Sequence[LaunchWish]) -> None:
        refs = [w.first_boot.user_data for w in wishes if w.first_boot.user_data is not None]
        if refs:
            await self._secrets.discard(refs)


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
    )
