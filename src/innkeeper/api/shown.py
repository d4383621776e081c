"""From nouns to what is shown: names instead of ids where people read them, observed state beside the wanted one."""

from __future__ import annotations

from dataclasses import asdict

from innkeeper.api import schemas
from innkeeper.control.monitor import Monitor, Rates
from innkeeper.model.cluster import Cluster, Usage
from innkeeper.model.host import Host
from innkeeper.model.ids import InstanceId, Ref, SnapshotId, VolumeId
from innkeeper.model.instance import Instance, Size, Snapshot, Wanted
from innkeeper.model.network import Network
from innkeeper.model.observed import MachineState, Phase
from innkeeper.model.plans import Plan, Put
from innkeeper.model.template import Fits, MemoryImage, Template
from innkeeper.model.work import Operation, OperationState
from innkeeper.plan.names import template_by_id
from innkeeper.plan.power import is_up
from innkeeper.plan.size import capacity
from innkeeper.plan.words import Names, step_words, undo_words
from innkeeper.ports.store import MetricRow
from innkeeper.ports.streams import GuestStatus

STATUSES = ("launching", "deleting", *(phase.value for phase in Phase))


def size_out(size: Size) -> schemas.SizeOut:
    return schemas.SizeOut(vcpus=size.vcpus, memory_mib=size.memory_mib, disk_gib=size.disk_gib)


def rates_out(rates: Rates | None) -> schemas.RatesOut | None:
    return None if rates is None else schemas.RatesOut(**_with_units(asdict(rates)))


def metric_out(row: MetricRow) -> schemas.MetricOut:
    return schemas.MetricOut(**_with_units({k: v for k, v in asdict(row).items() if k != "instance"}))


def _with_units(values: dict[str, float]) -> dict[str, float]:
    """`disk_read_avg` is in bytes per second, and its name says so to those who have no docstring at hand."""
    return {_with_unit(name): value for name, value in values.items()}


def _with_unit(name: str) -> str:
    if name.startswith(("disk_", "net_")):
        return f"{name}_bytes_per_s"
    return f"cpus{name.removeprefix('cpu')}" if name.startswith("cpu") else name


def status_of(cluster: Cluster, instance: Instance) -> str:
    """One word for people: what was observed, or what is being done about it."""
    return _status(instance, cluster.machines.get(instance.id), instance.ref in cluster.claims)


def _status(instance: Instance, seen: MachineState | None, busy: bool) -> str:
    if instance.wanted is Wanted.ABSENT:
        return "deleting"
    if seen is None:
        return "launching" if busy else "stopped"
    return seen.phase.value


def instance_out(cluster: Cluster, instance: Instance, monitor: Monitor) -> schemas.InstanceOut:
    seen = cluster.machines.get(instance.id)
    nics = cluster.cards(instance.id)
    operation = cluster.claims.get(instance.ref)
    project = cluster.projects.get(instance.project)
    host = cluster.hosts.get(instance.host)
    planned = [a for n in nics for a in n.addresses]
    over = _stands_on(cluster, instance)
    return schemas.InstanceOut(
        id=instance.id,
        name=instance.name,
        project=project.name if project else instance.project,
        host=host.name if host else instance.host,
        template=template_by_id(cluster, instance.template),
        size=size_out(instance.size),
        wanted=instance.wanted.value,
        status=_status(instance, seen, operation is not None),
        reason=seen.reason if seen else "",
        since=seen.since if seen else None,
        agent=seen.agent if seen else False,
        cloud_init=seen.cloud_init if seen else "",
        addresses=planned + [a for a in (seen.addresses if seen else ()) if a not in planned],
        nics=[
            schemas.NicOut(id=n.id, network=cluster.networks[n.network].name, mac=n.mac, addresses=list(n.addresses))
            for n in nics
        ],
        volumes=[schemas.VolumeOut(id=v.id, name=v.name, size_gib=v.size_gib) for v in cluster.disks(instance.id)],
        snapshots=len(cluster.snapshots_of.get(instance.id, ())),
        over=None if over is None else _called_from(cluster, instance, over),
        warm=instance.memory is not None if seen is None else seen.warm,
        cold=instance.cold if seen is None or not seen.cold else seen.cold,
        autostart=instance.autostart,
        ephemeral=instance.ephemeral,
        created_at=instance.created_at,
        expires_at=instance.expires_at,
        labels=dict(instance.labels),
        operation=operation,
        generation=instance.generation,
        rates=rates_out(monitor.now(instance.id) if is_up(cluster, instance) else None),
    )


