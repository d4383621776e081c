"""Small clusters for tests of planners, and what can happen to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Firmware
from innkeeper.model.host import Host, HostFacts, Project
from innkeeper.model.ids import Draw, HostId, InstanceId, Kind, NetworkId, OperationId, ProjectId, Ref, TemplateId
from innkeeper.model.instance import Instance, Size, Wanted
from innkeeper.model.network import Network
from innkeeper.model.observed import Ended, MachineState, Phase
from innkeeper.model.plans import Noun, Plan, Put, Refusal
from innkeeper.model.template import Image, Origin, Template
from innkeeper.plan.intake.origin import LaunchWish
from innkeeper.plan.launch import launch

GIB = 1024**3
NOW = 1_700_000_000.0
MINE, OTHERS = ProjectId("p-000000000001"), ProjectId("p-000000000002")
H1, H2 = HostId("h-000000000001"), HostId("h-000000000002")
TINY = TemplateId("t-000000000001")
NET = NetworkId("net-000000000001")
OP = OperationId("op-000000000001")

IMAGE = Image(
    digest="5" * 64, virtual_size_bytes=64 * 1024**2, stored_bytes=1, firmware=Firmware.DIRECT, kernel_args="quiet"
)
UP = (Phase.STARTING, Phase.RUNNING, Phase.PANICKED, Phase.PAUSED, Phase.NO_SPACE, Phase.UNKNOWN)
DOWN = (Phase.STOPPED, Phase.CRASHED)

Answer = TypeVar("Answer")


def facts(vcpus: int = 8, memory_mib: int = 16_384, disk_gib: int = 500) -> HostFacts:
    return HostFacts(
        vcpus=vcpus,
        memory_mib=memory_mib,
        disk_gib=disk_gib,
        accelerator="tcg",
        accelerator_reason="",
        qemu_version="7.2.0",
        machine_type="pc-q35-7.2",
        cpu_model="max",
        kernel="6.1.0",
        boot_id="b",
    )


def a_host(id: HostId = H1, name: str = "h1", has: HostFacts | None = None) -> Host:
    return Host(id=id, name=name, facts=has or facts(), cpu_overcommit=4.0, memory_reserved_mib=512)


def a_template(id: TemplateId = TINY, name: str = "tiny", version: int = 1, **changes: Any) -> Template:
    size = Size(vcpus=1, memory_mib=128, disk_gib=1)
    made = Template(
        id=id,
        project=None,
        name=name,
        version=version,
        origin=Origin.BUILT,
        created_at=NOW,
        default_size=size,
        image=IMAGE,
    )
    return replace(made, **changes)


def a_network(cidr: str = "10.1.0.0/24", gateway: str = "10.1.0.1", **changes: Any) -> Network:
    made = Network(id=NET, project=MINE, name="default", cidr=cidr, gateway=gateway, domain="inn.internal")
    return replace(made, **changes)


def with_rows(cluster: Cluster, *nouns: Noun) -> Cluster:
    return cluster.after((Put(noun=n) for n in nouns), cluster.revision + 1)


def a_cluster(network: Network | None = None, *hosts: Host) -> Cluster:
    """A project with its network, a template for everybody, and hosts; one of them unless told."""
    project = Project(id=MINE, name="default")
    return with_rows(Cluster(), project, network or a_network(), a_template(), *(hosts or (a_host(),)))


# --- what can happen


def draw(seed: object = 0) -> Draw:
    return Draw(str(seed).encode())


def planned(answer: Plan | Refusal | None) -> Plan:
    assert isinstance(answer, Plan), f"refused: {answer}"
    return answer


def refused(answer: object) -> Refusal:
    """A refusal that an operator can do something with."""
    assert isinstance(answer, Refusal), f"planned: {answer}"
    assert answer.reason
    assert not answer.reason.endswith(".")
    return answer


def accepted(cluster: Cluster, plan: Plan) -> Cluster:
    return cluster.after(plan.accept, cluster.revision + 1)


def done(cluster: Cluster, plan: Plan) -> Cluster:
    """As it stands when all steps were done."""
    return accepted(cluster, plan).after(plan.finish, cluster.revision + 2)


def undone(cluster: Cluster, plan: Plan) -> Cluster:
    """As it stands when all was undone."""
    after = accepted(cluster, plan).after(plan.retreat, cluster.revision + 2)
    return after.after(plan.abandon, cluster.revision + 3)


def made(plan: Plan) -> tuple[Noun, ...]:
    """The rows that its acceptance puts."""
    return tuple(c.noun for c in plan.accept if isinstance(c, Put))


def row_of(plan: Plan) -> Instance:
    """The instance as its acceptance puts it."""
    (row,) = (noun for noun in made(plan) if isinstance(noun, Instance))
    return row


def same(one: Cluster, other: Cluster) -> bool:
    """The same rows and indexes, whenever that was."""
    return replace(one, revision=0) == replace(other, revision=0)


def wish(name: str | None = "web", **more: Any) -> LaunchWish:
    return LaunchWish(template="tiny", name=name, **more)


def launched(cluster: Cluster, name: str = "web", **more: Any) -> tuple[Cluster, Instance]:
    """One instance more, whose launch has ended."""
    plan = planned(launch(cluster, MINE, wish(name, **more), draw(name), NOW))
    after = done(cluster, plan)
    return after, after.instances[InstanceId(plan.subjects[0].id)]


def seen(cluster: Cluster, instance: Instance, phase: Phase, ended: Ended = Ended.NO) -> Cluster:
    known = cluster.machines.get(instance.id)
    state = MachineState(
        instance=instance.id,
        host=instance.host,
        seq=1 if known is None else known.seq + 1,
        phase=phase,
        since=NOW,
        ended=ended,
    )
    return cluster.seen(state)


def standing(phase: Phase | None = Phase.RUNNING, **changes: Any) -> tuple[Cluster, Instance]:
    """A cluster with the instance web, last seen in this phase; None: never seen."""
    cluster, instance = launched(a_cluster())
    instance = replace(instance, **changes)
    cluster = with_rows(cluster, instance)
    return (cluster if phase is None else seen(cluster, instance, phase)), instance


def leaving(**changes: Any) -> tuple[Cluster, Instance]:
    """An instance whose deletion has begun."""
    return standing(Phase.RUNNING, wanted=Wanted.ABSENT, **changes)


def claimed(cluster: Cluster, refs: Iterable[Ref]) -> Cluster:
    return cluster.claimed(refs, OP)


def template_ref(id: TemplateId = TINY) -> Ref:
    return Ref(Kind.TEMPLATE, id)
