"""Which launches go on from a memory image, and what they are told when they do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from innkeeper.model.actions import SeedCard, StartMachine, WriteSeed
from innkeeper.model.hardware import NetworkCard
from innkeeper.model.ids import SecretId, SecretRef
from innkeeper.model.instance import FirstBoot, Taken
from innkeeper.model.observed import Phase
from innkeeper.model.plans import Plan
from innkeeper.plan.disks.snapshot import take
from innkeeper.plan.intake.origin import LaunchWish, Origin, origin_of
from innkeeper.plan.launch import launch
from innkeeper.plan.power import start
from innkeeper.plan.warm.choosing import Cold, choose, images
from tests.plan.clusters import (
    H1,
    H2,
    MINE,
    NOW,
    OTHERS,
    a_host,
    claimed,
    done,
    draw,
    facts,
    planned,
    row_of,
    seen,
    wish,
    with_rows,
)
from tests.plan.warm.ready import answering, warmed


def starting(plan: Plan) -> StartMachine:
    (action,) = (step.action for step in plan.steps if isinstance(step.action, StartMachine))
    return action


def test_a_launch_goes_on_from_what_fits() -> None:
    cluster, _, memory = warmed()
    plan = planned(launch(cluster, MINE, wish(), draw(), NOW))
    web = row_of(plan)
    assert web.memory == memory.id
    assert web.cold == ""
    after = done(cluster, plan)
    (root,) = after.disks(web.id)
    assert root.over == memory.volumes[0]
    action = starting(plan)
    assert action.chains[0].below == memory.volumes
    assert action.warm is not None
    (card,) = action.warm.cards
    assert card.baked_mac == memory.hardware.cards()[0].mac
    assert card.becomes.mac == web.hardware.cards()[0].mac
    assert action.warm.hostname == "web"


def test_the_clone_has_the_hardware_of_the_image_with_parts_of_its_own() -> None:
    cluster, _, memory = warmed()
    web = row_of(planned(launch(cluster, MINE, wish(), draw(), NOW)))
    baked = memory.hardware
    assert [type(d) for d in web.hardware.devices] == [type(d) for d in baked.devices]
    assert [d.slot for d in web.hardware.devices] == [d.slot for d in baked.devices]
    assert web.hardware.disks()[0].label == baked.disks()[0].label  # what the guest has read already
    kept = {d for d in baked.devices if not isinstance(d, NetworkCard) and d not in baked.disks()}
    assert kept <= set(web.hardware.devices)


def test_the_guest_is_told_what_its_seed_says() -> None:
    cluster, _, _ = warmed()
    plan = planned(launch(cluster, MINE, wish(), draw(), NOW))
    (seed,) = (step.action for step in plan.steps if isinstance(step.action, WriteSeed))
    warm = starting(plan).warm
    assert warm is not None
    assert tuple(card.becomes for card in warm.cards) == seed.cards
    assert isinstance(seed.cards[0], SeedCard)
    assert (warm.hostname, warm.domain) == (seed.hostname, seed.domain)
    assert f"systemd.machine_id={warm.machine_id}" in (starting(plan).kernel_args or "")


@pytest.mark.parametrize(
    "cloud_init, first_boot, configures",
    [
        (True, FirstBoot(), False),
        (True, FirstBoot(ssh_keys=("ssh-ed25519 AAAA me",)), True),
        (True, FirstBoot(user_data=SecretRef(SecretId("s-1"))), True),
        (False, FirstBoot(), False),
    ],
)
def test_cloud_init_runs_at_once_where_it_has_something_to_apply(
    cloud_init: bool, first_boot: FirstBoot, configures: bool
) -> None:
    cluster, _, _ = warmed(cloud_init=cloud_init)
    warm = starting(planned(launch(cluster, MINE, wish(first_boot=first_boot), draw(), NOW))).warm
    assert warm is not None
    assert warm.configure is configures


@pytest.mark.parametrize(
    "asked, why",
    [
        ({"cold": True}, "as it was asked for"),
        ({"memory_mib": 256}, "the memory image has 128 MiB of memory, not 256"),
        ({"vcpus": 2, "disk_gib": 3}, "the memory image has 1 vCPUs, not 2, 1 GiB of disk, not 3"),
    ],
)
def test_what_was_asked_for_may_need_a_boot(asked: dict[str, Any], why: str) -> None:
    cluster, _, _ = warmed()
    plan = planned(launch(cluster, MINE, wish(**asked), draw(), NOW))
    assert row_of(plan).memory is None
    assert row_of(plan).cold == why
    assert starting(plan).warm is None


def test_without_an_image_it_boots_and_says_so() -> None:
    cluster, _ = answering()
    assert row_of(planned(launch(cluster, MINE, wish(), draw(), NOW))).cold == "no memory image of tiny:1 has been made"


def test_one_that_is_being_made_or_deleted_is_not_used() -> None:
    cluster, _, memory = warmed()
    for other in (with_rows(cluster, replace(memory, baked=None)), claimed(cluster, [memory.ref])):
        assert (
            row_of(planned(launch(other, MINE, wish(), draw(), NOW))).cold == "a memory image of tiny:1 is being made"
        )


def test_one_that_was_made_with_another_qemu_is_not_used() -> None:
    cluster, _, _ = warmed()
    newer = with_rows(cluster, a_host(has=replace(facts(), qemu_version="10.0.0")))
    web = row_of(planned(launch(newer, MINE, wish(), draw(), NOW)))
    assert web.memory is None
    assert web.cold == "the memory image was made with QEMU 7.2.0, not 10.0.0"


def test_of_several_the_newest_that_fits() -> None:
    cluster, _, memory = warmed()
    newer = replace(memory, id=type(memory.id)("mem-newer"), created_at=NOW + 1)
    other = replace(newer, id=type(memory.id)("mem-other"), created_at=NOW + 2, size=replace(memory.size, vcpus=2))
    both = with_rows(cluster, newer, other)
    assert [m.id for m in images(both, MINE, memory.template, H1)] == ["mem-other", "mem-newer", memory.id]
    assert row_of(planned(launch(both, MINE, wish(), draw(), NOW))).memory == "mem-newer"
    assert images(both, OTHERS, memory.template, H1) == ()
    assert images(both, MINE, memory.template, H2) == ()


def test_nothing_is_known_of_a_host_that_has_not_reported() -> None:
    cluster, _, _ = warmed()
    silent = replace(cluster.hosts[H1], facts=None)
    origin = origin_of(cluster, MINE, wish(), draw())
    assert isinstance(origin, Origin)
    assert choose(cluster, origin, silent, cold=False) == Cold("h1 has not reported yet")


def test_only_the_first_start_goes_on() -> None:
    cluster, _, _ = warmed()
    plan = planned(launch(cluster, MINE, wish(), draw(), NOW))
    after = seen(done(cluster, plan), row_of(plan), Phase.STOPPED)
    again = planned(start(after, after.instances[row_of(plan).id]))
    assert starting(again).warm is None
    assert starting(again).chains == starting(plan).chains


def test_of_a_snapshot_there_is_no_memory() -> None:
    cluster, _, _ = warmed()
    plan = planned(launch(cluster, MINE, wish(), draw(), NOW))
    cluster = done(cluster, plan)
    cluster = done(cluster, planned(take(cluster, cluster.instances[row_of(plan).id], "first", draw(1), NOW)))
    (snapshot,) = cluster.snapshots.values()
    whole = with_rows(cluster, replace(snapshot, taken=Taken(stored_bytes=1, consistent=True)))
    copy = LaunchWish(template="", snapshot="web/first", name="copy")
    assert row_of(planned(launch(whole, MINE, copy, draw(2), NOW))).cold == (
        "it was made from a snapshot, which has no memory"
    )


def test_started_later_it_has_no_start_to_go_on_in() -> None:
    cluster, _, memory = warmed()
    plan = planned(launch(cluster, MINE, wish(start=False), draw(), NOW))
    assert not [step for step in plan.steps if isinstance(step.action, StartMachine)]
    assert row_of(plan).memory == memory.id