def snapshot_out(cluster: Cluster, snapshot: Snapshot) -> schemas.SnapshotOut:
    instance, taken = cluster.instances[snapshot.instance], snapshot.taken
    parent = _snapshot_below(cluster, snapshot.volumes[0])
    project = cluster.projects.get(snapshot.project)
    host = cluster.hosts.get(snapshot.host)
    return schemas.SnapshotOut(
        id=snapshot.id,
        name=snapshot.name,
        instance=instance.name,
        project=project.name if project else snapshot.project,
        host=host.name if host else snapshot.host,
        template=template_by_id(cluster, snapshot.template),
        status="deleting" if instance.wanted is Wanted.ABSENT else "taking" if taken is None else "ready",
        created_at=snapshot.created_at,
        size=size_out(snapshot.size),
        stored_bytes=None if taken is None else taken.stored_bytes,
        consistent=None if taken is None else taken.consistent,
        parent=None if parent is None else _called_from(cluster, instance, parent),
        current=_stands_on(cluster, instance) == snapshot,
        operation=cluster.claims.get(snapshot.ref),
        generation=snapshot.generation,
    )


def _stands_on(cluster: Cluster, instance: Instance) -> Snapshot | None:
    """What it writes now lies over this one."""
    root = next(iter(instance.hardware.disks()), None)
    return None if root is None else _snapshot_below(cluster, root.volume)


def _snapshot_below(cluster: Cluster, volume: VolumeId) -> Snapshot | None:
    """The nearest. What is left of deleted ones lies in between, and is passed by."""
    for below in cluster.below(volume):
        keeper = cluster.kept_by.get(below)
        if keeper is not None and keeper in cluster.snapshots:
            return cluster.snapshots[SnapshotId(keeper)]
    return None


def _called_from(cluster: Cluster, instance: Instance, snapshot: Snapshot) -> str:
    """Its name alone where the instance is its own."""
    if snapshot.instance == instance.id:
        return snapshot.name
    return f"{cluster.instances[snapshot.instance].name}/{snapshot.name}"


def template_out(cluster: Cluster, template: Template) -> schemas.TemplateOut:
    image = template.image
    assert image is not None  # incomplete templates are shown nowhere
    project = cluster.projects.get(template.project) if template.project else None
    memories = sorted((cluster.memories[m] for m in cluster.memories_of.get(template.id, ())), key=lambda m: m.id)
    return schemas.TemplateOut(
        id=template.id,
        name=template.name,
        version=template.version,
        project=project.name if project else None,
        origin=template.origin.value,
        os=image.os,
        firmware=image.firmware.value,
        digest=image.digest,
        virtual_size_bytes=image.virtual_size_bytes,
        stored_bytes=image.stored_bytes,
        agent=image.agent,
        cloud_init=image.cloud_init,
        created_at=template.created_at,
        default_size=size_out(template.default_size),
        used_by=len(cluster.users_of.get(template.id, ())),
        memory_images=[memory_out(cluster, m) for m in memories],
        generation=template.generation,
    )


def memory_out(cluster: Cluster, memory: MemoryImage) -> schemas.MemoryImageOut:
    host, baked = cluster.hosts.get(memory.host), memory.baked
    users = cluster.users_of.get(memory.template, ())
    outdated = host is not None and host.facts is not None and memory.fits != Fits.of(host.facts)
    return schemas.MemoryImageOut(
        id=memory.id,
        host=host.name if host else memory.host,
        status="making" if baked is None else "outdated" if outdated else "ready",
        size=size_out(memory.size),
        stored_bytes=None if baked is None else baked.stored_bytes,
        digest=None if baked is None else baked.digest,
        clones=sum(cluster.instances[InstanceId(user)].memory == memory.id for user in users),
        created_at=memory.created_at,
    )


