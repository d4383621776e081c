"""The words for what is done to hosts, and the conversation that they make."""

from __future__ import annotations

from dataclasses import replace

import pytest

from innkeeper.model.actions import (
    Action,
    ApplyNetwork,
    BakeMemory,
    BuildTemplate,
    ConvergeNetwork,
    CreateDisk,
    DeleteDisk,
    DeleteMemory,
    DeleteTemplate,
    ForgetMachine,
    ImportTemplate,
    PauseMachine,
    PublishTemplate,
    ResumeMachine,
    StopMachine,
    TakeSnapshot,
    Warm,
)
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import InstanceId, Kind, MemoryImageId, OperationId, Ref, SnapshotId, TemplateId, VolumeId
from innkeeper.model.instance import Taken
from innkeeper.model.network import NetworkWanted
from innkeeper.model.observed import (
    Ended,
    HostState,
    MachineState,
    MemoryState,
    Phase,
    Report,
    Sample,
    SnapshotState,
    StepProgress,
    TemplateState,
)
from innkeeper.model.plans import Drop, NoUndo, Plan, Put, Step, Verb
from innkeeper.model.template import Baked
from innkeeper.model.work import Order
from innkeeper.plan.words import Names, report_words, step_words, undo_words, words
from innkeeper.sim.clock import simulate
from innkeeper.sim.faults import Fault, Faults
from innkeeper.sim.host import SimHost
from innkeeper.sim.metal.pool import tiny_image
from innkeeper.sim.state import sim_facts
from innkeeper.sim.transcript import Transcript
from tests.simulation.cast import HOST, NETWORK, Cast, network, order, small_state

CAST = Cast(1)
WEB, ROOT, NEW, SNAP = InstanceId("i-1"), VolumeId("vol-1"), TemplateId("t-new"), SnapshotId("snap-1")
MEMORY = MemoryImageId("mem-1")
WARM = Warm(memory=MEMORY, hostname="m1", domain="", machine_id="", cards=(), configure=False)
NAMES = {
    "i-1": "web",
    "vol-1": "web/root",
    "t-tiny": "tiny:1",
    "t-new": "mine:2",
    "net-1": "default",
    "h1": "berlin",
    "snap-1": "before",
}

ACTIONS: list[tuple[Action, str]] = [
    (CAST.start_action(), "start m1"),
    (StopMachine(instance=WEB, grace_s=0), "stop web by force"),
    (StopMachine(instance=WEB, grace_s=60), "stop web within 60 s"),
    (PauseMachine(instance=WEB), "pause web"),
    (ResumeMachine(instance=WEB), "resume web"),
    (ForgetMachine(instance=WEB), "forget web"),
    (CAST.disk(10).action, "create disk web/root of 10 GiB from tiny:1"),
    (
        CreateDisk(volume=ROOT, template=TemplateId("t-tiny"), size_gib=1, uid_slot=1, over=VolumeId("vol-9")),
        "create disk web/root of 1 GiB over vol-9",
    ),
    (DeleteDisk(volume=ROOT), "delete disk web/root"),
    (TakeSnapshot(instance=WEB, snapshot=SNAP, volumes=(ROOT,), chains=()), "take snapshot before of web"),
    (CAST.seed().action, "write seed of web"),
    (ConvergeNetwork(network=NETWORK.id), "converge network default"),
    (network(1, CAST).action, "converge network default to 1 port"),
    (network(1).action, "converge network default to 0 ports"),
    (
        ApplyNetwork(wanted=NetworkWanted(network=NETWORK, generation=1, ports=()), absent=True),
        "remove network default",
    ),
    (BuildTemplate(template=NEW, recipe="tiny"), "build template mine:2 by recipe tiny"),
    (
        ImportTemplate(template=NEW, path="/a.qcow2", format="qcow2", firmware=Firmware.BIOS),
        "import template mine:2 from /a.qcow2 as qcow2",
    ),
    (
        PublishTemplate(template=NEW, instance=WEB, volume=ROOT, parent=TemplateId("t-tiny")),
        "publish template mine:2 from web/root",
    ),
    (DeleteTemplate(template=NEW), "delete template mine:2"),
    (
        BakeMemory(
            memory=MEMORY,
            template=NEW,
            hardware=CAST.start_action().hardware,
            disk_gib=1,
            kernel_args=None,
            cloud_init=False,
        ),
        "boot mine:2 and keep its memory",
    ),
    (DeleteMemory(memory=MEMORY), "delete memory image mem-1"),
    (replace(CAST.start_action(), warm=WARM), "start m1 from mem-1"),
]


@pytest.mark.parametrize("action, said", ACTIONS, ids=[said for _, said in ACTIONS])
def test_every_action_has_its_words(action: Action, said: str) -> None:
    assert words(action, NAMES) == said


def test_every_kind_of_action_is_above() -> None:
    assert {type(action) for action, _ in ACTIONS} == set(Action.__args__)


def test_what_has_no_name_is_called_by_its_id() -> None:
    assert words(DeleteDisk(volume=ROOT)) == "delete disk vol-1"


def _order(undo: bool) -> Order:
    return Order(
        operation=OperationId("op-1"),
        step=0,
        undo=undo,
        host=HOST,
        about=CAST.ref,
        generation=1,
        action=PauseMachine(instance=WEB),
    )


