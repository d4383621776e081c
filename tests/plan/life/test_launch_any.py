"""What holds for launches into any cluster."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st

from innkeeper.model.cluster import Cluster
from innkeeper.model.host import Host
from innkeeper.model.ids import HostId, Kind
from innkeeper.model.network import Network
from innkeeper.model.plans import Plan, Why
from innkeeper.plan.intake.origin import LaunchWish
from innkeeper.plan.launch import launch
from innkeeper.plan.size import NAMED, capacity, free
from tests.plan.clusters import (
    MINE,
    NET,
    NOW,
    a_cluster,
    a_host,
    a_network,
    done,
    draw,
    facts,
    made,
    refused,
    same,
    undone,
)

hosts = st.lists(
    st.builds(
        facts,
        vcpus=st.integers(1, 8),
        memory_mib=st.integers(256, 6000),
        disk_gib=st.integers(1, 60),
    ),
    min_size=1,
    max_size=3,
).map(lambda each: tuple(a_host(HostId(f"h-00000000000{n}"), f"h{n}", f) for n, f in enumerate(each)))

wishes = st.builds(
    LaunchWish,
    template=st.just("tiny"),
    name=st.none() | st.sampled_from(["a", "b", "c", "d"]),
    size=st.none() | st.sampled_from(sorted(NAMED)),
    vcpus=st.none() | st.integers(-1, 9),
    memory_mib=st.none() | st.integers(-64, 4096),
    disk_gib=st.none() | st.integers(-1, 40),
    start=st.booleans(),
)


def a_small_network(prefix: int, gateway: int) -> Network:
    cidr = IPv4Network(f"10.9.8.0/{prefix}")
    return a_network(str(cidr), str(cidr[1 + gateway % (cidr.num_addresses - 2)]))


networks = st.builds(a_small_network, st.integers(27, 30), st.integers(0, 29))


def sound(cluster: Cluster) -> None:
    """Nothing is promised twice, and nothing beyond what there is."""
    for host in cluster.hosts.values():
        left, total = free(cluster, host), capacity(host)
        assert min(left.vcpus, left.memory_mib, left.disk_gib) >= 0
        on_it = [i for i in cluster.instances.values() if i.host == host.id]
        assert sum(i.size.memory_mib for i in on_it) <= total.memory_mib
        assert sum(i.size.disk_gib for i in on_it) <= total.disk_gib
        assert len({i.uid_slot for i in on_it}) == len(on_it)
    network = cluster.networks[NET]
    cidr = IPv4Network(network.cidr)
    given_out = [a for nic in cluster.nics.values() for a in nic.addresses]
    assert len(set(given_out)) == len(given_out)
    assert all(IPv4Address(a) in cidr for a in given_out)
    assert not {network.gateway, str(cidr.network_address), str(cidr.broadcast_address)} & set(given_out)
    assert len({nic.mac for nic in cluster.nics.values()}) == len(cluster.nics)
    assert len({i.name for i in cluster.instances.values()}) == len(cluster.instances)


@settings(max_examples=60, deadline=None)
@given(hosts=hosts, network=networks, wishes=st.lists(wishes, max_size=12), seed=st.integers())
def test_launches_one_after_another(
    hosts: tuple[Host, ...], network: Network, wishes: list[LaunchWish], seed: int
) -> None:
    cluster = a_cluster(network, *hosts)
    for number, wish in enumerate(wishes):
        answer = launch(cluster, MINE, wish, draw((seed, number)), NOW)
        assert answer == launch(cluster, MINE, wish, draw((seed, number)), NOW)
        if isinstance(answer, Plan):
            assert same(undone(cluster, answer), cluster)
            new = [noun.ref for noun in made(answer)]
            assert all(cluster.get(ref) is None for ref in new)
            assert len(set(new)) == 3
            assert set(answer.claims) >= set(new)
            cluster = done(cluster, answer)
            sound(cluster)
        else:
            assert refused(answer).hint


@settings(max_examples=30, deadline=None)
@given(network=networks, seed=st.integers())
def test_a_network_is_given_out_to_its_last_address(network: Network, seed: int) -> None:
    cluster = a_cluster(network)
    room = IPv4Network(network.cidr).num_addresses - 3
    for number in range(room):
        wish = LaunchWish(template="tiny", name=f"n{number}")
        answer = launch(cluster, MINE, wish, draw((seed, number)), NOW)
        assert isinstance(answer, Plan), answer
        cluster = done(cluster, answer)
    assert len(cluster.addresses[NET]) == room
    refusal = refused(launch(cluster, MINE, LaunchWish(template="tiny"), draw(seed), NOW))
    assert refusal.why is Why.NO_ROOM
    assert network.cidr in refusal.reason
    sound(cluster)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers())
def test_many_nameless_ones_never_meet(seed: int) -> None:
    cluster = a_cluster(None, a_host(has=facts(memory_mib=1_000_000, vcpus=64)))
    for number in range(40):
        answer = launch(cluster, MINE, LaunchWish(template="tiny"), draw((seed, number)), NOW)
        assert isinstance(answer, Plan), answer
        cluster = done(cluster, answer)
    assert len([key for key in cluster.names if key[0] is Kind.INSTANCE]) == 40
