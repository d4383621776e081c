"""Which words a NoCloud seed says."""

from __future__ import annotations

from innkeeper.drivers.metadata.render import meta_data, network_config, seed_files
from innkeeper.model.actions import SeedCard, WriteSeed
from innkeeper.model.ids import InstanceId, SecretId, SecretRef
from tests.golden.compare import same_as_golden

PLAIN = WriteSeed(
    instance=InstanceId("i-3f09c2d41b7a"),
    hostname="web",
    domain="inn.internal",
    ssh_keys=("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIDmZtB4AyJ3iCfGJY1VNqO5yCfqJsgVd4mJQAF7DaTA me@desk",),
    user_data=SecretRef(SecretId("s-1")),
    cards=(
        SeedCard(mac="52:54:00:AB:CD:01", addresses=("10.1.2.3/20",), gateway="10.1.0.1", dns=("10.1.0.1",), mtu=1450),
    ),
)
TWO_CARDS = WriteSeed(
    instance=InstanceId("i-000000000002"),
    hostname="no",
    domain="",
    ssh_keys=(),
    user_data=None,
    cards=(
        SeedCard(
            mac="52:54:00:00:00:02",
            addresses=("fd00:1::5/64", "10.2.0.5/24"),
            gateway="fd00:1::1",
            dns=("fd00:1::1", "10.2.0.1"),
            mtu=1500,
        ),
        SeedCard(mac="52:54:00:00:00:03", addresses=("192.168.7.9/24",), gateway=None, dns=(), mtu=9000),
    ),
)


def test_meta_data() -> None:
    same_as_golden("metadata/plain/meta-data", meta_data(PLAIN))


def test_network_config() -> None:
    same_as_golden("metadata/plain/network-config", network_config(PLAIN))


def test_a_name_that_looks_like_a_boolean_and_two_cards() -> None:
    same_as_golden("metadata/two-cards/meta-data", meta_data(TWO_CARDS))
    same_as_golden("metadata/two-cards/network-config", network_config(TWO_CARDS))


def test_user_data_passes_byte_for_byte() -> None:
    given = b"\x1f\x8b\x00#cloud-config\r\n\xff\xfe"
    assert seed_files(PLAIN, given)["user-data"] == given


def test_without_user_data_the_file_is_there_all_the_same() -> None:
    same_as_golden("metadata/plain/user-data-absent", seed_files(PLAIN, None)["user-data"].decode())
