"""Who a machine is to be, as values and as the words that the program in it reads. Pure.

Entries `key=value`, each ended by NUL. `card` begins a card, to which name, mac, address, gateway, dns and mtu after it
belong. A guest passes over keys that it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from innkeeper.drivers.guestlink.frames import PAYLOAD_MAX, Feature, Hello, Unsendable, WireError, printable

SEED_BYTES = 64
_FAULTS_READ = 4096


class IdentityFailed(Exception):
    """A guest cannot be given an identity, or could not take on all of it: it must not be connected to a network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardIdentity:
    """`from_mac` is the address that the card was born with, by which the guest finds it."""

    from_mac: str
    mac: str
    name: str | None = None
    addresses: tuple[str, ...] = ()  # with prefix length: 10.1.2.3/20
    gateway: str | None = None
    dns: tuple[str, ...] = ()
    mtu: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What is None or empty stays as it is in the guest.

    `time_ns` is the time since 1970 at the moment of sending; `cloud_init`, that it is to run anew at once and not only
    when the machine boots next.
    """

    instance: str
    hostname: str
    domain: str = ""
    machine_id: str  # 32 hexadecimal digits
    boot_id: str  # a UUID
    seed: bytes = field(repr=False)
    time_ns: int | None
    host_key: str | None = field(default=None, repr=False)  # OpenSSH's form, ed25519
    host_key_public: str | None = None
    cards: tuple[CardIdentity, ...] = ()
    cloud_init: bool = False


def encode_identity(identity: Identity) -> bytes:
    """The payload of IDENTITY.

    Raises:
        Unsendable: a value has no form on the wire.
    """
    if len(identity.seed) != SEED_BYTES:
        raise Unsendable(f"the seed has {len(identity.seed)} bytes; it takes {SEED_BYTES}")
    payload = b"".join(_entry(key, value) for key, value in (*_own(identity), *_of_cards(identity.cards)))
    if len(payload) > PAYLOAD_MAX:
        raise Unsendable(f"the identity takes {len(payload)} bytes, at most {PAYLOAD_MAX} fit; give it fewer cards")
    return payload


def entries(payload: bytes) -> tuple[tuple[str, str], ...]:
    """The guest's side of encode_identity: keys and values in their order."""
    if not payload.endswith(b"\0"):
        raise WireError("the identity was cut off; nothing of it was taken on")
    parted = (entry.decode().partition("=") for entry in payload[:-1].split(b"\0"))
    return tuple((key, value) for key, equals, value in parted if equals)


def require_identity(hello: Hello) -> None:
    """Raises IdentityFailed when the guest's program is too old for it."""
    if Feature.IDENTITY not in hello.features:
        raise IdentityFailed(
            f"the guest's program {hello.version} takes no identity; build its template again with this release"
        )


def require_all_done(doing: str, faults: bytes) -> None:
    """Raises IdentityFailed with the guest's words about what it could not do."""
    if faults:
        words = "; ".join(filter(None, map(printable, faults[:_FAULTS_READ].split(b"\n"))))
        raise IdentityFailed(f"the guest could not {doing}: {words or 'it did not say why'}")


def _own(identity: Identity) -> Iterator[tuple[str, str | None]]:
    yield "seed", identity.seed.hex()
    yield "time_ns", None if identity.time_ns is None else str(identity.time_ns)
    yield "instance", identity.instance
    yield "machine_id", identity.machine_id
    yield "boot_id", identity.boot_id
    yield "hostname", identity.hostname
    yield "domain", identity.domain or None
    yield "host_key", identity.host_key
    yield "host_key_public", None if identity.host_key_public is None else identity.host_key_public.strip()
    yield "cloud_init", "1" if identity.cloud_init else "0"


def _of_cards(cards: tuple[CardIdentity, ...]) -> Iterator[tuple[str, str | None]]:
    for card in cards:
        yield "card", card.from_mac.lower()
        yield "name", card.name
        yield "mac", card.mac.lower()
        for address in card.addresses:
            yield "address", address
        yield "gateway", card.gateway
        for server in card.dns:
            yield "dns", server
        yield "mtu", None if card.mtu is None else str(card.mtu)


def _entry(key: str, value: str | None) -> bytes:
    """Nothing for None: what is not said stays as it is."""
    if value is None:
        return b""
    # A private key is the only text of several lines. What is wrong with it is not repeated.
    if "\0" in value or (key != "host_key" and any(char < " " for char in value)):
        raise Unsendable(f"the identity's {key} holds characters that have no place in it")
    return f"{key}={value}".encode() + b"\0"
