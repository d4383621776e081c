"""The use case of launching: one instance, several under a parent, or all or none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from innkeeper.access.rules import allowed
from innkeeper.control.submit import Asking, Decide, Submitter
from innkeeper.model.host import Principal
from innkeeper.model.ids import Draw, ProjectId, SecretId, SecretRef
from innkeeper.model.plans import Plan, Refusal, Why
from innkeeper.model.work import Operation
from innkeeper.plan.intake.origin import LaunchWish
from innkeeper.plan.intake.ssh_key import check_ssh_key, too_many
from innkeeper.plan.intake.user_data import check_user_data
from innkeeper.plan.launch import launch, launch_together
from innkeeper.ports.store import Pictures, Secrets, StoreFailed

log = logging.getLogger(__name__)

_MANY = 1000
_BREATH = 20


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

    async def rehearse(
        self, who: Principal, project: ProjectId, order: LaunchOrder, now: float
    ) -> tuple[Plan, ...] | Refusal:
        """The plans that a launch would submit now, for --dry-run. Nothing is kept."""
        refusal = allowed(who, "launch", project) or await _wrong(order)
        if refusal is not None:
            return refusal
        cluster, draw, plans = self._pictures.cluster(), self._fresh(), list[Plan]()
        wishes = _numbered(order)
        if order.user_data is not None:
            wishes = _referring(wishes, _reference(draw))  # to nothing: no rehearsed plan is carried out
        for number, wish in enumerate(wishes):
            plan = launch(cluster, project, wish, draw.branch(number), now)
            if isinstance(plan, Refusal):
                before = f"number {number + 1} of {len(wishes)}, after {number} that would be launched: "
                return replace(plan, reason=before + plan.reason) if number else plan
            cluster = cluster.after(plan.accept, cluster.revision)
            plans.append(plan)
            if number % _BREATH == 0:
                await asyncio.sleep(0)  # others are to be served meanwhile
        return tuple(plans)

    async def launch(self, who: Principal, order: LaunchOrder, asking: Asking) -> Operation | Refusal:
        """One instance, or a parent operation with a child for each; with `all_or_none` one operation for all.

        However many they are, they are accepted in one: a killed daemon knows all of them afterwards, or none.
        """
        refusal = allowed(who, "launch", asking.project) or await _wrong(order)
        if refusal is not None:
            return refusal
        costly = order.user_data is not None or order.count > 1
        if costly and (known := await self._submitter.earlier(asking)) is not None:
            return known  # before anything is sealed or planned for it
        wishes = _numbered(order)
        if order.user_data is None:
            return await self._submit(wishes, order, asking)
        return await self._submit_sealed(wishes, order, order.user_data, asking)

    async def _submit_sealed(
        self, wishes: Sequence[LaunchWish], order: LaunchOrder, user_data: bytes, asking: Asking
    ) -> Operation | Refusal:
        """Sealed once for all of them, before a plan is accepted, so that no accepted plan lacks its secret.

        And not at all for what is refused anyway. Should the asker go away it may still be accepted: then the secret
        stays, and goes at the latest at the next start.
        """
        ref = _reference(self._fresh())
        wishes = _referring(wishes, ref)
        hopeless = await self._submitter.foreseen(_decides(wishes, order, asking.project), asking)
        if hopeless is not None:
            return hopeless
        await self._secrets.seal({ref: user_data})
        answer = await self._submit(wishes, order, asking)
        await self._unseal(ref)
        return answer

    async def _submit(self, wishes: Sequence[LaunchWish], order: LaunchOrder, asking: Asking) -> Operation | Refusal:
        decides = _decides(wishes, order, asking.project)
        if len(decides) == 1:
            return await self._submitter.submit(decides[0], asking)
        title = f"launch {len(wishes)} instances from {order.wish.template or order.wish.snapshot}"
        return await self._submitter.submit_several(title, decides, asking)

    async def _unseal(self, ref: SecretRef) -> None:
        """When no instance came to need it: all were refused, or a twin came first."""
        if any(row.first_boot.user_data == ref for row in self._pictures.cluster().instances.values()):
            return
        try:
            await self._secrets.discard((ref,))
        except StoreFailed as failed:
            log.warning("a secret stays until the next start: %s", failed)


def _reference(draw: Draw) -> SecretRef:
    return SecretRef(SecretId(draw.id("s")))


def _referring(wishes: Sequence[LaunchWish], ref: SecretRef) -> tuple[LaunchWish, ...]:
    """All with one secret: it is said once, and goes with the last of them."""
    return tuple(replace(wish, first_boot=replace(wish.first_boot, user_data=ref)) for wish in wishes)


def _decides(wishes: Sequence[LaunchWish], order: LaunchOrder, project: ProjectId) -> list[Decide]:
    """One for each operation."""
    if len(wishes) > 1 and order.all_or_none:
        return [_together(project, tuple(wishes))]
    return [_launching(project, wish) for wish in wishes]


def _together(project: ProjectId, wishes: tuple[LaunchWish, ...]) -> Decide:
    return lambda cluster, draw, now: launch_together(cluster, project, wishes, draw, now)


def _launching(project: ProjectId, wish: LaunchWish) -> Decide:
    return lambda cluster, draw, now: launch(cluster, project, wish, draw, now)


async def _wrong(order: LaunchOrder) -> Refusal | None:
    """What is wrong with the parts that no planner sees."""
    if not 1 <= order.count <= _MANY:
        return Refusal(
            why=Why.INVALID, reason=f"{order.count} instances cannot be launched", hint=f"Ask for 1 to {_MANY}"
        )
    # In a thread: large ones take a moment, in which others are to be served.
    if order.user_data is not None and (problem := await asyncio.to_thread(check_user_data, order.user_data)):
        return Refusal(why=Why.INVALID, reason=problem, hint="See the documentation of cloud-init")
    if problem := too_many(order.wish.first_boot.ssh_keys):
        return Refusal(why=Why.INVALID, reason=problem, hint="Give the others in user-data, as ssh_authorized_keys")
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
