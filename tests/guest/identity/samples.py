"""An identity, as a launch makes one."""

from __future__ import annotations

from innkeeper.drivers.guestlink.identity import CardIdentity, Identity
from tests.guest.identity.place import BORN, BORN_TOO

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIDmZtB4AyJ3iCfGJY1VNqO5yCfqJsgVd4mJQAF7DaTA web"
FIRST = CardIdentity(
    from_mac=BORN,
    mac="52:54:00:AB:CD:01",
    name="eth0",
    addresses=("10.1.2.3/20", "fd00::5/64"),
    gateway="10.1.0.1",
    dns=("10.1.0.1", "10.1.0.2"),
    mtu=1450,
)
SECOND = CardIdentity(from_mac=BORN_TOO, mac="52:54:00:ab:cd:02", addresses=("10.2.0.5/24",), gateway="10.2.0.1")
WEB = Identity(
    instance="i-3f09c2d41b7a",
    hostname="web",
    domain="inn.internal",
    machine_id="0123456789abcdef" * 2,
    boot_id="0b5b4f0e-7a6a-4c4f-9d35-1d3a0b6a7c11",
    seed=bytes(range(64)),
    time_ns=1_700_000_000_123_456_789,
    host_key=KEY,
    host_key_public=PUBLIC,
    cards=(FIRST, SECOND),
)
