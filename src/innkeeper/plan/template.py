"""Templates: building, importing, publishing, deleting. A version is never changed, only followed by a newer one."""

from __future__ import annotations

from dataclasses import replace

from innkeeper.model.actions import Action, BuildTemplate, DeleteTemplate, ImportTemplate, PublishTemplate
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import Draw, HostId, InstanceId, Kind, ProjectId, TemplateId
from innkeeper.model.instance import Instance, Size
from innkeeper.model.plans import Drop, Expect, NoUndo, Plan, Put, Refusal, Step, Verb, Why
from innkeeper.model.template import Origin, Template
from innkeeper.plan.names import bad_name, name_claim, template_versions
from innkeeper.plan.power import gone, is_up
from innkeeper.plan.warm.making import drop

# What a launch without wishes gets. Debian runs well in 512 MiB; a bare kernel with busybox in 128.
CATALOGUE: dict[str, Size] = {
    "debian-12": Size(vcpus=1, memory_mib=512, disk_gib=8),
    "tiny": Size(vcpus=1, memory_mib=128, disk_gib=1),
}
_IMPORT_SIZE = Size(vcpus=1, memory_mib=1024, disk_gib=10)
FORMATS = ("qcow2", "raw")


def build(cluster: Cluster, recipe: str, draw: Draw, now: float) -> Plan | Refusal:
    """The next version of a catalogue entry, for everybody."""
    size = CATALOGUE.get(recipe)
    if size is None:
        known = ", ".join(sorted(CATALOGUE))
        return Refusal(why=Why.NOT_FOUND, reason=f"the catalogue has no {recipe}", hint=f"It has: {known}")
    host = _any_host(cluster)
    if isinstance(host, Refusal):
        return host
    template = _next(cluster, None, recipe, size, (draw, now, Origin.BUILT))
    return _plan(Verb.BUILD, template, host, BuildTemplate(template=template.id, recipe=recipe))


def import_file(
    cluster: Cluster, project: ProjectId, name: str, source: tuple[str, str, Firmware], draw: Draw, now: float
) -> Plan | Refusal:
    """`source` is path on the host, stated format, and the firmware that boots it."""
    path, fmt, firmware = source
    refusal = bad_name(name, Kind.TEMPLATE) or _everybodys(cluster, name)
    if refusal is not None:
        return refusal
    if fmt not in FORMATS:
        # Never guessed: an image in disguise could name files of the host as its own.
        hint = f"Say which it is: {', '.join(FORMATS)}"
        return Refusal(why=Why.INVALID, reason=f"{fmt!r} is no format that can be imported", hint=hint)
    if not path.startswith("/"):
        return Refusal(
            why=Why.INVALID, reason=f"{path} is not an absolute path", hint="The file is opened by the daemon"
        )
    host = _any_host(cluster)
    if isinstance(host, Refusal):
        return host
    template = _next(cluster, project, name, _IMPORT_SIZE, (draw, now, Origin.IMPORTED))
    return _plan(
        Verb.IMPORT, template, host, ImportTemplate(template=template.id, path=path, format=fmt, firmware=firmware)
    )


def publish(cluster: Cluster, instance: Instance, name: str, draw: Draw, now: float) -> Plan | Refusal:
    """The root disk of a stopped instance, which is held meanwhile."""
    refusal = bad_name(name, Kind.TEMPLATE) or _everybodys(cluster, name) or gone(instance)
    if refusal is not None:
        return refusal
    if is_up(cluster, instance):
        hint = f"Stop it first, so that its disk is whole: inn stop {instance.name}"
        return Refusal(why=Why.CONFLICT, reason=f"{instance.name} is running", hint=hint)
    volume = cluster.volumes[instance.hardware.disks()[0].volume]
    template = _next(cluster, instance.project, name, instance.size, (draw, now, Origin.PUBLISHED))
    action = PublishTemplate(
        template=template.id,
        instance=instance.id,
        volume=volume.id,
        parent=instance.template,
        below=cluster.below(volume.id),
    )
    plan = _plan(Verb.PUBLISH, template, instance.host, action)
    return replace(
        plan,
        title=f"publish {instance.name} as {template.full_name}",
        subjects=(template.ref, instance.ref),
        expects=(*plan.expects, Expect(ref=instance.ref, generation=instance.generation)),
        claims=(*plan.claims, instance.ref, volume.ref),
    )


