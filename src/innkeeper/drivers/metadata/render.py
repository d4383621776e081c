"""The words of a NoCloud seed: what cloud-init reads on an instance's first boot. Pure.

    meta-data        instance-id (a new one makes cloud-init run its first boot again), hostname, public SSH keys
    user-data        what the user gave, byte for byte
    network-config   version 2: a static address for each card, found by its MAC

All but user-data is written as JSON, which is YAML too: in it nothing that looks like a number, a time or a `no`
changes its type on the way. There is no vendor-data: a guest is configured by its template and its user alone.
"""

from __future__ import annotations

import json
from ipaddress import ip_address

from innkeeper.model.actions import SeedCard, WriteSeed

VOLUME_NAME = "cidata"
META_DATA = "meta-data"
USER_DATA = "user-data"
NETWORK_CONFIG = "network-config"

# cloud-init wants the file to be there; this is the shortest that it takes without a warning.
_NO_USER_DATA = b"#cloud-config\n{}\n"


def seed_files(seed: WriteSeed, user_data: bytes | None) -> dict[str, bytes]:
    """All files of the seed by name."""
    return {
        META_DATA: meta_data(seed).encode(),
        USER_DATA: _NO_USER_DATA if user_data is None else user_data,
        NETWORK_CONFIG: network_config(seed).encode(),
    }


def meta_data(seed: WriteSeed) -> str:
    """cloud-init takes the part before the first dot for the hostname, and the whole for the full name."""
    return _json(
        {
            "instance-id": seed.instance,
            "local-hostname": f"{seed.hostname}.{seed.domain}" if seed.domain else seed.hostname,
            "public-keys": list(seed.ssh_keys),
        }
    )


def network_config(seed: WriteSeed) -> str:
    return _json(
        {
            "version": 2,
            "ethernets": {f"eth{n}": _ethernet(f"eth{n}", card, seed.domain) for n, card in enumerate(seed.cards)},
        }
    )


def _ethernet(name: str, card: SeedCard, domain: str) -> dict[str, object]:
    # Without a name of its own, renderers that know no matching (ifupdown) would configure a card that does not exist.
    config: dict[str, object] = {
        "match": {"macaddress": card.mac.lower()},
        "set-name": name,
        "dhcp4": False,
        "dhcp6": False,
        "addresses": list(card.addresses),
        "mtu": card.mtu,
    }
    if card.gateway is not None:
        # Not `gateway4`: newer cloud-init reports it as deprecated, and then calls its whole run degraded.
        everywhere = "0.0.0.0/0" if ip_address(card.gateway).version == 4 else "::/0"
        config["routes"] = [{"to": everywhere, "via": card.gateway}]
    if card.dns:
        config["nameservers"] = {"addresses": list(card.dns), "search": [domain] if domain else []}
    return config


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
