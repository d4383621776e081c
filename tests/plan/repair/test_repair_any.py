"""What holds for repair of any cluster and any host."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from innkeeper.model.actions import DeleteDisk, DeleteTemplate, ForgetMachine
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Disk, NetworkCard
from innkeeper.model.ids import InstanceId, NetworkId, NicId, Ref, TemplateId, VolumeId
from innkeeper.model.instance import Instance, Wanted
from innkeeper.model.observed import Ended, Phase
from innkeeper.plan.launch import launch
from innkeeper.plan.repair import repair
from tests.plan.clusters import DOWN, MINE, NOW, a_cluster, claimed, draw, launched, planned, row_of, wish, with_rows
from tests.plan.repair.held import Held, carried_out

ROUNDS = 3  # machines, then disks and networks, then templates

ENDS = st.sampled_from(
    [
        (Phase.RUNNING, Ended.NO),
        (Phase.PAUSED, Ended.NO),
        (Phase.NO_SPACE, Ended.NO),
        (Phase.UNKNOWN, Ended.NO),
        (Phase.STOPPED, Ended.ASKED),
        (Phase.STOPPED, Ended.GUEST),
        (Phase.STOPPED, Ended.HOST_BOOT),
        (Phase.CRASHED, Ended.CRASH),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What became of one instance since its launch."""

    wanted: Wanted
    autostart: bool
    now: tuple[Phase, Ended]
    told: bool  # the picture knows it
    forgotten: bool  # the host knows nothing of its machine
    held: bool  # an operation holds it


fates = st.builds(
    Fate,
    wanted=st.sampled_from(Wanted),
    autostart=st.booleans(),
    now=ENDS,
    told=st.booleans(),
    forgotten=st.booleans(),
    held=st.booleans(),
)
strangers = st.sets(st.sampled_from(["machine", "machine that runs", "seed", "disk", "network", "template"]))


def put_strangers(held: Held, kinds: set[str]) -> None:
    """Of an installation whose store was lost: a machine on its disk, over its template, in its network."""
    template, disk, network = TemplateId("t-x"), VolumeId("vol-x"), NetworkId("net-x")
    if "template" in kinds:
        held.templates.add(template)
    if "disk" in kinds:
        held.disks[disk] = template
    if "network" in kinds:
        held.networks.add(network)
    if "seed" in kinds:
        held.seeds |= {InstanceId("i-x"), InstanceId("i-y")}
    if "machine" in kinds:
        held.turns(InstanceId("i-y"), Phase.STOPPED, Ended.GUEST)
    if "machine that runs" in kinds:
        devices = (
            Disk(slot=1, volume=disk),
            NetworkCard(slot=2, nic=NicId("nic-x"), network=network, mac="52:54:00:00:00:00"),
        )
        _, any_machine = launched(a_cluster())
        held.hardware[InstanceId("i-x")] = replace(any_machine.hardware, devices=devices)
        held.turns(InstanceId("i-x"), Phase.RUNNING)


def befall(cluster: Cluster, held: Held, instance: Instance, fate: Fate) -> Cluster:
    cluster = with_rows(cluster, replace(instance, wanted=fate.wanted, autostart=fate.autostart))
    state = held.turns(instance.id, *fate.now)
    if fate.told:
        cluster = cluster.seen(state)
    if fate.forgotten:
        del held.machines[instance.id]
    return claimed(cluster, [instance.ref]) if fate.held else cluster


def a_world(each: list[Fate], kinds: set[str], booted: bool) -> tuple[Cluster, Held]:
    cluster, held = a_cluster(), Held()
    for number, fate in enumerate(each):
        plan = planned(launch(cluster, MINE, wish(f"i{number}"), draw(number), NOW))
        cluster = carried_out(cluster, plan, held)
        cluster = befall(cluster, held, cluster.instances[row_of(plan).id], fate)
    if booted and not held.up():
        held.networks.clear()
    put_strangers(held, kinds)
    return cluster, held


def one_round(cluster: Cluster, held: Held) -> Cluster:
    plans = repair(cluster, held.inventory(), cluster)
    claims = [ref for plan in plans for ref in plan.claims]
    assert len(set(claims)) == len(claims)
    for plan in plans:
        assert not plan.takes_over
        assert all(cluster.generation(e.ref) == e.generation for e in plan.expects)
        cluster = carried_out(cluster, plan, held)
    return cluster