def delete_template(cluster: Cluster, template: Template) -> Plan | Refusal:
    """Hidden from launches with its acceptance, dropped when its artefacts and memory images are gone.

    A launch that was accepted between this look and the acceptance is not seen here. Then the host refuses, for a disk
    lies over the template, and the template is shown again; or it comes first, and the launch is undone.
    """
    users = [cluster.instances[InstanceId(i)].name for i in cluster.users_of.get(template.id, ())]
    if users:
        shown = ", ".join(sorted(users)[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
        hint = "Their disks are layers over it: delete them first, or keep it"
        return Refusal(why=Why.CONFLICT, reason=f"template {template.full_name} is used by {shown}", hint=hint)
    host = _any_host(cluster)
    if isinstance(host, Refusal):
        return host
    hidden = replace(template, image=None, generation=template.generation + 1)
    cooling = drop(cluster, tuple(cluster.memories[m] for m in sorted(cluster.memories_of.get(template.id, ()))))
    delete = DeleteTemplate(template=template.id)
    order = Step(host=host, about=template.ref, generation=hidden.generation, action=delete, undo=NoUndo.NO_WAY_BACK)
    return Plan(
        verb=Verb.DELETE_TEMPLATE,
        title=f"delete template {template.full_name}",
        subjects=(template.ref,),
        expects=(Expect(ref=template.ref, generation=template.generation), *cooling.expects),
        claims=(template.ref, *cooling.claims),
        accept=(Put(noun=hidden), *cooling.accept),
        steps=(*cooling.steps, order),
        abandon=(Put(noun=replace(template, generation=hidden.generation + 1)), *cooling.abandon),
        finish=(*cooling.finish, Drop(ref=template.ref)),
    )


def _everybodys(cluster: Cluster, name: str) -> Refusal | None:
    """A project's own template of a name that everybody has, or may have tomorrow, would hide that one."""
    if name in CATALOGUE:
        whose = "is an entry of the catalogue, and its templates are built for everybody"
    elif template_versions(cluster, None, name):
        whose = "is the name of a template that everybody has"
    else:
        return None
    return Refusal(why=Why.CONFLICT, reason=f"{name} {whose}", hint=f"Choose another name, such as my-{name}")


def _any_host(cluster: Cluster) -> HostId | Refusal:
    """Templates live on the host where they were made; with one host there is no choice."""
    ready = sorted(h.id for h in cluster.hosts.values() if h.facts is not None)
    if ready:
        return ready[0]
    return Refusal(why=Why.UNAVAILABLE, reason="no host has reported yet", hint="See: inn host list")


def _next(
    cluster: Cluster, project: ProjectId | None, name: str, size: Size, made: tuple[Draw, float, Origin]
) -> Template:
    draw, now, origin = made
    versions = template_versions(cluster, project, name)
    return Template(
        id=TemplateId(draw.id("t")),
        project=project,
        name=name,
        version=versions[-1].version + 1 if versions else 1,
        origin=origin,
        created_at=now,
        default_size=size,
    )


def _plan(verb: Verb, template: Template, host: HostId, action: Action) -> Plan:
    step = Step(host=host, about=template.ref, generation=1, action=action, undo=DeleteTemplate(template=template.id))
    by_name = name_claim(Kind.TEMPLATE, template.project, template.name)  # versions are counted one at a time
    return Plan(
        verb=verb,
        title=f"{verb.value} template {template.full_name}",
        subjects=(template.ref,),
        expects=(Expect(ref=template.ref, generation=None),),
        claims=(template.ref, by_name),
        accept=(Put(noun=template),),
        steps=(step,),
        abandon=(Drop(ref=template.ref),),
    )
