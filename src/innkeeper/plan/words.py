"""The words for what is done to hosts: one place for plans that are shown, refused orders, transcripts and tests.

Objects are called by their names where `names` (id to name) knows them, and by their ids elsewhere. A volume's name is
`web/root`; `Names` finds it in a cluster or in a plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, assert_never

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
    DiskAction,
    ForgetMachine,
    ImportTemplate,
    MachineAction,
    MemoryAction,
    NetworkAction,
    PauseMachine,
    PublishTemplate,
    ResumeMachine,
    StartMachine,
    StopMachine,
    TakeSnapshot,
    TemplateAction,
    WriteSeed,
)
from innkeeper.model.cluster import Cluster
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
from innkeeper.model.plans import Noun, NoUndo, Plan, Put, Step
from innkeeper.model.template import Template
from innkeeper.model.work import Order

NO_NAMES: Mapping[str, str] = {}


def words(said: Action | Order, names: Mapping[str, str] = NO_NAMES) -> str:
    """`start web` of an action; of an order also to whom: `h1: start web`."""
    if not isinstance(said, Order):
        return _action(said, names)
    undo = "undo: " if said.undo else ""
    return f"{_name(said.host, names)}: {undo}{_action(said.action, names)}"


def step_words(step: Step, names: Mapping[str, str] = NO_NAMES) -> str:
    """A step of a plan, as an order that was not given yet."""
    return f"{_name(step.host, names)}: {_action(step.action, names)}"


def undo_words(undo: Action | NoUndo, names: Mapping[str, str] = NO_NAMES) -> str:
    match undo:
        case NoUndo.NOTHING:
            return "nothing to undo"
        case NoUndo.NO_WAY_BACK:
            return "no way back"
        case _:
            return _action(undo, names)


def report_words(report: Report, names: Mapping[str, str] = NO_NAMES) -> str:
    """What a host says by itself, without who says it: `web crashed: QEMU was killed by signal 9`."""
    match report:
        case MachineState():
            return f"{_name(report.instance, names)} {_doing(report)}"
        case TemplateState():
            return f"template {_name(report.template, names)} is ready"
        case SnapshotState():
            how = "" if report.taken.consistent else ", as after a loss of power"
            return f"snapshot {_name(report.snapshot, names)} is taken{how}"
        case MemoryState():
            return f"memory image {_name(report.memory, names)} is ready"
        case HostState():
            facts = report.facts
            return (
                f"has {facts.vcpus} vCPUs, {facts.memory_mib} MiB, {facts.disk_free_gib} of {facts.disk_gib} GiB free"
            )
        case StepProgress():
            return f"{report.words} ({report.fraction:.0%})"
        case Sample():
            return f"{_name(report.instance, names)} used {report.cpu_s:.1f} s of CPU"
        case _:
            assert_never(report)


class Names(Mapping[str, str]):
    """Names of all that a cluster has and a plan is about to make, found when asked for: nothing is walked through."""

    def __init__(self, cluster: Cluster, plan: Plan | None = None) -> None:
        self._made = {c.noun.ref.id: _noun_name(c.noun) for c in plan.accept if isinstance(c, Put)} if plan else {}
        self._cluster = cluster

    def __getitem__(self, key: str) -> str:
        if key in self._made:
            return self._made[key]
        for table in self._tables():
            noun = table.get(key)
            if noun is not None:
                return _noun_name(noun)
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        yield from self._made
        for table in self._tables():
            yield from (key for key in table if key not in self._made)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _tables(self) -> tuple[Mapping[Any, Noun], ...]:
        have = self._cluster
        return (
            have.instances,
            have.volumes,
            have.snapshots,
            have.memories,
            have.networks,
            have.nics,
            have.templates,
            have.hosts,
            have.projects,
        )


def _noun_name(noun: Noun) -> str:
    return noun.full_name if isinstance(noun, Template) else noun.name


def _name(id_: str, names: Mapping[str, str]) -> str:
    return names.get(id_, id_)


# --- families


def _action(action: Action, names: Mapping[str, str]) -> str:
    match action:
        case StartMachine() | StopMachine() | PauseMachine() | ResumeMachine() | ForgetMachine():
            return _machine(action, names)
        case CreateDisk() | DeleteDisk() | WriteSeed() | TakeSnapshot():
            return _disk(action, names)
        case ConvergeNetwork() | ApplyNetwork():
            return _network(action, names)
        case BuildTemplate() | ImportTemplate() | PublishTemplate() | DeleteTemplate():
            return _template(action, names)
        case BakeMemory() | DeleteMemory():
            return _memory(action, names)
        case _:
            assert_never(action)


def _machine(action: MachineAction, names: Mapping[str, str]) -> str:
    name = _name(action.instance, names)
    match action:
        case StartMachine():
            return f"start {action.name}" + (f" from {action.warm.memory}" if action.warm else "")
        case StopMachine(grace_s=grace_s):
            return f"stop {name} within {grace_s:g} s" if grace_s > 0 else f"stop {name} by force"
        case PauseMachine():
            return f"pause {name}"
        case ResumeMachine():
            return f"resume {name}"
        case ForgetMachine():
            return f"forget {name}"
        case _:
            assert_never(action)


def _disk(action: DiskAction, names: Mapping[str, str]) -> str:
    match action:
        case CreateDisk(size_gib=size_gib):
            below = f"from {_name(action.template, names)}" if action.over is None else f"over {action.over}"
            return f"create disk {_name(action.volume, names)} of {size_gib} GiB {below}"
        case DeleteDisk():
            return f"delete disk {_name(action.volume, names)}"
        case WriteSeed():
            return f"write seed of {_name(action.instance, names)}"
        case TakeSnapshot():
            return f"take snapshot {_name(action.snapshot, names)} of {_name(action.instance, names)}"
        case _:
            assert_never(action)


def _network(action: NetworkAction, names: Mapping[str, str]) -> str:
    match action:
        case ConvergeNetwork():
            return f"converge network {_name(action.network, names)}"
        case ApplyNetwork(wanted=wanted, absent=absent):
            name = _name(wanted.network.id, names)
            if absent:
                return f"remove network {name}"
            ports = "1 port" if len(wanted.ports) == 1 else f"{len(wanted.ports)} ports"
            return f"converge network {name} to {ports}"
        case _:
            assert_never(action)


def _template(action: TemplateAction, names: Mapping[str, str]) -> str:
    name = _name(action.template, names)
    match action:
        case BuildTemplate():
            return f"build template {name} by recipe {action.recipe}"
        case ImportTemplate():
            return f"import template {name} from {action.path} as {action.format}"
        case PublishTemplate():
            return f"publish template {name} from {_name(action.volume, names)}"
        case DeleteTemplate():
            return f"delete template {name}"
        case _:
            assert_never(action)


def _memory(action: MemoryAction, names: Mapping[str, str]) -> str:
    match action:
        case BakeMemory():
            return f"boot {_name(action.template, names)} and keep its memory"
        case DeleteMemory():
            return f"delete memory image {_name(action.memory, names)}"
        case _:
            assert_never(action)


_PHASES = {
    Phase.UNKNOWN: "has not been seen",
    Phase.STARTING: "is starting",
    Phase.RUNNING: "is running",
    Phase.PANICKED: "has panicked",
    Phase.PAUSED: "is paused",
    Phase.NO_SPACE: "is paused, for the pool is full",
    Phase.STOPPED: "has stopped",
    Phase.CRASHED: "crashed",
}


def _doing(report: MachineState) -> str:
    if report.phase is Phase.STOPPED and report.ended is Ended.GUEST:
        return "shut itself down"
    if report.phase in (Phase.STOPPED, Phase.CRASHED) and report.reason:
        return f"{_PHASES[report.phase]}: {report.reason}"
    return _PHASES[report.phase]
