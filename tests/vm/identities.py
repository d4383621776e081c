"""Who a machine of a test is before and after: the seed that a template is booted with, and a clone's own."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from innkeeper.drivers.guestlink.identity import CardIdentity, Identity
from innkeeper.drivers.metadata.hand import iso
from innkeeper.drivers.metadata.render import seed_files
from innkeeper.model.actions import SeedCard, WriteSeed
from innkeeper.model.ids import InstanceId

BORN = "52:54:00:12:34:56"
OWN = "52:54:00:ab:cd:01"
# The guest's kernel keeps the size that the disk had when it was found.
SEED_BYTES = 1 << 20
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIDmZtB4AyJ3iCfGJY1VNqO5yCfqJsgVd4mJQAF7DaTA me@desk"
BAKER = WriteSeed(
    instance=InstanceId("i-000000000bac"), hostname="baker", domain="", ssh_keys=(), user_data=None, cards=()
)


def clone_seed(instance: str = "i-3f09c2d41b7a") -> WriteSeed:
    card = SeedCard(mac=OWN, addresses=("10.9.8.77/24",), gateway="10.9.8.2", dns=("10.9.8.3", "10.9.8.4"), mtu=1450)
    return WriteSeed(
        instance=InstanceId(instance),
        hostname="web",
        domain="inn.internal",
        ssh_keys=(KEY,),
        user_data=None,
        cards=(card,),
    )


def write_seed(path: Path, seed: WriteSeed, user_data: bytes | None = None) -> Path:
    """In place, as a clone finds another disk where its template had one."""
    path.write_bytes(iso(seed_files(seed, user_data)).ljust(SEED_BYTES, b"\0"))
    return path


def identity(seed: WriteSeed, time_ns: int, number: int = 1, *, cloud_init: bool = False) -> Identity:
    """What a host would tell a clone with this seed; `number` tells siblings apart."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return Identity(
        instance=seed.instance,
        hostname=seed.hostname,
        domain=seed.domain,
        machine_id=f"{number:032x}",
        boot_id=f"{number:08x}-0000-4000-8000-000000000000",
        seed=bytes([number]) * 64,
        time_ns=time_ns,
        host_key=key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode(),
        host_key_public=f"{public} {seed.hostname}",
        cards=tuple(
            CardIdentity(
                from_mac=BORN,
                mac=card.mac,
                name=f"eth{index}",
                addresses=card.addresses,
                gateway=card.gateway,
                dns=card.dns,
                mtu=card.mtu,
            )
            for index, card in enumerate(seed.cards)
        ),
        cloud_init=cloud_init,
    )
