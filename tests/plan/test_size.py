"""Sizes, room, and where an instance goes. What a launch refuses is in life/test_launch.py."""

from __future__ import annotations

import pytest

from innkeeper.model.cluster import Cluster, Usage
from innkeeper.model.host import Host
from innkeeper.model.ids import HostId
from innkeeper.model.instance import Size
from innkeeper.model.plans import Why
from innkeeper.plan.size import GIB, NAMED, bad_size, capacity, free, least_disk_gib, place
from tests.plan.clusters import H1, H2, a_cluster, a_host, facts, launched, refused, with_rows


def test_named_sizes_are_sizes() -> None:
    assert all(bad_size(size, 2 * GIB) is None for size in NAMED.values())


def test_the_most_and_the_least_can_be_had() -> None:
    assert bad_size(Size(vcpus=255, memory_mib=64, disk_gib=65_536), 0) is None
    assert bad_size(Size(vcpus=1, memory_mib=64, disk_gib=1), 0) is None


@pytest.mark.parametrize("image_bytes, gib", [(0, 1), (1, 1), (GIB, 1), (GIB + 1, 2), (10 * GIB, 10)])
def test_least_disk(image_bytes: int, gib: int) -> None:
    assert least_disk_gib(image_bytes) == gib
    assert bad_size(Size(vcpus=1, memory_mib=64, disk_gib=gib), image_bytes) is None
    refusal = refused(bad_size(Size(vcpus=1, memory_mib=64, disk_gib=gib - 1), image_bytes))
    assert f"at least {gib} GiB" in refusal.hint


def test_capacity() -> None:
    host = a_host(has=facts(vcpus=8, memory_mib=16_384, disk_gib=500))
    assert capacity(host) == Usage(vcpus=32, memory_mib=15_872, disk_gib=500)
    assert capacity(a_host(has=facts(memory_mib=100))).memory_mib == 0
    assert capacity(Host(id=H1, name="new")) == Usage()


def test_free_is_what_was_not_promised() -> None:
    cluster, _ = launched(a_cluster(), vcpus=2, memory_mib=1000, disk_gib=30)
    assert free(cluster, cluster.hosts[H1]) == Usage(vcpus=30, memory_mib=14_872, disk_gib=470, instances=1)


SMALL = Size(vcpus=1, memory_mib=128, disk_gib=1)


def test_the_host_with_most_memory_left() -> None:
    cluster = a_cluster(None, a_host(), a_host(H2, "h2", facts(memory_mib=20_000)), Host(id=HostId("h-0"), name="new"))
    chosen = place(cluster, SMALL)
    assert isinstance(chosen, Host)
    assert chosen.id == H2
    cluster, _ = launched(cluster, memory_mib=5000)
    chosen = place(cluster, SMALL)
    assert isinstance(chosen, Host)
    assert chosen.id == H1


@pytest.mark.parametrize("cluster", [Cluster(), a_cluster(None, Host(id=H1, name="new"))])
def test_before_any_host_has_reported(cluster: Cluster) -> None:
    refusal = refused(place(cluster, SMALL))
    assert (refusal.why, refusal.reason) == (Why.UNAVAILABLE, "no host has reported yet")


def test_promised_vcpus_run_out_too() -> None:
    cluster = a_cluster()
    for number in range(4):
        cluster, _ = launched(cluster, f"n{number}", vcpus=8)
    assert refused(place(cluster, SMALL)).reason == "h1 has 0 vCPUs free, 1 vCPU was asked for"


def test_what_is_free_on_several_hosts() -> None:
    hosts = tuple(a_host(HostId(f"h-{n}"), f"h{n}", facts(memory_mib=600 + n)) for n in range(5))
    refusal = refused(place(a_cluster(None, *hosts), SMALL))
    assert refusal.why is Why.NO_ROOM
    assert refusal.reason == (
        "h0 has 88 MiB of memory free, 128 MiB were asked for; h1 has 89 MiB of memory free, 128 MiB were asked for; "
        "h2 has 90 MiB of memory free, 128 MiB were asked for (and 2 more hosts)"
    )
    assert refused(place(a_cluster(None, *hosts[:4]), SMALL)).reason.endswith("(and 1 more host)")
    assert refused(place(a_cluster(None, *hosts[:3]), SMALL)).reason.endswith("asked for")


def test_a_host_that_has_shrunk_has_nothing_free() -> None:
    cluster, _ = launched(a_cluster(), memory_mib=8000)
    cluster = with_rows(cluster, a_host(has=facts(memory_mib=4096)))
    assert "h1 has 0 MiB of memory free" in refused(place(cluster, SMALL)).reason
