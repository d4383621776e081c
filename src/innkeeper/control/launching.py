"""The use case of launching: one instance, several under a parent, or all or none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from innkeeper.access.rules import allowed
from innkeeper.control.submit import Asking, Decide, Submitter
from innkeeper.model.host import Principal
from innkeeper.model.ids import Draw, ProjectId, SecretId, SecretRef
from innkeeper.model.plans import Plan, Refusal, Why
from innkeeper.model.work import Operation
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
    """`fresh` draws ids for what is not planned: secrets."""

    def __init__(self, submitter: Submitter, pictures: Pictures, secrets: Secrets, fresh: Callable[[], Draw]) -> None:
        self._submitter = submitter
        self._pictures = pictures
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
        """One instance, or a parent operation with a child for each; with `all_or_none` one operation for all.

        However many they are, they are accepted in one: a killed daemon knows all of them afterwards, or none.
        """
        refusal = allowed(who, "launch", asking.project) or _wrong(order)
        if refusal is not None:
            return refusal
        costly = order.user_data is not None or order.count > 1
        if costly and (known := await self._submitter.earlier(asking)) is not None:
            return known  # before anything is sealed or planned for it
        wishes = await self._sealed(_numbered(order), order.user_data)
        # Should the asker go away it may still be accepted: then the secrets stay, and go at the latest at next start.
        answer = await self._submit(wishes, order, asking)
        await self._unseal(wishes)
        return answer

    async def _submit(self, wishes: tuple[LaunchWish, ...], order: LaunchOrder, asking: Asking) -> Operation | Refusal:
        if len(wishes) > 1 and order.all_or_none:
            return await self._submitter.submit(_together(asking.project, wishes), asking)
        decides = [_launching(asking.project, wish) for wish in wishes]
        if len(wishes) == 1:
            return await self._submitter.submit(decides[0], asking)
        title = f"launch {len(wishes)} instances from {order.wish.template}"
        return await self._submitter.submit_several(title, decides, asking)

    async def _sealed(self, wishes: Sequence[LaunchWish], user_data: bytes | None) -> tuple[LaunchWish, ...]:
        """Sealed before a plan is accepted, each instance its own, so that no accepted plan lacks its secret."""
        if user_data is None:
            return tuple(wishes)
        refs = _references(self._fresh(), len(wishes))
        await self._secrets.seal(dict.fromkeys(refs, user_data))
        return _referring(wishes, refs)

    async def _unseal(self, wishes: Sequence[LaunchWish]) -> None:
        """What no instance came to need: it was refused, or a twin came first."""
        sealed = {wish.first_boot.user_data for wish in wishes if wish.first_boot.user_data is not None}
        if not sealed:
            return
        lost = sealed - {row.first_boot.user_data for row in self._pictures.cluster().instances.values()}
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


def _together(project: ProjectId, wishes: tuple[LaunchWish, ...]) -> Decide:
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
