"""Who a clone becomes: what was planned for it, and what only its host may draw, so that nobody else ever has it."""

from __future__ import annotations

import os
import time
import uuid

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from innkeeper.drivers.guestlink.identity import SEED_BYTES, CardIdentity, Identity
from innkeeper.model.actions import Warm
from innkeeper.model.ids import InstanceId


def new_identity(instance: InstanceId, warm: Warm) -> Identity:
    """The SSH host key is nowhere but in the guest once this is told and forgotten."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return Identity(
        instance=instance,
        seed=os.urandom(SEED_BYTES),
        time_ns=time.time_ns(),
        hostname=warm.hostname,
        domain=warm.domain,
        machine_id=warm.machine_id,
        boot_id=str(uuid.uuid4()),
        host_key=private.decode(),
        host_key_public=f"{public.decode()} root@{warm.hostname}",
        cards=tuple(
            CardIdentity(
                from_mac=card.baked_mac,
                name=f"eth{number}",
                mac=card.becomes.mac,
                addresses=card.becomes.addresses,
                gateway=card.becomes.gateway,
                dns=card.becomes.dns,
                mtu=card.becomes.mtu,
            )
            for number, card in enumerate(warm.cards)
        ),
        cloud_init=warm.configure,
    )
