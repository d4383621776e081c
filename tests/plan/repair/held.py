"""What a host holds, and what plans do to it: a model as small as repair needs, which refuses what a host would."""

from __future__ import annotations

from collections.abc import Iterable

from innkeeper.model.actions import (
    Action,
    ApplyNetwork,
    ConvergeNetwork,
    CreateDisk,
    DeleteDisk,
    DeleteTemplate,
    ForgetMachine,
    StartMachine,
    StopMachine,
    WriteSeed,
)
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Hardware
from innkeeper.model.ids import InstanceId, NetworkId, TemplateId, VolumeId
from innkeeper.model.observed import Ended, Inventory, MachineState, Phase
from innkeeper.model.plans import Plan
from tests.plan.clusters import DOWN, H1, NOW, TINY, accepted


class Held:
    def __init__(self, networks: Iterable[NetworkId] = ()) -> None:
        self.machines: dict[InstanceId, MachineState] = {}
        self.hardware: dict[InstanceId, Hardware] = {}
        self.disks: dict[VolumeId, TemplateId] = {}
        self.seeds: set[InstanceId] = set()
        self.templates: set[TemplateId] = {TINY}
        self.networks = set(networks)
        self.seq = 0

    def up(self) -> set[InstanceId]:
        return {i for i, m in self.machines.items() if m.phase not in DOWN}

    def turns(self, instance: InstanceId, phase: Phase, ended: Ended = Ended.NO) -> MachineState:
        """A machine is now so; its report."""
        self.seq += 1
        state = MachineState(instance=instance, host=H1, seq=self.seq, phase=phase, since=NOW, ended=ended)
        self.machines[instance] = state
        return state

    def inventory(self) -> Inventory:
        return Inventory(
            host=H1,
            boot_id="b",
            machines=tuple(self.machines.values()),
            disks=tuple(self.disks),
            seeds=tuple(self.seeds),
            templates=tuple(self.templates),
            networks=tuple(self.networks),
        )

    def obey(self, action: Action) -> MachineState | None:
        """The effect. A wrong order fails the test, as the host would refuse it."""
        match action:
            case CreateDisk(volume=volume, template=template):
                assert template in self.templates
                self.disks[volume] = template
            case WriteSeed(instance=instance):
                self.seeds.add(instance)
            case ConvergeNetwork(network=network):
                self.networks.add(network)
            case StartMachine(instance=instance):
                return self._start(action)
            case StopMachine(instance=instance):
                if instance in self.up():
                    return self.turns(instance, Phase.STOPPED, Ended.ASKED)
            case _:
                self._remove(action)
        return None

    def _start(self, action: StartMachine) -> MachineState:
        assert action.instance in self.seeds
        assert all(d.volume in self.disks for d in action.hardware.disks())
        assert all(c.network in self.networks for c in action.hardware.cards())
        self.hardware[action.instance] = action.hardware
        return self.turns(action.instance, Phase.STARTING)

    def _remove(self, action: Action) -> None:
        running = [self.hardware[i] for i in self.up() if i in self.hardware]
        match action:
            case ForgetMachine(instance=instance):
                assert instance not in self.up()
                self.machines.pop(instance, None)
                self.seeds.discard(instance)
            case DeleteDisk(volume=volume):
                assert not any(d.volume == volume for h in running for d in h.disks())
                self.disks.pop(volume, None)
            case ApplyNetwork(absent=True):
                assert not any(c.network == action.wanted.network.id for h in running for c in h.cards())
                self.networks.discard(action.wanted.network.id)
            case DeleteTemplate(template=template):
                assert template not in self.disks.values()
                self.templates.discard(template)
            case _:
                raise AssertionError(f"repair has no use for {action}")


def carried_out(cluster: Cluster, plan: Plan, held: Held) -> Cluster:
    cluster = accepted(cluster, plan)
    for step in plan.steps:
        state = held.obey(step.action)
        if state is not None:
            cluster = cluster.seen(state)
    return cluster.after(plan.finish, cluster.revision + 1)
