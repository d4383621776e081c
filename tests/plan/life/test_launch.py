"""What a launch chooses, and what it declines."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from immutables import Map

from innkeeper.model.actions import (
    ConvergeNetwork,
    CreateDisk,
    DeleteDisk,
    ForgetMachine,
    StartMachine,
    StopMachine,
    WriteSeed,
)
from innkeeper.model.cluster import Cluster
from innkeeper.model.hardware import Firmware
from innkeeper.model.ids import InstanceId, Kind, Ref, SecretId, SecretRef, TemplateId
from innkeeper.model.instance import FirstBoot, Size, Wanted
from innkeeper.model.observed import Phase
from innkeeper.model.plans import Plan, Verb, Why
from innkeeper.model.template import Origin
from innkeeper.plan.intake.origin import LaunchWish
from innkeeper.plan.launch import launch, launch_together
from tests.plan.clusters import (
    GIB,
    H1,
    IMAGE,
    MINE,
    NET,
    NOW,
    TINY,
    a_cluster,
    a_network,
    a_template,
    accepted,
    done,
    draw,
    launched,
    made,
    planned,
    refused,
    row_of,
    same,
    undone,
    wish,
    with_rows,
)


def plan_of(cluster: Cluster | None = None, **more: Any) -> Plan:
    return planned(launch(cluster or a_cluster(), MINE, wish(**more), draw(), NOW))


def test_all_rows_stand_from_its_acceptance() -> None:
    cluster, web = launched(a_cluster(), labels={"tier": "front"}, autostart=True)
    (volume,), (nic,) = cluster.disks(web.id), cluster.cards(web.id)
    assert (web.name, volume.name, nic.name) == ("web", "web/root", "web/eth0")
    assert (web.host, web.template, web.wanted, web.created_at) == (H1, TINY, Wanted.RUNNING, NOW)
    assert (web.labels, web.autostart, web.ephemeral, web.expires_at) == ({"tier": "front"}, True, False, None)
    assert (volume.host, volume.template, volume.size_gib) == (H1, TINY, web.size.disk_gib)
    assert [d.volume for d in web.hardware.disks()] == [volume.id]
    assert [(c.nic, c.mac, c.network) for c in web.hardware.cards()] == [(nic.id, nic.mac, NET)]


def test_places_of_devices_differ() -> None:
    _, web = launched(a_cluster())
    slots = [d.slot for d in web.hardware.devices]
    assert len(set(slots)) == len(slots)
    assert all(1 <= slot <= 30 for slot in slots)


def test_steps_and_their_undo() -> None:
    plan = plan_of()
    assert [type(s.action) for s in plan.steps] == [CreateDisk, WriteSeed, ConvergeNetwork, StartMachine]
    assert [type(s.undo) for s in plan.steps] == [DeleteDisk, ForgetMachine, ConvergeNetwork, StopMachine]
    assert {s.host for s in plan.steps} == {H1}
    assert {s.generation for s in plan.steps} == {1}


def test_seed_carries_a_reference_and_the_way_out() -> None:
    secret = SecretRef(SecretId("s-1"))
    cluster = with_cloud_init(a_cluster())
    plan = plan_of(cluster, first_boot=FirstBoot(user_data=secret, ssh_keys=("ssh-ed25519 AAAA",)))
    seed = plan.steps[1].action
    assert isinstance(seed, WriteSeed)
    assert (seed.hostname, seed.domain, seed.user_data) == ("web", "inn.internal", secret)
    assert seed.ssh_keys == ("ssh-ed25519 AAAA",)
    (card,) = seed.cards
    assert (card.gateway, card.dns, card.mtu) == ("10.1.0.1", ("10.1.0.1",), 1500)
    assert card.addresses[0].endswith("/24")


def with_cloud_init(cluster: Cluster) -> Cluster:
    return with_rows(cluster, replace(cluster.templates[TINY], image=replace(IMAGE, cloud_init=True)))


@pytest.mark.parametrize(
    "said, words",
    [
        (FirstBoot(user_data=SecretRef(SecretId("s-1"))), "user-data"),
        (FirstBoot(ssh_keys=("ssh-ed25519 AAAA",)), "SSH keys"),
        (FirstBoot(user_data=SecretRef(SecretId("s-1")), ssh_keys=("k",)), "user-data and SSH keys"),
    ],
)
def test_what_no_cloud_init_would_hear_is_refused(said: FirstBoot, words: str) -> None:
    refusal = refused(launch(a_cluster(), MINE, wish(first_boot=said), draw(), NOW))
    assert refusal.why is Why.INVALID
    assert refusal.reason == f"template tiny:1 has no cloud-init, so its guests would ignore {words}"
    assert "debian-12" in refusal.hint


def test_an_imported_image_is_taken_to_have_cloud_init() -> None:
    unknown = replace(IMAGE, firmware=Firmware.UEFI, kernel_args=None)
    imported = a_template(TemplateId("t-2"), "noble", project=MINE, origin=Origin.IMPORTED, image=unknown)
    told = LaunchWish(template="noble", name="web", first_boot=FirstBoot(ssh_keys=("ssh-ed25519 AAAA",)))
    planned(launch(with_rows(a_cluster(), imported), MINE, told, draw(), NOW))


def test_a_drawn_name_never_reads_as_an_id() -> None:
    cluster = with_rows(a_cluster(), a_template(TemplateId("t-2"), "i"))
    row = row_of(planned(launch(cluster, MINE, LaunchWish(template="i"), draw(), NOW)))
    assert re.fullmatch(r"instance-[0-9a-f]{4}", row.name)


def test_machine_is_started_as_its_template_says() -> None:
    start = plan_of().steps[-1].action
    assert isinstance(start, StartMachine)
    assert (start.name, start.template) == ("web", TINY)
    assert start.hardware.firmware is Firmware.DIRECT
    assert start.kernel_args is not None
    assert re.fullmatch(r"quiet hostname=web systemd\.machine_id=[0-9a-f]{32}", start.kernel_args)


def test_every_machine_has_its_own_machine_id() -> None:
    cluster = a_cluster()
    args = []
    for number, name in enumerate(("a", "b")):
        plan = planned(launch(cluster, MINE, wish(name=name), draw(number), NOW))
        cluster = accepted(cluster, plan)
        action = plan.steps[-1].action
        assert isinstance(action, StartMachine)
        args.append(action.kernel_args)
    assert args[0] != args[1]


def test_without_starting_nothing_starts() -> None:
    plan = plan_of(start=False)
    assert [type(s.action) for s in plan.steps] == [CreateDisk, WriteSeed, ConvergeNetwork]
    cluster, web = launched(a_cluster(), start=False)
    assert web.wanted is Wanted.STOPPED
    assert cluster.phase(web.id) is Phase.UNKNOWN


def test_the_same_draw_gives_the_same_plan() -> None:
    assert plan_of() == plan_of()


def test_undone_it_leaves_nothing() -> None:
    before = a_cluster()
    assert same(undone(before, plan_of(before)), before)


def test_on_its_way_back_it_is_absent() -> None:
    plan = plan_of()
    cluster = a_cluster().after((*plan.accept, *plan.retreat), 9)
    row = cluster.instances[InstanceId(plan.subjects[0].id)]
    assert (row.wanted, row.generation) == (Wanted.ABSENT, 2)


def test_what_it_saw_and_holds() -> None:
    plan = plan_of()
    new = {noun.ref for noun in made(plan)}
    assert {e.ref for e in plan.expects if e.generation is None} == new
    assert {e.ref for e in plan.expects if e.generation == 1} == {Ref(Kind.TEMPLATE, TINY), Ref(Kind.NETWORK, NET)}
    assert set(plan.claims) == {*new, Ref(Kind.INSTANCE, f"{MINE}/web")}


# --- sizes, names and ends that were not given


def test_named_size_and_single_wishes() -> None:
    assert launched(a_cluster(), size="medium", vcpus=3)[1].size == Size(vcpus=3, memory_mib=4096, disk_gib=20)
    assert launched(a_cluster(), memory_mib=200)[1].size == Size(vcpus=1, memory_mib=200, disk_gib=1)


def test_default_disk_holds_the_image() -> None:
    large = a_template(image=replace(IMAGE, virtual_size_bytes=20 * GIB + 1))
    cluster = with_rows(a_cluster(), large)
    assert launched(cluster)[1].size.disk_gib == 21
    assert "at least 21 GiB" in refused(launch(cluster, MINE, wish(disk_gib=10), draw(), NOW)).hint


def test_time_to_live() -> None:
    assert launched(a_cluster(), ttl_s=60.0)[1].expires_at == NOW + 60


def test_names_drawn_for_who_gives_none_are_free() -> None:
    """Drawn from 65,536, a few hundred of them would meet: the draws here collide on purpose."""
    cluster = with_rows(a_cluster(), a_template(name="debian-12.5"))
    names = set()
    for number in range(16):
        row = row_of(planned(launch(cluster, MINE, LaunchWish(template="debian-12.5"), draw(), NOW)))
        names.add(row.name)
        cluster = with_rows(cluster, replace(row, id=InstanceId(f"i-{number}"), uid_slot=number))
    assert len(names) == 16
    assert all(name.startswith("debian-12-5-") for name in names)
    refusal = refused(launch(cluster, MINE, LaunchWish(template="debian-12.5"), draw(), NOW))
    assert refusal.why is Why.CONFLICT


# --- refusals


@pytest.mark.parametrize(
    "more, why, says, hint",
    [
        ({"template": "nixos"}, Why.NOT_FOUND, "template named nixos", "inn template list"),
        ({"network": "dmz"}, Why.NOT_FOUND, "network named dmz", "default"),
        ({"name": "Web"}, Why.INVALID, "'Web' cannot be the name of an instance", "a-z"),
        ({"name": ""}, Why.INVALID, "'' cannot be", "a-z"),
        ({"name": "i-0123456789ab"}, Why.INVALID, "i-0123456789ab", "ids are accepted"),
        ({"size": "huge"}, Why.INVALID, "no size named huge", "nano, small"),
        ({"vcpus": 0}, Why.INVALID, "0 vCPUs", "1 to 255"),
        ({"vcpus": -1}, Why.INVALID, "-1 vCPUs", "1 to 255"),
        ({"vcpus": 256}, Why.INVALID, "256 vCPUs", "1 to 255"),
        ({"vcpus": 9}, Why.NO_ROOM, "h1 has 8 CPU threads, 9 vCPUs", "less"),
        ({"memory_mib": 0}, Why.INVALID, "0 MiB", "64 MiB"),
        ({"memory_mib": -5}, Why.INVALID, "-5 MiB", "64 MiB"),
        ({"memory_mib": 15_873}, Why.NO_ROOM, "15872 MiB of memory free, 15873 MiB were asked for", "less"),
        ({"disk_gib": 0}, Why.INVALID, "0 GiB", "at least 1 GiB"),
        ({"disk_gib": -3}, Why.INVALID, "-3 GiB", "at least 1 GiB"),
        ({"disk_gib": 501}, Why.NO_ROOM, "500 GiB of disk free, 501", "less"),
        ({"disk_gib": 70_000}, Why.INVALID, "70000 GiB", "at most 65536"),
        ({"ttl_s": 0.0}, Why.INVALID, "0 s", "--ttl 1h"),
        ({"ttl_s": -1.0}, Why.INVALID, "-1 s", "--ttl 1h"),
        ({"ttl_s": float("nan")}, Why.INVALID, "nan s", "--ttl 1h"),
        ({"ttl_s": 1e300}, Why.INVALID, "for ever", "--ttl 1h"),
        ({"labels": {"a b": "c"}}, Why.INVALID, "key of a label", "A key has"),
    ],
)
def test_refused(more: dict[str, Any], why: Why, says: str, hint: str) -> None:
    refusal = refused(launch(a_cluster(), MINE, replace(wish(), **more), draw(), NOW))
    assert refusal.why is why
    assert says in refusal.reason
    assert hint in refusal.hint


def test_a_taken_name_is_refused_with_its_holder() -> None:
    cluster, web = launched(a_cluster())
    refusal = refused(launch(cluster, MINE, wish(), draw("other"), NOW))
    assert refusal.why is Why.CONFLICT
    assert web.id in refusal.reason


def test_an_unfinished_template_launches_nothing() -> None:
    cluster = with_rows(a_cluster(), a_template(image=None))
    assert refused(launch(cluster, MINE, wish(), draw(), NOW)).why is Why.NOT_FOUND


def test_a_full_network_is_refused_by_name_and_range() -> None:
    cluster, _ = launched(a_cluster(a_network("10.1.0.0/30")), "first")
    refusal = refused(launch(cluster, MINE, wish(), draw(), NOW))
    assert refusal.why is Why.NO_ROOM
    assert "network default (10.1.0.0/30)" in refusal.reason
    assert "all 1 are" in refusal.reason


def test_a_host_without_free_users_is_refused() -> None:
    full: Map[int, InstanceId] = Map((slot, InstanceId(f"i-{slot}")) for slot in range(60_000))
    cluster = replace(a_cluster(), uid_slots=Map({H1: full}))
    refusal = refused(launch(cluster, MINE, wish(), draw(), NOW))
    assert (refusal.why, "h1 has no user left" in refusal.reason) == (Why.NO_ROOM, True)
    almost = replace(cluster, uid_slots=Map({H1: full.delete(77)}))
    assert row_of(planned(launch(almost, MINE, wish(), draw(), NOW))).uid_slot == 77


# --- several, all or none


def test_together_each_has_its_own() -> None:
    before = a_cluster()
    wishes = tuple(wish(f"web-{n}") for n in range(5))
    plan = planned(launch_together(before, MINE, wishes, draw(), NOW))
    after = done(before, plan)
    assert (plan.verb, len(plan.steps), len(plan.subjects)) == (Verb.LAUNCH, 20, 5)
    assert {i.name for i in after.instances.values()} == {f"web-{n}" for n in range(5)}
    assert len(after.nics) == len(after.addresses[NET]) == len(after.macs) == len(after.uid_slots[H1]) == 5
    assert len(set(plan.expects)) == len(plan.expects)
    assert same(undone(before, plan), before)


@pytest.mark.parametrize(
    "wishes, says",
    [
        ((wish("a"), wish("a")), "number 2 of 2: there is an instance named a already"),
        ((wish("a"), wish("b", memory_mib=10_000), wish("c", memory_mib=10_000)), "number 3 of 3: h1 has 5744 MiB"),
    ],
)
def test_together_one_refusal_is_everybodys(wishes: tuple[LaunchWish, ...], says: str) -> None:
    refusal = refused(launch_together(a_cluster(), MINE, wishes, draw(), NOW))
    assert refusal.reason.startswith(says)
    assert refusal.reason.endswith("none was launched")


def test_the_newest_version_is_launched() -> None:
    newer = a_template(TemplateId("t-000000000002"), version=2)
    cluster = with_rows(a_cluster(), newer)
    assert launched(cluster)[1].template == newer.id