def agrees(cluster: Cluster, held: Held, claims: set[Ref]) -> None:
    """Every row is as its host has it, and the host has nothing else."""
    for instance in cluster.instances.values():
        if instance.ref not in claims:
            runs = instance.id in held.up()
            assert instance.wanted is not Wanted.ABSENT
            # Whether a crash was one is settled later, by the watch.
            seen = (cluster.machines.get(instance.id), held.machines.get(instance.id))
            crashed = any(state is not None and state.ended is Ended.CRASH for state in seen)
            assert runs is (instance.wanted is not Wanted.STOPPED) or (crashed and not runs)
    assert set(held.machines) | held.seeds <= set(cluster.instances)
    assert set(held.disks) == set(cluster.volumes)
    assert held.templates == set(cluster.templates)
    assert held.networks <= set(cluster.networks)


@settings(max_examples=200, deadline=None)
@given(each=st.lists(fates, max_size=3), kinds=strangers, booted=st.booleans())
def test_repair_leads_to_agreement(each: list[Fate], kinds: set[str], booted: bool) -> None:
    cluster, held = a_world(each, kinds, booted)
    claims, ran = set(cluster.claims), held.up()
    kept = {v.id for v in cluster.volumes.values() if stays(cluster, v.instance)}
    rows = {ref: cluster.get(ref) for ref in claims}
    returning = {i.id for i in cluster.instances.values() if i.autostart and went_with_its_host(cluster, held, i)}
    for number in range(ROUNDS):
        if not repair(cluster, held.inventory(), cluster):
            event(f"{number} rounds")
            break
        cluster = one_round(cluster, held)
    assert repair(cluster, held.inventory(), cluster) == ()
    agrees(cluster, held, claims)
    assert {ref: cluster.get(ref) for ref in claims} == rows
    assert kept <= set(held.disks)
    assert held.up() <= ran | returning


def stays(cluster: Cluster, instance: InstanceId | None) -> bool:
    row = None if instance is None else cluster.instances[instance]
    return row is not None and (row.wanted is not Wanted.ABSENT or row.ref in cluster.claims)


def went_with_its_host(cluster: Cluster, held: Held, instance: Instance) -> bool:
    state = held.machines.get(instance.id) or cluster.machines.get(instance.id)
    return state is not None and state.ended is Ended.HOST_BOOT


@settings(max_examples=50, deadline=None)
@given(each=st.lists(st.booleans(), max_size=4))
def test_a_host_in_agreement_is_left_alone(each: list[bool]) -> None:
    cluster, held = a_cluster(), Held()
    for number, starts in enumerate(each):
        plan = planned(launch(cluster, MINE, wish(f"i{number}", start=starts), draw(number), NOW))
        cluster = carried_out(cluster, plan, held)
    assert repair(cluster, held.inventory(), cluster) == ()
    assert all(m.phase not in DOWN for m in held.machines.values())


@settings(max_examples=100, deadline=None)
@given(each=st.lists(fates, min_size=1, max_size=3), kinds=strangers)
def test_what_moved_while_the_host_was_looked_at_waits(each: list[Fate], kinds: set[str]) -> None:
    now, held = a_world(each, kinds, booted=False)
    moved = [replace(i, generation=i.generation - 1) for i in now.instances.values()]
    before = with_rows(now, *moved)
    plans = repair(before, held.inventory(), now)
    own = {i.ref for i in now.instances.values()}
    assert not any(ref in own for plan in plans for ref in plan.claims)


@pytest.mark.parametrize(
    "action",
    [
        DeleteDisk(volume=VolumeId("vol-x")),
        DeleteTemplate(template=TemplateId("t-x")),
        ForgetMachine(instance=InstanceId("i-x")),
    ],
)
def test_the_model_refuses(action: DeleteDisk | DeleteTemplate | ForgetMachine) -> None:
    """Or the properties above would say little."""
    held = Held()
    put_strangers(held, {"disk", "network", "template", "machine that runs"})
    with pytest.raises(AssertionError):
        held.obey(action)
