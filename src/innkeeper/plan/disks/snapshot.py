"""Snapshots: taking, restoring in place, deleting. Making a new instance from one is a launch.

A volume's file is never moved. Taking a snapshot freezes the instance's volumes and gives it new ones over them;
restoring gives it new ones over those of the snapshot, and the present ones go:

    before          taken                 restored
    web ▶ A         web ▶ B ▷ A           web ▶ C ▷ A
                    snapshot ▶ A          snapshot ▶ A

So the rows alone decide what an instance stands on, and each moment between two steps is one that a start survives.
What goes keeps its row until its file is gone, so that nobody takes what is below it for unneeded; what two deletions
at once leave to each other is collected by repair.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from innkeeper.model.actions import Chain, DeleteDisk, StopMachine, TakeSnapshot
from innkeeper.model.cluster import Cluster
from innkeeper.model.ids import Draw, Kind, SnapshotId, VolumeId
from innkeeper.model.instance import Instance, Snapshot, Volume, Wanted
from innkeeper.model.observed import Phase
from innkeeper.model.plans import Change, Drop, Expect, NoUndo, Plan, Put, Refusal, Step, Verb, Why
from innkeeper.plan.disks.layers import chains, needless, on_volumes
from innkeeper.plan.names import bad_name, snapshot_named
from innkeeper.plan.power import gone, image_of, is_up, start_step
from innkeeper.plan.steps import LAST, converge, disk_action, step

# QEMU walks through all layers for a block that none has, and opens each at its start.
LAYERS_MOST = 64


def take(cluster: Cluster, instance: Instance, name: str | None, draw: Draw, now: float) -> Plan | Refusal:
    """As it runs, or off. Without a name it gets the next free number.

    Once the last new disk stands there is no way back: a machine that was switched over must not lose what it writes.
    """
    name = _free_name(cluster, instance) if name is None else name
    refusal = gone(instance) or bad_name(name, Kind.SNAPSHOT) or _cannot_be_taken(cluster, instance, name)
    if refusal is not None:
        return refusal
    held = _disks(cluster, instance)
    tops = tuple(_over(v, v, instance, draw, number) for number, v in enumerate(held))
    swapped = {old.id: new.id for old, new in zip(held, tops, strict=True)}
    snapshot = Snapshot(
        id=SnapshotId(draw.id("snap")),
        project=instance.project,
        instance=instance.id,
        name=name,
        host=instance.host,
        template=instance.template,
        size=instance.size,
        volumes=tuple(v.id for v in held),
        created_at=now,
    )
    wanted = replace(instance, hardware=on_volumes(instance.hardware, swapped), generation=instance.generation + 1)
    return Plan(
        verb=Verb.SNAPSHOT,
        title=f"take snapshot {name} of {instance.name}",
        subjects=(instance.ref, snapshot.ref),
        expects=(*_as_seen(instance, *held), *_new(snapshot, *tops)),
        claims=(instance.ref, snapshot.ref, *(v.ref for v in (*held, *tops))),
        accept=_puts(*(_frozen(v) for v in held), *tops, wanted, snapshot),
        steps=(*_creations(wanted, tops, final=True), _taking(cluster, wanted, snapshot, tops)),
        abandon=(
            *_drops(snapshot, *tops),
            *_puts(*(replace(v, generation=v.generation + 2) for v in held)),
            *_puts(replace(instance, generation=wanted.generation + 1)),
        ),
    )


def complete(cluster: Cluster, snapshot: Snapshot) -> Plan:
    """Of a snapshot whose taking stopped before its end: the machine may still write to what should be frozen."""
    instance = cluster.instances[snapshot.instance]
    action = TakeSnapshot(
        instance=instance.id, snapshot=snapshot.id, volumes=snapshot.volumes, chains=chains(cluster, instance)
    )
    return Plan(
        verb=Verb.REPAIR,
        title=f"complete snapshot {snapshot.name} of {instance.name}",
        subjects=(instance.ref, snapshot.ref),
        expects=_as_seen(instance, snapshot),
        claims=(instance.ref, snapshot.ref),
        steps=(step(instance, instance.ref, action, NoUndo.NOTHING),),
    )


def restore(cluster: Cluster, instance: Instance, snapshot: Snapshot, draw: Draw, *, restart: bool) -> Plan | Refusal:
    """What was written since is dropped. With `restart` also one that runs, which is ended for that and started anew.

    Once the new disks stand and the machine is off there is no way back: one that cannot be started is restored all the
    same.
    """
    up = is_up(cluster, instance)
    refusal = gone(instance) or (None if restart or not up else _runs(instance, snapshot))
    if refusal is not None:
        return refusal
    image = image_of(cluster, instance)
    if isinstance(image, Refusal):
        return image
    held = _disks(cluster, instance)
    kept = tuple(cluster.volumes[v] for v in snapshot.volumes)
    tops = tuple(_over(k, v, instance, draw, n) for n, (k, v) in enumerate(zip(kept, held, strict=True)))
    swapped = {old.id: new.id for old, new in zip(held, tops, strict=True)}
    wanted = replace(
        instance,
        hardware=on_volumes(instance.hardware, swapped),
        size=replace(instance.size, disk_gib=snapshot.size.disk_gib),
        wanted=Wanted.RUNNING if up else Wanted.STOPPED,
        generation=instance.generation + 1,
    )
    dropped = (*held, *needless(cluster, (), [v.id for v in held]))
    accept = _puts(*(_frozen(v) for v in held), *tops, wanted)
    after = cluster.after(accept, cluster.revision)
    stopping = step(wanted, wanted.ref, StopMachine(instance=wanted.id, grace_s=0), NoUndo.NO_WAY_BACK)
    starting = (*converge(cluster, wanted, NoUndo.NOTHING), start_step(after, wanted, image))
    return Plan(
        verb=Verb.RESTORE,
        title=f"restore {instance.name} to snapshot {snapshot.name}",
        subjects=(instance.ref,),
        expects=(*_as_seen(instance, snapshot, *dropped), *_new(*tops)),
        claims=(instance.ref, snapshot.ref, *(v.ref for v in (*dropped, *tops))),
        accept=accept,
        steps=(
            *_creations(wanted, tops, final=not up),
            *((stopping, *starting) if up else ()),
            *removals(dropped),
        ),
        finish=_drops(*dropped),
        abandon=(
            *_drops(*tops),
            *_puts(*(replace(v, generation=v.generation + 2) for v in held)),
            *_puts(replace(instance, generation=wanted.generation + 1)),
        ),
    )


def delete_snapshot(cluster: Cluster, snapshot: Snapshot) -> Plan:
    """Its volumes go with it where nothing stands over them, and stay for those that do."""
    dropped = needless(cluster, [snapshot])
    return Plan(
        verb=Verb.DELETE_SNAPSHOT,
        title=f"delete snapshot {snapshot.name} of {cluster.instances[snapshot.instance].name}",
        subjects=(snapshot.ref,),
        expects=_as_seen(snapshot, *dropped),
        claims=(snapshot.ref, *(v.ref for v in dropped)),
        accept=_drops(snapshot),
        steps=removals(dropped),
        finish=_drops(*dropped),
    )


def collect(cluster: Cluster, top: Volume) -> Plan:
    """A frozen volume that nobody needs any more, with what only it needed."""
    dropped = (top, *needless(cluster, (), [top.id]))
    return Plan(
        verb=Verb.REPAIR,
        title=f"remove volume {top.id}, which nothing stands over any more",
        subjects=(top.ref,),
        expects=_as_seen(*dropped),
        claims=tuple(v.ref for v in dropped),
        steps=removals(dropped),
        finish=_drops(*dropped),
    )


def removals(volumes: Iterable[Volume]) -> tuple[Step, ...]:
    """Of frozen volumes, which may have been made with the generations of instances that are long gone."""
    return tuple(
        Step(host=v.host, about=v.ref, generation=LAST, action=DeleteDisk(volume=v.id), undo=NoUndo.NO_WAY_BACK)
        for v in volumes
    )


# --- refusals


def _cannot_be_taken(cluster: Cluster, instance: Instance, name: str) -> Refusal | None:
    if (taken := snapshot_named(cluster, instance, name)) is not None:
        hint = f"Choose another name, or delete that one: inn snapshot delete {instance.name} {name}"
        return _conflict(f"{instance.name} has a snapshot named {name} already ({taken.id})", hint)
    if is_up(cluster, instance) and cluster.phase(instance.id) is Phase.UNKNOWN:
        return _conflict(
            f"{instance.name} is there and does not answer", f"End it first: inn stop {instance.name} --force"
        )
    deepest = max((len(cluster.below(v.id)) for v in _disks(cluster, instance)), default=0)
    if deepest >= LAYERS_MOST:
        hint = f"Stop it, publish it as a template, and launch that: inn template publish {instance.name} NAME"
        return _conflict(f"{instance.name} stands over {deepest} layers, as many as a disk may have", hint)
    return None


def _runs(instance: Instance, snapshot: Snapshot) -> Refusal:
    hint = f"Stop it first, or let it be ended and started anew: inn rewind {instance.name} {snapshot.name}"
    return _conflict(f"{instance.name} is running", hint)


def _conflict(reason: str, hint: str) -> Refusal:
    return Refusal(why=Why.CONFLICT, reason=reason, hint=hint)


def _free_name(cluster: Cluster, instance: Instance) -> str:
    held = {snapshot.name for snapshot in cluster.snapshots_by_age(instance.id)}
    return next(name for n in range(len(held) + 1) if (name := f"snap{n}") not in held)


# --- rows and steps


def _disks(cluster: Cluster, instance: Instance) -> tuple[Volume, ...]:
    """In the order in which the guest finds them."""
    return tuple(cluster.volumes[disk.volume] for disk in instance.hardware.disks())


def _frozen(volume: Volume) -> Volume:
    """Called by its id from now on, since its name goes to what stands over it."""
    return replace(volume, name=volume.id, instance=None, generation=volume.generation + 1)


def _over(below: Volume, place: Volume, instance: Instance, draw: Draw, number: int) -> Volume:
    """An empty volume over one, in the place of another."""
    return replace(
        place,
        id=VolumeId(draw.id("vol", number)),
        instance=instance.id,
        over=below.id,
        size_gib=below.size_gib,
        generation=1,
    )


def _creations(wanted: Instance, tops: tuple[Volume, ...], *, final: bool) -> tuple[Step, ...]:
    """`final`: once all stand there is no way back."""

    def create(volume: Volume, undo: DeleteDisk | NoUndo) -> Step:
        return step(wanted, volume.ref, disk_action(wanted, volume), undo)

    *first, last = tops
    return (
        *(create(v, DeleteDisk(volume=v.id)) for v in first),
        create(last, NoUndo.NO_WAY_BACK if final else DeleteDisk(volume=last.id)),
    )


def _taking(cluster: Cluster, wanted: Instance, snapshot: Snapshot, tops: tuple[Volume, ...]) -> Step:
    stand = tuple(Chain(volume=v.id, below=(v.over, *cluster.below(v.over))) for v in tops if v.over is not None)
    action = TakeSnapshot(instance=wanted.id, snapshot=snapshot.id, volumes=snapshot.volumes, chains=stand)
    return step(wanted, wanted.ref, action, NoUndo.NO_WAY_BACK)


def _as_seen(*nouns: Instance | Snapshot | Volume) -> tuple[Expect, ...]:
    return tuple(Expect(ref=noun.ref, generation=noun.generation) for noun in nouns)


def _new(*nouns: Snapshot | Volume) -> tuple[Expect, ...]:
    return tuple(Expect(ref=noun.ref, generation=None) for noun in nouns)


def _puts(*nouns: Instance | Snapshot | Volume) -> tuple[Change, ...]:
    return tuple(Put(noun=noun) for noun in nouns)


def _drops(*nouns: Snapshot | Volume) -> tuple[Change, ...]:
    return tuple(Drop(ref=noun.ref) for noun in nouns)