def host_out(cluster: Cluster, host: Host) -> schemas.HostOut:
    facts, total, used = host.facts, capacity(host), cluster.usage.get(host.id, Usage())
    return schemas.HostOut(
        id=host.id,
        name=host.name,
        status="unknown" if facts is None else "ready",
        vcpus=total.vcpus,
        vcpus_promised=used.vcpus,
        memory_mib=total.memory_mib,
        memory_promised_mib=used.memory_mib,
        disk_gib=total.disk_gib,
        disk_promised_gib=used.disk_gib,
        disk_free_gib=facts.disk_free_gib if facts else 0,
        instances=used.instances,
        accelerator=facts.accelerator if facts else "",
        accelerator_reason=facts.accelerator_reason if facts else "",
        qemu_version=facts.qemu_version if facts else "",
        machine_type=facts.machine_type if facts else "",
        kernel=facts.kernel if facts else "",
        problems=list(facts.problems) if facts else ["it has not reported yet"],
    )


def network_out(cluster: Cluster, network: Network) -> schemas.NetworkOut:
    project = cluster.projects.get(network.project)
    return schemas.NetworkOut(
        id=network.id,
        name=network.name,
        project=project.name if project else network.project,
        cidr=network.cidr,
        gateway=network.gateway,
        domain=network.domain,
        nat=network.nat,
        mtu=network.mtu,
        instances=len(cluster.nics_on.get(network.id, ())),
    )


def plan_out(plan: Plan, cluster: Cluster, monitor: Monitor) -> schemas.PlanOut:
    """A plan that nobody has accepted, with what would be there if somebody did."""
    after = cluster.after(plan.accept, cluster.revision)
    made = [c.noun for c in plan.accept if isinstance(c, Put) and isinstance(c.noun, Instance)]
    return schemas.PlanOut(
        title=plan.title,
        instances=[instance_out(after, i, monitor).model_copy(update={"status": "planned"}) for i in made],
        steps=steps_out(plan, cluster),
        notes=list(plan.notes),
    )


def steps_out(plan: Plan, cluster: Cluster, operation: Operation | None = None) -> list[schemas.StepOut]:
    names = Names(cluster, plan)
    return [
        schemas.StepOut(
            number=number,
            state=_step_state(number, operation),
            words=step_words(step, names),
            undo=undo_words(step.undo, names),
        )
        for number, step in enumerate(plan.steps)
    ]


def _step_state(number: int, operation: Operation | None) -> str:
    if operation is None:
        return "planned"
    if number < operation.done:
        return "done"
    if operation.state is OperationState.UNDOING:
        return "undone"
    if operation.state.ended:
        return "failed" if operation.state is not OperationState.SUCCEEDED else "done"
    return "running" if number == operation.done else "planned"


def operation_out(operation: Operation, fraction: float = 0.0, doing: str = "") -> schemas.OperationOut:
    """`fraction` is of the step that runs now."""
    whole = max(1, operation.steps)
    ended_well = operation.state is OperationState.SUCCEEDED
    return schemas.OperationOut(
        id=operation.id,
        verb=operation.verb.value,
        title=operation.title,
        # A first long step is recorded when it ends; until then its progress tells that somebody is at it.
        state="running" if doing and operation.state is OperationState.PENDING else operation.state.value,
        principal=operation.principal,
        subjects=[_word(r) for r in operation.subjects],
        created_at=operation.created_at,
        updated_at=operation.updated_at,
        steps=operation.steps,
        done=operation.done,
        progress=1.0 if ended_well else min(1.0, (operation.done + fraction) / whole),
        doing=doing,
        error=operation.error,
        hint=operation.hint,
        cancel_wanted=operation.cancel_wanted,
        parent=operation.parent,
        revision=operation.revision,
    )


def _word(ref: Ref) -> str:
    return ref.id


def guest_out(status: GuestStatus) -> schemas.GuestOut:
    return schemas.GuestOut(
        hostname=status.hostname,
        kernel=status.kernel,
        uptime_s=status.uptime_s,
        load=list(status.load) if status.load else None,
        memory_total_kib=status.memory_total_kib,
        memory_available_kib=status.memory_available_kib,
        root_total_bytes=status.root_total_bytes,
        root_used_bytes=status.root_used_bytes,
        addresses=[a for n in status.nics for a in n.addresses],
        cloud_init=status.cloud_init.value,
    )
