"""One value of every kind that is stored or sent, with all its fields filled: what the codec's golden rows say."""

from __future__ import annotations

from typing import Any

from innkeeper.model import actions as a
from innkeeper.model.hardware import (
    Channels,
    Device,
    Disk,
    Firmware,
    Hardware,
    NetworkCard,
    RandomSource,
    RootPort,
    SeedDisk,
)
from innkeeper.model.host import Host, HostFacts, Project
from innkeeper.model.ids import (
    HostId,
    InstanceId,
    Kind,
    MemoryImageId,
    NetworkId,
    NicId,
    OperationId,
    ProjectId,
    Ref,
    SecretId,
    SecretRef,
    SnapshotId,
    TemplateId,
    VolumeId,
)
from innkeeper.model.instance import FirstBoot, Instance, Size, Snapshot, Taken, Volume, Wanted
from innkeeper.model.network import Network, NetworkWanted, Nic, Port
from innkeeper.model.observed import (
    Ended,
    HostState,
    Inventory,
    MachineState,
    MemoryState,
    Phase,
    Report,
    Sample,
    SnapshotState,
    StepProgress,
    TemplateState,
)
from innkeeper.model.plans import Drop, Expect, Noun, NoUndo, Plan, Put, Step, Verb
from innkeeper.model.template import Baked, Fits, Image, MemoryImage, Origin, Template
from innkeeper.model.work import (
    Accepted,
    Done,
    Moment,
    Operation,
    OperationState,
    Order,
    Outcome,
    Record,
    Refused,
)

INSTANCE, HOST, TEMPLATE = InstanceId("i-3f09c2d41b7a"), HostId("h-5ac01f2e9d33"), TemplateId("t-77d2b1c0a9e4")
VOLUME, NETWORK, NIC = VolumeId("vol-0b4f6a8c1d2e"), NetworkId("net-91aa03bb52cc"), NicId("nic-c0ffee15600d")
PROJECT, OPERATION, SECRET = (
    ProjectId("p-1d00d5a7b00e"),
    OperationId("op-5ca1ab1e0123"),
    SecretRef(SecretId("s-0ddba11")),
)
SNAPSHOT, BELOW = SnapshotId("snap-facade15dead"), VolumeId("vol-decade0ff1ce")
MEMORY = MemoryImageId("mem-5eed5eed5eed")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI you@there"
SIZE = Size(vcpus=2, memory_mib=1024, disk_gib=10)
LABELS = {"team": "käse", "a": ""}
DEVICES: tuple[Device, ...] = (
    Channels(slot=1, names=("org.qemu.guest_agent.0",)),
    RandomSource(slot=2),
    Disk(slot=3, volume=VOLUME, serial=BELOW),
    SeedDisk(slot=4),
    NetworkCard(slot=5, nic=NIC, network=NETWORK, mac="52:54:00:12:34:56"),
    RootPort(slot=16, chassis=1),
)
HARDWARE = Hardware(
    machine="pc-q35-7.2", cpu_model="max", firmware=Firmware.DIRECT, vcpus=2, memory_mib=1024, devices=DEVICES
)
FACTS = HostFacts(
    vcpus=8,
    memory_mib=16384,
    disk_gib=200,
    accelerator="tcg",
    accelerator_reason="/dev/kvm opens, and a tiny guest hangs under it",
    qemu_version="7.2.15",
    machine_type="pc-q35-7.2",
    cpu_model="max",
    kernel="6.1.0-30",
    boot_id="8c1f0a3e",
    disk_free_gib=120,
    problems=("dnsmasq is missing: apt install dnsmasq-base",),
)
IMAGE = Image(
    digest="sha256:00ff",
    virtual_size_bytes=2 << 30,
    stored_bytes=400 << 20,
    firmware=Firmware.UEFI,
    kernel_args="root=/dev/vda1 console=ttyS0",
    os="Debian 12",
    agent=True,
    cloud_init=True,
)
CARD = a.SeedCard(
    mac="52:54:00:12:34:56", addresses=("10.1.2.3/20",), gateway="10.1.0.1", dns=("10.1.0.1", "9.9.9.9"), mtu=1450
)
NET = Network(
    id=NETWORK,
    project=PROJECT,
    name="default",
    cidr="10.1.0.0/20",
    gateway="10.1.0.1",
    domain="inn",
    nat=False,
    mtu=1450,
    generation=3,
    labels=LABELS,
)
PORT = Port(
    nic=NIC, instance=INSTANCE, hostname="web", mac="52:54:00:12:34:56", addresses=("10.1.2.3", "fd00::3"), uid_slot=7
)

