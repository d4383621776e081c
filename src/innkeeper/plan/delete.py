"""Delete: an instance and all that is its own, snapshots included. Also which instances end by themselves."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from innkeeper.model.actions import Action, DeleteDisk, ForgetMachine, StopMachine
from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import InstanceId, Ref
from innkeeper.model.instance import Instance, Volume, Wanted
from innkeeper.model.plans import Drop, Expect, Noun, NoUndo, Plan, Put, Refusal, Step, Verb, Why
from innkeeper.plan.disks.layers import needless
from innkeeper.plan.disks.snapshot import removals
from innkeeper.plan.power import DOWN, is_up, returns
from innkeeper.plan.steps import converge, step


def delete(cluster: Cluster, instance: Instance, *, force: bool) -> Plan | Refusal:
    """With `force` as it runs, and over the head of any operation that holds it."""
    if is_up(cluster, instance) and not force:
        return Refusal(
            why=Why.CONFLICT,
            reason=f"{instance.name} is running",
            hint=f"Stop it first, or delete it as it runs: inn delete {instance.name} --force",
        )
    return replace(remove(cluster, instance), takes_over=force)


def remove(cluster: Cluster, instance: Instance) -> Plan:
    """As it runs, if it does, but never over the head of an operation: how repair and expiry delete.

    From its acceptance the instance is ABSENT; the rows go when nothing of it is left on its host. An unfinished
    deletion is gone on with by repair, so there is no way back once the machine was stopped.
    """
    wanted = replace(instance, wanted=Wanted.ABSENT, generation=instance.generation + 1)
    nics, volumes, snapshots = (
        cluster.cards(instance.id),
        cluster.disks(instance.id),
        cluster.snapshots_by_age(instance.id),
    )
    frozen = needless(cluster, snapshots, [v.id for v in volumes])
    parts: tuple[Noun, ...] = (*nics, *volumes, *snapshots, *frozen, instance)
    rows = tuple(noun.ref for noun in parts)
    return Plan(
        verb=Verb.DELETE,
        title=f"delete {instance.name}",
        subjects=(instance.ref,),
        expects=(
            Expect(ref=instance.ref, generation=instance.generation),
            *(Expect(ref=v.ref, generation=v.generation) for v in frozen),
        ),
        claims=rows,
        accept=(Put(noun=wanted),),
        steps=_steps(cluster, wanted, frozen),
        abandon=(Put(noun=replace(instance, generation=wanted.generation + 1)),),
        finish=tuple(Drop(ref=r) for r in rows),
    )


def _steps(cluster: Cluster, wanted: Instance, frozen: tuple[Volume, ...]) -> tuple[Step, ...]:
    def onward(about: Ref, action: Action) -> Step:
        return step(wanted, about, action, NoUndo.NO_WAY_BACK)

    return (
        onward(wanted.ref, StopMachine(instance=wanted.id, grace_s=0)),
        *converge(cluster, wanted, NoUndo.NO_WAY_BACK),
        *(onward(v.ref, DeleteDisk(volume=v.id)) for v in cluster.disks(wanted.id)),
        *removals(frozen),
        onward(wanted.ref, ForgetMachine(instance=wanted.id)),
    )


def ending(cluster: Cluster, now: float, doubtful: Collection[InstanceId] = ()) -> tuple[Instance, ...]:
    """Instances that nobody holds and whose end has come: expired ones, and ephemeral ones that ran and stopped.

    Of those that are `doubtful` it is not known yet whether their host goes down with them.
    """
    return tuple(
        i
        for i in cluster.instances.values()
        if i.wanted is not Wanted.ABSENT
        and i.ref not in cluster.claims
        and (_expired(i, now) or (i.id not in doubtful and _left(cluster, i)))
    )


def _expired(instance: Instance, now: float) -> bool:
    return instance.expires_at is not None and instance.expires_at <= now


def _left(cluster: Cluster, instance: Instance) -> bool:
    seen = cluster.machines.get(instance.id)
    return instance.ephemeral and seen is not None and seen.phase in DOWN and not returns(instance, seen)