def test_orders_steps_and_undos() -> None:
    assert words(_order(undo=False), NAMES) == "berlin: pause web"
    assert words(_order(undo=True), NAMES) == "berlin: undo: pause web"
    pause = PauseMachine(instance=WEB)
    step = Step(host=HOST, about=CAST.ref, generation=1, action=pause, undo=NoUndo.NOTHING)
    assert step_words(step, NAMES) == "berlin: pause web"
    assert undo_words(NoUndo.NOTHING) == "nothing to undo"
    assert undo_words(NoUndo.NO_WAY_BACK) == "no way back"
    assert undo_words(ResumeMachine(instance=WEB), NAMES) == "resume web"


def _machine(phase: Phase, ended: Ended = Ended.NO, reason: str = "") -> MachineState:
    return MachineState(instance=WEB, host=HOST, seq=1, phase=phase, since=0, ended=ended, reason=reason)


def _taken(*, consistent: bool) -> SnapshotState:
    return SnapshotState(snapshot=SNAP, host=HOST, seq=1, taken=Taken(stored_bytes=0, consistent=consistent))


REPORTS: list[tuple[Report, str]] = [
    (_machine(Phase.UNKNOWN), "web has not been seen"),
    (_machine(Phase.STARTING), "web is starting"),
    (_machine(Phase.RUNNING), "web is running"),
    (_machine(Phase.PAUSED), "web is paused"),
    (_machine(Phase.NO_SPACE), "web is paused, for the pool is full"),
    (_machine(Phase.STOPPED, Ended.ASKED), "web has stopped"),
    (_machine(Phase.STOPPED, Ended.ASKED, "it was deaf"), "web has stopped: it was deaf"),
    (_machine(Phase.STOPPED, Ended.GUEST, "whatever"), "web shut itself down"),
    (_machine(Phase.CRASHED, Ended.CRASH, "signal 9"), "web crashed: signal 9"),
    (TemplateState(template=NEW, host=HOST, seq=1, image=tiny_image()), "template mine:2 is ready"),
    (
        MemoryState(memory=MEMORY, host=HOST, seq=1, baked=Baked(digest="", stored_bytes=0)),
        "memory image mem-1 is ready",
    ),
    (_taken(consistent=True), "snapshot before is taken"),
    (_taken(consistent=False), "snapshot before is taken, as after a loss of power"),
    (HostState(host=HOST, seq=1, facts=sim_facts(4, 8192, 20)), "has 4 vCPUs, 8192 MiB, 0 of 20 GiB free"),
    (StepProgress(operation=OperationId("op-1"), step=0, fraction=0.25, words="unpacking"), "unpacking (25%)"),
    (
        Sample(
            instance=WEB,
            at=0,
            cpu_s=1.25,
            memory_mib=1,
            disk_read_bytes=0,
            disk_written_bytes=0,
            net_received_bytes=0,
            net_sent_bytes=0,
        ),
        "web used 1.2 s of CPU",
    ),
]


@pytest.mark.parametrize("report, said", REPORTS, ids=[said for _, said in REPORTS])
def test_every_report_has_its_words(report: Report, said: str) -> None:
    assert report_words(report, NAMES) == said


def test_names_come_from_the_plan_and_the_cluster() -> None:
    cluster = Cluster().after((Put(noun=NETWORK),), 1)
    new = Ref(Kind.INSTANCE, "i-9")
    gone = Plan(verb=Verb.DELETE, title="", subjects=(new,), accept=(Drop(ref=new),))
    made = Plan(verb=Verb.LAUNCH, title="", subjects=(new,), accept=(Put(noun=NETWORK),))
    for names in (Names(cluster), Names(cluster, gone), Names(Cluster(), made), Names(cluster, made)):
        assert dict(names) == {"net-1": "default"}
        assert len(names) == 1
        assert names.get("i-9") is None
        with pytest.raises(KeyError):
            names["i-9"]


def test_a_conversation() -> None:
    async def scenario() -> Transcript:
        state, cast, transcript = small_state(), Cast(1), Transcript()
        host = SimHost(state, Faults(orders={6: Fault.REFUSE, 7: Fault.LOSE_ANSWER}), witness=transcript)
        transcript.say("launch m1")
        for each in cast.parts():
            await host.give(each)
        await host.give(each)  # the same order again: nothing more is said
        await state.clock.sleep(5)
        await host.inventory()
        pause = order(PauseMachine(instance=cast.instance), cast.ref)
        transcript.say("pause m1")
        await host.give(pause)
        with pytest.raises(Exception, match="line went down"):
            await host.give(pause)
        transcript.say("somebody kills m1")
        state.crash("m1")
        return transcript

    assert simulate(scenario()).text().splitlines() == [
        "h1: template t-tiny is ready",
        "> launch m1",
        "h1: create disk vol-1 of 10 GiB from t-tiny",
        "h1: write seed of i-1",
        "h1: converge network net-1 to 1 port",
        "h1: start m1",
        "h1: i-1 is starting",
        "h1: i-1 is running",
        "> pause m1",
        "h1: pause i-1",
        "h1: refuses: h1 refuses this",
        "h1: pause i-1",
        "h1: i-1 is paused",
        "h1: no answer: the line went down before the answer came",
        "> somebody kills m1",
        "h1: i-1 crashed: QEMU was killed by signal 9",
    ]
