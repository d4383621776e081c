"""A small world for the store's tests: one host, one network, and plans as planners make them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from innkeeper.model.actions import (
    ConvergeNetwork,
    CreateDisk,
    DeleteDisk,
    ForgetMachine,
    SeedCard,
    StartMachine,
    StopMachine,
    WriteSeed,
)
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Channels, Disk, Firmware, Hardware, NetworkCard, RandomSource, RootPort, SeedDisk
from innkeeper.model.host import Host, HostFacts, Project
from innkeeper.model.ids import (
    HostId,
    InstanceId,
    Kind,
    NetworkId,
    NicId,
    OperationId,
    ProjectId,
    Ref,
    SecretRef,
    TemplateId,
    VolumeId,
)
from innkeeper.model.instance import FirstBoot, Instance, Size, Volume, Wanted
from innkeeper.model.network import Network, Nic
from innkeeper.model.observed import MachineState, Phase
from innkeeper.model.plans import Drop, Expect, Plan, Put, Step, Verb
from innkeeper.model.template import Origin, Template
from innkeeper.model.work import Moment, Operation, OperationState, Record, Several, Stale, Submission, Work
from innkeeper.store.store import Store, open_store
from innkeeper.store.work.prune import KEEP, Keep
from innkeeper.store.writer import OnCommit

PROJECT, HOST, NETWORK, TEMPLATE = ProjectId("p-1"), HostId("h-1"), NetworkId("net-1"), TemplateId("t-1")
SIZE = Size(vcpus=1, memory_mib=256, disk_gib=2)
FACTS = HostFacts(
    vcpus=64,
    memory_mib=1 << 20,
    disk_gib=1 << 14,
    accelerator="tcg",
    accelerator_reason="there is no /dev/kvm",
    qemu_version="7.2",
    machine_type="pc-q35-7.2",
    cpu_model="max",
    kernel="6.1",
    boot_id="b-1",
)
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZ1bGwgc2l6ZSBrZXkgZm9yIHRoZSBiZW5jaG1hcms me@here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What tells one launch from another; whatever is not given follows from the number."""

    number: int
    name: str = ""
    address: str = ""
    mac: str = ""
    slot: int | None = None
    size: Size = SIZE
    user_data: SecretRef | None = None

    @property
    def called(self) -> str:
        return self.name or f"web{self.number}"

    @property
    def instance(self) -> InstanceId:
        return InstanceId(f"i-{self.number:012x}")

    @property
    def nic(self) -> Nic:
        number = self.number
        return Nic(
            id=NicId(f"nic-{number:012x}"),
            project=PROJECT,
            name=f"{self.instance}/eth0",
            instance=self.instance,
            network=NETWORK,
            mac=self.mac or f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
            addresses=(self.address or f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",),
        )

    @property
    def volume(self) -> Volume:
        return Volume(
            id=VolumeId(f"vol-{self.number:012x}"),
            project=PROJECT,
            name=f"{self.instance}/root",
            host=HOST,
            instance=self.instance,
            template=TEMPLATE,
            size_gib=self.size.disk_gib,
        )

    def row(self) -> Instance:
        return Instance(
            id=self.instance,
            project=PROJECT,
            name=self.called,
            host=HOST,
            template=TEMPLATE,
            size=self.size,
            hardware=self._hardware(),
            uid_slot=self.number if self.slot is None else self.slot,
            wanted=Wanted.RUNNING,
            created_at=1000.0,
            first_boot=FirstBoot(user_data=self.user_data, ssh_keys=(_KEY,)),
        )

    def _hardware(self) -> Hardware:
        return Hardware(
            machine=FACTS.machine_type,
            cpu_model=FACTS.cpu_model,
            firmware=Firmware.DIRECT,
            vcpus=self.size.vcpus,
            memory_mib=self.size.memory_mib,
            devices=(
                Channels(slot=1),
                RandomSource(slot=2),
                Disk(slot=3, volume=self.volume.id),
                SeedDisk(slot=4),
                NetworkCard(slot=5, nic=self.nic.id, network=NETWORK, mac=self.nic.mac),
                *(RootPort(slot=16 + n, chassis=n + 1) for n in range(4)),
            ),
        )


def set_up(facts: HostFacts | None = FACTS) -> Plan:
    host = Host(id=HOST, name="here", facts=facts, cpu_overcommit=4.0, memory_reserved_mib=0)
    network = Network(id=NETWORK, project=PROJECT, name="default", cidr="10.0.0.0/8", gateway="10.0.0.0", domain="inn")
    template = Template(
        id=TEMPLATE, project=None, name="tiny", version=1, origin=Origin.BUILT, created_at=1.0, default_size=SIZE
    )
    rows = (Project(id=PROJECT, name="default"), host, network, template)
    return Plan(
        verb=Verb.SET_UP,
        title="set up",
        subjects=tuple(row.ref for row in rows),
        expects=tuple(Expect(ref=row.ref, generation=None) for row in rows),
        claims=tuple(row.ref for row in rows),
        accept=tuple(Put(noun=row) for row in rows),
    )


def launch(machine: Machine) -> Plan:
    instance, volume, nic = machine.row(), machine.volume, machine.nic
    return Plan(
        verb=Verb.LAUNCH,
        title=f"launch {instance.name} from tiny:1",
        subjects=(instance.ref,),
        expects=(Expect(ref=Ref(Kind.TEMPLATE, TEMPLATE), generation=1), Expect(ref=instance.ref, generation=None)),
        claims=(instance.ref, volume.ref, nic.ref),
        accept=(Put(noun=instance), Put(noun=volume), Put(noun=nic)),
        steps=_steps(instance, volume, nic),
        retreat=(Put(noun=replace(instance, wanted=Wanted.ABSENT, generation=2)),),
        abandon=(Drop(ref=nic.ref), Drop(ref=volume.ref), Drop(ref=instance.ref)),
    )


def _steps(instance: Instance, volume: Volume, nic: Nic) -> tuple[Step, ...]:
    card = SeedCard(mac=nic.mac, addresses=(f"{nic.addresses[0]}/8",), gateway="10.0.0.0", dns=("10.0.0.0",), mtu=1500)
    seed = WriteSeed(
        instance=instance.id,
        hostname=instance.name,
        domain="inn",
        ssh_keys=instance.first_boot.ssh_keys,
        user_data=instance.first_boot.user_data,
        cards=(card,),
    )
    disk = CreateDisk(volume=volume.id, template=TEMPLATE, size_gib=2, uid_slot=instance.uid_slot)
    start = StartMachine(
        instance=instance.id,
        name=instance.name,
        template=TEMPLATE,
        hardware=instance.hardware,
        kernel_args="console=ttyS0 root=/dev/vda1",
        uid_slot=instance.uid_slot,
    )
    network = ConvergeNetwork(network=NETWORK)
    return (
        Step(host=HOST, about=volume.ref, generation=1, action=disk, undo=DeleteDisk(volume=volume.id)),
        Step(host=HOST, about=instance.ref, generation=1, action=seed, undo=ForgetMachine(instance=instance.id)),
        Step(host=HOST, about=nic.ref, generation=1, action=network, undo=network),
        Step(
            host=HOST,
            about=instance.ref,
            generation=1,
            action=start,
            undo=StopMachine(instance=instance.id, grace_s=0),
        ),
    )


def delete(instance: Instance, *, force: bool = False) -> Plan:
    gone = replace(instance, wanted=Wanted.ABSENT, generation=instance.generation + 1)
    number = int(instance.id.removeprefix("i-"), 16)
    others = (Machine(number=number).nic.ref, Machine(number=number).volume.ref)
    stop = StopMachine(instance=instance.id, grace_s=0)
    forget = ForgetMachine(instance=instance.id)
    return Plan(
        verb=Verb.DELETE,
        title=f"delete {instance.name}",
        subjects=(instance.ref,),
        expects=(Expect(ref=instance.ref, generation=instance.generation),),
        claims=(instance.ref, *others),
        takes_over=force,
        accept=(Put(noun=gone),),
        steps=tuple(
            Step(host=HOST, about=instance.ref, generation=gone.generation, action=action, undo=stop)
            for action in (stop, forget)
        ),
        finish=(*(Drop(ref=ref) for ref in others), Drop(ref=instance.ref)),
    )


def rename(instance: Instance, name: str) -> Plan:
    return Plan(
        verb=Verb.RENAME,
        title=f"rename {instance.name} to {name}",
        subjects=(instance.ref,),
        expects=(Expect(ref=instance.ref, generation=instance.generation),),
        claims=(instance.ref,),
        accept=(Put(noun=replace(instance, name=name, generation=instance.generation + 1)),),
    )


def submission(plan: Plan | Several, operation: str, *, key: str | None = None, principal: str = "root") -> Submission:
    return Submission(
        operation=OperationId(operation),
        project=PROJECT,
        principal=principal,
        at=1000.0,
        plan=plan,
        key=key,
    )


def several(*machines: Machine, refused: tuple[str, ...] = ()) -> Several:
    """Launches as `op-1`, `op-2` … by the machines' numbers."""
    parts = tuple((OperationId(f"op-{machine.number}"), launch(machine)) for machine in machines)
    return Several(verb=Verb.LAUNCH, title="launch some", parts=parts, refused=refused)


def seen(machine: Machine, seq: int, phase: Phase = Phase.RUNNING) -> MachineState:
    return MachineState(instance=machine.instance, host=HOST, seq=seq, phase=phase, since=1000.0)


# --- doing


@asynccontextmanager
async def opened(folder: Path, *, on_commit: OnCommit | None = None, keep: Keep = KEEP) -> AsyncIterator[Store]:
    store = await open_store(folder / "innkeeper.db", folder / "key", keep=keep, on_commit=on_commit)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def furnished(
    folder: Path, *, facts: HostFacts | None = FACTS, keep: Keep = KEEP, on_commit: OnCommit | None = None
) -> AsyncIterator[Store]:
    """A new store in which project, host, network and template stand."""
    async with opened(folder, keep=keep, on_commit=on_commit) as store:
        await accepted(store, set_up(facts), "op-setup")
        await finish(store, (await store.works.take(1))[0])
        yield store


async def submitted(store: Store, plan: Plan, operation: str, **more: str | None) -> Operation | Stale:
    (answer,) = await store.works.submit([submission(plan, operation, key=more.get("key"))])
    return answer


async def accepted(store: Store, plan: Plan, operation: str) -> Operation:
    answer = await submitted(store, plan, operation)
    assert isinstance(answer, Operation), answer
    return answer


async def refused(store: Store, plan: Plan, operation: str) -> Stale:
    answer = await submitted(store, plan, operation)
    assert isinstance(answer, Stale), answer
    return answer


def noted(operation: OperationId, moment: Moment, state: OperationState, done: int, error: str = "") -> Record:
    return Record(operation=operation, moment=moment, state=state, done=done, at=1001.0, error=error)


async def finish(store: Store, work: Work) -> bool:
    """Forward from where it stands, to its end."""
    id, steps = work.operation.id, len(work.plan.steps)
    for done in range(work.operation.done + 1, steps + 1):
        if not await store.works.record(noted(id, Moment.STEP_DONE, OperationState.RUNNING, done)):
            return False
    return await store.works.record(noted(id, Moment.ENDED, OperationState.SUCCEEDED, steps))


async def undo(store: Store, work: Work, state: OperationState = OperationState.FAILED) -> bool:
    """Backward from where it stands, to its end."""
    id, error = work.operation.id, "no luck"
    if work.operation.state is not OperationState.UNDOING:
        begun = noted(id, Moment.UNDO_BEGUN, OperationState.UNDOING, work.operation.done, error)
        if not await store.works.record(begun):
            return False
    for done in reversed(range(work.operation.done)):
        await store.works.record(noted(id, Moment.STEP_UNDONE, OperationState.UNDOING, done, error))
    return await store.works.record(noted(id, Moment.ENDED, state, 0, error))


def plain(cluster: Cluster) -> Cluster:
    """Without the revision, which counts how a state was reached, not what it is."""
    return replace(cluster, revision=0)