CHAIN = a.Chain(volume=VOLUME, below=(BELOW,))
WARM = a.Warm(
    memory=MEMORY,
    hostname="web",
    domain="inn",
    machine_id="5f3f2b0a2f394c1c9a521f0f1d6c2c8e",
    cards=(a.WarmCard(baked_mac="52:54:00:65:43:21", becomes=CARD),),
    configure=True,
)
BAKED = Baked(digest="00ff" * 16, stored_bytes=90 << 20)
ACTIONS: dict[str, a.Action] = {
    "start-machine": a.StartMachine(
        instance=INSTANCE,
        name="web",
        template=TEMPLATE,
        hardware=HARDWARE,
        kernel_args="quiet",
        uid_slot=7,
        chains=(CHAIN,),
        warm=WARM,
    ),
    "stop-machine": a.StopMachine(instance=INSTANCE, grace_s=60.5),
    "pause-machine": a.PauseMachine(instance=INSTANCE),
    "resume-machine": a.ResumeMachine(instance=INSTANCE),
    "forget-machine": a.ForgetMachine(instance=INSTANCE),
    "create-disk": a.CreateDisk(volume=VOLUME, template=TEMPLATE, size_gib=10, uid_slot=7, over=BELOW),
    "delete-disk": a.DeleteDisk(volume=VOLUME),
    "write-seed": a.WriteSeed(
        instance=INSTANCE, hostname="web", domain="inn", ssh_keys=(KEY,), user_data=SECRET, cards=(CARD,)
    ),
    "take-snapshot": a.TakeSnapshot(instance=INSTANCE, snapshot=SNAPSHOT, volumes=(BELOW,), chains=(CHAIN,)),
    "converge-network": a.ConvergeNetwork(network=NETWORK),
    "apply-network": a.ApplyNetwork(wanted=NetworkWanted(network=NET, generation=9, ports=(PORT,)), absent=True),
    "build-template": a.BuildTemplate(template=TEMPLATE, recipe="debian-12"),
    "import-template": a.ImportTemplate(template=TEMPLATE, path="/srv/a.qcow2", format="qcow2", firmware=Firmware.BIOS),
    "publish-template": a.PublishTemplate(
        template=TEMPLATE, instance=INSTANCE, volume=VOLUME, parent=TEMPLATE, below=(BELOW,)
    ),
    "delete-template": a.DeleteTemplate(template=TEMPLATE),
    "bake-memory": a.BakeMemory(
        memory=MEMORY, template=TEMPLATE, hardware=HARDWARE, disk_gib=10, kernel_args="quiet", cloud_init=True
    ),
    "delete-memory": a.DeleteMemory(memory=MEMORY),
}
NOUNS: dict[str, Noun] = {
    "project": Project(id=PROJECT, name="default", generation=2, labels=LABELS),
    "host": Host(
        id=HOST, name="here", facts=FACTS, cpu_overcommit=2.5, memory_reserved_mib=1024, generation=2, labels=LABELS
    ),
    "template": Template(
        id=TEMPLATE,
        project=PROJECT,
        name="debian-12",
        version=4,
        origin=Origin.PUBLISHED,
        created_at=1.7e9,
        default_size=SIZE,
        image=IMAGE,
        generation=2,
        labels=LABELS,
    ),
    "network": NET,
    "instance": Instance(
        id=INSTANCE,
        project=PROJECT,
        name="web",
        host=HOST,
        template=TEMPLATE,
        size=SIZE,
        hardware=HARDWARE,
        uid_slot=7,
        wanted=Wanted.PAUSED,
        created_at=1.7e9,
        generation=5,
        autostart=True,
        ephemeral=True,
        expires_at=1.8e9,
        first_boot=FirstBoot(user_data=SECRET, ssh_keys=(KEY,)),
        memory=MEMORY,
        cold="as it was asked for",
        warms=True,
        labels=LABELS,
    ),
    "volume": Volume(
        id=VOLUME,
        project=PROJECT,
        name="web/root",
        host=HOST,
        instance=INSTANCE,
        template=TEMPLATE,
        size_gib=10,
        generation=2,
        labels=LABELS,
        over=BELOW,
    ),
    "snapshot": Snapshot(
        id=SNAPSHOT,
        project=PROJECT,
        instance=INSTANCE,
        name="before-upgrade",
        host=HOST,
        template=TEMPLATE,
        size=SIZE,
        volumes=(BELOW,),
        created_at=1.7e9,
        taken=Taken(stored_bytes=1 << 20, consistent=True),
        generation=2,
        labels=LABELS,
    ),
    "memory-image": MemoryImage(
        id=MEMORY,
        project=PROJECT,
        template=TEMPLATE,
        host=HOST,
        size=SIZE,
        hardware=HARDWARE,
        volumes=(BELOW,),
        fits=Fits.of(FACTS),
        created_at=1.7e9,
        baked=BAKED,
        generation=2,
        labels=LABELS,
    ),
    "nic": Nic(
        id=NIC,
        project=PROJECT,
        name="web/eth0",
        instance=INSTANCE,
        network=NETWORK,
        mac="52:54:00:12:34:56",
        addresses=("10.1.2.3", "fd00::3"),
        generation=2,
        labels=LABELS,
    ),
}
MACHINE = MachineState(
    instance=INSTANCE,
    host=HOST,
    seq=12,
    phase=Phase.CRASHED,
    since=1.7e9,
    ended=Ended.CRASH,
    reason="killed by signal 9: the kernel was out of memory",
    pid=4711,
    obeyed=5,
    agent=True,
    guest_program=True,
    cloud_init="done",
    addresses=("10.1.2.3",),
    warm=True,
    cold="its memory image is damaged",
)
REPORTS: dict[str, Report] = {
    "machine-state": MACHINE,
    "template-state": TemplateState(template=TEMPLATE, host=HOST, seq=3, image=IMAGE),
    "snapshot-state": SnapshotState(
        snapshot=SNAPSHOT, host=HOST, seq=3, taken=Taken(stored_bytes=1 << 20, consistent=True)
    ),
    "memory-state": MemoryState(memory=MEMORY, host=HOST, seq=3, baked=BAKED),
    "host-state": HostState(host=HOST, seq=4, facts=FACTS),
    "step-progress": StepProgress(operation=OPERATION, step=1, fraction=0.25, words="unpacking packages"),
    "sample": Sample(
        instance=INSTANCE,
        at=1.7e9,
        cpu_s=12.5,
        memory_mib=333.25,
        disk_read_bytes=1,
        disk_written_bytes=2,
        net_received_bytes=3,
        net_sent_bytes=1 << 40,
    ),
}
OUTCOMES: dict[str, Outcome] = {
    "done": Done(states=(MACHINE, *(REPORTS[f"{of}-state"] for of in ("template", "snapshot", "memory", "host")))),  # type: ignore[arg-type]
    "accepted": Accepted(),
    "refused": Refused(reason="the pool is full", hint="Free some space", stale=True),
}
ABOUT = Ref(Kind.INSTANCE, INSTANCE)
PLAN = Plan(
    verb=Verb.LAUNCH,
    title="launch web from debian-12:4",
    subjects=(ABOUT,),
    expects=(Expect(ref=Ref(Kind.TEMPLATE, TEMPLATE), generation=2), Expect(ref=ABOUT, generation=None)),
    claims=(ABOUT, Ref(Kind.VOLUME, VOLUME)),
    takes_over=True,
    accept=tuple(Put(noun=noun) for noun in NOUNS.values()),
    steps=(
        *(Step(host=HOST, about=ABOUT, generation=5, action=x, undo=NoUndo.NOTHING) for x in ACTIONS.values()),
        Step(host=HOST, about=ABOUT, generation=5, action=ACTIONS["delete-disk"], undo=NoUndo.NO_WAY_BACK),
        Step(host=HOST, about=ABOUT, generation=5, action=ACTIONS["create-disk"], undo=ACTIONS["delete-disk"]),
    ),
    retreat=(Put(noun=NOUNS["instance"]),),
    abandon=(Drop(ref=ABOUT),),
    finish=(Drop(ref=ABOUT), Put(noun=NOUNS["volume"])),
    notes=("the template has no guest agent",),
)
ORDER = Order(
    operation=OPERATION, step=3, undo=True, host=HOST, about=ABOUT, generation=5, action=ACTIONS["start-machine"]
)
OPERATION_ROW = Operation(
    id=OPERATION,
    project=PROJECT,
    verb=Verb.DELETE_TEMPLATE,
    title="launch web from debian-12:4",
    subjects=(ABOUT,),
    principal="root",
    state=OperationState.UNDOING,
    created_at=1.7e9,
    updated_at=1.7e9 + 0.5,
    steps=4,
    done=2,
    error="the pool is full",
    hint="Free some space",
    cancel_wanted=True,
    parent=OperationId("op-0"),
    revision=99,
    asked="9f86d081884c7d65",
)
RECORD = Record(
    operation=OPERATION,
    moment=Moment.UNDO_BEGUN,
    state=OperationState.UNDOING,
    done=2,
    at=1.7e9,
    error="the pool is full",
    hint="Free some space",
    states=OUTCOMES["done"].states,  # type: ignore[union-attr]
)
INVENTORY = Inventory(
    host=HOST,
    boot_id="8c1f0a3e",
    machines=(MACHINE,),
    disks=(VOLUME,),
    seeds=(INSTANCE,),
    templates=(TEMPLATE,),
    networks=(NETWORK,),
    memories=(MEMORY,),
    leftovers=("tmp-build-12",),
)

# By the name of the golden file: the value, and the type by which its reader asks for it.
SAMPLES: dict[str, tuple[object, Any]] = {
    **{f"action-{name}": (value, a.Action) for name, value in ACTIONS.items()},
    **{f"noun-{name}": (value, Noun) for name, value in NOUNS.items()},
    **{f"report-{name}": (value, Report) for name, value in REPORTS.items()},
    **{f"outcome-{name}": (value, Outcome) for name, value in OUTCOMES.items()},
    "plan": (PLAN, Plan),
    "order": (ORDER, Order),
    "operation": (OPERATION_ROW, Operation),
    "record": (RECORD, Record),
    "inventory": (INVENTORY, Inventory),
}
